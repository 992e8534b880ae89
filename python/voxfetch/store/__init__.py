"""Where documents come from: one small protocol (names after obspec). A store knows keys and bytes, nothing of arrays.

Keys are relative, with `/` between parts, without empty parts, `.` or `..`. Chunk data of local arrays does not pass
through here; the compiled core reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from voxfetch.errors import MetadataError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MAX_DOCUMENT_NBYTES", "Store", "check_key", "join_key"]

MAX_DOCUMENT_NBYTES = 16 << 20
"""Bytes of the largest metadata document that is read."""


class Store(Protocol):
    """What reading metadata needs of a store."""

    @property
    def url(self) -> str:
        """URL of the store's root, without a trailing slash and without credentials."""
        ...

    def get(self, key: str) -> bytes | None:
        """Returns the whole object, or None when there is none.

        Raises `LimitExceededError` past `MAX_DOCUMENT_NBYTES`, `PermissionDeniedError`, `StoreError`.
        """
        ...

    def exists(self, key: str) -> bool:
        """Returns whether there is an object of this key."""
        ...

    def list(self, prefix: str = "") -> Sequence[str]:
        """Returns the names of what lies directly under `prefix` (objects and prefixes), sorted; empty if nothing does.

        Raises `PermissionDeniedError`, `StoreError`.
        """
        ...


def check_key(key: str) -> str:
    """Returns `key` if it stays inside its store. Raises `MetadataError` for `..`, absolute keys, NUL and the like."""
    if key and ("\0" in key or "\\" in key or "://" in key or any(part in {"", ".", ".."} for part in key.split("/"))):
        message = f"key {key[:200]!r} is not a relative path inside its store"
        raise MetadataError(message, hint="keys have `/` between parts and no empty part, `.` or `..`")
    return key


def join_key(*parts: str) -> str:
    """Joins keys with `/`, leaving out empty ones."""
    return "/".join(part for part in parts if part)
