#!/usr/bin/env bash
# changelog.sh [VERSION | --debian]: the release notes of VERSION out of CHANGELOG.md, as they stand there; without an argument
# those of this source's version, which are the unreleased ones until it is released. --debian: all of it as a Debian changelog.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(scripts/version.sh)

# The lines below the heading of a release, without empty ones around them.
notes() {
    awk -v wanted="## [$1]" '
        /^## / { inside = index($0, wanted) == 1; next }
        inside && /^$/ { ++empty; next }
        inside { if (written++) while (empty-- > 0) print ""; empty = 0; print }
    ' CHANGELOG.md
}

# The same as items of a Debian changelog: one for each entry, folded, below the word that it stands under.
items() {
    notes "$1" | awk '
        function fold(line, first,    words, count, i, text) {
            count = split(line, words, " ")
            text = first
            for (i = 1; i <= count; ++i) {
                if (length(text) + length(words[i]) + 1 > 79 && text != first) { print text; text = "   " }
                text = text " " words[i]
            }
            print text
        }
        function flush() { if (entry != "") fold(entry, "  *"); entry = "" }
        /^### / { flush(); print (some++ ? "\n" : "") "  [ " substr($0, 5) " ]"; next }
        /^- / { flush(); entry = substr($0, 3); next }
        /^  / { entry = entry " " substr($0, 3); next }
        /^$/ { flush(); next }
        { flush(); entry = $0 }
        END { flush() }
    '
}

debian() {
    local name heading date distribution
    local maintainer
    maintainer=$(sed -n 's/^Maintainer: //p' deploy/debian/control)
    while IFS= read -r heading; do
        name=${heading#\#\# [}
        name=${name%%]*}
        if [[ $name == Unreleased ]]; then
            # An unreleased source is packaged before its release; after it there is no unreleased package of that version.
            [[ $package != "$version" ]] || continue
            date=@$(scripts/version.sh --date) distribution=UNRELEASED name=$package
        else
            date=${heading##* - } distribution=unstable
        fi
        printf 'arena-broker (%s) %s; urgency=medium\n\n' "$name" "$distribution"
        if [[ $distribution == UNRELEASED ]]; then items Unreleased; else items "$name"; fi
        printf '\n -- %s  %s\n\n' "$maintainer" "$(LC_ALL=C date -u -R -d "$date")"
    done < <(grep '^## \[' CHANGELOG.md)
}

package=$(scripts/version.sh --package)
case ${1:-} in
--debian) debian ;;
'')
    if [[ $package == "$version" ]]; then notes "$version"; else notes Unreleased; fi
    ;;
-*)
    echo 'usage: changelog.sh [VERSION | --debian]' >&2
    exit 64
    ;;
*)
    text=$(notes "$1")
    [[ -n $text ]] || { printf 'changelog: CHANGELOG.md has no release %s\n' "$1" >&2; exit 1; }
    printf '%s\n' "$text"
    ;;
esac
