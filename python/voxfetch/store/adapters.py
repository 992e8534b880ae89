"""Stores of other libraries as remote stores: zarr-python's, file systems of fsspec, what follows obspec.

Each is used through its own interface, the first two through a `Source`, see `foreign`. What is lost:
zarr and fsspec show no ETag, so that a shard that was replaced between index and data is noticed by its size at most,
or by a checksum; they need one more request for the end of an object, unless its size is of no interest; their errors
are guessed from types and texts.
What `resolve` can translate into a store of ours does not come here.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Protocol, cast

from voxfetch.errors import (
    ObjectChangedError,
    PermissionDeniedError,
    RangeNotHonouredError,
    StoreError,
    StoreTimeoutError,
    UnsupportedError,
    VoxfetchError,
)
from voxfetch.store import Ask, Reply, TransientError, check_key, verify
from voxfetch.store.exchange import fetch
from voxfetch.store.faults import Fault, Refused, fault_of, outcome, shown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from typing_extensions import Buffer

    from voxfetch.store import Clients
    from voxfetch.store.exchange import Range

__all__ = ["ABSENT", "AdapterStore", "ObspecStore", "Source", "failure_of", "sized_last"]

ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
"""Exceptions that say that there is no such object."""

_NETWORK = {"aiohttp", "botocore", "aiobotocore", "httpx", "requests", "urllib3"}


class Source(Protocol):
    """What other libraries have in common. All raise what they like; `None` stands for no such object."""

    @property
    def url(self) -> str:
        """URL of the root, without secrets."""
        ...

    async def whole(self, key: str, max_nbytes: int) -> Buffer | None:
        """Returns an object; of one that is larger than `max_nbytes` at least one byte more."""
        ...

    async def part(self, key: str, start: int, end: int) -> Buffer | None:
        """Returns bytes `[start, end)`, fewer where the object ends."""
        ...

    async def last(self, key: str, nbytes: int) -> tuple[Buffer, int | None] | None:
        """Returns the last bytes of an object, all of one that has fewer, and its size where that is known."""
        ...

    async def size(self, key: str) -> int | None:
        """Returns the number of bytes of an object."""
        ...

    async def names(self, prefix: str) -> Sequence[str]:
        """Returns the names directly under a prefix, in any order."""
        ...


async def sized_last(source: Source, key: str, nbytes: int) -> tuple[Buffer, int | None] | None:
    """`Source.last` by two requests, the first for the size."""
    total = await source.size(key)
    if not total:
        return None if total is None else (b"", 0)
    body = await source.part(key, max(total - nbytes, 0), total)
    return None if body is None else (body, total)


class AdapterStore:
    """A store over a `Source`. There are no ETags; the size of an object is known from whole ones and suffixes only."""

    __slots__ = ("_identity", "_source")

    def __init__(self, source: Source) -> None:
        self._source = source
        self._identity = f"adapter:{secrets.token_hex(16)}"

    def __repr__(self) -> str:
        return f"AdapterStore({self.url!r})"

    @property
    def url(self) -> str:
        """URL of the root, without secrets."""
        return self._source.url

    @property
    def identity(self) -> str:
        """Equal for a store and its copies only."""
        return self._identity

    def direct(self, ask: Ask, clients: Clients) -> None:
        """None: its answers are not those of a GET."""

    async def get(self, ask: Ask, clients: Clients) -> Reply | None:  # noqa: ARG002
        """Returns the bytes asked for, None when there is no such object. See `RemoteStore.get`."""
        check_key(ask.key)
        verify.range_header(ask)
        if ask.if_match is not None:
            message = "this store cannot be asked for a version of an object"
            raise ObjectChangedError(message, key=ask.key, byte_range=verify.byte_range(ask))
        try:
            return await self._get(ask)
        except (VoxfetchError, TransientError):
            raise
        except Exception as error:  # noqa: BLE001 - of any library
            caught = error
        # Outside of the handler, or what is raised there would hang on `caught`.
        failure = failure_of(caught, ask)
        if failure is None:
            return None
        raise failure

    async def list(self, prefix: str, clients: Clients) -> Sequence[str]:  # noqa: ARG002
        """Returns the names directly under `prefix`, sorted."""
        check_key(prefix)
        try:
            return sorted({name for name in await self._source.names(prefix) if name})
        except VoxfetchError:
            raise
        except Exception as error:  # noqa: BLE001
            caught = error
        if isinstance(caught, NotImplementedError):
            raise UnsupportedError("this store has no listings", hint="name the path of the array")
        failure = failure_of(caught, Ask(prefix))
        if failure is None:
            return []
        raise failure

    async def _get(self, ask: Ask) -> Reply | None:
        source, start, end = self._source, ask.start, ask.end
        if ask.suffix is not None:
            return await self._last(ask, ask.suffix)
        if start is None or end is None:
            body = await source.whole(ask.key, ask.max_nbytes)
            if body is None:
                return None
            nbytes = memoryview(body).nbytes
            if nbytes > ask.max_nbytes:
                raise verify.too_large(ask)
            return Reply(body, 0, nbytes, None, None)
        body = await source.part(ask.key, start, end)
        if body is None:
            return None
        nbytes = memoryview(body).nbytes
        if nbytes == start == 0:
            return Reply(b"", 0, 0, None, None)
        _check_nbytes(ask, nbytes, end - start, (start, end))
        return Reply(body, start, None, None, None)

    async def _last(self, ask: Ask, nbytes: int) -> Reply | None:
        found = await self._source.last(ask.key, nbytes)
        if found is None:
            return None
        body, total = found
        if total is None:
            # The end of an object whose size nobody told: where it begins is not known.
            _check_nbytes(ask, memoryview(body).nbytes, nbytes, None)
            return Reply(body, 0, None, None, None)
        start = max(total - nbytes, 0)
        _check_nbytes(ask, memoryview(body).nbytes, total - start, (start, total))
        return Reply(body, start, total, None, None)


def _check_nbytes(ask: Ask, nbytes: int, wanted: int, byte_range: tuple[int, int] | None) -> None:
    if nbytes != wanted:
        kind = ObjectChangedError if nbytes < wanted else RangeNotHonouredError
        raise kind(f"{nbytes:,} bytes came of {wanted:,}", key=ask.key, byte_range=byte_range)


class ObspecStore:
    """A store over an object with `get_async` as obspec has it: ETags and sizes are shown, and checked.

    The object is used on the loop of the engine: one that belongs to another loop does not work here.
    """

    __slots__ = ("_identity", "_store")

    def __init__(self, store: Any) -> None:
        self._store = store
        self._identity = f"obspec:{secrets.token_hex(16)}"

    def __repr__(self) -> str:
        return f"ObspecStore({self.url!r})"

    @property
    def url(self) -> str:
        """`obspec://` and the class of the object."""
        return f"obspec://{type(self._store).__name__}"

    @property
    def identity(self) -> str:
        """Equal for a store and its copies only."""
        return self._identity

    def direct(self, ask: Ask, clients: Clients) -> None:
        """None: its answers are not those of a GET."""

    async def get(self, ask: Ask, clients: Clients) -> Reply | None:  # noqa: ARG002
        """Returns the bytes asked for, None when there is no such object. See `RemoteStore.get`."""
        check_key(ask.key)
        verify.range_header(ask)
        try:
            return await fetch(_ObspecTransport(self._store, ask), ask)
        except Refused as refused:
            fault = refused.fault
        return outcome(fault, ask)

    async def list(self, prefix: str, clients: Clients) -> Sequence[str]:  # noqa: ARG002
        """Returns the names directly under `prefix`, sorted. Raises `UnsupportedError` where nobody can tell."""
        check_key(prefix)
        if not hasattr(self._store, "list_with_delimiter_async"):
            raise UnsupportedError("this store has no listings", hint="name the path of the array")
        transport = _ObspecTransport(self._store, Ask(prefix))
        found = await transport.call(lambda: self._store.list_with_delimiter_async(prefix or None))
        paths = [*cast("Sequence[str]", found["common_prefixes"]), *(str(one["path"]) for one in found["objects"])]
        return sorted({path.rstrip("/").rpartition("/")[2] for path in paths} - {""})


class _ObspecTransport:
    """Calls for one ask."""

    __slots__ = ("_ask", "_store", "suffixes")

    def __init__(self, store: Any, ask: Ask) -> None:
        self._store = store
        self._ask = ask
        self.suffixes = True

    async def get(self, key: str, range_: Range, if_match: str | None) -> Any:
        options = {"range": range_, "if_match": if_match}
        options = {name: value for name, value in options.items() if value is not None}
        return await self.call(lambda: self._store.get_async(key, options=options))

    async def body(self, result: Any) -> Any:
        return await self.call(result.buffer_async if hasattr(result, "buffer_async") else result.bytes_async)

    async def call(self, call: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await call()
        except (VoxfetchError, TransientError):
            raise
        except Exception as error:  # noqa: BLE001 - of any library
            caught = error
        failure: Exception | None = failure_of(caught, self._ask)
        fault = fault_of(caught)
        if failure is None:
            failure = Refused(Fault("status", 404))
        elif fault.kind != "other":
            failure = Refused(fault)
        raise failure


def failure_of(error: Exception, ask: Ask) -> VoxfetchError | TransientError | None:
    """Returns what an exception of another library becomes, None when it says that there is no such object.

    It is not chained: its text may hold URLs with signatures.
    """
    where: dict[str, Any] = {"key": ask.key or None, "byte_range": verify.byte_range(ask)}
    module = type(error).__module__.partition(".")[0]
    text = f"{type(error).__name__}: {shown(str(error))}"
    status = _status_of(error)
    if isinstance(error, ABSENT):
        return None
    if isinstance(error, PermissionError):
        return PermissionDeniedError("the store refuses access", hint="check credentials and permissions", **where)
    if status is not None:
        try:
            return None if verify.refuse(ask, status, {}) is None else StoreError(text, **where)
        except (VoxfetchError, TransientError) as failure:
            return failure
    if isinstance(error, TimeoutError):
        return TransientError(StoreTimeoutError("the store did not answer in time", **where))
    if isinstance(error, ConnectionError) or module in _NETWORK:
        return TransientError(StoreError(text, **where))
    return StoreError(text, **where)


def _status_of(error: Exception) -> int | None:
    """HTTP status of an exception that has one, by one of the usual names."""
    response = getattr(error, "response", None)
    for owner in (error, response):
        for name in ("status", "status_code", "code"):
            value = getattr(owner, name, None)
            if isinstance(value, int) and 400 <= value < 600:
                return value
    return None
