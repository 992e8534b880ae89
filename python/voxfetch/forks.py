"""What other threads are importing when a process forks: the child begins it again.

Those threads are gone in the child: what they were importing would stay half imported and locked for ever, and whoever
imports it would hang. What reads need is imported on first use, by whichever thread that is, so the first read of one
thread and a fork in another are enough for that.
"""

from __future__ import annotations

import _frozen_importlib
import os
import sys
import time
from _thread import get_ident
from importlib.machinery import ExtensionFileLoader
from typing import Any

__all__ = ["care_for_imports_at_forks"]

# They cannot begin again: numpy is loaded once only, and the other sets up OpenSSL, which holds locks of its own. Forks
# wait for them, but for no other: some need locks that forks hold, as that of `logging`.
_ONCE_ONLY = {"numpy", "aiohttp.connector"}
_MAX_WAIT_S = 5.0


def care_for_imports_at_forks() -> None:
    """Cares for all forks of this process from now on."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_wait, after_in_child=_forget)


def _wait() -> None:
    end_s = time.monotonic() + _MAX_WAIT_S
    while not _ONCE_ONLY.isdisjoint(_imported_by_others()) and time.monotonic() < end_s:
        time.sleep(0.001)


def _forget() -> None:
    for name in _imported_by_others():
        _locks().pop(name, None)
        if getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False):
            for other in tuple(sys.modules):
                if other == name or (other.startswith(f"{name}.") and not _is_compiled(other)):
                    del sys.modules[other]


def _imported_by_others() -> list[str]:
    """Returns what other threads are importing; in a forked child these are all threads of the parent."""
    locks = tuple(_locks().items())
    return [name for name, lock in locks if getattr(lock(), "owner", None) not in {None, get_ident()}]


def _locks() -> dict[str, Any]:
    """Name -> weak reference to the lock of a module that is being imported. Not public; without it nothing is done."""
    return getattr(_frozen_importlib, "_module_locks", {})


def _is_compiled(name: str) -> bool:
    """Whether a module is a library, some of which cannot be loaded twice."""
    return isinstance(getattr(getattr(sys.modules[name], "__spec__", None), "loader", None), ExtensionFileLoader)
