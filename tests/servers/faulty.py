"""An HTTP/1.1 server for ranges of stored objects that misbehaves on demand, request by request.

By itself it is right: strong ETags, Last-Modified, If-Match (412), ranges and suffixes (206, 416), HEAD, keep-alive.
`server.faults` is consumed from the left, a `Fault` or None a request; when it is empty, `server.rule(request)` is
asked. `server.requests` is the log.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import deque
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from pathlib import Path
from urllib.parse import unquote

from tests.servers import ThreadedServer, reset

EPOCH_S = 1_700_000_000
LOGIN_PAGE = b"<!DOCTYPE html><html><body>Please log in.</body></html>" + b" " * 500
REASONS = {
    200: "OK",
    206: "Partial Content",
    404: "Not Found",
    412: "Precondition Failed",
    416: "Range Not Satisfiable",
}


@dataclass(frozen=True)
class Fault:
    """What is wrong with one reply. Several fields may be set.

    Instead of the object: `status` and `body` (a whole other reply). Headers: `headers` are set, None removes one.
    Ranges: `ignore_range` (200), `ignore_if_match`, `head` (a suffix is answered from the start), `shift` (bytes by
    which range and Content-Range are off), `no_total` (`/*`). Body: `extra` is appended and announced, `lie` bytes
    are left out of body and Content-Length but not of Content-Range. Framing: `framing` is "length", "chunked",
    "broken" (chunked, with an end that is none) or "close". Ends: after `cut` bytes of the body the connection is
    closed, after `reset` bytes it is reset, after `stall` bytes it stands still; -1 is before the headers. `trickle_s`
    is the time between two bytes, `delay_s` that before the reply. `close` ends the connection after the reply,
    without saying so before.
    """

    status: int | None = None
    body: bytes | None = None
    headers: dict[str, str | None] = field(default_factory=dict)
    ignore_range: bool = False
    ignore_if_match: bool = False
    head: bool = False
    shift: int = 0
    no_total: bool = False
    extra: bytes = b""
    lie: int = 0
    framing: str = "length"
    cut: int | None = None
    reset: int | None = None
    stall: int | None = None
    trickle_s: float = 0
    delay_s: float = 0
    close: bool = False


def status(number, body=b"", **headers):
    """A reply of nothing but a status; `retry_after="1"` is the header Retry-After."""
    return Fault(status=number, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


def s3_error(number, code):
    """An error as object stores give it."""
    document = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>m</Message></Error>'
    return status(number, document.encode(), content_type="application/xml")


def redirect(url, number=302):
    return status(number, location=url)


def digest(data, salt=b""):
    return hashlib.blake2b(data, digest_size=8, salt=salt).hexdigest()


@dataclass(frozen=True)
class Request:
    """One line of the log; names of headers are in lower case, `key` has no query, `number` counts from 0."""

    number: int
    method: str
    target: str
    key: str
    headers: dict[str, str]
    connection: int
    time_s: float

    @property
    def range(self):
        return self.headers.get("range")

    @property
    def if_match(self):
        return self.headers.get("if-match")


class FileBytes:
    """A file in place of its bytes: it has their length, and a slice of it reads no more than the slice."""

    def __init__(self, path, nbytes):
        self._path = path
        self._nbytes = nbytes

    def __len__(self):
        return self._nbytes

    def __getitem__(self, span):
        start, end, _ = span.indices(self._nbytes)
        with self._path.open("rb") as file:
            file.seek(start)
            return file.read(max(end - start, 0))


class FaultyServer(ThreadedServer):
    """Serves a dict of key -> bytes, or a folder.

    `etags` is "strong", "weak" or None; `suffixes` is the status that answers them, or "head".
    """

    def __init__(self, objects, *, etags="strong", suffixes=206, modified=True, latency_s=0, ssl=None):
        super().__init__(ssl=ssl)
        self._objects = objects if isinstance(objects, Path) else dict(objects)
        self._versions = {}
        self._tags = {}
        self.scheme = "https" if ssl else "http"
        self.etags = etags
        self.suffixes = suffixes
        self.modified = modified
        self.latency_s = latency_s
        self.faults = deque()
        self.rule = lambda request: None
        self.requests = []
        self.in_flight = self.most_in_flight = 0
        self.sent_nbytes = 0
        """Bytes of bodies that the system has taken to send."""

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def count(self, **wanted):
        """Requests whose fields are as wanted: `count(method="HEAD")`."""
        return sum(all(getattr(one, name) == value for name, value in wanted.items()) for one in self.requests)

    @property
    def ranges(self):
        """The Range headers, in order."""
        return [request.range for request in self.requests]

    def put(self, key, value):
        """Stores another version, with another ETag also for the same bytes; None removes."""

        def run():
            self._objects[key] = value
            self._versions[key] = self._versions.get(key, 0) + 1

        self.call(run)

    def read(self, key):
        """Bytes (or `FileBytes`), ETag and Last-Modified of an object, None for none."""
        if isinstance(self._objects, Path):
            path = self._objects / key
            if ".." in key or not path.is_file():
                return None
            status = path.stat()
            value, modified_s = FileBytes(path, status.st_size), int(status.st_mtime)
            tag = digest(f"{key} {status.st_mtime_ns} {status.st_size}".encode())
        else:
            value, version = self._objects.get(key), self._versions.get(key, 0)
            if value is None:
                return None
            modified_s = EPOCH_S + version
            tag = self._tag(key, value, version)
        etag = {"strong": f'"{tag}"', "weak": f'W/"{tag}"', None: None}[self.etags]
        return value, etag, formatdate(modified_s, usegmt=True) if self.modified else None

    def _tag(self, key, value, version):
        """Of bytes and version; computed once for both."""
        known, at, tag = self._tags.get(key, (None, None, None))
        if known is not value or at != version:
            tag = digest(value, salt=str(version).encode()[-16:])
            self._tags[key] = value, version, tag
        return tag

    # -------------------------------------------------------------------------------------------------------- protocol

    async def handle(self, reader, writer):
        connection = self.connections
        while (request := await self._request(reader, writer, connection)) is not None:
            fault = (self.faults.popleft() if self.faults else self.rule(request)) or Fault()
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            try:
                await asyncio.sleep(self.latency_s + fault.delay_s)
                if not await self._answer(request, fault, writer):
                    return
            finally:
                self.in_flight -= 1

    async def _request(self, reader, writer, connection):
        try:
            start = await reader.readexactly(1)
            if not start.isalpha():
                # TLS where none is spoken.
                writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                return None
            head = start + await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        key = unquote(target.partition("?")[0]).strip("/")
        number = len(self.requests)
        self.requests.append(Request(number, method, target, key, headers, connection, time.monotonic()))
        return self.requests[-1]

    async def _answer(self, request, fault, writer):
        """Sends one reply; returns whether the connection can be used again."""
        number, headers, body = self._reply(request, fault)
        headers = {"date": formatdate(usegmt=True)} | headers
        if fault.framing in {"chunked", "broken"}:
            headers["transfer-encoding"] = "chunked"
        elif fault.framing == "close":
            headers["connection"] = "close"
        else:
            headers["content-length"] = str(len(body))
        headers |= {name.lower(): value for name, value in fault.headers.items()}
        lines = [f"HTTP/1.1 {number} {REASONS.get(number, 'X')}"]
        lines += [f"{name}: {value}" for name, value in headers.items() if value is not None]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        if request.method == "HEAD":
            body = b""
        ends = [end for end in (fault.cut, fault.reset, fault.stall) if end is not None]
        if not ends or min(ends) >= 0:
            writer.write(head)
            await self._send(writer, body[: min(ends, default=len(body))], fault)
        await writer.drain()
        if fault.stall is not None:
            await asyncio.Event().wait()
        if fault.reset is not None:
            # What was sent before is to arrive.
            await asyncio.sleep(0.02)
            reset(writer)
        if ends:
            return False
        if fault.framing in {"chunked", "broken"}:
            await asyncio.sleep(0.02 if fault.framing == "broken" else 0)
            writer.write(b"0\r\n\r\n" if fault.framing == "chunked" else b"?\r\n\r\n")
            await writer.drain()
        return fault.framing != "close" and not fault.close

    async def _send(self, writer, body, fault):
        step = 1 if fault.trickle_s else 1 << 16
        for at in range(0, len(body), step):
            part = body[at : at + step]
            chunked = fault.framing in {"chunked", "broken"}
            writer.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
            await writer.drain()
            self.sent_nbytes += len(part)
            if fault.trickle_s:
                await asyncio.sleep(fault.trickle_s)

    def _reply(self, request, fault):
        """Status, headers and body, before framing."""
        if fault.status is not None:
            return fault.status, {}, fault.body or b""
        stored = self.read(request.key)
        if stored is None:
            return 404, {}, b"not here"
        value, etag, modified = stored
        headers = {"accept-ranges": "bytes", "content-type": "application/octet-stream"}
        headers |= {name: text for name, text in (("etag", etag), ("last-modified", modified)) if text is not None}
        if request.if_match not in {None, etag, "*"} and not fault.ignore_if_match:
            return 412, {}, b""
        wanted = None if request.range is None or fault.ignore_range else self._range(request.range, len(value), fault)
        if wanted is None:
            return 200, headers, (value[:] if fault.body is None else fault.body) + fault.extra
        if isinstance(wanted, int):
            return wanted, {"content-range": f"bytes */{len(value)}"} if wanted == 416 else {}, b""
        start, end = wanted[0] + fault.shift, wanted[1] + fault.shift
        headers["content-range"] = f"bytes {start}-{end - 1}/{'*' if fault.no_total else len(value)}"
        body = value[start:end] if fault.body is None else fault.body
        return 206, headers, body[: len(body) - fault.lie] + fault.extra

    def _range(self, text, total, fault):
        """(start, end) of a range; a status for one that is refused; None for one that is ignored."""
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", text)
        if match is None or match[0] == "bytes=-":
            return None
        first, last = match.groups()
        if not first:
            suffix = int(last)
            if fault.head or self.suffixes == "head":
                return 0, min(suffix + 1, total)
            if self.suffixes != 206:
                return None if self.suffixes == 200 else self.suffixes
            return (max(total - suffix, 0), total) if total and suffix else 416
        start = int(first)
        end = min(int(last) + 1, total) if last else total
        return (start, end) if start < end else 416


FAULTS = {
    "200 for a range": Fault(ignore_range=True),
    "200 of a login page": Fault(
        ignore_range=True, ignore_if_match=True, body=LOGIN_PAGE, headers=dict.fromkeys(("ETag", "Last-Modified"))
    ),
    "length unmet": Fault(cut=5),
    "length consistent": Fault(lie=5),
    "close-delimited, whole": Fault(framing="close"),
    "close-delimited, cut": Fault(framing="close", cut=5),
    "chunked, whole": Fault(framing="chunked"),
    "chunked, cut": Fault(framing="chunked", cut=5),
    "chunked, broken": Fault(framing="broken"),
    "too long": Fault(extra=b"x"),
    "too long, close-delimited": Fault(extra=b"x", framing="close"),
    "shifted": Fault(shift=3),
    "no Content-Range": Fault(headers={"Content-Range": None}),
    "no total": Fault(no_total=True),
    "unsatisfied Content-Range": Fault(headers={"Content-Range": "bytes */100"}),
    "senseless Content-Range": Fault(headers={"Content-Range": "bytes 9-3/2"}),
    "gzip on a part": Fault(headers={"Content-Encoding": "gzip"}),
    "suffix from the head": Fault(head=True),
    "stall before the headers": Fault(stall=-1),
    "stall in the body": Fault(stall=5),
    "trickle": Fault(trickle_s=0.05),
    "reset before the headers": Fault(reset=-1),
    "reset in the body": Fault(reset=5),
    "closed before the headers": Fault(cut=-1),
    "unauthorized": status(401),
    "forbidden": status(403),
    "expired token": s3_error(403, "ExpiredToken"),
    "skewed clock": s3_error(403, "RequestTimeTooSkewed"),
    "slow down": s3_error(503, "SlowDown"),
    "too many requests": status(429, retry_after="1"),
    "server error": status(500),
    "bad gateway": status(502),
    "unavailable": status(503, retry_after="1"),
    "gateway timeout": status(504),
    "request timeout": status(408),
    "another version": Fault(ignore_if_match=True, headers={"ETag": '"another"'}),
    "not HTTP": Fault(headers={"Content-Length": "many"}),
}
"""One of each kind, by name; `replace` makes variants."""

__all__ = ["FAULTS", "LOGIN_PAGE", "Fault", "FaultyServer", "Request", "redirect", "replace", "s3_error", "status"]
