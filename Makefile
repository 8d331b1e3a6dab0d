# Every target does its own set-up: a Linux with Python 3.11, git and make is enough.
# The environment is made once and again only when a lock file changes.

PYTHON311 ?= python3.11
export PYTHONPATH := $(CURDIR)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: .venv/installed ## Start everything here, tag three sample products, serve until Ctrl-C
	@exec .venv/bin/python launch.py

.PHONY: test
test: .venv/installed ## Run all tests but the long ones of `make faults`, on as many cores as there are up to four
	@.venv/bin/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

.PHONY: faults
faults: .venv/installed ## Break everything in turn under load; say what was lost and how long it took to recover
	@.venv/bin/python -m pytest tests/faults --long

MINUTES ?= 30
.PHONY: soak
soak: .venv/installed ## Run under load with random faults; watch memory and files: make soak MINUTES=30
	@.venv/bin/python -m tests.faults.soak --minutes $(MINUTES)

.PHONY: check
check: .venv/installed ## Lint, format check, types, import rules
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

.PHONY: bench
bench: .venv/installed ## Run all benchmarks, print one table, keep the figures in benchmarks/results
	@.venv/bin/python -m benchmarks all $(BENCH)

# umask: PostgreSQL refuses to run as root, and the account that it then gets has to run its programs.
.venv/installed: requirements.lock .venv/bin/uv
	@echo "Installing what requirements.lock pins (some minutes the first time) ..."
	@umask 022; .venv/bin/uv pip sync --quiet --require-hashes --compile-bytecode --python .venv/bin/python requirements.lock
	@touch $@

.venv/bin/uv: installer.lock
	@command -v $(PYTHON311) >/dev/null || { echo "Tagsmith needs Python 3.11: install it, or say where it is with make PYTHON311=/path/to/python3.11" >&2; exit 1; }
	@.venv/bin/python -c "" 2>/dev/null || rm -rf .venv
	@$(PYTHON311) -m venv .venv || { echo "This Python cannot make an environment: install its venv module (on Debian: python3.11-venv)" >&2; exit 1; }
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r installer.lock
	@touch $@
