#!/usr/bin/env bash
# torture.sh [ARGUMENT...]: a broker whose machine fails, whose disk lies and whose clock is wrong, held to what it has
# acknowledged (Tests/Torture). SEED, MINUTES and ROUND say what is played; arguments are torture.py's.
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=scripts/rounds.sh
source scripts/rounds.sh
swift build --product arena-broker
exec python3 Tests/Torture/torture.py --bin .build/debug "${arguments[@]}" "$@"
