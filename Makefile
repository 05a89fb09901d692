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

# The variables of the command line hold text, not code: make never expands them, and the shell only sees them as
# "$QD_PROMPT". `override` keeps the command line from replacing the variables of this file.
override given := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
override given := $(filter-out MAKEFLAGS MAKEOVERRIDES -*-%,$(given))
override characters := a b c d e f g h i j k l m n o p q r s t u v w x y z A B C D E F G H I J K L M N O P Q R S T \
	U V W X Y Z 0 1 2 3 4 5 6 7 8 9 _ . -
override without = $(if $(1),$(call without,$(wordlist 2,99,$(1)),$(subst $(firstword $(1)),,$(2))),$(2))
ifneq ($(strip $(foreach name,$(given),$(call without,$(characters),$(name)))),)
  $(error a name on the command line has other characters than letters, digits and . _ -)
endif
$(foreach name,$(given),$(eval override $(name) := $$(value $(name))))

override venv := .venv
override stamp := $(venv)/installed
override bin := $(venv)/bin

# The first Python that is new enough, unless PYTHON names one.
override pythons := python3.11 python3.12 python3.13 python3.10 python3
override new_enough := 'import sys; sys.exit(sys.version_info < (3, 10))'
override found = $(if $(filter undefined,$(origin PYTHON)),$(firstword $(foreach python,$(pythons),$(shell \
	$(python) -c $(new_enough) >/dev/null 2>&1 && echo $(python)))))
export QD_PYTHON := $(value PYTHON)

# Variables of the command line that are not options: those of this file, of make, and of the programs' environment.
override goals := $(value MAKECMDGOALS)
override no_options := ARGS PYTHON SHELL MAKE% OMP_% MKL_% OPENBLAS_% CUDA_% NCCL_% PYTORCH_% TORCH_% HF_% PIP_% \
	TOKENIZERS_% PYTHON% LC_% LANG $(if $(filter config,$(goals)),KIND)
override variables := $(filter-out $(no_options),$(given))
override exported = QD_$(subst .,_,$(1))
$(foreach name,$(variables) $(filter ARGS KIND,$(given)),$(eval export $(call exported,$(name)) := $$(value \
	$(name)))$(eval unexport $(name)))
override option = $(if $(findstring .,$(1)),$(1),--$(shell echo '$(1)' | tr A-Z_ a-z-))
override options = $(foreach name,$(variables),$${$(call exported,$(name)):+$(call \
	option,$(name))="$$$(call exported,$(name))"})

# Adds the words of ARGS, which are split as in a shell, but not evaluated.
define launch
import os, shlex, sys
sys.excepthook = lambda kind, error, _: print(f"ARGS cannot be split into words: {error}", file=sys.stderr)
os.execv(sys.argv[1], [*sys.argv[1:], *shlex.split(os.environ.pop("QD_ARGS"))])
endef
export QD_LAUNCH := $(value launch)
override run := $(if $(filter ARGS,$(given)),$(bin)/python -c "$$QD_LAUNCH")

override without_options := help setup lint
ifeq ($(filter-out $(without_options),$(or $(goals),help)),)
  ifneq ($(filter ARGS,$(given))$(variables),)
    $(error make $(or $(goals),help) has no options; remove $(strip $(variables) $(filter ARGS,$(given))))
  endif
endif

.PHONY: help setup train-embedder train train-preference tensorboard sample merge pick ship evaluate sweep headroom report fad \
	scorer-ranges embedder-report reproduce reproduce-quick config base bench profile test test-slow test-faults lint

help: ## list the targets
	@awk -F ':.*## ' '/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-16s  %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@printf '\nA variable becomes an option: PROMPT="calm piano" is --prompt "calm piano".\nAll options of a target: .venv/bin/qd sample --help\n'

setup: $(stamp) ## install everything into .venv (every target does it): PYTHON

$(stamp): pyproject.toml constraints.txt
	@"$${QD_PYTHON:-$(found)}" -c $(new_enough) || { echo "Python 3.10 or newer is needed, but \
		$${QD_PYTHON:-none of $(pythons)} is found. Name one: make setup PYTHON=/path/to/python" >&2; exit 1; }
	"$${QD_PYTHON:-$(found)}" -m venv $(venv)
	$(bin)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

