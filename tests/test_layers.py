"""The dependency rule: each layer knows only those below it, in Rust and in Python; the core touches no world.

Python imports are read from the syntax tree, also those inside functions; what only type checkers see does not count.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "rust" / "core" / "src"
PACKAGE = ROOT / "python" / "voxfetch"

needs_rust = pytest.mark.skipif(not CORE.is_dir(), reason="no Rust sources next to the tests")
needs_python = pytest.mark.skipif(not PACKAGE.is_dir(), reason="no Python sources next to the tests")

FORBIDDEN_IN_CORE = re.compile(r"\bstd::(fs|net|thread|process|env|time)\b|\b(SystemTime|Instant)::now\b")

# Modules of the package from the bottom up; a module may import what stands above its own line, and its own line.
PYTHON_LAYERS = [
    {"errors", "_core", "wake", "resources", "limit", "hedge", "png"},
    {"options", "selection", "store", "channels", "values", "dtypes", "foreign", "table"},
    {"objects", "encoding"},
    {"store.local", "store.resolve", "store.targets", "store.fsspec_options", "output", "handle", "attempts"},
    {"connections", "scheduler"},
    {"engine", "ngff"},
    {"documents"},
    {"pieces", "node", "stored"},
    {"reads"},
    {"blocks", "indexer", "formats", "object_reads"},
    {"hierarchy"},
    {"array"},
    {"sources", "level", "scales", "together"},
    {"image"},
    {"creation", "open"},
]
# What the package needs; everything else is optional. All but numpy is imported inside functions.
RUN_TIME = {"numpy", "obstore"}
# Modules that are imported inside functions only, and may therefore be slow to load.
LATE = {"attempts", "connections", "scheduler"}
# A method of arrays that is the way into its adapter.
UPWARDS = {("array", "voxfetch.dask")}
# The pipeline of zarr makes its reads itself, batch by batch, without the documents that an array is opened from.
INSIDE = {"zarr.batch", "zarr.counts", "zarr.handles", "zarr.pipeline"}
# Adapters that show others: commands, and a server with its pages; a server makes chunks and pictures of voxels.
BESIDE = {"cli": {"png", "server", "view"}, "server": {"encoding", "png", "view"}, "view": {"server"}}
ADAPTERS = {"cli", "server", "view", "zarr", "dask", "xarray", "torch", "napari", "webknossos"}


# ------------------------------------------------------------------------------------------------------------- Rust


def without_tests(source):
    """The code of a file before its unit tests, without comments and texts."""
    source = source.split("#[cfg(test)]")[0]
    source = re.sub(r"//[^\n]*", "", source)
    return re.sub(r'"(\\.|[^"\\])*"', '""', source)


def rust_imports(source):
    """Top modules of the crate that a file names: `crate::a::b`, `crate::{a, b::c}`."""
    found = set(re.findall(r"\bcrate::(\w+)", source))
    for group in re.findall(r"\bcrate::\{([^;]*)\};", source):
        depth, item = 0, ""
        for letter in group + ",":
            depth += (letter == "{") - (letter == "}")
            if letter == "," and depth == 0:
                found.add(re.match(r"\s*(\w*)", item)[1])
                item = ""
            else:
                item += letter
    return found - {""}


def core_files():
    return sorted(path for path in CORE.rglob("*.rs") if path.name not in ("lib.rs", "tests.rs"))


def rust_layers():
    """Module -> layer, by the table in `lib.rs`."""
    layers = {}
    for number, cell in re.findall(r"^//! \| L(\d) \| ([^|]*) \|$", (CORE / "lib.rs").read_text(), re.MULTILINE):
        layers.update(dict.fromkeys(re.findall(r"`(\w+)`", cell.partition("(")[0]), int(number)))
    return layers


@needs_rust
def test_every_module_of_the_core_has_a_layer():
    declared = set(re.findall(r"^(?:pub )?mod (\w+);", (CORE / "lib.rs").read_text(), re.MULTILINE))
    assert declared == set(rust_layers())


@needs_rust
def test_the_core_looks_downwards_only():
    layers = rust_layers()
    found, wrong = 0, []
    for path in core_files():
        name = path.relative_to(CORE).as_posix()
        own = re.split(r"[/.]", name)[0]
        for other in rust_imports(without_tests(path.read_text())):
            found += 1
            if layers.get(other, 99) > layers[own]:
                wrong.append(f"{name} (L{layers[own]}) knows {other}")
    assert not wrong
    assert found > 50, "this test still reads the sources"


@needs_rust
def test_the_core_touches_no_world():
    wrong = []
    for path in [CORE / "lib.rs", *core_files()]:
        found = FORBIDDEN_IN_CORE.search(without_tests(path.read_text()))
        if found:
            wrong.append(f"{path.relative_to(CORE)}: {found[0]}")
    assert not wrong


def test_the_rule_for_rust_finds_what_it_should():
    source = """
    use crate::{error::{Error, Result}, plan, index::cache};
    use crate::codec;  // crate::ignored
    fn f() { crate::metadata::g(); let s = "crate::texts"; }
    #[cfg(test)]
    mod tests { use crate::assemble; }
    """
    assert rust_imports(without_tests(source)) == {"error", "plan", "index", "codec", "metadata"}
    assert FORBIDDEN_IN_CORE.search("std::fs::read")
    assert not FORBIDDEN_IN_CORE.search("std::fmt::Display")


def dependencies(package):
    """Names of all crates that a crate of the workspace needs to run, itself left out; from the lock file."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--offline"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        pytest.skip(f"cargo metadata: {done.stderr.strip().splitlines()[-1:]}")
    document = json.loads(done.stdout)
    names = {one["id"]: one["name"] for one in document["packages"]}
    nodes = {node["id"]: node["deps"] for node in document["resolve"]["nodes"]}
    start = next(identity for identity, name in names.items() if name == package)
    seen, todo = set(), [start]
    while todo:
        for dependency in nodes[todo.pop()]:
            kinds = {kind["kind"] for kind in dependency["dep_kinds"]}
            if None in kinds and dependency["pkg"] not in seen:
                seen.add(dependency["pkg"])
                todo.append(dependency["pkg"])
    return {names[identity] for identity in seen}


