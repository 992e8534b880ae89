"""One request of aiohttp in, its answer on the wire: checks, admission, time-out, the plane, and what failed.

aiohttp parses requests and keeps connections; answers are written here, which costs less than its responses do. An
answer holds its place among those at work until it is sent, so that what is held in memory is bounded with them.
"""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from time import time
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from aiohttp import http_exceptions, web

import voxfetch as vf
from voxfetch.server.answers import Answers, Asked, Body, Conditions, Parts, Refused, Reply
from voxfetch.server.deadlines import Deadlines
from voxfetch.server.guard import MAX_HEAD_NBYTES, MAX_PATH_NBYTES, Guard, Target
from voxfetch.server.log import ACCESS, logged, redacted
from voxfetch.server.routes import Route, Routes, check_method

if TYPE_CHECKING:
    from collections.abc import Callable

    from voxfetch.server.options import ServerOptions

__all__ = ["EVENTS_S", "Exchange", "Listener"]

EVENTS_S = 15.0
"""Seconds between two comments on an event stream that has nothing to say."""
_MAX_EVENT_STREAMS = 256
_MAX_POST_NBYTES = 1 << 20
_MAX_LARGE = 4
"""Answers with many boxes that are at work at a time, each of up to `max_response_bytes`."""
_SLICE_NBYTES = 1 << 20
"""Bytes that are written at once."""
_JOINED_NBYTES = 64 << 10
"""What is larger costs less to write behind its headers than to copy there."""
_LONG_NBYTES = 256 << 10
_SMALL_NBYTES = 256 << 10
"""An answer of no more bytes than this gives its place to the next before it is sent."""
_MAX_HEADERS = 64
_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_RETRY = "Retry-After: 1\r\n"


class Sent:
    """What aiohttp is told of an answer: that there is no more to do, but for `unsent`, and whether to go on."""

    def __init__(self, status: int, nbytes: int, *, keep_alive: bool, unsent: bytes = b"") -> None:
        self.status = status
        self.body_length = nbytes
        self.keep_alive = keep_alive
        self._unsent = unsent

    async def prepare(self, request: web.BaseRequest) -> None:
        """Called by aiohttp before `write_eof`."""
        if self._unsent and request.transport is not None and not request.transport.is_closing():
            request.transport.write(self._unsent)

    async def write_eof(self) -> None:
        """Called by aiohttp at the end."""


class Admission:
    """So many at work, so many waiting, and no more."""

    def __init__(self, working: int, waiting: int) -> None:
        self._free = asyncio.Semaphore(working)
        self._room = waiting

    async def enter(self) -> None:
        """Waits for a place. Raises `Refused` (503) where too many wait already."""
        if not self._free.locked():
            await self._free.acquire()
            return
        if self._room <= 0:
            raise Refused(503, "busy", _RETRY)
        self._room -= 1
        try:
            await self._free.acquire()
        finally:
            self._room += 1

    def leave(self) -> None:
        """Gives the place to the next."""
        self._free.release()


