"""Objects on S3, GCS and Azure, through obstore: its signing and its connections, nothing else of it.

An `Ask` becomes one `get` of obstore (two where a service cannot do it in one), with its retries off and without its
coalescing; `exchange` checks the result. What the user leaves open is found out and kept, see `reach`. What has been
read from once is read on by the client of the engine where that can be, see `presigned`. Objects that GCS decompresses
on the way, which obstore refuses, come over plain HTTP, see `gcs`. In a forked child obstore is replaced, see `native`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from voxfetch.errors import (
    CredentialsError,
    PermissionDeniedError,
    UnsupportedError,
)
from voxfetch.store import Ask, check_key, verify
from voxfetch.store.exchange import fetch
from voxfetch.store.faults import Refused, outcome
from voxfetch.store.given import given_credentials
from voxfetch.store.local import file_url
from voxfetch.store.missing import Missing
from voxfetch.store.place import Place, parse_place
from voxfetch.store.presigned import PresignedUrls
from voxfetch.store.reach import ForeignReach, PlaceReach
from voxfetch.store.session import REMADE, foreign_arguments

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from voxfetch.options import StoreOptions
    from voxfetch.store import Clients, Get, Reply
    from voxfetch.store.faults import Fault
    from voxfetch.store.place import Kind
    from voxfetch.store.reach import Reach
    from voxfetch.store.session import Session

__all__ = ["ObjectStore"]

_T = TypeVar("_T")

# As it is, in another region, with newer credentials, unsigned.
_MAX_WAYS = 4
_UNSIGNED_HINT = "no credentials were found, so the request was not signed: pass some, or sign in"
# Statuses of a server that has let the request in.
_ANSWERS = {404, 412, 416}
_KINDS: dict[str, tuple[Kind, str]] = {
    "S3Store": ("s3", "bucket"),
    "GCSStore": ("gcs", "bucket"),
    "AzureStore": ("azure", "container_name"),
}
_PLAIN = (str, bytes, bool, int, float, type(None))


class ObjectStore:
    """The prefix of a bucket, or what a store object of obstore (`S3Store`, `MemoryStore`, ...) reaches.

    `source` is a URL, see `place`, or the object, which says itself how it is reached; of the options it takes only
    `missing_status`. Raises `UnsupportedError` for other URLs, `ValueError` and `TypeError` for credentials of an
    unknown form. Cheap to make; connects on first use.
    """

    __slots__ = ("_identity", "_missing", "_options", "_reach", "_source", "_token", "_url", "_urls")

    def __init__(self, source: Any, options: StoreOptions) -> None:
        self.__setstate__((source, options, None, None))

    def __getstate__(self) -> tuple[Any, StoreOptions, str | None, str | None]:
        return self._source, self._options, self._token, self._missing.witness

    def __setstate__(self, state: tuple[Any, StoreOptions, str | None, str | None]) -> None:
        source, options, token, witness = state
        self._source = source
        self._options = options
        self._token = token
        self._reach: Reach
        if isinstance(source, str):
            place = parse_place(source)
            self._url = place.url
            self._reach = PlaceReach(place, options, given_credentials(place.kind, options.credentials))
        else:
            self._url = _url_of(source)
            self._reach = ForeignReach(source)
        self._identity = self._identified()
        self._missing = Missing(options.missing_status, witness=witness)
        self._urls = PresignedUrls()

    def __repr__(self) -> str:
        return f"ObjectStore({self._url!r})"

    def __eq__(self, other: object) -> bool:
        return self._identity == other._identity if isinstance(other, ObjectStore) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def url(self) -> str:
        """URL of the root, without a trailing slash and credentials."""
        return self._url

    @property
    def identity(self) -> str:
        """A digest of the URL, the options and the credentials."""
        return self._identity

    def direct(self, ask: Ask, clients: Clients) -> Get | None:
        """Returns the GET of an ask once the object has been read from, see `RemoteStore.direct` and `presigned`."""
        return self._urls.request(ask, clients)

    async def get(self, ask: Ask, clients: Clients) -> Reply | None:
        """Returns the bytes asked for, None when there is no such object. See `RemoteStore.get`."""
        check_key(ask.key)
        # Refuses empty ranges.
        verify.range_header(ask)
        return await self._missing.get(ask, lambda ask: self._get(ask, clients))

    async def list(self, prefix: str, clients: Clients) -> Sequence[str]:
        """Returns the names directly under `prefix`, sorted. Raises `UnsupportedError` where nobody can tell."""
        check_key(prefix)
        if self._url.startswith(("http://", "https://")):
            raise UnsupportedError("plain HTTP has no listings", key=prefix or None, hint="name the path of the array")
        found = await self._run(lambda session: session.list(prefix), Ask(prefix), clients)
        return cast("list[str] | None", found) or []

    async def _get(self, ask: Ask, clients: Clients) -> Reply | None:
        if (request := self._urls.request(ask, clients)) is not None:
            try:
                found = await self._urls.get(ask, request, clients)
            except PermissionDeniedError as error:
                if self._options.anonymous is None:
                    error.hint = _UNSIGNED_HINT
                raise
            if not isinstance(found, str):
                return found

        async def read(session: Session) -> Reply | None:
            try:
                reply = await fetch(session, ask)
            except Refused as refused:
                way = self._reach.over_http(session) if refused.fault.kind in {"whole", "no length"} else None
                if way is None:
                    raise
            else:
                self._reach.answered(session)
                # One that is for this object only says nothing of the others.
                if session is await self._reach.session(clients):
                    await self._urls.learn(session, self._reach, ask)
                return reply
            return await way.get(ask, session, clients)

        return await self._run(read, ask, clients)

    async def _run(self, call: Callable[[Session], Awaitable[_T]], ask: Ask, clients: Clients) -> _T | Reply | None:
        """Returns what `call` returns for the first session that is not refused, None when there is no such object."""
        faults: list[Fault] = []
        session = None
        try:
            session = await self._reach.session(clients)
            while len(faults) < _MAX_WAYS:
                try:
                    result = await call(session)
                except Refused as refused:
                    fault = refused.fault
                else:
                    self._reach.answered(session)
                    return result
                faults.append(fault)
                if fault.kind == "status" and fault.status in _ANSWERS:
                    self._reach.answered(session)
                other = await self._reach.after(session, fault, clients)
                if other is None:
                    break
                session = other
        except Refused as refused:
            faults.append(refused.fault)
        fault = faults[-1]
        if fault.refuses:
            # The first refusal is that of the request with credentials, if there are any.
            fault = next(fault for fault in faults if fault.refuses)
        try:
            return outcome(fault, ask)
        except (PermissionDeniedError, CredentialsError) as error:
            if session is not None and not session.signed and self._options.anonymous is None:
                error.hint = _UNSIGNED_HINT
            raise

    def _identified(self) -> str:
        """Equal for what is given equally; what cannot be compared, as functions, equals its copies only."""
        options = self._options
        given: list[object] = [self._source]
        if not isinstance(self._source, str):
            given = [type(self._source).__name__]
            if type(self._source).__name__ in REMADE:
                given += foreign_arguments(self._source)
            else:
                given.append(self._source)
        given += [options.anonymous, options.endpoint, options.region, options.headers, options.credentials]
        given += [options.profile, options.missing_status]
        return "object:" + hashlib.sha256(self._stable(given).encode()).hexdigest()

    def _stable(self, value: object) -> str:
        if isinstance(value, Mapping):
            items = cast("Mapping[object, object]", value).items()
            return repr(sorted((repr(name), self._stable(one)) for name, one in items))
        if isinstance(value, (list, tuple)):
            return repr([self._stable(one) for one in cast("Sequence[object]", value)])
        if isinstance(value, (*_PLAIN, timedelta, os.PathLike)):
            return repr(cast("object", value))
        if self._token is None:
            self._token = secrets.token_hex(16)
        return self._token


def _url_of(store: Any) -> str:
    """URL of what a store object of obstore reaches, without secrets."""
    name = type(store).__name__
    if name not in REMADE:
        return "memory://"
    made = foreign_arguments(store)
    first = str(made.args[0]) if made.args and made.args[0] is not None else ""
    if name == "LocalStore":
        return file_url(first)
    if name == "HTTPStore":
        parts = urlsplit(first)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
    kind, bucket = _KINDS[name]
    account = made.config.get("account_name") if kind == "azure" else None
    return Place(kind, str(made.config.get(bucket, "")), made.prefix, account).url
