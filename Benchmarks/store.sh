#!/usr/bin/env bash
# store.sh [ROUNDS]: what a data directory costs. One build takes the same QoS 1 traffic in turns without a store, with one
# that has nothing to keep (clean sessions), and with one that must keep every message; printed are medians.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-5}
messages=${MESSAGES:-200000}

note() { printf 'store: %s\n' "$*" >&2; }
swift build -c release --product arena-broker >&2
swift build -c release --product arena-bench >&2
binaries=$(swift build -c release --show-bin-path)

work=$(mktemp -d "${DATA:-/tmp}/store-bench.XXXXXX")
pid=
stop() { if [[ -n $pid ]]; then kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; pid=; fi; }
trap 'stop; rm -rf "$work"' EXIT

start() { # start FLAG...: a broker on a free port
    : >"$work/log"
    "$binaries/arena-broker" --port 0 --threads 1 --memory-limit 256MiB --dump-directory "$work" "$@" 2>"$work/log" &
    pid=$!
    for _ in $(seq 600); do
        port=$(sed -n 's/.*listening on [^ ]*:\([0-9]*\).*/\1/p' "$work/log" | head -1)
        [[ -n $port ]] && return
        sleep 0.1
    done
    cat "$work/log" >&2
    return 1
}

for round in $(seq "$rounds"); do
    note "round $round of $rounds"
    for kind in memory idle kept; do
        rm -rf "$work/data"
        flags=()
        if [[ $kind != memory ]]; then flags=(--data-directory "$work/data"); fi
        start "${flags[@]}"
        kept=()
        if [[ $kind == kept ]]; then kept=(--persistent); fi
        "$binaries/arena-bench" traffic --port "$port" --clients 4 --qos 1 --messages "$messages" --server-pid "$pid" \
            --time-limit 300 --format json "${kept[@]}" >"$work/result"
        for figure in per_second per_cpu_second p50_ms p99_ms; do
            sed -n "s/.*\"$figure\": \([0-9.]*\).*/\1/p" "$work/result" >>"$work/$kind.$figure"
        done
        stop
    done
done

median() { sort -n "$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
printf '\n%-34s %10s %14s %9s %9s\n' 'QoS 1, 4 pairs, 64 bytes' 'per second' 'per CPU second' 'p50 ms' 'p99 ms'
row() {
    printf '%-34s %10.0f %14.0f %9.2f %9.2f\n' "$2" "$(median "$work/$1.per_second")" \
        "$(median "$work/$1.per_cpu_second")" "$(median "$work/$1.p50_ms")" "$(median "$work/$1.p99_ms")"
}
row memory 'in memory'
row idle 'data directory, clean sessions'
row kept 'data directory, kept sessions'