class Exchange:
    """Answers the requests of one server."""

    def __init__(self, guard: Guard, answers: Answers, routes: Routes, options: ServerOptions) -> None:
        self._guard = guard
        self._answers = answers
        self._routes = routes
        self._timeout_s = options.timeout_s
        self._max_nbytes = options.max_response_bytes
        self._any = Admission(options.max_requests, options.max_queue)
        self._large = Admission(min(_MAX_LARGE, options.max_requests), options.max_queue)
        self._deadlines = Deadlines(options.timeout_s)
        self._streams = 0
        self._stopping = asyncio.Event()
        self._date = (0, "")

    def stop(self) -> None:
        """Ends the event streams."""
        self._stopping.set()

    async def handle(self, request: web.BaseRequest) -> Any:
        """The handler of aiohttp. Ends by `CancelledError` when the client goes away."""
        headers = request.headers
        asking = Conditions(
            request.method,
            headers.get("Range"),
            headers.get("If-Range"),
            headers.get("If-Match"),
            headers.get("If-None-Match"),
            headers.get("Accept-Encoding"),
            headers.get("Origin"),
        )
        began = time()
        target: Target | None = None
        # What is posted asks for many boxes at once, which all are held until they are sent.
        admission = self._large if asking.method == "POST" else self._any
        is_in = False
        held: list[Callable[[], None]] = []
        try:
            first: bytes | memoryview = b""
            try:
                reply, target, route = self._checked(request, asking)
                if reply is None and target.segments == ("events", "ng"):
                    return await self._events(request, asking)
                if reply is None:
                    with self._deadlines:
                        body = await self._posted(request) if asking.method == "POST" else b""
                        await admission.enter()
                        is_in = True
                        reply, first = await self._found(request, asking, target, route, body, held)
            except Refused as refused:
                reply = self._answers.refused(refused, asking)
            except Exception as error:  # noqa: BLE001 - whatever fails, the client gets an answer that pages can read
                reply = self._failed(error, asking, target)
            if is_in and reply.parts is None and len(reply.content) <= _SMALL_NBYTES:
                # The system takes it at once, or as soon as its reader does: who reads slowly holds up no others.
                is_in = False
                admission.leave()
            sent = await self._send(request, reply, first)
        finally:
            if is_in:
                admission.leave()
            for release in held:
                release()
        if ACCESS.isEnabledFor(20):
            path = "" if target is None else "/".join(quote(segment, safe="@:") for segment in target.segments)
            took_ms = 1e3 * (time() - began)
            ACCESS.info("%s /%s %d %d %.1f ms", asking.method, redacted(path), sent.status, sent.body_length, took_ms)
        return sent

    def refusal(self, error: BaseException | None, message: str | None) -> Sent:
        """The answer to what aiohttp could not parse."""
        status, code = 400, "bad_request"
        if isinstance(error, http_exceptions.LineTooLong):
            status, code = (414, "too_long") if error.args[1] == MAX_PATH_NBYTES else (431, "too_long")
        elif message is not None and "Too many headers" in message:
            status, code = 431, "too_long"
        elif message is not None and "'Host'" in message and "Missing" in message:
            status, code = 421, "wrong_host"
        elif not isinstance(error, http_exceptions.HttpProcessingError):
            status, code = 500, "internal"
            if error is not None and not isinstance(error, ConnectionError):
                logged("?", error, bug=True)
        reply = self._answers.refused(Refused(status, code), Conditions())
        head = f"{_LINES[status]}{reply.fields}Date: {self._now()}\r\nContent-Length: {reply.nbytes}\r\n"
        unsent = b"".join((head.encode("latin-1"), b"Connection: close\r\n\r\n", reply.content))
        return Sent(status, len(reply.content), keep_alive=False, unsent=unsent)

    def _checked(self, request: web.BaseRequest, asking: Conditions) -> tuple[Reply | None, Target, Route]:
        """A reply that needs nobody, or where to ask. Raises `Refused`."""
        headers = request.headers
        if sum(map(_line_nbytes, request.raw_headers)) > MAX_HEAD_NBYTES:
            raise Refused(431, "too_long")
        path, host = _without_origin(request.raw_path, headers.get("Host"))
        try:
            self._guard.check_host(host)
        except Refused:
            self._guard.check_host(host, _address_of(request))
        if asking.method == "OPTIONS":
            return self._answers.preflight(asking.origin), _NOWHERE, _NO_ROUTE
        target = self._guard.target(path, headers.get("Authorization"))
        route = self._routes.route(target.segments)
        check_method(asking.method, route)
        if route is None:
            return self._answers.absent(asking), target, _NO_ROUTE
        if asking.method != "POST" and request.can_read_body:
            raise Refused(413, "no_body_expected")
        return None, target, route

    async def _posted(self, request: web.BaseRequest) -> bytes:
        """The body of a POST. Raises `Refused` (413, 415; 503 where too many wait)."""
        # Who sends it slowly holds one of many places, and none of the few.
        await self._any.enter()
        try:
            return await _posted(request)
        finally:
            self._any.leave()

    async def _found(  # noqa: PLR0913, PLR0917 - what was made of the request
        self,
        request: web.BaseRequest,
        asking: Conditions,
        target: Target,
        route: Route,
        body: bytes,
        held: list[Callable[[], None]],
    ) -> tuple[Reply, bytes | memoryview]:
        """The reply of the plane, and the first bytes where it comes in parts. Raises what the plane raises.

        What is to be called once it is sent goes into `held`.
        """
        headers = request.headers
        # A proxy before the server speaks TLS for it.
        scheme = "https" if headers.get("X-Forwarded-Proto") == "https" else "http"
        asked = Asked(
            asking.method,
            route.segments,
            route.preset,
            route.source,
            target.query,
            body,
            asking.range,
            target.prefix,
            f"{scheme}://{headers.get('Host')}",
        )
        found = await self._routes.answer(route, asked, target, headers.get("Accept"))
        if found is None:
            return self._answers.absent(asking), b""
        if isinstance(found, Body) and found.release is not None:
            held.append(found.release)
        try:
            call = partial(self._answers.reply, found, asking, lasting=route.lasting)
            # What is long to compress, or to make a validator of, is not done between two requests.
            reply = await asyncio.to_thread(call) if _takes_long(found) else call()
        except ValueError as error:
            raise vf.InternalError(str(error)) from error
        if asking.method != "HEAD" and (reply.nbytes or 0) > self._max_nbytes:
            raise Refused(413, "too_large")
        if reply.parts is None:
            return reply, b""
        start, end = reply.span
        return reply, await reply.parts.read(start, min(end, start + _SLICE_NBYTES))

    def _failed(self, error: Exception, asking: Conditions, target: Target | None) -> Reply:
        """The answer to what a plane raised. Absence is what was asked for and is not there, and nothing else."""
        place = "" if target is None else "/".join(target.segments)
        what = f"{asking.method} /{place}"
        if isinstance(error, vf.NotFoundError) and error.key is None:
            return self._answers.absent(asking)
        if isinstance(error, vf.UnsupportedError):
            # Trying again, as after 503, would not help.
            return self._answers.trouble(501, error.kind, logged(what, error, bug=False), asking)
        if isinstance(error, vf.LimitExceededError):
            return self._answers.trouble(413, error.kind, logged(what, error, bug=False), asking)
        if isinstance(error, vf.VoxfetchError) and not isinstance(error, vf.SelectionError | vf.InternalError):
            return self._answers.trouble(503, error.kind, logged(what, error, bug=False), asking)
        if isinstance(error, vf.SelectionError):
            return self._answers.trouble(400, "bad_request", logged(what, error, bug=False), asking)
        if isinstance(error, TimeoutError):
            return self._answers.trouble(503, "timeout", logged(what, error, bug=False), asking)
        if isinstance(error, OSError):
            # No file can be opened any more, say: of the machine, and it may pass.
            return self._answers.trouble(503, "system", logged(what, error, bug=False), asking)
        return self._answers.trouble(500, "internal", logged(what, error, bug=True), asking)

    async def _send(self, request: web.BaseRequest, reply: Reply, first: bytes | memoryview) -> Sent:
        """Writes an answer. A client that takes nothing for as long as the time-out is left alone."""
        # What of the request is not read would be taken for the next one.
        keep_alive = request.keep_alive and not request.can_read_body
        length = "" if reply.nbytes is None else f"Content-Length: {reply.nbytes}\r\n"
        connection = "" if keep_alive and request.version.minor else _CONNECTIONS[keep_alive]
        line = _LINES[reply.status]
        head = f"{line}{reply.fields}Date: {self._now()}\r\n{length}{connection}\r\n".encode("latin-1")
        if reply.parts is not None:
            await self._send_parts(request, reply, head, first)
        elif len(reply.content) <= _JOINED_NBYTES:
            await self._write(request, b"".join((head, reply.content)))
        else:
            content = memoryview(reply.content)
            await self._write(request, head)
            for at in range(0, len(content), _SLICE_NBYTES):
                await self._write(request, content[at : at + _SLICE_NBYTES])
        return Sent(reply.status, reply.nbytes or 0, keep_alive=keep_alive)

    async def _send_parts(self, request: web.BaseRequest, reply: Reply, head: bytes, first: bytes | memoryview) -> None:
        """Writes an object slice by slice, of which one is read while the one before is sent."""
        parts, (at, end) = reply.parts, reply.span
        assert parts is not None  # noqa: S101 - for the type checker
        await self._write(request, head)
        piece = first
        try:
            while piece:
                at += len(piece)
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._write(request, piece))
                    following = group.create_task(self._slice(parts, at, end)) if at < end else None
                piece = b"" if following is None else following.result()
        except BaseExceptionGroup as failures:
            # The status is sent: a body that ends too early is all that can still be said.
            if not isinstance(failures.exceptions[0], ConnectionError):
                logged(f"{request.method} {request.path}, while it was sent", failures.exceptions[0], bug=False)
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError from None

    async def _slice(self, parts: Parts, at: int, end: int) -> bytes | memoryview:
        """The bytes of a slice that begins at `at`. Raises `TimeoutError` for a store that stalls."""
        async with asyncio.timeout(self._timeout_s):
            return await parts.read(at, min(end, at + _SLICE_NBYTES))

    async def _write(self, request: web.BaseRequest, data: bytes | memoryview) -> None:
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError
        transport.write(data)
        if request.protocol.writing_paused:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await request.writer.drain()
            except TimeoutError:
                transport.abort()
                raise ConnectionResetError from None

    async def _events(self, request: web.BaseRequest, asking: Conditions) -> Sent:
        """An event stream without events: Neuroglancer's client wants one."""
        if asking.method == "HEAD" or self._streams >= _MAX_EVENT_STREAMS:
            raise Refused(405 if asking.method == "HEAD" else 503, "events", _RETRY)
        fields = f"{self._answers.cors(asking.origin)}Cache-Control: no-store\r\nContent-Type: text/event-stream\r\n"
        head = f"{_LINES[200]}{fields}Date: {self._now()}\r\nConnection: close\r\n\r\n"
        self._streams += 1
        try:
            await self._write(request, head.encode("latin-1"))
            while not self._stopping.is_set():
                await self._write(request, b": \n\n")
                try:
                    async with asyncio.timeout(EVENTS_S):
                        await self._stopping.wait()
                except TimeoutError:
                    continue
        finally:
            self._streams -= 1
        return Sent(200, 0, keep_alive=False)

    def _now(self) -> str:
        """The time as headers have it, made once a second."""
        now = int(time())
        if self._date[0] != now:
            self._date = (now, formatdate(now, usegmt=True))
        return self._date[1]


