# Two commands for a fresh machine with Python 3.11-3.13, venv and make: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODE := secagg pruning protocols attacks examples tests

.PHONY: help setup demo test test-all lint types unit bench clean
.DEFAULT_GOAL := help

help:
	@echo "make setup   build $(VENV) with the secagg command in it"
	@echo "make demo    FedAvg and CLIP under encryption on handwritten digits"
	@echo "make test    lint, types, and the tests of the core with branch coverage"
	@echo "make test-all  every test"
	@echo "make bench   speed of submodels, and of the protocol beside Flower's SecAgg+ (installs Flower)"
	@echo "make clean   remove what the above made"

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools wheel
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[experiments,dev]'
	touch $@

demo: setup
	$(BIN)/secagg demo

test: lint types unit

lint: setup
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

types: setup
	$(BIN)/mypy

# The core, the attacks, the vectors and the README; `make test-all` runs the session properties, the refusals, the
# enumeration, the submodels, the rounds, the demo and the wheel as well.
unit: setup
	$(BIN)/python -m pytest -n 2 --cov=secagg --cov=attacks --cov-report=term \
		--ignore=tests/unit/pruning --ignore=tests/unit/protocols \
		tests/unit tests/vectors tests/test_architecture.py tests/test_readme.py

test-all: lint types
	$(BIN)/python -m pytest -n 2 --cov --cov-report=term

$(VENV)/.installed-bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[flower]'
	touch $@

bench: $(VENV)/.installed-bench
	$(BIN)/python tests/benchmarks/submodel_speed.py
	$(BIN)/python tests/benchmarks/protocol_speed.py

clean:
	rm -rf $(VENV) build dist demo-out .mypy_cache .ruff_cache .coverage *.egg-info
