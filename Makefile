# `make demo` and `make test` set up everything they need, in .venv (the project) and .venv-server (Triton).
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# The lock is resolved for Python 3.11; later ones usually work with it. An environment that is there keeps its own.
PYTHON ?= $(shell command -v $(BIN)/python || command -v python3.11 || command -v python3)
# More for pip, e.g. PIP_ARGS="--find-links /wheels" for a torch without CUDA (see README).
PIP_ARGS ?=
# Which tests, in pytest's words. Those that use a server, train or export are marked `heavy`: see tests/conftest.py.
TESTS ?= not slow
QUICK_TESTS := not heavy and not slow
# In two processes, one for what serves and one for what computes: tests/heavy.py says which test is in which.
IN_TWO := --numprocesses=2 --dist=loadgroup

VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.made-from-lock
# Its Python: another PYTHON= makes the environment anew, and so does a Python that is gone.
WHICH := -c 'import os, sys; print(sys.version_info[:2], os.path.realpath(sys._base_executable))'
SAME = [ "$$($(PYTHON) $(WHICH))" = "$$($(BIN)/python $(WHICH))" ]
OTHER := $(if $(filter-out file,$(origin PYTHON)),$(shell { $(SAME); } 2>/dev/null || echo other),$(if $(wildcard $(BIN)/python),,gone))
# torch without CUDA where pip finds one, see PIP_ARGS, else the package index's with CUDA.
TORCH := torch-cpu.lock torch.lock
DOCKERFILES := Dockerfile Dockerfile.triton deploy/gateway/Dockerfile deploy/mlflow/Dockerfile
STAGES := $(wildcard training/families/*/pipeline/dvc.yaml)
IN_TRITON := $(wildcard model_repository/*/1/model.py deploy/backends/*/model.py deploy/backends/python/own_packages/*.py)
# Types and tests at the same time. Each says what it has to say at once: mypy when it ends, pytest as it goes on.
# One that fails does not end the other, nor keep it from starting. What ends `make` ends both, as long as they are the
# only command of their line.
BESIDE := --no-print-directory --jobs=2 --keep-going --output-sync=target typecheck pytest

.PHONY: of-another-python server-python help setup demo quick test slow speed data-tools gates images pin-images lint format typecheck pytest lock upgrade clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 12

demo: server-python setup ## train, export, serve and classify on real data; no GPU, no Docker; FAMILY=NAME: another family
	@$(BIN)/python demo.py $(if $(FAMILY),--family "$(FAMILY)")

quick: setup lint ## what takes a minute: lint, types, the tests that start no server, train nothing, export nothing
	@$(MAKE) $(BESIDE) TESTS="$(QUICK_TESTS)"

test: setup lint ## everything CI checks
	@$(MAKE) $(BESIDE)

slow: setup ## the tests that take long, or resolve packages over the network
	$(BIN)/python -m pytest -m slow

speed: server-python setup ## has a request become slower than at the commit before, or AGAINST=COMMIT? in two minutes
	@$(BIN)/python -m benchmarks speed --against "$(or $(AGAINST),HEAD~1)"

data-tools: setup ## the environment for data, .venv-data: DVC, Great Expectations, Feast
	@$(BIN)/python -m cli.installing.tool_environments data

gates: data-tools ## make the data of every family that has stages, up to its last gate
	@$(or $(TOOL_ENVIRONMENTS),.)/.venv-data/bin/dvc repro $(STAGES:=:validate_processed)

images: setup ## build the container images and run them, over a stand-in of NVIDIA's or TRITON=IMAGE; without Docker
	$(BIN)/python -m pytest --capture=no --verbose -m "slow or not slow" tests/images

pin-images: ## write the digests of the images that the Dockerfiles stand on, as their registries have them now
	@$(PYTHON) -m cli.installing.base_images $(DOCKERFILES)

lint: setup ## ruff, hadolint, actionlint and zizmor
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint --config deploy/hadolint.yaml $(DOCKERFILES) tests/images/triton.Dockerfile
	$(BIN)/actionlint
	$(BIN)/zizmor --offline --quiet --persona pedantic .github

format: setup ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: setup ## mypy --strict
	$(BIN)/mypy
	@# Most are called model.py, so one by one; 0.4 s each, as what they import is in the cache of the first.
	@for file in $(IN_TRITON); do \
		MYPYPATH="deploy/backends/python:$$(dirname "$$file")" $(BIN)/mypy --strict --no-error-summary "$$file"; \
	done

# The `+` keeps its output out of --output-sync.
pytest: setup ## the tests alone
	+$(BIN)/python -m pytest $(IN_TWO) -m "$(TESTS)"

setup: $(SETUP) ## the project's environment, from requirements.lock

$(SETUP): requirements.lock $(TORCH) $(if $(OTHER),of-another-python)
	$(CHECK_PYTHON)
	@$(PYTHON) -m cli.installing.environments --either $(TORCH) -- $(VENV) requirements.lock $(PIP_ARGS)

# What can be known before anything is installed: the server's environment has demands of its own.
server-python:
	$(CHECK_PYTHON)
	@$(PYTHON) -m deploy.triton.environment

define CHECK_PYTHON
@command -v "$(PYTHON)" >/dev/null || \
	{ echo "error: there is no $(or $(PYTHON),python3). Hint: sudo apt-get install python3 python3-venv"; exit 1; }
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "error: $(PYTHON) is too old, 3.11 is needed. Hint: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	{ echo "error: $(PYTHON) has no venv module. Hint: sudo apt-get update && sudo apt-get install python3-venv"; exit 1; }
endef

lock: setup ## bring the locks to what pyproject.toml and deploy/*.in ask, with as few new versions as that needs
	@$(BIN)/python -m cli.installing.locks

upgrade: setup ## the same with the newest versions of everything
	@$(BIN)/python -m cli.installing.locks --upgrade

clean: ## remove what was made, but not the environments, the data or the releases
	rm -rf artifacts .mypy_cache .pytest_cache .ruff_cache
