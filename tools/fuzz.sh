#!/usr/bin/env bash
# Builds every fuzz target and runs each for a few seconds. usage: tools/fuzz.sh SECONDS [TARGET...]
# Needs a nightly toolchain and cargo-fuzz; without them it says so and passes.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=$1
shift
if [[ ! -d rust/fuzz ]]; then
  echo "SKIPPED: there is no rust/fuzz" >&2
elif ! cargo +nightly --version > /dev/null 2>&1; then
  echo "SKIPPED: fuzzing needs a nightly toolchain (rustup toolchain install nightly)" >&2
elif ! command -v cargo-fuzz > /dev/null; then
  echo "SKIPPED: fuzzing needs cargo-fuzz (cargo install --locked cargo-fuzz)" >&2
else
  fuzz=(cargo +nightly fuzz)
  # cargo-fuzz finds the workspace of its own in rust/fuzz.
  if [[ $# -eq 0 ]]; then
    mapfile -t targets < <("${fuzz[@]}" list --fuzz-dir rust/fuzz)
  else
    targets=("$@")
  fi
  # One build for all targets; the runs below find it done.
  "${fuzz[@]}" build --fuzz-dir rust/fuzz
  for target in "${targets[@]}"; do
    echo "fuzzing $target for $seconds s"
    log=$(mktemp)
    # 2 GiB of memory and 10 s an input are far beyond what the limits of the core allow.
    if ! "${fuzz[@]}" run --fuzz-dir rust/fuzz "$target" -- -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -verbosity=0 -print_final_stats=1 > "$log" 2>&1; then
      tail -60 "$log" >&2
      echo "fuzzing $target FAILED" >&2
      exit 1
    fi
    grep -E 'stat::(number_of_executed_units|peak_rss_mb)' "$log" || true
    rm -f "$log"
  done
fi
