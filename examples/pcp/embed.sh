#!/bin/sh
# Puts scraper.py and worker.py into the ConfigMaps of the manifests beside them.
set -eu
cd "$(dirname "$0")"

# embed FILE MANIFEST: everything indented below "  FILE: |" is replaced by the file.
embed() {
  awk -v key="  $1: |" -v file="$1" '
    skip && (/^    / || /^$/) { next }
    { skip = 0; print }
    $0 == key {
      while ((getline line < file) > 0) print (line == "" ? "" : "    " line)
      skip = 1
    }' "$2" >"$2.new"
  mv "$2.new" "$2"
}

embed scraper.py scraper.yaml
embed worker.py workers.yaml
