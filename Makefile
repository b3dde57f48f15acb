# SPDX-License-Identifier: Apache-2.0
# `make run` sets everything up and starts the server; `make test` builds and runs every test.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PROGRAM := .build/release/swiftlet
# The programs in a release build, as users run them. The unit tests in a debug build, where assertions and checks run.
SWIFT_BUILD := swift build -c release
STAMP = @printf '\n== %s (%s)\n' "$(1)" "$$(date +%T)"

.PHONY: help run test test-kvm deps build image images unit runner conformance check bench peers clean

help: ## Lists the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: deps ## Sets everything up, starts the server, prints a key and a curl line
	$(call STAMP,Building; the first time takes some minutes)
	$(SWIFT_BUILD) --product swiftlet
	$(SWIFT_BUILD) --product swiftlet-agent
	$(call STAMP,The guest image; built once from Debian packages)
	$(PROGRAM) image build
	$(call STAMP,Starting)
	exec $(PROGRAM) serve

deps: ## Installs the Debian packages that are missing
	@scripts/install-packages

build:
	$(call STAMP,Building the programs)
	$(SWIFT_BUILD) --product swiftlet
	$(SWIFT_BUILD) --product swiftlet-agent
	$(SWIFT_BUILD) --product swiftlet-bench

image:
	$(PROGRAM) image build

images: build
	$(call STAMP,Guest images)
	$(PROGRAM) image build --variant minimal
	$(PROGRAM) image build --variant standard

test: check deps build images unit runner conformance test-kvm ## Builds and runs every test, on real microVMs
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
	.venv/bin/python -m pytest -q --durations=10 tests/conformance

test-kvm: images .venv/installed ## Runs the engine's tests under KVM, in an emulated machine that has it
	$(call STAMP,Engine tests under KVM)
	tests/kvm/run --venv .venv -- python3 -m pytest -q --durations=10 -m kvm tests/conformance/test_clones.py

check: ## Checks formatting and the house rules
	$(call STAMP,Checks)
	swift format lint --strict --recursive Sources Tests Package.swift
	scripts/check-rules

bench: build image ## Measures servers of its own
	$(PROGRAM) bench --start

peers: build image ## Measures a server and what one would take instead, in one run
	benchmarks/peers/with-server

clean: ## Removes what was built
	rm -rf .build .venv
