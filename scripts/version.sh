#!/usr/bin/env bash
# version.sh [--package | --date]: the version, from the one place that has it, Sources/Version/Version.swift.
#
#   --package   that of a package: the same if CHANGELOG.md has its release; else with the time and commit of its source, behind
#               a tilde, by which it sorts before the release
#   --date      seconds since 1970 of that source, or SOURCE_DATE_EPOCH: what is made of the same source at any time is the same
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed -nE 's/^public let programVersion = "([0-9]+\.[0-9]+\.[0-9]+)"$/\1/p' Sources/Version/Version.swift)
[[ -n $version ]] || { echo 'version: Sources/Version/Version.swift has none' >&2; exit 1; }

date=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date -r CHANGELOG.md +%s)}
commit=$(git rev-parse --short=8 HEAD 2>/dev/null || echo unknown)

case ${1:-} in
'') printf '%s\n' "$version" ;;
--date) printf '%s\n' "$date" ;;
--package)
    if grep -qF "## [$version] - " CHANGELOG.md; then
        printf '%s\n' "$version"
    else
        printf '%s~%s.%s\n' "$version" "$(date -u -d "@$date" +%Y%m%d.%H%M%S)" "$commit"
    fi
    ;;
*)
    echo 'usage: version.sh [--package | --date]' >&2
    exit 64
    ;;
esac
