# `make demo` and `make test` do all the set-up on a fresh machine. `make help` lists the rest.
#
# PYTHON  the interpreter to build .venv with: 3.11 or newer (default: the first that fits).
# TORCH   what `pip install` shall take for torch before everything else. Empty: the newest that
#         pyproject.toml allows. On Linux the public index's wheels bring gigabytes of CUDA that
#         nothing here uses; a CPU-only wheel avoids that: make test TORCH=path/to/torch.whl, or
#         TORCH="torch --index-url ADDRESS" with the address of an index of CPU wheels.

FITS   = -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p $(FITS) && echo $$p && break; done)
TORCH  ?=
PIP    := 'pip>=25.1' # the first with --group
BIN    := .venv/bin
ONE    := OMP_NUM_THREADS=1 # more threads take twice the CPU time, as they wait actively
READY  := .venv/.ready
MODEL  := coreml_out/flux2_tiny_decoder_nchw_float16_hw256_demo.mlpackage

.PHONY: help setup demo test test-full fuzz lint format docs clean
help: ## List the targets
	@grep -E '^[a-z]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 10

setup: $(READY) ## Make .venv with everything in it (done by the others when needed)

$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 found: install one, or make PYTHON=path" >&2; exit 1; }
	@$(PYTHON) $(FITS) || { echo "$(PYTHON) is not Python >= 3.11: make PYTHON=path" >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --upgrade $(PIP)
	$(if $(TORCH),$(BIN)/python -m pip install $(TORCH))
	$(BIN)/python -m pip install --group dev --editable .
	$(BIN)/python -m compileall -q fluxvae scripts tests # else every process might do it again
	@touch $@

demo: $(READY) ## Convert, validate and look: a demo decoder at 256 px, with no network
	$(ONE) $(BIN)/fluxvae convert --variant flux2 --weights demo --size 256 --validate --overwrite --out $(MODEL)
	$(ONE) $(BIN)/python scripts/make_demo_latents.py coreml_out/demo/latents.safetensors --variant flux2 --size 256
	$(ONE) $(BIN)/fluxvae decode $(MODEL) coreml_out/demo/latents.safetensors --overwrite --out coreml_out/demo/
	$(ONE) $(BIN)/fluxvae roundtrip --variant flux2 --weights demo --size 256 --variants fp16,int8-plain,pal4-plain --workers 1 --overwrite --out coreml_out/demo/roundtrip
	@echo "Page: coreml_out/demo/roundtrip/index.html  Pictures: coreml_out/demo/  Model: $(MODEL)"

test: lint ## All checks and the whole test suite
	$(BIN)/pytest -n 2 --dist worksteal

test-full: $(READY) ## What `make test` leaves to this: every form at 768 and 1024 pixels (an hour)
	$(BIN)/pytest -n 2 --dist worksteal -m full
	FLUXVAE_BRIDGE_SIZES=768,1024 $(BIN)/pytest tests/test_swift_bridge.py -k real

fuzz: $(READY) ## 10,000 damaged models, latents and weights against every reader (about 20 minutes)
	$(ONE) $(BIN)/python -m tests.fuzz --runs 10000 --seed 0

lint: $(READY) ## ruff, mypy and the layer rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## Format the code and sort its imports
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

docs: $(READY) ## Write the generated pages again
	$(BIN)/python scripts/generate_cli_doc.py
	$(BIN)/python scripts/generate_ops_doc.py
	$(BIN)/python scripts/generate_capabilities_doc.py
	$(BIN)/python scripts/generate_mac_table.py

clean: ## Remove .venv and caches; coreml_out stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
