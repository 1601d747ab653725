#!/usr/bin/env bash
# The main job from nothing: a cluster, the charts, the example plugins, and what to look at next.
set -euo pipefail
cd "$(dirname "$0")/.."
step() { printf '\n\033[1m%s\033[0m\n' "$*"; }

export CACHE=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/patchbay}
mkdir -p "$CACHE"

step "1/5 cluster; beside it the programs"
# The first time both take minutes, and neither keeps two cores busy all the time.
programs=$CACHE/demo-programs.log
set -m # an own process group, which can be ended as a whole
make binaries </dev/null >"$programs" 2>&1 &
building=$!
set +m
trap 'kill -- "-$building" 2>/dev/null || true' EXIT
. tests/cluster/choose.sh

step "2/5 images of the examples; beside them the programs"
go run -C images/build . build example-kv-go example-kv-go-old example-python patchbay-python >/dev/null
while kill -0 "$building" 2>/dev/null; do
  echo "programs: $(grep -c '^ *Compiling' "$programs") crates compiled"
  # Sleeps, but no longer than the build.
  timeout 20 tail --pid="$building" -f /dev/null || true
done
wait "$building" || { tail -n 40 "$programs"; echo "the programs are not built; the whole output is in $programs" >&2; exit 1; }
trap - EXIT

step "3/5 images and charts"
. charts/install.sh

step "4/5 examples"
# The manifests name the images as this project calls them; a registry of yours has its own prefix.
for manifest in examples/*.yaml examples/pcp/*.yaml; do
  sed -E "s#patchbay\.dev/(example-|patchbay-)#$prefix/\1#" "$manifest"
  echo ---
done | kubectl apply -f -
kubectl wait --for=condition=Ready pbplugins --all --namespace patchbay-demo --timeout=120s
# Each run of the demo gives the workers new jobs.
demo=demo-$(date +%s)
(export NAMESPACE=patchbay-demo PREFIX=$demo LEAD=3; . examples/pcp/jobs.sh) >/dev/null
jobs() { for worker in a b c; do for order in 1 2 3; do echo "$demo-$worker-$order"; done; done; }
mapfile -t names < <(jobs | sed 's#^#pbjob/#')
kubectl wait "${names[@]}" --namespace patchbay-demo --for=condition=Complete --timeout=60s >/dev/null

step "5/5 what you have now"
kubectl get pbplugins -A
call() { "$PATCHBAY_BIN_DIR/kubectl-patchbay" call --namespace patchbay-demo "$@"; }
for plugin in kv-go kv-python kv-rust; do
  call "$plugin" proto.KV/Put '{"key": "greeting", "value": "aGVsbG8="}' >/dev/null
  echo "$plugin answers Get: $(call "$plugin" proto.KV/Get '{"key": "greeting"}' | tr -d '\n ')"
done
echo
echo "The scraper's jobs, each done by the worker it names, in the order of their start:"
jobs | while read -r job; do
  answer=$("$PATCHBAY_BIN_DIR/kubectl-patchbay" output --namespace patchbay-demo "$job")
  echo "  $job for $(kubectl get pbjob "$job" -n patchbay-demo -o jsonpath='{.spec.target.client}'): done by$(sed -n 's/^worker//p' <<<"$answer") at$(sed -n 's/^time//p' <<<"$answer")"
done
cat <<TEXT

Look around:
  export KUBECONFIG=${KUBECONFIG:-~/.kube/config} PATH=$PATCHBAY_BIN_DIR:\$PATH
  kubectl patchbay status -n patchbay-demo
  kubectl patchbay call -n patchbay-demo kv-go --list
  kubectl describe pbplugin kv-go -n patchbay-demo
  kubectl get pbjobs -n patchbay-demo
  kubectl patchbay submit -n patchbay-demo kv-go proto.KV/Get '{"key": "greeting"}' --wait
Remove everything again: make down
TEXT
