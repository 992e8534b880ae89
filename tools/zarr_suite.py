"""Runs the test suites of zarr-python and of packages that use it with a codec pipeline, and compares with zarr's own.

    python tools/zarr_suite.py zarr-3.1.6 zarr-3.4.2       # with voxfetch.ZarrPipeline and with zarr's own pipeline
    python tools/zarr_suite.py zarr-3.1.6 --quick          # some files, for CI: two minutes
    python tools/zarr_suite.py zarr-3.1.6 -k sharding
    python tools/zarr_suite.py zarr-3.1.6 --pipeline zarrs
    python tools/zarr_suite.py zarr-3.1.6 --failed         # after a change: the new failures of the last whole run only
    python tools/zarr_suite.py --write                     # tests/zarr_suites.md, from the last whole runs

A suite is the sdist of a package, unpacked under build/suites with an environment of its own, in which voxfetch is
taken from python/ of this tree. A failure is new when the same test does not fail with zarr's own pipeline by the
same exception; with --quick, that runs only what has failed. Those with a reason in tests/zarr_suites.toml are known.
The exit status is 1 with any other, when a run does not come to its end, and when the pipeline accelerated nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "suites"
TABLE = ROOT / "tests" / "zarr_suites.md"
REASONS = ROOT / "tests" / "zarr_suites.toml"
TIMEOUT_S = 5400
QUICK_TIMEOUT_S = 900
FAILED = ("failed", "error")
#: Exit status of pytest.
INTERRUPTED = 2


@dataclass(frozen=True)
class Suite:
    """A package at a version; `groups` and `extras` of its pyproject.toml, and `also`, are what its tests need."""

    package: str
    version: str
    python: tuple[int, int]
    tests: tuple[str, ...]
    quick: tuple[str, ...]
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As on the command line."""
        return f"{self.package}-{self.version}"

    @property
    def folder(self) -> Path:
        """Where it is unpacked."""
        return BUILD / self.name

    @property
    def interpreter(self) -> Path:
        """Of its environment."""
        return self.folder / "venv" / "bin" / "python"


def _zarr(version: str, python: tuple[int, int], *quick: str) -> Suite:
    # Of the properties those that read voxels.
    read = ("test_array_roundtrip", "test_basic_indexing", "test_oindex", "test_vindex")
    properties = (f"test_properties.py::{name}" for name in read)
    files = ("test_indexing.py", "test_codecs", "test_v2.py", *properties, *quick)
    return Suite(
        "zarr",
        version,
        python,
        tests=("tests",),
        # They read gigabytes and assert nothing.
        options=("--ignore=tests/benchmarks",),
        quick=tuple(f"tests/{name}" for name in files),
        extras=("remote", "optional", "cli"),
        groups=("remote-tests",),
    )


_ASYNC = ("pytest", "pytest-asyncio")
SUITES = {
    suite.name: suite
    for suite in (
        _zarr("3.1.6", (3, 11), "test_array.py"),
        _zarr("3.4.2", (3, 12), "test_codec_pipeline_suite.py"),
        Suite(
            "xarray",
            "2026.9.0",
            (3, 12),
            tests=("xarray/tests/test_backends.py",),
            quick=("xarray/tests/test_backends.py",),
            also=(
                "zarr==3.4.2",
                "dask[complete]",
                "netCDF4",
                "h5netcdf",
                "scipy",
                "cftime",
                *_ASYNC,
                "fsspec",
                "aiohttp",
            ),
            options=("-o", "addopts=", "-k", "zarr"),
        ),
        Suite(
            "ome-zarr",
            "0.21.0",
            (3, 12),
            tests=("tests",),
            quick=("tests",),
            groups=("tests",),
            also=("zarr==3.4.2",),
        ),
        Suite(
            "anndata",
            "0.13.4",
            (3, 12),
            tests=("tests",),
            quick=("tests/test_readwrite.py", "tests/test_io_elementwise.py"),
            groups=("test-min",),
            also=("zarr==3.4.2", *_ASYNC),
            # In one process, and always in the same order.
            options=(
                "-o",
                "addopts=--import-mode=importlib -ptesting.anndata._pytest",
                "-p",
                "no:randomly",
                "-k",
                "zarr",
                # With pandas 3.1 they fail in what they prepare.
                "--ignore=tests/test_concatenate_disk.py",
            ),
        ),
    )
}
# Pipeline -> its path for zarr, and what has to be installed.
PIPELINES: dict[str, tuple[str | None, str | None]] = {
    "zarr": (None, None),
    "voxfetch": ("voxfetch.ZarrPipeline", None),
    "zarrs": ("zarrs.ZarrsCodecPipeline", "zarrs==0.2.3"),
}


