# `make demo` and `make test` need nothing but Python 3.11 or later and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_HOME ?= harmonizer_home

.PHONY: help demo test lint typecheck ui bench bench-quality bench-llm clean

help:
	@echo "make demo       install, make sample receipts, find their wrong labels"
	@echo "make test       install, run the demo, lint, type check, run all tests"
	@echo "make ui         serve the web UI of the demo's home on 127.0.0.1:3000"
	@echo "make bench      measure the pipeline without a language model"
	@echo "make bench-quality DATA=folder  measure what is found on labels with known errors"
	@echo "make bench-llm  measure the language-model path against a simulated endpoint"
	@echo "make clean      remove the environment and the demo's home"

# PYTHONDONTWRITEBYTECODE would have every later process compile all of Dagster again.
$(STAMP): pyproject.toml setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@if $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt uv; then \
		env -u PYTHONDONTWRITEBYTECODE $(BIN)/uv pip install --quiet --python $(BIN)/python \
			--compile-bytecode -c constraints.txt -e '.[dev]'; \
	else \
		env -u PYTHONDONTWRITEBYTECODE $(BIN)/pip install --quiet --disable-pip-version-check \
			-c constraints.txt -e '.[dev]'; \
	fi
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/harmonizer demo --home $(DEMO_HOME)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(STAMP)
	$(BIN)/mypy

# In alphabetical order: by number of tests, the few long ones would all come last.
test: demo lint typecheck
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

ui: $(STAMP)
	$(BIN)/harmonizer ui --home $(DEMO_HOME)

bench: $(STAMP)
	$(BIN)/python benchmarks/pipeline.py

bench-quality: $(STAMP)
	$(BIN)/python -m benchmarks.quality $(DATA) --scorers --ablation --noise

bench-llm: $(STAMP)
	$(BIN)/python -m benchmarks.llm

clean:
	rm -rf $(VENV) $(DEMO_HOME) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
