#!/usr/bin/env bash
# Are the committed generated files what the generators write today?
set -euo pipefail
cd "$(dirname "$0")/.."
state() { git hash-object crds/* charts/patchbay-crds/crd/* tests/plugins/go/echo/*.pb.go | sha256sum; }
before=$(state)
make generate
if [[ $before != "$(state)" ]]; then
  echo "generated files were out of date; they are now as the generators write them; commit them (make generate)" >&2
  exit 1
fi
