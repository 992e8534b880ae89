"""A store behind plain HTTP(S), over aiohttp: whatever can be said with GET, Range and If-Match.

An `Ask` becomes one GET, and its reply is judged by `verify`. A query (`?sig=...`) of the root goes on every key,
`user:password@` becomes Basic authorization; neither is shown anywhere. Exceptions of aiohttp hold URLs and headers:
they are translated, never chained.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urljoin

from voxfetch.errors import (
    CredentialsError,
    ObjectChangedError,
    PermissionDeniedError,
    RangeNotHonouredError,
    StoreError,
    StoreTimeoutError,
    UnsupportedError,
    VoxfetchError,
)
from voxfetch.store import Ask, Reply, TransientError, check_key, verify
from voxfetch.store.missing import Missing
from voxfetch.store.urls import is_metadata_service, parse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import aiohttp

    from voxfetch.store import Clients
    from voxfetch.store.missing import Statuses
    from voxfetch.store.urls import Address

    Headers = Mapping[str, str]
    HeaderSource = Headers | Callable[[], Headers | Awaitable[Headers]]

__all__ = ["HttpClients", "HttpStore"]

_MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
# Answers of servers that know ranges but not suffixes, besides a wrong range.
_NO_SUFFIX = {400, 405, 501}
# A reply that trickles holds a place in the budget. Far below what a share of a slow line gives each request.
_MIN_BYTES_PER_S = 1 << 10
# The rest of an error document is read, up to a limit, to keep the connection.
_ERROR_NBYTES = 1 << 12
_DRAINED_NBYTES = 1 << 16
_CONNECT_TIMEOUT_S = 5
_READ_BUFFER_NBYTES = 1 << 18
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[^\0\r\n]*")
# Set by the ask alone.
_OWN_HEADERS = {"accept-encoding", "if-match", "if-modified-since", "if-none-match", "if-range", "range"}
_DEFAULT_HEADERS = {"user-agent": "voxfetch"}


class HttpClients:
    """Connections of one engine, process and loop; `http` is called on that loop only."""

    __slots__ = ("_closed", "_idle_timeout_s", "_session")

    def __init__(self, idle_timeout_s: float = 10) -> None:
        self._idle_timeout_s = idle_timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    @property
    def idle_timeout_s(self) -> float:
        """How long a reply may stand still."""
        return self._idle_timeout_s

    async def http(self) -> aiohttp.ClientSession:
        """Returns the session, made by the first call. Raises `StoreError` after `close`."""
        if self._closed:
            raise StoreError("the connections of this engine are closed")
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, keepalive_timeout=30),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                timeout=_timeout(self._idle_timeout_s),
                read_bufsize=_READ_BUFFER_NBYTES,
            )
        return self._session

    async def close(self) -> None:
        """Closes all connections. A second call does nothing."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class HttpStore:
    """Objects under an http(s) URL.

    `headers` are sent with each request to the server of the URL: a mapping, or a callable that returns one, or an
    awaitable of one, called on the loop of the engine before each request and again after a 401. `missing_status` is
    that of `StoreOptions`. Raises `StoreError` for a URL that is none, `TypeError` and `ValueError` for such headers.
    """

    __slots__ = ("_headers", "_identity", "_missing", "_root", "_statuses", "_suffixes", "_token", "_url")

    def __init__(self, url: str, *, headers: HeaderSource | None = None, missing_status: Statuses = "auto") -> None:
        self._restore(url, headers if callable(headers) else _checked(headers or {}), missing_status, None, None)

    def _restore(
        self, url: str, headers: HeaderSource, statuses: Statuses, token: str | None, witness: str | None
    ) -> None:
        # Here, and not on the loop of the engine, which would stand still for all other requests.
        importlib.import_module("aiohttp")
        self._url = url
        root = parse(url)
        if root is None:
            # Not a word of it: a password may stand anywhere in what is no URL.
            raise StoreError("not a URL of the form http(s)://host/path")
        self._root = root._replace(path=root.path.rstrip("/"))
        self._headers = headers
        self._statuses: Statuses = statuses
        self._suffixes = True
        self._token = token
        if callable(headers):
            # Two callables cannot be compared, and an address is used again: a store equals its copies only.
            import secrets

            self._token = token or secrets.token_hex(16)
            shown = self._token
        else:
            shown = repr(sorted(headers.items()))
        self._identity = repr(("http", self._root, shown, statuses))
        self._missing = Missing(statuses, witness=witness)

    def __repr__(self) -> str:
        return f"HttpStore({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return self._identity == other._identity if isinstance(other, HttpStore) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._identity)

    def __getstate__(self) -> tuple[Any, ...]:
        return self._url, self._headers, self._statuses, self._token, self._missing.witness

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._restore(*state)

    @property
    def url(self) -> str:
        """URL of the root, without a trailing slash, credentials or query."""
        return self._root.shown

    @property
    def identity(self) -> str:
        """URL, headers and statuses; never shown."""
        return self._identity

    async def get(self, ask: Ask, clients: Clients) -> Reply | None:
        """Returns the bytes asked for, None when there is no such object. See `RemoteStore.get`."""
        check_key(ask.key)
        if ask.suffix is None:
            return await self._get(ask, clients)
        if self._suffixes:
            try:
                return await self._get(ask, clients)
            except StoreError as error:
                if not isinstance(error, RangeNotHonouredError) and error.status not in _NO_SUFFIX:
                    raise
        reply = await self._end_of(ask, ask.suffix, clients)
        self._suffixes = False
        return reply

    async def list(self, prefix: str, clients: Clients) -> Sequence[str]:  # noqa: ARG002 - the protocol's
        """Raises `UnsupportedError`: plain HTTP has no listings."""
        raise UnsupportedError("plain HTTP has no listings", key=prefix or None, hint="name the path of the array")

    async def _end_of(self, ask: Ask, suffix: int, clients: Clients) -> Reply | None:
        """The end of an object from a server that knows no suffixes: its size first."""
        try:
            first = await self._get(replace(ask, start=0, end=1, suffix=None), clients)
        except ObjectChangedError as error:
            if error.status != 416:
                raise
            # No first byte: an empty object.
            return Reply(b"", 0, 0, None, None)
        if first is None:
            return None
        if first.total is None:
            message = "the server knows no suffixes and does not say how large the object is"
            raise RangeNotHonouredError(message, key=ask.key, status=206)
        end = first.total
        if_match = ask.if_match or first.etag
        try:
            reply = await self._get(
                replace(ask, start=max(end - suffix, 0), end=end, suffix=None, if_match=if_match), clients
            )
        except ObjectChangedError as error:
            if ask.if_match is not None:
                raise
            changed = error
        else:
            if reply is None or reply.total in {None, end}:
                return reply
            changed = ObjectChangedError("the object was replaced while its size was looked up", key=ask.key)
        raise TransientError(changed)

    async def _get(self, ask: Ask, clients: Clients) -> Reply | None:
        try:
            reply = await self._authorized(ask, clients)
        except (StoreError, TransientError) as error:
            refusal = error
        else:
            if reply is None:
                self._missing.absent()
            else:
                self._missing.answered(ask.key)
            return reply

        async def probe(key: str) -> bool | None:
            return await self._readable(key, clients)

        try:
            if await self._missing.says(ask.key, refusal, probe):
                return None
            raise refusal
        finally:
            del refusal  # would hold itself, and what was read, through its traceback

    async def _readable(self, key: str, clients: Clients) -> bool | None:
        """True if there is such an object, False if access is refused, None otherwise."""
        try:
            return None if await self._authorized(Ask(key, 0, 1), clients) is None else True
        except (RangeNotHonouredError, ObjectChangedError):
            return True
        except (PermissionDeniedError, CredentialsError):
            return False
        except StoreError:
            return None

    async def _authorized(self, ask: Ask, clients: Clients) -> Reply | None:
        try:
            return await self._once(ask, clients)
        except CredentialsError:
            if not callable(self._headers):
                raise
        return await self._once(ask, clients)

    async def _once(self, ask: Ask, clients: Clients) -> Reply | None:
        import aiohttp
        from aiohttp.http import HttpProcessingError

        session = cast("aiohttp.ClientSession", await clients.http())
        own = await self._own_headers(ask)
        try:
            return await _exchange(ask, session, self._root, own, clients.idle_timeout_s)
        except VoxfetchError:
            raise
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            failure = _translated(error, ask)
        try:
            raise failure
        finally:
            del failure  # would hold itself through its traceback

    async def _own_headers(self, ask: Ask) -> dict[str, str]:
        """What is sent to the server of the root only."""
        headers = self._headers
        if callable(headers):
            try:
                given = headers()
                headers = _checked(given if isinstance(given, Mapping) else await given)
            except Exception as error:
                message = f"the callable for headers failed with {type(error).__name__}"
                raise CredentialsError(message, key=ask.key) from error
        basic = self._root.basic
        return (_DEFAULT_HEADERS if basic is None else _DEFAULT_HEADERS | {"authorization": basic}) | dict(headers)


