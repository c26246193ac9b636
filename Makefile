# make demo: the page. make test: lint and all tests. Each installs into .venv first what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint bench clean

demo: $(VENV)/demo.ready
	$(BIN)/python app.py

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/dev.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

bench: $(VENV)/dev.ready
	$(BIN)/python -m benchmarks.sampling
	$(BIN)/python -m benchmarks.app

clean:
	rm -rf $(VENV)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit(f"Python 3.10 or newer is needed, this is {sys.version.split()[0]}; run make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.ready: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/dev.ready: requirements.txt requirements-dev.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $(VENV)/demo.ready $@
