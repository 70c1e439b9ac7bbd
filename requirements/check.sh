#!/bin/sh
# Checks that pyproject.toml resolves to the pinned versions on every Python that Convoy supports. Writes nothing.
set -eu
cd "$(dirname "$0")/.."
for python in 3.11 3.12 3.13; do
    for extras in "--extra cpu" "--extra cpu --extra train --extra dev"; do
        # shellcheck disable=SC2086  # the extras are several words
        count=$(uv pip compile --quiet --python-version "$python" --constraint requirements/dev.txt --no-annotate \
            --no-header $extras pyproject.toml | wc -l)
        echo "Python $python, $extras: $count packages"
    done
done
