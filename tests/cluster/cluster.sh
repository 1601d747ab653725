#!/usr/bin/env bash
# Builds the cluster's control program when its sources changed, and runs it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/patchbay/tools
mkdir -p "$cache"
# The program finds its tool modules beside its sources, so each checkout has its own build.
program=$cache/cluster-$(printf %s "$here" | sha256sum | cut -c1-12)
CGO_ENABLED=0 go build -C "$here" -o "$program" .
exec "$program" "$@"
