# Every target sets up .venv by itself, once; run `make help` for the list.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
STORE ?= store
RESULTS ?= results
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install run test test-all lint types imports pages docs smoke faults edits check bench wheel clean

help:  ## print every target with one line
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(READY)

install: $(READY)  ## set up .venv from constraints.txt and pyproject.toml

run: install  ## the main job: GMI against a BiDO-defended victim on the embedded digits
	$(BIN)/python -m mibench attack=gmi defense=bido

test: install  ## the tests, without slow ones and without truth tests that no change since BASE reaches
	MIBENCH_PROGRESS=0 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --reach -n $(WORKERS) --dist worksteal

test-all: install  ## all tests
	MIBENCH_PROGRESS=0 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: install  ## ruff: style, names, docstrings, import order, format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install  ## mypy, strict on mibench/
	$(BIN)/mypy

imports: install  ## import-linter: imports run one way
	$(BIN)/lint-imports

smoke: install  ## one tiny cell of every attack and defense, from a fresh store
	scripts/smoke.sh $(BIN)/python

faults: install  ## 1,000 faults of files, kills at random times and 10,000 random command lines (an hour or more)
	PYTHONPATH=.:tests MIBENCH_PROGRESS=0 OMP_NUM_THREADS=1 $(BIN)/python -m faults

edits: install  ## whether the truth tests notice what an edit takes away from a method (more than an hour)
	PYTHONPATH=. $(BIN)/python scripts/edits.py --workers $(WORKERS)

pages: install  ## compare the leaderboard with the committed studies, and the documentation with the cards
	scripts/check_pages.sh $(BIN)/python

docs: install  ## write the parts of the documentation that repeat cards (docs/catalogue.md, docs/threat_models.md ...)
	PYTHONPATH=. $(BIN)/python scripts/make_docs.py

check: lint types imports pages test-all smoke  ## all of it, exactly what CI runs

bench: install  ## speed against its limits, as one table (several minutes)
	$(BIN)/python benchmarks

wheel: install  ## build the wheel and the source archive into dist/
	$(BIN)/python -m build

clean:  ## remove build leftovers (not .venv, store or results)
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
