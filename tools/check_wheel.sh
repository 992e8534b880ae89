#!/usr/bin/env bash
# Installs a wheel into a new environment, with no compiler on PATH, and reads the test volume with it.
# usage: tools/check_wheel.sh WHEEL   (PYTHON: the interpreter to make the environment with)
set -euo pipefail
cd "$(dirname "$0")/.."

wheel=$1
case $wheel in
  *-cp311-abi3-*.whl) ;;
  *) echo "$wheel is not an abi3 wheel for Python >= 3.11" >&2; exit 1 ;;
esac

# What must not be in it: test data, the benchmark, anything beside the package and its metadata.
names=$("${PYTHON:-python3}" -c 'import sys, zipfile; print(*zipfile.ZipFile(sys.argv[1]).namelist(), sep="\n")' "$wheel")
foreign=$(grep -vE '^voxfetch(/[^.]+(/[^.]+)*\.(py|pyi|typed)|/napari\.yaml|/view/page/[a-z]+\.(html|css|js)|/_core\.abi3\.so|-[^/]*\.dist-info/.*)$' <<< "$names" || true)
for page in index.html page.css page.js planes.js; do
  grep -q "^voxfetch/view/page/$page\$" <<< "$names" || { echo "the wheel lacks the page's $page" >&2; exit 1; }
done
if [[ -n $foreign ]]; then
  echo "files in the wheel that do not belong there:" "$foreign" >&2
  exit 1
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# The interpreter itself, not a shim that needs more of PATH.
python=$("${PYTHON:-python3}" -c 'import sys; print(sys.executable)')
"$python" -m venv "$scratch/venv"
# Only the environment: no cc, no cargo, no cmake, no shell tools.
clean=(env -i "PATH=$scratch/venv/bin" "HOME=$HOME" "TMPDIR=${TMPDIR:-/tmp}")
for name in ${!PIP_@} ${!SSL_@}; do clean+=("$name=${!name}"); done
"${clean[@]}" python -m pip install -q --only-binary :all: "$wheel"
source=$PWD/tests/data/fib25/fib25.ome.zarr
cd "$scratch"
"${clean[@]}" python -c '
import shutil, sys
import voxfetch as vf
assert not any(map(shutil.which, ("cc", "gcc", "cargo", "cmake"))), "a compiler is on PATH"
image = vf.open_image(sys.argv[1])
mean = image.level(0)[10:20, 0:64, 0:64].mean()
assert mean == 125.904736328125, mean
assert vf.__file__.startswith(sys.prefix), vf.__file__
' "$source"
"${clean[@]}" voxfetch info "$source" > /dev/null
echo "$(basename "$wheel"): $(stat -c %s "$OLDPWD/$wheel") bytes, installs and reads without a compiler"
