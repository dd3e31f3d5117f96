#!/usr/bin/env bash
# manual.sh [BIN [DIRECTORY]]: writes the manual pages, one for each program and each of its commands, from the same
# source as their --help, where Debian packages have them below usr/share. Fails if a command has no page.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${1:-.build/release}
target=${2:-.build/deploy}/usr/share/man/man1
log=$(mktemp)
pages=$(mktemp -d)
trap 'rm -rf "$log" "$pages"' EXIT
mkdir -p "$target"
date=$(date -u -d "@$(scripts/version.sh --date)" +%Y-%m-%d)

# The tool of swift-argument-parser's plugin, which asks a program for its commands. Asked for its help, the plugin builds its tool,
# and none of our programs, which it would build anew.
tool() {
    local directory
    for directory in "$bin" .build/*/debug .build/*/release; do
        [[ ! -x $directory/generate-manual-tool ]] || { printf '%s\n' "$directory/generate-manual-tool"; break; }
    done
}
tool=$(tool)
if [[ -z $tool ]]; then
    swift package generate-manual --help >"$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }
    tool=$(tool)
    [[ -n $tool ]] || { echo 'manual: swift package generate-manual has left no tool' >&2; exit 1; }
fi

# What a program says of itself is what must be there; its own "help" needs no page.
for program in arena-analyze arena-broker arena-bench; do
    "$tool" "$(cd "$bin" && pwd)/$program" --multi-page --date "$date" --output-directory "$pages"
    mapfile -t names < <("$bin/$program" --help | sed -n '/^SUBCOMMANDS:/,/^$/s/^  \([a-z][a-z-]*\) .*/\1/p')
    for page in "$program" "${names[@]/#/$program.}"; do
        [[ -s $pages/$page.1 ]] || { printf 'manual: no page for %s\n' "$page" >&2; exit 1; }
    done
done

# Pages are named as man looks for them: `man arena-analyze buffers` finds arena-analyze-buffers, and so does `man -k`, which takes
# no name with a space in it. An empty line is a paragraph's end.
for page in "$pages"/*.1; do
    name=$(basename "$page" .1)
    [[ $name != *.help ]] || continue
    sed -e '/^\.Xr .*\.help 1 ,$/d' -e 's/^$/.Pp/' -e 's/^\(\.\(Dt\|Xr\) [a-zA-Z]*-[a-zA-Z]*\)\./\1-/' \
        -e "0,/^\\.Nm /s/^\\.Nm .*/.Nm ${name/./-}/" -e "0,/^\\.Nm\$/s/^\\.Nm\$/.Nm \"${name/./ }\"/" "$page" >"$target/${name/./-}.1"
done

# What a reader would see broken, groff says. (What man says of its locale is not about the page.)
if command -v man >/dev/null; then
    while IFS= read -r page; do
        man --warnings -E UTF-8 -l "$page" 2>&1 >/dev/null | grep 'troff' >"$log" || true
        [[ ! -s $log ]] || { printf 'manual: %s\n' "$page" >&2; cat "$log" >&2; exit 1; }
    done < <(find "$target" -name '*.1')
fi
find "$target" -name '*.1' | sort
