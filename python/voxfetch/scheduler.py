"""The asyncio scheduler: one thread with its own loop owns time and the network for all remote reads of an engine.

Calls come in from any thread or loop and are planned together by the core's machine; the scheduler sends the requests
that the machine gives, tries again what may go better the next time, and hands the replies back. It sees requests,
never chunks: decoding runs on the engine's workers, which say through one descriptor that something has ended. A
caller waits for a future, and a busy caller stalls nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections import deque
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from voxfetch import _core
from voxfetch.attempts import Attempts
from voxfetch.errors import (
    InternalError,
    ObjectChangedError,
    PermissionDeniedError,
    StoreError,
    VoxfetchError,
)
from voxfetch.hedge import Hedges
from voxfetch.limit import Limit
from voxfetch.store import Ask, RemoteStore, join_key
from voxfetch.store.answered import Answered
from voxfetch.store.pairs import Pairs
from voxfetch.wake import clear_wake_ups, close_descriptors, is_exiting, wake_descriptors, wake_up

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from voxfetch.options import EngineOptions
    from voxfetch.store import Answer, Clients, Get, NoReply, Reply

__all__ = ["Call", "Scheduler"]

Mode = Literal["read", "check", "explain", "explain known"]
_T = TypeVar("_T")

_MAX_BURST_S = 0.02
"""How long calls are collected while more keep coming."""
_MAX_STORES = 16
"""Stores that are kept while nothing is read."""


class Call(Future[dict[str, Any]]):
    """One call of a user: its result is the machine's report. Cancelling it stops its requests."""

    def __init__(self, reads: Sequence[_core.Read], mode: Mode) -> None:
        super().__init__()
        self.reads = reads
        self.mode: Mode = mode
        self.token = 0