class Listener(web.Server):
    """aiohttp's server, whose own answers, to what it cannot parse, are ours too."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange.handle, handler_cancellation=True)  # pyright: ignore[reportArgumentType]
        self.exchange = exchange

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - aiohttp's
        """Ends all connections, also those whose clients do not take what is sent."""
        connections = self.connections
        await super().shutdown(timeout)
        for connection in connections:
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)

    def __call__(self) -> web.RequestHandler:
        """The protocol of one connection."""
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            access_log=cast("Any", None),
            auto_decompress=False,
            keepalive_timeout=75.0,
            lingering_time=1.0,
            max_line_size=MAX_PATH_NBYTES,
            max_field_size=MAX_HEAD_NBYTES,
            max_headers=_MAX_HEADERS,
        )


class _Connection(web.RequestHandler):
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> Any:
        del request, status
        listener = self._manager
        assert isinstance(listener, Listener)  # noqa: S101 - for the type checker
        return listener.exchange.refusal(exc, message)


_CONNECTIONS = {True: "Connection: keep-alive\r\n", False: "Connection: close\r\n"}
_NOWHERE = Target((), folder=False, query={}, prefix="")
_NO_ROUTE = Route("", "native", "", ())


async def _posted(request: web.BaseRequest) -> bytes:
    """The body of a POST. Raises `Refused` (413, 415)."""
    headers = request.headers
    if headers.get("Content-Encoding", "identity") != "identity":
        raise Refused(415, "encoded_body")
    if (request.content_length or 0) > _MAX_POST_NBYTES:
        raise Refused(413, "too_large")
    if headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    pieces: list[bytes] = []
    nbytes = 0
    async for piece in request.content.iter_any():
        nbytes += len(piece)
        if nbytes > _MAX_POST_NBYTES:
            raise Refused(413, "too_large")
        pieces.append(piece)
    return b"".join(pieces)


def _takes_long(found: Body | Parts) -> bool:
    if isinstance(found, Parts) or (found.etag is not None and not found.content_type.startswith("application/json")):
        return False
    return memoryview(found.content).nbytes > _LONG_NBYTES


def _without_origin(raw: str, host: str | None) -> tuple[str, str | None]:
    """Path and host: a request for a proxy names both in one (RFC 9112, 3.2.2), and that host counts."""
    if raw[:7].lower() != "http://":
        return raw, host
    authority, slash, path = raw[7:].partition("/")
    return f"{slash or '/'}{path}", authority


def _line_nbytes(line: tuple[bytes, bytes]) -> int:
    return len(line[0]) + len(line[1]) + 4


def _address_of(request: web.BaseRequest) -> str | None:
    """The address of this machine at which the connection came in."""
    name: Any = None if request.transport is None else request.transport.get_extra_info("sockname")
    return str(name[0]) if name else None
