#!/usr/bin/env bash
# store.sh [ROUNDS]: what a data directory costs. One build takes the same QoS 1 traffic in turns without a store, with one
# that has nothing to keep (clean sessions), and with one that must keep every message; printed are medians.
set -euo pipefail
rounds=${1:-5}
messages=${MESSAGES:-200000}
export TMPDIR=${DATA:-${TMPDIR:-/tmp}}
# shellcheck source=Benchmarks/traffic.sh
source "$(dirname "$0")/traffic.sh"

for round in $(seq "$rounds"); do
    note "round $round of $rounds"
    for kind in memory idle kept; do
        rm -rf data
        flags=()
        if [[ $kind != memory ]]; then flags=(--data-directory data); fi
        start "$bin/arena-broker" "${flags[@]}"
        kept=()
        if [[ $kind == kept ]]; then kept=(--persistent); fi
        "$bin/arena-bench" traffic --port "$broker_port" --clients 4 --qos 1 --messages "$messages" --server-pid "$broker_pid" \
            --time-limit 300 --format json "${kept[@]}" >result
        for figure in per_second per_cpu_second p50_ms p99_ms; do
            sed -n "s/.*\"$figure\": \([0-9.]*\).*/\1/p" result >>"$kind.$figure"
        done
        stop_broker
    done
done

printf '\n%-34s %10s %14s %9s %9s\n' 'QoS 1, 4 pairs, 64 bytes' 'per second' 'per CPU second' 'p50 ms' 'p99 ms'
row() {
    printf '%-34s %10.0f %14.0f %9.2f %9.2f\n' "$2" "$(median <"$1.per_second")" \
        "$(median <"$1.per_cpu_second")" "$(median <"$1.p50_ms")" "$(median <"$1.p99_ms")"
}
row memory 'in memory'
row idle 'data directory, clean sessions'
row kept 'data directory, kept sessions'
