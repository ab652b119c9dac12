.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
GOLDEN := tests/data/golden

.PHONY: help install demo test test-gpu lint format type bench clean

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## Make .venv and install the project with its development extra

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: install ## Run the main job on the bundle in tests/ (random weights: the mouth is noise)
	@mkdir -p $(DEMO)
	$(BIN)/musetalk avatars import $(GOLDEN)/avatar --name golden --avatars-dir $(DEMO)/avatars --overwrite
	$(BIN)/musetalk realtime --avatar golden --avatars-dir $(DEMO)/avatars --model $(GOLDEN)/models \
		--audio $(GOLDEN)/audio.wav --output $(DEMO)/demo.mp4
	@echo "The video is $(DEMO)/demo.mp4. Its networks have random weights: it shows that the path works,"
	@echo "and noise where the mouth is. Speaking faces need the published weights: see README.md."

test: install ## Run the tests (no GPU, no network)
	$(BIN)/pytest

test-gpu: install ## Run the tests that need an NVIDIA GPU
	$(BIN)/pytest -m gpu tests/gpu

lint: install ## Check style and floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: install ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: install ## Check types
	$(BIN)/mypy

bench: install ## Time every stage with full-size random networks
	$(BIN)/musetalk bench --json benchmarks/latest.json

clean: ## Remove what make and the tools made
	rm -rf $(VENV) $(DEMO) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
