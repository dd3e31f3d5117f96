#!/usr/bin/env bash
# manual.sh [BIN [DIRECTORY]]: writes the manual pages, one for each program and each of its commands, from the same
# source as their --help, where Debian packages have them below usr/share. Fails if a command has no page.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${1:-.build/release}
target=${2:-.build/deploy}/usr/share/man/man1
case $(cd "$bin" && pwd -P) in */debug) configuration=debug ;; *) configuration=release ;; esac
log=$(mktemp)
trap 'rm -f "$log"' EXIT
mkdir -p "$target"
date=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}

# The plugin of swift-argument-parser asks each program for its commands.
swift package generate-manual --multi-page --configuration "$configuration" --date "$(date -u -d "@$date" +%Y-%m-%d)" \
    >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    exit 1
}
find .build/plugins/GenerateManual/outputs -name '*.1' -exec cp {} "$target" \;

# What a program says of itself is what must be there; its own "help" needs no page.
for program in arena-analyze arena-broker arena-bench; do
    mapfile -t names < <("$bin/$program" --help | sed -n '/^SUBCOMMANDS:/,/^$/s/^  \([a-z][a-z-]*\) .*/\1/p')
    for page in "$program" "${names[@]/#/$program.}"; do
        [[ -s $target/$page.1 ]] || { printf 'manual: no page for %s\n' "$page" >&2; exit 1; }
    done
done
# What a reader would see broken, groff says; empty lines are paragraphs' ends to both. (What man says of its locale is not
# about the page.)
if command -v man >/dev/null; then
    while IFS= read -r page; do
        man --warnings -E UTF-8 -l "$page" 2>&1 >/dev/null | grep 'troff' | grep -v 'Empty input line' >"$log" || true
        [[ ! -s $log ]] || { printf 'manual: %s\n' "$page" >&2; cat "$log" >&2; exit 1; }
    done < <(find "$target" -name '*.1')
fi
find "$target" -name '*.1' | sort
