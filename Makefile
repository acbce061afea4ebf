# `make demo` and `make test` each work alone on a fresh clone: they make .venv from the lock files when it is missing
# or older than they are. The one thing needed is Python 3.11 (PYTHON=/path/to/python3.11 if it is not on PATH).

PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help demo test test-full lint bench clean
.DELETE_ON_ERROR:

help:  ## say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 18

demo: .venv/.stamp  ## run the bundled model on real pictures; results in out/demo
	$(BIN)/ashnets demo --output out/demo

test: .venv/.stamp  ## run the tests (some minutes on two cores)
	$(BIN)/python -m pytest -q

test-full: .venv/.stamp  ## run every test, the long ones too
	$(BIN)/python -m pytest -q -m ""

lint: .venv/.stamp  ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/mypy

bench: .venv/.stamp  ## run every benchmark of tests/bench; tables, JSON, CSV and plots in out/bench
	@status=0; for script in tests/bench/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || status=1; done; exit $$status

clean:  ## remove what tools leave behind (.venv, data, runs and out stay)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find ashnets zoo export hub tests -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and with its dependencies: a CUDA build brings its own libraries, a CPU build brings none.
# Everything else is exactly the lock. The stamp comes last, so an interrupted installation is taken up again.
.venv/.stamp: requirements.lock requirements-lava.lock requirements-triton.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: no $(PYTHON) on PATH; say: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) install -q -c requirements.lock torch
	$(PIP) install -q --no-deps -r requirements.lock
	$(PIP) install -q --no-deps --ignore-requires-python -r requirements-lava.lock
	$(BIN)/python -c 'import triton' 2>/dev/null || $(PIP) install -q --no-deps -r requirements-triton.lock
	$(PIP) install -q --no-deps --no-build-isolation -e .
	$(BIN)/python -m ashnets.kernels
	touch $@
