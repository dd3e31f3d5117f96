#!/usr/bin/env bash
# pressure.sh [BIN] [SECONDS]: what the broker does when there is more than it can take.
#
# 1,000 publishers at full speed for SECONDS (default 120), half of them 3.1.1 and half 5.0, against a limit of 256 MiB
# and two queues that nobody empties; the same for at most 20 seconds with the queues in a data directory; then floods of
# connections and subscriptions, and a wildcard over 100,000 retained messages. Needs python3. Exit code 1 if something
# acknowledged was lost, or memory passed the limit by 10 percent.
set -euo pipefail
# shellcheck source=scripts/broker.sh
source "$(dirname "$0")/../scripts/broker.sh"

enter "${1-}"
seconds=${2:-120}
limit=$((256 << 20))
mkdir dumps
ulimit -n "$(ulimit -H -n)"
flood() { python3 "$root/Benchmarks/pressure/flood.py" "$1" --port "$broker_port" --pid "$broker_pid" "${@:2}"; }
start() { start_broker "$bin/arena-broker" --host 127.0.0.1 --port 0 --dump-directory dumps --config broker.toml "$@"; }

failed=0
# publishers LIMIT SECONDS PAYLOAD: what is lost, and what is resident, in percent of the limit.
publishers() {
    local most
    flood publishers --payload "$3" --seconds "$2" | tee result || failed=1
    most=$(sed -n 's/^resident at most //p' result)
    printf 'of the limit, percent %s\n' "$((most * 100 / $1))"
    ((most * 10 <= $1 * 11)) || failed=1
}

for payload in 64 1024 16384; do
    printf '[limits]\nmaxQueuedMessages = 100000000\nmaxQueuedBytes = 1099511627776\n' >broker.toml
    rm -f dumps/*
    start --memory-limit "$limit"
    printf '\n1,000 publishers, %s bytes\n' "$payload"
    publishers "$limit" "$seconds" "$payload"
    printf 'dumps near the limit %s, for refusals %s\n' "$(count_lines 'dump written.*near-limit')" \
        "$(count_lines 'dump written.*allocation-failure')"
    stop_broker || failed=1
done

start --memory-limit "$limit" --data-directory data
printf '\n1,000 publishers, 1024 bytes, with a data directory\n'
publishers "$limit" $((seconds < 20 ? seconds : 20)) 1024
printf 'data directory, bytes %s\n' "$(du -sb data | cut -f1)"
stop_broker || failed=1

# crowd SECONDS ARGUMENT...: the broker's own memory, in percent of the limit of 64 MiB.
crowd() {
    local most
    start --memory-limit 64MiB --threads 2 "${@:2}"
    flood crowd --count 2600 --clients 200 --payload 5000 --seconds "$1" | tee result || failed=1
    most=$(sed -n 's/^own memory at most //p' result)
    printf 'of the limit, percent %s\n' "$((most * 100 / (64 << 20)))"
    ((most * 10 <= (64 << 20) * 11)) || failed=1
    stop_broker || failed=1
}
printf '[limits]\nmaxQueuedMessages = 100000\n' >broker.toml
printf '\n2,600 subscribers that read nothing, 200 publishers, 5000 bytes\n'
crowd $((seconds < 20 ? seconds : 20))
rm -rf data
printf '\nthe same with a data directory\n'
crowd $((seconds < 20 ? seconds : 20)) --data-directory data

printf '[limits]\nmaxSubscriptionBytesPerSession = 1073741824\n' >broker.toml
start --memory-limit 512MiB
files=$(ulimit -n)
printf '\nconnections\n'
flood connections --count $((files > 15500 ? 15000 : files - 500)) || failed=1
stop_broker || failed=1
start --memory-limit 512MiB
printf '\nsubscriptions\n'
flood subscriptions --count 1000000 || failed=1
stop_broker || failed=1
start --memory-limit 512MiB
printf '\nretained messages\n'
flood retained --count 100000 --payload 1000 || failed=1
stop_broker || failed=1
exit "$failed"
