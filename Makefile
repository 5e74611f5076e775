# Two commands to know: `make demo` and `make test`. The first of them creates .venv with pinned versions.

PYTHON ?= python3

# Data sets in a folder beside this one are used where the user has not chosen others.
ifeq ($(origin FEDPACT_DATA),undefined)
BESIDE := $(shell cd ../shared/data 2>/dev/null && pwd)
ifneq ($(BESIDE),)
demo private test bench: export FEDPACT_DATA := $(BESIDE)
endif
endif

# Material for MkDocs announces its own successor on every build.
check docs: export NO_MKDOCS_2_WARNING := 1

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))

.DEFAULT_GOAL := help
.PHONY: help demo private test check bench docs pins clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/ready ## a whole federation on this machine, on real data
	.venv/bin/fedpact demo $(ARGS)

private: .venv/ready ## four hospitals under masks and noise, and what that costs
	.venv/bin/python examples/private_hospitals $(ARGS)

# Each worker of the tests has a core: libraries that would take all of them slow one another down.
test: export OMP_NUM_THREADS ?= 1
test: .venv/ready ## run the tests; ARGS="-m slow" or ARGS=tests/core chooses others
	.venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

check: .venv/ready ## formatting, lints, types, import arrows, documentation
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	@site=$$(mktemp -d) && trap 'rm -rf "$$site"' EXIT && .venv/bin/mkdocs build --quiet --strict --site-dir "$$site"

bench: .venv/ready ## benchmarks; ARGS chooses which
	.venv/bin/python -m benchmarks $(ARGS)

docs: .venv/ready ## build the documentation into site/
	.venv/bin/mkdocs build --strict --site-dir site

pins: ## pin the newest versions that pyproject.toml allows in requirements/dev.txt (with PYTHON=python3.11)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "Pin with the oldest supported Python: make pins PYTHON=python3.11")'
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT \
		&& $(PYTHON) -m venv "$$fresh" \
		&& "$$fresh/bin/pip" install --quiet --upgrade "pip>=25.1" \
		&& "$$fresh/bin/pip" install ".[all]" --group dev \
		&& { \
			echo "# Every package in .venv, written by: make pins"; \
			"$$fresh/bin/pip" freeze --all --exclude pip --exclude fedpact | sed 's/+[a-z0-9.]*$$//'; \
		} > "$$fresh/dev.txt" \
		&& mv "$$fresh/dev.txt" requirements/dev.txt

clean: ## remove .venv and everything that these commands built
	rm -rf .venv site dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

.venv/ready: pyproject.toml requirements/dev.txt
	@found=; if ! .venv/bin/python -c 'import pip; $(SUPPORTED)' 2>/dev/null; then \
		for python in "$(PYTHON)" python3.13 python3.12 python3.11; do \
			if "$$python" -c '$(SUPPORTED)' 2>/dev/null; then found=$$python; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo 'Fedpact needs Python 3.11, 3.12 or 3.13, and "$(PYTHON)" is none of them.' >&2; \
			echo 'Install one and name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11' >&2; \
			exit 1; \
		fi; \
		echo "Setting up .venv with $$("$$found" --version): once, a few minutes."; \
		"$$found" -m venv --clear .venv; \
	fi
	.venv/bin/python -m pip install --quiet --requirement requirements/dev.txt
	.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
