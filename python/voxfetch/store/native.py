"""obstore in this process: imported on first use, replaced by a private copy after a fork, brought to rest at exit.

Once obstore has run anything, its runtime exists, and every call in a forked child waits for threads that only the
parent has. Nobody can tell from outside whether that happened, so in a child of the process that imported obstore the
inherited module is never called: a second copy of its library, loaded under another file name, has a runtime of its
own. Linux says whether a process was forked without running a new program; elsewhere only what was first used through
here is known.

A thread of obstore that hands over a result takes Python's lock for a moment after whoever waits has got it. Should
the interpreter end in that moment, the process aborts; `settle` waits for such threads.
"""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import os
import sys
import time
from importlib.machinery import ExtensionFileLoader
from typing import Any, NamedTuple

from voxfetch.errors import ForkSafetyError

__all__ = ["Native", "native", "settle"]

# An attribute of the module `obstore`: id of the process in which it was imported, 0 when that is some parent. It lies
# there and not here because a child inherits it together with the module that it describes.
_OWNER = "_voxfetch_owner"
_NAME = "_obstore"
_FORKED_WITHOUT_EXEC = 0x40
_SETTLE_S = 0.01
_SETTLE_MAX_S = 1.0
_HINT = 'start workers with "spawn" or "forkserver"'


class Native(NamedTuple):
    """The functions and the store classes of one copy of obstore. `inherited` is False for the copy that users see."""

    functions: Any
    classes: Any
    inherited: bool


def native() -> Native:
    """Returns obstore as it can be called in this process. Raises `ForkSafetyError` when it cannot."""
    known = "obstore" in sys.modules
    obstore: Any = importlib.import_module("obstore")
    pid = os.getpid()
    owner: int | None = getattr(obstore, _OWNER, None)
    if owner is None:
        owner = 0 if known and _was_forked() else pid
        setattr(obstore, _OWNER, owner)
        atexit.register(settle)
    if owner == pid:
        return Native(obstore, importlib.import_module("obstore.store"), inherited=False)
    name = f"_voxfetch_obstore_{pid}"
    if name not in sys.modules:
        try:
            sys.modules[name] = _private_copy()
        except Exception as error:
            message = "obstore was used before this process was forked, and a copy for this process could not be made"
            raise ForkSafetyError(message, hint=_HINT) from error
    copy: Any = sys.modules[name]
    return Native(copy, copy._store, inherited=True)


def settle() -> None:
    """Waits until no thread of obstore is at work: some ms, a second at most. Runs at exit, after the first use.

    Who ends requests at exit calls it afterwards, for functions that are registered later run earlier.
    """
    if not os.path.isdir("/proc/self/task"):  # noqa: PTH112
        time.sleep(_SETTLE_S)
        return
    end = time.monotonic() + _SETTLE_MAX_S
    quiet = 0
    # Threads that wait for Python's lock look idle until it is free: here it is, and they wake up.
    while quiet < 2 and time.monotonic() < end:
        time.sleep(0.001)
        quiet = 0 if _is_at_work() else quiet + 1


def _is_at_work() -> bool:
    for number in os.listdir("/proc/self/task"):  # noqa: PTH208
        name, fields = _stat(f"/proc/self/task/{number}/stat")
        if name.startswith(b"tokio") and fields[:1] in ([b"R"], [b"D"]):
            return True
    return False


def _was_forked() -> bool:
    """Whether Linux says that this process was forked and runs the program of its parent."""
    _, fields = _stat("/proc/self/stat")
    return len(fields) > 6 and bool(int(fields[6]) & _FORKED_WITHOUT_EXEC)


def _stat(path: str) -> tuple[bytes, list[bytes]]:
    """Name and the fields behind it in a `stat` of /proc; empty when there is no such file."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib is no better here
            front, _, rest = file.read().rpartition(b")")
    except OSError:
        return b"", []
    return front.partition(b"(")[2], rest.split()


def _private_copy() -> Any:
    source: str | None = sys.modules["obstore._obstore"].__file__
    if source is None:
        raise ImportError("obstore has no library file")
    # The copy registers its own modules of these names. Here nobody can use those of the parent, but they are not ours.
    saved = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in {"obstore", _NAME}}
    try:
        try:
            return _load_from_memory(source)
        except (AttributeError, OSError, ImportError):
            return _load_from_disk(source)
    finally:
        sys.modules.update(saved)


def _load_from_memory(source: str) -> Any:
    descriptor = os.memfd_create("voxfetch-obstore", os.MFD_CLOEXEC)
    try:
        with open(source, "rb") as file:  # noqa: PTH123
            while part := file.read(1 << 20):
                view = memoryview(part)
                while view:
                    view = view[os.write(descriptor, view) :]
        # With `self` for the process the name may be one under which an inherited copy is known: the loader would
        # return that.
        return _load(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _load_from_disk(source: str) -> Any:
    import shutil
    import tempfile

    with tempfile.TemporaryDirectory(prefix=f"voxfetch-{os.getpid()}-") as folder:
        path = os.path.join(folder, os.path.basename(source))  # noqa: PTH118, PTH119
        shutil.copyfile(source, path)
        return _load(path)


def _load(path: str) -> Any:
    # The name decides which init function is looked for.
    loader = ExtensionFileLoader(_NAME, path)
    spec = importlib.util.spec_from_file_location(_NAME, path, loader=loader)
    if spec is None:
        raise ImportError(f"no module can be made of {path}")
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
