#!/usr/bin/env bash
# Builds what the demo needs: without TLS and HTTP, which are most of what there is to compile and have no part in it. Where
# everything has been built already, that is kept up to date in place of it.
set -euo pipefail
cd "$(dirname "$0")/.."

traits=(--disable-default-traits)
[[ -d .build/release/BrokerHTTP.build ]] && traits=()
swift build -c release "${traits[@]}" --target Programs
