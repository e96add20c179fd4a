# "make help" lists the targets.

PYTHON ?= python3
BIN := .venv/bin
STAMPS := .venv/stamps
NPM_CI := npm ci --ignore-scripts --no-audit --no-fund --loglevel=error

# Where "make install" puts ipmiproxyd; WHEEL= installs one that is there instead of building one.
PREFIX ?= /opt/ipmiproxyd
WHEEL ?=
# "make uninstall PURGE=yes" also removes configuration, state and keys.
PURGE ?=

export PYTHON
export NPM_CONFIG_UPDATE_NOTIFIER = false
export PYTHONDONTWRITEBYTECODE = 1

.DEFAULT_GOAL := build
.PHONY: help build wheel install uninstall test lint types unit integration soak bench demo clean
.PHONY: packages novnc launcher test-packages soak-packages

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 14

build: $(STAMPS)/python $(STAMPS)/browser novnc launcher ## Prepare .venv and the npm parts; installs missing Debian packages as root
	@.ci/packages --advise run

packages:
	@.ci/packages build

test-packages:
	@.ci/packages build run test

soak-packages:
	@.ci/packages build run test soak

$(STAMPS)/python: setup.cfg pyproject.toml | packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/bench: setup.cfg $(STAMPS)/python
	@.ci/packages build run test bench
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/browser: tests/browser/package.json tests/browser/package-lock.json | packages
	cd tests/browser && $(NPM_CI)
	@mkdir -p $(STAMPS) && touch $@

novnc: | packages
	@sh ipmiproxyd/web/fetch_novnc.sh

launcher: | packages
	@sh ipmiproxyd/java/build.sh

wheel: $(STAMPS)/python novnc launcher ## Build dist/*.whl, noVNC and the launcher of Java consoles included
	rm -rf build dist
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	rm -rf build
	$(BIN)/python -m zipfile --list dist/*.whl | grep -q ipmiproxyd/web/novnc/core/rfb.js
	$(BIN)/python -m zipfile --list dist/*.whl | grep -q ipmiproxyd/java/launcher.jar

install uninstall: export PREFIX := $(PREFIX)
install: export WHEEL := $(WHEEL)
install: ## Install into PREFIX (/opt/ipmiproxyd) and set this machine up, as root
	@.ci/install "$$PREFIX" "$$WHEEL"

uninstall: ## Take that back; with PURGE=yes configuration, state and keys, too
	@.ci/uninstall "$$PREFIX" $(if $(filter-out no,$(PURGE)),--purge)

test: test-packages build ## Everything: lint, types, unit and integration tests
	@$(BIN)/python tests/run_suite.py

lint: $(STAMPS)/python ## ruff
	$(BIN)/ruff check .

types: $(STAMPS)/python ## mypy --strict
	$(BIN)/mypy

unit: $(STAMPS)/python ## The logic, on a fake clock
	@$(BIN)/python tests/run_suite.py unit

integration: test-packages build ## With the real programs
	@$(BIN)/python tests/run_suite.py integration

soak: soak-packages build ## What takes long; makes roots of three Debians in /var/cache/ipmiproxyd-tests
	$(BIN)/python -m twisted.trial --temp-directory _trial_temp.soak tests.soak

bench: build $(STAMPS)/bench ## Measurements
	$(BIN)/python -m benchmarks

demo: build ## A simulated server, the daemon and an open console, until Ctrl-C; VENDOR=supermicro TYPE=java
	@.ci/packages run demo
	@$(BIN)/python -m tests.demo --host "$(HOST)" --vendor "$(VENDOR)" --type "$(TYPE)"

clean: ## Remove what was built
	rm -rf .venv .tox .mypy_cache .ruff_cache .hypothesis build dist *.egg-info .coverage* _trial_temp*
	rm -rf ipmiproxyd/java/launcher.* ipmiproxyd/web/novnc ipmiproxyd/web/novnc.* tests/browser/node_modules twisted/plugins/dropin.cache
	find ipmiproxyd tests benchmarks twisted -name __pycache__ -type d -prune -exec rm -rf {} +
