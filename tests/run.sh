#!/usr/bin/env bash
# Every tier of tests, one after the other: how many tests ran in each, and how long each step took.
#   pure      no process, no socket of another program
#   process   real launcher, sidecar and plugin processes on this machine
#   cluster   a real API server, kubelet, containerd and NetworkPolicy enforcer
#   long      the random and exhaustive runs of the other tiers, repeated for hours; only when named
# TIERS="pure process" runs some of them; what was left out is said with the word "skipped".
# How much the random runs do, where a shorter or longer one is wanted:
#   SIM_HANDOUTS=100000 (of 1000000), CHAOS_JOBS=1000 (of 10000), PROPTEST_CASES=1000 (of 256)
set -euo pipefail
cd "$(dirname "$0")/.."
export CACHE=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/patchbay}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}
export PATCHBAY_BIN_DIR=${PATCHBAY_BIN_DIR:-$CARGO_TARGET_DIR/$(uname -m)-unknown-linux-gnu/release}

pure() {
  # Compiled first, so that the times of tests are those of tests.
  step "compile the pure tests"
  cargo test --locked --workspace --exclude patchbay-tests --lib --bins --no-run
  cargo test --locked -p patchbay-tests --test model --test simulation --no-run
  step "crates"
  cargo test --locked --workspace --exclude patchbay-tests --lib --bins
  step "Go programs"
  local module
  for module in tests/cluster images/build tests/plugins/go tests/checker tests/bench; do
    (cd "$module" && go test -v ./...)
  done
  step "model"
  cargo test --locked -p patchbay-tests --test model
  step "simulation"
  cargo test --locked -p patchbay-tests --test simulation
  step "Python runtime"
  python3 -m unittest discover --verbose --top-level-directory runtime/python --start-directory runtime/python/tests
}

process() {
  step "release programs"
  make binaries
  step "fixtures"
  tests/plugins/build.sh
  step "compile the process tests"
  cargo test --locked -p patchbay-launcher --test process --no-run
  cargo test --locked -p patchbay-tests --test process --no-run
  step "launcher"
  cargo test --locked -p patchbay-launcher --test process
  step "processes"
  cargo test --locked -p patchbay-tests --test process
}

# Programs, cluster, images and charts.
installed() {
  step "release programs"
  make binaries
  step "cluster"
  . tests/cluster/choose.sh
  step "images and charts"
  . charts/install.sh
  step "compile the cluster tests"
  export PATCHBAY_CHECKER=$CACHE/tools/checker
  go build -C tests/checker -o "$PATCHBAY_CHECKER" .
  cargo test --locked -p patchbay-tests --test real_cluster --no-run
}

cluster() {
  installed
  step "stories"
  cargo test --locked -p patchbay-tests --test real_cluster
}

# Nothing here is a test of its own: the same tests do more.
long() {
  step "random transitions and dispatches"
  PROPTEST_CASES=${PROPTEST_CASES:-20000} cargo test --locked --workspace --exclude patchbay-tests --lib --bins -- random
  step "simulation of ten million hand-outs"
  SIM_HANDOUTS=${SIM_HANDOUTS:-10000000} cargo test --locked -p patchbay-tests --test simulation
  step "model with one misfortune more"
  MODEL_DEEP=1 cargo test --locked -p patchbay-tests --test model
  installed
  step "chaos of fifty thousand jobs"
  CHAOS_JOBS=${CHAOS_JOBS:-50000} cargo test --locked -p patchbay-tests --test real_cluster -- chaos
}

# Starts a step of a tier and ends the one before.
step() {
  finish
  step_name=$1 step_start=$EPOCHSECONDS
  printf '\n-- %s: %s\n' "$tier_name" "$step_name"
}

finish() {
  [[ -n ${step_name:-} ]] || return 0
  printf '%s\t%s\t%d\n' "$tier_name" "$step_name" $((EPOCHSECONDS - step_start)) >>"${STEP_TIMES:-/dev/null}"
  step_name=
}

case ${1:-all} in
  pure | process | cluster | long)
    tier_name=$1
    trap finish EXIT
    "$1"
    exit
    ;;
  all) ;;
  *) echo "usage: tests/run.sh [pure | process | cluster | long]" >&2; exit 2 ;;
esac

tiers=" ${TIERS:-pure process cluster} "
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
export STEP_TIMES=$logs/.times
: >"$STEP_TIMES"
began=$EPOCHSECONDS
declare -A passed failed
failures=0

