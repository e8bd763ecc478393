# Each target creates its environment itself; all that is needed is Python >= 3.11. README.md has the same without make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Processes of the tests: `make test JOBS=2`. Each has one thread, so that they do not take each other's cores.
JOBS ?= 1
# COVERAGE=1 reports the lines that the tests run.
COVERAGE ?=
PYTEST := $(BIN)/python -m pytest $(if $(COVERAGE),--cov --cov-report=term:skip-covered) $(if $(filter-out 1,$(JOBS)),-n $(JOBS) --dist loadfile --no-loadscope-reorder)
ENVIRONMENT := $(if $(filter-out 1,$(JOBS)),OMP_NUM_THREADS=1)

# Bytecode is kept even where the environment asks for none: without it each process of the tests compiles PyTorch anew
# (14 s of 19 s).
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test fast lint docs clean

demo: $(VENV)/.demo
	rm -rf demo
	$(BIN)/anatogen demo --out demo
	@echo "Open demo/report/report.html"

test: $(VENV)/.dev
	$(ENVIRONMENT) $(PYTEST)

# What fits between two edits.
fast: $(VENV)/.dev
	$(ENVIRONMENT) $(PYTEST) -m "not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Installed in place, with the versions that were tested.
$(VENV)/.demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable ".[nilearn,dev,docs]"
	touch $@

clean:
	rm -rf $(VENV) demo build dist site
