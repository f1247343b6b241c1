# Everything happens in .venv, which the first command makes. `make` alone lists the words.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
BENCH := --quick
# Idle OpenMP threads that spin make small CPU work many times slower on a busy machine.
export OMP_WAIT_POLICY := PASSIVE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all check docs bench bench-full gpu-check clean

help:  ## List these words
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.done  ## Make .venv and install the package with all its tools

$(VENV)/.done: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

demo: setup  ## Draw a small data set, train on it, evaluate, predict (minutes on two CPU cores)
	rm -rf $(DEMO)/run $(DEMO)/predictions
	$(BIN)/dyhead-det data demo $(DEMO)/data
	$(BIN)/dyhead-det train configs/demo.yaml --out $(DEMO)/run
	$(BIN)/dyhead-det eval $(DEMO)/run/best.pt
	$(BIN)/dyhead-det predict $(DEMO)/run/best.pt $(DEMO)/data/val --out $(DEMO)/predictions --min-score 0.5
	@echo "pictures:" && find $(DEMO)/predictions/pictures -name '*.png' | sort | head -n 5

test: setup  ## Run the tests
	$(BIN)/python -m pytest -m 'not gpu'

test-all: export HYPOTHESIS_PROFILE := thorough
test-all: test  ## The same with thousands of examples for each property test

check: setup  ## Check format, style and types, and run the fast tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -m 'not gpu and not slow'

docs: setup  ## Build the documentation into docs/_build/html; a warning or a dead link is an error
	rm -rf docs/_build
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: setup  ## Measure speed side by side, in minutes; tables and pictures go to bench/
	for script in scripts/bench_*.py; do $(BIN)/python $$script $(BENCH) --out bench || exit 1; done

bench-full: BENCH :=
bench-full: bench  ## The same with large inputs and more rounds, an hour or so

gpu-check: setup  ## On a machine with CUDA: its tests, benchmarks, waits and kernels, as gpu-check/gpu-report.md
	$(BIN)/python scripts/gpu_check.py

clean:  ## Remove what these commands made
	rm -rf $(VENV) $(DEMO) bench gpu-check build dist docs/_build docs/generated .pytest_cache .mypy_cache .ruff_cache .hypothesis
