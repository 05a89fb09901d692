# Everything one does with this project; `make help` tells. Every target sets up .venv by itself.
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

# The shell reads these from its environment (as QD_BETA, …: bash has a SECONDS of its own), so that a value may hold
# spaces, quotes and dollar signs. Only ARGS is split at spaces; quote what belongs together:
#   ARGS="trainer.max_steps=200 'guidance.negative_prompt=Low quality.'"
VARIABLES := BETA CONFIG NAME RESUME EMBEDDER SEED PROMPTS DEVICE MODEL PROMPT N GUIDANCE SECONDS TOPK TOPP OUT STAGE DATA \
	CLAP A B LAMBDA MODELS ADHERENCE PREFERENCE AUDIO REFERENCE POINTS RUNS DIVERSITY QUALITY PROTOCOL SEEDS
ifneq ($(origin NAME),command line)
  override NAME := # the environment of some systems has a NAME, of the machine
endif
$(foreach variable,$(VARIABLES),$(eval export QD_$(variable) := $$(value $(variable))))

option = $${QD_$(1):+--$(2)="$$QD_$(1)"}
RUN_OPTIONS = $(call option,CONFIG,config) $(call option,NAME,name) $(call option,RESUME,resume) \
	$(call option,SEED,seed) $(call option,DEVICE,device)

# What each target takes. Another variable on the command line is an error and not silence, but for one with an underscore,
# which is meant for the programs: OMP_NUM_THREADS=1.
RUN := CONFIG NAME RESUME SEED DEVICE ARGS
MEASURING := SEEDS PROTOCOL PROMPTS REFERENCE DEVICE OUT ARGS
TAKES_train-embedder := DATA $(RUN)
TAKES_embedder-report := EMBEDDER DATA N OUT DEVICE CLAP ARGS
TAKES_train := BETA EMBEDDER PROMPTS $(RUN)
TAKES_train-preference := DATA EMBEDDER OUT SEED DEVICE ARGS
TAKES_tensorboard := ARGS
TAKES_scorer-ranges := MODEL ADHERENCE PREFERENCE PROMPTS N GUIDANCE SECONDS SEED DEVICE ARGS
TAKES_sample := MODEL PROMPT N GUIDANCE SECONDS TOPK TOPP OUT SEED DEVICE ARGS
TAKES_merge := A B LAMBDA MODELS EXTRAPOLATE OUT ARGS
TAKES_fad := AUDIO MODEL REFERENCE EMBEDDER PROTOCOL PROMPTS SECONDS GUIDANCE OUT SEED DEVICE ARGS
TAKES_evaluate := MODEL GUIDANCE $(MEASURING)
TAKES_sweep := CONFIG $(MEASURING)
TAKES_report := POINTS PROTOCOL RUNS OUT ARGS
TAKES_pick := DIVERSITY QUALITY POINTS PROTOCOL OUT ARGS
TAKES_ship := MODEL NAME POINTS ARGS
TAKES_base := STAGE CONFIG ARGS
TAKES_reproduce := CONFIG ARGS
TAKES_reproduce-quick := ARGS
TAKES_bench := ARGS
TAKES_profile := ARGS
TAKES_test := ARGS
TAKES_test-slow := ARGS

GOALS := $(or $(MAKECMDGOALS),help)
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
TAKEN := $(foreach goal,$(GOALS),$(TAKES_$(goal)))
UNKNOWN := $(foreach name,$(filter-out $(TAKEN) PYTHON VENV SHELL,$(GIVEN)),$(if $(findstring _,$(name)),,$(name)))
ifneq ($(strip $(UNKNOWN)),)
  $(error make $(GOALS) does not know $(strip $(UNKNOWN)); it takes $(or $(TAKEN),no variable))
endif

.PHONY: help setup train-embedder embedder-report train train-preference scorer-ranges tensorboard sample merge fad \
	evaluate sweep report pick ship base reproduce reproduce-quick test test-slow lint bench profile

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## install everything into .venv (implied by every other target): PYTHON

