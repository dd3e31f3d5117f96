#!/usr/bin/env bash
# fuzz.sh [TARGET...]: runs the fuzzers (libFuzzer, AddressSanitizer), one after the other.
#
#   FUZZ_RUNS     inputs for each target (default 100000)
#   FUZZ_CORPUS   where what they find of interest is kept (default .build-fuzz/corpus)
#
# A finding ends the script and is left in .build-fuzz/findings. It belongs, once it is fixed, into
# Tests/DumpFormatTests/Corpus, or Tests/MQTTTests/Corpus for mqtt, which the tests read.
set -euo pipefail
cd "$(dirname "$0")/.."

runs=${FUZZ_RUNS:-100000}
corpus=${FUZZ_CORPUS:-$PWD/.build-fuzz/corpus}
targets=("$@")
((${#targets[@]} > 0)) || targets=(ledger blocks dump mqtt)

findings=$PWD/.build-fuzz/findings
mkdir -p "$findings"
for target in "${targets[@]}"; do
    # The driver does not ask for coverage by itself when it is told of two sanitizers.
    swift build --package-path Fuzz --scratch-path .build-fuzz --configuration release --product "fuzz-$target" \
        --sanitize=fuzzer --sanitize=address -Xswiftc -sanitize-coverage=edge,inline-8bit-counters
done
# Swift's own crash handler would hide libFuzzer's report.
export SWIFT_BACKTRACE=enable=no
export ASAN_OPTIONS=${ASAN_OPTIONS:-quarantine_size_mb=4:malloc_context_size=4}
for target in "${targets[@]}"; do
    mkdir -p "$corpus/$target"
    echo "fuzz: $target, $runs inputs"
    .build-fuzz/release/"fuzz-$target" -runs="$runs" -timeout=10 -rss_limit_mb=4096 -max_len=131072 -detect_leaks=0 \
        -print_final_stats=1 -verbosity=0 -artifact_prefix="$findings/$target-" \
        "$corpus/$target" "Fuzz/Corpus/$target"
done
