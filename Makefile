# `make demo` and `make test` set up everything they need, in .venv (the project) and .venv-server (Triton).
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# The lock is resolved for Python 3.11; later ones usually work with it.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# More for pip, e.g. PIP_ARGS="--find-links /wheels" for a torch without CUDA (see README).
PIP_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.made-from-lock
IN_TRITON := $(wildcard model_repository/*/1/model.py deploy/backends/*/model.py)

.PHONY: help setup demo test lint format typecheck pytest lock clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 12

demo: setup ## train, export, serve and classify on real data; no GPU, no Docker
	@$(BIN)/python demo.py

test: setup lint typecheck pytest ## everything CI checks

lint: setup ## ruff and hadolint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint --config deploy/hadolint.yaml Dockerfile.triton

format: setup ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: setup ## mypy --strict
	$(BIN)/mypy
	@# All are called model.py, so one by one.
	for file in $(IN_TRITON); do \
		MYPYPATH="deploy/backends/python:$$(dirname "$$file")" $(BIN)/mypy --strict "$$file"; \
	done

pytest: setup ## the tests alone
	$(BIN)/python -m pytest

setup: $(SETUP) ## the project's environment, from requirements.lock

$(SETUP): requirements.lock
	@[ -n "$(PYTHON)" ] || { echo "error: no python3 found. Hint: sudo apt-get install python3.11 python3.11-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is too old, 3.11 is needed. Hint: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "error: $(PYTHON) has no venv module. Hint: sudo apt-get update && sudo apt-get install python3-venv"; exit 1; }
	@echo "Setting up $(VENV) (once; a few minutes)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --requirement requirements.lock $(PIP_ARGS)
	@touch $(SETUP)

lock: setup ## resolve pyproject.toml anew into requirements.lock
	$(BIN)/pip-compile --quiet --extra dev --upgrade --strip-extras --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file requirements.new pyproject.toml
	@# Without torch's local version (+cpu), which only some installations have; without perf-analyzer, whose
	@# right version depends on the machine's glibc.
	{ sed -n '/^#/p' requirements.lock; sed -e 's/^\(torch==[0-9.]*\)+.*/\1/' -e '/^#/d' -e '/^perf-analyzer==/d' requirements.new; } > requirements.lock.tmp
	mv requirements.lock.tmp requirements.lock
	rm requirements.new

clean: ## remove what was made, but not the environments, the data or the releases
	rm -rf artifacts .mypy_cache .pytest_cache .ruff_cache
