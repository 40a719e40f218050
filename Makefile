# Everything runs from a bare machine with Python 3.11 or later: the first target that needs it makes .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help quickstart test evidence gpu lint types format clean

help:
	@echo "make quickstart   install, train a model on dates, look at it, export it, run the export"
	@echo "make test         install, then lint, types, all tests"
	@echo "make format       format the code"
	@echo "make clean        remove .venv and what was built"
	@echo "make gpu          train, export and time every kernel on a GPU, and write what was found"
	@echo "make evidence     the contracts and exports over every name of the zoo"

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"keras_attn needs Python 3.11 or later, but {sys.executable} is {v.major}.{v.minor}; run: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv "$(VENV)"
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch "$(INSTALLED)"

quickstart: $(INSTALLED)
	"$(BIN)/python" examples/quickstart.py

lint: $(INSTALLED)
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .

types: $(INSTALLED)
	"$(BIN)/mypy"

format: $(INSTALLED)
	"$(BIN)/ruff" check --fix .
	"$(BIN)/ruff" format .

test: lint types
	"$(BIN)/python" -m pytest -n 2 --dist worksteal --durations=25

# What takes too long for every change: contracts and exports over every name, and more options.
evidence: $(INSTALLED)
	"$(BIN)/python" benchmarks/evidence.py begin
	KERAS_ATTN_EVIDENCE=1 "$(BIN)/python" -m pytest -n 2 --dist worksteal tests/contracts tests/zoo/test_registry.py \
		tests/serving/test_interrupted.py tests/serving/test_placement.py tests/models/test_frozen.py tests/models/test_folding.py tests/models/test_unrolling.py \
		tests/models/test_seq2seq.py tests/models/test_stepping.py tests/kernels/test_attending.py tests/training/test_losses.py tests/training/test_runs.py \
		tests/zoo/test_publish.py --junitxml=build/evidence.xml
	"$(BIN)/python" benchmarks/gpu.py --rehearse
	"$(BIN)/python" benchmarks/evidence.py build/evidence.xml

# For whoever has a GPU: train, export and time there; writes benchmarks/gpu/DEVICE.json.
gpu: $(INSTALLED)
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check 'tensorflow[and-cuda]>=2.21,<2.22'
	"$(BIN)/python" benchmarks/gpu.py

clean:
	rm -rf "$(VENV)" build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
