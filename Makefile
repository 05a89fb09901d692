# The commands of this project; `make help` lists them. Every target installs .venv by itself.
#
# A variable of make's command line (not of the environment) becomes an option: `make sample TOP_K=250` runs
# `qd sample --top-k=250`.
# `.venv/bin/qd sample --help` lists the options. One with a dot is a setting: `make train trainer.max_steps=200`.
# ARGS holds more words, split as in a shell: ARGS="--dry-run 'guidance.negative_prompt=Low quality.'"
#
# On a machine without an NVIDIA GPU, PyTorch's CPU build is much smaller:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make setup

.DEFAULT_GOAL := help
VENV := .venv
STAMP := $(VENV)/installed
BIN := $(VENV)/bin

# The first Python that is new enough.
PYTHONS := python3.11 python3.12 python3.13 python3.10 python3
NEW_ENOUGH := 'import sys; sys.exit(sys.version_info < (3, 10))'
PYTHON ?= $(firstword $(foreach python,$(PYTHONS),$(shell $(python) -c $(NEW_ENOUGH) >/dev/null 2>&1 && echo $(python))))

# Variables of the command line that are not options: those of this file, of make, and of the programs' environment.
NO_OPTIONS := ARGS PYTHON VENV SHELL MAKE% OMP_% MKL_% OPENBLAS_% CUDA_% NCCL_% PYTORCH_% TORCH_% HF_% PIP_% \
	TOKENIZERS_% PYTHON% LC_% LANG
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
NO_OPTIONS += $(if $(filter config,$(MAKECMDGOALS)),KIND)
VARIABLES := $(filter-out $(NO_OPTIONS),$(GIVEN))
# The shell reads the values from its environment, as QD_BETA, …, so that they may hold spaces, quotes and dollar signs.
# make itself must not export the variables, because it would expand them.
exported = QD_$(subst .,_,$(1))
$(foreach name,$(VARIABLES) KIND,$(eval export $(call exported,$(name)) := $$(value $(name)))$(eval unexport $(name)))
option = $(if $(findstring .,$(1)),$(1),--$(shell echo '$(1)' | tr A-Z_ a-z-))
OPTIONS := $(foreach name,$(VARIABLES),$${$(call exported,$(name)):+$(call option,$(name))="$$$(call exported,$(name))"})

QD = @$(BIN)/qd $@ $(OPTIONS) $(ARGS)

WITHOUT_OPTIONS := help setup lint
ifeq ($(filter-out $(WITHOUT_OPTIONS),$(or $(MAKECMDGOALS),help)),)
  ifneq ($(strip $(VARIABLES) $(filter ARGS,$(GIVEN))),)
    $(error make $(or $(MAKECMDGOALS),help) has no options; remove $(strip $(VARIABLES) $(filter ARGS,$(GIVEN))))
  endif
endif

.PHONY: help setup train-embedder train train-preference tensorboard sample merge pick ship evaluate sweep headroom report fad \
	scorer-ranges embedder-report reproduce reproduce-quick config base bench profile test test-slow lint

help: ## list the targets
	@awk -F ':.*## ' '/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-16s  %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@printf '\nA variable becomes an option: PROMPT="calm piano" is --prompt "calm piano".\nAll options of a target: .venv/bin/qd sample --help\n'

setup: $(STAMP) ## install everything into .venv (every target does it): PYTHON

$(STAMP): pyproject.toml constraints.txt
	@$(or $(PYTHON),false) -c $(NEW_ENOUGH) || { echo "Python 3.10 or newer is needed, but $(or $(PYTHON),none of \
		$(PYTHONS)) is found. Name one: make setup PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

##@ Train
train-embedder: $(STAMP) ## train the reward's embedder: CONFIG DATA NAME RESUME
	$(QD)

train: $(STAMP) ## train a model: BETA=15 CONFIG NAME RESUME EMBEDDER PROMPTS
	$(QD)

train-preference: $(STAMP) ## train a scorer from ratings: DATA=ratings.csv OUT
	$(QD)

tensorboard: $(STAMP) ## show all runs in the browser: PORT=6006
	@$(BIN)/tensorboard --logdir runs $(OPTIONS) $(ARGS)

##@ Use
sample: $(STAMP) ## sample WAV files: PROMPT="…" MODEL=base N GUIDANCE SECONDS
	$(QD)

merge: $(STAMP) ## average weights: A=<quality> B=<diverse> LAMBDA, or MODELS
	$(QD)

pick: $(STAMP) ## save a model of the front: DIVERSITY=0.45 or QUALITY=1.2
	$(QD)

ship: $(STAMP) ## ship a run as a built-in model: MODEL=runs/… NAME=beta15
	$(QD)

##@ Measure
evaluate: $(STAMP) ## measure models: MODEL="a:0.5 b:0.5" PROTOCOL SEEDS="0 1"
	$(QD)

sweep: $(STAMP) ## measure all points of a config: CONFIG ONLY DRY_RUN=1
	$(QD)

headroom: $(STAMP) ## what the objective can reach: MODEL BETA="0 5 15" SAMPLES
	$(QD)

report: $(STAMP) ## draw figures and tables: POINTS=file RUNS="runs/beta0" ONLY
	$(QD)

fad: $(STAMP) ## Fréchet and kernel audio distance: AUDIO=… or MODEL
	$(QD)

scorer-ranges: $(STAMP) ## ranges of two scorers: ADHERENCE PREFERENCE MODEL N
	$(QD)

embedder-report: $(STAMP) ## measure an embedder: EMBEDDER DATA N WORLD OUT
	$(QD)

##@ Reproduce
reproduce: $(STAMP) ## run the paper's experiments: CONFIG ARGS="--dry-run"
	@$(BIN)/python experiments/reproduce.py $(OPTIONS) $(ARGS)

reproduce-quick: $(STAMP) ## the same in less than an hour, as a preview
	@$(BIN)/python experiments/reproduce.py --config quick $(OPTIONS) $(ARGS)

##@ Develop
config: $(STAMP) ## print a documented config: KIND=train CONFIG=quick
	@$(BIN)/qd config "$${QD_KIND:-train}" $(OPTIONS) $(ARGS)

base: $(STAMP) ## rebuild the shipped models: STAGE="codec tokens" INSTALL=1
	$(QD)

bench: $(STAMP) ## measure the speed: THREADS=2 PAGE=docs/performance.md
	$(BIN)/python experiments/bench.py $(OPTIONS) $(ARGS)

profile: $(STAMP) ## profile training steps: STEPS=2
	$(BIN)/python experiments/profile_step.py $(OPTIONS) $(ARGS)

test: $(STAMP) ## run the tests: ARGS="tests/config/test_loading.py -x"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto $(OPTIONS) $(ARGS)

test-slow: $(STAMP) ## run the tests that take minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m slow $(OPTIONS) $(ARGS)

lint: $(STAMP) ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
