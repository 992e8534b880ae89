"""`Store`: a store of zarr-python that wraps another one, for code that keeps zarr's own codec pipelines.

In: any zarr store, a path, or a URL. Out: the same keys and bytes, with fewer requests: the last bytes of an object,
which are the index of a shard, are kept; ranges of one object that are asked for together are fetched together, and
the same range once. Each reply is compared with what was asked for. Byte ranges are half-open.

zarr's sharding codec reads an index and then ranges of the same object, in one task. A context variable says which
version of the object the index was of; the ranges are asked for of that version.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from zarr.abc.store import RangeByteRequest, SuffixByteRequest
from zarr.abc.store import Store as _ZarrStore
from zarr.storage import LocalStore, ObjectStore

from voxfetch import ObjectChangedError
from voxfetch.zarr.fetch import Version, fetch
from voxfetch.zarr.flights import Ends, Flights

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterable
    from pathlib import Path

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

__all__ = ["Store"]

# Of the end that was read last in this task: which store's, the key, the version.
_read_last: ContextVar[tuple[Ends, str, Version] | None] = ContextVar("voxfetch_zarr_read_last", default=None)


class Store(_ZarrStore):
    """A store of zarr that keeps indexes of shards, merges ranges and checks replies.

    `store`: a zarr store, a path (a `LocalStore`), or a URL that obstore knows (`s3://`, `gs://`, `az://`, `http(s)://`;
    credentials from the environment). `index_ttl_s`: how long the end of an object is trusted; None means 60 s where
    the store shows an ETag (an `ObjectStore`), so that a shard that somebody replaced is noticed by the next read of a
    chunk in it, and not at all elsewhere. A chunk that somebody else adds to a shard is found when that time is over:
    no reply tells of it. What is written or deleted through this store, or a copy `with_read_only`, is forgotten at
    once. `index_cache_bytes` bounds what is kept. Ranges at most `max_gap_bytes` apart become one request of at most
    `max_request_bytes`, unless one range is larger; `get_ranges` of zarr 3.2 and later has bounds of its own, from
    zarr's configuration.

    Reads raise `ObjectChangedError` for an object that was replaced since its index was read (reading again helps) and
    for fewer bytes than were asked for, also where the range goes past the end of the object; `RangeNotHonouredError`
    for other bytes; and what the wrapped store raises. `get_ranges` raises a `BaseExceptionGroup` of them, as zarr has
    it. None stands for "no such object" only.
    """

    def __init__(  # noqa: PLR0913 - keywords as in `ReadOptions`
        self,
        store: _ZarrStore | Path | str,
        *,
        read_only: bool = False,
        index_ttl_s: float | None = None,
        index_cache_bytes: int = 16 << 20,
        max_gap_bytes: int = 1 << 20,
        max_request_bytes: int = 16 << 20,
    ) -> None:
        wrapped = store if isinstance(store, _ZarrStore) else _opened(str(store))
        if read_only and not wrapped.read_only:
            wrapped = wrapped.with_read_only(read_only=True)
        super().__init__(read_only=wrapped.read_only)
        self._store = wrapped
        self._options: dict[str, Any] = {
            "index_ttl_s": index_ttl_s,
            "index_cache_bytes": index_cache_bytes,
            "max_gap_bytes": max_gap_bytes,
            "max_request_bytes": max_request_bytes,
        }
        self._ends = Ends(index_ttl_s, index_cache_bytes)
        self._flights = Flights(max_gap_bytes, max_request_bytes)

    def __getstate__(self) -> tuple[_ZarrStore, bool, dict[str, Any]]:
        return self._store, self._is_open, self._options

    def __setstate__(self, state: tuple[_ZarrStore, bool, dict[str, Any]]) -> None:
        store, is_open, options = state
        self.__init__(store, **options)
        self._is_open = is_open

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and (self._store, self._options) == (other._store, other._options)

    # As zarr's own stores.
    __hash__ = None

    def __str__(self) -> str:
        return f"voxfetch-{self._store}"

    def __repr__(self) -> str:
        return f"Store({self._store!r})"

    @property
    def read_only(self) -> bool:
        """True when nothing can be written."""
        return self._store.read_only

    def with_read_only(self, read_only: bool = False) -> Store:  # noqa: FBT001, FBT002 - as zarr has it
        """Returns a store of the same place that can be written to, or not."""
        other = type(self)(self._store.with_read_only(read_only), **self._options)
        # What is written through one of them is forgotten by both.
        other._ends = self._ends
        return other

    async def _open(self) -> None:
        await super()._open()
        await self._store._ensure_open()

    def close(self) -> None:
        """Closes the wrapped store too."""
        super().close()
        self._store.close()

    # ------------------------------------------------------------------------------------------------------- reading

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Returns the bytes asked for, None when there is no such object. Raises as the class says."""
        last = _read_last.get()
        version = last[2] if last is not None and last[0] is self._ends and last[1] == key else None
        try:
            if isinstance(byte_range, SuffixByteRequest):
                return await self._end(key, prototype, byte_range)
            if isinstance(byte_range, RangeByteRequest) and byte_range.start < byte_range.end:
                place = (key, prototype, version, self._ends.turn)
                return await self._flights.part(
                    place, byte_range, lambda ask: fetch(self._store, key, prototype, ask, version)
                )
            fetched = await fetch(self._store, key, prototype, byte_range, version)
        except ObjectChangedError:
            self._ends.forget(key)
            _read_last.set(None)
            raise
        return None if fetched is None else fetched.body

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Returns the bytes of many ranges, in their order: those near together in one object are one request."""
        return await asyncio.gather(*(self.get(key, prototype, byte_range) for key, byte_range in key_ranges))

    async def _end(self, key: str, prototype: BufferPrototype, ask: SuffixByteRequest) -> Buffer | None:
        what, turn = (ask, prototype), self._ends.turn
        fetched = self._ends.get(key, what)
        if fetched is None:
            fetched = await self._flights.once((key, what, turn), lambda: fetch(self._store, key, prototype, ask))
            if fetched is None:
                return None
            self._ends.put(key, what, fetched, turn)
        _read_last.set((self._ends, key, fetched.version))
        return fetched.body

    # ------------------------------------------------------------------------------------------------ passed through

    @property
    def supports_writes(self) -> bool:
        """As the wrapped store."""
        return self._store.supports_writes

    @property
    def supports_deletes(self) -> bool:
        """As the wrapped store."""
        return self._store.supports_deletes

    @property
    def supports_listing(self) -> bool:
        """As the wrapped store."""
        return self._store.supports_listing

    async def exists(self, key: str) -> bool:
        """As the wrapped store."""
        return await self._store.exists(key)

    async def is_empty(self, prefix: str) -> bool:
        """As the wrapped store."""
        return await self._store.is_empty(prefix)

    async def getsize(self, key: str) -> int:
        """As the wrapped store."""
        return await self._store.getsize(key)

    def list(self) -> AsyncIterator[str]:
        """As the wrapped store."""
        return self._store.list()

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """As the wrapped store."""
        return self._store.list_prefix(prefix)

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """As the wrapped store."""
        return self._store.list_dir(prefix)

    async def set(self, key: str, value: Buffer) -> None:
        """As the wrapped store."""
        await self._changed(self._store.set(key, value), key)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """As the wrapped store."""
        await self._changed(self._store.set_if_not_exists(key, value), key)

    async def delete(self, key: str) -> None:
        """As the wrapped store."""
        await self._changed(self._store.delete(key), key)

    async def delete_dir(self, prefix: str) -> None:
        """As the wrapped store."""
        await self._changed(self._store.delete_dir(prefix), prefix, below=True)

    async def clear(self) -> None:
        """As the wrapped store."""
        await self._changed(self._store.clear(), "", below=True)

    async def _changed(self, change: Awaitable[None], key: str, *, below: bool = False) -> None:
        # After the change: what was read meanwhile may be of before. Also when it failed half-way.
        try:
            await change
        finally:
            self._ends.forget(key, below=below)
            _read_last.set(None)


def _opened(place: str) -> _ZarrStore:
    if "://" not in place:
        return LocalStore(place)
    from obstore.store import from_url

    return ObjectStore(from_url(place, client_options={"allow_http": place.startswith("http://")}))
