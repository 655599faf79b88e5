# `make demo` and `make test` are all a newcomer needs; each makes the virtual environment by itself.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test check bench lint types lua docs clean property-long
.DEFAULT_GOAL := help

help:
	@echo "make demo   the whole thing in under a minute"
	@echo "make test   the tests, against real servers"
	@echo "make check  what CI runs: lint, types, lua, test"
	@echo "make bench  figures, beside the raw cost"

setup: $(STAMP)

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
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

bench: setup
	@$(BIN)/python -m bench

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis out
