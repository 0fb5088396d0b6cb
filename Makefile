# Everything runs in .venv, made here from constraints.txt. `make help` lists the verbs.

# A Python of 3.11 or newer: yours (`make PYTHON=python3.12 ...`), else the first of these that is one.
ifndef PYTHON
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; exit; }; done; echo python3)
endif
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
INSTALL := pip install --python $(BIN)/python -c constraints.txt -e '.[dev]'

PEERS := benchmarks/.peers-venv
PEERS_STAMP := $(PEERS)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup sweep test test-slow test-long faults check format docs pictures wheel bless bench clean

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## install into .venv; does nothing when it is up to date

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "$(PYTHON) is missing or older than 3.11: install a newer Python or name one, e.g. make PYTHON=python3.12 $(or $(MAKECMDGOALS),setup)" >&2; exit 1; }
	@# uv when there is one; else the standard venv, with uv fetched into it; pip itself when uv can't be had
	@# or can't reach the package index (pip knows settings that uv doesn't).
	@if command -v uv >/dev/null; then \
		uv venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" $(VENV) && uv $(INSTALL); \
	else \
		$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
			|| { echo "$(PYTHON) has no venv module: install it (Debian, Ubuntu: apt install python3-venv) or install uv" >&2; exit 1; }; \
		$(PYTHON) -m venv $(VENV) && { \
			{ $(BIN)/python -m pip install --quiet -c constraints.txt uv && $(BIN)/uv $(INSTALL); } \
			|| $(BIN)/python -m pip install -c constraints.txt -e '.[dev]'; }; \
	fi
	@touch $@

sweep: $(STAMP) ## run a whole sweep on the bundled digits: about two minutes
	$(BIN)/research sweep quickstart --name $$(name=first; n=2; while [ -e sweeps/$$name ]; do name=first-$$n; n=$$((n + 1)); done; echo $$name)

test: $(STAMP) ## the fast tests, in one process for each core
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal

test-slow: $(STAMP) ## the tests that start Ray, train, or kill processes
	$(BIN)/python -m pytest -m "(slow or faults) and not long"

test-long: $(STAMP) ## the tests that CI can't afford: clusters, object storage, nodes, chaos
	$(BIN)/python -m pytest -m long

faults: $(STAMP) ## commit every fault of docs/faults.md, fast and slow, and print what was survived
	$(BIN)/python -m pytest -m "fault or faults"

check: $(STAMP) ## lint, format, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## apply what `make check` would ask of the format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP) ## build the documentation site into docs/_build/html; a warning is an error
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html

pictures: $(STAMP) ## run a sweep, and draw the pictures of the documents from it (needs chromium)
	$(BIN)/python docs/images/draw.py

wheel: $(STAMP) ## build the wheel, install it into a new environment and run a sweep there, outside this folder
	rm -rf dist build
	@here=$$(pwd); uv=$$(command -v uv || echo "$$here/$(BIN)/uv"); place=$$(mktemp -d); trap 'rm -rf $$place' EXIT; set -e; \
	$$uv build --quiet; \
	$$uv venv --quiet --python $(BIN)/python $$place/venv; \
	$$uv pip install --quiet --python $$place/venv/bin/python -c constraints.txt dist/*.whl; \
	cd $$place; \
	venv/bin/research sweep quickstart --trials 1 --epochs 1 --address none --wandb disabled --name once; \
	venv/bin/research report sweeps/once; \
	test -s sweeps/once/report.html; \
	for package in research search_spaces vae; do ls venv/lib/python*/site-packages/$$package/py.typed; done

bless: $(STAMP) ## rewrite the golden files; review the diff before committing it
	$(BIN)/python -m pytest tests/golden --bless

bench: $(STAMP) $(PEERS_STAMP) ## measure loops, estimates, stacks and sweeps beside their peers (needs a quiet machine)
	$(BIN)/python benchmarks/training_loop.py $(BENCH)
	$(BIN)/python benchmarks/nll.py $(filter --quick,$(BENCH))
	$(BIN)/python benchmarks/stacking.py $(filter --quick,$(BENCH))
	$(BIN)/python benchmarks/trial_parts.py $(filter --quick,$(BENCH))
	$(BIN)/python benchmarks/sweep_overhead.py $(filter --quick,$(BENCH))

# The peers get an environment of their own: their requirements are not ours.
$(PEERS_STAMP): benchmarks/peers/requirements.txt | $(STAMP)
	@uv=$$(command -v uv || command -v $(BIN)/uv); if [ -n "$$uv" ]; then \
		"$$uv" venv --quiet --allow-existing --python $(BIN)/python $(PEERS) \
		&& "$$uv" pip install --python $(PEERS)/bin/python -r $<; \
	else \
		$(BIN)/python -m venv $(PEERS) && $(PEERS)/bin/python -m pip install -r $<; \
	fi
	@touch $@

clean: ## remove the environments and caches; sweeps and data stay
	rm -rf $(VENV) $(PEERS) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
