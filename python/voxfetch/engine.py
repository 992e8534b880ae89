"""The engine: what all reads of a process share (workers, open files, indexes, chunks) and how callers wait for them.

Local reads need no thread and no loop of ours: a sync read is one call into the core; an async one is submitted, and
its end comes through the channel of the caller's loop. Remote reads go to the scheduler, which has one I/O thread.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast

from voxfetch import _core
from voxfetch.channels import Channels
from voxfetch.options import EngineOptions, EngineStats, RetryPolicy
from voxfetch.resources import max_open_files, memory_bytes, processors
from voxfetch.wake import is_exiting

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence

    from voxfetch.scheduler import Scheduler

__all__ = ["Engine", "abandon", "default_engine", "run_in_thread"]

_T = TypeVar("_T")

_DEFAULT_MAX_REQUESTS = 256
_DEFAULT_INDEX_CACHE_BYTES = 64 << 20
_DEFAULT_MEMORY_LIMIT_BYTES = 1 << 30


class Engine:
    """Workers, budget and caches, shared by every array that is opened with it; usable from any thread and loop.

    `memory_limit_bytes` bounds what is in flight and cached, outputs not counted (default: 1 GiB or a quarter of the
    memory, the smaller). `index_cache_bytes` (64 MiB) bounds the shard indexes kept, of local and of remote arrays
    each. `decode_threads` (default: the processors this process may use). For remote stores: `max_requests` in flight
    (256; it starts with at most 64 and gives way to a store that asks for less), and `retry`.

    `chunk_cache_bytes` (0: none) keeps decoded chunks of local and remote arrays together, least recently used first
    out: for planes through the same chunks one after the other, overlapping crops, tiles. One read puts in at most half
    of it. A chunk of which a part is needed is fetched and decoded whole then. Cached chunks of a remote store are used
    for as long as `index_ttl_s` says of indexes, without asking the store, also where there are no shards; after that
    they are used again if the object's index comes with the same strong ETag. Of local files the size and time are
    compared at each read (nothing is kept of a file written less than 2 s before); a rewrite in place that leaves both
    as they were is not noticed. `Array.verify` does not use it.

    Use it as a context manager, or close it; an engine that is dropped closes itself. It takes up work again when it
    is used after `close`. After `fork` the child starts workers of its own.
    """

    def __init__(  # noqa: PLR0913 - the public names are a contract
        self,
        memory_limit_bytes: int | None = None,
        max_requests: int | None = None,
        index_cache_bytes: int | None = None,
        chunk_cache_bytes: int | None = None,
        decode_threads: int | None = None,
        *,
        retry: RetryPolicy | None = None,
    ) -> None:
        if memory_limit_bytes is None:
            memory_limit_bytes = max(min(_DEFAULT_MEMORY_LIMIT_BYTES, memory_bytes() // 4), 64 << 20)
        if index_cache_bytes is None:
            index_cache_bytes = min(_DEFAULT_INDEX_CACHE_BYTES, memory_limit_bytes // 4)
        self._options = EngineOptions(
            memory_limit_bytes=memory_limit_bytes,
            max_requests=_DEFAULT_MAX_REQUESTS if max_requests is None else max_requests,
            index_cache_bytes=index_cache_bytes,
            chunk_cache_bytes=0 if chunk_cache_bytes is None else chunk_cache_bytes,
            decode_threads=processors() if decode_threads is None else decode_threads,
            retry=retry or RetryPolicy(),
        )
        self._core = _core.LocalEngine(
            threads=self._options.decode_threads,
            index_cache_bytes=self._options.index_cache_bytes,
            chunk_cache_bytes=self._options.chunk_cache_bytes,
            max_open_files=max_open_files(),
            in_flight_bytes=max(
                memory_limit_bytes - self._options.index_cache_bytes - self._options.chunk_cache_bytes, 1
            ),
        )
        self._channels = Channels()
        self._schedulers = _Schedulers(self._core, self._options)
        # Runs at the latest when the interpreter exits, so that no thread outlives it.
        self._finalizer = weakref.finalize(self, _close, self._schedulers, self._core)

    def __repr__(self) -> str:
        options = self._options
        return f"<voxfetch.Engine {options.decode_threads} threads, {options.memory_limit_bytes >> 20} MiB>"

    @property
    def options(self) -> EngineOptions:
        """The knobs, resolved."""
        return self._options

    @property
    def core(self) -> _core.LocalEngine:
        """The compiled engine for local files."""
        return self._core

    @property
    def scheduler(self) -> Scheduler:
        """The I/O thread for remote stores, started on first use in this process."""
        return self._schedulers.current()

    def stats(self) -> EngineStats:
        """Returns the counters of this process."""
        counters = self._core.stats()
        for name, number in self._schedulers.stats().items():
            counters[name] = counters.get(name, 0) + number
        return EngineStats(**{name: counters[name] for name in EngineStats.__slots__})

    def read(self, reads: Sequence[_core.Read]) -> None:
        """Carries the reads out, those of local arrays as one plan and those of remote ones as another, and waits.

        Raises the first error in plan order.
        """
        remote = [read for read in reads if read.store is not None]
        if not remote:
            self._core.read(reads)
            return
        scheduler = self.scheduler
        call = scheduler.submit(remote)
        try:
            if len(remote) < len(reads):
                self._core.read([read for read in reads if read.store is None])
        except BaseException:
            call.cancel()
            raise
        scheduler.wait(call)

    async def run(self, reads: Sequence[_core.Read]) -> None:
        """Carries the reads out as `read` does, without blocking the running loop.

        When the waiting task is cancelled the reads are stopped early; one that a worker has begun may still write to
        its memory, which stays referenced until then.
        """
        await self.start(reads)

    def start(self, reads: Sequence[_core.Read]) -> asyncio.Future[Any]:
        """Starts the reads and returns the running loop's future for them; cancelling it stops them."""
        import asyncio

        loop = asyncio.get_running_loop()
        remote = [read for read in reads if read.store is not None]
        if not remote:
            return self._channels.of(loop, self._core).submit(reads)
        future = asyncio.wrap_future(self.scheduler.submit(remote), loop=loop)
        if len(remote) == len(reads):
            return future
        local = [read for read in reads if read.store is None]
        return asyncio.gather(self._channels.of(loop, self._core).submit(local), future)

    def report(self, read: _core.Read, mode: Literal["check", "explain", "explain known"]) -> dict[str, Any]:
        """Checks or explains the read of a remote array. Raises what keeps it from being looked at."""
        scheduler = self.scheduler
        return scheduler.wait(scheduler.submit([read], mode))

    def close(self) -> None:
        """Stops what is submitted, ends the workers, closes files and drops cached indexes and chunks.

        Async reads that have not ended raise `StoreError`.
        """
        self._schedulers.close()
        self._channels.cancel_all()
        self._core.close()
        self._channels.sweep()

    async def aclose(self) -> None:
        """Like `close`, without blocking the running loop: its own reads are stopped and awaited first."""
        import asyncio

        await self._channels.of(asyncio.get_running_loop(), self._core).drained()
        await run_in_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __reduce__(self) -> tuple[type[Engine], tuple[Any, ...]]:
        raise TypeError("an Engine belongs to its process; arrays pickle without it and use the default engine there")


