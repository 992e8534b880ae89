# make demo    build, read the FIB-SEM volume of the tests, leave a slice in demo/
# make test    Rust and Python tests, benchmarks as a smoke test, fuzz targets for seconds
# make test-pythons  the tests that go with zarr, dask and xarray, their newest, under every other CPython that is here
# make test-zarr  some minutes of zarr-python's own suite with voxfetch.ZarrPipeline; downloads it
# make suites  the suites of zarr-python, xarray, ome-zarr and anndata with voxfetch.ZarrPipeline; downloads them, hours; writes tests/zarr_suites.md
# make lint    format, clippy, ruff, pyright, stub, layers, dependencies
# make wheel   dist/*.whl, tried in a clean environment without a compiler
# make bench   the comparison with other readers, full volumes, more than an hour; alone on the machine
# make clean   remove what the others made (not target/, the Rust build)
#
# Needs Python >= 3.11 (PYTHON=...), Rust, a C compiler and cmake; no root. Everything stays in this folder, except the
# caches of cargo and pip. Nothing is built again that has not changed.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
FUZZ_SECONDS ?= 5

VENV := .venv
BIN := $(VENV)/bin
# The stamps: each says when its step was last done.
DONE := build/done

# `maturin develop` and the tools of .ci/run find these.
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export PATH := $(CURDIR)/$(BIN):$(CURDIR)/build/tools/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
unexport PYTHONPATH PYTHONHOME

RUST := Cargo.toml Cargo.lock $(shell find rust -path rust/fuzz -prune -o \( -name '*.rs' -o -name '*.toml' \) -print)
PACKAGE := $(shell find python -name '*.py' -o -name '*.pyi' -o -name py.typed -o -name '*.yaml' -o -path '*/page/*')

.PHONY: help demo test test-rust test-python test-pythons test-bench test-zarr suites fuzz bench lint lint-rust lint-python wheel clean
help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

demo: $(DONE)/extension
	$(BIN)/python tools/demo.py tests/data/fib25 demo

test: test-rust test-python test-bench fuzz

test-rust: $(DONE)/venv
	cargo test --locked --workspace

test-python: $(DONE)/extension $(DONE)/dev
	$(BIN)/python -m pytest

test-pythons: $(DONE)/wheel
	PYTHON=$(BIN)/python tools/dropins.sh dist/*.whl

test-zarr: $(DONE)/extension
	$(BIN)/python tools/zarr_suite.py zarr-3.1.6 --quick

suites: $(DONE)/extension
	$(BIN)/python tools/zarr_suite.py zarr-3.1.6 zarr-3.4.2 xarray-2026.9.0 ome-zarr-0.21.0 anndata-0.13.4
	$(BIN)/python tools/zarr_suite.py --write

# Every engine that is installed reads tiny volumes of every layout, from files and over HTTP; answers are compared,
# times are not.
test-bench: $(DONE)/extension $(DONE)/dev
	$(BIN)/python -m bench check
	$(BIN)/python -m bench remote --quick
	$(BIN)/python -m bench serve --quick
	$(BIN)/python -m bench remote --quick --where s3 --engines voxfetch,voxfetch-zarr --workloads open_array,chunk_cold,box,cubes

fuzz:
	tools/fuzz.sh $(FUZZ_SECONDS)

lint: lint-rust lint-python

lint-rust: $(DONE)/venv
	cargo fmt --all --check
	rustfmt --check --edition 2024 rust/fuzz/fuzz_targets/*.rs
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cd bench/server && cargo fmt --check && cargo clippy --locked -- -D warnings
	tools/check_dependencies.sh

lint-python: $(DONE)/extension $(DONE)/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/python -m mypy.stubtest voxfetch._core --mypy-config-file pyproject.toml
	$(BIN)/python -m pytest -q tests/test_layers.py

wheel: $(DONE)/wheel

bench: $(DONE)/extension $(DONE)/dev
	$(BIN)/python -m bench run --size full --volumes shards --repeat 5 --budget 25 --name full
	$(BIN)/python -m bench run --size full --volumes layouts --workloads full,box,xy --repeat 3 --name layouts
	$(BIN)/python -m bench scale
	$(BIN)/python -m bench start
	$(BIN)/python -m bench limits
	$(BIN)/python -m bench remote --size full
	$(BIN)/python -m bench formats
	$(BIN)/python -m bench serve

clean:
	rm -rf $(VENV) build dist demo python/voxfetch/_core*.so

# --- steps --------------------------------------------------------------------------------------------------------

$(DONE)/venv: requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed, not " + sys.version if sys.version_info < (3, 11) else 0)'
	@command -v cargo > /dev/null || { echo "cargo is needed: https://rustup.rs" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c requirements-dev.txt maturin numpy
	@mkdir -p $(@D) && touch $@

$(DONE)/dev: requirements-dev.txt | $(DONE)/venv
	$(BIN)/python -m pip install -q -r requirements-dev.txt
	@touch $@

# The package is installed as a link to python/: only Rust and metadata call for a rebuild.
$(DONE)/extension: $(RUST) pyproject.toml README.md LICENSE | $(DONE)/venv
	$(BIN)/maturin develop --release --locked
	@touch $@

$(DONE)/wheel: $(RUST) $(PACKAGE) pyproject.toml README.md LICENSE tools/check_wheel.sh | $(DONE)/venv
	rm -rf dist
	$(BIN)/maturin build --release --locked --out dist
	tools/check_wheel.sh dist/*.whl
	@touch $@
