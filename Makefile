# `make demo` and `make test` each work alone on a fresh clone: they make .venv from the lock files when it is missing
# or older than they are. The one thing needed is Python, 3.11 or newer: of those on PATH the newest is taken that
# starts (a shim of pyenv may have no Python behind it) and can make a virtual environment. PYTHON=... chooses another.

USABLE := -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	if $$python $(USABLE) 2>/dev/null; then echo $$python; break; fi; done)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# What differs from one Python to another: imports, files, processes, compiled kernels, lava and its patches.
LIGHT := tests/house/test_lock.py tests/house/test_imports.py tests/test_files.py tests/test_result_folder.py \
	tests/test_processor.py tests/kernels/test_kernels.py tests/model/test_neuron.py tests/metrics \
	tests/export/test_lava_simulation.py tests/data/test_sources.py

# Two processes share the files of tests: most of them keep one core busy.
WORKERS ?= -n 2 --dist loadfile

.PHONY: help demo test test-light test-slow test-full lint bench docs pages clean
.DELETE_ON_ERROR:

help:  ## say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 18

demo: $(VENV)/.stamp  ## run the bundled model on real images; results in out/demo
	$(BIN)/ashnets demo --output out/demo

test: $(VENV)/.stamp  ## run the tests (some minutes on two cores; WORKERS= runs them in one process)
	$(BIN)/python -m pytest -q $(WORKERS)

test-light: $(VENV)/.stamp  ## run a light part of them, for another Python: VENV=.venv-3.12 PYTHON=python3.12
	$(BIN)/python -m pytest -q $(LIGHT)

test-slow: $(VENV)/.stamp  ## run the slow tests, which make test leaves out (about an hour on two cores)
	$(BIN)/python -m pytest -q -m "slow and not full" $(WORKERS)

test-full: $(VENV)/.stamp  ## run every test, also those that need SANA-FE, npm or Chromium
	$(BIN)/python -m pytest -q -m ""

lint: $(VENV)/.stamp  ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/.stamp  ## run every benchmark of tests/bench; tables, JSON, CSV and plots in out/bench
	@status=0; for script in tests/bench/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || status=1; done; exit $$status

docs: $(VENV)/.stamp  ## build the documentation into out/docs; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "→ out/docs/index.html"

pages: $(VENV)/.stamp  ## renew what README and docs show of the weights and results: tables and images
	$(BIN)/ashnets demo --output out/demo
	cp out/demo/at_work_light.png out/demo/at_work_dark.png docs/assets/
	$(BIN)/python -m ashnets.zoo.numbers
	$(BIN)/python -m ashnets.zoo.tables

clean:  ## remove what tools leave behind (.venv, data, runs and out stay)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find ashnets zoo export hub tests -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and with its dependencies: a CUDA build brings its own libraries, a CPU build brings none.
# Everything else is exactly the lock. The stamp comes last, so an interrupted installation is taken up again.
$(VENV)/.stamp: requirements.lock requirements-lava.lock requirements-triton.lock pyproject.toml
	@$(or $(PYTHON),false) $(USABLE) || { echo "error: $(or $(PYTHON),none of python3.13 python3.12 python3.11 python3 on PATH)" \
		"is no Python from 3.11 on that can make a virtual environment; say: make PYTHON=/path/to/python" >&2; exit 1; }
	@test ! -f $(VENV)/pyvenv.cfg || test "$$($(BIN)/python -V 2>&1)" = "$$($(PYTHON) -V 2>&1)" || rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c requirements.lock torch
	$(PIP) install -q --no-deps -r requirements.lock
	$(PIP) install -q --no-deps --ignore-requires-python -r requirements-lava.lock
	$(BIN)/python -c 'import triton' 2>/dev/null || $(PIP) install -q --no-deps -r requirements-triton.lock
	$(PIP) install -q --no-deps --no-build-isolation -e .
	$(BIN)/python -m ashnets.kernels
	touch $@
