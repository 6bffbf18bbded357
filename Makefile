# Each target does all of its own set-up: a virtual environment in .venv, and the Debian packages that it needs.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ARGS ?=
TESTS ?=
WORKERS ?= 4
UPGRADE ?=
TARGET ?=
SECONDS ?= 60
KILLS ?= 300
export PYTHON ?=

.PHONY: help demo run test check format bench fuzz chaos requirements clean

help: ## show this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 16

demo: $(VENV)/.demo ## see mail being processed, with no account of your own (ARGS="--help" for more)
	@exec $(BIN)/mailmill demo $(ARGS)

run: $(VENV)/.demo ## start the service with your configuration (ARGS="--config FILE")
	@exec $(BIN)/mailmill run $(ARGS)

test: $(VENV)/.test ## run the tests, on real servers (TESTS="tests/unit -k pool" for some, WORKERS=0 for one after the other)
	@tools/debian-packages.sh dovecot-imapd chromium postgresql pgbouncer faketime
	@tools/cyrus.sh
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(TESTS)

check: $(VENV)/.test ## lint, types and layering
	@$(BIN)/ruff check src tests bench
	@$(BIN)/ruff format --check src tests bench
	@$(BIN)/mypy
	@$(BIN)/python -m pytest --quiet tests/unit/test_layering.py

format: $(VENV)/.test ## format the code
	@$(BIN)/ruff check --fix-only --quiet src tests bench
	@$(BIN)/ruff format src tests bench

bench: $(VENV)/.test ## measure against the peers and print the tables
	@tools/debian-packages.sh dovecot-imapd isync nodejs npm postgresql redis-server
	@PYTHONPATH=tests $(BIN)/python -m bench $(ARGS)

fuzz: $(VENV)/.fuzz ## feed garbage to the parsers (SECONDS=600 for each, TARGET=wire or message_parser, ARGS=--merge)
	@PYTHONPATH=tests $(BIN)/python -m fuzz $(TARGET) --seconds $(SECONDS) $(ARGS)

chaos: $(VENV)/.test ## kill the nodes of a fleet in use over and over, and check all that they did (KILLS=300)
	@tools/debian-packages.sh dovecot-imapd postgresql faketime
	@PYTHONPATH=tests $(BIN)/python -m chaos --kills $(KILLS) $(ARGS)

requirements: $(VENV)/.uv ## regenerate requirements/*.txt from pyproject.toml (UPGRADE=--upgrade for newer versions)
	@tools/requirements.sh $(BIN)/uv $(UPGRADE)

clean: ## remove everything that make made
	@rm -rf $(VENV) .cache build dist src/*.egg-info bench/.cache .ruff_cache .mypy_cache .pytest_cache .hypothesis
	@find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

# -- the virtual environment ------------------------------------------------------------------------------------------

$(BIN)/python:
	@tools/make-venv.sh $(VENV)

# What builds packages is pinned and hashed like all else, and builds without isolation would fetch it unpinned.
$(VENV)/.build: requirements/build.txt | $(BIN)/python
	@$(PIP) install --require-hashes --requirement requirements/build.txt
	@touch $@

$(VENV)/.%: requirements/%.txt pyproject.toml $(VENV)/.build
	@echo "Installing requirements/$*.txt into $(VENV) …"
	@$(PIP) install --no-build-isolation --require-hashes --requirement requirements/$*.txt
	@$(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.uv: requirements/uv.txt | $(BIN)/python
	@$(PIP) install --require-hashes --requirement requirements/uv.txt
	@touch $@
