#!/usr/bin/env bash
# sanitize.sh address|thread debug|release: the arena's tests under a sanitizer.
# Each combination has its own scratch path, which swarm.sh uses too: instrumented and plain objects do not mix.
set -euo pipefail
cd "$(dirname "$0")/.."

sanitizer=$1 configuration=$2
arguments=(--sanitize="$sanitizer" --configuration "$configuration" --scratch-path ".build-$sanitizer-$configuration")
if [[ $configuration == release ]]; then
    arguments+=(-Xswiftc -enable-testing)
fi
export LSAN_OPTIONS="suppressions=$PWD/scripts/lsan.supp:print_suppressions=0"
export TSAN_OPTIONS="suppressions=$PWD/scripts/tsan.supp"
# A filter that matches nothing would pass.
swift test "${arguments[@]}" --filter '^ArenaTests\.' |
    awk '{ print; fflush() } /Test run with [1-9]/ { ran = 1 } END { exit !ran }'
