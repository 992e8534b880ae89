"""How threads learn of each other: descriptors that wake one in `poll` or in a loop; the end of the interpreter."""

from __future__ import annotations

import contextlib
import os
import threading

__all__ = ["clear_wake_ups", "close_descriptors", "is_exiting", "wake_descriptors", "wake_up"]


def wake_descriptors() -> tuple[int, int]:
    """Returns (to read, to write), both non-blocking; the same descriptor twice where the system has eventfd."""
    if hasattr(os, "eventfd"):
        descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        return descriptor, descriptor
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    return reader, writer


def wake_up(to_write: int) -> None:
    """Makes the other end readable."""
    with contextlib.suppress(BlockingIOError):  # full: a wake-up is pending anyway
        os.write(to_write, (1).to_bytes(8, "little"))


def clear_wake_ups(to_read: int) -> None:
    """Takes all pending wake-ups; never waits."""
    with contextlib.suppress(BlockingIOError):
        # An eventfd gives its sum and becomes empty; a pipe gives as much as was asked for.
        while len(os.read(to_read, 4096)) == 4096:
            pass


def close_descriptors(to_read: int, to_write: int) -> None:
    """Closes both, which may be one."""
    os.close(to_read)
    if to_write != to_read:
        os.close(to_write)


def is_exiting() -> bool:
    """Returns whether the interpreter ends: the main thread and all that it waits for have, daemon threads are left.

    What those wait for they get no more; they end by `SystemExit`, silently.
    """
    return not any(thread.is_alive() and not thread.daemon for thread in threading.enumerate())
