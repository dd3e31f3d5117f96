#!/usr/bin/env bash
# analyze.sh [BUFFERS [COMMAND]]: every command of arena-analyze on a synthetic dump of that many buffers (10,000,000 by
# default): time and peak memory, beside zstd -dc on the same file. With COMMAND, that command only.
# The dumps stay in DUMPS (Benchmarks/.build/dumps by default), so that the next run need not write them again; they are
# written again when the format's version has changed.
set -euo pipefail
cd "$(dirname "$0")"
buffers=${1:-10000000}
dumps=${DUMPS:-$PWD/.build/dumps}

swift build -c release --package-path .. --product arena-analyze >&2
swift build -c release --product dump-generator >&2
swift build -c release --product analyzer-benchmark >&2
tools=$(swift build -c release --show-bin-path)
version=$(sed -nE 's/.*current = Version\(major: ([0-9]+), minor: ([0-9]+)\).*/\1.\2/p' ../Sources/DumpFormat/Block.swift)
mkdir -p "$dumps"
for generation in 0 1; do
    dump=$dumps/v$version-$buffers-$generation.dump.zst
    [[ -e $dump ]] || "$tools/dump-generator" "$buffers" "$dump" "$generation" >&2
done
analyzer=$(swift build -c release --package-path .. --show-bin-path)/arena-analyze
"$tools/analyzer-benchmark" "$analyzer" "$dumps/v$version-$buffers-0.dump.zst" "$dumps/v$version-$buffers-1.dump.zst" "$buffers" "${@:2:1}"
