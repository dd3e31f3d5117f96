#!/usr/bin/env bash
# heapdump.sh [SESSIONS [COLLECTOR...]]: makes heap dumps of Java programs with Netty and reads them. Needs a JDK and
# libnetty-java, 6 GB of memory for the programs, and the size of the largest dump on disk in TMPDIR.
#
# COLLECTOR is the name of a JVM's collector, which decides in which order a dump has its objects (Parallel: 1,100,000 sessions
# are 2.8 GB), or Graph: a heap in which references lead all over. Without any: Parallel, Z, Shenandoah and Graph.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
sessions=${1:-1100000}
shift || true
[[ $# -gt 0 ]] || set -- Parallel Z Shenandoah Graph
swift build -c release --package-path "$here" --product heapdump-benchmark >&2
benchmark=$(swift build -c release --package-path "$here" --show-bin-path)/heapdump-benchmark
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
path=/usr/share/java/netty-buffer.jar:/usr/share/java/netty-common.jar
javac -nowarn -cp "$path" -d . "$here"/heapdump/*.java

# read_dump OPTION_OF_GC_HEAP_DUMP JAVA_ARGUMENT...
read_dump() {
    local kind=$1
    shift
    rm -f go out heap.hprof
    mkfifo go
    java -Xmx6g --add-opens java.base/java.nio=ALL-UNNAMED \
        -Dio.netty.tryReflectionSetAccessible=true -Dio.netty.leakDetection.level=disabled -cp "$path:." "$@" \
        <go >out 2>errors &
    local program=$!
    exec 3>go
    until grep -q ready out; do
        kill -0 $program || { cat errors >&2; exit 1; }
        sleep 0.5
    done
    jcmd $program GC.heap_dump ${kind:+"$kind"} "$work/heap.hprof" >/dev/null
    echo >&3
    wait $program
    echo "== ${*: -3}"
    "$benchmark" heap.hprof
}

for collector; do
    case $collector in
        Graph) read_dump -all -XX:+UseParallelGC RandomGraph $((sessions * 13)) ;;
        *) read_dump "" "-XX:+Use${collector}GC" LargeHeap "$sessions" ;;
    esac
done
