# Two commands for newcomers: `make demo` shows the main job, `make test` runs the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= ./out
# a process for every core; one file's tests stay together, with what they share, and the longest, the flows', come first
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

# Prefect's telemetry is off in everything that is run from here
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
# tests start many processes, which need not compile our modules each time
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test quick test-slow lint clean

demo: $(VENV)/installed
	$(BIN)/darkroom demo $(OUT) --prefect

test: $(VENV)/installed
	$(PYTEST)

quick: $(VENV)/installed
	$(PYTEST) tests/test_rooms.py tests/test_errors.py tests/test_docstrings.py tests/pipeline/requests tests/pipeline/steps tests/pipeline/reports

test-slow: $(VENV)/installed
	$(PYTEST) -m "slow or not slow" --hypothesis-profile searching

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Darkroom needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "This Python cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@echo "Installing Darkroom and what it needs (PyTorch is large; this takes some minutes the first time)"
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .venv-s3 .venv-audit out
