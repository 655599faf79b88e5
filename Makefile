# `make demo` and `make test` are all a newcomer needs; each makes the virtual environment by itself.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# What CI checks, in this order; .ci/run times each.
CHECKS := lint types lua docs test test-slow

.PHONY: help setup demo test test-slow check checks property-long chaos run-kills lost-state bench lint lint-imports types lua docs clean \
	bench-peers e2e-providers e2e-sdks e2e-provider-sdks e2e-openai-1 e2e-openai-2 e2e-node e2e-page e2e-processes shared-capacity reliability
.DEFAULT_GOAL := help

help:
	@echo "make demo   the whole thing in under a minute"
	@echo "make test   unit, contract and short property tests, against real servers; five minutes"
	@echo "make test-slow  killed processes, cut connections, and the documented commands end to end"
	@echo "make check  what CI runs: $(CHECKS)"
	@echo "make docs   the documents and the API as a site, in out/docs; no network, and warnings are errors"
	@echo "make bench  figures, beside the raw cost and the peers that are installed (make bench-peers:"
	@echo "            self-limiters, saq, taskiq-redis, and bullmq where node is); two commits are compared by"
	@echo "            .venv/bin/python -m bench --baseline REF SCENARIO"
	@echo "make shared-capacity [ROW=...]  a fleet told nothing beside one that knows the limit; an hour and a half"
	@echo "make reliability [SECTION=...]  the tables of docs/reliability.md, measured and written anew"
	@echo "make property-long  10,000 random histories of a shard against its model"
	@echo "make chaos [SEED=...]  ten minutes of runs, jobs and SDK callers under faults that a seed decides"
	@echo "make run-kills [SEED=...]  runs whose driver, workers and server are killed; ten minutes"
	@echo "make lost-state  a server loses state in each way under load; the provider counts; ten minutes"
	@echo "make e2e-providers  against LiteLLM, nginx and a provider with three hidden limits; 40 minutes"
	@echo "make e2e-sdks       the transports below older SDKs, LiteLLM and pydantic-ai"
	@echo "make e2e-provider-sdks  the SDKs of Google, Mistral, Cohere, Groq, Together, OpenAI and Anthropic"
	@echo "make e2e-node       the proxy under the SDKs of Node (needs npm)"
	@echo "make e2e-page       the page of forebay ops in headless Chromium, which must be on PATH"
	@echo "make e2e-processes  the examples of docs/adopt.md: Celery, RQ, gunicorn and so on"
	@echo "make clean  removes all that these made, the virtual environment too"

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is not Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || \
		{ echo "$(PYTHON) makes no virtual environments; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "installing into $(VENV), a minute or so ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile --editable '.[dev]'
	@touch $(STAMP)

demo: setup
	@$(BIN)/forebay demo

# The long ones first, so that no core is left with one of them at the end. Here and in test-slow,
# a test that fails is tried once more, alone (tests/twice.py).
test: setup
	@$(BIN)/python -m tests.twice auto tests/property tests/contract tests/unit

# Three a core: they wait more than they work.
test-slow: setup
	@workers=$$($(BIN)/python -c 'import os; print(3 * os.cpu_count())') && \
		$(BIN)/python -m tests.twice "$$workers" tests/e2e tests/fault

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory lint-imports

# import-linter follows no links, so it reads a copy in which they are folders.
lint-imports: setup
	@copy=$$(mktemp -d) && trap 'rm -rf "$$copy"' EXIT && cp -rL forebay "$$copy/" && \
		lint=$$PWD/$(BIN)/lint-imports && config=$$PWD/pyproject.toml && \
		cd "$$copy" && PYTHONPATH="$$copy" "$$lint" --no-cache --config "$$config"

types: setup
	@$(BIN)/mypy

lua: setup
	@$(BIN)/python -m forebay.coordinator.scripts check

# Anew each time: an incremental build repeats no warning of a page that did not change.
docs: setup
	@rm -rf out/docs out/doctrees
	@$(BIN)/sphinx-build -q -W --keep-going -j auto -c docs/site -d out/doctrees . out/docs
	@echo "the site is at out/docs/index.html"

check: $(CHECKS)

checks:
	@echo $(CHECKS)

property-long: setup
	@FOREBAY_PROPERTY=long $(BIN)/python -m pytest -s --timeout 0 tests/property

# Each in an environment of its own: they ask for other versions of what is installed here.
e2e-providers: setup $(VENV)/apart/litellm-proxy
	@$(BIN)/python -m tests.providers

chaos: setup
	@$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED))

run-kills: setup
	@$(BIN)/python -m tests.run_kills $(if $(SEED),--seed $(SEED))

lost-state: setup
	@$(BIN)/python -m tests.lost_state
	@FOREBAY_LOST_STATE=all $(BIN)/python -m pytest tests/fault/test_lost_pool_state.py

