# One command each: `make demo`, `make test`, `make drills`, `make soak`, `make lint`, `make bench`. Each installs what it needs into .venv.
# CUDA=12 takes the build for CUDA 12 drivers, PYTHON=python3.12 another interpreter, ARGS='tests/unit -k camera' is handed on.

CUDA ?= 13
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
OTHER_CUDA := $(filter-out $(CUDA),12 13)
comma := ,

ifeq ($(filter $(CUDA),12 13),)
$(error CUDA=$(CUDA) is not known; CUDA=12 and CUDA=13 are)
endif

# Only the recipe that makes the venv expands this. A pyenv shim may stand there and not run, so each is asked.
PYTHON ?= $(shell for p in python3.12 python3.11 python3 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)

# A venv that an interrupted installation left half made is made anew, whatever its stamps say.
ifneq ($(wildcard $(VENV)),)
ifneq ($(wildcard $(VENV)/.unfinished)$(shell $(BIN)/python -c 'import pip' >/dev/null 2>&1 || echo broken),)
$(shell rm -f $(VENV)/.made $(VENV)/.installed-*; touch $(VENV)/.unfinished)
endif
endif

# An extra set of packages is a stamp: .installed-cuda13-test stands for '.[cuda13,test]'.
DEMO := $(VENV)/.installed-cuda$(CUDA)
TEST := $(VENV)/.installed-cuda$(CUDA)-export-test
LINT := $(VENV)/.installed-cuda$(CUDA)-lint
BENCHES := help_time soft_argmax order_scale objects shard_build checkpoint report throughput loader

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: help demo test drills soak lint bench install setup clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

demo: $(DEMO)  ## raw data to shards to a trained model to a score card, in minutes, without a GPU
	$(BIN)/pose demo $(ARGS)

test: $(TEST) setup  ## all tests but the long drills
	$(BIN)/python -m pytest -m 'not drill' $(ARGS)

drills: $(TEST) setup  ## the long fault drills
	$(BIN)/python -m pytest -m drill $(ARGS)

soak: $(TEST) setup  ## 30 random faults in one training
	$(BIN)/python tests/slurm/soak.py $(ARGS)

lint: $(LINT)  ## style, types and import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(TEST) setup  ## measured times, as JSON lines and a table
	@missed=; for each in $(BENCHES); do \
	echo "benchmarks/$$each.py"; $(BIN)/python benchmarks/$$each.py || missed="$$missed $$each"; done; \
	test -z "$$missed" || { echo "missed or failed:$$missed"; exit 1; }

install: $(DEMO)  ## the project into .venv, nothing else

clean:  ## remove .venv and caches; runs/ and data/ stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

setup:
	@bash tests/setup.sh

$(VENV)/.made:
	@test -n '$(PYTHON)' || { echo 'No Python of at least 3.11 found; install one, or name it: make PYTHON=/path/to/python3.11'; exit 1; }
	@'$(PYTHON)' -c 'import ensurepip, venv' || { echo '$(PYTHON) lacks venv; on Debian: apt-get install python3-venv'; exit 1; }
	@if $(BIN)/python -c 'import pip' 2>/dev/null && test ! -e $(VENV)/.unfinished; then :; \
	else mkdir -p $(VENV) && touch $(VENV)/.unfinished && '$(PYTHON)' -m venv --clear $(VENV); fi
	@touch $@

# pip that fails by itself has changed nothing worth throwing away; one that was killed leaves .unfinished behind.
$(VENV)/.installed-%: $(VENV)/.made pyproject.toml constraints.txt
	@if ls $(VENV)/.installed-cuda$(OTHER_CUDA)* >/dev/null 2>&1; then rm -f $(VENV)/.installed-cuda$(OTHER_CUDA)*; \
	$(BIN)/python -m pip uninstall -q -y nvidia-dali-cuda$(OTHER_CUDA)0; fi
	@touch $(VENV)/.unfinished
	@echo "Installing .[$(subst -,$(comma),$*)] into $(VENV): about 3 GB and five minutes the first time"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[$(subst -,$(comma),$*)]' \
	|| { rm -f $(VENV)/.unfinished; exit 1; }
	@rm -f $(VENV)/.unfinished
	@touch $@
