#!/usr/bin/env bash
# fuzz.sh [TARGET...]: runs the fuzzers (libFuzzer, AddressSanitizer), one after the other.
#
#   FUZZ_RUNS     inputs for each target (default 100000)
#   FUZZ_CORPUS   where what they find of interest is kept (default .build-fuzz/corpus)
#
# A finding ends the script and is left in .build-fuzz/findings. It belongs, once it is fixed, into
# Tests/DumpFormatTests/Corpus, or Tests/MQTTTests/Corpus for mqtt, or Fuzz/Corpus/TARGET for the others, which the tests read.
set -euo pipefail
cd "$(dirname "$0")/.."

runs=${FUZZ_RUNS:-100000}
corpus=${FUZZ_CORPUS:-$PWD/.build-fuzz/corpus}
targets=("$@")
broker=(websocket upgrade proxy command passwords acl configuration store)
((${#targets[@]} > 0)) || targets=(ledger blocks dump mqtt "${broker[@]}")

# The program of a target: one for all that the broker reads besides MQTT.
program() {
    if [[ " ${broker[*]} " == *" $1 "* ]]; then echo fuzz-broker; else echo "fuzz-$1"; fi
}

findings=$PWD/.build-fuzz/findings
mkdir -p "$findings"
mapfile -t programs < <(for target in "${targets[@]}"; do program "$target"; done | sort -u)
for product in "${programs[@]}"; do
    # The driver does not ask for coverage by itself when it is told of two sanitizers.
    swift build --package-path Fuzz --scratch-path .build-fuzz --configuration release --product "$product" \
        --sanitize=fuzzer --sanitize=address -Xswiftc -sanitize-coverage=edge,inline-8bit-counters
done
# Swift's own crash handler would hide libFuzzer's report.
export SWIFT_BACKTRACE=enable=no
export ASAN_OPTIONS=${ASAN_OPTIONS:-quarantine_size_mb=4:malloc_context_size=4}
for target in "${targets[@]}"; do
    mkdir -p "$corpus/$target"
    echo "fuzz: $target, $runs inputs"
    FUZZ_INPUT=$target .build-fuzz/release/"$(program "$target")" -runs="$runs" -timeout=10 -rss_limit_mb=4096 -max_len=131072 -detect_leaks=0 \
        -print_final_stats=1 -verbosity=0 -artifact_prefix="$findings/$target-" \
        "$corpus/$target" "Fuzz/Corpus/$target"
done