BELOW_SDKS := tests/contract/test_transports.py tests/contract/test_transport_failures.py
TESTING := -e '.[embedded,httpx,mock,uvloop]' 'pytest>=8.3' 'pytest-asyncio>=1.0,<2' 'pytest-timeout>=2.3,<3' 'fakeredis[lua]>=2.26'
# Two at a time, the longest first: installing waits for the index, and the tests wait for servers.
# CI runs these; e2e-provider-sdks installs for minutes, e2e-processes (docs/adopt.md) and e2e-node
# need minutes or npm: these are run by hand.
e2e-sdks: setup
	@$(MAKE) --no-print-directory --jobs 2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) \
		e2e-openai-2 e2e-openai-1

e2e-openai-1: $(VENV)/apart/openai-1
	@$</bin/python -m pytest $(BELOW_SDKS) -k openai
	@$</bin/python -m pytest tests/sdks/provider_calls.py

# LiteLLM and pydantic-ai ask for openai 2, so that the three share an environment.
e2e-openai-2: $(VENV)/apart/openai-2
	@$</bin/python -m pytest $(BELOW_SDKS) -k openai
	@$</bin/python -m pytest tests/sdks/litellm_calls.py tests/sdks/pydantic_ai_calls.py

e2e-provider-sdks: setup $(VENV)/apart/provider-sdks
	@$(VENV)/apart/provider-sdks/bin/python -m pytest tests/sdks/provider_calls.py

e2e-node: setup $(VENV)/apart/node
	@$(BIN)/python -m pytest tests/sdks/node_calls.py

e2e-page: setup $(VENV)/apart/page
	@$(VENV)/apart/page/bin/python -m pytest -s tests/sdks/ops_page_calls.py

e2e-processes: setup $(VENV)/apart/processes
	@$</bin/python -m pytest tests/sdks/process_calls.py

# One after the other, as both build in the source tree.
$(VENV)/apart/openai-1: | $(VENV)/apart/openai-2

$(VENV)/apart/litellm-proxy: PACKAGES = 'litellm[proxy]>=1.80,<2'
$(VENV)/apart/page: PACKAGES = $(TESTING) 'playwright>=1.45,<2' 'prometheus-client>=0.20'
$(VENV)/apart/processes: PACKAGES = $(TESTING) 'openai>=3,<4' 'celery>=5.5,<5.6' 'kombu>=5.5,<5.6' 'rq>=2,<3' 'dramatiq>=1.17' 'gevent>=24' 'eventlet>=0.37' 'gunicorn>=23' 'ipykernel>=6' 'nest_asyncio>=1.6' requests aiohttp botocore
$(VENV)/apart/openai-1: PACKAGES = $(TESTING) 'openai>=1.50,<2' 'groq>=1,<2'
$(VENV)/apart/provider-sdks: PACKAGES = $(TESTING) 'openai>=3,<4' 'anthropic[bedrock,vertex]>=2,<3' 'google-genai>=3,<4' 'mistralai>=3,<4' 'cohere>=7,<8' 'groq>=1,<2' 'together>=3,<4'
$(VENV)/apart/openai-2: PACKAGES = $(TESTING) 'openai>=2,<3' 'litellm>=1.80,<2' 'pydantic-ai-slim[openai]>=1,<3'
# By the pip of the virtual environment, and uncompiled: a copy of pip takes six seconds to install, and
# of thousands of modules the tests import some.
$(VENV)/apart/%: pyproject.toml | setup
	@echo "installing $* into $@ ..."
	@rm -rf $@ && $(PYTHON) -m venv --without-pip $@
	@$(BIN)/python -m pip --python $@/bin/python install -qq --disable-pip-version-check --no-compile $(PACKAGES)
	@touch $@

$(VENV)/apart/node:
	@command -v npm >/dev/null || { echo "npm is missing, for Node's SDKs; on Debian: apt-get install nodejs npm"; exit 1; }
	@echo "installing Node's SDKs into $@ ..."
	@rm -rf $@ && mkdir -p $@
	@npm install --prefix $@ --silent --no-audit --no-fund openai@6 @anthropic-ai/sdk@1 || { rm -rf $@; exit 1; }

# A run that was interrupted goes on where it was: each row is an artifact.
shared-capacity: setup $(VENV)/apart/litellm-proxy
	@$(BIN)/python -m bench shared-capacity $(ROW)

# Writes the tables of docs/reliability.md anew.
reliability: setup
	@$(BIN)/python -m bench reliability $(SECTION)

bench: setup
	@$(BIN)/python -m bench

# bullmq where its own programs are; the bench says what is missing.
bench-peers: setup
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[bench]'
	@if command -v node >/dev/null && command -v npm >/dev/null; then \
		npm install --silent --no-audit --no-fund --prefix $(VENV)/apart/bullmq bullmq@^6.7 ioredis@^6; \
	else \
		echo "node and npm are not on PATH, so bullmq is not installed; install them and run this again"; \
	fi

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis out