# --------------------------------------------------------------------------------------------------------- preparing


def interpreter(least: tuple[int, int]) -> str:
    """An interpreter of CPython of at least this version: this one, one in PATH or of pyenv. Raises `SystemExit`."""
    names = [f"python3.{minor}" for minor in range(11, 15)]
    found: list[str] = [sys.executable, *filter(None, map(shutil.which, names))]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found += sorted(str(path) for path in pyenv.glob("3.*/bin/python"))
    for path in found:
        command = [path, "-c", "import sys, venv, ensurepip; print(*sys.version_info[:2])"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        if done.returncode == 0 and tuple(map(int, done.stdout.split())) >= least:
            return path
    raise SystemExit(f"no CPython >= {least[0]}.{least[1]} here: put one into PATH")


def requirements(suite: Suite) -> list[str]:
    """What the tests need, by the package's own pyproject.toml."""
    project: Any = tomllib.loads((suite.folder / "source" / "pyproject.toml").read_text())
    groups = project.get("dependency-groups", {})

    def of(name: str) -> list[str]:
        found: list[str] = []
        for one in groups[name]:
            found += [one] if isinstance(one, str) else of(one["include-group"])
        return found

    extras = f"[{','.join(suite.extras)}]" if suite.extras else ""
    wanted = [f"{suite.package}{extras}=={suite.version}", "pytest-timeout", "hypothesis", "obstore", *suite.also]
    for name in suite.groups:
        wanted += of(name)
    return wanted


def prepare(suite: Suite) -> None:
    """Downloads, unpacks and installs, once."""
    done = suite.folder / "prepared"
    if done.exists():
        return
    shutil.rmtree(suite.folder, ignore_errors=True)
    suite.folder.mkdir(parents=True)
    python = interpreter(suite.python)
    pip = ["-m", "pip", "-q", "--disable-pip-version-check"]
    sdist = f"{suite.package}=={suite.version}"
    where = ["--no-deps", "--no-binary", suite.package, "-d", str(suite.folder)]
    subprocess.run([python, *pip, "download", *where, sdist], check=True, timeout=600)
    (archive,) = suite.folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(suite.folder, filter="data")
    next(path for path in suite.folder.iterdir() if path.is_dir()).rename(suite.folder / "source")
    subprocess.run([python, "-m", "venv", str(suite.folder / "venv")], check=True, timeout=120)
    subprocess.run([suite.interpreter, *pip, "install", *requirements(suite)], check=True, timeout=1800)
    done.write_text("")


def entry_points() -> Path:
    """A folder for PYTHONPATH with the entry points of pyproject.toml, which make voxfetch known to zarr."""
    project: Any = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folder = BUILD / "voxfetch"
    info = folder / "voxfetch-0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: voxfetch\nVersion: 0\n")
    lines: list[str] = []
    for group, names in project["project"].get("entry-points", {}).items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in names.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


# ------------------------------------------------------------------------------------------------------------ running


def run(suite: Suite, pipeline: str, *, which: str, tests: tuple[str, ...], keyword: str | None) -> Path:
    """Runs the tests and returns the file with a line of JSON a test. `which` names the selection of tests."""
    path, package = PIPELINES[pipeline]
    if package is not None:
        install = ["-m", "pip", "-q", "--disable-pip-version-check", "install", "--no-deps", package]
        subprocess.run([suite.interpreter, *install], check=True, timeout=600)
    out = suite.folder / f"{pipeline}-{which}.jsonl"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ZARR_", "PYTEST_"))}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT / "python", ROOT / "tools", entry_points())))
    environment["ZARR_SUITE_OUT"] = str(out)
    environment["PATH"] = os.pathsep.join([str(suite.interpreter.parent), os.environ["PATH"]])
    if path is not None:
        environment["ZARR_CODEC_PIPELINE__PATH"] = path
    # One seed, so that both pipelines see the same examples.
    options = ["-q", "-p", "zarr_suite_plugin", "-p", "no:cacheprovider", "--hypothesis-seed=0", "--timeout=300"]
    command = [str(suite.interpreter), "-m", "pytest", *options, *suite.options, *tests]
    if keyword is not None:
        command += ["-k", keyword]
    log = out.with_suffix(".log")
    with log.open("w") as text:
        done = subprocess.run(
            command,
            cwd=suite.folder / "source",
            env=environment,
            stdout=text,
            stderr=subprocess.STDOUT,
            timeout=QUICK_TIMEOUT_S if which == "quick" else TIMEOUT_S,
            check=False,
        )
    # A module that cannot be imported ends the run as an interrupt does, but is among the results.
    broken = done.returncode == INTERRUPTED and any("::" not in test for test in results(out))
    if done.returncode not in (0, 1) and not broken:
        raise SystemExit(f"{suite.name} with {pipeline}: pytest ended with {done.returncode}, see {log}")
    return out


