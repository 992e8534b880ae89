"""Iteration over a whole array in blocks, reading ahead: a fixed number of reads is in flight while one is used."""

from __future__ import annotations

import itertools
import math
import os
from collections import deque
from typing import TYPE_CHECKING, Any, Literal

from voxfetch.channels import Channel
from voxfetch.engine import abandon
from voxfetch.selection import Box, parse_shape

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Iterator, Sequence

    from numpy.typing import NDArray

    from voxfetch import _core
    from voxfetch.array import Array
    from voxfetch.engine import Engine
    from voxfetch.reads import Job
    from voxfetch.scheduler import Call

    Block = tuple[Box, NDArray[Any]]

__all__ = ["Blocks"]


class Blocks:
    """The blocks of an array, in order; can be iterated more than once, by `for` and by `async for`."""

    def __init__(
        self,
        array: Array,
        shape: Sequence[int] | int,
        *,
        halo: Sequence[int] | int = 0,
        order: Literal["shard", "C"] = "shard",
        prefetch: int | None = None,
    ) -> None:
        if order not in ("shard", "C"):
            raise ValueError(f'order must be "shard" or "C", not {order!r}')
        if prefetch is not None and prefetch < 0:
            raise ValueError(f"prefetch must be at least 0, not {prefetch}")
        self._array = array
        self._shape = parse_shape(shape, array.ndim, minimum=1)
        self._halo = parse_shape(halo, array.ndim, what="halo")
        self._order = order
        self._prefetch = prefetch

    def __repr__(self) -> str:
        return f"<voxfetch blocks {self._shape} of {self._array!r}, {len(self)} in all>"

    def __len__(self) -> int:
        """Number of blocks."""
        return math.prod(-(-extent // block) for extent, block in zip(self._array.shape, self._shape, strict=True))

    def boxes(self) -> Iterator[Box]:
        """The boxes of the blocks, without reading."""
        array = self._array
        stored = (array.shards or array.chunks) if self._order == "shard" else array.shape
        # Per axis the starts, in groups by the stored object that they lie in.
        groups = [
            _grouped(range(0, extent, block), max(of_object, 1))
            for extent, block, of_object in zip(array.shape, self._shape, stored, strict=True)
        ]
        for starts_of_object in itertools.product(*groups):
            for start in itertools.product(*starts_of_object):
                clipped = (min(b, n - s) for s, b, n in zip(start, self._shape, array.shape, strict=True))
                yield Box(start, tuple(clipped))

    def __iter__(self) -> Iterator[Block]:
        prefetch = self._ahead()
        if not prefetch:
            for box in self.boxes():
                job = self._job(box)
                self._array.engine.read(job.reads)
                yield box, job.result
            return
        engine = self._array.engine
        ahead = _RemoteAhead(engine) if self._array.is_remote else _Ahead(engine.core)
        pending: deque[tuple[Box, Job, int]] = deque()
        boxes = self.boxes()
        try:
            while True:
                for box in itertools.islice(boxes, prefetch + 1 - len(pending)):
                    job = self._job(box)
                    pending.append((box, job, ahead.submit(job.reads)))
                if not pending:
                    return
                box, job, number = pending.popleft()
                ahead.wait(number)
                yield box, job.result
        finally:
            ahead.close()

    async def __aiter__(self) -> AsyncIterator[Block]:
        prefetch = self._ahead()
        pending: deque[tuple[Box, Job, asyncio.Future[Any]]] = deque()
        boxes = self.boxes()
        try:
            while True:
                for box in itertools.islice(boxes, prefetch + 1 - len(pending)):
                    job = self._job(box)
                    pending.append((box, job, self._array.engine.start(job.reads)))
                if not pending:
                    return
                await pending[0][2]
                box, job, _ = pending.popleft()
                yield box, job.result
        finally:
            abandon(future for _, _, future in pending)

    def _job(self, box: Box) -> Job:
        start = tuple(start - halo for start, halo in zip(box.start, self._halo, strict=True))
        shape = tuple(extent + 2 * halo for extent, halo in zip(box.shape, self._halo, strict=True))
        return self._array.box_job(start, shape)

    def _ahead(self) -> int:
        if self._prefetch is not None:
            return self._prefetch
        options = self._array.engine.options
        extents = (extent + 2 * halo for extent, halo in zip(self._shape, self._halo, strict=True))
        nbytes = max(math.prod(extents) * self._array.dtype.itemsize, 1)
        return max(1, min(2 * options.decode_threads, options.memory_limit_bytes // 4 // nbytes))


def _grouped(starts: range, extent: int) -> list[list[int]]:
    """Starts along one axis, those inside the same stretch of `extent` voxels together."""
    return [list(group) for _, group in itertools.groupby(starts, key=lambda start: start // extent)]


class _Ahead:
    """Reads in flight for one foreground iteration. In a forked child they are started again: the workers are gone."""

    def __init__(self, core: _core.LocalEngine) -> None:
        self._core = core
        self._channel = Channel(core)
        self._pid = os.getpid()
        self._inherited: list[Channel] = []
        self._numbers = itertools.count()
        self._running: dict[int, tuple[int, list[_core.Read]]] = {}
        self._ended: dict[int, BaseException | None] = {}

    def submit(self, reads: list[_core.Read]) -> int:
        self._check_process()
        number = next(self._numbers)
        self._running[number] = (self._channel.submit(reads), reads)
        return number

    def wait(self, number: int) -> None:
        """Waits for one plan. Raises its error."""
        self._check_process()
        while number not in self._ended:
            by_token = {token: number for number, (token, _) in self._running.items()}
            for token, error in self._channel.wait():
                ended = by_token[token]
                self._ended[ended] = error
                del self._running[ended]
        error = self._ended.pop(number)
        if error is not None:
            raise error

    def close(self) -> None:
        """Stops what is in flight and waits for what workers have begun."""
        while not self._channel.close():
            self._channel.wait()

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            self._inherited.append(self._channel)
            self._channel = Channel(self._core)
            self._pid = os.getpid()
            running = self._running.items()
            self._running = {number: (self._channel.submit(reads), reads) for number, (_, reads) in running}


class _RemoteAhead:
    """The same for remote arrays: calls of the engine's scheduler."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pid = os.getpid()
        self._inherited: list[object] = []
        self._numbers = itertools.count()
        self._calls: dict[int, Call] = {}

    def submit(self, reads: list[_core.Read]) -> int:
        self._check_process()
        number = next(self._numbers)
        self._calls[number] = self._engine.scheduler.submit(reads)
        return number

    def wait(self, number: int) -> None:
        """Waits for one plan. Raises its error."""
        self._check_process()
        self._engine.scheduler.wait(self._calls.pop(number))

    def close(self) -> None:
        """Stops what is in flight."""
        if self._pid == os.getpid():
            for call in self._calls.values():
                call.cancel()
        self._calls.clear()

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            self._inherited.append(self._calls)
            self._pid = os.getpid()
            scheduler = self._engine.scheduler
            self._calls = {number: scheduler.submit(call.reads) for number, call in self._calls.items()}
