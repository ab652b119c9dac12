.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install demo demo-model test test-all fuzz test-gpu gpu-report lint format type bench clean

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## Make .venv and install the project with its development extra

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: install ## Let the embedded face speak its sample: demo.mp4
	$(BIN)/musetalk realtime --avatar demo --audio avatars/demo/sample.wav --output demo.mp4 \
		--models-dir models --avatars-dir avatars
	@echo "The video is $(CURDIR)/demo.mp4"

demo-model: install ## Train the embedded networks and draw their avatars again (hours on a CPU; needs espeak-ng and flite)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,training]'
	$(BIN)/python -m training all --models build/models --avatars build/avatars
	cp -r build/models/demo models/
	cp -r build/avatars/demo build/avatars/demo2 avatars/

# Processes of neighbouring tests, so that what a file prepares is mostly prepared once; who is done takes half of
# what the other has left. tests/conftest.py says how many: streams in real time mostly wait, so more than cores.
# Bytecode is kept whatever the environment says: each of these processes, and each program that a test starts, would
# compile all modules again.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n auto --dist worksteal

test: install ## Run the tests but the slow ones (minutes; no GPU, no network)
	$(PYTEST) -m "not slow"

test-all: install ## Run all of them, whole days and full-size models too
	$(PYTEST)

FUZZ ?= fuzz
fuzz: install ## Try many thousand random inputs; FUZZ=minute for about a minute of it
	$(BIN)/pytest --hypothesis-profile=$(FUZZ) tests/fuzz

test-gpu: install ## Run the tests for an NVIDIA GPU, without one on a pretended GPU
	$(BIN)/pytest -m gpu tests/gpu

lint: install ## Check style and floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: install ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: install ## Check types, as the oldest and the newest Python have them
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.13

bench: install ## Time every stage with the published weights, or the embedded ones
	$(BIN)/musetalk bench --json benchmarks/latest.json

# Not `install`, which needs the network: a bare machine measures with what it has.
gpu-report: ## Measure all that needs a GPU, in at most 9 minutes: benchmarks/gpu/NAME.json, .md, .svg
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) benchmarks/gpu/report.py

clean: ## Remove what make and the tools made
	rm -rf $(VENV) demo.mp4 build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
