#!/usr/bin/env bash
# stall.sh [BIN [CASE...]]: how long packets that order much work keep another client's PINGRESP waiting, on one loop. Needs
# python3. Exit code 1 if that is 50 ms or more.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/broker.sh
source "$root/scripts/broker.sh"

bin=$(cd "${1:-$root/.build/release}" && pwd)
work=$(mktemp -d)
trap 'stop_broker || true; rm -rf "$work"' EXIT
cd "$work"
mkdir dumps
start_broker "$bin/arena-broker" --host 127.0.0.1 --port 0 --threads 1 --memory-limit $((512 << 20)) --dump-directory dumps
python3 "$root/Benchmarks/pressure/stall.py" --port "$broker_port" "${@:2}"
