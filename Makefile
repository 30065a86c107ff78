# Everything makes its own environment first: nothing but Python 3.11 to 3.14, make and a package index is needed.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
export RAY_USAGE_STATS_ENABLED = 0
export OMP_NUM_THREADS ?= 1
unexport PYTHONDONTWRITEBYTECODE  # tests and their child processes import the same modules many times

.PHONY: demo truth test test-all check bench clean

demo: $(VENV)/ready  ## render a small film set, run the whole pipeline over it, say where shards and report are
	$(VENV)/bin/a2data demo-films demo/films
	$(VENV)/bin/a2data run demo/films/manifest.csv --work demo/work --out demo/shards --videos-per-shard 1 --workers 2

test: $(VENV)/ready  ## what must hold, without network and weights
	$(RUN) -m pytest -q -n 2 --dist loadfile -m "not slow"

test-all: $(VENV)/ready  ## also what takes minutes: kill -9 at random moments, the corpus of real footage
	$(RUN) -m pytest -q

check: $(VENV)/ready  ## style, types, who may import whom
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache

bench: demo  ## the figures of the README, printed by the scripts that measure them; hours
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

truth: demo  ## the demo against its ground truth
	$(RUN) -m benchmarks.demo_truth demo/work demo/films

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo
