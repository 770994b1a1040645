# One command each. Every target makes its own .venv and needs Python 3.11+, make and a package index.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_ARGS ?=
# Test processes at a time, each with whole files: most tests wait. 0: one after the other. If one
# of them dies, the run ends and names the test: with a new one in its place it could wait for ever.
JOBS ?= 2
SEED ?= 1
SEEDS ?= 1
HOURS ?=
ARGS ?=

.PHONY: help demo test check format reference bench sim chaos clean

help:
	@echo "make demo    run the main job on a local cluster and kill a worker half-way"
	@echo "make test    run all tests            (one: make test PYTEST_ARGS='-k name')"
	@echo "make check   ruff, mypy, basedpyright, and the tests over the source"
	@echo "make format  let ruff format and fix what it can"
	@echo "make reference draw docs/reference from the docstrings"
	@echo "make bench   measure, print a table, write JSON"
	@echo "make sim     simulate a cluster under faults (SEED=7: that one; SEEDS=500, HOURS=20: so many)"
	@echo "make chaos   faults on real processes, hosts and disks (ARGS='--rows R1,R2 --repeat 30')"
	@echo "make clean   remove what these made"

demo: $(STAMP)
	@$(BIN)/evener demo

test: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --max-worker-restart 0 $(PYTEST_ARGS) </dev/null

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/python -m pytest -q tests/test_tidy.py </dev/null

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

reference: $(STAMP)
	$(BIN)/python -m tests.reference

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py

sim: $(STAMP)
	$(BIN)/python -m tests.simulation --seed $(SEED) --seeds $(SEEDS) $(if $(HOURS),--hours $(HOURS)) $(ARGS)

chaos: $(STAMP)
	$(BIN)/python -m tests.chaos --report chaos.json $(ARGS)

# Debian's python3 may lack ensurepip; then the pip of the system fills the new environment.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "evener needs Python 3.11 or newer, and $(PYTHON) is older. Name one: make PYTHON=python3.12" >&2; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { \
		rm -rf $(VENV) && $(PYTHON) -m venv --without-pip $(VENV) && \
		$(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
