# Needs Python 3.11 and make; everything else is set up here, once. `make help` lists the targets.
PYTHON ?= python3.11
BIN := .venv/bin
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test check fuzz lint up down docs picture lock clean test-system

help:  ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.package .venv/.kernels  ## Virtual environment, kernels, Java, jars for Spark, lakeFS; a second call repeats nothing
	@$(BIN)/python -m fleet_assets.services.setup

demo: setup  ## A few simulated drives, most with faults, from landing folder to features, a signed release and a vehicle
	@$(BIN)/fleet demo

up: setup  ## Start lakeFS, Spark, and Dagster's webserver and daemon
	@$(BIN)/fleet up

down: .venv/.package  ## Stop them
	@$(BIN)/fleet down

# Three lanes side by side, for tests with servers wait much of the time; each that has some has an installation of its own.
WHOLE := tests/e2e tests/services tests/ui
test: test-system setup lint  ## The whole proof, on the real servers
	@logs=.pytest_cache/lanes; mkdir -p $$logs; lane() { $(BIN)/pytest -p no:cacheprovider "$${@:2}" > $$logs/$$1.log 2>&1; }; \
	echo "Other tests run beside these: end to end, and without servers. What they say comes at the end, meanwhile in $$logs."; \
	lane end-to-end -m services $(WHOLE) & whole=$$!; lane without-servers -m "not services" & without=$$!; \
	failed=0; $(BIN)/pytest -m services $(WHOLE:%=--ignore=%) || failed=1; \
	wait $$whole || failed=1; wait $$without || failed=1; cat $$logs/*.log; exit $$failed

check: .venv/.package lint  ## The quick part of the tests: no servers
	$(BIN)/pytest -q -m "not services and not slow"

fuzz: .venv/.package  ## Damaged variants of a recording of each format, other examples of property tests (VARIANTS=, SEED=)
	@PYTHONPATH=tests $(BIN)/python -m formats.fuzz --variants $(or $(VARIANTS),10000) --seed $(or $(SEED),1)
	$(BIN)/pytest -q -m "hypothesis and not services" --hypothesis-profile=default --hypothesis-seed=$(or $(SEED),1)

lint: .venv/.package  ## Style, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/.package  ## Reference pages, generated from contracts and feature definitions
	$(BIN)/fleet contracts docs
	$(BIN)/fleet features docs

picture: setup test-system  ## The pictures in docs/images, drawn anew; the lineage from a running installation
	@$(BIN)/python -m fleet_assets.simulate.picture docs/images/simulated.png
	@$(BIN)/fleet demo
	@PYTHONPATH=tests $(BIN)/python -m ui.browser docs/images/lineage.png

# Network and patience: resolves all versions anew.
lock: .venv/.installer  ## Pin the newest versions that pyproject.toml allows, with hashes
	$(BIN)/uv pip compile -q --upgrade --universal --generate-hashes --all-extras -p 3.11 pyproject.toml -o requirements.lock

clean:  ## Remove the virtual environment and caches of tools; the lake in .fleet stays
	@if [ -x $(BIN)/fleet ]; then $(BIN)/fleet down > /dev/null || true; fi
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	find fleet_assets tests -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- set-up: each step leaves a stamp, and is repeated when what it reads has changed ----------------------------------

.venv/.installer: infra/python/installer.txt
	@command -v $(PYTHON) > /dev/null || { echo "$(PYTHON) is missing: install Python 3.11, or say make PYTHON=/path/to/it"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "$(PYTHON) is not Python 3.11: say make PYTHON=/path/to/it"; exit 1; }
	@echo "Making the virtual environment."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r $<
	@touch $@

# The installer does not read pip's settings; a package index that the user configured there counts all the same. Compiled once
# here, for some take seconds to compile, and where Python is told to write no bytecode, each process would compile them anew.
.venv/.packages: requirements.lock .venv/.installer
	@echo "Installing the packages of requirements.lock (two to four minutes)."
	@index="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$($(BIN)/python -m pip config get global.index-url 2> /dev/null || true)}}"; \
	if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi; \
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install -q --require-hashes --compile-bytecode -r requirements.lock
	@touch $@

# Without build isolation: the build tool comes from the lock file, and is not fetched again without a hash.
.venv/.package: pyproject.toml .venv/.packages
	@VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install -q --no-deps --no-build-isolation -e .
	@touch $@

# Numba keeps beside the sources what it compiled, and compiles anew what has changed. Done once here, for else each process that
# is the first to call a kernel would wait for it, and those side by side would all compile it.
.venv/.kernels: .venv/.package $(shell find fleet_assets -name '*.py')
	@echo "Compiling kernels (half a minute)."
	@$(BIN)/python -m compileall -q fleet_assets feature_repo
	@$(BIN)/python -m fleet_assets.compile_kernels
	@touch $@

# What only tests and benchmarks need from the system: a browser, for the test of the UI (one that is there and does not run, a
# stub that wants a snap, is none); a C compiler, for the example that reads snapshots; Redis, a peer of the online store.
test-system:
	@missing() { \
	runs=; for name in chromium chromium-browser google-chrome; do "$$name" --version > /dev/null 2>&1 && runs=1; done; \
	[ -n "$$runs" ] || echo chromium; \
	command -v cc > /dev/null || echo gcc libc6-dev; \
	command -v redis-server > /dev/null || echo redis-server; }; \
	packages="$$(missing | xargs)"; [ -n "$$packages" ] || exit 0; \
	install="apt-get install -y --no-install-recommends"; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	echo "Installing what tests need: $$packages."; \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$install $$packages -qq > /dev/null; } || true; \
	packages="$$(missing | xargs)"; [ -n "$$packages" ] || exit 0; fi; \
	echo "The tests need $$packages. Run: sudo apt-get update && sudo $$install $$packages"; \
	echo "or put other builds on PATH, as chromium, cc and redis-server."; exit 1
