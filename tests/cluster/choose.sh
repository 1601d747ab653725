# Sourced: chooses the cluster. With KUBECONFIG or CONTEXT given it is somebody else's and is
# neither made nor removed; images then go to the registry that REGISTRY names. Otherwise the
# embedded one is brought up. Sets KUBECONFIG, kubectl, helm, and PATCHBAY_CLUSTER when embedded.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cluster=$root/tests/cluster/cluster.sh

if [[ -n ${KUBECONFIG:-}${CONTEXT:-} ]]; then
  if [[ -z ${REGISTRY:-} ]]; then
    echo "KUBECONFIG or CONTEXT names a cluster of yours; set REGISTRY=host/prefix to say where it pulls images from" >&2
    exit 2
  fi
  kubectl=$(command -v kubectl || "$cluster" bin kubectl)
  helm=$(command -v helm || "$cluster" bin helm)
  kubectl_arguments=(${CONTEXT:+--context "$CONTEXT"})
  helm_arguments=(${CONTEXT:+--kube-context "$CONTEXT"})
else
  "$cluster" up
  KUBECONFIG=$("$cluster" kubeconfig)
  export KUBECONFIG PATCHBAY_CLUSTER=$cluster
  kubectl=$("$cluster" bin kubectl)
  helm=$("$cluster" bin helm)
  kubectl_arguments=()
  helm_arguments=()
fi
kubectl() { command "$kubectl" "${kubectl_arguments[@]}" "$@"; }
helm() { command "$helm" "${helm_arguments[@]}" "$@"; }
# Programs that the tests start find the same kubectl.
PATH=$(dirname "$kubectl"):$PATH
export PATH
