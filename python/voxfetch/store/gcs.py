"""Objects that GCS decompresses on the way: stored with `Content-Encoding: gzip`, asked for by a client without it.

Such replies have no length and ignore ranges, and obstore refuses them. Here they come over the XML API and plain
HTTP, whole, and what was asked for is cut out. The requests carry the token of the credentials' function, or are
signed by obstore where there is a service account.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import quote

from voxfetch.errors import CredentialsError, StoreError
from voxfetch.store import TransientError
from voxfetch.store.exchange import whole_of
from voxfetch.store.faults import Refused
from voxfetch.store.verify import cut

if TYPE_CHECKING:
    from collections.abc import Mapping

    from voxfetch.store import Ask, Clients, Reply
    from voxfetch.store.http import HttpStore
    from voxfetch.store.session import Session

__all__ = ["GcsHttp", "SignBy", "gcs_http", "gcs_root"]

SignBy = Callable[[], Any] | Literal["obstore"] | None

_ENDPOINT = "https://storage.googleapis.com"
# A token is replaced before it runs out, by so much.
_EARLY_S = 60


class GcsHttp(NamedTuple):
    """A prefix of a bucket over HTTP. `by_signature`: each URL is signed, `store` is not used."""

    store: HttpStore
    by_signature: bool

    async def get(self, ask: Ask, session: Session, clients: Clients) -> Reply | None:
        """Returns the bytes asked for, cut out of the whole object; None when there is none. See `RemoteStore.get`."""
        whole = ask if ask.start is None and ask.suffix is None else whole_of(ask)
        if self.by_signature:
            reply = await _by_signature(whole, session, clients)
        else:
            reply = await self.store.get(whole, clients)
        return reply if reply is None or whole is ask else cut(ask, reply)


def gcs_http(bucket: str, prefix: str, endpoint: str | None, headers: Mapping[str, str], sign: SignBy) -> GcsHttp:
    """Returns the way over HTTP. `sign`: a function that returns a token, obstore, or nobody."""
    from voxfetch.store.http import HttpStore

    root = gcs_root(bucket, prefix, endpoint)
    sent = _Bearer(sign, headers) if callable(sign) else headers
    # What a refusal means is decided by who asked.
    return GcsHttp(HttpStore(root, headers=sent, missing_status=()), by_signature=sign == "obstore")


def gcs_root(bucket: str, prefix: str, endpoint: str | None) -> str:
    """Returns the URL of a prefix of a bucket."""
    return "/".join(((endpoint or _ENDPOINT).rstrip("/"), quote(bucket), *([quote(prefix)] if prefix else [])))


async def _by_signature(whole: Ask, session: Session, clients: Clients) -> Reply | None:
    from voxfetch.store.http import HttpStore

    url = None
    with suppress(Refused):
        url = await session.sign(whole.key)
    if url is None:
        message = "the object is stored compressed, and reading it needs a token or a service account"
        raise CredentialsError(message, key=whole.key, hint='pass credentials={"token": ...}')
    try:
        return await HttpStore(url, missing_status=()).get(replace(whole, key=""), clients)
    except StoreError as error:
        failure = error
    except TransientError as error:
        error.error.key = whole.key
        raise
    # Here the root of the store is the object, and has no key.
    failure.key = whole.key
    raise failure


class _Bearer:
    """Headers with the token that a function of obstore's kind returns, asked for again when it runs out."""

    __slots__ = ("_expires", "_headers", "_provider", "_token")

    def __init__(self, provider: Callable[[], Any], headers: Mapping[str, str]) -> None:
        self._provider = provider
        self._headers = dict(headers)
        self._token = ""
        self._expires = float("-inf")

    async def __call__(self) -> dict[str, str]:
        import inspect
        import time

        if time.time() >= self._expires - _EARLY_S:
            try:
                credential: Any = self._provider()
                if inspect.isawaitable(credential):
                    credential = await credential
                token, expires = credential["token"], credential.get("expires_at")
            except Exception as error:  # noqa: BLE001 - it is a function of the user's
                kind = type(error).__name__
            else:
                self._token = str(token)
                self._expires = float("inf") if expires is None else expires.timestamp()
                kind = None
            if kind is not None:
                raise CredentialsError(f"the function for credentials raised {kind}")
        return {**self._headers, "authorization": f"Bearer {self._token}"}