def _checked(headers: Headers) -> dict[str, str]:
    """Headers with lower-case names, without those that the ask decides. Raises without naming a value."""
    result: dict[str, str] = {}
    for name, value in headers.items():
        if not (isinstance(name, str) and isinstance(value, str)):  # pyright: ignore[reportUnnecessaryIsInstance] - the user's
            raise TypeError("names and values of headers must be str")
        if not (_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value)):
            raise ValueError("a header has a name or value that HTTP does not allow")
        if name.lower() not in _OWN_HEADERS:
            result[name.lower()] = value
    return result


# ----------------------------------------------------------------------------------------------------------- exchange


def _timeout(idle_timeout_s: float) -> aiohttp.ClientTimeout:
    import aiohttp

    # `connect` is for all addresses of a name, and for the name.
    return aiohttp.ClientTimeout(
        total=None, connect=3 * _CONNECT_TIMEOUT_S, sock_connect=_CONNECT_TIMEOUT_S, sock_read=idle_timeout_s
    )


async def _exchange(
    ask: Ask, session: aiohttp.ClientSession, root: Address, own: dict[str, str], idle_timeout_s: float
) -> Reply | None:
    """Sends the request, follows redirects, reads and checks the reply."""
    from yarl import URL

    fixed = {"accept-encoding": "identity"}
    if (wanted := verify.range_header(ask)) is not None:
        fixed["range"] = wanted
    if ask.if_match is not None:
        fixed["if-match"] = ask.if_match
    headers, origin, url, status = own | fixed, root.origin, root.of(ask.key), 0
    for _ in range(_MAX_REDIRECTS + 1):
        request = session.get(
            URL(url, encoded=True), headers=headers, allow_redirects=False, timeout=_timeout(idle_timeout_s)
        )
        async with request as response:
            if response.status not in _REDIRECTS:
                return await _reply(ask, response, idle_timeout_s)
            status, target = response.status, _redirected(ask, url, response)
            await _start_of_error(response, idle_timeout_s)
        if target.origin != origin:
            # For good: what belongs to the first server does not come back on a later hop.
            headers = _DEFAULT_HEADERS | fixed
        origin, url = target.origin, target.of("")
    raise _failed(ask, f"more than {_MAX_REDIRECTS} redirects", status=status)


