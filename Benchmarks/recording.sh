#!/usr/bin/env bash
# recording.sh [ROUNDS]: what recording every buffer costs the broker. Two builds, the product's and one whose arena records
# nothing, take the same traffic in turns; compared are the medians of the broker's CPU time for each delivered message.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-7}
messages=${MESSAGES:-400000}

note() { printf 'recording: %s\n' "$*" >&2; }
note 'building both'
swift build -c release --product arena-broker >&2
swift build -c release --product arena-bench >&2
swift build -c release --product arena-broker --scratch-path .build-recording-off -Xswiftc -DARENA_RECORDING_OFF >&2
declare -A broker
broker[on]=$(swift build -c release --show-bin-path)/arena-broker
bench=$(dirname "${broker[on]}")/arena-bench
broker[off]=$(swift build -c release --scratch-path .build-recording-off --show-bin-path)/arena-broker

work=$(mktemp -d)
pid=
stop() { if [[ -n $pid ]]; then kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; pid=; fi; }
trap 'stop; rm -rf "$work"' EXIT

start() { # start COMMAND...: a broker on a free port
    : >"$work/log"
    "$@" --port 0 --threads 1 --memory-limit 256MiB --dump-directory "$work" 2>"$work/log" &
    pid=$!
    for _ in $(seq 600); do
        port=$(sed -n 's/.*listening on [^ ]*:\([0-9]*\).*/\1/p' "$work/log" | head -1)
        [[ -n $port ]] && return
        sleep 0.1
    done
    cat "$work/log" >&2
    return 1
}

traffic() { # traffic SHAPE CLIENTS QOS SIZE MESSAGES
    "$bench" traffic --port "$port" --shape "$1" --clients "$2" --qos "$3" --payload-size "$4" --messages "$5" \
        --server-pid "$pid" --time-limit 300 --format json
}

# shape:clients:qos:payload bytes:a share of the messages, so that each has about as many deliveries
shapes='pairs:4:0:64:1 pairs:4:1:64:1 fan-out:50:0:64:25 pairs:4:1:4096:2'
for round in $(seq "$rounds"); do
    note "round $round of $rounds"
    for build in on off; do
        start "${broker[$build]}"
        for shape in $shapes; do
            IFS=: read -r name clients qos size share <<<"$shape"
            traffic "$name" "$clients" "$qos" "$size" $((messages / share)) |
                sed -n 's/.*"delivered": \([0-9]*\).*"server_cpu_seconds": \([0-9.]*\).*/\1 \2/p' |
                awk '{ print $2 / $1 * 1e9 }' >>"$work/$build.$shape"
        done
        stop
    done
done

median() { sort -n "$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
printf '\n%-22s %16s %16s %8s\n' 'CPU ns a delivery' 'recording on' 'off' 'cost'
for shape in $shapes; do
    a=$(median "$work/on.$shape") b=$(median "$work/off.$shape")
    printf '%-22s %16.0f %16.0f %7.1f%%\n' "${shape%:*}" "$a" "$b" "$(awk "BEGIN { print ($a / $b - 1) * 100 }")"
done
