#!/usr/bin/env bash
# mqtt.sh [ROUNDS]: arena-broker and mosquitto take the same traffic in turns, each with one thread for its clients, on the same
# machine. Compared are deliveries per second of the broker's CPU time, and the latency at full speed: medians over the rounds.
#
#   SCALE   makes all runs that many times longer (default 1)
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-5}
scale=${SCALE:-1}

note() { printf 'bench-mqtt: %s\n' "$*" >&2; }
note 'building'
swift build -c release --product arena-broker >&2
swift build -c release --product arena-bench >&2
bin=$(swift build -c release --show-bin-path)
peer=$(command -v mosquitto || printf /usr/sbin/mosquitto)

work=$(mktemp -d)
pid=
stop() { if [[ -n $pid ]]; then kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; pid=; fi; }
trap 'stop; rm -rf "$work"' EXIT

await() { # await PATTERN: in the broker's log; the first group is printed
    local found
    for _ in $(seq 600); do
        found=$(sed -n "s/.*$1.*/\1/p" "$work/log" | head -1)
        if [[ -n $found ]]; then
            printf '%s\n' "$found"
            return
        fi
        sleep 0.1
    done
    cat "$work/log" >&2
    return 1
}

start_ours() {
    "$bin/arena-broker" --port 0 --threads 1 --memory-limit 256MiB --dump-directory "$work" 2>"$work/log" &
    pid=$!
    port=$(await 'listening on [^ ]*:\([0-9]*\)')
}

# With its limits for messages under way lifted: otherwise it drops what a window holds.
start_peer() {
    port=$((20000 + RANDOM % 10000))
    printf '%s\n' "listener $port 127.0.0.1" 'allow_anonymous true' 'max_queued_messages 0' 'max_inflight_messages 0' \
        'set_tcp_nodelay true' >"$work/peer.conf"
    "$peer" -c "$work/peer.conf" >"$work/log" 2>&1 &
    pid=$!
    await '\(mosquitto version [0-9.]* running\)' >/dev/null
}

# shape:clients:qos:window:messages. The window is 256 messages for each connection that something is delivered to, but for
# fan-in, where it is for each that publishes.
shapes='pairs:4:0:1024:400000 fan-out:50:0:12800:20000 fan-in:8:0:2048:400000 pairs:4:1:1024:200000'
for round in $(seq "$rounds"); do
    note "round $round of $rounds"
    for broker in ours peer; do
        : >"$work/log"
        "start_$broker"
        for shape in $shapes; do
            IFS=: read -r name clients qos window messages <<<"$shape"
            # A slower broker gets fewer: the CPU time is what counts, and that is in hundredths of a second.
            [[ $broker == ours ]] || messages=$((messages / 4))
            "$bin/arena-bench" traffic --port "$port" --shape "$name" --clients "$clients" --qos "$qos" \
                --window "$window" --messages $((messages * scale)) --server-pid "$pid" --time-limit 300 --format json |
                sed -n 's/.*"per_cpu_second": \([0-9.]*\), "p50_ms": [0-9.]*, "p99_ms": \([0-9.]*\).*/\1 \2/p' \
                    >>"$work/$broker.$shape"
        done
        stop
    done
done

median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
printf '\n%s beside arena-broker, 64-byte payloads, %s rounds, medians\n' \
    "$("$peer" -h | head -1 | tr -d '\r')" "$rounds"
printf '%-18s %14s %14s %7s %14s %14s %7s\n' 'deliveries' 'ours /CPU s' 'peer /CPU s' 'ratio' 'ours p99 ms' 'peer p99 ms' 'ratio'
for shape in $shapes; do
    IFS=: read -r name clients qos _ _ <<<"$shape"
    a=$(cut -d' ' -f1 "$work/ours.$shape" | median) b=$(cut -d' ' -f1 "$work/peer.$shape" | median)
    c=$(cut -d' ' -f2 "$work/ours.$shape" | median) d=$(cut -d' ' -f2 "$work/peer.$shape" | median)
    printf '%-18s %14.0f %14.0f %6.1fx %14.2f %14.2f %6.2fx\n' "$clients $name QoS $qos" "$a" "$b" \
        "$(awk "BEGIN { print $a / $b }")" "$c" "$d" "$(awk "BEGIN { print $c / $d }")"
done
