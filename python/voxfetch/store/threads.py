"""Threads for calls that block, so that no loop waits for a disk or a decoder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["Threads"]

_T = TypeVar("_T")

# Blocking calls of one store; more of them rarely help, and each holds a thread.
_THREADS = 8


class Threads:
    """The threads of one store, made on first use; those of a parent process are left alone after a fork."""

    __slots__ = ("_name", "_pools")

    def __init__(self, name: str) -> None:
        """`name`: what debuggers call the threads."""
        self._name = name
        self._pools: dict[int, ThreadPoolExecutor] = {}

    async def run(self, call: Callable[[], _T]) -> _T:
        """Returns what a call returns, or raises what it raises. One that nobody waits for any more is let end."""
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        pid = os.getpid()
        if pid not in self._pools:
            self._pools[pid] = ThreadPoolExecutor(_THREADS, thread_name_prefix=self._name)
        return await asyncio.get_running_loop().run_in_executor(self._pools[pid], call)