$(STAMP): pyproject.toml constraints.txt
	@$(or $(PYTHON),false) -c $(NEW_ENOUGH) || { echo "Python 3.10 or newer is needed, and $(or $(PYTHON),none of \
		$(PYTHONS)) is that. Name one: make setup PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

train-embedder: $(STAMP) ## train the reward's embedder: CONFIG DATA NAME RESUME SEED DEVICE ARGS="key=value …"
	@$(BIN)/qd train-embedder $(call option,DATA,data) $(RUN_OPTIONS) $(ARGS)

embedder-report: $(STAMP) ## how well an embedder tells recordings apart: EMBEDDER DATA N OUT DEVICE CLAP ARGS
	@$(BIN)/qd embedder-report $(call option,EMBEDDER,embedder) $(call option,DATA,data) $(call option,N,n) \
		$(call option,OUT,out) $(call option,DEVICE,device) $(call option,CLAP,clap) $(ARGS)

train: $(STAMP) ## train a model: BETA=15 CONFIG NAME RESUME EMBEDDER SEED PROMPTS DEVICE ARGS="key=value … --dry-run"
	@$(BIN)/qd train $(call option,BETA,beta) $(call option,EMBEDDER,embedder) $(call option,PROMPTS,prompts) \
		$(RUN_OPTIONS) $(ARGS)

train-preference: $(STAMP) ## a scorer out of listeners' ratings: DATA=ratings.csv EMBEDDER OUT SEED DEVICE ARGS
	@$(BIN)/qd train-preference $(call option,DATA,data) $(call option,EMBEDDER,embedder) $(call option,OUT,out) \
		$(call option,SEED,seed) $(call option,DEVICE,device) $(ARGS)

tensorboard: $(STAMP) ## look at all runs: ARGS="--port 6006"
	@$(BIN)/tensorboard --logdir runs $(ARGS)

scorer-ranges: $(STAMP) ## how far two scorers range, and the ω they need: ADHERENCE PREFERENCE MODEL PROMPTS N GUIDANCE SEED DEVICE
	@$(BIN)/qd scorer-ranges $(call option,MODEL,model) $(call option,ADHERENCE,adherence) \
		$(call option,PREFERENCE,preference) $(call option,PROMPTS,prompts) $(call option,N,n) \
		$(call option,GUIDANCE,guidance) $(call option,SECONDS,seconds) $(call option,SEED,seed) \
		$(call option,DEVICE,device) $(ARGS)

sample: $(STAMP) ## sample WAV files and a spectrogram: MODEL=base PROMPT="…" N GUIDANCE SECONDS TOPK TOPP OUT SEED DEVICE ARGS
	@$(BIN)/qd sample $(call option,MODEL,model) $(call option,PROMPT,prompt) $(call option,N,n) \
		$(call option,GUIDANCE,guidance) $(call option,SECONDS,seconds) $(call option,TOPK,top-k) \
		$(call option,TOPP,top-p) $(call option,OUT,out) $(call option,SEED,seed) $(call option,DEVICE,device) $(ARGS)

merge: $(STAMP) ## average weights: A=<quality> B=<diverse> LAMBDA=0.5, or MODELS="<name>:<weight> …"; EXTRAPOLATE=1 OUT
	@$(BIN)/qd merge $(call option,A,a) $(call option,B,b) $(call option,LAMBDA,lambda) \
		$${QD_MODELS:+--models $$QD_MODELS} $(if $(filter-out 0,$(EXTRAPOLATE)),--extrapolate) \
		$(call option,OUT,out) $(ARGS)

fad: $(STAMP) ## Fréchet audio distance: AUDIO=folder or MODEL=base PROTOCOL PROMPTS SECONDS GUIDANCE, REFERENCE=folder EMBEDDER OUT SEED DEVICE ARGS
	@$(BIN)/qd fad $(call option,AUDIO,audio) $(call option,MODEL,model) $(call option,REFERENCE,reference) \
		$(call option,EMBEDDER,embedder) $(call option,PROTOCOL,protocol) $(call option,GUIDANCE,guidance) \
		$(call option,PROMPTS,prompts) $(call option,SECONDS,seconds) $(call option,OUT,out) \
		$(call option,SEED,seed) $(call option,DEVICE,device) $(ARGS)

MEASURING_OPTIONS = $${QD_SEEDS:+--seeds $$QD_SEEDS} $(call option,PROTOCOL,protocol) $(call option,PROMPTS,prompts) \
	$(call option,REFERENCE,reference) $(call option,DEVICE,device) $(call option,OUT,out)

evaluate: $(STAMP) ## measure models: MODEL=base or MODEL="<a>:0.5 <b>:0.5", PROTOCOL SEEDS="0 1" GUIDANCE PROMPTS REFERENCE OUT DEVICE ARGS
	@$(BIN)/qd evaluate $(MEASURING_OPTIONS) $(call option,MODEL,model) $(call option,GUIDANCE,guidance) $(ARGS)

sweep: $(STAMP) ## measure all points that a config names: CONFIG SEEDS="0 1" PROTOCOL PROMPTS REFERENCE DEVICE OUT ARGS="--dry-run"
	@$(BIN)/qd sweep $(MEASURING_OPTIONS) $(call option,CONFIG,config) $(ARGS)

report: $(STAMP) ## the paper's figures and tables of what was measured: POINTS=file RUNS="runs/beta0 …" PROTOCOL OUT ARGS="--only figure-3"
	@$(BIN)/qd report $(call option,POINTS,points) $${QD_RUNS:+--runs $$QD_RUNS} \
		$(call option,PROTOCOL,protocol) $(call option,OUT,out) $(ARGS)

pick: $(STAMP) ## a model from the measured front, as a folder: DIVERSITY=0.45 or QUALITY=1.2, POINTS PROTOCOL OUT ARGS
	@$(BIN)/qd pick $(call option,DIVERSITY,diversity) $(call option,QUALITY,quality) $(call option,POINTS,points) \
		$(call option,PROTOCOL,protocol) $(call option,OUT,out) $(ARGS)

ship: $(STAMP) ## ship a run's weights as a built-in model: MODEL=runs/… NAME=beta0 or beta15, POINTS=file ARGS
	@$(BIN)/qd ship $(call option,MODEL,model) $(call option,NAME,name) $(call option,POINTS,points) $(ARGS)

base: $(STAMP) ## rebuild the shipped models: STAGE="codec tokens …" CONFIG ARGS="--install"
	@$(BIN)/qd base $${QD_STAGE:+--stage $$QD_STAGE} $(call option,CONFIG,config) $(ARGS)

reproduce: $(STAMP) ## the paper's experiments: CONFIG ARGS="--dry-run --only runs --runs beta0 beta15 --jobs 2"
	@$(BIN)/python experiments/reproduce.py $(call option,CONFIG,config) $(ARGS)

reproduce-quick: $(STAMP) ## the same in under an hour, to look at: ARGS
	@$(BIN)/python experiments/reproduce.py --config quick $(ARGS)

bench: $(STAMP) ## speed beside the library and the machine's floor: ARGS="--threads 2 --page docs/performance.md"
	$(BIN)/python experiments/bench.py $(ARGS)

profile: $(STAMP) ## a torch profiler trace of default training steps, and their top operators: ARGS="--steps 2"
	$(BIN)/python experiments/profile_step.py $(ARGS)

test: $(STAMP) ## run the tests: ARGS="tests/config/test_loading.py -x"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto $(ARGS)

test-slow: $(STAMP) ## run the tests that take minutes: ARGS
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m slow $(ARGS)

lint: $(STAMP) ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
