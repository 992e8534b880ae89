"""One `Ask` -> calls of an object with obstore's (and obspec's) `get_async` -> one checked `Reply`.

Such objects show no status and no headers. What they do show is written as the reply of a server and judged by
`verify` like any other; what a service cannot do is done in another way: the end of an object where suffixes are
refused (Azure), parts of an object that is stored compressed, parts of an empty one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from voxfetch.errors import ObjectChangedError
from voxfetch.store import TransientError, verify
from voxfetch.store.faults import Refused

if TYPE_CHECKING:
    from voxfetch.store import Ask, Reply

__all__ = ["Transport", "fetch", "whole_of"]

Range = tuple[int, int] | dict[str, int] | None


class Transport(Protocol):
    """Calls of one store object. `suffixes` is False once it was seen to refuse suffixes."""

    suffixes: bool

    async def get(self, key: str, range_: Range, if_match: str | None) -> Any:
        """Returns obstore's `GetResult`. Raises `Refused`."""
        ...

    async def body(self, result: Any) -> Any:
        """Returns all bytes of a result. Raises `Refused`."""
        ...


async def fetch(transport: Transport, ask: Ask) -> Reply:
    """Returns the bytes asked for. Raises `Refused` and what `verify` raises."""
    wanted: Range = None
    if ask.suffix is not None:
        if not transport.suffixes:
            return await _end_of(transport, ask, ask.suffix)
        wanted = {"suffix": ask.suffix}
    elif ask.start is not None and ask.end is not None:
        wanted = (ask.start, ask.end)
    try:
        result = await transport.get(ask.key, wanted, ask.if_match)
    except Refused as refused:
        fault = refused.fault
        is_outside = fault.kind == "outside" or (fault.kind == "status" and fault.status == 416)
        may_be_empty = is_outside and (ask.suffix is not None or ask.start == 0)
        if not may_be_empty and (ask.suffix is None or fault.kind not in {"no suffix", "whole"}):
            raise
    else:
        return await _checked(transport, ask, result, ranged=wanted is not None)
    if fault.kind == "no suffix" and ask.suffix is not None:
        transport.suffixes = False
        return await _end_of(transport, ask, ask.suffix)
    # Of an empty object there is no first or last byte, and some services say so.
    return await _from_whole(transport, ask)


def whole_of(ask: Ask) -> Ask:
    """Returns the ask for the whole object of which a part is wanted, as large as may be held for it."""
    nbytes = ask.suffix or ((ask.end or 0) - (ask.start or 0))
    return replace(ask, start=None, end=None, suffix=None, max_nbytes=max(ask.max_nbytes, 4 * nbytes))


async def _checked(transport: Transport, ask: Ask, result: Any, *, ranged: bool) -> Reply:
    # Of an empty object there is no range, and what answers one is the whole.
    ranged = ranged and result.meta["size"] > 0
    headers = _headers(result, ranged=ranged)
    if ranged and headers.get("content-encoding") in verify.ENCODINGS:
        return await _from_whole(transport, ask)
    expected = verify.judge(ask, 206 if ranged else 200, headers)
    return verify.finish(ask, expected, await transport.body(result))


async def _from_whole(transport: Transport, ask: Ask) -> Reply:
    """A part of an object that has to be read whole."""
    result = await transport.get(ask.key, None, ask.if_match)
    if _headers(result, ranged=False).get("content-encoding") in verify.ENCODINGS:
        return verify.cut(ask, await _checked(transport, whole_of(ask), result, ranged=False))
    return await _checked(transport, ask, result, ranged=False)


async def _end_of(transport: Transport, ask: Ask, suffix: int) -> Reply:
    """The end of an object from a service that knows no suffixes: its size first."""
    first = None
    try:
        first = await transport.get(ask.key, (0, 1), ask.if_match)
    except Refused as refused:
        if not refused.fault.no_such_range:
            raise
    headers = {} if first is None else _headers(first, ranged=True)
    if first is None or first.meta["size"] == 0 or headers.get("content-encoding") in verify.ENCODINGS:
        return await _from_whole(transport, ask)
    await transport.body(first)
    end = int(first.meta["size"])
    if_match = ask.if_match or verify.strong_etag(headers.get("etag"))
    last = replace(ask, start=max(end - suffix, 0), end=end, suffix=None, if_match=if_match)
    reply = None
    try:
        reply = await fetch(transport, last)
    except ObjectChangedError:
        pass
    except Refused as refused:
        if refused.fault.status not in {404, 412, 416} or ask.if_match is not None:
            raise
    if reply is not None and reply.total in {None, end}:
        return reply
    message = "the object was replaced while its size was looked up"
    error = ObjectChangedError(message, key=ask.key)
    raise error if ask.if_match is not None else TransientError(error)


def _headers(result: Any, *, ranged: bool) -> dict[str, str]:
    """Headers of the reply that a result was made of, as far as it shows them."""
    meta = result.meta
    start, end = result.range
    headers = {"content-range": f"bytes {start}-{end - 1}/{meta['size']}"}
    if not ranged:
        headers = {"content-length": str(meta["size"])}
    if (etag := meta.get("e_tag")) is not None:
        headers["etag"] = str(etag)
    modified = meta.get("last_modified")
    # The epoch stands for no date.
    if modified is not None and modified.timestamp() > 0:
        from email.utils import format_datetime

        headers["last-modified"] = format_datetime(modified, usegmt=True)
    attributes: dict[str, str] = result.attributes or {}
    encoding = attributes.get("Content-Encoding", "").lower()
    # `aws-chunked` is of the upload, and some clients let it be stored.
    names = [name.strip() for name in encoding.split(",") if name.strip() not in {"", "identity", "aws-chunked"}]
    if names:
        headers["content-encoding"] = ",".join(names)
    return headers
