"""Judges the reply of a server against an `Ask`: pure functions that every transport calls, because none is safe alone.

A transport sends `range_header(ask)`. To 2xx it applies `judge` before the body is read, reads no more than the
`Expected` says, and gives the body to `finish`; to anything else it applies `refuse`. Headers are a mapping that is
case-insensitive or has lower-case names. Rules: RFC 9110, sections 8.8 (ETag), 13.1.1 (If-Match), 14 (ranges), 15
(status). Errors name key, range and status; header values, URLs and bodies of a server stay out of them.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TypeVar

from voxfetch.errors import (
    CodecError,
    CredentialsError,
    InternalError,
    LimitExceededError,
    ObjectChangedError,
    PermissionDeniedError,
    RangeNotHonouredError,
    StoreError,
    VoxfetchError,
)
from voxfetch.store import BodyLimits, Reply, TransientError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Buffer

    from voxfetch.store import Ask

__all__ = [
    "ENCODINGS",
    "MAX_RETRY_AFTER_S",
    "ContentRange",
    "Expected",
    "asked_nbytes",
    "body_limits",
    "byte_range",
    "checked",
    "cut",
    "extent",
    "finish",
    "judge",
    "parse_content_range",
    "parse_retry_after",
    "range_header",
    "refuse",
    "strong_etag",
    "too_large",
]

MAX_RETRY_AFTER_S = 30
"""Longest wait that a server can ask for, in seconds."""

_WHOLE_FACTOR = 4
_WHOLE_NBYTES = 8 << 20
ENCODINGS = {"gzip": "gzip", "x-gzip": "gzip", "br": "br"}
"""Content-Encodings of whole objects that are undone, by their names in headers."""
# Bytes that do not compress get larger: in gzip by 5 a block of at most 64 KiB, header and trailer; in Brotli by less.
_ENCODED_EXTRA_NBYTES = 1 << 10
_GZIP_PIECE_NBYTES = 1 << 14
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_THROTTLED = {429, 503}
_ABSENT = {404, 410}
# Codes in error documents of S3, GCS and Azure; the statuses that carry them differ between servers.
_BAD_CREDENTIALS = {
    "AuthenticationFailed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_SLOW_DOWN = {"RequestLimitExceeded", "ServerBusy", "SlowDown"}
_NO_BUCKET = {"ContainerNotFound", "NoSuchBucket"}
_EXPIRED_LINK = b"Request has expired"
_CODE = re.compile(rb"<Code>\s*([A-Za-z]{1,64})\s*</Code>")
_SIZE = re.compile(rb"<ActualObjectSize>\s*(\d{1,19})\s*</ActualObjectSize>")
_CONTENT_RANGE = re.compile(r"bytes[ \t]+(?:(\d{1,19})-(\d{1,19})|\*)/(?:(\d{1,19})|\*)", re.IGNORECASE | re.ASCII)
_ETAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]{0,1024}"')
_LENGTH = re.compile(r"\d{1,19}", re.ASCII)

_Error = TypeVar("_Error", bound=VoxfetchError)


class ContentRange(NamedTuple):
    """A Content-Range header: bytes `[start, end)` of `total`. `bytes */n` has no start and end, `a-b/*` no total."""

    start: int | None
    end: int | None
    total: int | None


class Expected(NamedTuple):
    """What the body of an accepted reply must be.

    It has exactly `nbytes` bytes, or, where nobody can tell (None), at most `max_nbytes`. The rest is for `finish`:
    `encoding` is a value of `ENCODINGS`, None for bytes as they are.
    """

    status: int
    nbytes: int | None
    max_nbytes: int
    encoding: str | None
    start: int
    total: int | None
    etag: str | None
    modified: str | None

    @property
    def limit(self) -> int:
        """Bytes after which a body is too long, whatever follows."""
        return self.max_nbytes if self.nbytes is None else self.nbytes


def asked_nbytes(ask: Ask) -> int | None:
    """Returns how many bytes are asked for, None for a whole object. A suffix may be longer than its object."""
    return ask.end - ask.start if ask.start is not None and ask.end is not None else ask.suffix


def byte_range(ask: Ask) -> tuple[int, int] | None:
    """Returns the half-open range of a start/end ask, None for the others: the place of an error."""
    return None if ask.start is None or ask.end is None else (ask.start, ask.end)


def range_header(ask: Ask) -> str | None:
    """Returns the value of the Range header, None for a whole object. Raises `InternalError` for an empty range."""
    if ask.suffix is not None:
        if ask.suffix <= 0 or ask.start is not None or ask.end is not None:
            raise InternalError(f"a suffix of {ask.suffix} bytes", key=ask.key)
        return f"bytes=-{ask.suffix}"
    if ask.start is None and ask.end is None:
        return None
    if ask.start is None or ask.end is None or not 0 <= ask.start < ask.end:
        raise InternalError(f"the range [{ask.start}, {ask.end})", key=ask.key)
    return f"bytes={ask.start}-{ask.end - 1}"


def body_limits(ask: Ask) -> BodyLimits:
    """Returns how much of a body `judge` may ask for, before any of its reply is known."""
    asked = asked_nbytes(ask)
    if asked is None:
        return BodyLimits(part=0, whole=_encoded_nbytes(ask), sized=False)
    return BodyLimits(part=asked, whole=_whole_nbytes(asked), sized=True)


def parse_content_range(value: str) -> ContentRange | None:
    """Returns what a Content-Range header says, None for one that makes no sense."""
    match = _CONTENT_RANGE.fullmatch(value.strip(" \t"))
    if match is None:
        return None
    first, last, total = (None if digits is None else int(digits) for digits in match.groups())
    if first is None or last is None:
        return None if total is None else ContentRange(None, None, total)
    if first > last or (total is not None and last >= total):
        return None
    return ContentRange(first, last + 1, total)


def strong_etag(value: str | None) -> str | None:
    """Returns an ETag with its quotes; None for a weak one, for one that is not quoted and for none."""
    return value if value is not None and _ETAG.fullmatch(value) else None


def parse_retry_after(value: str | None, date: str | None = None) -> float | None:
    """Returns the seconds that a Retry-After header asks to wait, at most `MAX_RETRY_AFTER_S`, None if it says nothing.

    A point in time is compared with `date`, the Date header of the same reply: clocks differ.
    """
    value = "" if value is None else value.strip(" \t")
    if _LENGTH.fullmatch(value):
        return min(float(value), MAX_RETRY_AFTER_S)
    if not value or date is None:
        return None
    from email.utils import parsedate_to_datetime

    try:
        wait_s = (parsedate_to_datetime(value) - parsedate_to_datetime(date)).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(wait_s, 0.0), MAX_RETRY_AFTER_S)


def judge(ask: Ask, status: int, headers: Mapping[str, str]) -> Expected:
    """Returns what the body of a 2xx reply must be.

    Raises `RangeNotHonouredError`, `ObjectChangedError`, `LimitExceededError`, `StoreError`, `TransientError` when no
    body could answer the ask.
    """
    if status not in {200, 206}:
        raise _error(StoreError, ask, "the server answered with a status that says nothing of the object", status)
    _check_version(ask, status, headers)
    length = _content_length(ask, status, headers)
    encoding = headers.get("content-encoding", "").strip(" \t").lower()
    etag, modified = strong_etag(headers.get("etag")), headers.get("last-modified")
    if status == 206:
        if encoding not in {"", "identity"}:
            raise _error(RangeNotHonouredError, ask, "the server compressed a part of the object", status)
        start, end, total = _part(ask, status, headers)
        _check_length(ask, status, length, end - start)
        return Expected(status, end - start, end - start, None, start=start, total=total, etag=etag, modified=modified)
    asked = asked_nbytes(ask)
    if asked is not None:
        most = _whole_nbytes(asked)
        if length is None or length > most or encoding not in {"", "identity"}:
            message = "the server ignores ranges and sends the whole object"
            hint = "a server with range requests, or a copy of the data, is needed"
            raise _error(RangeNotHonouredError, ask, message, status, hint)
        if ask.end is not None and ask.end > length and not _is_empty(ask, length):
            raise _error(ObjectChangedError, ask, f"the object has only {length:,} bytes", status)
        return Expected(status, length, length, None, start=0, total=length, etag=etag, modified=modified)
    undone = ENCODINGS.get(encoding)
    if undone is None and encoding not in {"", "identity"}:
        message = "the server compressed the object with something other than gzip and Brotli"
        raise _error(StoreError, ask, message, status, "store the object without a Content-Encoding, or with gzip")
    most = ask.max_nbytes if undone is None else _encoded_nbytes(ask)
    if length is not None and length > most:
        raise too_large(ask, status)
    return Expected(status, length, most, undone, start=0, total=length, etag=etag, modified=modified)


def finish(ask: Ask, expected: Expected, body: Buffer) -> Reply:
    """Returns the reply with what was asked for. See `checked` and `cut`."""
    reply = checked(ask, expected, body)
    return cut(ask, reply) if expected.status == 200 else reply


def cut(ask: Ask, whole: Reply) -> Reply:
    """Returns the part asked for of the reply with the whole object. Raises `ObjectChangedError`."""
    body = memoryview(whole.body)
    start, end = extent(ask, body.nbytes)
    return whole if end - start == body.nbytes else whole._replace(body=bytes(body[start:end]), start=start)


def extent(ask: Ask, total: int) -> tuple[int, int]:
    """Returns which bytes `[start, end)` of an object of `total` bytes are asked for. Raises `ObjectChangedError`."""
    if ask.suffix is not None:
        return max(total - ask.suffix, 0), total
    if ask.start is None or ask.end is None:
        return 0, total
    if _is_empty(ask, total):
        return 0, 0
    if ask.end > total:
        raise _error(ObjectChangedError, ask, f"the object has only {total:,} bytes", None)
    return ask.start, ask.end


def checked(ask: Ask, expected: Expected, body: Buffer) -> Reply:
    """Returns the reply after a look at its body, which may have been left unread after `expected.limit` bytes.

    Of status 200 it is the whole object, whatever was asked for. Raises `TransientError` for a body that is too short,
    `RangeNotHonouredError`, `LimitExceededError`, `StoreError`.
    """
    status, total = expected.status, expected.total
    nbytes = memoryview(body).nbytes
    if expected.nbytes is None:
        if nbytes > expected.max_nbytes:
            raise too_large(ask, status)
    elif nbytes < expected.nbytes:
        raise _short(ask, status, nbytes, expected.nbytes)
    elif nbytes > expected.nbytes:
        message = f"the body is longer than the {expected.nbytes:,} bytes that were announced"
        raise _error(RangeNotHonouredError, ask, message, status)
    if expected.encoding is not None:
        body = _gunzip(ask, status, body) if expected.encoding == "gzip" else _unbrotli(ask, expected, body)
        nbytes = total = len(body)
    return Reply(body, expected.start, nbytes if status == 200 else total, expected.etag, expected.modified)


def refuse(ask: Ask, status: int, headers: Mapping[str, str], body: bytes = b"") -> Reply | None:
    """Returns None when a reply other than 2xx means that there is no such object, an empty reply for an empty one.

    `body` is the start of the body, a few KiB, in which object stores give reasons. Raises `TransientError` and the
    exceptions of `RemoteStore.get` for all else.
    """
    codes = {match.decode() for match in _CODE.findall(body)} | {headers.get("x-ms-error-code", "")}
    if status in _ABSENT:
        if codes & _NO_BUCKET:
            raise _error(StoreError, ask, "there is no such bucket", status)
        return None
    _refuse_access(ask, status, codes, body)
    if status in _TRANSIENT or codes & (_SLOW_DOWN | {"RequestTimeout"}):
        throttled = status in _THROTTLED or bool(codes & _SLOW_DOWN)
        message = "the server asks for fewer requests" if throttled else "the server failed"
        wait_s = parse_retry_after(headers.get("retry-after"), headers.get("date"))
        raise TransientError(_error(StoreError, ask, message, status), retry_after_s=wait_s, throttled=throttled)
    if status == 412 and ask.if_match is not None:
        raise _error(ObjectChangedError, ask, "the object was replaced while it was read", status)
    if status == 416:
        return _unsatisfiable(ask, status, headers, body)
    raise _error(StoreError, ask, "the server refused the request", status)


def too_large(ask: Ask, status: int | None = None) -> LimitExceededError:
    """Returns the error for a whole object of more than `ask.max_nbytes` bytes."""
    message = f"the object has more than the {ask.max_nbytes:,} bytes that are read at once"
    return _error(LimitExceededError, ask, message, status, "is this what it is taken for?")


def _error(kind: type[_Error], ask: Ask, message: str, status: int | None, hint: str | None = None) -> _Error:
    return kind(message, key=ask.key, byte_range=byte_range(ask), status=status, hint=hint)


def _short(ask: Ask, status: int, nbytes: int, expected: int) -> TransientError:
    return TransientError(_error(StoreError, ask, f"the body ends after {nbytes:,} of {expected:,} bytes", status))


def _whole_nbytes(asked: int) -> int:
    """Bytes of the largest whole object that is taken in place of a part."""
    return max(_WHOLE_FACTOR * asked, _WHOLE_NBYTES)


def _encoded_nbytes(ask: Ask) -> int:
    """Bytes that as much as may be read can have in one of `ENCODINGS`."""
    return ask.max_nbytes + ask.max_nbytes // 1000 + _ENCODED_EXTRA_NBYTES


def _check_version(ask: Ask, status: int, headers: Mapping[str, str]) -> None:
    """A server may ignore If-Match; what it sends then must still say that it is the version asked for."""
    # nginx makes the same tag weak when a filter may have touched the body, and the bytes are checked otherwise.
    if ask.if_match is not None and headers.get("etag", "").removeprefix("W/") != ask.if_match:
        raise _error(ObjectChangedError, ask, "the reply does not belong to the version asked for", status)


def _content_length(ask: Ask, status: int, headers: Mapping[str, str]) -> int | None:
    value = headers.get("content-length")
    if value is None:
        return None
    if not _LENGTH.fullmatch(value.strip(" \t")):
        raise _error(StoreError, ask, "the reply has a Content-Length that is not a number", status)
    return int(value)


def _check_length(ask: Ask, status: int, length: int | None, nbytes: int) -> None:
    """Content-Length against Content-Range. Too short: cut on its way, perhaps; too long: never right."""
    if length is None or length == nbytes:
        return
    if length < nbytes:
        raise _short(ask, status, length, nbytes)
    message = f"the server sends {length:,} bytes and calls them {nbytes:,}"
    raise _error(RangeNotHonouredError, ask, message, status)


def _part(ask: Ask, status: int, headers: Mapping[str, str]) -> tuple[int, int, int | None]:
    """Start, end and total of a 206 that is what was asked for."""
    value = headers.get("content-range")
    if value is None:
        raise _error(RangeNotHonouredError, ask, "the server does not say which bytes it sends", status)
    got = parse_content_range(value)
    if got is None or got.start is None or got.end is None:
        raise _error(RangeNotHonouredError, ask, "the Content-Range of the reply makes no sense", status)
    start, end, total = got.start, got.end, got.total
    sent = f"the server sends bytes {start}..{end}" + ("" if total is None else f" of {total}")
    if ask.suffix is not None:
        if total is None:
            message = f"{sent} of an unknown number for the last {ask.suffix}"
            raise _error(RangeNotHonouredError, ask, message, status)
        if (start, end) != (max(total - ask.suffix, 0), total):
            raise _error(RangeNotHonouredError, ask, f"{sent} for the last {ask.suffix}", status)
    elif ask.start is None or ask.end is None:
        raise _error(RangeNotHonouredError, ask, f"{sent} for the whole object", status)
    elif (start, end) != (ask.start, ask.end):
        if start == ask.start and end == total and end < ask.end:
            raise _error(ObjectChangedError, ask, f"the object has only {total:,} bytes", status)
        raise _error(RangeNotHonouredError, ask, sent, status)
    return start, end, total


def _refuse_access(ask: Ask, status: int, codes: set[str], body: bytes) -> None:
    hint = "pass credentials, headers or a signed URL that are valid now"
    if status == 401:
        raise _error(CredentialsError, ask, "the server asks for credentials", status, hint)
    if status in {400, 403} and (codes & _BAD_CREDENTIALS or _EXPIRED_LINK in body):
        raise _error(CredentialsError, ask, "the credentials have expired or are refused", status, hint)
    if status == 403 and not codes & _SLOW_DOWN:
        message = "the server refuses access"
        hint = "check the permissions; if the server hides in this way what does not exist, pass missing_status=403"
        raise _error(PermissionDeniedError, ask, message, status, hint)


def _is_empty(ask: Ask, total: int) -> bool:
    """Whether the end or the beginning of an object without a byte is asked for: there is nothing, and it is there."""
    return total == 0 and (ask.suffix is not None or ask.start == 0)


def _unsatisfiable(ask: Ask, status: int, headers: Mapping[str, str], body: bytes) -> Reply:
    got = parse_content_range(headers.get("content-range", ""))
    # S3 says it in a document.
    size = _SIZE.search(body)
    total = got.total if got is not None else int(size[1]) if size else None
    if total is not None and _is_empty(ask, total):
        _check_version(ask, status, headers)
        return Reply(b"", 0, 0, strong_etag(headers.get("etag")), headers.get("last-modified"))
    if ask.suffix is not None:
        raise _error(RangeNotHonouredError, ask, "the server does not know the end of an object", status)
    if ask.start is not None:
        raise _error(ObjectChangedError, ask, "the range lies outside the object", status)
    raise _error(StoreError, ask, "the server refused a range that was not asked for", status)


def _gunzip(ask: Ask, status: int, body: Buffer) -> bytes:
    """Decodes gzip, member after member, into at most `ask.max_nbytes` bytes."""
    decoder = zlib.decompressobj(wbits=31)
    room = ask.max_nbytes
    parts: list[bytes] = []
    encoded = memoryview(body)
    for at in range(0, encoded.nbytes, _GZIP_PIECE_NBYTES):
        piece = bytes(encoded[at : at + _GZIP_PIECE_NBYTES])
        while piece:
            if decoder.eof:
                decoder = zlib.decompressobj(wbits=31)
            try:
                part = decoder.decompress(piece, room + 1)
            except zlib.error:
                _not_gzip(ask, status)
            room -= len(part)
            if room < 0:
                raise too_large(ask, status)
            parts.append(part)
            piece = decoder.unused_data
    if not decoder.eof:
        raise TransientError(_error(StoreError, ask, "the gzip stream of the object ends too early", status))
    return b"".join(parts)


def _not_gzip(ask: Ask, status: int) -> NoReturn:
    raise _error(StoreError, ask, "the object is said to be gzip and is not", status) from None


def _unbrotli(ask: Ask, expected: Expected, body: Buffer) -> bytes:
    """Decodes Brotli into at most `ask.max_nbytes` bytes."""
    from voxfetch import _core

    try:
        return _core.decode_brotli(bytes(body), ask.max_nbytes)
    except CodecError as error:
        refused = _error(StoreError, ask, f"the object is said to be Brotli: {error.message}", expected.status)
    # What came without a length may have been cut off on its way.
    raise TransientError(refused) if expected.nbytes is None else refused
