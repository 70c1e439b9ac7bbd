#!/bin/sh
# Resolves pyproject.toml into pinned, hashed lists; the others are held to the versions of serve.txt.
set -eu
cd "$(dirname "$0")/.."
resolve() {
    uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-header "$@"
}
compile() {
    resolve "$@" pyproject.toml
}
compile --extra cpu --output-file requirements/serve.txt
compile --extra cpu --extra bucket --constraint requirements/serve.txt --output-file requirements/serve-bucket.txt
compile --extra cpu --extra otlp --constraint requirements/serve.txt --output-file requirements/serve-otlp.txt
compile --extra cpu --extra train --extra dev --constraint requirements/serve.txt --output-file requirements/dev.txt
# Of the images: what else they install, held to what is tested with.
compile --extra gpu --constraint requirements/serve.txt --output-file requirements/serve-gpu.txt
compile --extra cpu --extra train --extra jax --constraint requirements/dev.txt --output-file requirements/train.txt
compile --extra cpu --constraint requirements/dev.txt --output-file requirements/load.txt requirements/load.in
resolve --constraint requirements/dev.txt --output-file requirements/tensorboard.txt requirements/tensorboard.in
# What changes the code to test the tests.
resolve --constraint requirements/dev.txt --output-file requirements/mutation.txt requirements/mutation.in
# What builds the documentation.
resolve --constraint requirements/dev.txt --output-file requirements/docs.txt requirements/docs.in
# What builds Convoy itself, for the images and into both environments.
resolve --constraint requirements/dev.txt --output-file requirements/build.txt requirements/build.in
