.DEFAULT_GOAL := help
.PHONY: help sync reproduce tables test test-slow bench lint types docs build new release clean

RUN := tools/uv run --no-sync

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

sync: ## install every package, with all extras, into .venv
	@tools/sync

reproduce: sync ## run every package's experiment and write reports/index.html (NAMES="slr-prune" for some)
	@$(RUN) tenfold-tools reproduce $(NAMES)

tables: sync ## write the result tables of every README from the run records
	@$(RUN) tenfold-tools tables

test: sync ## run the tests that are not slow, in parallel
	@$(RUN) pytest -n logical --maxprocesses 8 -m "not slow"

test-slow: sync ## run the slow tests, one at a time
	@$(RUN) pytest -m slow

bench: sync ## run the benchmarks, of every package or of PKG="slr-prune"; records in reports/bench/
	@$(RUN) tenfold-tools bench $(PKG)

lint: sync ## check style, README tables and import layers
	@$(RUN) ruff check && $(RUN) ruff format --check && $(RUN) tenfold-tools tables --check && $(RUN) tenfold-tools layers

types: sync ## check types with mypy
	@$(RUN) mypy

docs: sync ## build the documentation site and check its links: build/docs/html
	@$(RUN) tenfold-tools docs

build: ## compile the native kernels again
	@tools/sync --reinstall-package tenfold

new: sync ## write a new package (NAME=my-paper)
	@$(RUN) tenfold-tools new "$(NAME)"

release: sync ## build and try out a release (PKG=slr-prune VERSION=0.2.0); FOR_REAL=1 tags and publishes it
	@$(RUN) tenfold-tools release "$(PKG)" $(VERSION) $(if $(FOR_REAL),--for-real)

clean: ## remove the environment, caches, reports and build outputs
	@rm -rf .venv .tools build dist reports .mypy_cache .pytest_cache .ruff_cache .hypothesis
