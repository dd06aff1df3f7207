# The commands of this repository. `make dev` and `make test` do all the set-up they need, on a fresh machine with Python >= 3.11;
# everything goes into .venv, and a repeated call that has nothing to do does nothing. Works with GNU make 3.81 (macOS) and later.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
SOURCES := core/src crds/src gateway/src operator/src runtimes/src
# Choose an interpreter with `make dev PYTHON=python3.13`; otherwise tools/setup.sh takes the first one that runs and is new enough.
PYTHON ?=
# What follows `kappa dev`, for example `make dev ARGS="--port 9001"`.
ARGS ?=
# How many tests run at once (pytest-xdist), and which: `make test TESTS=tests/unit`.
# Half as many again as cores: tests wait for real processes and real time as much as they compute.
JOBS ?= $(shell echo $$(( ($$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN) * 3 + 1) / 2 )))
TESTS ?= tests/unit tests/contract tests/runtime tests/integration
CLUSTER_TESTS ?= tests/cluster

.PHONY: help dev test simulation fixtures lint format docs bench bench-quick chaos bench-cluster test-cluster lock clean

help:
	@echo "make dev           install Kappa into .venv and serve the Lambda API on http://127.0.0.1:9000"
	@echo "make test          install what the tests need, lint, and run every test this machine can run"
	@echo "make lint          ruff, mypy, import-linter and the repository's own guard"
	@echo "make format        let ruff rewrite what it can"
	@echo "make docs          write the pages that are made from the code"
	@echo "make simulation    ten thousand histories of the link in virtual time"
	@echo "make bench         measure against the budgets (ARGS=\"--only warm --quick\" chooses)"
	@echo "make chaos         100,000 asynchronous events under kill -9 (ARGS=\"--events 5000 --every 2\")"
	@echo "make test-cluster  the Kubernetes suite"
	@echo "make cluster-images  build the images and put them where the current cluster finds them"
	@echo "make lock          resolve requirements/*.txt again"
	@echo "make clean         remove .venv and every cache (not .kappa, which holds your functions)"

dev: $(STAMPS)/runtime $(STAMPS)/node-sdk
	@exec $(BIN)/kappa dev $(ARGS)

# The packages that tests need are built while the linters run: on a fresh machine that is minutes.
test: $(STAMPS)/dev
	@$(MAKE) --no-print-directory -j2 lint fixtures
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -q $(TESTS)

# The rest of the ten thousand histories of the link that the design asks for: minutes, so not a part of `make test`.
simulation: $(STAMPS)/dev
	@KAPPA_SIMULATION_SEEDS=2000:10000 $(BIN)/python -m pytest -n $(JOBS) -q tests/unit/link/test_simulation.py -k no_history

fixtures: $(STAMPS)/dev $(STAMPS)/node-sdk
	@tools/fixtures.sh

lint: $(STAMPS)/dev
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy $(SOURCES) tools bench tests/support
	@$(BIN)/lint-imports --no-logo >$(VENV)/imports.log 2>&1 || { cat $(VENV)/imports.log; exit 1; }
	@$(BIN)/python tools/guard.py
	@$(BIN)/python tools/settings_page.py --check

docs: $(STAMPS)/dev
	@$(BIN)/python tools/settings_page.py

format: $(STAMPS)/dev
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .

bench: $(STAMPS)/dev
	@PYTHONPATH=tests/support $(BIN)/python -m bench.run $(ARGS)

# Installs Kappa into the cluster of KUBECONFIG for the run; the images have to be there (make cluster-images).
bench-cluster: $(STAMPS)/dev
	@PYTHONPATH=tests/support $(BIN)/python -m bench.cluster $(ARGS)

bench-quick: $(STAMPS)/dev
	@PYTHONPATH=tests/support $(BIN)/python -m bench.run --quick $(ARGS)

chaos: $(STAMPS)/dev
	@PYTHONPATH=tests/support $(BIN)/python -m chaos $(ARGS)

# The cluster suite: any cluster that KUBECONFIG names; it installs the chart into a namespace of its own and leaves nothing behind.
test-cluster: $(STAMPS)/dev cluster-images
	@$(BIN)/python -m pytest -q $(CLUSTER_TESTS)

# IMAGES="runtime-python3.13" chooses; tools/images.sh says the rest.
cluster-images:
	@tools/images.sh

# Locked for every platform and Python at once, with hashes and without the address of any package index.
LOCK = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header
lock: $(STAMPS)/dev
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(LOCK) pyproject.toml --extra dev --output-file requirements/dev.txt
	$(LOCK) pyproject.toml requirements/setup.in --constraint requirements/dev.txt --output-file requirements/runtime.txt
	$(LOCK) pyproject.toml --extra kubernetes --constraint requirements/dev.txt --output-file requirements/kubernetes.txt
	$(LOCK) requirements/build.in --constraint requirements/runtime.txt --output-file requirements/build.txt
	$(LOCK) requirements/supervisor.in --constraint requirements/dev.txt --output-file requirements/supervisor.txt
	$(LOCK) requirements/sdk-python.in --constraint requirements/dev.txt --output-file requirements/sdk-python.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis bench/results bench/.cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/runtime: requirements/runtime.txt pyproject.toml
	@PYTHON="$(PYTHON)" VENV="$(VENV)" tools/setup.sh requirements/runtime.txt
	@mkdir -p $(STAMPS) && touch $@

# Node.js functions find the AWS SDK without bringing it, as on AWS. Without npm, or without a network, they bring it themselves.
$(STAMPS)/node-sdk: runtimes/node-sdk/package-lock.json | $(STAMPS)/runtime
	@if npm --version >/dev/null 2>&1; then \
		echo "kappa: installing the AWS SDK for JavaScript"; \
		if $(BIN)/kappa sdk install >/dev/null; then touch $@; fi; \
	fi

$(STAMPS)/dev: requirements/runtime.txt requirements/dev.txt pyproject.toml
	@PYTHON="$(PYTHON)" VENV="$(VENV)" tools/setup.sh requirements/runtime.txt requirements/dev.txt
	@mkdir -p $(STAMPS) && touch $(STAMPS)/runtime $@
