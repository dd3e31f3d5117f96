#!/usr/bin/env bash
# swarm.sh plain|address|thread [ARGUMENT...]: random clients against a broker that was built with that sanitizer, held to
# a model (Tests/Swarm). SEED, MINUTES and ROUND say what is played; arguments are swarm.py's.
#
# Each sanitizer has its own scratch path, as in sanitize.sh: instrumented and plain objects do not mix.
set -euo pipefail
cd "$(dirname "$0")/.."

kind=$1
shift
# shellcheck source=scripts/rounds.sh
source scripts/rounds.sh
build=(swift build)
bin=.build/debug
if [[ $kind != plain ]]; then
    build+=(--sanitize="$kind" --scratch-path ".build-$kind-debug")
    bin=.build-$kind-debug/debug
    arguments+=(--sanitizer)
fi
# Where several loops write at once is what the thread sanitizer is for.
[[ $kind == thread ]] && arguments+=(--loops 4)
"${build[@]}" --product arena-broker
"${build[@]}" --product arena-analyze
export ASAN_OPTIONS=abort_on_error=0:exitcode=99
export LSAN_OPTIONS="suppressions=$PWD/scripts/lsan.supp:print_suppressions=0"
export TSAN_OPTIONS=halt_on_error=1:exitcode=66:suppressions=$PWD/scripts/tsan.supp
exec python3 Tests/Swarm/swarm.py --bin "$bin" "${arguments[@]}" "$@"
