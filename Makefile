# `make demo` and `make test` are all a newcomer needs; each makes the virtual environment by itself.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo test check property-long bench lint types lua clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   the whole thing in under a minute"
	@echo "make test   the tests, against real servers"
	@echo "make check  what CI runs: lint, types, lua, test"
	@echo "make bench  figures, beside the raw cost"
	@echo "make property-long  10,000 random histories of a shard against its model"
	@echo "make clean  removes all that these made, the virtual environment too"

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is not Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || \
		{ echo "$(PYTHON) makes no virtual environments; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "installing into $(VENV), a minute or so ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[dev]'
	@touch $(STAMP)

demo: setup
	@$(BIN)/forebay demo

test: setup
	@$(BIN)/python -m pytest tests

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache

types: setup
	@$(BIN)/mypy

lua: setup
	@$(BIN)/python -m coordinator.scripts check

check: lint types lua test

property-long: setup
	@FOREBAY_PROPERTY=long $(BIN)/python -m pytest -s tests/property

bench: setup
	@$(BIN)/python -m bench

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis out
