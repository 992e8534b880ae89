"""Where bytes come from: two small protocols (names after obspec). A store knows keys and bytes, nothing of arrays.

`Store` is what opening needs: whole documents, listings, from any thread. `RemoteStore` is what the scheduler needs:
one `Ask` -> one checked `Reply`, on the engine's loop. Chunk data of local arrays does not pass through here; the
compiled core reads it. Keys are relative, with `/` between parts, without empty parts, `.` or `..`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, runtime_checkable

from voxfetch.errors import MetadataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Buffer

    from voxfetch import _core
    from voxfetch.errors import PermissionDeniedError, StoreError
    from voxfetch.store.whole import Wholes

__all__ = [
    "MAX_DOCUMENT_NBYTES",
    "Answer",
    "Ask",
    "BodyLimits",
    "Clients",
    "CuttingStore",
    "Get",
    "Landings",
    "NoReply",
    "Pieces",
    "RemoteStore",
    "Reply",
    "Store",
    "Strayed",
    "TransientError",
    "check_key",
    "is_key",
    "join_key",
]

MAX_DOCUMENT_NBYTES = 16 << 20
"""Bytes of the largest metadata document that is read."""


_NO_KEY = re.compile(r"[\0\\]|://|(?:^|/)\.{0,2}(?:/|\Z)")


class Store(Protocol):
    """What reading metadata needs of a store."""

    @property
    def url(self) -> str:
        """URL of the store's root, without a trailing slash and without credentials."""
        ...

    def get(self, key: str) -> bytes | None:
        """Returns the whole object, or None when there is none.

        Raises `LimitExceededError` past `MAX_DOCUMENT_NBYTES`, `PermissionDeniedError`, `StoreError`.
        """
        ...

    def get_many(self, keys: Sequence[str]) -> list[bytes | PermissionDeniedError | None]:
        """Returns several objects as `get` does; where it is far, in the time of one.

        A store that may answer "forbidden" for what does not exist returns that error in the object's place.
        """
        ...

    def ahead(self, keys: Sequence[str]) -> Store:
        """Returns this store with these documents fetched at once, where that saves time."""
        ...

    def place(self, key: str) -> str:
        """Returns what people call the object or prefix `key`: a path, or a URL without credentials."""
        ...

    def exists(self, key: str) -> bool:
        """Returns whether there is an object of this key."""
        ...

    def list(self, prefix: str = "") -> Sequence[str]:
        """Returns the names of what lies directly under `prefix` (objects and prefixes), sorted; empty if nothing does.

        Raises `PermissionDeniedError`, `StoreError`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for bytes of one object.

    All None: the whole object, of at most `max_nbytes` bytes. `start` and `end`: bytes `[start, end)`, all of which
    exist as far as the asker knows. `suffix`: the last so many bytes, or the whole object if it has fewer. Of an object
    without a byte the first as well as the last bytes are none, and that is no error. `if_match`
    is the strong ETag, with its quotes, that the object must still have.
    """

    key: str
    start: int | None = None
    end: int | None = None
    suffix: int | None = None
    if_match: str | None = None
    max_nbytes: int = MAX_DOCUMENT_NBYTES


class Reply(NamedTuple):
    """Bytes of an object, checked against what was asked, and the version of the object that they belong to.

    `body` holds exactly bytes `[start, start + len(body))` of an object of `total` bytes (None: the server does not
    say). `etag` is a strong ETag with its quotes, `modified` the Last-Modified header; None where there is none.
    """

    body: Buffer
    start: int
    total: int | None
    etag: str | None
    modified: str | None


