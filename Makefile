# The only commands a newcomer needs. They set up what is missing, once, in .uv/ and .venv/ beside this file.
# ARGS="…" goes to `lifeline demo` and to pytest; ONLY=prefix picks benchmarks.

.DEFAULT_GOAL := help
.PHONY: help demo test check bench setup
MAKEFLAGS += --no-print-directory

# Python 3.11 to 3.13: the machine's own python3 where it fits, else the newest that is installed.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
    $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
# Without one, uv may be able to fetch it; with one, uv need not look further.
INTERPRETER := $(if $(PYTHON),--python $(PYTHON))

# Debian's Python is externally managed, so uv goes into a virtual environment of its own where it is missing.
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)

READY := .venv/.lifeline-ready

help:
	@echo "make demo    run the whole service on this machine   (ARGS=\"--help\" lists its options)"
	@echo "make test    run every test                          (ARGS=\"-k word\" runs some)"
	@echo "make check   formatting, lint, types, architecture"
	@echo "make bench   run the benchmarks                      (ONLY=prefix runs some)"

demo: $(READY)
	@.venv/bin/lifeline demo $(ARGS)

test: $(READY)
	@tests/setup
	@.venv/bin/python -m pytest -n 2 --dist worksteal --durations=10 $(ARGS)

check: $(READY)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: $(READY)
	@tests/setup >&2
	@.venv/bin/python -m benchmarks $(ONLY)

setup: $(READY)

$(READY): pyproject.toml uv.lock | $(filter .uv/bin/uv,$(UV))
	@echo "Setting up .venv (a minute the first time) …" >&2
	@env -u VIRTUAL_ENV $(UV) sync --quiet --frozen --all-extras --compile-bytecode $(INTERPRETER) || $(MAKE) by-pip
	@touch $@

# Where uv gets nowhere but pip is set up (a mirror in pip.conf): the same locked versions, by pip.
.PHONY: by-pip
by-pip:
	@echo "uv did not succeed; trying pip with its own settings …" >&2
	@$(or $(PYTHON),python3) -m venv --clear .venv
	@$(UV) export --quiet --frozen --all-extras --no-emit-project --output-file .venv/requirements.txt
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/requirements.txt
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .

.uv/bin/uv:
	@echo "Fetching uv into .uv …" >&2
	@rm -rf .uv
	@$(or $(PYTHON),python3) -m venv .uv || { echo "Python's venv is needed: apt-get install python3-venv" >&2; exit 1; }
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8' || { rm -rf .uv; exit 1; }
