"""What a plane is asked and what it gives, and what HTTP makes of it: validators, ranges, caching, CORS.

Values in, values out; nothing of a connection. RFC 9110 (13 conditional requests, 14 ranges), RFC 9111 and the Fetch
standard's CORS. Every answer has the headers of CORS, errors too: a page could not tell them from a broken network.
"""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from voxfetch.encoding import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from voxfetch.server.options import ServerOptions

__all__ = ["MAX_ETAG", "Answers", "Asked", "Body", "Conditions", "Parts", "Plane", "Refused", "Reply", "span_of"]

MAX_ETAG = 256
"""Characters of an ETag."""
_GZIP_NBYTES = 1 << 10
"""JSON above this is compressed for those who take it."""
_JSON = "application/json"
_RANGE = re.compile(r"bytes=[ \t]*(\d{0,19})-(\d{0,19})[ \t]*", re.IGNORECASE | re.ASCII)
_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_OPAQUE = re.compile(rf"[\x21\x23-\x7e]{{1,{MAX_ETAG}}}")
_NO_FIELD = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")
_ZERO = re.compile(r"q=0(?:\.0*)?", re.IGNORECASE)
# Beside those that pages may always send. A preflight comes before suffix ranges, validators and tokens.
_PREFLIGHT = (
    "Access-Control-Allow-Methods: GET, HEAD, POST, OPTIONS\r\n"
    "Access-Control-Allow-Headers: Range, If-None-Match, If-Match, If-Range, Authorization, Content-Type\r\n"
    "Access-Control-Max-Age: 86400\r\n"
)
_ALWAYS = (
    "Access-Control-Expose-Headers: *\r\n"
    "Cross-Origin-Resource-Policy: cross-origin\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "Referrer-Policy: no-referrer\r\n"
)


