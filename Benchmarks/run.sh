#!/usr/bin/env bash
# run.sh: our arena, everything recorded, beside allocators that record nothing (malloc, jemalloc, mimalloc) and beside
# Netty's pooled buffers, all in one run. Peers that are not installed are left out, with a word on how to get them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$here"

note() { printf 'bench: %s\n' "$*" >&2; }
library() { find /usr/lib /usr/local/lib -name "$1" -print -quit 2>/dev/null; }

swift build -c release --product arena-benchmark >&2
benchmark=$(swift build -c release --show-bin-path)/arena-benchmark

columns=()
measure() { # measure COLUMN COMMAND...
    columns+=("$1")
    note "$1"
    "${@:2}" >"$work/$1" 2>"$work/errors" || { cat "$work/errors" >&2; return 1; }
}

measure arena "$benchmark" arena
measure malloc "$benchmark" malloc
for peer in jemalloc:libjemalloc.so.2:libjemalloc2 mimalloc:libmimalloc.so.2.0:libmimalloc2.0; do
    IFS=: read -r name file package <<<"$peer"
    path=$(library "$file")
    if [[ -n $path ]]; then
        measure "$name" env LD_PRELOAD="$path" "$benchmark" malloc
    else
        note "no $name: apt-get install $package"
    fi
done
jars=/usr/share/java
if command -v javac >/dev/null && [[ -e $jars/netty-buffer.jar ]]; then
    path=$jars/netty-buffer.jar:$jars/netty-common.jar
    javac -cp "$path" -d "$work" netty/NettyBenchmark.java
    java_options=(-XX:MaxDirectMemorySize=6g -Dio.netty.maxDirectMemory=6442450944 -cp "$path:$work")
    measure netty java -Dio.netty.leakDetection.level=disabled "${java_options[@]}" NettyBenchmark
    measure netty-paranoid java -Dio.netty.leakDetection.level=paranoid "${java_options[@]}" NettyBenchmark short
else
    note 'no Netty: apt-get install libnetty-java default-jdk-headless'
fi

printf '\nCPU nanoseconds, best round (last lines: how many times one thread); in brackets, times the arena\n\n'
(cd "$work" && awk -F '\t' '
    FNR == 1 { columns[++count] = FILENAME }
    { if (!($1 in seen)) { seen[$1] = 1; order[++rows] = $1 } figure[$1, FILENAME] = $2 }
    END {
        printf "%-34s", ""
        for (c = 1; c <= count; c++) printf "%18s", columns[c]
        print ""
        for (r = 1; r <= rows; r++) {
            printf "%-34s", order[r]
            ours = figure[order[r], columns[1]]
            for (c = 1; c <= count; c++) {
                value = figure[order[r], columns[c]]
                text = value == "" ? "-" : c == 1 || order[r] ~ /time/ || !ours ? sprintf("%.1f", value) \
                    : sprintf("%.1f (%.1fx)", value, value / ours)
                printf "%18s", text
            }
            print ""
        }
    }' "${columns[@]}")
