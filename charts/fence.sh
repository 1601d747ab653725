#!/usr/bin/env bash
# Shows on the cluster that kubectl reaches that the installed admission policy holds the
# operator's account to its own objects. Acts as that account, in a namespace of its own, and
# removes that again. Prints how many attempts were judged as they should be.
#   charts/fence.sh [namespace of the release] [name of the operator's account]
set -euo pipefail

account=system:serviceaccount:${1:-patchbay-system}:${2:-patchbay}
place=patchbay-fence-$$
judged=0
problems=0

k() { kubectl ${CONTEXT:+--context "$CONTEXT"} "$@"; }

# $1 what is to happen, $2 the attempt in words, the rest a kubectl command as the account. Never
# behind a pipe: what it counts would be lost with the subshell.
attempt() {
  local wanted=$1 words=$2 said status=allowed
  shift 2
  said=$(k --as "$account" --namespace "$place" "$@" 2>&1) || status=failed
  if [ "$status" = failed ]; then
    case $said in
      *"ValidatingAdmissionPolicy"*) status=fenced ;;
      *"cannot "*" resource "*) status=unentitled ;;
    esac
  fi
  judged=$((judged + 1))
  if [ "$status" != "$wanted" ]; then
    echo "fence: $words: expected $wanted, found $status: $said" >&2
    problems=$((problems + 1))
  fi
}

secret() { printf '{"apiVersion":"v1","kind":"Secret","metadata":{"name":"%s"}%s}' "$1" "${2:+,\"type\":\"$2\"}"; }
# $1 version, $2 kind, $3 name, $4 spec, $5 value of the label or nothing.
object() {
  local labels=
  [ -z "${5:-}" ] || labels=$(printf ',"labels":{"app.kubernetes.io/managed-by":"%s"}' "$5")
  printf '{"apiVersion":"%s","kind":"%s","metadata":{"name":"%s"%s},"spec":%s}' "$1" "$2" "$3" "$labels" "$4"
}
service='{"ports":[{"port":80}]}'
# Pods that no node takes.
pod='{"containers":[{"name":"a","image":"a"}],"nodeSelector":{"patchbay.dev/fence":"nowhere"}}'
policy='{"podSelector":{}}'
ours=patchbay.dev/v1alpha1
# No such plugin: nobody does these.
job='{"pluginRef":{"name":"nobody"},"command":{"name":"none"}}'
brief=${job/%\}/,\"ttlSecondsAfterFinished\":31536000\}}
output='{"job":"kept","attempt":1,"row":1,"chunk":0,"bytes":1,"sha256":"","encoding":"Text","content":"a"}'

k create namespace "$place" >/dev/null
trap 'k delete namespace "$place" --wait=false >/dev/null' EXIT
k --namespace "$place" create secret generic foreign --from-literal=key=value >/dev/null
k --namespace "$place" create service clusterip foreign --tcp=80 >/dev/null
object v1 Service own "$service" patchbay | k --namespace "$place" create -f - >/dev/null
object v1 Pod own "$pod" patchbay | k --namespace "$place" create -f - >/dev/null
object v1 Pod foreign "$pod" | k --namespace "$place" create -f - >/dev/null
for what in "kept $job" "open $brief" "over $brief"; do
  read -r name spec <<<"$what"
  object "$ours" Job "$name" "$spec" | k --namespace "$place" create -f - >/dev/null
done
for name in kept over; do
  k --namespace "$place" patch jobs.patchbay.dev "$name" --subresource status --type merge --patch '{"status":{"phase":"Failed"}}' >/dev/null
done
object "$ours" JobOutput foreign "$output" | k --namespace "$place" create -f - >/dev/null
secret own patchbay.dev/identity | k --namespace "$place" create -f - >/dev/null

dry=--dry-run=server
apply=(apply --server-side --field-manager fence -f -)
attempt fenced "reading a foreign Secret by an empty apply" "${apply[@]}" <<<"$(secret foreign)"
attempt fenced "making an ordinary Secret" create $dry -f - <<<"$(secret new)"
attempt allowed "making an identity" create $dry -f - <<<"$(secret new patchbay.dev/identity)"
attempt allowed "applying its own identity" "${apply[@]}" <<<"$(secret own patchbay.dev/identity)"
attempt unentitled "reading a Secret" get secret own
attempt unentitled "listing Secrets" get secrets
attempt unentitled "deleting a Secret" delete $dry secret own
attempt fenced "taking over a foreign Service by its label" label $dry service foreign app.kubernetes.io/managed-by=patchbay
attempt fenced "deleting a foreign pod" delete $dry pod foreign
attempt fenced "giving up the label of its own Service" label $dry service own app.kubernetes.io/managed-by-
attempt allowed "deleting its own pod" delete $dry pod own
attempt unentitled "deleting a Service" delete $dry service own
for what in "v1 Pod $pod" "v1 Service $service" "networking.k8s.io/v1 NetworkPolicy $policy"; do
  read -r version kind spec <<<"$what"
  attempt fenced "making a $kind without the label" create $dry -f - <<<"$(object "$version" "$kind" new "$spec")"
  attempt fenced "making a $kind with another label" create $dry -f - <<<"$(object "$version" "$kind" new "$spec" Helm)"
  attempt allowed "making a $kind of its own" create $dry -f - <<<"$(object "$version" "$kind" new "$spec" patchbay)"
done
attempt fenced "making a JobOutput without the label" create $dry -f - <<<"$(object "$ours" JobOutput new "$output")"
attempt allowed "making a JobOutput of its own" create $dry -f - <<<"$(object "$ours" JobOutput new "$output" patchbay)"
attempt fenced "deleting a foreign JobOutput" delete $dry joboutputs.patchbay.dev foreign
attempt unentitled "changing output" label $dry joboutputs.patchbay.dev foreign a=b
attempt unentitled "making a Job" create $dry -f - <<<"$(object "$ours" Job new "$job")"
attempt unentitled "changing a Job" label $dry jobs.patchbay.dev kept a=b
attempt fenced "deleting a Job that has not ended" delete $dry jobs.patchbay.dev open
attempt fenced "deleting a Job that shall be kept" delete $dry jobs.patchbay.dev kept
attempt allowed "deleting a Job whose time is over" delete $dry jobs.patchbay.dev over
attempt unentitled "making a ConfigMap" create $dry configmap new
attempt unentitled "making a Role" create $dry role new --verb=get --resource=pods
attempt unentitled "reading a Lease of another namespace" get lease patchbay-operator

[ "$problems" = 0 ] || exit 1
echo "fence: $judged attempts judged as they should be"