# Runs a tier, shows its output, and counts from the closing lines of its test runners.
tier() {
  local name=$1
  if [[ $tiers != *" $name "* ]]; then
    echo "== $name tier: skipped"
    return
  fi
  printf '\n== %s tier\n' "$name"
  local status=0
  # A process of its own: inside `||` the shell would go on after a failed command.
  tests/run.sh "$name" 2>&1 | tee "$logs/$name" || status=$?
  passed[$name]=$(count passed "$logs/$name")
  failed[$name]=$(count failed "$logs/$name")
  if ((status != 0)); then
    failures=1
    ((failed[$name] > 0)) || failed[$name]=1
  fi
}

# Minutes and seconds of each step, of each tier and of all.
times() {
  awk -F '\t' -v total="$1" '
    function clock(seconds) { return sprintf("%d:%02d", seconds / 60, seconds % 60) }
    function line(tier, step, seconds) { printf "%-8s  %-40s %7s\n", tier, step, clock(seconds) }
    function close_tier() { if (tier) line(tier, "together", sum) }
    BEGIN { print "minutes:" }
    $1 != tier { close_tier(); tier = $1; sum = 0 }
    { line($1, $2, $3); sum += $3 }
    END { close_tier(); line("all", "from start to end", total) }' "$STEP_TIMES"
}

# How many of the numbered cases of the PCP job queue passed. A case is one or several tests whose
# names hold pcp_NN_; it passes when at least one ran and none failed.
pcp_cases() {
  awk '
    match($0, /pcp_[0-9][0-9]_[A-Za-z0-9_]+.* \.\.\. (ok|FAILED|FAIL|ERROR)/) {
      number = substr($0, RSTART + 4, 2)
      if ($0 ~ /\.\.\. ok/) passed[number] = 1; else failed[number] = 1
    }
    END {
      for (i = 1; i <= 43; i++) {
        number = sprintf("%02d", i)
        if (number in failed) bad = bad " " i
        else if (number in passed) good++
        else absent = absent " " i
      }
      printf "%d of 43 PCP cases passed", good
      if (bad) printf "; failed:%s", bad
      if (absent) printf "; not run:%s", absent
      print ""
    }' "$@"
}

# `test result: ok. 12 passed; 0 failed` of cargo and libtest-mimic, `--- PASS:` of go test -v,
# `Ran 12 tests` and `FAILED (failures=1, errors=2)` of Python.
count() {
  local word=$1 file=$2 go
  [[ $word == passed ]] && go=PASS || go=FAIL
  awk -v word="$word" -v go="^ *--- $go:" '
    /^test result:/ { for (i = 1; i < NF; i++) if ($(i + 1) == word ";") total += $i }
    $0 ~ go { total++ }
    /^Ran [0-9]+ tests? in / { ran = $2 }
    ran && /^OK/ { if (word == "passed") total += ran; ran = 0 }
    ran && /^FAILED \(/ {
      bad = 0; line = $0
      while (match(line, /(failures|errors)=[0-9]+/)) {
        split(substr(line, RSTART, RLENGTH), pair, "="); bad += pair[2]
        line = substr(line, RSTART + RLENGTH)
      }
      total += word == "passed" ? ran - bad : bad; ran = 0
    }
    END { print total + 0 }' "$file"
}

if [[ $tiers =~ " cluster "|" long " && -z ${KUBECONFIG:-}${CONTEXT:-} ]]; then
  tests/cluster/cluster.sh status >/dev/null 2>&1 && was_up=1 || was_up=0
  # What a run left that was cut short would be brought up again with everything in it.
  ((was_up)) || tests/cluster/cluster.sh down
fi
tier pure
tier process
tier cluster
[[ $tiers != *" long "* ]] || tier long
# A cluster that was there before stays; one that this run started goes with it.
if [[ ${was_up:-1} == 0 && ${KEEP_CLUSTER:-0} == 0 ]]; then
  tests/cluster/cluster.sh down
fi

echo
total_passed=0 total_failed=0
for name in pure process cluster long; do
  if [[ -v passed[$name] ]]; then
    echo "$name tier: ${passed[$name]} tests passed, ${failed[$name]} failed"
    total_passed=$((total_passed + passed[$name]))
    total_failed=$((total_failed + failed[$name]))
  elif [[ $name != long ]]; then
    echo "$name tier: skipped"
  fi
done
grep -hE '^[0-9]+ of 28 go-plugin cases passed' "$logs"/* 2>/dev/null || true
pcp_cases "$logs"/*
echo
times $((EPOCHSECONDS - began))
echo
echo "$total_passed passed, $total_failed failed"
exit "$failures"
