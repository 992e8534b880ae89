"""Exceptions of voxfetch: what went wrong, where, and what to do about it.

Every exception is a `VoxfetchError` and, where one fits, the builtin a caller would expect (`FileNotFoundError` for
something missing, `ValueError` for a malformed document). All carry the same attributes, pickle, and hold no
credentials. Of a read that fails in many places the first failure in plan order is raised; `others` counts the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "ChecksumError",
    "CodecError",
    "ConflictError",
    "CredentialsError",
    "DataError",
    "ForkSafetyError",
    "InternalError",
    "LimitExceededError",
    "MetadataError",
    "NotFoundError",
    "ObjectChangedError",
    "PermissionDeniedError",
    "RangeNotHonouredError",
    "ReadOnlyError",
    "RetriesExhaustedError",
    "SelectionError",
    "ShardIndexError",
    "StoreError",
    "StoreTimeoutError",
    "UnsupportedError",
    "VoxfetchError",
]


class VoxfetchError(Exception):
    """Base of all exceptions of voxfetch.

    Attributes: `message` says what went wrong; `key` names the stored object (key or path); `byte_range` is the
    half-open range (start, end) of its bytes; `chunk` holds the grid coordinates of the chunk in the whole array;
    `attempts` counts the tries and `status` is the last HTTP status (both None for local files); `hint` says what to
    do; `others` counts the further failures of the same call.
    """

    def __init__(  # noqa: PLR0913 - one keyword per attribute that every exception carries
        self,
        message: str,
        *,
        key: str | None = None,
        byte_range: tuple[int, int] | None = None,
        chunk: Sequence[int] | None = None,
        attempts: int | None = None,
        status: int | None = None,
        hint: str | None = None,
        others: int = 0,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.key = key
        self.byte_range = byte_range
        self.chunk = None if chunk is None else tuple(chunk)
        self.attempts = attempts
        self.status = status
        self.hint = hint
        self.others = others

    @property
    def kind(self) -> str:
        """Name of the exception class, for logs and for messages between processes."""
        return type(self).__name__

    def in_object(self, key: str) -> Self:
        """Names the stored object, unless a lower layer did; returns the exception itself."""
        if self.key is None:
            self.key = key
        return self

    def __str__(self) -> str:
        where: list[str] = []
        if self.chunk is not None:
            where.append(f"chunk {self.chunk}")
        if self.byte_range is not None:
            where.append(f"bytes {self.byte_range[0]}..{self.byte_range[1]}")
        if self.status is not None:
            where.append(f"status {self.status}")
        if self.attempts is not None:
            where.append(f"{self.attempts} attempts")
        text = self.message if self.key is None else f"{self.key}: {self.message}"
        if where:
            text += f" ({', '.join(where)})"
        if self.others:
            text += f"; and {self.others} more error{'s' if self.others > 1 else ''}"
        if self.hint:
            text += f". Hint: {self.hint}"
        return text

    def __reduce__(self) -> tuple[Callable[..., VoxfetchError], tuple[Any, ...]]:
        fields = {name: getattr(self, name) for name in _FIELDS}
        return _rebuild, (type(self), self.message, fields)


_FIELDS = ("key", "byte_range", "chunk", "attempts", "status", "hint", "others")


def _rebuild(cls: type[VoxfetchError], message: str, fields: dict[str, Any]) -> VoxfetchError:
    return cls(message, **fields)


class MetadataError(VoxfetchError, ValueError):
    """A document breaks the rules of its format."""


class UnsupportedError(VoxfetchError, NotImplementedError):
    """Legal, but not something this version reads or writes."""


class SelectionError(VoxfetchError, IndexError):
    """A selection or an output that does not fit the array."""


class ReadOnlyError(VoxfetchError):
    """A write to an array that was opened with mode "r"."""


class NotFoundError(VoxfetchError, FileNotFoundError):
    """Something that must exist does not."""


class StoreError(VoxfetchError, OSError):
    """The store failed."""


class PermissionDeniedError(StoreError, PermissionError):
    """The store refuses access."""


class CredentialsError(StoreError):
    """Credentials are missing, expired or refused."""


class StoreTimeoutError(StoreError, TimeoutError):
    """The store did not answer in time."""


class RangeNotHonouredError(StoreError):
    """The server answered a range request with something else."""


class RetriesExhaustedError(StoreError):
    """A request failed as often as the retry policy allows."""


class ObjectChangedError(StoreError):
    """A stored object was replaced or changed while it was read."""


class DataError(VoxfetchError):
    """Stored data is damaged."""


class ShardIndexError(DataError):
    """The index of a shard is broken, or an entry of it points nowhere."""


class CodecError(DataError):
    """Encoded bytes that their codec refuses."""


class ChecksumError(DataError):
    """A stored checksum differs from the computed one."""


class LimitExceededError(VoxfetchError, MemoryError):
    """More memory, depth or size than the limits allow."""


class ConflictError(VoxfetchError):
    """Another writer was there first, or something else lies where data should go."""


class ForkSafetyError(VoxfetchError):
    """Something of the parent process that cannot be used after `fork`."""


class InternalError(VoxfetchError):
    """A bug of voxfetch."""
