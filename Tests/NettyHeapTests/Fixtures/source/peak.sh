#!/usr/bin/env bash
# peak.sh: makes the dumps of Peak.java and Pools.java again, and prints what Netty's own collections had.
#     peak.sh OUT.hprof.zst PROGRAM NETTY_JAR...        PROGRAM may have arguments: 'Peak heap'
# HEAP is the Java heap's limit: with 512m or less the adaptive allocator has no magazines of threads' own.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(realpath -m "$1")
read -r -a program <<<"$2"
shift 2
path=$(realpath "$@" | paste -s -d :)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
javac -nowarn -XDstringConcat=inline -cp "$path" -d . "$here/${program[0]}.java"
options=(
    "-Xmx${HEAP:-600m}" -Xshare:off -XX:+UseSerialGC -XX:TieredStopAtLevel=1 --limit-modules 'java.base,jdk.unsupported,java.logging'
    --add-opens java.base/java.nio=ALL-UNNAMED -Dio.netty.tryReflectionSetAccessible=true
    -XX:MaxDirectMemorySize=200m -Dio.netty.leakDetection.level=disabled
)
mkfifo go
java "${options[@]}" -cp "$path:." "${program[@]}" <go >facts 2>/dev/null &
process=$!
exec 3>go
until grep -q "^ready" facts; do sleep 0.1; done
jcmd $process GC.heap_dump "$work/live.hprof" >/dev/null
echo >&3
wait $process || true
cat facts
"$here/slim.py" live.hprof
zstd -q --ultra -22 live.hprof -fo "$out"
