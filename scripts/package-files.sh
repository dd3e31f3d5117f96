#!/usr/bin/env bash
# package-files.sh BIN ROOT: puts what every package has below ROOT/usr: the programs of BIN, their manual pages and
# completions, the documentation, the sample dumps, and the licenses of what is linked into the programs.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1 root=$2

for program in arena-broker arena-analyze arena-bench; do
    install -D -m 755 "$bin/$program" "$root/usr/bin/$program"
done
scripts/manual.sh "$bin" "$root" >/dev/null
scripts/completions.sh "$bin" "$root" >/dev/null

doc=$root/usr/share/doc/arena-broker
install -d "$doc/docs" "$doc/examples"
install -m 644 README.md "$doc/"
install -m 644 docs/*.md "$doc/docs/"
install -m 644 samples/incident/{README.md,*.dump.zst} "$doc/examples/"

# Each text once, with the libraries that it is of.
licenses() {
    local checkouts=$1 file sum
    local -A text=() libraries=()
    while IFS= read -r file; do
        sum=$(sha256sum <"$file")
        text[$sum]=$file
        libraries[$sum]+=" $(basename "$(dirname "${file#"$checkouts"/}")")"
    done < <(find "$checkouts" -mindepth 2 -maxdepth 2 -type f \( -iname 'LICENSE*' -o -iname 'NOTICE*' \) | LC_ALL=C sort)
    ((${#text[@]} > 0)) || { printf 'package-files: no licenses in %s\n' "$checkouts" >&2; exit 1; }
    printf 'The programs contain libraries of others, under these terms, and the Swift runtime, under those of swift-nio with the\nRuntime Library Exception (https://swift.org/LICENSE.txt).\n'
    for sum in "${!text[@]}"; do
        printf '%s\t%s\n' "${libraries[$sum]# }" "${text[$sum]}"
    done | LC_ALL=C sort | while IFS=$'\t' read -r names file; do
        printf '\n---- %s: %s\n\n' "$names" "$(basename "$file")"
        cat "$file"
    done
}
licenses "$(cd "$bin" && pwd -P)/../../checkouts" >"$doc/third-party.txt"
