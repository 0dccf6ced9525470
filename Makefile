PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test bench lint golden

demo: .venv/installed  ## Train on two replicas, export, verify, print the report card.
	@$(BIN)/python train/main.py --strategy=mirrored --data=digits --workdir=runs/demo
	@$(BIN)/python export/main.py --model=runs/demo/model.keras --output_dir=exports/demo --overwrite

test: .venv/installed  ## Everything, on real images; needs no network.
	@$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder

bench: .venv/installed  ## Us and the peers, interleaved, as ratios.
	@$(BIN)/python tests/bench.py

lint: .venv/installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

golden: .venv/installed  ## After a change of architecture that is meant: writes tests/golden/logits.json anew.
	@$(BIN)/python tests/golden.py write

.venv/installed: requirements.lock setup.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Expected Python 3.11 to 3.13 (TensorFlow 2.21 has no other). Received: $$($(PYTHON) --version). Use make PYTHON=python3.11"; exit 1; }
	@echo "Installing requirements.lock into .venv (a minute or two)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
