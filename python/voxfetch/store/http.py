"""A store behind plain HTTP(S): whatever can be said with GET, Range and If-Match.

An `Ask` becomes one GET, and its reply is judged by `verify`. A query (`?sig=...`) of the root goes on every key,
`user:password@` becomes Basic authorization; neither is shown anywhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from voxfetch.errors import (
    CredentialsError,
    InternalError,
    ObjectChangedError,
    RangeNotHonouredError,
    StoreError,
    StoreTimeoutError,
    UnsupportedError,
    VoxfetchError,
)
from voxfetch.store import Get, NoReply, Reply, TransientError, check_key, verify
from voxfetch.store.missing import Missing
from voxfetch.store.urls import is_metadata_service, parse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from voxfetch.store import Answer, Ask, Clients
    from voxfetch.store.missing import Statuses
    from voxfetch.store.urls import Address

    Headers = Mapping[str, str]
    HeaderSource = Headers | Callable[[], Headers | Awaitable[Headers]]

__all__ = ["HttpStore", "reply_of", "request_of", "translated"]

_MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
# Answers of servers that know ranges but not suffixes, besides a wrong range.
_NO_SUFFIX = {400, 405, 501}
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[^\0\r\n\ud800-\udfff]*")
# Set by the ask alone.
_OWN_HEADERS = {"accept-encoding", "if-match", "if-modified-since", "if-none-match", "if-range", "range"}
_DEFAULT_HEADERS = {"user-agent": "voxfetch"}


class HttpStore:
    """Objects under an http(s) URL.

    `headers` are sent with each request to the server of the URL: a mapping, or a callable that returns one, or an
    awaitable of one, called on the loop of the engine before each request and again after a 401. `missing_status` is
    that of `StoreOptions`. Raises `StoreError` for a URL that is none, `TypeError` and `ValueError` for such headers.
    """

    __slots__ = (
        "_headers",
        "_identity",
        "_missing",
        "_own_headers",
        "_root",
        "_statuses",
        "_suffixes",
        "_token",
        "_url",
    )

    def __init__(self, url: str, *, headers: HeaderSource | None = None, missing_status: Statuses = "auto") -> None:
        self._restore(url, headers if callable(headers) else _checked(headers or {}), missing_status, None, None)

    def _restore(
        self, url: str, headers: HeaderSource, statuses: Statuses, token: str | None, witness: str | None
    ) -> None:
        self._url = url
        root = parse(url)
        if root is None:
            # Not a word of it: a password may stand anywhere in what is no URL.
            raise StoreError("not a URL of the form http(s)://host/path")
        self._root = root._replace(path=root.path.rstrip("/"))
        self._headers = headers
        self._own_headers = {} if callable(headers) else self._own(headers)
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

    def direct(self, ask: Ask, clients: Clients) -> Get | None:
        """Returns the GET of an ask once the store has been read from, see `RemoteStore.direct`."""
        unknown = self._missing.witness is None or clients.wholes.knows(self)
        if unknown or callable(self._headers) or not (self._suffixes or ask.suffix is None):
            return None
        try:
            return _request(ask, self._root, self._own_headers)
        except (VoxfetchError, ValueError):
            # `get` will say what is wrong with it.
            return None

    async def get(self, ask: Ask, clients: Clients) -> Reply | None:
        """Returns the bytes asked for, None when there is no such object. See `RemoteStore.get`."""
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
        if first.total == 0:
            return first
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
        async def attempt(ask: Ask) -> Reply | None:
            return await self._missing.get(ask, lambda ask: self._authorized(ask, clients))

        return await clients.wholes.get(self, ask, attempt)

    async def _authorized(self, ask: Ask, clients: Clients) -> Reply | None:
        try:
            return await self._once(ask, clients)
        except CredentialsError:
            if not callable(self._headers):
                raise
        return await self._once(ask, clients)

    async def _once(self, ask: Ask, clients: Clients) -> Reply | None:
        headers = self._headers
        own = self._own(await _called(headers, ask)) if callable(headers) else self._own_headers
        return await _exchange(ask, clients, self._root, own)

    def _own(self, headers: Headers) -> dict[str, str]:
        """What is sent to the server of the root only."""
        basic = self._root.basic
        return (_DEFAULT_HEADERS if basic is None else _DEFAULT_HEADERS | {"authorization": basic}) | dict(headers)


async def _called(headers: Callable[[], Headers | Awaitable[Headers]], ask: Ask) -> Headers:
    try:
        given = headers()
        return _checked(given if isinstance(given, Mapping) else await given)
    except Exception as error:
        message = f"the callable for headers failed with {type(error).__name__}"
        raise CredentialsError(message, key=ask.key) from error


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


async def _exchange(ask: Ask, clients: Clients, root: Address, own: dict[str, str]) -> Reply | None:
    """Sends the request, follows redirects, checks the reply: the whole object where the server ignores ranges."""
    get, origin, status = _request(ask, root, own), root.origin, 0
    for _ in range(_MAX_REDIRECTS + 1):
        answer = await clients.get(get)
        if isinstance(answer, NoReply):
            raise translated(answer, ask)
        if answer.status not in _REDIRECTS:
            return reply_of(ask, answer)
        status, target = answer.status, _redirected(ask, get.url, answer)
        # For good: what belongs to the first server does not come back on a later hop.
        headers = get.headers if target.origin == origin else _request(ask, root, _DEFAULT_HEADERS).headers
        origin, get = target.origin, get._replace(url=target.of(""), headers=headers)
    raise _failed(ask, f"more than {_MAX_REDIRECTS} redirects", status=status)


def _request(ask: Ask, root: Address, own: Headers) -> Get:
    return request_of(ask, root.of(check_key(ask.key)), own)


def request_of(ask: Ask, url: str, own: Headers) -> Get:
    """Returns the GET of an ask for an object at a URL. Raises for an empty range."""
    headers = {"accept": "*/*", "accept-encoding": "identity", **own}
    if (wanted := verify.range_header(ask)) is not None:
        headers["range"] = wanted
    if ask.if_match is not None:
        headers["if-match"] = ask.if_match
    return Get(url, headers, verify.body_limits(ask))


def reply_of(ask: Ask, answer: Answer) -> Reply | None:
    """Returns what an answer brings, None where it says that there is no such object. Raises as `RemoteStore.get`."""
    status, headers, body = answer
    if not 200 <= status < 300:
        return verify.refuse(ask, status, headers, bytes(body or b""))
    expected = verify.judge(ask, status, headers)
    if body is None:
        raise InternalError("a body that was not read is wanted", key=ask.key, status=status)
    return verify.checked(ask, expected, body)


def _redirected(ask: Ask, url: str, answer: Answer) -> Address:
    """Returns where a redirect leads."""
    location = answer.headers.get("location")
    try:
        target = None if location is None else parse(urljoin(url, location))
    except ValueError:
        target = None
    if target is None:
        raise _failed(ask, "a redirect to something that is no http(s) URL", status=answer.status)
    if url.startswith("https:") and target.origin.startswith("http:"):
        raise _failed(ask, "a redirect from https to http, which is not followed", status=answer.status)
    origin = parse(url)
    if is_metadata_service(target) and not (origin is not None and is_metadata_service(origin)):
        message = "a redirect to a service for the secrets of this machine, which is not followed"
        raise _failed(ask, message, status=answer.status)
    return target


def _failed(
    ask: Ask, message: str, kind: type[StoreError] = StoreError, *, status: int | None = None, hint: str | None = None
) -> StoreError:
    return kind(message, key=ask.key, byte_range=verify.byte_range(ask), status=status, hint=hint)


_CERTIFICATE_HINT = "has it expired, and does it belong to this host, signed by somebody whom this machine trusts?"
# Of each kind of `NoReply`: what it means, and a hint where no other attempt makes it better.
_MEANINGS: dict[str, tuple[str, str | None]] = {
    "url": ("the URL is not one that HTTP allows", "are all its parts and headers percent-encoded?"),
    "certificate": ("the certificate of the server is not valid", _CERTIFICATE_HINT),
    "tls": ("no TLS connection with the server", "does it speak https on this port?"),
    "trust": ("this machine trusts no server", "install its ca-certificates, or name a file in SSL_CERT_FILE"),
    "timeout": ("the server did not answer in time", None),
    "stalled": ("the reply stalled", None),
    "name": ("the name of the server is not known", None),
    "connect": ("the server cannot be reached", None),
    "closed": ("the server closed the connection without a reply", None),
    "short": ("the body ended too early", None),
    "lost": ("the connection was lost", None),
    "not http": ("the reply is not HTTP", None),
    "internal": ("a bug in the HTTP client", "please report it, with the text on stderr"),
}


def translated(failure: NoReply, ask: Ask) -> StoreError | TransientError:
    """Returns what a request without a reply means."""
    message, hint = _MEANINGS[failure.kind]
    if failure.errno is not None:
        message += f": {os.strerror(failure.errno)}"
    if hint is not None:
        return _failed(ask, message, status=failure.status, hint=hint)
    kind = StoreTimeoutError if failure.kind in {"timeout", "stalled"} else StoreError
    return TransientError(_failed(ask, message, kind, status=failure.status))
