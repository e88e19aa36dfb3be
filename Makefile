# Two commands: `make demo` runs the main job, `make test` the checks and the tests. Each sets up all it needs.
PYTHON ?= python3.11
VENV := .venv
PORT ?= 3000
BIN := $(VENV)/bin
export DAGSTER_HOME := $(CURDIR)
export DAGSTER_DISABLE_TELEMETRY := 1
export VIDEO

.PHONY: demo test models-full check bench bench-pool chaos chaos-runs chaos-stack docs versions ui review clean

demo: $(VENV)/.installed $(VENV)/.weights
	@$(BIN)/egoworld demo $${VIDEO:+"$$VIDEO"}

# Tests that measure whether the pool is in time have the machine for themselves. The others share it, one process more than cores: many only wait.
ALONE := tests/gpu_workers/test_chaos_in_time.py
# A test that hangs ends with the stacks of all threads.
PYTEST := $(BIN)/python -m pytest -q -o faulthandler_timeout=600 -o faulthandler_exit_on_timeout=true

test: $(VENV)/.installed $(VENV)/.weights check
	$(PYTEST) -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart=0 $(addprefix --ignore=,$(ALONE))
	$(PYTEST) $(ALONE)

# Networks at their published sizes, against numbers of the published code; up to 4 GB of memory.
models-full: $(VENV)/.installed
	$(BIN)/python -m pytest -q -s tests/models_full.py

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed $(VENV)/.weights
	$(BIN)/python -m benchmarks

chaos-stack: $(VENV)/.installed $(VENV)/.weights
	$(BIN)/python -m tests.e2e.chaos_stack

bench-pool: $(VENV)/.installed
	$(BIN)/python -m benchmarks.pool

chaos: $(VENV)/.installed $(VENV)/.weights
	$(BIN)/python -m tests.gpu_workers.chaos
	SIMULATION_SEEDS=10000 $(BIN)/python -m pytest -q tests/gpu_workers/test_broker_simulation.py

chaos-runs: $(VENV)/.installed $(VENV)/.weights
	$(BIN)/python -m tests.chaos_runs

# After code was changed on purpose: raise the version of what gives other results, then record the code of all versions.
versions: $(VENV)/.installed
	$(BIN)/python -m egoworld_ops.execution.code

docs: $(VENV)/.installed
	$(BIN)/egoworld contract > docs/data_contract.md

ui: $(VENV)/.installed $(VENV)/.weights
	@! $(BIN)/python -c "import socket; socket.create_connection(('127.0.0.1', $(PORT)), 1)" 2> /dev/null || \
		{ echo "make ui: port $(PORT) is in use, perhaps by another \`make ui\`: end that, or say make ui PORT=3001"; exit 1; }
	$(BIN)/dg dev --host 127.0.0.1 --port $(PORT)

# The review page over the lake of this folder; `make demo` fills it.
review: $(VENV)/.installed
	@$(BIN)/egoworld review

$(VENV)/.installed: requirements.lock pyproject.toml
	@echo "Setting up $(VENV): about 8.5 GB and a few minutes, once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check setuptools==84.2.1 wheel==0.48.0
	SAM2_BUILD_CUDA=0 $(BIN)/python -m pip install --no-deps --no-build-isolation --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --disable-pip-version-check -e .
	@touch $@

$(VENV)/.weights: $(VENV)/.installed egoworld_ops/models/registry.py
	$(BIN)/egoworld models fetch mediapipe-hands
	@touch $@

clean:
	rm -rf output history schedules storage logs .bench
