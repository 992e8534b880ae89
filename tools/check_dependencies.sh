#!/usr/bin/env bash
# What our crates may depend on: the core on nothing that does I/O or knows Python, and nothing that deny.toml refuses.
set -euo pipefail
cd "$(dirname "$0")/.."

# usage: refuse CRATE PATTERN REASON   fails if a normal dependency of CRATE, however deep, matches
refuse() {
  local found
  found=$(cargo tree --locked --quiet -p "$1" -e normal --prefix none --format '{p}' | cut -d ' ' -f 1 | sort -u | grep -xE "$2" || true)
  if [[ -n $found ]]; then
    echo "$1 must not depend on $3:" "$found" >&2
    exit 1
  fi
}

async='tokio|async-std|smol|mio|futures(-.*)?|rayon(-core)?'
network='hyper|h2|reqwest|ureq|curl|object_store|opendal|rustls|native-tls|openssl'
python='pyo3(-.*)?|numpy|ndarray'
refuse voxfetch-core "$async|$network|$python|memmap2|nix|rustix" "I/O, threads or Python"
refuse voxfetch-local "$async|$network|$python" "network, a foreign pool or Python"
refuse voxfetch-net "rayon(-core)?|$python|reqwest|curl|native-tls|openssl(-sys)?|aws-lc-.*|voxfetch-(core|local|py)" "Python, libraries of the system or our other crates"
refuse voxfetch-py "rayon(-core)?|numpy|ndarray" "a foreign pool or the C API of numpy"
echo "cargo tree: core and local are free of Python, network and foreign pools, net of Python and of the others"

if command -v cargo-deny > /dev/null; then
  cargo deny --locked --log-level warn check bans licenses sources
else
  echo "SKIPPED: cargo-deny is not installed (cargo install --locked cargo-deny)" >&2
fi
