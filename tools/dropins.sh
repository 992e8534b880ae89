#!/usr/bin/env bash
# Tests what stands in for zarr-python, in dask and in xarray with the newest of these, under every other CPython >= 3.11
# that is on PATH or in pyenv. Environments are kept in build/pythons, and brought up to date.
# usage: tools/dropins.sh WHEEL   (PYTHON: the interpreter whose version is left out)
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONPATH PYTHONHOME
export PIP_DISABLE_PIP_VERSION_CHECK=1

wheel=$1
shopt -s nullglob
tests=(tests/test_zarr_pipeline*.py tests/test_zarr_[s]tore.py tests/test_[d]ask.py tests/test_[x]array.py)
if ((${#tests[@]} == 0)); then
  echo "none of the tests is here" >&2
  exit 1
fi

# "3.12 PATH" of an interpreter that runs, and nothing for any other: shims of pyenv may lead nowhere.
told='
import platform, sys
if platform.python_implementation() == "CPython" and sys.version_info >= (3, 11):
    print("%d.%d" % sys.version_info[:2], sys.executable)
'
read -r own _ <<< "$("${PYTHON:-python3}" -c "$told")"
declare -A found=()
for python in python3.{11..20} "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python3; do
  read -r version path <<< "$("$python" -c "$told" 2> /dev/null || true)"
  [[ -z $version || $version == "$own" ]] || found[$version]=$path
done
if ((${#found[@]} == 0)); then
  echo "No CPython >= 3.11 but $own is here: nothing was tested."
  exit 0
fi

failed=()
for version in $(printf '%s\n' "${!found[@]}" | sort -V); do
  venv=build/pythons/$version
  [[ -x $venv/bin/python ]] || "${found[$version]}" -m venv "$venv"
  "$venv/bin/python" -m pip install -q -U --only-binary :all: "$wheel" \
    zarr 'dask[array]' distributed xarray pandas pytest pytest-timeout hypothesis
  "$venv/bin/python" -m pip install -q --force-reinstall --no-deps "$wheel"
  echo "--- CPython $version: $("$venv/bin/python" -m pip freeze | grep -E '^(zarr|dask|xarray|numpy)==' | paste -sd ' ')"
  "$venv/bin/python" -m pytest -q -p no:cacheprovider "${tests[@]}" || failed+=("$version")
done
if ((${#failed[@]})); then
  echo "failed with CPython ${failed[*]}" >&2
  exit 1
fi
