# Two commands for a new user: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
EXIT   ?=

.PHONY: demo up test lint unit e2e images audit install install-dev clean

demo: install  ## the whole loop on the starter corpus, with a demo model, then the running studio
	@$(BIN)/aku demo $(if $(EXIT),--exit)

up: install  ## the studio for real work: no demo data, no demo model
	@$(BIN)/aku up

test: install-dev lint  ## everything
	@$(BIN)/python -m pytest tests

lint: install-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

unit: install-dev  ## seconds, no server
	@$(BIN)/python -m pytest tests -m "not e2e"

e2e: install-dev
	@$(BIN)/python -m pytest tests -m e2e

images: install-dev  ## regenerate docs/images from the real screen
	@$(BIN)/python -m pytest tests/e2e/test_images.py --images docs/images

audit: install-dev  ## known holes in the exact versions we test with; needs the internet
	@$(BIN)/python -m pip_audit --strict --no-deps --disable-pip --requirement requirements/constraints.txt

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

# label-studio-ml 1.0.9 is installed without its own pins: see requirements/label-studio-ml.txt.
$(VENV)/.installed: pyproject.toml requirements/constraints.txt requirements/label-studio-ml.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (a few minutes the first time) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt -e .
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/label-studio-ml.txt
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
