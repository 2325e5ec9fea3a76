# Everything a contributor runs; `make` alone lists it. Needs python3 (3.11 or later) and make, nothing else:
# what a target uses is installed by it, from the package index, into .venv-tools (uv) and .venv (the rest).
# A new target is a rule with a `## comment`, which is its line in the list, and a name in .PHONY.

PYTHON ?= python3
ARGS ?=
ROUNDS ?= 2000
WORKERS ?= 3
SEEDS ?= 500
FIRST ?= 0
PARALLEL = -n $(WORKERS) --dist worksteal
UV_VERSION := 0.13.9
SPY_VERSION := 0.4.3
INDEX := https://pypi.org/simple

TOOLS := .venv-tools
UV := $(TOOLS)/bin/uv
UV_READY := $(TOOLS)/uv-$(UV_VERSION)
READY := .venv/ready
BIN := .venv/bin
SPY := .venv-flame/bin/py-spy

# The project decides which environment is used, whatever is activated in the caller's shell.
unexport VIRTUAL_ENV UV_PROJECT_ENVIRONMENT UV_PYTHON
# uv.lock was made for the public index; with another one configured, `--locked` would call it outdated.
unexport UV_DEFAULT_INDEX UV_INDEX UV_INDEX_URL UV_EXTRA_INDEX_URL UV_FIND_LINKS
export UV_PYTHON_DOWNLOADS := never
# Behind a proxy that opens TLS only the system knows its authority; pip looks there, uv only when told.
ifneq (,$(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem))
export UV_SYSTEM_CERTS := 1
endif
# pyright runs from its wheel on the Node.js wheel: no npm, no question whether there is a newer one.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test simulate races mutants processes crash conformance matrix pythons check check-format lint mypy pyright imports format bench bench-peers guard flame lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  PYTHON=… chooses the interpreter (before the first run), ARGS=… goes to what is run (make test: to pytest): make test ARGS='-k replay'"

setup: $(READY) ## make .venv with the locked dependencies (the other targets do it when needed)

demo: $(READY) ## take stock of this environment with a child for each package, and survive kill -9
	$(BIN)/continuum demo $(ARGS)

test: $(READY) ## run the tests
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

simulate: $(READY) ## play simulated clusters, SEEDS=500 of them from FIRST=0 on (ARGS='--seed 17': that one, as a transcript)
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --first $(FIRST) $(ARGS)

races: $(READY) ## step and storm the journal: ROUNDS=2000 of each storm, about a quarter of an hour
	CONTINUUM_RACE_ROUNDS=$(ROUNDS) $(BIN)/python -m pytest tests/journal/races -q -s $(ARGS)

mutants: $(READY) ## plant bugs, one at a time, and see that tests catch each (ARGS='fence-without-lock': that one)
	$(BIN)/python -m tools.mutants -j 2 $(ARGS)

processes: $(READY) ## kill, stop and cut off worker processes at length
	CONTINUUM_LONG=1 $(BIN)/python -m pytest $(PARALLEL) tests/processes $(ARGS)

crash: $(READY) ## kill workers before and after every commit of parents, children, cascades, chains and retries
	CONTINUUM_CRASH=1 $(BIN)/python -m pytest tests/crash -q -p no:randomly $(ARGS)

conformance: $(READY) ## what must hold, a line each: code, sentence, verdict
	$(BIN)/python tools/conformance.py $(PARALLEL)

matrix: $(UV_READY) ## run the tests on every supported Python of this machine
	$(TOOLS)/bin/python tools/matrix.py $(UV) $(PARALLEL) $(ARGS)

pythons: $(UV_READY) ## make an environment for every supported Python of this machine
	$(TOOLS)/bin/python tools/matrix.py $(UV) --prepare

check: check-format lint mypy pyright imports ## formatting, lint with the ban list, types, import contracts

check-format: $(READY)
	$(BIN)/ruff format --check .

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff check --quiet --select TID251 --ignore-noqa src/continuum/_core

mypy: $(READY)
	$(BIN)/python -m mypy

pyright: $(READY)
	$(BIN)/python -m pyright

imports: $(READY)
	$(BIN)/lint-imports --no-logo

format: $(READY) ## format the code and repair what lint can repair
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench: $(READY) ## measure speed; prints JSON lines (ARGS='engine 3': a part of it, three rounds)
	$(BIN)/python -m bench $(ARGS)

bench-peers: $(READY) ## measure DBOS, Absurd and Restate beside ours, into docs/performance.md (ARGS='--only dbos,continuum': a trial)
	$(BIN)/python -m bench.peers --uv $(UV) $(ARGS)

guard: $(READY) ## count what a step and a child cost, beside the bounds that tests hold (ARGS='--functions 40': what is called most)
	$(BIN)/python -m tests.guard $(ARGS)

flame: $(READY) $(SPY) ## draw where the time of a step and of a child goes, into docs/images, and print it as tables (as root)
	$(BIN)/python -m bench.flame $(SPY)

lock: $(UV_READY) ## write uv.lock anew after dependencies changed (ARGS=--upgrade for newer ones)
	$(UV) lock --default-index $(INDEX) --python $(TOOLS)/bin/python $(ARGS)

clean: ## remove environments, caches and builds
	rm -rf .venv .venv-* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(UV_READY): tools/install_uv.py
	$(PYTHON) tools/install_uv.py $(TOOLS) $(UV_VERSION)
	@touch $@

# In an environment of its own: it looks at processes from outside and is no dependency of anything here.
$(SPY): $(UV_READY)
	$(UV) venv --quiet --clear --python $(TOOLS)/bin/python .venv-flame
	$(UV) pip install --quiet --default-index $(INDEX) --python .venv-flame py-spy==$(SPY_VERSION)

$(READY): $(UV_READY) pyproject.toml uv.lock
	$(UV) sync --locked --quiet --python $(TOOLS)/bin/python
	@touch $@
