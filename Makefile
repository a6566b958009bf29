# Everything a contributor runs, from a fresh clone to the whole test suite: `make help` lists it.
# Set-up steps leave stamps inside the virtual environments, so that each is done once for each change of its inputs.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
LINTS := lint-style lint-types lint-imports lint-generated
.PHONY: help setup test check lint $(LINTS) format demo bench chaos images e2e deploy requirements clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VENV_REDIS5 := .venv-redis5
PACKAGES := helper imserver $(if $(wildcard operator/pyproject.toml),operator)
SOURCES := $(foreach package,$(PACKAGES),$(package)/src) examples bench tools tests
PIP_FLAGS := --quiet --disable-pip-version-check --no-input

define new_venv
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "setup: $(PYTHON) is older than Python 3.11; name a newer one: make setup PYTHON=python3.12" >&2; exit 1; }; \
$(1)/bin/python -m pip --version >/dev/null 2>&1 \
	|| { echo "setup: virtual environment $(1)"; $(PYTHON) -m venv --clear $(1); }
endef

help:  ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

# The JavaScript client's development tools, where there is an npm; its tests say so where there is none.
NODE_MODULES := $(if $(shell command -v npm),clients/js/node_modules/.installed)

setup: $(VENV)/.installed $(VENV_REDIS5)/.installed $(NODE_MODULES)  ## virtual environments with locked dependencies and our packages

$(VENV)/.installed: $(VENV)/.requirements $(PACKAGES:%=%/pyproject.toml)
	@echo "setup: our packages, editable: $(PACKAGES)"
	@$(BIN)/python -m pip install $(PIP_FLAGS) --no-deps --no-build-isolation $(PACKAGES:%=-e ./%)
	@touch $@

$(VENV)/.requirements: requirements/dev.txt
	@$(call new_venv,$(VENV))
	@echo "setup: locked dependencies of development (about a minute the first time)"
	@$(BIN)/python -m pip install $(PIP_FLAGS) --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV_REDIS5)/.installed: requirements/redis5.txt helper/pyproject.toml imserver/pyproject.toml
	@$(call new_venv,$(VENV_REDIS5))
	@echo "setup: the oldest supported redis-py, apart"
	@$(VENV_REDIS5)/bin/python -m pip install $(PIP_FLAGS) --require-hashes -r requirements/redis5.txt
	@$(VENV_REDIS5)/bin/python -m pip install $(PIP_FLAGS) --no-deps --no-build-isolation -e ./helper -e ./imserver
	@touch $@

clients/js/node_modules/.installed: clients/js/package.json clients/js/package-lock.json
	@echo "setup: development tools of clients/js"
	@cd clients/js && npm ci --silent --no-audit --no-fund
	@touch $@

# Most tests wait for leases, graces and processes rather than compute, so more run at once than there are cores.
# WORKERS=0 runs one after the other, e.g. for a debugger.
WORKERS ?= 3

test: setup  ## everything: lint, unit, integration, browser and JavaScript tests, the docs' examples
	@echo "test: pytest"
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(ARGS)

check: setup  ## the quick half: unit tests only
	@$(BIN)/python -m pytest tests/unit $(ARGS)

lint: setup $(LINTS)  ## style, types, import directions, and that generated code matches its source

lint-style:
	@echo "lint: ruff"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "lint: not in shape; run: make format" >&2; exit 1; }

lint-types:
	@echo "lint: mypy --strict"
	@$(BIN)/mypy --no-error-summary $(SOURCES)

lint-imports:
	@echo "lint: import-linter"
	@report=$$($(BIN)/lint-imports --no-logo 2>&1) || { echo "$$report" >&2; exit 1; }

lint-generated:
	@echo "lint: generated code"
	@$(BIN)/python tools/unasync.py --check
	@$(BIN)/python tools/crd_reference.py --check

format: setup  ## put the sources into shape
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

demo: setup  ## the whole cluster on this machine; SERVERS=5 and REDIS_URL=redis://… change it
	@exec $(BIN)/python tools/demo.py

bench: setup  ## speed and size, beside a floor and servers of other makes in the same run
	@exec $(BIN)/python -m bench $(ARGS)

chaos: setup  ## faults at random on real processes, and what became of every message; ARGS='--seed 7 --seconds 60'
	@exec $(BIN)/python -m tests.chaos $(ARGS)

# IMAGES=registry.example.org/push TAG=1.2.3 name the images; ENGINE is docker or what takes the same arguments.
# buildah forgets what it built for the last target unless it is told to keep layers.
ENGINE ?= docker
BUILD_FLAGS ?= $(if $(findstring buildah,$(ENGINE)),--layers)
IMAGES ?= imcluster
TAG ?= 0.1.0
TARGETS := imserver operator webchat
image_args = --set $(1).image.repository=$(IMAGES)/$(2) --set-string $(1).image.tag=$(TAG)

images:  ## build the container images and print their sizes; ENGINE=podman IMAGES=… TAG=…
	@for target in $(TARGETS); do \
		echo "images: $(IMAGES)/$$target:$(TAG)"; \
		$(ENGINE) build $(BUILD_FLAGS) --target $$target --tag $(IMAGES)/$$target:$(TAG) $(if $(PYTHON_IMAGE),--build-arg PYTHON_IMAGE=$(PYTHON_IMAGE)) \
			--build-arg VERSION=$(TAG) --build-arg REVISION=$$(git rev-parse HEAD) .; \
	done
	@for target in $(TARGETS); do $(ENGINE) images $(IMAGES)/$$target:$(TAG); done

# Each worker installs an operator of its own for a namespace of its own; one node has room for two.
E2E_WORKERS ?= $(if $(filter 0,$(WORKERS)),0,2)

e2e: setup  ## end-to-end tests on the cluster of KUBECONFIG; IM_E2E_OPERATOR and IM_E2E_IMSERVER name images that it has
	@exec $(BIN)/python -m pytest --numprocesses $(E2E_WORKERS) --dist worksteal tests/chart tests/e2e $(ARGS)

deploy:  ## the operator and the demo into the cluster of KUBECONFIG, with these images; ARGS='--set …' DEMO_ARGS='--set …'
	@helm upgrade --install imcluster charts/imcluster --namespace im-system --create-namespace --wait --timeout 3m \
		$(call image_args,operator,operator) $(call image_args,imserver,imserver) $(ARGS)
	@helm upgrade --install chat charts/imcluster-demo --namespace chat --create-namespace \
		$(call image_args,webchat,webchat) $(DEMO_ARGS)

requirements:  ## compile requirements/*.in again (needs uv), to the newest versions
	@tools/compile_requirements

clean:  ## remove what setup, tests and builds leave behind
	@rm -rf $(VENV) $(VENV_REDIS5) bench/.build bench/peers/socketio/node_modules clients/js/node_modules build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
