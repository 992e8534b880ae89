"""One request to a store of zarr, compared with what came.

In: a key and a byte range, half-open, and perhaps the version of the object that is meant. Out: exactly those bytes, or
None when there is no such object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.storage import ObjectStore

from voxfetch import ObjectChangedError, RangeNotHonouredError

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest, Store
    from zarr.core.buffer import Buffer, BufferPrototype

__all__ = ["Fetched", "Version", "fetch"]

_ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


class Version(NamedTuple):
    """Which object it was: its ETag and its size in bytes, None where the store does not show them."""

    etag: str | None = None
    size: int | None = None


class Fetched(NamedTuple):
    """A reply, and the version of the object it is of."""

    body: Buffer
    version: Version


async def fetch(
    store: Store, key: str, prototype: BufferPrototype, ask: ByteRequest | None, version: Version | None = None
) -> Fetched | None:
    """Returns the bytes asked for, None when there is no such object.

    A `version` counts where the store shows versions. Raises `ObjectChangedError` for another version and for too few
    bytes, `RangeNotHonouredError` for other bytes, `TypeError` for what is no byte range, and what the store raises.
    """
    # Of this very class: another one may do something else when it is asked.
    if type(store) is ObjectStore:
        return await _from_obstore(cast("Any", store).store, key, prototype, ask, version)
    body = await store.get(key, prototype, ask)
    if body is None:
        return None
    _check_length(key, ask, len(body))
    return Fetched(body, Version())


async def _from_obstore(
    store: Any, key: str, prototype: BufferPrototype, ask: ByteRequest | None, version: Version | None
) -> Fetched | None:
    """As `ObjectStore.get`, with what it does not tell: the ETag, the size of the object, the range that came."""
    from obstore.exceptions import NotSupportedError, PreconditionError

    options = _options(ask)
    # No server compares weak ones.
    if version is not None and version.etag is not None and not version.etag.startswith("W/"):
        options["if_match"] = version.etag
    try:
        result = await store.get_async(key, options=options)
        body = prototype.buffer.from_bytes(await result.bytes_async())
    except _ABSENT:
        return None
    except PreconditionError:
        raise _replaced(key, ask) from None
    except NotSupportedError:
        if not isinstance(ask, SuffixByteRequest):
            raise
        return await _suffix(store, key, prototype, ask)
    found = Version(result.meta["e_tag"], result.meta["size"])
    if version is not None and version != found:
        raise _replaced(key, ask)
    _check_length(key, ask, len(body))
    start, end = result.range
    if end - start != len(body) or (isinstance(ask, RangeByteRequest) and start != ask.start):
        message = f"bytes {start}..{end} came, {len(body):,} of them"
        raise RangeNotHonouredError(message, key=key, byte_range=_range(ask))
    return Fetched(body, found)


async def _suffix(store: Any, key: str, prototype: BufferPrototype, ask: SuffixByteRequest) -> Fetched | None:
    """The last bytes where suffixes are not known, as on Azure."""
    try:
        head = await store.head_async(key)
    except _ABSENT:
        return None
    start, end = max(head["size"] - ask.suffix, 0), head["size"]
    _check_length(key, ask, end - start)
    return await _from_obstore(store, key, prototype, RangeByteRequest(start, end), Version(head["e_tag"], end))


def _options(ask: ByteRequest | None) -> dict[str, Any]:
    """Options of a GET, as obstore has them."""
    match ask:
        case None:
            return {}
        case RangeByteRequest(start, end):
            return {"range": (start, end)}
        case OffsetByteRequest(offset):
            return {"range": {"offset": offset}}
        case SuffixByteRequest(suffix):
            return {"range": {"suffix": suffix}}
    raise TypeError(f"Unexpected byte_range, got {ask}.")


def _check_length(key: str, ask: ByteRequest | None, nbytes: int) -> None:
    """Raises for another number of bytes than was asked for; of a whole object or its rest nobody knows it."""
    if isinstance(ask, RangeByteRequest):
        wanted = ask.end - ask.start
    elif isinstance(ask, SuffixByteRequest):
        wanted = ask.suffix
    else:
        return
    if nbytes != wanted:
        kind = ObjectChangedError if nbytes < wanted else RangeNotHonouredError
        raise kind(f"{nbytes:,} bytes came of {wanted:,}", key=key, byte_range=_range(ask))


def _range(ask: ByteRequest | None) -> tuple[int, int] | None:
    return (ask.start, ask.end) if isinstance(ask, RangeByteRequest) else None


def _replaced(key: str, ask: ByteRequest | None) -> ObjectChangedError:
    message = "the object was replaced after its index was read"
    return ObjectChangedError(message, key=key, byte_range=_range(ask), hint="read again")