def _no_headers() -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Body:
    """What a plane gives: bytes, their type, and a validator.

    `etag` is opaque, without quotes; None: made from the content. `release` is called when it is sent, or is not to be.
    """

    content: bytes | memoryview
    content_type: str = "application/octet-stream"
    etag: str | None = None
    headers: Mapping[str, str] = field(default_factory=_no_headers)
    status: int = 200
    release: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """An object of any size, of which `read` returns bytes `[start, end)`; of these none is held but what is sent.

    `etag` is a strong validator without quotes, None where there is none.
    """

    nbytes: int
    read: Callable[[int, int], Coroutine[Any, Any, bytes | memoryview]]
    etag: str | None = None
    content_type: str = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a plane may look at: nothing of the connection.

    `segments` come after plane, preset and source, canonical: never "", "." or "..". `query` has the first value of
    each name; `body` is bounded, of POST only; `range` is the Range header, which `answers` carries out. URLs are made
    of `origin` (`http://127.0.0.1:PORT`) and `prefix` (`/t/TOKEN` or "").
    """

    method: str
    segments: tuple[str, ...]
    preset: str
    source: str
    query: Mapping[str, str]
    body: bytes = b""
    range: str | None = None
    prefix: str = ""
    origin: str = ""


class Plane(Protocol):
    """One way to show sources."""

    async def answer(self, asked: Asked) -> Body | Parts | None:
        """Returns what is there, None when there is no such thing. Raises errors of voxfetch."""
        ...


class Refused(Exception):  # noqa: N818 - no error, but an answer
    """A request that gets `status`, the word `code`, and `fields`: lines of headers, each with its end."""

    def __init__(self, status: int, code: str, fields: str = "") -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.fields = fields


class Conditions(NamedTuple):
    """The headers of a request that choose among answers; None where there is no such header."""

    method: str = "GET"
    range: str | None = None
    if_range: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None
    accept_encoding: str | None = None
    origin: str | None = None


class Reply(NamedTuple):
    """What is sent: `fields` are lines of headers, each with its end, all but Content-Length, Date and Connection.

    The body is `content`, or bytes `span` = [start, end) of `parts`. `nbytes` is the Content-Length, None for a status
    that has none.
    """

    status: int
    fields: str
    content: bytes | memoryview = b""
    parts: Parts | None = None
    span: tuple[int, int] = (0, 0)
    nbytes: int | None = None


class Answers:
    """Makes replies; what does not depend on the request is put together once."""

    def __init__(self, options: ServerOptions) -> None:
        everyone = ("*",) if options.auth else ()
        self._origins = frozenset(everyone if options.origins is None else options.origins)
        self._any = "*" in self._origins
        self._open = f"Access-Control-Allow-Origin: *\r\n{_ALWAYS}"
        self._fresh = "Cache-Control: no-cache\r\n"
        self._kept = "Cache-Control: public, max-age=31536000, immutable\r\n" if options.immutable else self._fresh
        self._absent = "Cache-Control: max-age=60\r\n" if options.immutable else self._fresh

    def cors(self, origin: str | None) -> str:
        """Returns the headers that every answer has, as a page of this origin (None: no page) gets them."""
        if self._any:
            return self._open
        allowed = f"Access-Control-Allow-Origin: {origin}\r\n" if origin in self._origins else ""
        return f"{allowed}Vary: Origin\r\n{_ALWAYS}"

    def preflight(self, origin: str | None) -> Reply:
        """Returns the answer to OPTIONS."""
        return Reply(204, f"{self.cors(origin)}{_PREFLIGHT}Allow: GET, HEAD, OPTIONS\r\n")

    def absent(self, asking: Conditions) -> Reply:
        """Returns the answer where there is no such thing."""
        return self._said(404, '{"error": "not_found"}', self._absent, asking)

    def refused(self, refused: Refused, asking: Conditions) -> Reply:
        """Returns the answer to a request that is not carried out."""
        return self._said(refused.status, json.dumps({"error": refused.code}), f"{self._fresh}{refused.fields}", asking)

    def trouble(self, status: int, code: str, number: str, asking: Conditions) -> Reply:
        """Returns the answer to a request that failed: a word, and the number under which the log has the rest."""
        retry = "Retry-After: 1\r\n" if status == 503 else ""
        return self._said(
            status, json.dumps({"error": code, "id": number}), f"Cache-Control: no-store\r\n{retry}", asking
        )

    def reply(self, found: Body | Parts, asking: Conditions, *, lasting: bool) -> Reply:
        """Returns the answer with what a plane gives. `lasting`: it may be kept for good if the options say so.

        Raises `ValueError` for a type, an ETag or a header that cannot be sent.
        """
        cache = self._kept if lasting else self._fresh
        if isinstance(found, Parts):
            return self._of_parts(found, asking, cache)
        common = f"{self.cors(asking.origin)}{_fields(found, cache)}"
        kind = _field(found.content_type)
        content = found.content
        if isinstance(content, memoryview):
            content = content.cast("B")
        if found.status != 200 or asking.method == "POST":
            # A redirect, or what was computed for this one request: no version of anything.
            return _sized(Reply(found.status, f"{common}Content-Type: {kind}\r\n", content), asking)
        etag = found.etag or fingerprint(bytes(content))
        if found.content_type.startswith(_JSON) and len(content) > _GZIP_NBYTES:
            common += "Vary: Accept-Encoding\r\n"
            if asking.range is None and _takes_gzip(asking.accept_encoding):
                content, etag = gzip.compress(content, 1, mtime=0), f"{etag}-gz"
                common += "Content-Encoding: gzip\r\n"
        reply = _chosen(len(content), etag, common, kind, asking)
        if reply.status == 206:
            content = memoryview(content)[slice(*reply.span)]
        has_body = reply.status in {200, 206} and asking.method != "HEAD"
        return reply._replace(content=content) if has_body else reply

    def _of_parts(self, found: Parts, asking: Conditions, cache: str) -> Reply:
        fields = f"{self.cors(asking.origin)}{cache}"
        reply = _chosen(found.nbytes, found.etag, fields, _field(found.content_type), asking)
        has_body = reply.status in {200, 206} and asking.method != "HEAD"
        return reply._replace(parts=found) if has_body else reply

    def _said(self, status: int, text: str, fields: str, asking: Conditions) -> Reply:
        fields = f"{self.cors(asking.origin)}{fields}Content-Type: {_JSON}\r\n"
        return _sized(Reply(status, fields, text.encode()), asking)


def _chosen(nbytes: int, etag: str | None, fields: str, kind: str, asking: Conditions) -> Reply:
    """The reply without its body, by RFC 9110, 13.2.2: If-Match, If-None-Match, then Range with If-Range."""
    tag = ""
    if etag is not None:
        if not _OPAQUE.fullmatch(etag):
            raise ValueError(f"an ETag of other characters: {etag!r}")
        tag = f'"{etag}"'
        fields += f"ETag: {tag}\r\n"
    if asking.if_match is not None and not _matches(asking.if_match, tag, weak=False):
        return Reply(412, fields, nbytes=0)
    if asking.if_none_match is not None and _matches(asking.if_none_match, tag, weak=True):
        return Reply(304, fields)
    fields += f"Content-Type: {kind}\r\nAccept-Ranges: bytes\r\n"
    if asking.range is not None and asking.method == "GET" and asking.if_range in {None, tag}:
        span = span_of(asking.range, nbytes)
        if span == "none":
            return Reply(416, f"{fields}Content-Range: bytes */{nbytes}\r\n", nbytes=0)
        if span is not None:
            start, end = span
            fields += f"Content-Range: bytes {start}-{end - 1}/{nbytes}\r\n"
            return Reply(206, fields, span=span, nbytes=end - start)
    return Reply(200, fields, span=(0, nbytes), nbytes=nbytes)


def span_of(header: str, nbytes: int) -> tuple[int, int] | Literal["none"] | None:
    """Returns the bytes `[start, end)` that a Range header asks of `nbytes`.

    "none" where there are none of them; None for several ranges, another unit, or what makes no sense: all is sent.
    """
    match = _RANGE.fullmatch(header)
    if match is None:
        return None
    first, last = match[1], match[2]
    if not first:
        if not last:
            return None
        count = min(int(last), nbytes)
        return (nbytes - count, nbytes) if count else "none"
    start, end = int(first), int(last) + 1 if last else nbytes
    if last and end <= start:
        return None
    return (start, min(end, nbytes)) if start < nbytes else "none"


def _matches(header: str, tag: str, *, weak: bool) -> bool:
    """Whether one of the ETags of a header is this one; our own are strong, and "" is that of no version."""
    if header.strip(" \t") == "*":
        return True
    found: Iterable[str] = _TAG.findall(header)
    return bool(tag) and any((one.removeprefix("W/") if weak else one) == tag for one in found)


def _takes_gzip(header: str | None) -> bool:
    for part in (header or "").split(","):
        name, _, weight = part.partition(";")
        if name.strip(" \t").lower() == "gzip":
            return _ZERO.fullmatch(weight.strip(" \t")) is None
    return False


def _fields(body: Body, cache: str) -> str:
    """The headers that a plane gives; without one of its own, that of caches."""
    if not body.headers:
        return cache
    given = "".join(f"{_field(name)}: {_field(value)}\r\n" for name, value in body.headers.items())
    return given if any(name.lower() == "cache-control" for name in body.headers) else f"{given}{cache}"


def _field(text: str) -> str:
    """A part of a header. Raises `ValueError` for what would end it."""
    if _NO_FIELD.search(text):
        raise ValueError(f"this cannot stand in a header: {text[:80]!r}")
    return text


def _sized(reply: Reply, asking: Conditions) -> Reply:
    """The reply with its length; to HEAD without its body."""
    content = reply.content
    return reply._replace(nbytes=len(content), content=b"" if asking.method == "HEAD" else content)
