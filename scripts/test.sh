#!/usr/bin/env bash
# Runs all tests. What failed stands at the end, a line a place, however long the output before.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

# Some tests have a thousand clients.
ulimit -n "$(ulimit -H -n)"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Four at a time: more of them would make each other late on a small machine.
SWT_EXPERIMENTAL_MAXIMUM_PARALLELIZATION_WIDTH=4 swift test --skip-build 2>&1 | tee "$log"
status=$?
((status == 0)) && exit
grep -q ' recorded an issue' "$log" || {
    printf '\nThe tests ended early. Their last lines:\n'
    tail -n 20 "$log"
    exit "$status"
}
printf '\nWhat failed, how often, where, and the first of what was said:\n'
sed -nE 's/^✘ Test (.*) recorded an issue( with .*)? at ([^ ]+:[0-9]+):[0-9]+: (.*)$/\3 \4/p' "$log" | cut -c 1-150 |
    awk '!($1 in said) { said[$1] = $0 } { ++count[$1] } END { for (place in said) print count[place], said[place] }' |
    sort -rn | head -n 20
exit "$status"
