# The pinned environment and the checks. `make quickstart` is the first of the two commands of the README.
#
#   make quickstart     environment, then the demo (about three minutes on two cores once installed)
#   make test           lint, types, tests
#   make test-long      the kill and fuzz tests at full size; writes benchmarks/results/robustness.json
#   make docs           docs/cli.md and docs/openapi.json from the program
#
# PYTHON=...            the interpreter to build .venv with, 3.11 or newer
# TORCH_INDEX=URL       a further package index to take torch from; empty for none

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTHON ?= $(shell command -v python3.11 || command -v python3)

# On Linux the usual index serves a torch with 3 GB of CUDA libraries. Where no GPU answers, the CPU build is taken from
# PyTorch's own index: its version (2.13.0+cpu) fits the same pin and sorts before the plain one. With a GPU, and on
# macOS, the usual index has the right build.
ifeq ($(origin TORCH_INDEX),undefined)
  ifeq ($(shell uname -s)/$(shell nvidia-smi >/dev/null 2>&1 && echo gpu),Linux/)
    TORCH_INDEX := https://download.pytorch.org/whl/cpu
  endif
endif

.DEFAULT_GOAL := help
.PHONY: help install quickstart test lint types tests test-long format docs clean

help:
	@sed -n 's/^#   //p' Makefile

# Stamps: an environment is rebuilt only when what it is made from has changed.
$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "no python3 found: install Python 3.11 or newer, or pass PYTHON=/path/to/python"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is too old: pass PYTHON=/path/to/python3.11 or newer"; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	@touch $@

# torch comes first and alone, so that the further index is asked for this one package only; an index that cannot be
# reached costs a warning, and the usual one is used.
$(VENV)/.torch: $(VENV)/.created constraints.txt
	@echo "Installing; the first time this takes some minutes."
ifneq ($(TORCH_INDEX),)
	$(PIP) install --quiet --retries 1 --no-deps -c constraints.txt --extra-index-url $(TORCH_INDEX) torch
endif
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.torch pyproject.toml
	$(PIP) install --quiet -c constraints.txt -e '.[test]'
	@touch $(VENV)/.installed $@

install: $(VENV)/.installed

quickstart: $(VENV)/.installed
	$(BIN)/l2d quickstart --overwrite

test: lint types tests

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-test
	$(BIN)/mypy src

# One thread per worker: two workers that each start a thread per core slow each other down.
tests: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -q

test-long: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 L2D_FIGURES=benchmarks/results/robustness.json $(BIN)/python -m pytest -m "long or sized" -v

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-test
	$(BIN)/python -m typer l2d.cli utils docs --name l2d --title "The command line" --output docs/cli.md
	$(BIN)/python -m l2d.serve.description docs/openapi.json

clean:
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache
