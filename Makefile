# One target for each thing there is to do. `make demo` and `make test` set up all they need.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-slow test-plain test-browser chromium check format bench bench-long bench-gpu growth bench-training screens small-study compare model-card base wheel smoke clean train-default train-lora fuzz kills signals selftest docs cluster rates faults evidence-pack evidence pictures

demo: base
	$(BIN)/deepscan demo --force

# The tests that a change needs to hear, in minutes; the long ones are marked slow. A file's tests stay together, for
# they share what it makes; and as there is a process for each core, each computes with one thread.
# COVERAGE=1 adds a table by package. It is not the rule: tracing takes a third more of the processor's time.
PROCESSES ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile
test: base
	$(PYTEST) -m "not slow" $(if $(COVERAGE),--cov=deepscan --cov-report=)
	$(if $(COVERAGE),$(BIN)/python .ci/covered.py)

# The others: whole scans, real towers, clusters, kills, the guides typed.
test-slow: base
	$(PYTEST) -m slow

# What depends on the processor, on one without AVX-512 and bfloat16: oneDNN is held to AVX2.
test-plain: base
	ONEDNN_MAX_CPU_ISA=AVX2 $(BIN)/python -m pytest -n 2 -m "not slow" tests/model/test_tower.py tests/model/test_detector.py tests/test_pipeline.py \
	  tests/verification/test_doctor.py

# Mutated clips through detect, as many mutants of other files through their readers, and as many of hypothesis's
# own examples through each reader: 2,000 take hours of two cores.
MUTANTS ?= 2000
fuzz: base
	rm -rf runs/fuzz
	PYTHONPATH=tests $(BIN)/python -m tools.fuzz runs/fuzz --mutants $(MUTANTS)
	EXAMPLES=$(MUTANTS) $(BIN)/python -m pytest tests/tools/test_fuzz.py tests/media/test_messages.py \
	  -k hypothesis

# What docs/million-clips.md multiplies by a million.
rates: base
	PYTHONPATH=tests $(BIN)/python -m tools.rates

# What inputs that were once read wrongly give now, next to what they should; they lie beside the checkout.
faults: base
	$(BIN)/python -m tools.faults ../shared/faults

# A batch and its processes killed by kill -9 at random moments, resumed, and compared with an undisturbed run.
CLIPS_KILLED ?= 60
KILLS ?= 20
kills: base
	rm -rf runs/kills
	PYTHONPATH=tests $(BIN)/python -m tools.kills runs/kills --clips $(CLIPS_KILLED) --kills $(KILLS)

# How soon every command leaves after Ctrl-C and SIGTERM, at every stage; Linux alone. Where root runs it, other
# programs wait meanwhile, so that the clock shows the time of a free machine. Some ten minutes.
signals: base
	rm -rf runs/signals
	PYTHONPATH=tests $(BIN)/python -m tools.signals runs/signals --realtime

# A batch on a Ray cluster of this machine with poison files and a lost worker, against the same one without Ray.
# NODES=2 simulates two machines.
CLIPS_CLUSTER ?= 200
POISON ?= 10
NODES ?= 0
cluster: base
	$(BIN)/python -m pip install --quiet --editable .[cluster]
	rm -rf runs/cluster
	PYTHONPATH=tests $(BIN)/python -m tools.cluster runs/cluster --clips $(CLIPS_CLUSTER) --poison $(POISON) \
	  --nodes $(NODES)

# The pages in a real browser alone; `make test` runs these too where there is one.
test-browser: base chromium
	$(BIN)/python -m pytest tests/report/test_browser.py tests/report/test_viewer.py tests/report/test_index_browser.py \
	  tests/report/test_paper.py tests/serve/test_serve_browser.py

# Debian's Chromium. Where it cannot be installed (no root, no network) the tests that want it skip themselves.
chromium:
	@command -v chromium || { \
	  export DEBIAN_FRONTEND=noninteractive; \
	  apt-get update -qq -o Acquire::Retries=0 -o Acquire::http::Timeout=20 \
	  && apt-get install -y -qq --no-install-recommends chromium > /dev/null; \
	} || echo "Chromium cannot be installed here; the browser tests will be skipped."

check: $(READY)
	$(BIN)/ruff format --check deepscan tools tests docs
	$(BIN)/ruff check deepscan tools tests docs
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/audit.py

format: $(READY)
	$(BIN)/ruff format deepscan tools tests docs
	$(BIN)/ruff check --fix deepscan tools tests docs

# BENCH_OPTIONS takes clips, --runs 2 or --tower ViT-L-14-quickgelu.
BENCH_OPTIONS ?=
bench: base
	$(BIN)/python -m tools.bench $(BENCH_OPTIONS)

# 32 instants of an hour beside those of a minute; then more faces a frame, and more instants: Markdown.
bench-long: base
	$(BIN)/python -m tools.bench_growth length

# Eight minutes of a GPU at most, about a quarter of them a processor's work beside it: what docs/performance.md
# leaves open, in one go.
bench-gpu: base
	$(BIN)/python -m tools.bench_gpu

growth: base
	$(BIN)/python -m tools.bench_growth load

bench-training: base
	$(BIN)/python -m tools.bench_training

# The shipped detector from the material it was trained on: five minutes where there is a GPU, some 33 hours on two
# cores (1,780 steps at 66 s each, of which two were timed). It goes on where it was broken off, training by training.
MATERIAL ?= ../shared/data
train-default: evidence-pack
	$(MAKE) evidence PHASE=default
	$(BIN)/python -m tools.evidence.ship runs/evidence/default runs/evidence/pack.zip --date $$(date -u +%F) \
	  --out runs/evidence/b16-evidence.safetensors

# The material of all sources in one archive of at most 60 MB: once, on a processor.
evidence-pack: runs/evidence/pack.zip
runs/evidence/pack.zip: | base
	$(BIN)/python -m tools.evidence.pack --material $(MATERIAL) --out $@

# Detectors judged on sources they did not learn from, by docs/training-log.md; `default` trains the shipped one, and
# SECONDS_ALLOWED=--seconds=340 fits the others into minutes of a GPU.
PHASE ?= default
SECONDS_ALLOWED ?=
evidence: base
	$(BIN)/python -m tools.evidence.plan $(PHASE) runs/evidence/pack.zip $$($(BIN)/deepscan weights path clip-vit-b16) \
	  runs/evidence/$(PHASE) $(SECONDS_ALLOWED) --decoders $(MATERIAL)/../tools/decoders.py

# The second detector that ships, by weights/recipe.toml: some minutes with DEVICE=cuda, hours on two cores.
DEVICE ?= cpu
train-lora: base
	$(BIN)/python -m tools.train_lora --material $(MATERIAL) --out runs/lora --device $(DEVICE)

# What a model card says of a trained detector: on the people its run held out, undistorted and distorted.
RUN ?= runs/lora/run
model-card: base
	$(BIN)/python -m tools.model_card --run $(RUN) --out $(RUN)/../card --docs docs/model-card
# What `deepscan doctor` compares with: after the shipped detector was trained anew.
selftest: base
	$(BIN)/python -m deepscan.verification.doctor

# Every table and figure of the paper on little material: some four hours of two free cores at 80 steps a run.
# It goes on where it was broken off; ONLY=table-1,figure-2 does a part, which needs only that part's runs;
# STUDY_OPTIONS takes more, as in --seeds 0,1, --patches 0.5 --frames 2 or --other Meso4=meso4.csv.
PAIRS ?= ../shared/data/pairs
CROPS ?= ../shared/data/ffpp-crops
CLIPS ?= ../shared/data/clips
OUT ?= small-study
DOCS ?= $(OUT)/page
STEPS ?= 80
ONLY ?=
small-study: base
	$(BIN)/python -m tools.small_study --pairs $(PAIRS) --crops $(CROPS) --clips $(CLIPS) --out $(OUT) \
	  --docs $(DOCS) --steps $(STEPS) $(if $(ONLY),--only $(ONLY)) $(STUDY_OPTIONS)

# The paper's six methods: the part of the small study that docs/methods.md is about.
compare:
	$(MAKE) small-study ONLY=methods

# The CLIP base, in the weights cache; nothing happens where it is there already.
base: $(READY)
	$(BIN)/deepscan weights fetch

# The site, in build/docs; it opens from there without a server. A warning is a failure.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir build/docs

# The pictures of README and docs, from the sample clip.
pictures: base chromium
	$(BIN)/python docs/pictures.py $$(command -v chromium)

# The report's first screen for five results at three widths, light and dark, and their PDFs: in build/screens.
screens: base chromium
	PYTHONPATH=tests $(BIN)/python -m tools.screens build/screens

# Wheel and sdist.
wheel: $(READY)
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist

# The wheel in an environment with nothing else in it: a newcomer's path, timed. Downloads what deepscan needs.
smoke: wheel
	PATH="$(abspath $(BIN)):$$PATH" PYTHON=$(PYTHON) .ci/smoke dist/*.whl

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
