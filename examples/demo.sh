#!/usr/bin/env bash
# The main job from nothing: a cluster, the charts, the example plugins, and what to look at next.
set -euo pipefail
cd "$(dirname "$0")/.."
step() { printf '\n\033[1m%s\033[0m\n' "$*"; }

step "1/5 cluster"
. tests/cluster/choose.sh

step "2/5 programs"
make binaries

step "3/5 images and charts"
. charts/install.sh

step "4/5 examples"
# The manifests name the images as this project calls them; a registry of yours has its own prefix.
for manifest in examples/*.yaml; do
  sed "s#patchbay\.dev/example-#$prefix/example-#" "$manifest"
  echo ---
done | kubectl apply -f -
kubectl wait --for=condition=Ready pbplugins --all --namespace patchbay-demo --timeout=120s

step "5/5 what you have now"
kubectl get pbplugins -A
call() { "$PATCHBAY_BIN_DIR/kubectl-patchbay" call --namespace patchbay-demo "$@"; }
for plugin in kv-go kv-python kv-rust; do
  call "$plugin" proto.KV/Put '{"key": "greeting", "value": "aGVsbG8="}' >/dev/null
  echo "$plugin answers Get: $(call "$plugin" proto.KV/Get '{"key": "greeting"}' | tr -d '\n ')"
done
cat <<TEXT

Look around:
  export KUBECONFIG=${KUBECONFIG:-~/.kube/config} PATH=$PATCHBAY_BIN_DIR:\$PATH
  kubectl patchbay status -n patchbay-demo
  kubectl patchbay call -n patchbay-demo kv-go --list
  kubectl describe pbplugin kv-go -n patchbay-demo
Remove everything again: make down
TEXT
