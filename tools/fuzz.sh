#!/usr/bin/env bash
# Builds every fuzz target and runs each for some seconds. usage: tools/fuzz.sh SECONDS [TARGET...]
# Exit code: 0 when nothing was found, 1 when a target failed (after all of them have run).
# Needs a nightly toolchain and cargo-fuzz; without them it says so and passes.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:?usage: tools/fuzz.sh SECONDS [TARGET...]}
shift
if ! cargo +nightly --version > /dev/null 2>&1; then
  echo "SKIPPED: fuzzing needs a nightly toolchain (rustup toolchain install nightly)" >&2
  exit 0
elif ! command -v cargo-fuzz > /dev/null; then
  echo "SKIPPED: fuzzing needs cargo-fuzz (cargo install --locked cargo-fuzz)" >&2
  exit 0
fi

# Address sanitizer, as most of the codecs are C or write to memory of their own making.
fuzz() { cargo +nightly fuzz "$1" --fuzz-dir rust/fuzz "${@:2}"; }
# libzstd and libFuzzer itself at -O1: a third less to build, and hardly slower to run.
export CFLAGS=${CFLAGS:--O1} CXXFLAGS=${CXXFLAGS:--O1}

# libFuzzer's flags for one target. 1 GiB and 10 s an input are far beyond what the limits of the core allow for so few
# bytes.
flags() {
  echo -max_total_time="$seconds" -rss_limit_mb=1024 -timeout=10 -verbosity=0 -print_final_stats=1
  case $1 in
    metadata_*) echo -max_len=4096 -dict=rust/fuzz/corpus/json.dict ;;
    planner | read_shard | network) echo -max_len=1024 ;;
    *) echo -max_len=4096 ;;
  esac
}

# One build for all targets; the runs below find it done.
fuzz build
if [[ $# -eq 0 ]]; then
  # Not piped into mapfile, so that a failure here ends the script.
  list=$(fuzz list)
  mapfile -t targets <<< "$list"
else
  targets=("$@")
fi
"${PYTHON:-python3}" rust/fuzz/seeds.py

log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=()
for target in "${targets[@]}"; do
  echo "fuzzing $target for $seconds s"
  # shellcheck disable=SC2046  # flags are words
  if fuzz run "$target" -- $(flags "$target") > "$log" 2>&1; then
    grep -E 'stat::(number_of_executed_units|peak_rss_mb)' "$log" || true
  else
    # What was wrong (else the end of the log), and how to see it again. The input itself is in the artifact.
    grep -A2 -E 'panicked at|ERROR: ' "$log" >&2 || tail -20 "$log" >&2
    grep -A2 'Reproduce with' "$log" >&2 || true
    failed+=("$target")
  fi
done
if [[ ${#failed[@]} -gt 0 ]]; then
  echo "fuzzing FAILED: ${failed[*]}; the inputs are in rust/fuzz/artifacts" >&2
  exit 1
fi
