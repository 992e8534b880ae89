"""Forks wait for imports that other threads have begun.

In a forked child the threads of the parent are gone. A module that one of them was importing stays half imported and
locked for ever: whoever imports it in the child hangs. What reads need is imported on first use, by whichever thread
that is, so the first read of one thread and a fork in another would be enough.
"""

from __future__ import annotations

import _frozen_importlib
import os
import time
from _thread import get_ident
from typing import Any

__all__ = ["wait_for_imports_at_forks"]

_MAX_WAIT_S = 5.0


def wait_for_imports_at_forks() -> None:
    """Lets all forks of this process wait, 5 s at most: an import may itself wait for the thread that forks.

    What is registered last runs first. Where an import needs a lock that another library takes at forks, as `logging`
    does, this is called once more after that library is loaded.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_wait)


def _wait() -> None:
    end_s = time.monotonic() + _MAX_WAIT_S
    while _others_import() and time.monotonic() < end_s:
        time.sleep(0.001)


def _others_import() -> bool:
    # Name -> weak reference to the lock of a module that is being imported. Not public; without it nobody waits.
    locks: dict[str, Any] = getattr(_frozen_importlib, "_module_locks", {})
    owners = {getattr(reference(), "owner", None) for reference in tuple(locks.values())}
    return bool(owners - {None, get_ident()})
