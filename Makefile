# One target for each thing there is to do. `make demo` and `make test` set up all they need.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-browser chromium check format bench bench-training compare base wheel clean

demo: base
	$(BIN)/python -m deepscan.demo demo/sample.mp4
	$(BIN)/deepscan detect demo/sample.mp4 --heatmap --force --out demo/results
	@echo "The clip is demo/sample.mp4; its face is manipulated from 2 s to 4 s."
	@echo "The results lie in demo/results/sample.mp4: open report.html, or heatmaps/overlay.mp4."

test: base
	$(BIN)/python -m pytest

# The pages in a real browser alone; `make test` runs these too where there is one.
test-browser: base chromium
	$(BIN)/python -m pytest tests/test_browser.py

# Debian's Chromium. Where it cannot be installed (no root, no network) the tests that want it skip themselves.
chromium:
	@command -v chromium || { \
	  export DEBIAN_FRONTEND=noninteractive; \
	  apt-get update -qq -o Acquire::Retries=0 -o Acquire::http::Timeout=20 \
	  && apt-get install -y -qq --no-install-recommends chromium > /dev/null; \
	} || echo "Chromium cannot be installed here; the browser tests will be skipped."

check: $(READY)
	$(BIN)/ruff format --check deepscan tests
	$(BIN)/ruff check deepscan tests
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format deepscan tests
	$(BIN)/ruff check --fix deepscan tests

bench: base
	$(BIN)/python -m deepscan.bench

bench-training: base
	$(BIN)/python -m deepscan.bench_training

# The paper's six methods and more on prepared pairs, judged on crops: make compare DATA=... TEST=... OUT=...
compare: base
	$(BIN)/python -m deepscan.compare --data $(DATA) --test $(TEST) --out $(OUT)

# The CLIP base, in the weights cache; nothing happens where it is there already.
base: $(READY)
	$(BIN)/deepscan weights fetch

wheel: $(READY)
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

# uv installs faster than pip; where it cannot be had, pip does the same. Like pip it is told to compile
# what it installs: where Python may not write bytecode, every start would compile torch anew.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	if $(BIN)/python -m pip install --quiet uv; \
	then $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable . --group dev; \
	else $(BIN)/python -m pip install --quiet --editable . --group dev; fi
	touch $(READY)

clean:
	rm -rf $(VENV) demo dist
