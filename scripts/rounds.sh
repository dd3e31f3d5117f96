# Sourced, not run: SEED, MINUTES and ROUND as arguments of a program that plays rounds.
# shellcheck shell=bash

arguments=()
[[ -n ${SEED:-} ]] && arguments+=(--seed "$SEED")
if [[ -n ${ROUND:-} ]]; then
    arguments+=(--round "$ROUND")
else
    arguments+=(--minutes "${MINUTES:-10}")
fi