def results(path: Path) -> dict[str, dict[str, Any]]:
    """Test -> its line."""
    lines = map(json.loads, path.read_text().splitlines())
    return {line["test"]: line for line in lines}


def failure(line: dict[str, Any] | None) -> str | None:
    """Name of the exception that a test failed by; None when it did not fail."""
    if line is None or line["outcome"] not in FAILED:
        return None
    return line["message"].partition(":")[0].partition(" / ")[0]


# ---------------------------------------------------------------------------------------------------------- comparing


@dataclass(frozen=True)
class Comparison:
    """A run with a pipeline against one with zarr's own; both by test."""

    suite: str
    pipeline: str
    ours: dict[str, dict[str, Any]]
    baseline: dict[str, dict[str, Any]]

    @property
    def ran(self) -> int:
        """Number of tests that were not skipped."""
        return sum(line["outcome"] != "skipped" for line in self.ours.values())

    @property
    def reached(self) -> set[str]:
        """Tests that read through the pipeline; of voxfetch, with at least one accelerated read."""
        field = "accelerated" if self.pipeline == "voxfetch" else "reads"
        return {test for test, line in self.ours.items() if line[field]}

    @property
    def failed(self) -> list[str]:
        """Tests that failed."""
        return [test for test, line in self.ours.items() if line["outcome"] in FAILED]

    @property
    def new(self) -> list[str]:
        """Failures that zarr's own pipeline does not have in the same way."""
        return [test for test in self.failed if failure(self.ours[test]) != failure(self.baseline.get(test))]

    def reason(self, test: str) -> str | None:
        """Why a test is known to fail."""
        for one in tomllib.loads(REASONS.read_text()).get("known", []):
            here = self.pipeline in one.get("pipelines", ["voxfetch"]) and self.suite in one.get("suites", [self.suite])
            if here and any(fnmatchcase(test, pattern) for pattern in one["tests"]):
                return one["reason"]
        return None

    def unknown(self) -> list[str]:
        """New failures without a reason."""
        return [test for test in self.new if self.reason(test) is None]

    def row(self) -> str:
        """Line of the table."""
        reached = self.reached
        cells = (
            self.suite,
            self.pipeline,
            f"{self.ran:,}",
            f"{len(reached):,}",
            f"{len(reached & set(self.failed)):,}",
            f"{len(self.failed):,}",
            f"{sum(failure(line) is not None for line in self.baseline.values()):,}",
            f"{len(self.new):,}",
        )
        return f"| {' | '.join(cells)} |"


HEADER = """\
| suite | pipeline | tests run | reached | failed of those | failed | with zarr's own | new failures |
|---|---|---:|---:|---:|---:|---:|---:|"""


def document(compared: list[Comparison]) -> str:
    """The Markdown of `tests/zarr_suites.md`."""
    lines = [
        "# Suites of other projects, run with a codec pipeline",
        "",
        "Written by `python tools/zarr_suite.py --write`. *Reached*: tests with at least one read that the pipeline",
        "accelerated (zarrs: that came to it). *New*: not failed with zarr's own pipeline, or by another exception.",
        "",
        HEADER,
        *(one.row() for one in compared),
    ]
    for one in compared:
        left = len(one.baseline) - len(one.ours)
        if left > 0:
            lines += ["", f"{one.suite} with {one.pipeline}: the run was stopped, {left:,} tests have no result."]
        repeated = sum(line.get("again", False) for line in one.ours.values())
        if repeated:
            lines += ["", f"{one.suite} with {one.pipeline}: {repeated} tests ran once more, after a change."]
        reasons: Counter[str] = Counter()
        for line in one.ours.values():
            reasons.update(line["fallbacks"])
        total = sum(line["accelerated"] for line in one.ours.values())
        if reasons or total:
            lines += ["", f"## {one.suite}: reads", "", f"{total:,} reads accelerated. Not accelerated:", ""]
            lines += [f"- {count:,}: {reason}" for reason, count in reasons.most_common()]
        if one.failed and one.pipeline == "voxfetch":
            lines += ["", f"## {one.suite}: failures with {one.pipeline}", "", "| test | reason |", "|---|---|"]
            lines += [f"| {test} | {_why(one, test)} |" for test in one.failed]
        elif one.new:
            lines += ["", f"## {one.suite}: new failures with {one.pipeline}", ""]
            kinds = Counter(failure(one.ours[test]) for test in one.new)
            lines += [f"- {count}: {kind}" for kind, count in kinds.most_common()]
    return "\n".join(lines) + "\n"


