#!/usr/bin/env bash
# completions.sh [BIN [DIRECTORY]]: writes the shells' completions of our programs, as the programs generate them, where
# Debian packages have them below usr/share.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${1:-.build/release}
share=${2:-.build/deploy}/usr/share
bash=$share/bash-completion/completions
zsh=$share/zsh/vendor-completions
fish=$share/fish/vendor_completions.d
mkdir -p "$bash" "$zsh" "$fish"

for program in arena-analyze arena-broker arena-bench; do
    # Read by the shell, not run.
    "$bin/$program" --generate-completion-script bash | sed '1{/^#!/d}' >"$bash/$program"
    "$bin/$program" --generate-completion-script zsh >"$zsh/_$program"
    "$bin/$program" --generate-completion-script fish >"$fish/$program.fish"
    bash -n "$bash/$program"
done
find "$share" -type f -newer scripts/completions.sh | sort
