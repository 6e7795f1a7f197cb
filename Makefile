# Everything runs in .venv, made by `make setup` from Python 3.11+ and pip alone. All paths are relative and programs are
# started as `python -m …`, so that a checkout in a folder with a space in its name works like any other.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.ready
PIP_INSTALL := -m pip install -qq --disable-pip-version-check
BUILD_TOOLS := hatchling editables
CYCLONEDX := 7.5.0
SOURCES := $(wildcard heartlane tests bench demo docs)
PYTEST_ARGS ?=
MINUTES ?= 10
CHAOS_ARGS ?=

# The first interpreter that is new enough; `make PYTHON=… setup` names another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$p" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo "$$p" && break; done)

# A virtual environment that can't import this checkout (moved, copied, its Python gone) is made again.
ifneq ($(wildcard $(STAMP)),)
ifneq ($(shell $(PY) -P -c 'import heartlane, os; print(os.path.samefile(os.path.dirname(heartlane.__file__), "heartlane"))' 2>/dev/null),True)
$(shell rm -f $(STAMP))
endif
endif

.PHONY: help setup demo up test slow chaos test-browser browser check bench docs format lock sbom bench-peers simulate clean

help: ## what there is to run
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 21

setup: $(STAMP) ## make the virtual environment, or bring it up to date

# The stamp is written last. Without it an environment counts as broken off half-way and is started afresh; with it, older
# than pyproject.toml or constraints.txt, the packages are brought up to date in place.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Heartlane needs Python 3.11 or newer on the PATH (or: make PYTHON=/path/to/python setup)." >&2; exit 1; }
	@echo "Setting up $(VENV) (once; a minute or so) ..."
	@test -e $(STAMP) || "$(PYTHON)" -m venv --clear $(VENV) >/dev/null 2>&1 || { \
		"$(PYTHON)" -m venv --clear --without-pip $(VENV) && \
		"$(PYTHON)" -m pip --python $(PY) install -qq --disable-pip-version-check --constraint constraints.txt pip; }
	@rm -f $(STAMP)
	@$(PY) $(PIP_INSTALL) --constraint constraints.txt pip $(BUILD_TOOLS)
	@$(PY) $(PIP_INSTALL) --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $(STAMP)

demo: setup ## see it work: a server, three workers, one of them killed
	@$(PY) -m demo

up: setup ## start a server that stays, on the embedded database
	@$(PY) -m heartlane serve

test: setup ## the whole suite on SQLite and PostgreSQL, without the slow tests; in a browser too where one is found
	@$(PY) -m tests.board.browser.chromium --if-missing
	@$(PY) -m tests $(PYTEST_ARGS)

slow: setup ## the slow tests alone
	@$(PY) -m pytest -m slow -o faulthandler_timeout=3600 $(PYTEST_ARGS)

chaos: setup ## the fault campaign, MINUTES=10 of it and what belongs to it: some 20 minutes; CHAOS_ARGS="--seed 7 --keep FOLDER"
	@$(PY) -m tests.chaos --minutes $(MINUTES) $(CHAOS_ARGS)
	@$(PY) -m pytest -m slow tests/worker/test_chaos.py -rP -o faulthandler_timeout=3600 $(PYTEST_ARGS)

# What is left out keeps its default: SEED a number or N..M, DAY=troubled for a world where much goes wrong.
simulate: setup ## live simulated worlds: SEED=1 STEPS=200000 SERVERS=3 WORKERS=2000 LANES=4000 DAY=usual
	@$(PY) -m tests.simulation $(if $(SEED),--seed $(SEED)) $(if $(STEPS),--steps $(STEPS)) \
		$(if $(SERVERS),--servers $(SERVERS)) $(if $(WORKERS),--workers $(WORKERS)) $(if $(LANES),--lanes $(LANES)) \
		$(if $(DAY),--day $(DAY))

test-browser: setup ## the tests of the board in a real Chromium alone
	@$(PY) -m pytest -m browser tests/board/browser $(PYTEST_ARGS)

browser: setup ## install the Chromium that these tests look with, by apt
	@$(PY) -m tests.board.browser.chromium

check: setup ## lint, format and types
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy $(SOURCES)

bench: setup ## measure reports per second against the floor of the same server
	@$(PY) -m bench

bench-peers: setup ## measure it beside Airflow, Prefect, MLflow and Procrastinate, which are installed for that
	@$(PY) -m bench.peers

docs: setup ## write the generated parts of the documentation anew
	@$(PY) -m docs.generate

format: setup ## put imports and layout in order
	@$(PY) -m ruff check --fix-only .
	@$(PY) -m ruff format .

# The newest versions that pyproject.toml allows, from an environment that holds nothing else.
lock: ## write constraints.txt anew
	@test -n "$(PYTHON)" || { echo "Heartlane needs Python 3.11 or newer on the PATH." >&2; exit 1; }
	@"$(PYTHON)" -m venv --clear .venv-lock
	@.venv-lock/bin/python $(PIP_INSTALL) --upgrade pip $(BUILD_TOOLS)
	@.venv-lock/bin/python $(PIP_INSTALL) --no-build-isolation --editable '.[dev]'
	@{ echo "# Every package that Heartlane, its tests and its tools install, at the version they were tested with."; \
	   echo "# Written by \`make lock\`; don't edit by hand."; \
	   .venv-lock/bin/python -m pip freeze --all --exclude-editable | grep -v '^setuptools==' | LC_ALL=C sort -f; } > constraints.txt
	@rm -rf .venv-lock

# What a server consists of and nothing beside it, so from an environment of its own; the tool that lists it has another.
sbom: ## list the parts of a server, as CycloneDX, in dist/heartlane.cdx.json
	@test -n "$(PYTHON)" || { echo "Heartlane needs Python 3.11 or newer on the PATH." >&2; exit 1; }
	@"$(PYTHON)" -m venv --clear .venv-sbom/server && "$(PYTHON)" -m venv --clear .venv-sbom/tool
	@.venv-sbom/server/bin/python $(PIP_INSTALL) --constraint constraints.txt $(BUILD_TOOLS) pip
	@.venv-sbom/server/bin/python $(PIP_INSTALL) --constraint constraints.txt --no-build-isolation '.[server]'
	@.venv-sbom/server/bin/python -m pip uninstall -qq --yes $(BUILD_TOOLS) pathspec pluggy setuptools trove-classifiers
	@.venv-sbom/tool/bin/python $(PIP_INSTALL) 'cyclonedx-bom==$(CYCLONEDX)'
	@mkdir -p dist
	@.venv-sbom/tool/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		-o dist/heartlane.cdx.json .venv-sbom/server/bin/python
	@rm -rf .venv-sbom
	@echo "dist/heartlane.cdx.json"

clean: ## remove the virtual environment and every cache
	@rm -rf $(VENV) .venv-lock .venv-sbom .peers build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
