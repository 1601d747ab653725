#!/usr/bin/env bash
# Measures Patchbay against its peers in one run and prints the ratios. Not a test: a missed bar is
# shown as missed and the exit code stays 0; only what could not be measured is an error.
#   calls    through the sidecar, straight to the plugin, and through a plain Go proxy
#   starts   of a plugin by launcher and sidecar and by an ordinary go-plugin host; memory
#   cluster  a Plugin and a bare pod of the same shape until they are ready; the operator's memory
#   jobs     claims over raw replaces of the API server, dispatch over its floor, idle workers,
#            memory of waiting Jobs, batch jobs doing the same, and what the checker counts
# PARTS="calls starts" measures some of them. Arguments go to the program: tests/bench.sh -rounds 30
set -euo pipefail
cd "$(dirname "$0")/.."
export CACHE=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/patchbay}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}
export PATCHBAY_BIN_DIR=${PATCHBAY_BIN_DIR:-$CARGO_TARGET_DIR/$(uname -m)-unknown-linux-gnu/release}
parts=${PARTS:-calls starts cluster jobs}

make binaries
fixtures=$(dirname "$(tests/plugins/build.sh echo-plugin echo-client grpc-proxy stock-host | head -n 1)")
program=$CACHE/tools/bench
go build -C tests/bench -o "$program" .

if [[ " $parts " == *" jobs "* ]]; then
  # The packages that `make binaries` names with it: otherwise its libraries are built once more.
  PATH=$PWD/images/static:$PATH RUSTC_WORKSPACE_WRAPPER=static-rustc \
    cargo build --target "$(uname -m)-unknown-linux-gnu" --release --locked -p patchbay-operator -p kubectl-patchbay -p patchbay-example-rust-kv --example raw_replaces
  go build -C tests/checker -o "$CACHE/tools/checker" .
fi
audit=
if [[ " $parts " == *" cluster "* || " $parts " == *" jobs "* ]]; then
  if [[ -z ${KUBECONFIG:-}${CONTEXT:-} ]] && ! tests/cluster/cluster.sh status >/dev/null 2>&1; then
    # A cluster that was there before stays; one that this run starts goes with it.
    [[ ${KEEP_CLUSTER:-0} != 0 ]] || trap 'tests/cluster/cluster.sh down' EXIT
  fi
  . tests/cluster/choose.sh
  . charts/install.sh
  [[ -z ${PATCHBAY_CLUSTER:-} ]] || audit=$("$PATCHBAY_CLUSTER" audit-log)
fi

"$program" -parts "$parts" -programs "$PATCHBAY_BIN_DIR" -fixtures "$fixtures" \
  -checker "$CACHE/tools/checker" -audit "$audit" -images "${prefix:-patchbay.dev}" -out "$CARGO_TARGET_DIR/bench" "$@"
