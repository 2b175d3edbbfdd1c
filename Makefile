# SPDX-License-Identifier: Apache-2.0
# A thin front door: every target does all of its own set-up. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help packages build run cluster test test-unit test-integration test-compat test-variants sim sim-compilers mutants bench lint format \
	asan tsan clean

JOBS ?= $(shell nproc)
ARGS ?=
VENV := build/venv
PYTEST := cd tests && ../$(VENV)/bin/pytest

# Debian 12 packages: what the build links, and what the tests run.
PACKAGES_BUILD := cmake ninja-build g++ pkg-config ccache git \
	libabsl-dev libtomlplusplus-dev libcli11-dev libgtest-dev libgmock-dev \
	liblmdb-dev librocksdb-dev libnghttp2-dev libssl-dev zlib1g-dev \
	nlohmann-json3-dev libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc libc-ares-dev
PACKAGES_TEST := python3 python3-venv openssl etcd-client strace util-linux binutils ca-certificates \
	$(if $(shell command -v npm),,nodejs npm)
PACKAGES_LINT := clang-format-14
PACKAGES_CLANG := clang-16

help: ## this list
	@awk -F ':.*## ' '/^[a-z -]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# $(call install,packages): asks once for what is missing; says what to type when not root.
define install
	@missing=""; for package in $(1); do \
	  dpkg-query -W -f='$${db:Status-Status}\n' $$package 2>/dev/null | grep -q '^installed$$' || missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" != 0 ]; then \
	    echo "Packages are missing. Install them once, then run make again:"; \
	    echo "  sudo apt-get install --yes --no-install-recommends$$missing"; exit 1; \
	  fi; \
	  echo "installing:$$missing"; \
	  apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends $$missing >/dev/null; \
	fi
endef

packages: ## install the Debian packages that the build and the tests need
	$(call install,$(PACKAGES_BUILD) $(PACKAGES_TEST))

build: ## release build: build/bin/keywayd, build/bin/keywayctl, build/lib/keyway/plugins/
	$(call install,$(PACKAGES_BUILD))
	@cmake --preset release >/dev/null
	@cmake --build --preset release --parallel $(JOBS)

run: build ## one node on 127.0.0.1:2379, its data in ./keyway-data
	@mkdir -p keyway-data
	@exec build/bin/keywayd --config packaging/examples/single-node.toml

cluster: build ## three nodes on 127.0.0.1:2379, 22379, 32379, data in ./keyway-a, b, c; Ctrl-C ends all
	@pids=(); trap 'kill "$${pids[@]}" 2>/dev/null || true; wait' EXIT; trap 'exit 130' INT TERM; \
	for config in packaging/examples/three-nodes/*.toml; do \
	  name=$$(basename $$config .toml); \
	  build/bin/keywayd --config $$config > >(sed -u "s/^/$$name | /") 2>&1 & pids+=($$!); \
	done; wait

$(VENV)/.ready: tests/requirements.txt
	@python3 -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --requirement tests/requirements.txt
	@touch $@

test: build ## unit tests, then the integration and compatibility suites
	$(call install,$(PACKAGES_TEST))
	@$(MAKE) --no-print-directory $(VENV)/.ready
	@$(VENV)/bin/python tests/run.py $(ARGS)

test-unit: build ## unit tests only
	@ctest --test-dir build --output-on-failure --parallel $(JOBS) $(ARGS)

test-integration: build ## one suite: make test-integration ARGS='integration/test_kill.py -x'
	$(call install,$(PACKAGES_TEST))
	@$(MAKE) --no-print-directory $(VENV)/.ready
	@$(PYTEST) $(if $(ARGS),$(ARGS),integration)

test-compat: build ## the tours of etcd's clients only
	$(call install,$(PACKAGES_TEST))
	@$(MAKE) --no-print-directory $(VENV)/.ready
	@$(PYTEST) $(if $(ARGS),$(ARGS),compat)

test-variants: build ## the cluster's suites on every engine, transport and TLS; ARGS='rocksdb-grpc-mtls'
	$(call install,$(PACKAGES_TEST))
	@$(MAKE) --no-print-directory $(VENV)/.ready
	@$(VENV)/bin/python tests/run.py --variants $(ARGS)

sim: build ## the deterministic simulator for SECONDS=600; or ARGS='--seed 7 --trace', ARGS='--seeds 1..1000'
	@build/bin/keyway-sim $(if $(ARGS),$(ARGS),--seconds $(or $(SECONDS),600))

sim-compilers: build ## the simulator built by gcc and by clang: both must give the same trace hashes
	$(call install,$(PACKAGES_CLANG))
	@cmake -S . -B build/clang -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DKEYWAY_WERROR=OFF \
	  -DCMAKE_C_COMPILER=clang-16 -DCMAKE_CXX_COMPILER=clang++-16 >/dev/null
	@cmake --build build/clang --target keyway-sim --parallel $(JOBS)
	@hashes() { $$1/bin/keyway-sim $(or $(ARGS),--seeds 1..20) --verbose | grep -o '^seed.* hash [0-9a-f]*'; }; \
	diff <(hashes build) <(hashes build/clang) && echo "gcc and clang agree"

mutants: build ## let the simulator find every historic bug of its bank; writes tests/mutants/kernel/mutants.md
	@python3 tests/mutants/kernel/run.py $(ARGS)

bench: build ## Keyway and etcd in turn under the same load; ARGS='--quick' or ARGS='--only put'
	$(call install,$(PACKAGES_TEST))
	@$(MAKE) --no-print-directory $(VENV)/.ready
	@$(VENV)/bin/python tests/bench/bench.py $(ARGS)

SOURCES = $(shell git ls-files '*.c' '*.cc' '*.h' '*.hpp')

lint: ## layout of the sources (clang-format) and the include arrows
	$(call install,$(PACKAGES_BUILD) $(PACKAGES_LINT))
	@clang-format-14 --dry-run --Werror $(SOURCES)
	@cmake --preset release >/dev/null
	@ctest --test-dir build --output-on-failure -L lint $(ARGS)

format: ## let clang-format lay out the sources
	$(call install,$(PACKAGES_LINT))
	@clang-format-14 -i $(SOURCES)

asan: ## unit and integration tests under AddressSanitizer and UBSan; ARGS='integration/test_kill.py'
	$(call sanitized,$@)

tsan: build ## the same under ThreadSanitizer, without what is linked with gRPC
	$(call sanitized,$@)

# $(call sanitized,preset): builds it and runs the suites in ARGS. tests/sanitizers/README.md
define sanitized
	$(call install,$(PACKAGES_BUILD) $(PACKAGES_TEST))
	@cmake --preset $(1) >/dev/null
	@cmake --build --preset $(1) --parallel $(JOBS)
	@$(MAKE) --no-print-directory $(VENV)/.ready
	@LSAN_OPTIONS=suppressions=$(CURDIR)/tests/sanitizers/lsan.supp \
	  ASAN_OPTIONS=handle_segv=0 \
	  TSAN_OPTIONS="suppressions=$(CURDIR)/tests/sanitizers/tsan.supp report_thread_leaks=0 handle_segv=0" \
	  KEYWAY_BUILD=build/$(1) \
	  KEYWAY_KILL_ROUNDS=$(or $(KEYWAY_KILL_ROUNDS),8) KEYWAY_SANITIZED=$(1) \
	  $(VENV)/bin/python tests/run.py $(if $(ARGS),$(ARGS),integration)
endef

clean: ## remove build/ (not ./keyway-data)
	@rm -rf build
