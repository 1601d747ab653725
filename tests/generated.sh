#!/usr/bin/env bash
# Are the committed generated files what the generators write today?
set -euo pipefail
cd "$(dirname "$0")/.."
before=$(git hash-object crds/* charts/patchbay-crds/templates/* | sha256sum)
make generate
after=$(git hash-object crds/* charts/patchbay-crds/templates/* | sha256sum)
if [[ $before != "$after" ]]; then
  echo "generated files were out of date; they have been written anew: commit them (make generate)" >&2
  exit 1
fi
