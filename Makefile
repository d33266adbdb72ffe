# Each target works alone on a fresh machine with Python 3.11 or newer: it creates .venv and installs what it needs.
# Python 3.11 gets exactly the files of requirements*.lock, by their hashes, with a torch for the CPU, as CI does.
# Other Pythons get the versions of constraints-cpu.txt; TORCH=cuda lets pip take the newest torch, CUDA included.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
TORCH ?= cpu
VENV := .venv
CONSTRAINTS_cpu := -c constraints-cpu.txt
CONSTRAINTS_cuda :=
PIP = $(VENV)/bin/python -m pip install --disable-pip-version-check --progress-bar off
LOCKED = [ $(TORCH) = cpu ] && $(VENV)/bin/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'
# $(call install,LOCK,EXTRAS)
install = if $(LOCKED); then $(PIP) --require-hashes -r $(1) && $(PIP) --no-deps --no-build-isolation -e .; \
    else $(PIP) $(CONSTRAINTS_$(TORCH)) -e '.$(2)'; fi | $(SHOW_NAMES)
SHOW_NAMES := sed -un 's/^Collecting \([^ ]*\).*/  \1/p'

ifeq ($(filter $(TORCH),cpu cuda),)
$(error TORCH must be cpu or cuda, got '$(TORCH)')
endif

.PHONY: help demo test lint docs dist clean

help:
	@echo "make demo   protect the embedded images, train authorised network and hackers, write demo/index.html"
	@echo "make test   run the tests"
	@echo "make lint   ruff and mypy"
	@echo "make docs   build the site into site/; a broken link is an error"
	@echo "make dist   build wheel and source archive into dist/"
	@echo "make clean  remove .venv, dist, site and caches"

demo: $(VENV)/.installed
	$(VENV)/bin/uge demo --out demo

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --maxprocesses 4 tests

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

dist: $(VENV)/.installed-dev
	$(VENV)/bin/python -m build

clean:
	rm -rf $(VENV) dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The marker names the kind of torch inside; asking for the other kind starts .venv afresh.
$(VENV)/.torch-$(TORCH):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "uge needs Python 3.11 or newer, got " \
	    + sys.version.split()[0] + "; name another with make PYTHON=python3.12")'
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv $(if $(wildcard $(VENV)/.torch-*),--clear) $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml constraints-cpu.txt requirements.lock $(VENV)/.torch-$(TORCH)
	@echo "Installing uge into $(VENV) (some minutes the first time):"
	@$(call install,requirements.lock,)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints-cpu.txt requirements-dev.lock $(VENV)/.torch-$(TORCH)
	@echo "Installing uge and its development tools into $(VENV) (some minutes the first time):"
	@$(call install,requirements-dev.lock,[dev])
	@touch $@ $(VENV)/.installed
