#!/usr/bin/env bash
# The incident, rehearsed: a broker whose RPC handler forgets its buffers, driven until an allocation fails,
# with three dumps on the way. Then the diagnosis, from the files alone.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=scripts/broker.sh
source "$root/scripts/broker.sh"

usage() {
    cat <<'TEXT'
usage: samples/incident/run.sh [--limit BYTES] [--bin DIR] [--keep DIR] [--publish DIR]

  --limit BYTES   the broker's memory limit, at least 64 MiB  (default 2050000000: 119 chunks, as in the incident)
  --bin DIR       where arena-broker, arena-analyze and arena-bench are
                  (default: $BIN, else .build/release; .build/debug works, slower)
  --keep DIR      keep dumps and the broker's log in DIR      (default: a temporary directory, removed)
  --publish DIR   copy the dumps there as 1-before, 2-near-limit, 3-at-the-limit, and renew the expected outputs

Exit code 0: the dumps name the culprit, and the chunk count is what the limit allows. 1: not so. 64: usage.
TEXT
}

limit=2050000000 bin=${BIN:-$root/.build/release} keep='' publish=''
while (($#)); do
    case $1 in
    --help | -h) usage && exit 0 ;;
    --limit | --bin | --keep | --publish)
        (($# >= 2)) || { usage >&2 && exit 64; }
        printf -v "${1#--}" '%s' "$2"
        shift 2
        ;;
    *) usage >&2 && exit 64 ;;
    esac
done
if ! [[ $limit =~ ^[0-9]{1,15}$ ]] || ((limit < 64 << 20)); then
    usage >&2
    exit 64
fi
[[ -x $bin/arena-broker ]] || fail "no arena-broker in $bin (make build, or --bin DIR)"
bin=$(cd "$bin" && pwd)
if [[ -n $publish ]]; then
    publish=$(cd "$publish" && pwd)
fi

if [[ -n $keep ]]; then
    mkdir -p "$keep"
    work=$(cd "$keep" && pwd)
    trap 'stop_broker || true' EXIT
else
    work=$(mktemp -d)
    trap 'stop_broker || true; rm -rf "$work"' EXIT
fi
# Everything below is named relative to here, so that no path of this machine gets into a dump.
cd "$work"
rm -rf dumps
mkdir dumps

step() { printf '\n\033[1m%s\033[0m\n' "$*" | if [[ -t 1 && -z ${NO_COLOR-} ]]; then cat; else sed 's/\x1b\[[0-9;]*m//g'; fi; }
drive() { "$bin/arena-bench" devices --port "$broker_port" --qos 1 --payload-size 100000 "$@"; }

# ---- the drill

chunk=$((16 << 20))
step "A broker with a limit of $limit bytes, whose convertToRpcCommandResponse never releases its buffer"
printf 'threads = 1\n[faults]\nrpcResponseLeakPercent = 100\n' >drill.toml
start_broker "$bin/arena-broker" --host 127.0.0.1 --port 0 --memory-limit "$limit" \
    --dump-directory dumps --config drill.toml

step 'A little traffic, then: kill -USR1'
drive --devices 20 --commands 100 --chatter 80 --time-limit 60
before=$(signal_dump 30) || fail 'no dump after the first SIGUSR1'
echo "before:       $before"

step 'Devices answer commands until the broker has no memory left'
drive --devices 200 --until-refused --chatter 30 --time-limit 600
near=$(await_dump 1 30 near-limit) || fail 'the broker wrote no dump by itself when it came near its limit'
echo "near limit:   $near"
end=$(signal_dump 60) || fail 'no dump after the last SIGUSR1'
echo "at the limit: $end"

stop_broker || fail "the broker ended with exit code $?"
cp "$before" 1-before.dump.zst
cp "$near" 2-near-limit.dump.zst
cp "$end" 3-at-the-limit.dump.zst

# ---- the diagnosis: the process is gone, only files are left

show() {
    step "\$ arena-analyze $*"
    "$bin/arena-analyze" "$@"
}
show summary 3-at-the-limit.dump.zst
show sites 3-at-the-limit.dump.zst
show diff 1-before.dump.zst 2-near-limit.dump.zst 3-at-the-limit.dump.zst

# ---- does it say what happened?

culprit=convertToRpcCommandResponse
names_culprit() {
    local output
    output=$("$bin/arena-analyze" "$@") || fail "arena-analyze $* failed"
    [[ $output == *"$culprit"* ]] || fail "arena-analyze $* does not name $culprit"
}
names_culprit summary 3-at-the-limit.dump.zst --format json
names_culprit sites 3-at-the-limit.dump.zst
names_culprit diff 1-before.dump.zst 2-near-limit.dump.zst 3-at-the-limit.dump.zst

json=$("$bin/arena-analyze" summary 3-at-the-limit.dump.zst --format json)
field() {
    local value
    value=$(grep -oE "\"$1\" *: *[0-9]+" <<<"$json" | head -n 1 | grep -oE '[0-9]+$') || fail "summary has no $1"
    printf '%s\n' "$value"
}
verdict=$(grep -oE '"verdict" *: *"([^"\\]|\\.)*"' <<<"$json") || fail 'summary has no verdict'
[[ $verdict == *"$culprit"* ]] || fail "the verdict does not name $culprit: $verdict"
chunks=$(field chunk_count) counter=$(field counter_bytes)
beside=$((counter - $(field chunk_bytes) - $(field huge_bytes)))
# Publishes are refused while the last twentieth of the limit is left: for acknowledgements, and for what drains queues.
most=$(((limit - beside) / chunk))
least=$((((limit - beside) * 95 / 100 + chunk - 1) / chunk))
((least <= most)) || least=$most
((chunks >= least && chunks <= most)) ||
    fail "$chunks chunks at the limit; $limit bytes less $beside beside them allow $least to $most"
((counter <= limit)) || fail "the counter is at $counter, above the limit of $limit"

if [[ -n $publish ]]; then
    cp [123]-*.dump.zst "$publish/"
    chmod 644 "$publish"/[123]-*.dump.zst
    "$root/scripts/expected.sh" "$bin" "$publish"
fi
step "The dumps name $culprit; $chunks chunks x 16 MiB = $((chunks * 16)) MiB of the $((limit >> 20)) MiB allowed"
