# The one way people and CI run anything. `make help` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
PYTHON ?= python3
# Extra arguments for pytest, e.g. make plane ARGS="-k lease"
ARGS ?=
# Test processes side by side; those of the plane each bring a control plane of their own.
JOBS ?= 2

export PYTHONDONTWRITEBYTECODE := 1

.PHONY: help setup binaries demo test lint format unit plane sim node airgap serve-real chart image bundle docs screenshots generate verify bench check clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1m%-12s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.synced ## Make .venv with exactly the locked packages

$(VENV)/.synced: pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; v=sys.version_info; sys.exit(None if v>=(3,11) else f"tramontane: Python must be at least 3.11 (got {v[0]}.{v[1]}); set PYTHON=python3.12, say")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(VENV)/uv/bin/uv || { echo "setup: uv $(UV_VERSION)"; $(PYTHON) -m venv $(VENV)/uv && $(VENV)/uv/bin/pip install --quiet uv==$(UV_VERSION); }
	@echo "setup: the packages of uv.lock"
	@UV_PROJECT_ENVIRONMENT=$(VENV) $(VENV)/uv/bin/uv sync --frozen --quiet --python $(BIN)/python
	@touch $@

binaries: setup ## Build the control plane from Go modules into the cache
	@$(BIN)/tramontane lab build

demo: setup ## 1,024 GPUs train, one falls off the bus; SCENARIO=tranche: 64 blades arrive, 5 bad; SCENARIO=serve: a model in service (root) (KEEP=1 leaves it up)
	@$(BIN)/tramontane lab demo $(if $(SCENARIO),--scenario $(SCENARIO)) $(if $(KEEP),--keep)

test: lint unit sim plane ## Lint, unit tests, simulated halls, and the tests against a real API server

lint: setup ## Format, lint rules, types, layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy --no-error-summary
	@PYTHONPATH=operator:scheduler:health:lab $(BIN)/lint-imports --no-cache > $(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log; exit 1; }
	@echo "lint: clean"

format: setup ## Rewrite the code to the house format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix --quiet .

unit: setup ## Pure cores and scripted servers, no cluster
	@$(BIN)/python -m pytest tests/unit -q -n $(JOBS) --dist worksteal $(ARGS)

sim: setup ## Whole halls on a virtual clock: real shells, weeks of faults, invariants
	@$(BIN)/python -m pytest tests/sim -q -n $(JOBS) --dist worksteal $(ARGS)

plane: binaries ## Real kube-apiserver, etcd, controller-manager, KWOK
	@$(BIN)/python -m pytest tests/plane -q -n $(JOBS) --dist worksteal $(ARGS)

node: setup ## Real kubelets with containers, on simulated GPUs (root; skipped where that cannot be)
	@$(BIN)/python -m pytest tests/node -q $(ARGS)

airgap: binaries ## All tests of serving without a network or DNS (minutes; skipped without rights)
	@$(BIN)/python tests/node/airgap.py -q -n $(JOBS) --dist worksteal $(ARGS) \
	  tests/unit/inferencedeployment tests/unit/lab/test_fakevllm*.py tests/plane/test_inference.py \
	  || test $$? -eq 77

serve-real: setup ## A real model by llama.cpp on a real node, asked by OpenAI's client (root; compiles, once)
	@$(BIN)/python -m tramontane.lab.realmodel
	@TRAMONTANE_SERVE_REAL=1 $(BIN)/python -m pytest tests/node/test_serve_real.py -q -rP $(ARGS)

chart: setup ## Helm: lint, render, refuse bad values
	@$(BIN)/python -m pytest tests/chart -q $(ARGS)

image: setup ## Build the two images into build/ (no container engine, no root; needs Debian's apt)
	@$(BIN)/python -m tramontane.lab.image build $(ARGS)

bundle: setup ## Pack images, chart, command, manual and load.sh for a hall without a network
	@$(BIN)/python -m tramontane.lab.bundle $(ARGS)

docs: setup ## Build the manual into site/; fails on a dead link
	@$(BIN)/python -m tramontane.lab.manual.site

screenshots: binaries ## Draw the dashboards of a live lab into docs/images/boards (needs npm and Chromium)
	@$(BIN)/python -m tramontane.lab.observe.pictures $(ARGS)

GENERATED := crds charts docs/reference

generate: setup ## Write what is generated: CRDs, dashboards, alerts, the reference, the chart's README
	@$(BIN)/python -m tramontane.api.crdgen crds/
	@mkdir -p charts/tramontane/files/crds && rm -f charts/tramontane/files/crds/*.yaml && cp crds/*.yaml charts/tramontane/files/crds/
	@$(BIN)/python -m tramontane.lab.observe.boards
	@$(BIN)/python -m tramontane.lab.observe.alerts
	@$(BIN)/python -m tramontane.lab.manual.chart
	@$(BIN)/python -m tramontane.lab.manual

verify: generate ## Fail if a generated file is not what its source says
	@git diff --exit-code --stat -- $(GENERATED) || { echo "verify: run 'make generate' and commit the result"; exit 1; }
	@test -z "$$(git ls-files --others --exclude-standard -- $(GENERATED))" || { echo "verify: generated files are not committed"; exit 1; }

bench: setup ## Measure the budgets; writes bench/results (10 to 15 minutes)
	@PYTHONPATH=tests $(BIN)/python -m bench $(ARGS)

check: verify test node chart ## What CI runs

clean: ## Remove what was made in the checkout (the cache of binaries stays)
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist site
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
