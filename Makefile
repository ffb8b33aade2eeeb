# Every target sets up .venv by itself; everything that is installed lives in it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: venv demo test check bench studies docs clean

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "alignmend needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: venv
	$(BIN)/alignmend demo --out demo-output

test: venv
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term-missing:skip-covered

check: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: venv
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.generation
	$(BIN)/python -m benchmarks.steering
	$(BIN)/python -m benchmarks.patching
	$(BIN)/python -m benchmarks.switching
	$(BIN)/python -m benchmarks.restore --parameters 100M --trials 4 --methods resta

studies: venv
	$(BIN)/python -m studies

docs: venv
	$(BIN)/python -m docs.build

clean:
	rm -rf $(VENV) demo-output .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
