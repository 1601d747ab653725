#!/usr/bin/env bash
# Phrases and names that must not come back: readers search for the words of Kubernetes and gRPC.
# Each finding is printed with its place; any finding fails. Add a phrase when a review finds one twice.
set -euo pipefail
cd "$(dirname "$0")/.."
problems=0

# $1 what it is about, $2 the pattern, the rest the files of git to look at.
forbid() {
  local about=$1 pattern=$2 found
  shift 2
  found=$(git grep --untracked --line-number --extended-regexp -e "$pattern" -- "$@") || return 0
  echo "$about:" >&2
  sed 's/^/  /' <<<"$found" >&2
  problems=$((problems + $(wc -l <<<"$found")))
}

texts=(crds charts docs README.md ARCHITECTURE.md CONTRIBUTING.md 'src/*.rs')
forbid 'say "maximum number of"' '\b[Ss]o many\b' "${texts[@]}"
forbid 'say "again"' '\banew\b' "${texts[@]}"
forbid 'say "who", "any client", "the pod that"' '\b[Ww]ho(so)?ever\b' "${texts[@]}"
forbid 'say "is invalid", "is not a ..."' '\b(is|are) none\b' "${texts[@]}"
forbid 'say "tolerated"' '\bput up with\b' "${texts[@]}"
forbid 'say "held by", "claimed by"' '\bin the hands of\b' "${texts[@]}"

# Declarations with one of these names, and modules whose name ends in one.
words='desk|clerk|lane|book|laws|hear|letter|door|hand|wall|picture|word|rig|ghost|told|todo|tried|flight|doubt'
capital=$(sed -E 's/(^|\|)([a-z])/\1\u\2/g' <<<"$words")
kinds='mod|struct|enum|trait|type|fn|const|static|union|message|service|rpc'
modifiers='^ *(pub(\([a-z ]+\))? +|async +|const +|unsafe +)*'
forbid 'name it as a Kubernetes or gRPC engineer would' \
  "$modifiers(($kinds) +($words|$capital|${words^^})[sS]?|mod +[a-z0-9_]+_($words)s?)\b" 'src/*.rs' 'proto/*.proto'

if ((problems != 0)); then
  echo "phrases: $problems findings" >&2
  exit 1
fi
echo "phrases: none of the list"
