# make demo: the page. make test: lint and all tests. make test-tpu: those of the TPU's path, on a CPU. Each installs first what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TPU := .venv-tpu

.PHONY: demo test test-tpu lint bench clean

demo: $(VENV)/demo.ready
	$(BIN)/python app.py

test: lint
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

# In an environment of its own, of several gigabytes: torch_xla fits one version of torch, which brings CUDA.
test-tpu: $(TPU)/ready
	$(TPU)/bin/python -m pytest tests/tpu

lint: $(VENV)/dev.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

bench: $(VENV)/dev.ready
	$(BIN)/python -m benchmarks.sampling
	$(BIN)/python -m benchmarks.app

clean:
	rm -rf $(VENV) $(TPU)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit(f"Python 3.10 or newer is needed, this is {sys.version.split()[0]}; run make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.ready: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/dev.ready: requirements.txt requirements-dev.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $(VENV)/demo.ready $@

$(TPU)/ready: requirements-tpu.txt
	$(PYTHON) -m venv $(TPU)
	$(TPU)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-tpu.txt pytest==9.2.0
	@touch $@
