# One line a target; whatever needs more is a script in scripts/ or samples/.
# `make` alone lists the targets.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup tools packaging build deb tarball release-notes test test-package demo incident check format asan asan-release tsan swarm swarm-asan swarm-tsan torture scale fuzz bench bench-arena bench-heapdump bench-analyze bench-pressure bench-stall bench-mqtt man completions expected clean

BIN := .build/release

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## install what is missing for builds and tests (Debian packages; quiet when nothing is)
	@scripts/setup.sh test

build: tools  ## build everything, optimized
	swift build -c release

tools:
	@scripts/setup.sh build

test: setup  ## build everything and run all tests
	swift build --build-tests
	@scripts/test.sh
	@scripts/test-package.sh --quick

deb: packaging  ## Debian packages in out/: arena-broker, and its symbols
	@scripts/build-package.sh shared
	@scripts/deb.sh

tarball: packaging  ## for other systems, in out/: a tarball for /usr/local, and the analyzer as one file
	@scripts/build-package.sh static
	@scripts/tarball.sh

test-package:  ## make the packages, install one into a new Debian (as root), rehearse the incident there
	@scripts/setup.sh test-package
	@scripts/build-package.sh
	@scripts/test-package.sh

packaging:
	@scripts/setup.sh package

release-notes:  ## what CHANGELOG.md says of this version
	@scripts/changelog.sh

demo: tools  ## the incident in small: a broker leaks, dumps itself, and the dump names the culprit
	@scripts/demo.sh

incident: build  ## the incident in full: 2,050,000,000 bytes, some 119 chunks; renews the sample dumps
	@samples/incident/run.sh --limit 2050000000 --bin $(BIN) --publish samples/incident

check:  ## formatting and shell lint, as CI checks them (compiler warnings are errors in every build)
	@scripts/check.sh

format:  ## format all Swift sources in place
	@scripts/format.sh

asan: setup  ## the arena's tests under AddressSanitizer, debug
	@scripts/sanitize.sh address debug

asan-release: setup  ## the same, optimized: it sees some uses after free that the debug build hides
	@scripts/sanitize.sh address release

tsan: setup  ## the arena's tests under ThreadSanitizer, debug
	@scripts/sanitize.sh thread debug

swarm: setup  ## random clients against a broker, held to a model: SEED= MINUTES= (10) or ROUND= of a seed
	@scripts/swarm.sh plain

swarm-asan: setup  ## the same, with a broker under AddressSanitizer
	@scripts/swarm.sh address

swarm-tsan: setup  ## the same, with a broker of four loops under ThreadSanitizer
	@scripts/swarm.sh thread

torture: setup  ## kills, power cuts, damage, wrong clocks, bad disks; what was acknowledged is there: SEED= MINUTES= (10) or ROUND=
	@scripts/torture.sh

scale: build  ## every observer and command once: 1,000,000 queued messages, 100,000 sessions, 15,000 connections
	@python3 Tests/Swarm/scale.py --bin $(BIN)
	@python3 Tests/Swarm/store_scale.py --bin $(BIN)

fuzz: setup  ## fuzz whatever reads bytes from outside: dumps, MQTT, other protocols, files (FUZZ_RUNS inputs each)
	@scripts/fuzz.sh

bench-arena: setup  ## the allocator beside malloc, jemalloc, mimalloc and Netty
	@Benchmarks/run.sh

bench-mqtt: setup  ## the broker beside mosquitto: deliveries per second of CPU time, and latency
	@Benchmarks/mqtt.sh

bench-heapdump: setup  ## how fast a large Java heap dump is read, and in how much memory
	@Benchmarks/heapdump.sh

bench-analyze: setup  ## every command of the analyzer on a dump of 10,000,000 buffers, beside zstd
	@Benchmarks/analyze.sh

bench-pressure: build  ## a thousand publishers at full speed, and floods of connections and subscriptions
	@Benchmarks/pressure.sh $(BIN)

bench-stall: build  ## how long packets that order much work keep another client waiting
	@Benchmarks/stall.sh $(BIN)

bench: build  ## what the broker carries on this machine
	@scripts/bench.sh $(BIN)

man: build  ## manual pages of all programs and commands, below .build/deploy/usr/share
	@scripts/manual.sh $(BIN)

completions: build  ## completions for bash, zsh and fish, below .build/deploy/usr/share
	@scripts/completions.sh $(BIN)

expected: build  ## let the tests expect what arena-analyze says about the sample dumps today
	@scripts/expected.sh $(BIN)
	@scripts/examples.py $(BIN) --renew

clean:  ## remove everything that was built
	rm -rf .build .build-* Benchmarks/.build out
