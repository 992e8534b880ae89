"""Threads for calls that block and that nothing stops: the process ends without them."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DaemonThreads"]

_T = TypeVar("_T")


class DaemonThreads:
    """So many threads at most, made when there is work for them.

    Python waits at its end for those of a `ThreadPoolExecutor`, however long a store does not answer.
    """

    def __init__(self, count: int, name: str) -> None:
        """`name`: what debuggers call the threads."""
        self._count = count
        self._name = name
        self._threads: list[threading.Thread] = []
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._at_work = 0
        self._is_closed = False
        self._lock = threading.Lock()

    def submit(self, call: Callable[[], _T]) -> Future[_T]:
        """Returns what will be the result of a call; it can be cancelled until it begins.

        Raises `RuntimeError` when the threads are closed.
        """
        future: Future[_T] = Future()
        with self._lock:
            if self._is_closed:
                raise RuntimeError("these threads are closed")
            self._at_work += 1
            if len(self._threads) < min(self._count, self._at_work):
                thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._calls.put((future, call))
        return future

    def close(self) -> None:
        """Ends the threads, those at work when they are done."""
        with self._lock:
            self._is_closed = True
            for _ in self._threads:
                self._calls.put(None)

    def _work(self) -> None:
        while (found := self._calls.get()) is not None:
            future, call = found
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:  # noqa: BLE001 - handed to who waits
                    future.set_exception(error)
            del found, future, call
            with self._lock:
                self._at_work -= 1