class Scheduler:
    """The I/O thread of one engine in one process. Starts with the first call, ends with `close`."""

    def __init__(
        self, core: _core.LocalEngine, options: EngineOptions, clients: Clients, before: Scheduler | None = None
    ) -> None:
        """`clients` are closed with it.

        `before` is the one that this one follows: the core serves one at a time, and it may not have ended yet.
        """
        self._before = before
        self._remote = _core.RemoteEngine(core)
        self._options = options
        self._limit = Limit(options.max_requests)
        self._clients = clients
        self._tokens = itertools.count(1)
        self._inbox: deque[Call] = deque()
        self._cancelled: deque[int] = deque()
        self._calls: dict[int, Call] = {}
        self._stores: dict[str, RemoteStore] = {}
        # Requests in flight: those with a task, and those whose reply the core takes if it is as asked for.
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._landing: dict[int, tuple[RemoteStore, Ask, Get]] = {}
        self._attempts = Attempts(options.retry, self._limit, self._landing, self._pump_soon)
        self._pairs = Pairs()
        self._documents = 0
        self._document_nbytes = 0
        # Guards `_closing` and the descriptors: after the end their numbers may be another file's.
        self._lock = threading.RLock()
        self._closing = False
        self._loop = asyncio.new_event_loop()
        # In debug mode it tells who keeps it waiting. On first use that is an import, or another thread of the user's.
        self._loop.slow_callback_duration = 1.0
        self._hedges = Hedges(options.retry.hedge_s, self._loop, self._again, self._take_landed)
        self._stop: asyncio.Event | None = None
        self._burst: asyncio.Handle | None = None
        self._pumping = False
        self._read_fd, self._write_fd = wake_descriptors()
        self._thread = threading.Thread(target=self._main, name="voxfetch-io", daemon=True)
        self._thread.start()

    # --- from any thread

    def submit(self, reads: Sequence[_core.Read], mode: Mode = "read") -> Call:
        """Starts reads that end together; returns the future of their report."""
        for read in reads:
            read.fill_outside()
        call = Call(reads, mode)
        call.add_done_callback(self._done)
        with self._lock:
            if not self._closing:
                self._inbox.append(call)
                wake_up(self._write_fd)
                return call
        call.set_exception(_stopped("stopped: the engine was closed during this read"))
        return call

    def wait(self, call: Call) -> dict[str, Any]:
        """Returns the report of a call when it has ended; raises its error. Ctrl-C stops it."""
        self._check_thread()
        try:
            return call.result()
        except CancelledError:
            raise _stopped("stopped: the engine was closed during this read") from None
        except BaseException:
            # Without effect when the error is the call's own.
            call.cancel()
            raise

    def run(self, coroutine: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Runs a coroutine on the I/O thread and returns its result."""
        self._check_thread()
        future = self.start(coroutine)
        try:
            return future.result()
        except CancelledError:
            raise _stopped("stopped: the engine was closed") from None
        except BaseException:
            future.cancel()
            raise

    def start(self, coroutine: Callable[[], Coroutine[Any, Any, _T]]) -> Future[_T]:
        """Starts a coroutine on the I/O thread; returns its future, which stops it when it is cancelled."""
        started = coroutine()
        with self._lock:
            if self._closing:
                started.close()
                raise _stopped("stopped: the engine was closed")
            return asyncio.run_coroutine_threadsafe(started, self._loop)

    async def metadata(self, store: RemoteStore, ask: Ask) -> Reply | None:
        """Returns a metadata document, or a part of an object that says where others lie; None when there is none.

        Runs on the I/O thread.
        """
        try:
            reply = await self._ask(store, ask, self._clients)
        except VoxfetchError as error:
            # A store knows its keys only.
            error.key = join_key(store.url, ask.key)
            raise
        self._documents += 1
        if reply is not None:
            self._document_nbytes += len(memoryview(reply.body))
        return reply

    async def document(self, store: RemoteStore, key: str) -> bytes | None:
        """Returns a whole metadata document, None when there is none. Runs on the I/O thread."""
        reply = await self.metadata(store, Ask(key))
        return None if reply is None else bytes(reply.body)

    async def documents(self, store: RemoteStore, keys: Sequence[str]) -> list[bytes | PermissionDeniedError | None]:
        """Returns several documents, asked for at once; for one that the store refuses, the refusal."""

        async def one(key: str) -> bytes | PermissionDeniedError | None:
            try:
                return await self.document(store, key)
            except PermissionDeniedError as error:
                return error

        return list(await asyncio.gather(*(one(key) for key in keys)))

    async def list(self, store: RemoteStore, prefix: str) -> Sequence[str]:
        """Returns the names directly under a prefix. Runs on the I/O thread."""
        return await self._attempts.make(lambda: store.list(prefix, self._clients), store, prefix or "/")

    def stats(self) -> dict[str, int]:
        """Returns what only the scheduler counts."""
        return {
            "retries": self._attempts.retries,
            "hedges": self._hedges.count,
            "requests": self._documents,
            "bytes_read": self._document_nbytes,
        }

    def close(self) -> None:
        """Stops everything that is in flight and ends the thread; what waits gets `StoreError`."""
        with self._lock:
            self._closing = True
        if threading.get_ident() == self._thread.ident:
            self._request_stop()
            return
        with contextlib.suppress(RuntimeError):  # closed already
            self._loop.call_soon_threadsafe(self._request_stop)
        self._thread.join()

    # --- on the I/O thread

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            if self._before is not None:
                # Each would take the other's endings out of the core.
                self._before._thread.join()
                self._before = None
            self._remote.wake(self._write_fd)
            self._loop.run_until_complete(self._serve())
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()
            self._remote.wake(None)
            close_descriptors(self._read_fd, self._write_fd)
            self._fail_all()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        if self._closing:
            self._stop.set()
        self._loop.add_reader(self._read_fd, self._woken)
        self._woken()
        await self._stop.wait()
        self._loop.remove_reader(self._read_fd)
        if self._burst is not None:
            # What is begun from now on would not be stopped.
            self._burst.cancel()
        for token in tuple(self._calls):
            self._remote.cancel(token)
        # What was handed over before the end becomes a task only now.
        await asyncio.sleep(0)
        running = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._clients.close()
        for number in self._landing:
            self._remote.error(number, StoreError("stopped: the engine was closed during this request"))
        self._landing.clear()
        # Jobs at work write to memory of callers: they are let end.
        while self._calls:
            self._pump()
            if self._calls:
                await asyncio.sleep(0.001)

    def _done(self, call: Future[dict[str, Any]]) -> None:
        if call.cancelled() and isinstance(call, Call):
            self._cancelled.append(call.token)
            self._wake()

    def _request_stop(self) -> None:
        if self._stop is not None:
            self._stop.set()

    def _wake(self) -> None:
        with self._lock:
            if not self._closing:
                wake_up(self._write_fd)

    def _woken(self) -> None:
        clear_wake_ups(self._read_fd)
        if len(self._inbox) <= 1:
            self._take_inbox()
        elif self._burst is None:
            # Where several come at once there are often more on their way, to be planned with them.
            self._burst = self._loop.call_soon(self._gather, len(self._inbox), self._loop.time())
        self._pump()

    def _gather(self, before: int, began_s: float) -> None:
        """Waits for the end of a burst of calls, a few milliseconds at most, and plans them together."""
        now = len(self._inbox)
        if now > before and self._loop.time() - began_s < _MAX_BURST_S:
            self._burst = self._loop.call_soon(self._gather, now, began_s)
            return
        self._burst = None
        self._take_inbox()
        self._pump()

    def _take_inbox(self) -> None:
        """Plans what waits together, and stops what nobody waits for."""
        together: dict[Mode, list[tuple[int, Sequence[_core.Read]]]] = {}
        while self._inbox:
            call = self._inbox.popleft()
            call.token = next(self._tokens)
            if call.cancelled():
                continue
            self._calls[call.token] = call
            for read in call.reads:
                store: RemoteStore = read.store
                self._stores[store.identity] = self._stores.pop(store.identity, store)
            if call.mode == "read":
                together.setdefault("read", []).append((call.token, call.reads))
            else:
                self._begin([(call.token, call.reads)], call.mode)
        for mode, calls in together.items():
            self._begin(calls, mode)
        while self._cancelled:
            for request in self._remote.cancel(self._cancelled.popleft()):
                self._hedges.ended(request)
                self._give_up(request)

    def _begin(self, calls: list[tuple[int, Sequence[_core.Read]]], mode: Mode) -> None:
        for token, error in self._remote.submit(calls, mode):
            self._finish(token, error, {})

    def _finish(self, token: int, error: BaseException | None, report: dict[str, Any]) -> None:
        call = self._calls.pop(token, None)
        if not self._calls:
            # The latest ones keep their connections.
            for identity in list(self._stores)[:-_MAX_STORES]:
                del self._stores[identity]
                self._attempts.forget(identity)
                self._pairs.forget(identity)
        if call is None or call.done():
            return
        if error is not None and self._closing and is_exiting():
            error = SystemExit()
        with contextlib.suppress(InvalidStateError):  # cancelled at this moment
            if error is None:
                call.set_result(report)
            else:
                call.set_exception(error)

    def _fail_all(self) -> None:
        """Ends what came too late."""
        while self._inbox:
            call = self._inbox.popleft()
            if not call.done():
                call.set_exception(_stopped("stopped: the engine was closed during this read"))

    def _pump(self) -> None:
        """Sends as many requests as may be in flight, and ends the calls that need no more.

        Asking for that also says that whoever ends something from now on has to wake us.
        """
        self._pumping = False
        self._take_landed()
        room = 0 if self._closing else max(self._limit.current - len(self._tasks) - len(self._landing), 0)
        ended, requests = self._remote.turn(room)
        landing: list[tuple[int, Ask, Get]] = []
        for number, identity, key, start, end, suffix, etag, most in requests:
            store, ask = self._stores[identity], Ask(key, start, end, suffix, etag, most)
            # Where there is something to wait for, each waits for its turn.
            wait = self._attempts.are_waiting or self._attempts.pause_s(store) > 0
            get = None if wait else store.direct(ask, self._clients)
            self._hedges.begun(number, store, ask)
            if get is None:
                self._tasks[number] = self._loop.create_task(self._fetch(number, store, ask, self._clients))
            else:
                self._landing[number] = store, ask, get
                landing.append((number, ask, get))
        for token, error, report in ended:
            self._finish(token, error, report)
        if landing:
            self._send(landing)

    def _take_landed(self) -> None:
        for number in self._remote.landed(self._attempts.are_waiting):
            if self._landing.pop(number, None) is not None:
                self._limit.succeeded()
                self._hedges.ended(number)
        self._attempts.offer_turns()

    def _give_up(self, number: int) -> None:
        task = self._tasks.pop(number, None)
        if task is not None:
            task.cancel()
        elif self._landing.pop(number, None) is not None:
            self._clients.drop(number)

    def _send(self, landing: list[tuple[int, Ask, Get]]) -> None:
        try:
            self._clients.land(self._remote, landing, self._strayed)
        except Exception:  # noqa: BLE001 - whatever it is, each will say
            for number, ask, _ in landing:
                store = self._landing.pop(number)[0]
                self._tasks[number] = self._loop.create_task(self._fetch(number, store, ask, self._clients))

    def _strayed(self, number: int, answer: Answer | NoReply) -> None:
        """Takes an answer that is not exactly what was asked for: the outcome of a first attempt."""
        sent = None if self._closing else self._landing.pop(number, None)
        if sent is not None:
            store, ask, get = sent
            clients = Answered(self._clients, get, answer)
            self._tasks[number] = self._loop.create_task(self._fetch(number, store, ask, clients))

    def _pump_soon(self) -> None:
        if not self._pumping:
            # What there is for it comes in crowds: once for all that is there.
            self._pumping = True
            self._loop.call_soon(self._pump)

    async def _fetch(self, number: int, store: RemoteStore, ask: Ask, clients: Clients) -> None:
        try:
            reply = await self._ask(store, ask, clients)
            if reply is None:
                await self._pairs.check(store, ask.key, lambda ask: self._ask(store, ask, self._clients))
                self._remote.error(number, "absent")
            else:
                self._received(number, reply)
        except ObjectChangedError:
            self._remote.error(number, "changed")
        except VoxfetchError as error:
            if ask.start is not None and ask.end is not None:
                error.byte_range = (ask.start, ask.end)
            self._remote.error(number, error)
        except BaseException as error:  # a bug must not leave a caller waiting, nor end the thread
            message = f"{type(error).__name__} in a transport: {error}"
            self._remote.error(number, InternalError(message))
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
        finally:
            self._tasks.pop(number, None)
            self._hedges.ended(number)
        self._pump_soon()

    def _received(self, number: int, reply: Reply) -> None:
        body, first, total, tag, modified = reply
        self._remote.body(number, body, start=first, total=total, etag=tag, modified=modified)

    async def _again(self, number: int, store: RemoteStore, ask: Ask) -> None:
        """Sends a request that is late once more. Whatever does not end well is left to the first."""
        with contextlib.suppress(Exception):
            reply = await self._ask(store, ask, self._clients)
            if reply is not None and (number in self._landing or number in self._tasks):
                self._received(number, reply)
                self._give_up(number)
                self._pump_soon()

    async def _ask(self, store: RemoteStore, ask: Ask, clients: Clients) -> Reply | None:
        answered = isinstance(clients, Answered)
        return await self._attempts.make(lambda: store.get(ask, clients), store, ask.key, answered=answered)

    def _check_thread(self) -> None:
        if threading.get_ident() == self._thread.ident:
            message = "a blocking call on the engine's own thread would wait for itself for ever"
            raise StoreError(message, hint="await the method that ends in _async")


def _stopped(message: str) -> BaseException:
    """What a call ends with that is stopped."""
    return SystemExit() if is_exiting() else StoreError(message)
