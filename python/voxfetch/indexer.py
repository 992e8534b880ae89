"""What `a.oindex` and `a.vindex` give: an index expression in, a new array out, read by the engine of `a`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from voxfetch.engine import Engine
    from voxfetch.reads import Job

__all__ = ["Indexer"]


class Indexer:
    """`a.oindex` or `a.vindex`: reads by `[...]`, and by `await .read_async(...)` inside a loop."""

    __slots__ = ("_engine", "_job")

    def __init__(self, engine: Engine, job: Callable[[object], Job]) -> None:
        self._engine = engine
        self._job = job

    def __getitem__(self, selection: Any) -> Any:
        """Reads the selection into a new array. Raises `SelectionError`, and what `Array.read` raises."""
        job = self._job(selection)
        if job.reads:
            self._engine.read(job.reads)
        return job.result

    async def read_async(self, selection: Any) -> Any:
        """Async twin of `[...]`."""
        job = self._job(selection)
        if job.reads:
            await self._engine.run(job.reads)
        return job.result
