#!/usr/bin/env bash
# Formats every Swift source of the repository in place.
set -euo pipefail
cd "$(dirname "$0")/.."
git ls-files -z --cached --others --exclude-standard -- '*.swift' | xargs -0 swift format format --in-place --parallel
