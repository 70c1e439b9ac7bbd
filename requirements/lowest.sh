#!/bin/sh
# Runs the unit tests of `service` (default) or `training` with the lowest versions that pyproject.toml allows, in a
# temporary environment. uv resolves them. If uv is not installed, pip installs it into a temporary environment.
set -eu
cd "$(dirname "$0")/.."
case "${1:-service}" in
    service)
        extras=cpu,bucket,client,otlp,parquet
        tools='pytest pytest-xdist hypothesis geventhttpclient onnx pyyaml tritonclient'
        tests='tests/unit/service tests/unit/project/test_dependency_internals.py' ;;
    training)
        extras=cpu,train,jax
        tools='pytest pytest-xdist hypothesis'
        tests='tests/unit/training' ;;
    *)
        echo "usage: requirements/lowest.sh [service|training]" >&2
        exit 2 ;;
esac
python="${PYTHON:-python3}"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
uv="$(command -v uv || true)"
if [ -z "$uv" ]; then
    "$python" -m venv "$folder/uv"
    "$folder/uv/bin/python" -m pip install --quiet --disable-pip-version-check uv
    uv="$folder/uv/bin/uv"
fi
pinned=$(for tool in $tools; do grep -oE "^$tool==[^ ;]+" requirements/dev.txt; done)
export UV_SYSTEM_CERTS=true  # like pip, trust the certificates of the system
"$uv" venv --quiet --python "$python" "$folder/venv"
# shellcheck disable=SC2086  # tools and tests are several words
"$uv" pip install --quiet --python "$folder/venv" --resolution lowest-direct --editable ".[$extras]" $pinned
"$uv" pip freeze --quiet --python "$folder/venv" --exclude-editable
# shellcheck disable=SC2086
"$folder/venv/bin/python" -m pytest -m "not slow and not long" -n auto --dist loadfile -p no:cacheprovider $tests
