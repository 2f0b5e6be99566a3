# The habits: make demo, make test, make lint, make bench, make docs.
# Each sets up .venv by itself; a stamp file remembers what has been installed.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
# Two test processes with one torch thread each: as fast as two threads, and steadier.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
PYTEST := $(ONE_THREAD) $(BIN)/python -m pytest -n 2

ALL := $(patsubst benchmarks/%.py,%,$(wildcard benchmarks/[!_]*.py))
SPEED := startup lrn step keras_step curves decoding pipeline lenet_loop
# Each script, whether or not another's claim holds; then the tables, and what was not shown.
run_all = @failed=; for name in $(1); do \
	  echo "$$name"; $(BIN)/python benchmarks/$$name.py || failed="$$failed $$name"; \
	done; \
	$(BIN)/python scripts/make_results.py; \
	test -z "$$failed" || { echo "not shown:$$failed" >&2; exit 1; }

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint bench bench-all docs clean

help:  ## what there is to make
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime  ## LeNet against AlexNet on bundled digits, about two minutes
	$(BIN)/alexnet demo

test: lint  ## lint, types, import layers, and the tests with coverage
	$(PYTEST) --cov --cov-report=term

test-slow: $(VENV)/.dev  ## the checks that take minutes
	$(PYTEST) -m slow --timeout 3600

lint: $(VENV)/.dev  ## style, types, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python
	$(BIN)/lint-imports

bench: $(VENV)/.dev  ## the claims about speed, measured; benchmarks/RESULTS.md
	$(call run_all,$(SPEED))

bench-all: $(VENV)/.dev  ## those, and what takes longer: scores, memory, scaling
	$(call run_all,$(SPEED) $(filter-out $(SPEED),$(ALL)))

docs: $(VENV)/.docs  ## the documentation, in docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

clean:  ## remove what the other targets made, .venv included
	rm -rf $(VENV) docs/_build dist .coverage .coverage.* .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# The first of these that runs and is at least 3.11.
$(VENV)/.created:
	@set -e; for python in $(PYTHON) python3.11 python3.12 python3.13 python3; do \
	  if $$python -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "setting up $(VENV) with $$($$python --version)"; \
	    $$python -m venv $(VENV); touch $@; exit 0; \
	  fi; \
	done; echo "Python 3.11 or newer, with venv, is needed (Debian: apt install python3-venv)" >&2; exit 1

$(VENV)/.runtime: $(VENV)/.created pyproject.toml
	$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.created pyproject.toml
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.runtime

$(VENV)/.docs: $(VENV)/.created pyproject.toml
	$(PIP) --editable '.[docs]'
	@touch $@ $(VENV)/.runtime