def _close(schedulers: _Schedulers, core: _core.LocalEngine) -> None:
    schedulers.close()
    core.close()


class _Schedulers:
    """The scheduler of each process: a forked child leaves its parent's untouched and makes one of its own."""

    def __init__(self, core: _core.LocalEngine, options: EngineOptions) -> None:
        self._core = core
        self._options = options
        self._of_process: dict[int, _OfProcess] = {}

    def current(self) -> Scheduler:
        """Returns the scheduler of this process, starting it if need be."""
        here = self._here()
        with here.lock:
            if here.over and threading.current_thread() is not threading.main_thread():
                raise SystemExit
            if here.current is None:
                from voxfetch.connections import Connections
                from voxfetch.scheduler import Scheduler

                clients = Connections(self._options.retry.idle_timeout_s)
                here.current = here.latest = Scheduler(self._core, self._options, clients, here.latest)
            return here.current

    def stats(self) -> dict[str, int]:
        """Returns what the schedulers of this process count."""
        here = self._here()
        with here.lock:
            current = {} if here.current is None else here.current.stats()
            return {name: number + current.get(name, 0) for name, number in here.past.items()}

    def close(self) -> None:
        """Ends the scheduler of this process; the next use makes another."""
        here = self._here()
        with here.lock:
            scheduler, here.current = here.current, None
            here.over = is_exiting()
        if scheduler is not None:
            scheduler.close()
            with here.lock:
                for name, number in scheduler.stats().items():
                    here.past[name] += number

    def _here(self) -> _OfProcess:
        # No lock: the parent's may have been held at the fork. setdefault is atomic, so that all threads get the same.
        pid = os.getpid()
        found = self._of_process.get(pid)
        return found if found is not None else self._of_process.setdefault(pid, _OfProcess())


class _OfProcess:
    """The scheduler of one process, if it is not closed; the one before, which may still be ending; past counts.

    `over`: closed while the interpreter exits. What a daemon thread begins then would be cut off anywhere.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.current: Scheduler | None = None
        self.latest: Scheduler | None = None
        self.over = False
        self.past = {"retries": 0, "hedges": 0, "requests": 0, "bytes_read": 0}


_default_engines: dict[int, Engine] = {}
"""The one piece of module state: process id -> its default engine. A forked child leaves its parent's untouched."""


def default_engine() -> Engine:
    """Returns the engine of this process, made on first use."""
    pid = os.getpid()
    engine = _default_engines.get(pid)
    # setdefault is atomic, so that no lock can be inherited locked; an engine that loses the race has no threads yet.
    return engine if engine is not None else _default_engines.setdefault(pid, Engine())


def abandon(futures: Iterable[asyncio.Future[Any]]) -> None:
    """Stops reads that nobody waits for any more; what became of them is not reported."""
    for future in futures:
        if not future.cancel() and not future.cancelled():
            future.exception()


async def run_in_thread(function: Callable[[], _T]) -> _T:
    """Runs a call that the core has in blocking form only, for as long as it takes, without blocking the loop.

    The thread lives for this one call; the loop's own executor, which the application may need, is left alone.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def finish(result: _T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(cast("_T", result))
        else:
            future.set_exception(error)

    def work() -> None:
        result: _T | None = None
        caught: BaseException | None = None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - handed to the waiting task
            caught = error
        with contextlib.suppress(RuntimeError):  # the loop may be closed by now
            loop.call_soon_threadsafe(finish, result, caught)

    threading.Thread(target=work, name="voxfetch-call", daemon=True).start()
    return await future
