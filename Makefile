PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test setup clean

setup: $(VENV)/.done

$(VENV)/.done: setup.py constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "DRMGuard needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@$(BIN)/python -c 'import cv2' || \
		{ echo "OpenCV lacks a system library; on Debian or Ubuntu: apt-get install libgl1 libglib2.0-0 libxcb1"; exit 1; }
	@touch $@

demo: setup
	@echo "== a backdoored model: exit code 1 is the right answer"
	$(BIN)/drmguard check sample:backdoored --out=out/backdoored --overwrite; test $$? -eq 1
	@echo "== a benign model: exit code 0 is the right answer"
	$(BIN)/drmguard check sample:benign --out=out/benign --overwrite

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --maxprocesses=8 --dist=loadfile

clean:
	rm -rf $(VENV) out
