#!/usr/bin/env bash
# symbols.sh PROGRAM DIRECTORY [OPTION...]: moves the symbols of PROGRAM into DIRECTORY/.build-id/xx/yyyy.debug, where gdb, addr2line
# and the broker itself look for them, and prints the build identifier, xxyyyy. Options are objcopy's.
set -euo pipefail
program=$1 directory=$2
shift 2

id=$(readelf -n "$program" 2>/dev/null | sed -n 's/^ *Build ID: //p')
[[ $id =~ ^[0-9a-f]{40}$ ]] || { printf 'symbols: %s has no build identifier\n' "$program" >&2; exit 1; }
file=$directory/.build-id/${id:0:2}/${id:2}.debug
install -d "$(dirname "$file")"
objcopy --only-keep-debug "$@" "$program" "$file"
chmod 644 "$file"
strip --strip-unneeded --remove-section=.comment "$program"
objcopy --add-gnu-debuglink="$file" "$program"
printf '%s\n' "$id"