class TransientError(Exception):
    """A request that failed in a way that another attempt may cure; stays inside the package.

    `error` is what the user gets when no attempt is left, `retry_after_s` how long the server asks to wait, `throttled`
    whether it asks for fewer requests.
    """

    def __init__(self, error: StoreError, *, retry_after_s: float | None = None, throttled: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after_s = retry_after_s
        self.throttled = throttled


class BodyLimits(NamedTuple):
    """How many bytes of a body are read at most: of a 206, of a 200. `sized`: none of a 200 without a length."""

    part: int
    whole: int
    sized: bool


class Answer(NamedTuple):
    """What a server said: status, headers (those that `verify` looks at, in lower case), body.

    The body is None where it is longer than its `BodyLimits`, or ends one byte after them; of a status other than 2xx
    it is the start of an explanation.
    """

    status: int
    headers: Mapping[str, str]
    body: Buffer | None


class NoReply(NamedTuple):
    """A request without a reply, or with a part of one: `kind` as `_core.HttpClient.take` has it, what the system says.

    `status` is that of a reply whose body did not come.
    """

    kind: str
    status: int | None = None
    errno: int | None = None


class Get(NamedTuple):
    """One GET: what `Clients.get` takes."""

    url: str
    headers: dict[str, str]
    limits: BodyLimits


Landings: TypeAlias = "Sequence[tuple[int, Ask, Get]]"
"""Requests of the core, by its numbers."""
Strayed: TypeAlias = "Callable[[int, Answer | NoReply], None]"
"""Takes the answer to one of them."""


class Clients(Protocol):
    """Connections of one engine in one process, made on first use on its loop and closed with it."""

    @property
    def wholes(self) -> Wholes:
        """Objects of servers that ignore ranges."""
        ...

    @property
    def idle_timeout_s(self) -> float:
        """How long a reply may stand still."""
        ...

    async def get(self, get: Get) -> Answer | NoReply:
        """Sends one GET of an http(s) URL; follows nothing, tries nothing again."""
        ...

    def land(self, engine: _core.RemoteEngine, requests: Landings, strayed: Strayed) -> None:
        """Sends requests of the core, which takes the replies itself where they are exactly what is asked for.

        Any other is for `strayed`, with its number.
        """
        ...

    def drop(self, number: int) -> None:
        """Drops a request of `land` that nobody waits for."""
        ...

    async def close(self) -> None:
        """Closes all connections. A second call does nothing."""
        ...


class RemoteStore(Protocol):
    """Objects behind a network, asked for on the loop of an engine. Picklable, cheap to make; connects on first use."""

    @property
    def url(self) -> str:
        """URL of the store's root, without a trailing slash, credentials or query."""
        ...

    @property
    def identity(self) -> str:
        """Equal for two stores only if they reach the same objects in the same way. May hold secrets: never shown."""
        ...

    def direct(self, ask: Ask, clients: Clients) -> Get | None:
        """Returns the GET whose answer, if it is exactly what is asked for, is the reply of `get`.

        None where `get` does something else, or has to see each answer. Any other answer is for `get`.
        """
        ...

    async def get(self, ask: Ask, clients: Clients) -> Reply | None:
        """Returns the bytes asked for, None when there is no such object. One attempt.

        Raises `TransientError` for what may go better next time; `ObjectChangedError` when `if_match` does not hold or
        the range lies outside the object; `PermissionDeniedError`, `CredentialsError`, `RangeNotHonouredError`,
        `LimitExceededError` (a whole object larger than `max_nbytes`), `StoreError`.
        """
        ...

    async def list(self, prefix: str, clients: Clients) -> Sequence[str]:
        """Returns the names directly under `prefix`, sorted. Raises `UnsupportedError` where nobody can tell."""
        ...


class Pieces(NamedTuple):
    """A box of an array as an array of its own, chunk for chunk what is to be asked for at once.

    It lies at `name` below the path of the other; chunks are voxels as they are, little-endian, C order. The box begins
    at voxel `start` of it and reaches to its end; what lies before may be anything.
    """

    name: str
    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    start: tuple[int, ...]


@runtime_checkable
class CuttingStore(RemoteStore, Protocol):
    """One whose server cuts out any box of an array."""

    def pieces(self, path: str, box: Sequence[tuple[int, int]]) -> Pieces:
        """Returns a box, [start, end) along each axis, of the array at `path` as an array of its own."""
        ...


def check_key(key: str) -> str:
    """Returns `key` if it stays inside its store. Raises `MetadataError` for `..`, absolute keys, NUL and the like."""
    if key and _NO_KEY.search(key):
        message = f"key {key[:200]!r} is not a relative path inside its store"
        raise MetadataError(message, hint="keys have `/` between parts and no empty part, `.` or `..`")
    return key


def is_key(key: str) -> bool:
    """Returns whether `check_key` would return `key`."""
    return not key or _NO_KEY.search(key) is None


def join_key(*parts: str) -> str:
    """Joins keys with `/`, leaving out empty ones."""
    return "/".join(part for part in parts if part)
