#!/bin/sh
# Writes the current digest of each Dockerfile's base image after its tag, and replaces an older digest.
# Arguments are Dockerfiles; default: all. Needs skopeo; SKOPEO_OPTIONS are for its `inspect`.
set -eu
if [ $# = 0 ]; then
    cd "$(dirname "$0")/.."
    set -- service/Dockerfile training/Dockerfile
fi
for file in "$@"; do
    image=$(sed -n 's/^ARG BASE=\([^@]*\).*/\1/p' "$file")
    if [ -z "$image" ]; then
        echo "$file has no line ARG BASE=IMAGE." >&2
        exit 2
    fi
    manifest=$(mktemp)
    trap 'rm -f "$manifest"' EXIT
    # The manifest as it is stored: of an image for several architectures the list, whose digest is right for all.
    # shellcheck disable=SC2086  # the options are several words
    skopeo inspect --raw ${SKOPEO_OPTIONS:-} "docker://$image" >"$manifest"
    digest=sha256:$(sha256sum "$manifest" | cut -d ' ' -f 1)
    sed -i "s|^ARG BASE=.*|ARG BASE=$image@$digest|" "$file"
    echo "$file: $image@$digest"
done
