# Two environments: .venv for serving, without TensorFlow, and .venv-dev for training, tests and checks.
PYTHON ?= python3
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check
SERVE = .venv/.installed
DEV = .venv-dev/.installed

.PHONY: help train-env serve test test-lowest test-slow test-long lint types format docs site requirements requirements-check pin-base audit clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## / # /' | sort | awk -F ' # ' '{printf "  %-20s %s\n", $$1, $$2}'

train-env: $(DEV)  ## create .venv-dev, with TensorFlow and Keras, for training (a few minutes)
	@echo "Training is ready: .venv-dev/bin/convoy-train list"

serve: $(SERVE)  ## start the service on 127.0.0.1:8000 (settings: CONVOY_*)
	exec .venv/bin/convoy serve

test: $(DEV) $(SERVE)  ## run the fast tests
	.venv-dev/bin/pytest -m "not slow and not long" -n auto --dist loadfile

test-lowest:  ## run the service's unit tests with the lowest versions that pyproject.toml allows
	requirements/lowest.sh service

test-slow: $(DEV) $(SERVE)  ## run the tests that train, convert large networks or create load
	.venv-dev/bin/pytest -m slow -n auto --dist loadfile

test-long: $(DEV) $(SERVE)  ## train a shipped recipe completely and convert the largest network, before a release
	.venv-dev/bin/pytest -m long

lint: $(DEV)
	.venv-dev/bin/ruff check .
	.venv-dev/bin/ruff format --check .
	.venv-dev/bin/lint-imports

types: $(DEV)
	.venv-dev/bin/mypy

format: $(DEV)
	.venv-dev/bin/ruff check --fix .
	.venv-dev/bin/ruff format .

docs: $(DEV)  ## write the tables of README.md and docs/ from the code
	.venv-dev/bin/python -m tests.documentation

site: .venv-docs/.installed  ## build the documentation as a searchable site in .site/html
	rm -rf .site && mkdir -p .site/pages
	git ls-files -z '*.md' '*.png' '*.svg' | xargs -0 cp --parents --target-directory .site/pages
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet --strict

requirements:  ## resolve the pinned, hashed lists of requirements again (needs uv)
	requirements/compile.sh

requirements-check:  ## check that the requirements resolve on every supported Python (needs uv)
	requirements/check.sh

pin-base:  ## write the digests of the base images into the Dockerfiles, before a release (needs skopeo)
	requirements/pin_base.sh

audit:  ## check the service's dependencies for known vulnerabilities (needs pip-audit and the internet)
	pip-audit --require-hashes --disable-pip --requirement requirements/serve.txt

include bench.mk image.mk

clean:
	rm -rf .venv .venv-dev .venv-docs .site .pytest_cache .mypy_cache .ruff_cache

.venv/.installed: requirements/serve.txt requirements/build.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Convoy needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	.venv/bin/python $(PIP_INSTALL) --require-hashes -r requirements/serve.txt -r requirements/build.txt
	.venv/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	touch $@

.venv-dev/.installed: requirements/dev.txt requirements/build.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Convoy needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv-dev
	@echo "Installing TensorFlow, Keras and the test tools into .venv-dev (3.7 GB); this takes a few minutes ..."
	.venv-dev/bin/python $(PIP_INSTALL) --require-hashes -r requirements/dev.txt -r requirements/build.txt
	.venv-dev/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	touch $@

.venv-docs/.installed: requirements/docs.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python $(PIP_INSTALL) --require-hashes -r requirements/docs.txt
	touch $@
