#!/bin/sh
# Resolves pyproject.toml into pinned, hashed lists. All lists use the versions of serve.txt.
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
# Further lists for the images, with the tested versions.
compile --extra gpu --constraint requirements/serve.txt --output-file requirements/serve-gpu.txt
compile --extra cpu --extra train --extra jax --constraint requirements/dev.txt --output-file requirements/train.txt
compile --extra cpu --constraint requirements/dev.txt --output-file requirements/load.txt requirements/load.in
resolve --constraint requirements/dev.txt --output-file requirements/tensorboard.txt requirements/tensorboard.in
# For mutation testing.
resolve --constraint requirements/dev.txt --output-file requirements/mutation.txt requirements/mutation.in
# For building the documentation.
resolve --constraint requirements/dev.txt --output-file requirements/docs.txt requirements/docs.in
# For building Convoy itself, in the images and in both environments.
resolve --constraint requirements/dev.txt --output-file requirements/build.txt requirements/build.in
