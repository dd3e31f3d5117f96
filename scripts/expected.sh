#!/usr/bin/env bash
# expected.sh [BIN [DIRECTORY]]: what arena-analyze says today about the sample dumps becomes what the tests expect.
# Read the difference before you commit it.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(cd "${1:-.build/release}" && pwd)
cd "${2:-samples/incident}"

dumps=(1-before 2-near-limit 3-at-the-limit)
for dump in "${dumps[@]}"; do
    "$bin/arena-analyze" summary "$dump.dump.zst" >"$dump.summary.expected.txt"
    "$bin/arena-analyze" sites "$dump.dump.zst" >"$dump.sites.expected.txt"
done
"$bin/arena-analyze" diff "${dumps[@]/%/.dump.zst}" >diff.expected.txt
