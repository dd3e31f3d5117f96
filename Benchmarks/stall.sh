#!/usr/bin/env bash
# stall.sh [BIN [CASE...]]: how long packets that order much work keep another client's PINGRESP waiting, on one loop. Needs
# python3. Exit code 1 if that is 50 ms or more.
set -euo pipefail
# shellcheck source=scripts/broker.sh
source "$(dirname "$0")/../scripts/broker.sh"

enter "${1-}"
mkdir dumps
start() {
    start_broker "$bin/arena-broker" --host 127.0.0.1 --port 0 --threads 1 --memory-limit $((512 << 20)) \
        --dump-directory dumps "$@"
}
start
status=0
python3 "$root/Benchmarks/pressure/stall.py" --port "$broker_port" "${@:2}" || status=1
if (($# < 2)); then
    stop_broker || status=1
    printf '\nwith a data directory\n'
    start --data-directory data --set limits.maxQueuedMessages=100000
    python3 "$root/Benchmarks/pressure/stall.py" --port "$broker_port" alone groups_owed groups session_end || status=1
fi
exit "$status"