async def _reply(ask: Ask, response: aiohttp.ClientResponse, idle_timeout_s: float) -> Reply | None:
    status, headers = response.status, response.headers
    if not 200 <= status < 300:
        return verify.refuse(ask, status, headers, await _start_of_error(response, idle_timeout_s))
    expected = verify.judge(ask, status, headers)
    body = await _body(ask, response, expected.limit, idle_timeout_s)
    if not isinstance(body, bytes):
        raise body
    return verify.finish(ask, expected, body)


async def _body(
    ask: Ask, response: aiohttp.ClientResponse, limit: int, idle_timeout_s: float
) -> bytes | StoreError | TransientError:
    """Reads to the end, or past `limit` bytes. Silence and a trickle are timeouts; `sock_read` knows only the one.

    It does not know all silence either: after a chunk of a wrong size aiohttp waits for ever.
    Returns an exception: one that is raised here would keep what was read.
    """
    import asyncio

    import aiohttp
    from aiohttp.http import HttpProcessingError

    now = asyncio.get_running_loop().time
    parts: list[bytes] = []
    nbytes, since, nbytes_then = 0, now(), 0
    try:
        async with asyncio.timeout(idle_timeout_s) as idle:
            while nbytes <= limit and (part := await response.content.readany()):
                parts.append(part)
                nbytes += len(part)
                elapsed_s = now() - since
                if elapsed_s >= idle_timeout_s:
                    if nbytes - nbytes_then < _MIN_BYTES_PER_S * elapsed_s and nbytes < limit:
                        raise TimeoutError
                    since, nbytes_then = now(), nbytes
                idle.reschedule(now() + idle_timeout_s)
    except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
        return _translated(error, ask, response.status)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _start_of_error(response: aiohttp.ClientResponse, idle_timeout_s: float) -> bytes:
    """The start of a body that only explains a status; whatever happens to it, the status stands."""
    import asyncio

    import aiohttp
    from aiohttp.http import HttpProcessingError

    start, nbytes = b"", 0
    try:
        async with asyncio.timeout(idle_timeout_s):
            while nbytes <= _DRAINED_NBYTES and (part := await response.content.readany()):
                nbytes += len(part)
                start += part[: _ERROR_NBYTES - len(start)]
    except (aiohttp.ClientError, HttpProcessingError, OSError):
        pass
    return start


