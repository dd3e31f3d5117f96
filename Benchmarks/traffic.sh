# Sourced, not run: what benchmarks of the broker under traffic begin with. Builds it and the client, and goes to a directory
# of our own.
# shellcheck shell=bash

# shellcheck source=scripts/broker.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/broker.sh"

note() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# start BROKER ARGUMENT...: one loop, on a free port.
start() { start_broker "$@" --host 127.0.0.1 --port 0 --threads 1 --memory-limit 256MiB --dump-directory .; }

# Of the numbers on standard input, one a line.
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

note 'building'
for product in arena-broker arena-bench; do
    swift build -c release --package-path "$root" --product "$product" >&2
done
enter "$root/.build/release"
