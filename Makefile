# CheXMSN in two commands: `make demo` and `make test`. Both need git, make and Python 3.11 or newer.

# Another interpreter: make PYTHON=python3.12 demo
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test lint campaign clean

# Pretrain, fine-tune, stress and report on drawn radiographs: at most 12 minutes on 2 cores
demo: .venv/.installed
	$(BIN)/chexmsn run recipes/demo.yaml --out runs/demo

# Check the style, then run every test but the long ones
test: lint
	$(BIN)/python -m pytest -m "not campaign" --numprocesses logical --maxprocesses 4 --dist loadfile

# Check the style alone
lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Run the long tests: many kills, long fuzzing, packs of 400,000 images; an hour or two
campaign: .venv/.installed
	@echo "The campaign takes an hour or two on 2 cores; every test is told when it begins, and how far all are."
	HOSTILE_EXAMPLES=400 $(BIN)/python -m pytest -m campaign -vv

# Remove the environment and all caches; runs/ and packs/ are yours and stay
clean:
	rm -rf .venv .pytest_cache .hypothesis .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Print this list
help:
	@awk '/^# / { text = substr($$0, 3); next } \
	      /^[a-z]+:/ && text { sub(":.*", ""); printf "make %-10s %s\n", $$0, text } \
	      { text = "" }' Makefile

# The stamp is written last, so an interrupted installation is taken up again.
.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "CheXMSN needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo missing)." \
	         "Name another one, for example: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make virtual environments: install its venv module" \
	         "(on Debian and Ubuntu: apt-get install python3-venv)." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@echo "Installing into .venv, once: a few gigabytes, mostly PyTorch; this takes some minutes."
	$(BIN)/python -m pip install --editable '.[test]' --constraint constraints.txt
	@touch $@
