#!/bin/sh
# Resolves pyproject.toml into pinned, hashed lists; the others are held to the versions of serve.txt.
set -eu
cd "$(dirname "$0")/.."
compile() {
    uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-header "$@" pyproject.toml
}
compile --extra cpu --output-file requirements/serve.txt
compile --extra cpu --extra bucket --constraint requirements/serve.txt --output-file requirements/serve-bucket.txt
compile --extra cpu --extra otlp --constraint requirements/serve.txt --output-file requirements/serve-otlp.txt
compile --extra cpu --extra train --extra dev --constraint requirements/serve.txt --output-file requirements/dev.txt
