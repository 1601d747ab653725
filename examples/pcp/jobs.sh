#!/bin/sh
# Gives each of the three workers three jobs. They are created in another order than they are
# to start in, so that the order of their results shows that startTime decides.
# Needs kubectl, pointed at the cluster where scraper.yaml and workers.yaml were applied.
set -eu
namespace=${NAMESPACE:-patchbay-demo}
# Seconds until the first job may start: all of them have to be there by then.
lead=${LEAD:-10}
prefix=${PREFIX:-scrape}

# RFC 3339 of a number of seconds since 1970, with GNU's date or BSD's.
stamp() {
  date -u -d "@$1" +%Y-%m-%dT%H:%M:%S.000000Z 2>/dev/null || date -u -r "$1" +%Y-%m-%dT%H:%M:%S.000000Z
}

address() {
  kubectl get pod --namespace "$namespace" "worker-$1" -o jsonpath='{.status.podIP}'
}

job() { # NAME ADDRESS START TARGET
  cat <<YAML
---
apiVersion: patchbay.dev/v1alpha1
kind: Job
metadata:
  name: $1
  namespace: $namespace
  labels: {example: pcp}
spec:
  pluginRef: {name: scraper}
  command:
    name: fetch
    inputs:
    - {name: Target, value: "$4"}
  target: {client: "$2", port: "10000"}
  startTime: "$3"
YAML
}

kubectl wait --namespace "$namespace" --for=condition=Ready \
  pod/worker-a pod/worker-b pod/worker-c pbplugin/scraper --timeout="${TIMEOUT:-120s}" >&2

a=$(address a) b=$(address b) c=$(address c)
now=$(date +%s)
for order in 3 1 2; do
  for worker in a b c; do
    case $worker in a) location=$a ;; b) location=$b ;; *) location=$c ;; esac
    job "$prefix-$worker-$order" "$location" "$(stamp $((now + lead + order)))" "http://192.0.2.$order/"
  done
done | kubectl apply -f -

cat <<TEXT

Three jobs each for the workers at $a, $b and $c, created in the order 3, 1, 2. Look at them:
  kubectl get pbjobs -n $namespace -l example=pcp --sort-by=.spec.startTime -o wide
  kubectl wait -n $namespace -l example=pcp --for=condition=Complete pbjob --timeout=60s
  kubectl patchbay queue -n $namespace
  kubectl patchbay output -n $namespace $prefix-a-1
Each output names the worker that gave it: $prefix-a-* come from $a. The times in
the outputs of one worker rise from 1 to 3.
TEXT
