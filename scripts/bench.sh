#!/usr/bin/env bash
# bench.sh [BIN]: what the broker carries on this machine, over loopback, with full recording.
set -euo pipefail
# shellcheck source=scripts/broker.sh
source "$(dirname "$0")/../scripts/broker.sh"

enter "${1-}"

start_broker "$bin/arena-broker" --host 127.0.0.1 --port 0 --memory-limit 512MiB --dump-directory .
for size in 64 4096 100000; do
    printf '\nRPC responses of %s bytes\n' "$size"
    "$bin/arena-bench" devices --port "$broker_port" --devices 100 --commands 20000 --payload-size "$size" \
        --outstanding 64 --qos 1 --time-limit 60
done
stop_broker
