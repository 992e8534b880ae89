"""How a bucket is reached, found out request by request: its region, whether it is public, newer credentials.

A request goes through the session of this process. When it is refused, `after` says with which session to try it
again, and `answered` what worked; nothing else is kept but that.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Protocol, cast

from voxfetch.errors import StoreError
from voxfetch.store import BodyLimits, Get, NoReply, TransientError
from voxfetch.store.access import Access, find_access
from voxfetch.store.gcs import GcsHttp, SignBy, gcs_http, gcs_root
from voxfetch.store.given import Given, secrets_of
from voxfetch.store.session import Session, client_options, foreign_arguments, open_foreign, open_place

if TYPE_CHECKING:
    import asyncio
    from weakref import WeakKeyDictionary

    from voxfetch.options import StoreOptions
    from voxfetch.store import Clients
    from voxfetch.store.faults import Fault
    from voxfetch.store.place import Place

__all__ = ["ForeignReach", "PlaceReach", "Reach", "bucket_region"]

_DEFAULT_REGION = "us-east-1"
# Many requests fail at once when credentials run out.
_RENEW_S = 30.0
_LISTING_NBYTES = 1 << 16
# Settings of obstore that say who asks and where, and times that are those of the engine here.
_S3_SETTINGS = {
    "bucket",
    "region",
    "endpoint",
    "virtual_hosted_style_request",
    "skip_signature",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "token",
}
_YES = {"1", "true", "on", "yes", "y"}
_CLIENT_SETTINGS = {"allow_http", "timeout", "connect_timeout", "read_timeout"}


class Reach(Protocol):
    """Sessions of one store."""

    async def session(self, clients: Clients) -> Session:
        """Returns the session of this process. Raises `Refused`, `TransientError`, `StoreError`, `ForkSafetyError`."""
        ...

    async def after(self, session: Session, fault: Fault, clients: Clients) -> Session | None:
        """Returns the session to try next after a fault, None when there is none."""
        ...

    def answered(self, session: Session) -> None:
        """Notes that the server has accepted the requests of a session."""
        ...

    def over_http(self, session: Session) -> GcsHttp | None:
        """Returns the way over plain HTTP, None if there is none."""
        ...

    def way(self, session: Session) -> str | None:
        """Returns how a GET by any client reads objects: below which URL, at URLs that are signed ("sign"), or not."""
        ...


class PlaceReach:
    """Reaches a place as the options say. Connections are made once a process."""

    def __init__(self, place: Place, options: StoreOptions, given: Given) -> None:
        self._place = place
        self._options = options
        self._given = given
        # By process: those of a parent stay referenced and unused.
        self._sessions: dict[int, Session] = {}
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        self._region: str | None = None
        self._renewed = float("-inf")
        # What is known of the bucket: True: signed requests are answered; False: only unsigned ones are.
        self._signs: bool | None = None
        self._http: tuple[Session, GcsHttp] | None = None

    async def session(self, clients: Clients) -> Session:
        """Returns the session of this process, made by the first call."""
        found = self._sessions.get(os.getpid())
        if found is not None:
            return found
        async with self._lock():
            found = self._sessions.get(os.getpid())
            return found or self._keep(await self._open(clients))

    async def after(self, session: Session, fault: Fault, clients: Clients) -> Session | None:
        """Returns the session to try next after a fault, None when there is none."""
        if fault.wrong_region:
            return await self._elsewhere(session, clients)
        if not fault.refuses:
            return None
        access = cast("Access", session.access)
        current = self._sessions.get(os.getpid(), session)
        signed = cast("Access", current.access).signed
        if not access.signed:
            # Refused with and without a signature: no use in trying that again.
            self._signs = True if signed else self._signs
            return None
        if fault.expired and access.renewable:
            if current is not session and signed:
                return current
            if time.monotonic() - self._renewed > _RENEW_S:
                self._renewed = time.monotonic()
                return self._keep(await self._open(clients))
        if self._options.anonymous is None and self._signs is None:
            return self._made(access._replace(provider=None, signed=False), session.region, clients)
        return None

    def answered(self, session: Session) -> None:
        """Notes that the server has accepted the requests of a session."""
        if self._signs is None:
            self._signs = cast("Access", session.access).signed
            self._sessions[os.getpid()] = session

    def over_http(self, session: Session) -> GcsHttp | None:
        """Returns the way over plain HTTP, None if there is none."""
        if self._place.kind != "gcs":
            return None
        if self._http is None or self._http[0] is not session:
            access = cast("Access", session.access)
            sign = access.provider or ("obstore" if access.signed else None)
            headers = self._options.headers or {}
            way = gcs_http(self._place.bucket, self._place.prefix, access.endpoint, headers, sign)
            self._http = (session, way)
        return self._http[1]

    def way(self, session: Session) -> str | None:
        """Returns how a GET by any client reads objects: below which URL, at URLs that are signed ("sign"), or not."""
        access, place = cast("Access", session.access), self._place
        if place.kind == "azure" or self._options.headers or _has_proxies():
            return None
        if place.kind == "gcs":
            return None if access.signed else gcs_root(place.bucket, place.prefix, access.endpoint)
        return "sign" if access.signed else session.public_root()

    def _lock(self) -> asyncio.Lock:
        import asyncio
        from weakref import WeakKeyDictionary

        if self._locks is None:
            self._locks = WeakKeyDictionary()
        return self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())

    def _keep(self, session: Session) -> Session:
        self._sessions[os.getpid()] = session
        return session

    async def _open(self, clients: Clients) -> Session:
        options = self._options
        access = find_access(self._place, options, self._given)
        if options.endpoint is not None:
            access = access._replace(endpoint=options.endpoint)
        if self._signs is False:
            access = access._replace(provider=None, signed=False)
        region = options.region or self._region or access.region
        if self._place.kind == "s3" and region is None:
            region = _DEFAULT_REGION
            if access.endpoint is None:
                region = self._region = await bucket_region(self._place.bucket, clients) or region
        return self._made(access, region, clients)

    def _made(self, access: Access, region: str | None, clients: Clients) -> Session:
        client = client_options(clients.idle_timeout_s, self._options.headers)
        return open_place(self._place, access, region, client, secrets_of(self._options))

    async def _elsewhere(self, session: Session, clients: Clients) -> Session | None:
        """The session for the region in which the bucket is, if the user leaves it to us and it is another one."""
        access = cast("Access", session.access)
        if self._place.kind != "s3" or self._options.region is not None or access.endpoint is not None:
            return None
        region = await bucket_region(self._place.bucket, clients)
        if region is None or region == session.region:
            return None
        self._region = region
        return self._keep(self._made(access, region, clients))


class ForeignReach:
    """Reaches what a store object of obstore reaches, as it does."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._sessions: dict[int, Session] = {}

    async def session(self, clients: Clients) -> Session:
        """Returns the session of this process, made by the first call."""
        pid = os.getpid()
        if pid not in self._sessions:
            self._sessions[pid] = open_foreign(self._store, clients.idle_timeout_s)
        return self._sessions[pid]

    async def after(self, session: Session, fault: Fault, clients: Clients) -> Session | None:  # noqa: ARG002
        """Returns None: the object says how it is reached."""
        return None

    def answered(self, session: Session) -> None:
        """Does nothing."""

    def over_http(self, session: Session) -> GcsHttp | None:  # noqa: ARG002
        """Returns the way over plain HTTP for a GCSStore, None for others."""
        if type(self._store).__name__ != "GCSStore":
            return None
        made = foreign_arguments(self._store)
        config = made.config
        sign: SignBy = made.kwargs.get("credential_provider")
        if sign is None and config.get("bearer_token"):
            token = str(config["bearer_token"])
            sign = lambda: {"token": token}  # noqa: E731
        if sign is None and str(config.get("skip_signature", "")).lower() != "true":
            sign = "obstore"
        return gcs_http(str(config["bucket"]), made.prefix, config.get("base_url"), made.headers, sign)

    def way(self, session: Session) -> str | None:
        """As of a place, for an S3Store with no settings but who asks and where, None for others."""
        if type(self._store).__name__ != "S3Store":
            return None
        made = foreign_arguments(self._store)
        client: dict[str, Any] = made.kwargs.get("client_options") or {}
        if set(made.config) - _S3_SETTINGS or set(client) - _CLIENT_SETTINGS or _has_proxies():
            return None
        # Obstore looks at the variable as well, and to sign it would look for credentials elsewhere.
        skips = made.config.get("skip_signature", os.environ.get("AWS_SKIP_SIGNATURE", ""))
        return session.public_root() if str(skips).lower() in _YES else "sign"


def _has_proxies() -> bool:
    """Whether variables of the environment name a proxy, which obstore uses and the client of the engine does not."""
    from urllib.request import getproxies_environment

    return bool(getproxies_environment().keys() - {"no"})


async def bucket_region(bucket: str, clients: Clients) -> str | None:
    """Returns the region of a bucket of AWS, None if the service does not say. Raises `TransientError`.

    Any answer names it, be it a refusal.
    """
    # A name with dots is not covered by the certificate for buckets as hosts.
    root = f"https://s3.amazonaws.com/{bucket}" if "." in bucket else f"https://{bucket}.s3.amazonaws.com/"
    answer = await clients.get(Get(f"{root}?list-type=2&max-keys=0", {}, BodyLimits(0, _LISTING_NBYTES, sized=False)))
    if not isinstance(answer, NoReply):
        return answer.headers.get("x-amz-bucket-region") or None
    message = "S3 cannot be reached to ask for the region of the bucket"
    raise TransientError(StoreError(message, hint="pass region, and endpoint if this is not AWS"))
