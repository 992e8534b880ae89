"""Repositories of icechunk on disk: one version of the hierarchy that is in them, read through icechunk itself.

A repository has a folder `snapshots`, and `refs` (versions 1 of its specification) or a file `repo` (version 2).
Source: the specification of icechunk, "File layout". What its chunks refer to outside of the repository is followed as
icechunk is told to; a session that was opened with credentials for that is a source of its own (`session.store`).
"""

from __future__ import annotations

import importlib
import os
import re
from typing import TYPE_CHECKING, Any

from voxfetch.errors import NotFoundError, UnsupportedError
from voxfetch.store.adapters import AdapterStore
from voxfetch.store.foreign import ZarrSource
from voxfetch.store.local import file_url

if TYPE_CHECKING:
    from voxfetch.node import Revision
    from voxfetch.store import RemoteStore

__all__ = ["is_repository", "repository_store"]

# What its reports draw in front of each line.
_MARKS = re.compile(r"^(?:[\s|`>\u2502\u2570\u2500-]|[x\u00d7]\s)+")


def is_repository(folder: str) -> bool:
    """Returns whether a folder (absolute path) is that of a repository."""
    here = set(os.listdir(folder))  # noqa: PTH208 - str in
    return "snapshots" in here and bool(here & {"refs", "repo"})


def repository_store(folder: str, revision: tuple[Revision, str]) -> RemoteStore:
    """Returns the store of one branch, tag or snapshot, read-only. Pickles with its snapshot.

    Raises `UnsupportedError` when icechunk is not installed or does not read this repository, `NotFoundError`.
    """
    try:
        icechunk: Any = importlib.import_module("icechunk")
    except ImportError:
        message = "a repository of icechunk, which is read through icechunk"
        raise UnsupportedError(message, key=folder, hint="pip install icechunk") from None
    kind, name = revision
    try:
        repository = icechunk.Repository.open(icechunk.local_filesystem_storage(folder))
    except icechunk.IcechunkError as error:
        message = f"icechunk {icechunk.__version__} does not open this repository: {_first_line(error)}"
        raise UnsupportedError(message, key=folder, hint="was it written by another version of icechunk?") from None
    try:
        session = repository.readonly_session(**{"snapshot_id" if kind == "snapshot" else kind: name})
    except (icechunk.IcechunkError, ValueError) as error:
        message = f"icechunk finds no {kind} {name!r}: {_first_line(error)}"
        known = sorted(repository.list_branches()), sorted(repository.list_tags())
        hint = "it has the branches {} and the tags {}".format(*(", ".join(names) or "(none)" for names in known))
        raise NotFoundError(message, key=folder, hint=hint) from None
    return AdapterStore(ZarrSource(session.store, f"{file_url(folder)}|icechunk:"))


def _first_line(error: Exception) -> str:
    """What icechunk says, without where in its sources."""
    lines = [_MARKS.sub("", line) for line in str(getattr(error, "message", error)).splitlines()]
    return next((line for line in lines if line), type(error).__name__)[:200]