def _why(one: Comparison, test: str) -> str:
    if test not in one.new:
        return f"fails with zarr's own pipeline too: {failure(one.ours[test])}"
    return one.reason(test) or f"unknown: {one.ours[test]['message']}".replace("|", "\\|")


def compare(suite: str, pipeline: str, which: str) -> Comparison | None:
    """The two runs side by side; None while there are none."""
    ours, baseline = (SUITES[suite].folder / f"{name}-{which}.jsonl" for name in (pipeline, "zarr"))
    if not (ours.exists() and baseline.exists()):
        return None
    return Comparison(suite, pipeline, results(ours), results(baseline))


def quick(suite: Suite, pipeline: str) -> None:
    """Runs some files, and what failed there with zarr's own pipeline."""
    ours = results(run(suite, pipeline, which="quick", tests=suite.quick, keyword=None))
    failed = Comparison(suite.name, pipeline, ours, {}).failed
    (suite.folder / "zarr-quick.jsonl").write_text("")
    if failed:
        run(suite, "zarr", which="quick", tests=tuple(failed), keyword=None)


def again(suite: Suite, pipeline: str) -> None:
    """Runs the new failures of the last whole run once more; their lines are replaced, and say so."""
    last = compare(suite.name, pipeline, "whole")
    if last is None:
        raise SystemExit(f"{suite.name}: no whole run")
    found = results(run(suite, pipeline, which="again", tests=tuple(last.new), keyword=None)) if last.new else {}
    lines = last.ours | {test: {**line, "again": True} for test, line in found.items()}
    path = suite.folder / f"{pipeline}-whole.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines.values()))


def compared(suite: Suite, which: str, arguments: argparse.Namespace) -> int:
    """Runs a suite, prints its line and its new failures; returns its exit status."""
    prepare(suite)
    if arguments.quick:
        quick(suite, arguments.pipeline)
    else:
        if arguments.again or which == "some" or not (suite.folder / "zarr-whole.jsonl").exists():
            run(suite, "zarr", which=which, tests=suite.tests, keyword=arguments.keyword)
        if arguments.failed:
            again(suite, arguments.pipeline)
        else:
            run(suite, arguments.pipeline, which=which, tests=suite.tests, keyword=arguments.keyword)
    one = compare(suite.name, arguments.pipeline, which)
    if one is None:
        raise SystemExit(f"{suite.name}: no results")
    print(HEADER, one.row(), sep="\n")
    for test in one.new:
        print(f"{test}: {one.reason(test) or 'NEW'}: {one.ours[test]['message']}")
    if which != "some" and not one.reached:
        raise SystemExit(f"{suite.name}: no test read through {arguments.pipeline}")
    return int(bool(one.unknown()))


def main() -> int:
    """Runs what the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("suites", nargs="*", metavar="suite", help=f"of {', '.join(SUITES)}")
    parser.add_argument("--pipeline", choices=[name for name in PIPELINES if name != "zarr"], default="voxfetch")
    parser.add_argument("--quick", action="store_true", help="some files only")
    parser.add_argument("-k", dest="keyword", help="tests, as for pytest")
    parser.add_argument("--failed", action="store_true", help="only the new failures of the last whole run")
    parser.add_argument("--again", action="store_true", help="run zarr's own pipeline again, too")
    parser.add_argument("--write", action="store_true", help="write tests/zarr_suites.md from the last whole runs")
    arguments = parser.parse_args()
    unknown = set(arguments.suites) - set(SUITES)
    if unknown:
        parser.error(f"no suite {', '.join(sorted(unknown))}")
    if arguments.quick and (arguments.failed or arguments.keyword is not None):
        parser.error("--quick goes with neither -k nor --failed")
    which = "quick" if arguments.quick else "whole" if arguments.keyword is None else "some"
    status = 0
    for name in arguments.suites:
        status |= compared(SUITES[name], which, arguments)
    if arguments.write:
        found = (compare(suite, pipeline, "whole") for suite in SUITES for pipeline in PIPELINES if pipeline != "zarr")
        TABLE.write_text(document([one for one in found if one is not None]))
    return status


if __name__ == "__main__":
    raise SystemExit(main())
