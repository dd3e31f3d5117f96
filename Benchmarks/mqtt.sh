#!/usr/bin/env bash
# mqtt.sh [ROUNDS]: arena-broker and mosquitto take the same traffic in turns, each with one thread for its clients, on the same
# machine. Compared are deliveries per second of the broker's CPU time, and the latency at full speed: medians over the rounds.
#
#   SCALE   makes all runs that many times longer (default 1)
set -euo pipefail
rounds=${1:-5}
scale=${SCALE:-1}
# shellcheck source=Benchmarks/traffic.sh
source "$(dirname "$0")/traffic.sh"
peer=$(command -v mosquitto || printf /usr/sbin/mosquitto)

start_ours() { start "$bin/arena-broker"; }

# With its limits for messages under way lifted: otherwise it drops what a window holds.
start_peer() {
    broker_port=$((20000 + RANDOM % 10000))
    printf '%s\n' "listener $broker_port 127.0.0.1" 'allow_anonymous true' 'max_queued_messages 0' 'max_inflight_messages 0' \
        'set_tcp_nodelay true' >peer.conf
    launch "$peer" -c peer.conf
    await_line 1 60 'mosquitto version [0-9.]* running' >/dev/null || fail 'mosquitto did not start'
}

# shape:clients:qos:window:messages. The window is 256 messages for each connection that something is delivered to, but for
# fan-in, where it is for each that publishes.
shapes='pairs:4:0:1024:400000 fan-out:50:0:12800:20000 fan-in:8:0:2048:400000 pairs:4:1:1024:200000'
for round in $(seq "$rounds"); do
    note "round $round of $rounds"
    for broker in ours peer; do
        "start_$broker"
        for shape in $shapes; do
            IFS=: read -r name clients qos window messages <<<"$shape"
            # A slower broker gets fewer: the CPU time is what counts, and that is in hundredths of a second.
            [[ $broker == ours ]] || messages=$((messages / 4))
            "$bin/arena-bench" traffic --port "$broker_port" --shape "$name" --clients "$clients" --qos "$qos" \
                --window "$window" --messages $((messages * scale)) --server-pid "$broker_pid" --time-limit 300 --format json |
                sed -n 's/.*"per_cpu_second": \([0-9.]*\), "p50_ms": [0-9.]*, "p99_ms": \([0-9.]*\).*/\1 \2/p' \
                    >>"$broker.$shape"
        done
        stop_broker
    done
done

printf '\n%s beside arena-broker, 64-byte payloads, %s rounds, medians\n' \
    "$("$peer" -h | head -1 | tr -d '\r')" "$rounds"
printf '%-18s %14s %14s %7s %14s %14s %7s\n' 'deliveries' 'ours /CPU s' 'peer /CPU s' 'ratio' 'ours p99 ms' 'peer p99 ms' 'ratio'
for shape in $shapes; do
    IFS=: read -r name clients qos _ _ <<<"$shape"
    a=$(cut -d' ' -f1 "ours.$shape" | median) b=$(cut -d' ' -f1 "peer.$shape" | median)
    c=$(cut -d' ' -f2 "ours.$shape" | median) d=$(cut -d' ' -f2 "peer.$shape" | median)
    printf '%-18s %14.0f %14.0f %6.1fx %14.2f %14.2f %6.2fx\n' "$clients $name QoS $qos" "$a" "$b" \
        "$(awk "BEGIN { print $a / $b }")" "$c" "$d" "$(awk "BEGIN { print $c / $d }")"
done
