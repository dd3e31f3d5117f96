#!/usr/bin/env bash
# Formatting and shell lint. All findings are printed before the script fails.
set -euo pipefail
cd "$(dirname "$0")/.."

failed=0
git ls-files -z --cached --others --exclude-standard -- '*.swift' |
    xargs -0 swift format lint --strict --parallel || failed=1

if command -v shellcheck >/dev/null; then
    git ls-files -z --cached --others --exclude-standard -- '*.sh' .ci/run deploy/debian/post* deploy/debian/pre* | xargs -0 shellcheck --external-sources || failed=1
else
    echo 'check: shellcheck is not installed; shell scripts were not checked' >&2
fi

((failed == 0)) && echo 'check: clean'
exit "$failed"
