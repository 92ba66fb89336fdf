# `make demo` and `make test` need nothing but Python 3.11 or later and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_HOME ?= harmonizer_home

.PHONY: help demo test test-fast lint typecheck dist-check ui bench bench-quality bench-llm clean

help:
	@echo "make demo       install, make sample receipts, find their wrong labels"
	@echo "make test       install, run the demo, lint, type check, run all tests with coverage"
	@echo "make test-fast  run the unit tests alone, in less than a minute"
	@echo "make formats-check  install the packages of the exchange formats, and have them check files"
	@echo "make dist-check build sdist and wheel; with the installed wheel, time the README's first finding, run the demo"
	@echo "make ui         serve the web UI of the demo's home on 127.0.0.1:3000"
	@echo "make bench      measure the pipeline without a language model"
	@echo "make bench-quality DATA=folder  measure what is found on labels with known errors"
	@echo "make bench-llm  measure the language-model path against a simulated endpoint"
	@echo "make docs       build the documentation into site/; what is undocumented is an error"
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
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry .
	$(BIN)/deptry harmonizer_assets --optional-dependencies-dev-groups dev,bench

typecheck: $(STAMP)
	$(BIN)/mypy

test-fast: $(STAMP)
	$(BIN)/pytest -q -n 2 harmonizer_tests/unit

# File by file, for files share servers and homes; in alphabetical order, so that the long ones
# (browser, Dagster) come first and the workers end together. Three of them on two cores, since the
# tests of served homes mostly wait. `make test COVERAGE=` measures none.
COVERAGE := --cov --cov-report=

test: demo lint typecheck
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder $(COVERAGE)
	@if [ -n "$(COVERAGE)" ]; then \
		$(BIN)/coverage json -q -o - | $(BIN)/python .ci/coverage_totals.py; \
	fi

# The packages of the formats bring pandas, which every other process of the tests would import too:
# they are installed after the tests, and asked alone.
.PHONY: formats-check
formats-check: $(STAMP)
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[formats]'
	$(BIN)/pytest -q harmonizer_tests/unit/test_exchange_validators.py

dist-check: $(STAMP)
	$(BIN)/python .ci/dist_check.py

ui: $(STAMP)
	$(BIN)/harmonizer ui --home $(DEMO_HOME)

bench: $(STAMP)
	$(BIN)/python -m benchmarks.pipeline

bench-quality: $(STAMP)
	$(BIN)/python -m benchmarks.quality $(DATA) --scorers --ablation --noise

bench-llm: $(STAMP)
	$(BIN)/python -m benchmarks.llm

clean:
	rm -rf $(VENV) $(DEMO_HOME) *.egg-info .pytest_cache .mypy_cache \
		.ruff_cache .hypothesis .import_linter_cache .coverage .coverage.* site dist build

# Says how the adapters to Dagster's internals do with the newest Dagster; never fails.
.PHONY: compat-newest
compat-newest: $(STAMP)
	@PYTHON=$(BIN)/python .ci/compat_newest

# The documentation, into site/. Broken links and anything undocumented are errors.
DOCS_STAMP := $(VENV)/.installed-docs

$(DOCS_STAMP): $(STAMP)
	@if [ -x $(BIN)/uv ]; then \
		$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[docs]'; \
	else \
		$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'; \
	fi
	@touch $(DOCS_STAMP)

.PHONY: docs
docs: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site/index.html; with search: $(BIN)/python -m http.server -d site 8000"
