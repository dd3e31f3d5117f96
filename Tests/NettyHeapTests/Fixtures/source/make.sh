#!/usr/bin/env bash
# make.sh: makes the dumps of Ledger.java again, and prints what Netty counted (the facts in the README).
#     make.sh OUT POOLED_OR_ADAPTIVE NETTY_JAR...
# OUT-early is taken after the first round, OUT-all and OUT after the second. OUT-all is taken before anything was
# collected since, so that what was lost in the second round is garbage in it; the others are of live objects.
# HEAP is the Java heap's limit: with less than 512m the adaptive allocator of 4.2.13 has no chunks of buddies.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(realpath "$1") kind=$2
shift 2
path=$(realpath "$@" | paste -s -d :)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
javac -nowarn -XDstringConcat=inline -cp "$path" -d . "$here/Ledger.java"
options=(
    "-Xmx${HEAP:-48m}" -Xshare:off -XX:+UseSerialGC -XX:TieredStopAtLevel=1 --limit-modules 'java.base,jdk.unsupported,java.logging'
    # Netty counts direct memory only where it may make buffers without cleaners.
    --add-opens java.base/java.nio=ALL-UNNAMED -Dio.netty.tryReflectionSetAccessible=true
    -XX:MaxDirectMemorySize=200m -Dio.netty.leakDetection.level=disabled
)
mkfifo go
java "${options[@]}" -cp "$path:." Ledger "$kind" <go >facts 2>/dev/null &
program=$!
exec 3>go
until grep -q "^round early" facts && [[ $(tail -c 1 facts | wc -l) == 1 ]]; do sleep 0.1; done
jcmd $program GC.heap_dump "$work/early.hprof" >/dev/null
echo >&3
until grep -q "^round late" facts; do sleep 0.1; done
jcmd $program GC.heap_dump -all "$work/all.hprof" >/dev/null
jcmd $program GC.heap_dump "$work/late.hprof" >/dev/null
echo >&3
wait $program || true
cat facts
for dump in early all late; do "$here/slim.py" $dump.hprof; done
zstd -q --ultra -22 early.hprof -fo "$out-early.hprof.zst"
zstd -q --ultra -22 all.hprof -fo "$out-all.hprof.zst"
zstd -q --ultra -22 late.hprof -fo "$out.hprof.zst"
