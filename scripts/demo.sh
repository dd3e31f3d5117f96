#!/usr/bin/env bash
# The incident at a small limit, by programs that are built as soon as can be: not optimized, and without TLS and HTTP, which are most
# of what there is to compile and have no part in it. They are in a scratch path of their own, since what is built with other options
# is built again. Where everything has been built already, that is kept up to date in place of it.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ -d .build/release/BrokerHTTP.build ]]; then
    swift build -c release --target Programs
    bin=.build/release
else
    swift build -c release -Xswiftc -Onone --disable-default-traits --scratch-path .build-demo --target Programs
    bin=.build-demo/release
fi
samples/incident/run.sh --limit 134217728 --bin "$bin"
printf 'The programs are in %s.' "$bin"
[[ $bin == .build/release ]] || printf " They are not optimized, and have no TLS and HTTP: 'make build' makes those to use."
printf '\n'
