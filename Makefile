# Two commands for a fresh machine with Python 3.11-3.13, venv and make: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODE := secagg pruning protocols attacks examples tests

.PHONY: help setup demo test lint types unit long bench fuzz setup-engines test-engines clean
.DEFAULT_GOAL := help

help:
	@echo "make setup   build $(VENV) with the secagg command in it"
	@echo "make demo    FedAvg and CLIP under encryption on handwritten digits"
	@echo "make test    lint, types and all tests (make lint, make types, make unit, make long: each by itself)"
	@echo "make bench   speed of submodels, and of the protocol beside Flower's SecAgg+ (installs Flower)"
	@echo "make fuzz    every decoder under coverage-guided fuzzing, SECONDS=60 in all or INPUTS=1000000 (installs Atheris)"
	@echo "make test-engines   secure aggregation on Flower and NVFlare, simulated and deployed, 16 minutes (installs both, and Ray)"
	@echo "make clean   remove what the above made"

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools wheel
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[experiments,pld,dev]'
	touch $@

demo: setup
	$(BIN)/secagg demo

test: lint types unit long

lint: setup
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

types: setup
	$(BIN)/mypy

# Measured with branch coverage: all but the long runs. A file stays with one worker, which then trains the demo once.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile
LONG := tests/properties tests/adversarial/test_secrecy.py tests/packaging

unit: setup
	$(PYTEST) --cov --cov-report=term $(LONG:%=--ignore=%)

long: setup
	$(PYTEST) $(LONG)

$(VENV)/.installed-bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[flower]'
	touch $@

bench: $(VENV)/.installed-bench
	$(BIN)/python tests/benchmarks/submodel_speed.py
	$(BIN)/secagg bench --against flower

$(VENV)/.installed-fuzz: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[fuzz]'
	touch $@

SECONDS ?= 60

fuzz: $(VENV)/.installed-fuzz
	$(BIN)/python -m tests.fuzz.fuzz $(if $(INPUTS),--inputs $(INPUTS),--seconds $(SECONDS))

$(VENV)/.installed-engines: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[flower,flower-simulation,nvflare]'
	touch $@

setup-engines: $(VENV)/.installed-engines

# One deployment after the other: each alone keeps two cores busy.
test-engines: setup-engines
	$(PYTEST) tests/engines
	SECAGG_ENGINES=1 $(BIN)/python -m pytest tests/engines/real/test_deployed.py tests/engines/test_nvflare_simulated.py

clean:
	rm -rf $(VENV) build dist demo-out bench-out .mypy_cache .ruff_cache .coverage *.egg-info
