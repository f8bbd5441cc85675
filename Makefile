# The commands people and CI use. `make` lists them.
#
#   PYTHON=python3.12   the Python that .venv is made with (3.10 to 3.13)
#   TORCH=cpu|cuda      which build of PyTorch; without a choice what suits the machine
#   TORCH="..."         arguments for pip install, as "Get started" on pytorch.org gives them
#   CAMPAIGN="..."      how long and which one, as "--minutes 10 --seed 1"
#   INSTALLER=uv        install with uv, which has to be there, instead of pip
#   TESTS="..."         which tests and how, as "-n 0" (one after the other) or "tests/dreamer"

PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH ?=
INSTALLER ?= pip
TESTS ?=
RUN := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup demo test campaign matrix lint format check docs

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## create .venv and install everything that is missing
	@test -n "$(PYTHON)" || { echo "error: no python3 found; install Python 3.11" >&2; exit 2; }
	@$(PYTHON) tools/bootstrap.py $(if $(filter-out file,$(origin PYTHON)),--this-python) \
		--installer '$(INSTALLER)' $(if $(TORCH),--torch '$(TORCH)')

demo: setup  ## record a dataset, train offline and online, videos, report
	@$(RUN) tools/demo.py

test: setup  ## run the tests
	@$(RUN) -m pytest -q -n auto --maxprocesses 4 --dist loadfile $(TESTS)

campaign: setup  ## try for an hour to break it: damaged files, odd words, kills
	@$(RUN) -m tests.campaign $(CAMPAIGN)

matrix:  ## run the tests on every Python that is found
	@$(PYTHON) tools/matrix.py --tests '$(TESTS)' $(if $(TORCH),--torch '$(TORCH)')

lint: setup  ## check style, formatting and types
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy

format: setup  ## mend style and formatting
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .

docs: setup  ## build the pages of docs/ as a website into build/site
	@$(RUN) -m mkdocs build --strict

check: lint test  ## lint and tests, as before a commit
