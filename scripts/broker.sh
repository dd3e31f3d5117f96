# Sourced, not run: one broker of our own, on a free loopback port, and what its log says.
# Waiting is always for a line of the log, with a deadline; a broker that ends early ends the wait.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
broker_pid='' broker_port='' broker_log=''

# enter [BIN]: into a directory of our own, gone at the end, as is the broker; sets bin, where the programs are, and work.
enter() {
    # shellcheck disable=SC2034 # for the script that sources this
    bin=$(cd "${1:-$root/.build/release}" && pwd)
    work=$(mktemp -d)
    trap 'stop_broker || true; rm -rf "$work"' EXIT
    cd "$work" || exit
}

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    if [[ -n $broker_log && -s $broker_log ]]; then
        printf -- '--- last lines of the broker log\n' >&2
        tail -n 15 "$broker_log" >&2
    fi
    exit 1
}

# launch PROGRAM ARGUMENT...: in the current directory, log in broker.log; sets broker_pid.
launch() {
    broker_log=$PWD/broker.log
    : >"$broker_log"
    "$@" >"$broker_log" 2>&1 &
    broker_pid=$!
}

# start_broker PROGRAM ARGUMENT...: launches it, and sets broker_port when it listens.
start_broker() {
    launch "$@"
    local line
    line=$(await_line 1 20 'listening on 127\.0\.0\.1:[0-9]+') || fail 'the broker did not start'
    # shellcheck disable=SC2034 # for the script that sources this
    [[ $line =~ 127\.0\.0\.1:([0-9]+) ]] && broker_port=${BASH_REMATCH[1]}
}

# await_line COUNT SECONDS REGEX: prints the COUNTth line of the log that matches, as soon as it is there.
await_line() {
    local deadline=$((SECONDS + $2)) ended=0 line
    while :; do
        line=$(grep -E -m "$1" -- "$3" "$broker_log" | sed -n "$1p") || true
        if [[ -n $line ]]; then
            printf '%s\n' "$line"
            return 0
        fi
        # One more look after the end: the line may have been the last.
        ((ended == 0 && SECONDS < deadline)) || return 1
        kill -0 "$broker_pid" 2>/dev/null || ended=1
        sleep 0.05
    done
}

# count_lines REGEX: how many lines of the log match now.
count_lines() { grep -cE -- "$1" "$broker_log" || true; }

# await_dump COUNT SECONDS REASON: the path of the COUNTth dump taken for that reason.
await_dump() {
    local line
    line=$(await_line "$1" "$2" "dump written.*reason=\"?$3") || return 1
    [[ $line =~ path=\"?([^\" ]+) ]] && printf '%s\n' "${BASH_REMATCH[1]}"
}

# signal_dump SECONDS: asks for a dump and prints its path.
signal_dump() {
    local have
    have=$(count_lines 'dump written.*reason="?signal')
    kill -USR1 "$broker_pid"
    await_dump $((have + 1)) "$1" signal
}

# stop_broker: by its own pid, politely first; returns its exit code. Does nothing when there is none.
stop_broker() {
    [[ -n $broker_pid ]] || return 0
    local pid=$broker_pid deadline=$((SECONDS + 15))
    broker_pid=''
    kill -TERM "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do
        if ((SECONDS >= deadline)); then
            kill -KILL "$pid" 2>/dev/null || true
            break
        fi
        sleep 0.05
    done
    wait "$pid"
}
