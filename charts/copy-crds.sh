#!/usr/bin/env bash
# Copies the generated CRDs into the chart that installs them. Called by `make generate`;
# charts/check.sh says so when the copies differ.
set -euo pipefail
cd "$(dirname "$0")/.."

into=charts/patchbay-crds/crd
mkdir -p "$into"
for copy in "$into"/*.yaml; do
  [ -e "$copy" ] && [ ! -e "crds/$(basename "$copy")" ] && rm "$copy"
done
cp crds/*.yaml "$into/"