@needs_rust
@pytest.mark.skipif(shutil.which("cargo") is None, reason="no cargo")
@pytest.mark.parametrize("package", ["voxfetch-core", "voxfetch-local"])
def test_crates_below_the_binding_know_no_python_and_no_network(package):
    found = dependencies(package)
    assert found, "the list is not empty by mistake"
    forbidden = re.compile(
        r"pyo3|numpy|tokio|async-std|smol|mio|hyper|reqwest|ureq|curl|rustls|openssl|object_store|h2|http"
    )
    assert not [name for name in found if re.fullmatch(rf"({forbidden.pattern})([-_].*)?", name)]
    if package == "voxfetch-core":
        assert not {"voxfetch-local", "rayon", "crossbeam", "libc", "nix", "rustix", "memmap2"} & found - INDIRECT


# Dependencies of dependencies that bind the C library for types only.
INDIRECT = {"libc"}


# ----------------------------------------------------------------------------------------------------------- Python


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(source):
    """Modules that a source imports at run time: (name, at the top of the module)."""
    found = set()

    def visit(node, top):
        if is_type_checking(node):
            for other in node.orelse:
                visit(other, top)
            return
        if isinstance(node, ast.Import):
            found.update((alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "voxfetch":
                found.update((f"voxfetch.{alias.name}", top) for alias in node.names)
            else:
                found.add((node.module, top))
        inner = top and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for other in ast.iter_child_nodes(node):
            visit(other, inner)

    visit(ast.parse(source), top=True)
    return found


def module_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def python_files():
    return sorted(PACKAGE.rglob("*.py"))


def layer_of(module):
    """Place in PYTHON_LAYERS of a module or of the package it is in; None for the package itself and the adapters."""
    while module:
        for number, names in enumerate(PYTHON_LAYERS):
            if module in names:
                return number
        module = module.rpartition(".")[0]
    return None


@needs_python
def test_every_python_module_has_a_layer():
    known = [module_of(path) for path in python_files()]
    unknown = [name for name in known if name and layer_of(name) is None and name.split(".")[0] not in ADAPTERS]
    assert not unknown
    assert set().union(*PYTHON_LAYERS, INSIDE) <= {*known, "_core"}, "a layer of a module that is gone"


@needs_python
def test_python_looks_downwards_only():
    wrong = []
    for path in python_files():
        own = module_of(path)
        number = layer_of(own)
        if number is None:
            continue
        for name, _ in imports(path.read_text()):
            if name.split(".")[0] != "voxfetch":
                continue
            other = name.removeprefix("voxfetch").removeprefix(".")
            if other.split(".")[0] == own.split(".")[0]:
                continue
            upwards = layer_of(other)
            if (upwards is None or upwards >= number) and (own, name) not in UPWARDS:
                wrong.append(f"{own} imports {name}")
    assert not wrong


@needs_python
def test_adapters_use_public_names_only():
    wrong = []
    for path in python_files():
        own = module_of(path).split(".")[0]
        if own not in ADAPTERS or module_of(path) in INSIDE:
            continue
        for name, _ in imports(path.read_text()):
            package, _, rest = name.partition(".")
            if package == "voxfetch" and rest.split(".")[0] not in {"", own, *BESIDE.get(own, ()), *public_names()}:
                wrong.append(f"{module_of(path)} imports {name}")
    assert not wrong


def public_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    raise AssertionError("no __all__")


@needs_python
def test_numpy_is_the_one_thing_imported_at_once():
    wrong = []
    for path in python_files():
        if module_of(path).split(".")[0] in ADAPTERS:
            continue
        for name, top in imports(path.read_text()):
            package = name.split(".")[0]
            if package != "voxfetch" and package not in sys.stdlib_module_names and package not in RUN_TIME:
                wrong.append(f"{module_of(path)} imports {name}{' at the top' if top else ''}")
            late = package in RUN_TIME - {"numpy"} or name.removeprefix("voxfetch.") in LATE
            if top and late and module_of(path) not in LATE:
                wrong.append(f"{module_of(path)} imports {name} at the top: late ones come inside functions")
            slow = package in ("asyncio", "ssl", "http", "multiprocessing", "concurrent")
            if top and slow and module_of(path) not in LATE:
                wrong.append(f"{module_of(path)} imports {name} at the top: slow")
    assert not wrong


@needs_python
def test_stores_know_no_array():
    for path in (PACKAGE / "store").glob("*.py"):
        for name, _ in imports(path.read_text()):
            assert name.split(".")[0] != "numpy", path.name
            # Of the core they need a decoder, of what is encoded on its way.
            known = ("voxfetch.store", "voxfetch.errors", "voxfetch.options", "voxfetch._core")
            assert not name.startswith("voxfetch.") or name.startswith(known), path.name


def test_the_rule_for_python_finds_what_it_should():
    source = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import torch
else:
    import json
import numpy as np
def f():
    from voxfetch import array
    import voxfetch.open
"""
    assert imports(source) == {
        ("typing", True),
        ("json", True),
        ("numpy", True),
        ("voxfetch.array", False),
        ("voxfetch.open", False),
    }
