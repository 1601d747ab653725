#!/usr/bin/env bash
# Checks the charts: the copies of the CRDs are current, both charts pass lint and render with
# every values file of tests/, and values that the schema has to refuse are refused.
# With --cluster, the API server that kubectl reaches judges what was rendered, by a dry run.
set -euo pipefail
cd "$(dirname "$0")/.."

helm=${HELM:-$(tests/cluster/cluster.sh bin helm)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
problems=0

problem() {
  echo "charts: $*" >&2
  problems=$((problems + 1))
}

# $1 chart, $2 file to render into, the rest for helm.
render() {
  local chart=$1 into=$2
  shift 2
  # --skip-schema-validation is never given: rendering is where the schema speaks.
  "$helm" template patchbay "charts/$chart" --namespace patchbay-system --kube-version 1.33.0 "$@" >"$into" 2>"$into.err"
}

for crd in crds/*.yaml; do
  cmp -s "$crd" "charts/patchbay-crds/crd/$(basename "$crd")" ||
    problem "patchbay-crds holds another $(basename "$crd") than crds/ (run: make generate)"
done
for copy in charts/patchbay-crds/crd/*.yaml; do
  [ -e "crds/$(basename "$copy")" ] || problem "patchbay-crds holds $(basename "$copy"), which crds/ does not (run: make generate)"
done

for chart in patchbay-crds patchbay; do
  "$helm" lint --strict --quiet "charts/$chart" >"$work/lint" 2>&1 || problem "lint of $chart: $(cat "$work/lint")"
done

for keep in true false; do
  if render patchbay-crds "$work/crds-$keep.yaml" --set keep=$keep; then
    kinds=$(grep -c '^kind: CustomResourceDefinition$' "$work/crds-$keep.yaml" || true)
    files=$(find crds -name '*.yaml' | wc -l)
    [ "$kinds" = "$files" ] || problem "patchbay-crds renders $kinds kinds, crds/ holds $files"
  else
    problem "patchbay-crds with keep=$keep: $(cat "$work/crds-$keep.yaml.err")"
  fi
done
grep -q 'helm.sh/resource-policy: keep' "$work/crds-true.yaml" || problem "patchbay-crds does not keep its kinds by default"
! grep -q 'helm.sh/resource-policy' "$work/crds-false.yaml" || problem "patchbay-crds keeps its kinds against keep=false"

rendered=("$work/crds-true.yaml")
for values in charts/patchbay/values.yaml charts/tests/*.yaml; do
  name=$(basename "$values" .yaml)
  if render patchbay "$work/$name.yaml" --values "$values"; then
    rendered+=("$work/$name.yaml")
  else
    problem "patchbay with $values: $(cat "$work/$name.yaml.err")"
  fi
done

refusals=0
while IFS='|' read -r arguments word; do
  case $arguments in '#'* | '') continue ;; esac
  word=${word# }
  # shellcheck disable=SC2086 # the line holds several arguments
  if render patchbay "$work/refused" $arguments; then
    problem "values are accepted that must be refused: $arguments"
  elif ! grep -q -- "$word" "$work/refused.err"; then
    problem "the refusal of $arguments does not name '$word': $(cat "$work/refused.err")"
  fi
  refusals=$((refusals + 1))
done <charts/tests/refused.txt

if [ "${1:-}" = --cluster ]; then
  namespace=
  kubectl get namespace patchbay-system >/dev/null 2>&1 || namespace=patchbay-system
  # A dry run needs the namespace that the objects name.
  [ -z "$namespace" ] || kubectl create namespace "$namespace" >/dev/null
  for file in "${rendered[@]}"; do
    kubectl apply --server-side --dry-run=server --force-conflicts -f "$file" >"$work/applied" 2>&1 ||
      problem "the API server refuses $(basename "$file"): $(grep -v ' (server dry run)$' "$work/applied")"
    ! grep -i '^warning' "$work/applied" || problem "the API server warns of $(basename "$file")"
  done
  [ -z "$namespace" ] || kubectl delete namespace "$namespace" --wait=false >/dev/null
fi

[ "$problems" = 0 ] || exit 1
echo "charts: 2 linted, ${#rendered[@]} renderings, $refusals refusals"
