"""`read_all`: selections of several arrays, read as one plan for each engine that they were opened with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from voxfetch.engine import Engine, abandon

if TYPE_CHECKING:
    from collections.abc import Iterable

    from voxfetch import _core
    from voxfetch.array import Array
    from voxfetch.reads import Job

__all__ = ["read_all", "read_all_async"]


def read_all(pairs: Iterable[tuple[Array, Any]]) -> list[Any]:
    """Reads several selections, such as of an image and its labels, as one plan; returns the results in order.

    A selection is one of `Array.read`, or `Boxes`: many boxes of one shape, each array's into an `out` of its own if
    given. Errors as in `Array.read`.
    """
    jobs = [(array, array.job(selection)) for array, selection in pairs]
    for engine, reads in _by_engine(jobs).items():
        engine.read(reads)
    return [job.result for _, job in jobs]


async def read_all_async(pairs: Iterable[tuple[Array, Any]]) -> list[Any]:
    """Async twin of `read_all`."""
    jobs = [(array, array.job(selection)) for array, selection in pairs]
    futures = [engine.start(reads) for engine, reads in _by_engine(jobs).items()]
    try:
        for future in futures:
            await future
    finally:
        abandon(futures)
    return [job.result for _, job in jobs]


def _by_engine(jobs: list[tuple[Array, Job]]) -> dict[Engine, list[_core.Read]]:
    reads: dict[Engine, list[_core.Read]] = {}
    for array, job in jobs:
        if job.reads:
            reads.setdefault(array.engine, []).extend(job.reads)
    return reads