##@ Train
train-embedder: $(stamp) ## train the reward's embedder: CONFIG DATA NAME RESUME
	@$(run) $(bin)/qd $@ $(options)

train: $(stamp) ## train a model: BETA=15 CONFIG NAME RESUME EMBEDDER PROMPTS
	@$(run) $(bin)/qd $@ $(options)

train-preference: $(stamp) ## train a scorer from ratings: DATA=ratings.csv OUT
	@$(run) $(bin)/qd $@ $(options)

tensorboard: $(stamp) ## show all runs in the browser: PORT=6006
	@$(run) $(bin)/tensorboard --logdir runs $(options)

##@ Use
sample: $(stamp) ## sample WAV files: PROMPT="…" MODEL=base N GUIDANCE SECONDS
	@$(run) $(bin)/qd $@ $(options)

merge: $(stamp) ## average weights: A=<quality> B=<diverse> LAMBDA, or MODELS
	@$(run) $(bin)/qd $@ $(options)

pick: $(stamp) ## save a model of the front: DIVERSITY=0.45 or QUALITY=1.2
	@$(run) $(bin)/qd $@ $(options)

ship: $(stamp) ## ship a run as a built-in model: MODEL=runs/… NAME=beta15
	@$(run) $(bin)/qd $@ $(options)

##@ Measure
evaluate: $(stamp) ## measure models: MODEL="a:0.5 b:0.5" PROTOCOL SEEDS="0 1"
	@$(run) $(bin)/qd $@ $(options)

sweep: $(stamp) ## measure all points of a config: CONFIG ONLY DRY_RUN=1
	@$(run) $(bin)/qd $@ $(options)

headroom: $(stamp) ## what the objective can reach: MODEL BETA="0 5 15" SAMPLES
	@$(run) $(bin)/qd $@ $(options)

report: $(stamp) ## draw figures and tables: POINTS=file RUNS="runs/beta0" ONLY
	@$(run) $(bin)/qd $@ $(options)

fad: $(stamp) ## Fréchet and kernel audio distance: AUDIO=… or MODEL
	@$(run) $(bin)/qd $@ $(options)

scorer-ranges: $(stamp) ## ranges of two scorers: ADHERENCE PREFERENCE MODEL N
	@$(run) $(bin)/qd $@ $(options)

embedder-report: $(stamp) ## measure an embedder: EMBEDDER DATA N WORLD OUT
	@$(run) $(bin)/qd $@ $(options)

##@ Reproduce
reproduce: $(stamp) ## run the paper's experiments: CONFIG ARGS="--dry-run"
	@$(run) $(bin)/python experiments/reproduce.py $(options)

reproduce-quick: $(stamp) ## the same in less than an hour, as a preview
	@$(run) $(bin)/python experiments/reproduce.py --config quick $(options)

##@ Develop
config: $(stamp) ## print a documented config: KIND=train CONFIG=quick
	@$(run) $(bin)/qd config $(if $(filter KIND,$(given)),"$${QD_KIND:-train}",train) $(options)

base: $(stamp) ## rebuild the shipped models: STAGE="codec tokens" INSTALL=1
	@$(run) $(bin)/qd $@ $(options)

bench: $(stamp) ## measure the speed: THREADS=2 PAGE=docs/performance.md
	$(run) $(bin)/python experiments/bench.py $(options)

profile: $(stamp) ## profile training steps: STEPS=2
	$(run) $(bin)/python experiments/profile_step.py $(options)

test: $(stamp) ## run the tests: ARGS="tests/config/test_loading.py -x"
	OMP_NUM_THREADS=1 $(run) $(bin)/python -m pytest -n auto $(options)

test-slow: $(stamp) ## run the tests that take minutes
	OMP_NUM_THREADS=1 $(run) $(bin)/python -m pytest -n auto -m slow $(options)

test-faults: $(stamp) ## kill, fill, signal and feed bad input: KILLS=100 SEED PAGE
	OMP_NUM_THREADS=1 $(run) $(bin)/python -m experiments.faults $(options)

lint: $(stamp) ## check style and formatting
	$(bin)/ruff check .
	$(bin)/ruff format --check .
