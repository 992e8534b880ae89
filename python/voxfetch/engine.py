"""The engine: what all reads of a process share (workers, open files, shard indexes) and how an asyncio loop waits.

Local reads need no thread and no loop of ours: a sync read is one call into the core; an async one is submitted, and
the core announces its end through one file descriptor per event loop, which that loop watches. Memory that a read
writes to stays referenced until the read has ended, cancelled or not.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import select
import threading
import weakref
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast

from voxfetch import _core
from voxfetch.errors import InternalError, StoreError
from voxfetch.options import EngineOptions, EngineStats, RetryPolicy
from voxfetch.wake import clear_wake_ups, close_descriptors, is_exiting, wake_descriptors

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence

    from voxfetch.scheduler import Scheduler

__all__ = ["Channel", "Engine", "abandon", "available_memory_bytes", "default_engine", "run_in_thread"]

_T = TypeVar("_T")

_DEFAULT_MAX_REQUESTS = 256
_DEFAULT_INDEX_CACHE_BYTES = 64 << 20
_DEFAULT_MEMORY_LIMIT_BYTES = 1 << 30
_MAX_OPEN_FILES = 512


class Engine:
    """Workers, budget and caches, shared by every array that is opened with it; usable from any thread and loop.

    `memory_limit_bytes` bounds what is in flight and cached, outputs not counted (default: 1 GiB or a quarter of the
    memory, the smaller). `index_cache_bytes` (64 MiB) bounds the shard indexes kept, of local and of remote arrays
    each. `decode_threads` (default: the processors this process may use). For remote stores: `max_requests` in flight
    (256; it starts with at most 64 and gives way to a store that asks for less), `retry`, and `chunk_cache_bytes`,
    which is checked and kept without effect yet.

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
            memory_limit_bytes = max(min(_DEFAULT_MEMORY_LIMIT_BYTES, _memory_bytes() // 4), 64 << 20)
        if index_cache_bytes is None:
            index_cache_bytes = min(_DEFAULT_INDEX_CACHE_BYTES, memory_limit_bytes // 4)
        self._options = EngineOptions(
            memory_limit_bytes=memory_limit_bytes,
            max_requests=_DEFAULT_MAX_REQUESTS if max_requests is None else max_requests,
            index_cache_bytes=index_cache_bytes,
            chunk_cache_bytes=0 if chunk_cache_bytes is None else chunk_cache_bytes,
            decode_threads=_processors() if decode_threads is None else decode_threads,
            retry=retry or RetryPolicy(),
        )
        self._core = _core.LocalEngine(
            threads=self._options.decode_threads,
            index_cache_bytes=self._options.index_cache_bytes,
            max_open_files=_max_open_files(),
            in_flight_bytes=max(
                memory_limit_bytes - self._options.index_cache_bytes - self._options.chunk_cache_bytes, 1
            ),
        )
        self._channels = _Channels()
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
        """Stops what is submitted, ends the workers, closes files and drops cached indexes.

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
                from voxfetch.scheduler import Scheduler

                here.current = here.latest = Scheduler(self._core, self._options, here.latest)
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
        self.past = {"retries": 0, "requests": 0, "bytes_read": 0}


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


class Channel:
    """One file descriptor through which submitted reads say that they have ended.

    Used by one thread at a time. The descriptor must stay open while a read is in flight: a worker writes to it.
    """

    def __init__(self, core: _core.LocalEngine) -> None:
        self.core = core
        self._pid = os.getpid()
        self._tokens = itertools.count(1)
        self._running: dict[int, Sequence[_core.Read]] = {}
        self._stopped: set[int] = set()
        self._read_fd, self._write_fd = wake_descriptors()

    @property
    def fd(self) -> int:
        """The descriptor to wait on: readable when a read has ended."""
        return self._read_fd

    @property
    def idle(self) -> bool:
        """True when nothing is in flight."""
        return not self._running

    def submit(self, reads: Sequence[_core.Read]) -> int:
        """Starts the reads as one plan; returns their token."""
        token = next(self._tokens)
        self._running[token] = reads
        try:
            self.core.submit(reads, token, self._write_fd)
        except BaseException:
            del self._running[token]
            raise
        return token

    def cancel(self, token: int) -> None:
        """Stops a plan early if it has not ended; it then ends with an error, for its outputs may be incomplete."""
        if token in self._running:
            self._stopped.add(token)
            self.core.cancel(token, self._write_fd)

    def cancel_all(self) -> None:
        """Stops all plans early."""
        for token in tuple(self._running):
            self.cancel(token)

    def take(self) -> list[tuple[int, BaseException | None]]:
        """Returns the plans that have ended since the last call, each with its error; never waits."""
        clear_wake_ups(self._read_fd)
        ended = self.core.take_completed(self._write_fd)
        for number, (token, error) in enumerate(ended):
            self._running.pop(token, None)
            # The core reports no error for a plan that was stopped before anything failed.
            if token in self._stopped:
                self._stopped.discard(token)
                if error is None:
                    ended[number] = (token, StoreError("stopped: the engine was closed during this read"))
        return ended

    def wait(self) -> list[tuple[int, BaseException | None]]:
        """Like `take`, but waits until something has ended. Ctrl-C raises `KeyboardInterrupt`."""
        poll = select.poll()
        poll.register(self._read_fd, select.POLLIN)
        while self._running:
            ended = self.take()
            if ended:
                return ended
            poll.poll()
        return []

    def close(self) -> bool:
        """Stops what is in flight and closes the descriptors if nothing is; returns whether it did. Never waits.

        In a forked child the descriptors are shared with the parent, which would miss what is read here: left alone.
        """
        if self._read_fd < 0 or self._pid != os.getpid():
            return True
        self.cancel_all()
        self.take()
        if self._running:
            return False
        close_descriptors(self._read_fd, self._write_fd)
        self._read_fd = self._write_fd = -1
        return True

    def __del__(self) -> None:
        # The interpreter may be half gone; then the descriptors go with the process.
        with contextlib.suppress(Exception):
            self.close()


class _LoopChannel:
    """A channel that an event loop watches: tokens become futures."""

    def __init__(self, loop: asyncio.AbstractEventLoop, core: _core.LocalEngine) -> None:
        self._loop = weakref.ref(loop)
        self._channel = Channel(core)
        self._futures: dict[int, asyncio.Future[None]] = {}
        self._all_ended: asyncio.Event | None = None
        loop.add_reader(self._channel.fd, self._drain)

    @property
    def abandoned(self) -> bool:
        """True when the loop is closed or gone."""
        loop = self._loop()
        return loop is None or loop.is_closed()

    def submit(self, reads: Sequence[_core.Read]) -> asyncio.Future[None]:
        loop = self._loop()
        if loop is None:
            raise InternalError("the event loop of this read is gone")
        future = loop.create_future()
        token = self._channel.submit(reads)
        self._futures[token] = future

        def stop(future: asyncio.Future[None]) -> None:
            if future.cancelled():
                self._channel.cancel(token)

        future.add_done_callback(stop)
        return future

    def cancel_all(self) -> None:
        self._channel.cancel_all()

    async def drained(self) -> None:
        """Stops everything and returns when it has ended; what waits for it gets an error."""
        import asyncio

        self.cancel_all()
        while not self._channel.idle:
            # `_drain` takes what has ended, in other turns of this loop.
            self._all_ended = self._all_ended or asyncio.Event()
            await self._all_ended.wait()
            self._all_ended = None

    def close(self) -> bool:
        """Releases the channel of an abandoned loop; returns False while a read is still in flight."""
        self._futures.clear()
        return self._channel.close()

    def _drain(self) -> None:
        for token, error in self._channel.take():
            future = self._futures.pop(token, None)
            if future is None or future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
        if self._all_ended is not None and self._channel.idle:
            self._all_ended.set()


class _Channels:
    """The channel of each event loop of this process."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopChannel] = weakref.WeakKeyDictionary()
        self._all: list[_LoopChannel] = []
        self._inherited: list[object] = []

    def of(self, loop: asyncio.AbstractEventLoop, core: _core.LocalEngine) -> _LoopChannel:
        """Returns the channel of the running loop, making it if need be."""
        self._check_process()
        with self._lock:
            channel = self._by_loop.get(loop)
        if channel is None:
            self.sweep()
            channel = _LoopChannel(loop, core)
            with self._lock:
                self._by_loop[loop] = channel
                self._all.append(channel)
        return channel

    def cancel_all(self) -> None:
        """Stops everything in flight on any loop."""
        self._check_process()
        with self._lock:
            channels = tuple(self._all)
        for channel in channels:
            channel.cancel_all()

    def sweep(self) -> None:
        """Releases the channels of loops that are closed or gone, except those with a read still in flight."""
        self._check_process()
        with self._lock:
            self._all[:] = [channel for channel in self._all if not (channel.abandoned and channel.close())]

    def _check_process(self) -> None:
        # In a forked child the parent's loops, futures and descriptors are left alone, referenced and unused, and its
        # lock may have been held at the fork: the process is compared before any lock is taken.
        if self._pid != os.getpid():
            self._inherited.append((self._lock, self._by_loop, self._all))
            self._lock = threading.Lock()
            self._by_loop = weakref.WeakKeyDictionary()
            self._all = []
            self._pid = os.getpid()


def _processors() -> int:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", "rb") as file:  # noqa: PTH123 - as below
            quota, period = map(int, file.read().split())
        count = min(count, -(-quota // period))
    except (OSError, ValueError, ZeroDivisionError):
        pass  # no quota, or no cgroup
    return max(count, 1)


def _max_open_files() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else max(min(_MAX_OPEN_FILES, soft // 4), 8)


def available_memory_bytes() -> int | None:
    """Returns how many bytes this process can still take, by the system and by its cgroup; None if neither says."""
    limits: list[int] = []
    try:
        with open("/proc/meminfo", "rb") as file:  # noqa: PTH123 - pathlib is not worth its import
            limits.extend(int(line.split()[1]) << 10 for line in file if line.startswith(b"MemAvailable:"))
    except (OSError, ValueError, IndexError):
        pass
    for limit_name, used_name in _CGROUP_FILES:
        limit, used = _number_in(limit_name), _number_in(used_name)
        if limit is not None and used is not None:
            limits.append(max(limit - used, 0))
    return min(limits, default=None)


_CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def _memory_bytes() -> int:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        total = _DEFAULT_MEMORY_LIMIT_BYTES
    limits = [limit for name, _ in _CGROUP_FILES if (limit := _number_in(name)) is not None]
    return min(total, *limits) if limits else total


def _number_in(name: str) -> int | None:
    # Bytes, here and above: a text file imports its codec, whose import lock a fork in another thread would keep held.
    try:
        with open(name, "rb") as file:  # noqa: PTH123 - as above
            return int(file.read())
    except (OSError, ValueError):
        return None
