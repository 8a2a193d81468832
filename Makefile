# synapse-governance. A fresh machine needs Python 3.11 to 3.13, make and git; `make help` lists the targets.

PORT ?= 8008
# Interpreters of `make matrix`, for instance PYTHONS="python3.11 python3.12 python3.13".
PYTHONS ?= python3
# Further arguments to `make bench-audit`.
BENCH ?=
# How many processes `make faults` kills.
WRITER_KILLS ?= 1000
SEQUENCER_KILLS ?= 200
# Further arguments to pytest, for instance PYTEST="-k harness -x".
PYTEST ?=

BIN := .venv/bin
OLDEST := .venv-oldest

.DEFAULT_GOAL := help
.PHONY: help run clean-run smoke lint type unit storage module module-oldest e2e test bench-overhead bench-audit bench-requests faults \
	lock matrix docs docs-check clean venv venv-demo venv-oldest

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

run: venv-demo ## stock Synapse with all three modules and a demo organisation, on PORT (8008)
	@exec $(BIN)/govctl dev --port $(PORT)

clean-run: ## forget the data of `make run`
	rm -rf .dev

smoke: venv-demo ## one scenario through every module, on a free port, in a temporary folder
	@exec $(BIN)/govctl smoke

lint: venv ## style, imports, spelling, links
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/python scripts/check_docs.py

type: venv ## mypy, strict
	$(BIN)/mypy

unit: venv ## tests without any server
	$(BIN)/python -m pytest tests/unit $(PYTEST)

storage: venv ## SQL on SQLite and on a real PostgreSQL
	$(BIN)/python -m pytest tests/storage $(PYTEST)

module: venv ## the modules in a real in-process homeserver, newest Synapse
	$(BIN)/python -m pytest tests/module $(PYTEST)

module-oldest: venv-oldest ## the same on the oldest Synapse that is supported
	$(OLDEST)/bin/python -m pytest tests/module $(PYTEST)

e2e: venv ## main process, workers, Redis, PostgreSQL and nginx, for real
	$(BIN)/python -m pytest tests/e2e $(PYTEST)

test: venv ## everything that must pass; ALLOW_SKIP=layer,layer leaves layers out, loudly
	@scripts/install_system_packages
	@exec $(BIN)/python scripts/run_tests.py

bench-overhead: venv ## the same load on stock Synapse and with all three modules
	@exec $(BIN)/python -m tests.bench.overhead

bench-requests: venv ## what hearing Synapse's request log costs for each request
	@exec $(BIN)/python -m tests.bench.requests

bench-audit: venv ## how fast the audit log takes, seals, verifies, exports and finds; see BENCH
	@exec $(BIN)/python -m tests.bench.audit $(BENCH)

faults: venv ## kill processes of the audit log, WRITER_KILLS and SEQUENCER_KILLS times, and do it every other harm
	@exec $(BIN)/python -m tests.bench.faults --writer-kills $(WRITER_KILLS) --sequencer-kills $(SEQUENCER_KILLS)

matrix: ## unit and module tests on the newest and the oldest Synapse, for each of PYTHONS
	@set -e; for python in $(PYTHONS); do \
		version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		for lock in dev synapse-oldest; do \
			PYTHON=$$python scripts/venv .venv-$$lock-$$version $$lock; \
			echo "matrix: Python $$version, $$lock"; \
			.venv-$$lock-$$version/bin/python -m pytest tests/unit tests/module $(PYTEST); \
		done; \
	done

lock: ## write requirements/*.txt anew from setup.cfg, keeping pins; UPGRADE=--upgrade takes the newest
	@scripts/lock $(UPGRADE)

docs: venv ## write the reference pages of docs/ anew from the code
	$(BIN)/python -m scripts.write_docs

docs-check: venv ## every link and every `make` target named in a document exists
	$(BIN)/python scripts/check_docs.py

clean: ## remove what was built: environments, caches, logs, the demo's data
	rm -rf .venv .venv-* .dev build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

venv:
	@scripts/venv .venv dev

venv-demo:
	@scripts/venv .venv demo

venv-oldest:
	@scripts/venv $(OLDEST) synapse-oldest
