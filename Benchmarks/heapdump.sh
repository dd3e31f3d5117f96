#!/usr/bin/env bash
# heapdump.sh [SESSIONS]: makes a heap dump of a Java program with Netty (1,100,000 sessions: 2.8 GB) and reads it. Needs a
# JDK and libnetty-java, 6 GB of memory for the program, and the size of the dump on disk in TMPDIR.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
sessions=${1:-1100000}
swift build -c release --package-path "$here" --product heapdump-benchmark >&2
benchmark=$(swift build -c release --package-path "$here" --show-bin-path)/heapdump-benchmark
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
path=/usr/share/java/netty-buffer.jar:/usr/share/java/netty-common.jar
javac -nowarn -cp "$path" -d . "$here/heapdump/LargeHeap.java"
mkfifo go
java -Xmx6g -XX:+UseParallelGC --add-opens java.base/java.nio=ALL-UNNAMED \
    -Dio.netty.tryReflectionSetAccessible=true -Dio.netty.leakDetection.level=disabled -cp "$path:." LargeHeap "$sessions" \
    <go >out 2>errors &
program=$!
exec 3>go
until grep -q ready out; do
    kill -0 $program || { cat errors >&2; exit 1; }
    sleep 0.5
done
jcmd $program GC.heap_dump "$work/heap.hprof" >/dev/null
echo >&3
wait $program
"$benchmark" heap.hprof