def _redirected(ask: Ask, url: str, response: aiohttp.ClientResponse) -> Address:
    """Returns where a redirect leads."""
    location = response.headers.get("location")
    try:
        target = None if location is None else parse(urljoin(url, location))
    except ValueError:
        target = None
    if target is None:
        raise _failed(ask, "a redirect to something that is no http(s) URL", status=response.status)
    if url.startswith("https:") and target.origin.startswith("http:"):
        raise _failed(ask, "a redirect from https to http, which is not followed", status=response.status)
    origin = parse(url)
    if is_metadata_service(target) and not (origin is not None and is_metadata_service(origin)):
        message = "a redirect to a service for the secrets of this machine, which is not followed"
        raise _failed(ask, message, status=response.status)
    return target


def _failed(
    ask: Ask, message: str, kind: type[StoreError] = StoreError, *, status: int | None = None, hint: str | None = None
) -> StoreError:
    return kind(message, key=ask.key, byte_range=verify.byte_range(ask), status=status, hint=hint)


def _translated(error: Exception, ask: Ask, status: int | None = None) -> StoreError | TransientError:
    """What an exception of aiohttp means. Of its text nothing is taken: it holds URLs and headers."""
    import ssl

    import aiohttp

    if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ServerFingerprintMismatch)):
        hint = "has it expired, and does it belong to this host?"
        return _failed(ask, "the certificate of the server is not valid", hint=hint)
    if isinstance(error, aiohttp.ClientSSLError) and not isinstance(error.os_error, ssl.SSLEOFError):
        return _failed(ask, "no TLS connection with the server", hint="does it speak https on this port?")
    if isinstance(error, (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)):
        return _failed(ask, "the URL is not one that HTTP allows")
    if isinstance(error, TimeoutError):
        message = "the server did not answer in time" if status is None else "the reply stalled"
        return TransientError(_failed(ask, message, StoreTimeoutError, status=status))
    meanings: list[tuple[type[Exception], str]] = [
        (aiohttp.ClientConnectorDNSError, "the name of the server is not known"),
        (aiohttp.ClientConnectorError, "the server cannot be reached"),
        (aiohttp.ServerDisconnectedError, "the server closed the connection without a reply"),
        (aiohttp.ClientPayloadError, "the body ended too early"),
        (aiohttp.ClientConnectionError, "the connection was lost"),
        (OSError, "the connection was lost"),
    ]
    message = next((meaning for kind, meaning in meanings if isinstance(error, kind)), "the reply is not HTTP")
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        message += f": {os.strerror(error.errno)}"
    return TransientError(_failed(ask, message, status=status))
