.DEFAULT_GOAL := help
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is %s; set PYTHON=..." % sys.version.split()[0])'
	@echo "Setting up $(VENV) (once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

# What tests run beside the services, each with versions of its own: AWS's command line, policy checks, a second emulator.
TOOLS  := .venv-awscli/.installed .venv-checkov/.installed .venv-ministack/.installed

.venv-%/.installed: tests/tools/%.lock
	@echo "Setting up .venv-$* (once) ..."
	@$(PYTHON) -m venv .venv-$*
	@.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@

.PHONY: install
install: $(READY) ## Create .venv from the hashed lock

.PHONY: demo
demo: $(READY) ## The whole story on this machine, under two minutes
	@$(BIN)/python -m services.devstack demo

.PHONY: demo-up
demo-up: $(READY) ## The same system, left running for curl (Ctrl-C ends it)
	@$(BIN)/python -m services.devstack up

.PHONY: soak
soak: MINUTES ?= 10
soak: $(READY) ## Faults for MINUTES=10 over 5 seeds; then the books must balance
	@$(BIN)/python -m services.devstack soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

.PHONY: test
test: lint types contracts $(READY) $(TOOLS) ## Everything CI runs
	$(BIN)/python -m pytest -n 4 --dist worksteal

.PHONY: coverage
coverage: $(READY) $(TOOLS) ## The tests once more, with a report of what they do not reach
	$(BIN)/python -m pytest -n 4 --dist worksteal --cov --cov-report=term

.PHONY: lambda
lambda: $(READY) ## Pack the shutdown Lambda, the same bytes on every machine
	$(BIN)/python terraform/lambda.py build/shutdown-gpu-lambda.zip

.PHONY: deploy-check
deploy-check: $(READY) ## What is wrong with the deployment, and the fix (OUTPUTS=file)
	@$(BIN)/python -m services.doctor $(if $(OUTPUTS),--outputs $(OUTPUTS),--terraform terraform)

.PHONY: dist
dist: $(READY) ## Build the wheel, and the source package that machines are installed from
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation --wheel-dir dist .
	$(BIN)/python -m hatchling build --target sdist

# Without attestations: with them a push leaves three images in the repository, which keeps ten.
.PHONY: image
image: ## Build the orchestrator's image (Docker; PLATFORM=linux/arm64, TAG=)
	BUILDX_NO_DEFAULT_ATTESTATIONS=1 docker build --platform $(or $(PLATFORM),linux/arm64) --tag $(or $(TAG),gpu-orchestrator) .

.PHONY: lint
lint: $(READY) ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: types
types: $(READY) ## mypy, strict
	$(BIN)/mypy

.PHONY: contracts
contracts: $(READY) ## Import contracts
	$(BIN)/lint-imports --no-cache

.PHONY: format
format: $(READY) ## Let ruff format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# boto3 beside MiniStack: what a function finds in its runtime.
.PHONY: lock
lock: ## Rewrite the lock files, services' and tools' (needs uv)
	uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --all-extras --python-version 3.11 \
	  pyproject.toml --output-file requirements.lock
	for service in adapter orchestrator; do echo hatchling | uv pip compile --quiet --universal --generate-hashes --no-header \
	  --no-annotate --python-version 3.11 --constraint requirements.lock --extra $$service pyproject.toml - \
	  --output-file requirements-$$service.lock; done
	for tool in "awscli>=1.46" "checkov>=3.3.30" "ministack>=1.5.33 boto3"; do printf '%s\n' $$tool | uv pip compile --quiet --universal \
	  --generate-hashes --no-header --no-annotate --python-version 3.11 - \
	  --output-file tests/tools/$${tool%%>*}.lock; done

.PHONY: clean
clean: ## Remove what make made
	rm -rf $(VENV) .venv-* .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist demo-results demo-up-logs soak-logs
