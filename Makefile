# The commands of this checkout; `make` alone lists them.
# Needs make and Python 3.11 or newer. Everything else goes into $(VENV), with the versions
# that requirements/*.txt pin.

PYTHON ?= python3
VENV ?= .venv
UV ?= uv
ARGS ?=
# Processes that share the tests out; 0 runs them in one.
WORKERS ?= auto

RUN := $(VENV)/bin/python
PYTEST := $(RUN) -m pytest --numprocesses $(WORKERS) --dist worksteal
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help train test test-slow test-without-torch soak gpu-report check check-format check-lint check-types format \
	lock clean venv install-train install-dev install-parity

help:
	@echo "make train      set up $(VENV) and train on the embedded digits, into runs/digits"
	@echo "make test       set up $(VENV) and run the tests; ARGS='-k squash' chooses among them"
	@echo "make test-slow  the few tests that take up to a minute each"
	@echo "make soak       kill a run at 50 random moments, damage its files, break what it reads,"
	@echo "                let it train for 20,000 steps, train every routing far too fast, and demand"
	@echo "                that nothing is lost"
	@echo "make gpu-report measure all that needs a GPU within 9 minutes, into OUT; DATA holds MNIST"
	@echo "make check      format, lint and types, as continuous integration checks them"
	@echo "make format     rewrite the code in the project's format"
	@echo "make lock       pin the requirements anew (needs uv); ARGS=--upgrade takes newer ones"
	@echo "make clean      remove $(VENV) and the caches; runs/ stays"
	@echo
	@echo "PYTHON=python3.12 chooses the interpreter of a new $(VENV)."

train: install-train
	$(RUN) -m train fit digits --out runs/digits --overwrite $(ARGS)

test: install-dev install-parity
	$(PYTEST) -m "not slow" $(ARGS)

# What starts many processes, and takes up to a minute each.
test-slow: install-dev install-parity
	$(PYTEST) -m slow $(ARGS)

# What can be tested without PyTorch.
test-without-torch: install-dev
	$(PYTEST) -m "not torch and not slow" $(ARGS)

soak: install-dev install-parity
	$(RUN) -m tests.soak.endurance
	$(RUN) -m tests.soak.steep
	$(RUN) -m tests.soak.damage
	CAPSJAX_FUZZ_EXAMPLES=20000 $(PYTEST) tests/train/test_fuzz.py tests/parity/test_fuzz.py
	$(RUN) -m tests.soak.crashes

# On a machine where nothing can be installed, $(PYTHON) is taken as it is if it has what it takes.
DATA ?=
OUT ?= runs/gpu-report
REPORT_NEEDS := import sys, importlib.util as u; assert sys.version_info >= (3, 11) and \
	all(map(u.find_spec, "jax flax optax orbax.checkpoint torch sklearn matplotlib tqdm".split()))

gpu-report:
	@if $(PYTHON) -c '$(REPORT_NEEDS)' >/dev/null 2>&1; then python='$(PYTHON)'; \
	else $(MAKE) --no-print-directory install-parity && python='$(RUN)' || exit; fi; \
	$$python -m parity gpu-report $(if $(DATA),--data-dir '$(DATA)') --out '$(OUT)' $(ARGS)

check: check-format check-lint check-types

check-format: install-dev
	$(RUN) -m ruff format --check .

check-lint: install-dev
	$(RUN) -m ruff check .

check-types: install-dev install-parity
	$(RUN) -m mypy

format: install-dev
	$(RUN) -m ruff check --fix-only .
	$(RUN) -m ruff format .

clean:
	rm -rf .venv .venv-* build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- Set-up: done once for each content of a lock, which $(VENV)/locks remembers as a copy of
# the file, written last, so that an interrupted set-up starts again.

NEW_ENOUGH := import sys; assert sys.version_info >= (3, 11)

venv:
	@if ! $(RUN) -c '$(NEW_ENOUGH); import pip' >/dev/null 2>&1; then \
		$(PYTHON) -c '$(NEW_ENOUGH)' >/dev/null 2>&1 || { \
			echo "capsjax needs Python 3.11 or newer, and '$(PYTHON)' is older or missing:" \
				"name one, as in 'make PYTHON=python3.11 $(MAKECMDGOALS)'." >&2; exit 1; }; \
		echo "Making $(VENV) with $$($(PYTHON) --version)"; \
		rm -rf $(VENV)/locks; \
		$(PYTHON) -m venv $(VENV) || { \
			echo "'$(PYTHON) -m venv' failed: install the venv module of this Python" \
				"(on Debian and Ubuntu the package python3-venv)." >&2; exit 1; }; \
	fi

define install
@if ! cmp -s $(1) $(VENV)/locks/$(notdir $(1)); then \
	echo "Installing $(1) into $(VENV), which takes about a minute"; \
	mkdir -p $(VENV)/locks && \
	$(RUN) -m pip install --quiet -r $(1) && \
	cp $(1) $(VENV)/locks/; \
fi
endef

# The library itself, editable, so that scripts and notebooks anywhere import this checkout. Its
# version and what it asks for are in pyproject.toml; a checkout that was moved is installed again.
define install_library
@if ! { cat pyproject.toml; pwd; } | cmp -s - $(VENV)/locks/library; then \
	$(RUN) -m pip install --quiet --no-deps --no-build-isolation --editable . && \
	{ cat pyproject.toml; pwd; } > $(VENV)/locks/library; \
fi
endef

install-train: venv
	$(call install,requirements/train.txt)
	$(install_library)

install-dev: venv
	$(call install,requirements/dev.txt)
	$(install_library)

install-parity: install-dev
	$(call install,requirements/parity.txt)

# --- Locks: dev.txt is resolved first, the others agree with it. parity.txt holds what the group
# adds to train.txt; which CUDA packages a build of PyTorch needs, if any, is left to pip.

COMPILE = $(UV) pip compile pyproject.toml --quiet --universal --python-version 3.11 \
	--no-emit-index-url --no-annotate --custom-compile-command "make lock"

lock:
	@$(UV) --version >/dev/null 2>&1 || { \
		echo "make lock needs uv: install it, or name it, as in 'make lock UV=path/to/uv'." >&2; \
		exit 1; }
	$(COMPILE) $(ARGS) --group train --group dev -o requirements/dev.txt
	$(COMPILE) --group train -c requirements/dev.txt -o requirements/train.txt
	$(COMPILE) $(ARGS) --group parity -c requirements/dev.txt -o requirements/parity.txt
	grep '^#' requirements/dev.txt > requirements/parity.new
	grep -vxF -f requirements/train.txt requirements/parity.txt \
		| grep -vE '^(cuda|nvidia|triton)-?' >> requirements/parity.new
	mv requirements/parity.new requirements/parity.txt
