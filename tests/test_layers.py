"""The dependency rule: every module knows only those below it. Reads sources, imports nothing of them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import voxfetch as vf

ROOT = Path(__file__).parent.parent
CORE = ROOT / "rust" / "core" / "src"
PACKAGE = Path(vf.__file__).parent

#: Modules of one entry may know each other; an entry may know those before it. Nothing else is known to any.
CORE_LAYERS = [
    {"error", "subset", "dtype"},
    {"metadata"},
    {"codec"},
    {"index"},
    {"plan"},
    {"assemble", "shard_writer"},
]
PACKAGE_LAYERS = [
    {"errors"},
    {"_core", "options", "selection", "store", "ngff", "output"},
    {"node", "engine"},
    {"sources", "reads", "blocks"},
    {"array"},
    {"image"},
    {"open", "creation"},
    {"__init__"},
]
#: What stands above the public names and uses only those (and itself).
ABOVE = {"cli", "server", "view", "zarr", "dask", "xarray", "torch", "napari", "webknossos"}


def rust_sources():
    for path in sorted(CORE.rglob("*.rs")):
        module = path.relative_to(CORE).parts[0].removesuffix(".rs")
        if module != "lib" and path.name != "tests.rs":
            yield module, path


def code_of(path):
    """Rust without comments and without the unit tests, which may know everything."""
    source = path.read_text().partition("#[cfg(test)]")[0]
    return re.sub(r"//[^\n]*", "", source)


def below(layers, module):
    """The modules that `module` may know."""
    known = set()
    for layer in layers:
        known |= layer
        if module in layer:
            return known
    pytest.fail(f"{module} has no layer: say in test_layers.py where it belongs")


@pytest.mark.parametrize(("module", "path"), [*rust_sources()], ids=lambda value: str(getattr(value, "name", value)))
def test_core(module, path):
    code = code_of(path)
    used = set(re.findall(r"\bcrate::([a-z_]+)", code))
    for group in re.findall(r"\bcrate::\{([^;]*)\}", code):
        used |= {item.split("::")[0].strip() for item in group.split(",")}
    assert not (used - below(CORE_LAYERS, module)), f"{path} looks upwards"


@pytest.mark.parametrize("word", ["std::fs", "std::net", "std::thread", "std::env", "std::process", "std::time"])
def test_core_does_no_io(word):
    found = [path.name for _, path in rust_sources() if word in code_of(path)]
    assert found == []


def imports_of(path):
    """Modules of the package that a source imports when it runs: the parts of the name after `voxfetch`."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "voxfetch":
                yield from ((alias.name,) for alias in node.names)
            elif node.module and node.module.startswith("voxfetch."):
                yield tuple(node.module.split(".")[1:])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "voxfetch":
                    yield tuple(alias.name.split(".")[1:])


PYTHON = sorted(path for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_package(path):
    module = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    used = {name[0] if name else "" for name in imports_of(path)}
    if module in ABOVE:
        assert used <= {"", module} | set(vf.__all__), f"{path} uses more than the public names"
        return
    assert "" not in used, f"{path} imports the package from inside"
    assert used <= below(PACKAGE_LAYERS, module), f"{path} looks upwards"


def test_import_is_light():
    script = "import sys, numpy; before = set(sys.modules); import voxfetch; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=50)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    heavy = {"asyncio", "aiohttp", "obstore", "rich", "argparse", "html", "zarr", "dask", "xarray", "torch"}
    assert not (loaded & heavy)
    ours = {name for name in done.stdout.split() if name.startswith("voxfetch")}
    assert not any(name.startswith(("voxfetch.cli", "voxfetch.image", "voxfetch.ngff")) for name in ours)
