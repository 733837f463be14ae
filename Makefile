# make suites: install into .venv and run the performance suites; a GPU is used where there is one.
# make test:   the same for the plugin's own tests.
# make lint:   ruff and mypy.
PYTHON ?= python3
GPU := $(wildcard /proc/driver/nvidia/version)
# PyCUDA has to be compiled; a GPU machine without a compiler takes cuda.core, all wheels, and runs no model.
PYCUDA := $(and $(GPU),$(shell command -v g++))
comma := ,
EXTRAS := suites,$(if $(PYCUDA),mlperf$(comma)cuda,$(if $(GPU),cuda-core,mlperf$(comma)cpu))
SUITES := suites/$(if $(findstring mlperf,$(EXTRAS)),, --ignore=suites/test_resnet50.py)
VENV := .venv
PIP := $(VENV)/bin/python -m pip install -q --disable-pip-version-check
# What a person would type; override with: make suites ARGS="-k transpose"
ARGS ?=

.PHONY: suites test lint clean
suites: $(VENV)/.installed
	$(VENV)/bin/python -m pytest $(SUITES) --gpuperf --gpuperf-strict=off $(ARGS)

# CI's variable is set everywhere, so that a test which it reaches fails before CI sees it.
test: export CI = true
test: $(VENV)/.installed-test
	$(VENV)/bin/python -m pytest tests/ -p xdist -n 2 --dist worksteal $(ARGS)

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# PyCUDA has no wheels: with a GPU it is built first, from nvcc as PyPI has it (README, Install).
$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(if $(PYCUDA),sh tools/install-pycuda.sh $(VENV)/bin/python)
	$(PIP) -e '.[$(EXTRAS)]'
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) -e '.[$(EXTRAS),cuda-core,test]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-test
	$(PIP) -e '.[$(EXTRAS),cuda-core,test,dev]'
	touch $@

clean:
	rm -rf $(VENV)
