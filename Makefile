# Every target creates the environment first. Requirements: Python 3.11 to 3.14, make and a package index.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
export RAY_USAGE_STATS_ENABLED = 0
export OMP_NUM_THREADS ?= 1
unexport PYTHONDONTWRITEBYTECODE  # tests and their child processes import the same modules many times

.PHONY: docs demo truth test test-all check bench clean

docs: $(VENV)/ready  ## build the documentation site: site/index.html
	$(RUN) -m sphinx --fail-on-warning --keep-going -q docs site

demo: $(VENV)/ready  ## render a small film set and run the whole pipeline over it
	$(VENV)/bin/a2data demo-films demo/films
	$(VENV)/bin/a2data run demo/films/manifest.csv --work demo/work --out demo/shards --videos-per-shard 1 --workers 2

test: $(VENV)/ready  ## run the tests that need neither network nor weights
	$(RUN) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-all: $(VENV)/ready  ## run all tests, also slow ones: kill -9 at random moments, the corpus of real footage
	$(RUN) -m pytest -q

check: $(VENV)/ready  ## check style, types and import rules
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache

bench: demo  ## print the benchmark results of the README; takes hours
	$(RUN) -m benchmarks.overhead local
	$(RUN) -m benchmarks.overhead ray
	$(RUN) -m benchmarks.decode_once
	$(RUN) -m benchmarks.kill
	$(RUN) -m benchmarks.faults
	$(RUN) -m benchmarks.corpus
	$(RUN) -m benchmarks.cuts
	$(RUN) -m benchmarks.camera
	$(RUN) -m benchmarks.framing
	$(RUN) -m benchmarks.experts
	$(RUN) -m benchmarks.demo_truth demo/work demo/films
	$(RUN) -m benchmarks.triplet_bench S C R --recipe builtin --recipe weights
	$(RUN) -m benchmarks.retrieval
	$(RUN) -m benchmarks.loader
	$(RUN) -m benchmarks.tiny_training demo/shards

truth: demo  ## compare the demo with its ground truth
	$(RUN) -m benchmarks.demo_truth demo/work demo/films

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(VENV)/bin/a2data models fetch --profile builtin
	touch $@

clean:
	rm -rf $(VENV) demo
