# `make tune` runs the default search, `make check` the linters and the quick tests, `make test` the tests, two files at
# a time. Each makes its virtual environment once.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable
define SIZE
installing into $(VENV), once: on Linux about 3 GB to download and 7 GB on disk, most of it PyTorch for NVIDIA GPUs;
with PyTorch for CPUs alone (macOS, or where pip finds that build) 0.6 GB and 2 GB. pip shows how far it is:
endef
export SIZE

LOWEST = $(VENV)-lowest
# Without what says to the bit what one version does, and what needs the tools of development.
TESTS_LOWEST = tests/api tests/cli tests/common tests/simulation tests/cluster/test_program.py \
	tests/search/test_sampler.py tests/search/test_space.py tests/search/test_study.py tests/search/test_warm_start.py \
	tests/training/test_architectures.py tests/training/test_attacks.py tests/training/test_data.py \
	tests/training/test_folders.py tests/training/test_loop.py tests/training/test_losses.py \
	tests/training/test_methods.py tests/training/test_models.py tests/training/test_session.py \
	tests/views/test_report.py tests/views/test_tensorboard.py tests/views/test_terminal.py \
	--ignore tests/cli/test_export.py

PYTEST = $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: tune check test test-faults test-lowest lint clean

tune: $(VENV)/installed
	$(BIN)/python launch/tune.py --space default $(ARGS)

# Linters, types, and the tests that start neither Ray nor a browser: about ten minutes on two cores.
check: lint
	$(PYTEST) -m "not (cluster or browser or long)" $(ARGS)

# About half an hour on two cores.
test: $(VENV)/installed-dev
	$(PYTEST) $(ARGS)

# Each fault ten times, the driver's kill at twenty moments, and what takes long: close to two hours on two cores.
test-faults: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m "faults or long" --fault-rounds 10 --kill-moments 20 $(ARGS)

# What stands on other packages' interfaces, with the oldest versions that are supported, in an environment of its own.
test-lowest: $(LOWEST)/installed
	$(LOWEST)/bin/python -m pytest -p no:cacheprovider $(TESTS_LOWEST) -m "not (browser or long)" $(ARGS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "hcpr_tune needs Python 3.11 or later; name one: make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "$$SIZE"
	$(INSTALL) .
	@$(BIN)/python -m compileall -q hcpr_tune
	@touch $@

$(VENV)/installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "$$SIZE"
	$(INSTALL) '.[dev]'
	@touch $@ $(VENV)/installed

$(LOWEST)/installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-lowest.txt \
		--editable . pytest pytest-timeout hypothesis pyte 'moto[s3]' flask flask-cors
	@touch $@

clean:
	rm -rf $(VENV) $(LOWEST)
