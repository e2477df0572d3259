# Everything a person types: `make demo`, `make test`. `make help` lists the rest.
SHELL := /bin/bash -o pipefail
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= runs/demo
SEED ?= 0
# Processes that share the tests; 0: none, as a debugger needs it.
TEST_PROCESSES ?= 2

.PHONY: help setup demo test lint format config figures screenshots debian-packages bench-demo bench-nuclei bench-planning \
  bench-clustering bench-questions bench-certificates bench-mask-iou bench-embeddings bench-predict \
  bench-labelling bench-formats bench-faults clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

setup: $(VENV)/.runtime  ## install what the loop needs into .venv

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: segloop needs Python 3.11 or newer; try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "error: no virtual environment; on Debian: apt install python3-venv"; exit 1; }

$(VENV)/.runtime: envs/requirements.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV) (a few minutes and 6 GB the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r envs/requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/.development: envs/requirements-dev.txt envs/requirements-readers.txt $(VENV)/.runtime
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r envs/requirements-dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r envs/requirements-readers.txt
	@touch $@

demo: $(VENV)/.runtime  ## collect masks on generated scenes: seed model and two iterations, within ten minutes
	$(BIN)/segloop run --configfile config/demo.yaml --directory $(RUN) --report -- --config seed=$(SEED)

test: $(VENV)/.development debian-packages  ## run every test that can run on this machine
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile $(PYTEST_ARGS)

debian-packages:
	@bash tests/install_debian_packages.sh

lint: $(VENV)/.development  ## check format, style, types and rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint --configfile config/demo.yaml

format: $(VENV)/.development  ## lay out Python files and rules
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/snakefmt Snakefile rules

config: $(VENV)/.runtime  ## generate config/default.yaml, config/schema.json and the table of config/README.md
	$(BIN)/python -m segloop.config

figures: $(VENV)/.runtime  ## draw the pictures of docs/
	$(BIN)/python -m segloop.reporting.diagrams docs

screenshots: $(VENV)/.development  ## take the pictures of LabelMeLite in docs/
	$(BIN)/python docs/screenshots.py

bench-demo: $(VENV)/.runtime  ## the demo with its control for three seeds; table in docs/benchmarks/
	$(BIN)/python benchmarks/demo.py

bench-nuclei: $(VENV)/.runtime  ## the loop on real nuclei (DATA=folder): per_mask beside thesis
	$(BIN)/python benchmarks/nuclei.py --data $(DATA)

bench-planning: $(VENV)/.runtime  ## dry runs over thousands of shards, the start of each script
	$(BIN)/python benchmarks/planning.py

$(VENV)/.benchmarks: envs/requirements-bench.txt $(VENV)/.runtime
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r envs/requirements-bench.txt
	@touch $@

bench-clustering: $(VENV)/.benchmarks  ## clustering beside other libraries, at a million, its stages (BENCH_ARGS)
	$(BIN)/python benchmarks/clustering.py $(BENCH_ARGS)

# RUN has a default for the demo; here it counts only when it is given.
bench-questions: $(VENV)/.runtime  ## all policies on simulated worlds and real nuclei (NUCLEI=file.npz, RUN=folder, BENCH_ARGS)
	$(BIN)/python benchmarks/questions.py $(if $(NUCLEI),--nuclei $(NUCLEI)) \
	  $(if $(filter-out file,$(origin RUN)),--run $(RUN)) $(BENCH_ARGS)

bench-certificates: $(VENV)/.runtime  ## exact errors of sequential audits, and how long a decision takes (BENCH_ARGS)
	$(BIN)/python benchmarks/certificates.py $(BENCH_ARGS)

bench-mask-iou: $(VENV)/.runtime  ## predicted IoU beside the class score (NUCLEI=folder, BENCH_ARGS)
	$(BIN)/python benchmarks/mask_iou.py $(if $(NUCLEI),--nuclei $(NUCLEI)) $(BENCH_ARGS)

bench-embeddings: $(VENV)/.runtime  ## which embedding tells good masks from bad ones (NUCLEI=folder, BENCH_ARGS)
	$(BIN)/python benchmarks/embeddings.py --nuclei $(NUCLEI) $(BENCH_ARGS)

bench-predict: $(VENV)/.runtime  ## prediction as a pipeline beside the plain loop, on a GPU too where there is one (BENCH_ARGS)
	$(BIN)/python benchmarks/predict.py $(BENCH_ARGS)

bench-labelling: $(VENV)/.development  ## the labelling server under load, killed and restarted (BENCH_ARGS)
	$(BIN)/python benchmarks/labelling.py $(BENCH_ARGS)

bench-formats: $(VENV)/.runtime  ## COCO files, lists of millions and masks read (BENCH_ARGS)
	$(BIN)/python benchmarks/formats.py $(BENCH_ARGS)

.PHONY: bench-fuzz bench-load audit

bench-fuzz: $(VENV)/.runtime  ## hostile input of every kind (BENCH_ARGS="--inputs 1000000 --kinds masks requests")
	$(BIN)/python benchmarks/fuzz.py $(BENCH_ARGS)

bench-load: $(VENV)/.runtime  ## 32 annotators for ten minutes; clustering in little memory; 100,000 shards (BENCH_ARGS)
	$(BIN)/python benchmarks/load.py $(BENCH_ARGS)

# In an environment of its own: it needs versions of libraries that the pins do not allow.
audit:  ## ask the advisory database whether a pinned version has a known vulnerability (needs the internet)
	@$(PYTHON) -m venv .audit && .audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	.audit/bin/pip-audit --no-deps --disable-pip -r envs/requirements.txt
	.audit/bin/pip-audit --no-deps --disable-pip -r envs/requirements-dev.txt

bench-faults: $(VENV)/.development  ## faults by the hundred, each mended and compared; docs/reliability.md (BENCH_ARGS)
	$(BIN)/python benchmarks/faults.py $(BENCH_ARGS)

clean:  ## remove the demo's results; answers of people are elsewhere and stay
	rm -rf $(RUN)/results $(RUN)/resources $(RUN)/report.html
