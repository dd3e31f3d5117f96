#!/usr/bin/env bash
# field.sh: makes a dump of Field.java again, and prints what the program printed (the facts in the README).
#     OPTIONS='...' field.sh OUT JAVA_HOME HOW PACKAGE CLASS_PATH ALLOCATOR       Field.java
#     OPTIONS='...' field.sh OUT JAVA_HOME HOW PACKAGE CLASS_PATH                 Columns.java, with PROGRAM=Columns
#     OPTIONS='...' field.sh OUT JAVA_HOME HOW '' '' PACKAGE=CLASS_PATH,KEPT,LOST,BYTES ...      Pair.java, with PROGRAM=Pair
# HOW is who takes the dump: jcmd, jcmd-all, jmap-live, jmap-all, jhsdb, self or oom (see Field.java), or live:N with N parked
# virtual threads and jcmd. PACKAGE is where Netty is: io.netty, or what a framework has moved it to. OPTIONS are the JVM's.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(realpath "$1") home=$2 how=$3 package=$4 path=$5
shift 5
program=${PROGRAM:-Field}
work=$(mktemp -d "${TMPDIR:-/tmp}/field.XXXXXX")
trap 'rm -rf "$work"' EXIT

compile() { # SOURCE PACKAGE CLASS_PATH INTO
    mkdir -p "$4"
    sed "s/\bio\.netty\b/$2/g" "$here/$1.java" >"$4/$1.java"
    javac -nowarn -XDstringConcat=inline --release 8 -cp "$3" -d "$4" "$4/$1.java" 2>/dev/null
}

more=()
read -r -a options <<<"${OPTIONS:-}"
if [[ $program == Pair ]]; then
    package=io.netty
    for part in "$@"; do
        places=${part#*=} copies="$work/${#more[@]}"
        compile Part "${part%%=*}" "${places%%,*}" "$copies"
        more+=("$copies:$places")
    done
else
    more+=("$@")
fi
compile "$program" "$package" "$path" "$work"
case $how in
self) more+=(self "$work/heap.hprof") ;;
oom)
    more+=(oom)
    options+=(-XX:+HeapDumpOnOutOfMemoryError "-XX:HeapDumpPath=$work/heap.hprof")
    ;;
live:*) more+=(live "${how#live:}") ;;
esac
mkfifo "$work/go"
"$home/bin/java" -XX:MaxDirectMemorySize=200m "-D$package.maxDirectMemory=$((200 << 20))" \
    "-D$package.leakDetection.level=disabled" "${options[@]}" \
    -cp "$work:$path" "$program" "${more[@]}" <"$work/go" >"$work/facts" 2>"$work/errors" &
process=$!
exec 3>"$work/go"
until grep -q "^ready" "$work/facts"; do
    kill -0 $process || { cat "$work/errors" "$work/facts"; exit 1; }
    sleep 0.1
done
case $how in
jcmd | live:*) "$home/bin/jcmd" $process GC.heap_dump "$work/heap.hprof" ;;
jcmd-all) "$home/bin/jcmd" $process GC.heap_dump -all "$work/heap.hprof" ;;
jmap-live) "$home/bin/jmap" "-dump:live,format=b,file=$work/heap.hprof" $process ;;
jmap-all) "$home/bin/jmap" "-dump:format=b,file=$work/heap.hprof" $process ;;
jhsdb) "$home/bin/jhsdb" jmap --binaryheap --dumpfile "$work/heap.hprof" --pid $process ;;
esac >&2
echo >&3
wait $process || true
grep -v '^Heap dump\|^Dumping\|^java.lang.Out\|^ready' "$work/facts"
"$here/slim.py" "$work/heap.hprof"
zstd -q -f --ultra -22 "$work/heap.hprof" -o "$out.hprof.zst"
ls -l "$out.hprof.zst" >&2
