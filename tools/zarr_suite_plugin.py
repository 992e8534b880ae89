"""A pytest plugin for the suites of other projects: which tests read through a codec pipeline of zarr, and what failed.

In: the environment variables `ZARR_CODEC_PIPELINE__PATH` (the pipeline; zarr's own when it is not set) and
`ZARR_SUITE_OUT` (a file). Out: one line of JSON a test in that file, with the keys `test`, `outcome`, `message` (last
line of the failure), `reads` (calls of the pipeline's `read`), `accelerated` and `fallbacks` (of those, as
`voxfetch.zarr.report()` counts them; reasons with their counts).

Use: PYTHONPATH=tools python -m pytest -p zarr_suite_plugin ...
"""

from __future__ import annotations

import functools
import importlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

_PATH = os.environ.get("ZARR_CODEC_PIPELINE__PATH")
_OUT = Path(os.environ["ZARR_SUITE_OUT"])
_ORDER = ("passed", "skipped", "xfailed", "xpassed", "failed", "error")


class _Seen:
    """What is known of the test that runs."""

    def __init__(self) -> None:
        self.reads = 0
        self.outcome = "passed"
        self.message = ""

    def add(self, outcome: str, message: str) -> None:
        if _ORDER.index(outcome) > _ORDER.index(self.outcome):
            self.outcome, self.message = outcome, message


_seen = _Seen()


def pytest_configure() -> None:
    """Wraps `read` of the pipeline."""
    path = _PATH or "zarr.core.codec_pipeline.BatchedCodecPipeline"
    module, _, name = path.rpartition(".")
    pipeline = getattr(importlib.import_module(module), name)
    read = pipeline.read

    @functools.wraps(read)
    async def counted(*arguments: Any, **keywords: Any) -> Any:
        _seen.reads += 1
        return await read(*arguments, **keywords)

    pipeline.read = counted
    _OUT.write_text("")


def _counts() -> tuple[int, Counter[str]]:
    """Reads of the whole process that were accelerated, and the reasons of those that were not."""
    if not (_PATH or "").startswith("voxfetch."):
        return 0, Counter()
    report = importlib.import_module("voxfetch.zarr").report()
    return report.accelerated, Counter(dict(report.reasons))


def _write(test: str, accelerated: int = 0, reasons: Counter[str] | None = None) -> None:
    line = {
        "test": test,
        "outcome": _seen.outcome,
        "message": _seen.message,
        "reads": _seen.reads,
        "accelerated": accelerated,
        "fallbacks": dict(reasons or {}),
    }
    with _OUT.open("a") as out:
        out.write(json.dumps(line) + "\n")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    """One line a test."""
    global _seen  # noqa: PLW0603 - the test that runs is one a process
    _seen = _Seen()
    before, known = _counts()
    try:
        return (yield)
    finally:
        after, reasons = _counts()
        # Less than before: the test has set the counter back.
        _write(item.nodeid, after - before if after >= before else after, reasons - known)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Outcome of one of the phases of a test."""
    outcome: str = report.outcome
    if hasattr(report, "wasxfail"):
        outcome = {"skipped": "xfailed", "passed": "xpassed"}.get(outcome, outcome)
    elif outcome == "failed" and report.when != "call":
        outcome = "error"
    _seen.add(outcome, _message(report.longrepr) if outcome in ("failed", "error") else "")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A module that cannot be imported is a failure too."""
    global _seen  # noqa: PLW0603
    if report.failed:
        _seen = _Seen()
        _seen.add("error", _message(report.longrepr))
        _write(report.nodeid)


def _message(longrepr: Any) -> str:
    crash = getattr(longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(longrepr)
    lines = [line for line in text.splitlines() if line.strip()]
    return " / ".join(lines[:3])[:400]
