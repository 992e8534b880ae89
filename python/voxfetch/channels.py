"""Channels: how whoever submits reads of local files learns that they have ended.

Reads and a token go in; the core announces the end through one file descriptor, which a thread polls or an event loop
watches. Memory that a read writes to stays referenced until the read has ended, cancelled or not.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import threading
import weakref
from typing import TYPE_CHECKING

from voxfetch.errors import InternalError, StoreError
from voxfetch.wake import clear_wake_ups, close_descriptors, wake_descriptors

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from voxfetch import _core

__all__ = ["Channel", "Channels", "LoopChannel"]


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


class LoopChannel:
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
        """Starts the reads as one plan; returns the loop's future for it. Cancelling the future stops the plan."""
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
        """Stops all plans early."""
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


class Channels:
    """The channel of each event loop of this process."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopChannel] = weakref.WeakKeyDictionary()
        self._all: list[LoopChannel] = []
        self._inherited: list[object] = []

    def of(self, loop: asyncio.AbstractEventLoop, core: _core.LocalEngine) -> LoopChannel:
        """Returns the channel of the running loop, making it if need be."""
        self._check_process()
        with self._lock:
            channel = self._by_loop.get(loop)
        if channel is None:
            self.sweep()
            channel = LoopChannel(loop, core)
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
