#!/usr/bin/env bash
# recording.sh [ROUNDS]: what recording every buffer costs the broker. Two builds, the product's and one whose arena records
# nothing, take the same traffic in turns; compared are the medians of the broker's CPU time for each delivered message.
set -euo pipefail
rounds=${1:-7}
messages=${MESSAGES:-400000}
# shellcheck source=Benchmarks/traffic.sh
source "$(dirname "$0")/traffic.sh"
declare -A broker
broker[on]=$bin/arena-broker
swift build -c release --package-path "$root" --product arena-broker --scratch-path "$root/.build-recording-off" \
    -Xswiftc -DARENA_RECORDING_OFF >&2
broker[off]=$root/.build-recording-off/release/arena-broker

traffic() { # traffic SHAPE CLIENTS QOS SIZE MESSAGES
    "$bin/arena-bench" traffic --port "$broker_port" --shape "$1" --clients "$2" --qos "$3" --payload-size "$4" --messages "$5" \
        --server-pid "$broker_pid" --time-limit 300 --format json
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
                awk '{ print $2 / $1 * 1e9 }' >>"$build.$shape"
        done
        stop_broker
    done
done

printf '\n%-22s %16s %16s %8s\n' 'CPU ns a delivery' 'recording on' 'off' 'cost'
for shape in $shapes; do
    a=$(median <"on.$shape") b=$(median <"off.$shape")
    printf '%-22s %16.0f %16.0f %7.1f%%\n' "${shape%:*}" "$a" "$b" "$(awk "BEGIN { print ($a / $b - 1) * 100 }")"
done
