# SPDX-License-Identifier: Apache-2.0
# `make run` sets everything up and starts the server; `make test` builds and runs every test.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PROGRAM := .build/release/swiftlet
# The programs in a release build, as users run them. The unit tests in a debug build, where assertions and checks run.
PRODUCTS := swiftlet swiftlet-agent swiftlet-bench
STAMP = @printf '\n== %s (%s)\n' "$(1)" "$$(date +%T)"

.PHONY: help run test test-kvm test-qemu10 test-package package-trees deps build image images unit runner conformance soak check \
	bench peers deb clean

help: ## Lists the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

run: deps ## Sets everything up, starts the server, prints a key and a curl line
	@scripts/build "swiftlet swiftlet-agent" standard
	$(call STAMP,Starting)
	exec $(PROGRAM) serve

deps: ## Installs the Debian packages that are missing
	@scripts/install-packages

build:
	@scripts/build "$(PRODUCTS)" ""

image: deps
	@scripts/build "$(PRODUCTS)" standard

images: deps
	@scripts/build "$(PRODUCTS)" "minimal standard"

test: check deps images unit runner conformance test-qemu10 package-trees test-kvm ## Builds and runs every test, on real microVMs
	$(call STAMP,All tests passed)

unit: images
	$(call STAMP,Building the unit tests)
	swift build --build-tests
	$(call STAMP,Unit and engine tests)
	swift test --skip-build --parallel

.venv/installed: tests/conformance/requirements.txt
	python3 -m venv .venv
	.venv/bin/pip install -q -r $<
	touch $@

runner: .venv/installed
	$(call STAMP,Interpreter and benchmark tests)
	.venv/bin/python -m pytest -q guest/tests benchmarks/peers

conformance: images .venv/installed
	$(call STAMP,Conformance tests on a real server)
	.venv/bin/python -m pytest -q --durations=10 -n 2 --dist loadfile -m "not alone" tests/conformance
	$(call STAMP,Conformance tests that measure)
	.venv/bin/python -m pytest -q --durations=10 -m alone tests/conformance

soak: unit .venv/installed ## Runs the long forms of the tests that repeat one thing; takes an hour
	$(call STAMP,Soak tests)
	SWIFTLET_SOAK=1 swift test --skip-build --parallel
	SWIFTLET_SOAK=1 .venv/bin/python -m pytest -q --durations=10 -m soak tests/conformance
	SWIFTLET_QEMU=$$(tests/qemu10/unpack) .venv/bin/python -m pytest -q --durations=10 \
		tests/conformance/test_clones.py tests/conformance/test_hostile.py
	.venv/bin/python -m pytest -q --durations=10 tests/package

test-kvm: images .venv/installed ## Runs the engine's tests under KVM, in an emulated machine that has it
	$(call STAMP,Engine tests under KVM)
	tests/kvm/run --timeout 700 --venv .venv -- python3 -m pytest -q --durations=10 -m kvm tests/conformance/test_clones.py

test-qemu10: images .venv/installed ## Runs the engine's tests on QEMU 10, which is unpacked and not installed
	$(call STAMP,Engine tests on QEMU 10)
	SWIFTLET_QEMU=$$(tests/qemu10/unpack) .venv/bin/python -m pytest -q --durations=10 -m "kvm or qemu" \
		tests/conformance/test_clones.py tests/conformance/test_hostile.py

package-trees: images .venv/installed
	$(call STAMP,The Debian package on Debian 12 and 13)
	@scripts/install-packages packaging
	.venv/bin/python -m pytest -q --durations=10 -m "not soak" tests/package

test-package: images .venv/installed ## Tests the Debian package, on fresh Debian systems and under systemd
	$(call STAMP,The Debian package)
	@scripts/install-packages packaging
	.venv/bin/python -m pytest -q --durations=10 tests/package

check: ## Checks formatting and the house rules
	$(call STAMP,Checks)
	swift format lint --strict --recursive Sources Tests Package.swift
	scripts/check-rules

bench: image ## Measures servers of its own
	$(PROGRAM) bench --start

peers: image ## Measures a server and what one would take instead, in one run
	benchmarks/peers/with-server

deb: build ## Makes the Debian package, swiftlet_VERSION_amd64.deb
	@scripts/install-packages packaging
	scripts/build-deb

clean: ## Removes what was built
	rm -rf .build .venv
