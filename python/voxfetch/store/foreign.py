"""Sources of `adapters`: stores of zarr-python 3 on the loop of zarr, file systems of fsspec on theirs or in threads.

The library is imported by whoever made the object; nothing is started before the first use, and what a parent process
has started is left alone after a fork.
"""

from __future__ import annotations

import importlib
import os
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from voxfetch.errors import ForkSafetyError, StoreError
from voxfetch.store import join_key
from voxfetch.store.adapters import ABSENT, sized_last
from voxfetch.store.crossing import Crossing
from voxfetch.store.faults import shown
from voxfetch.store.threads import Threads

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine, Sequence

    from typing_extensions import Buffer

__all__ = ["FsspecSource", "ZarrSource"]

_T = TypeVar("_T")


class ZarrSource:
    """A store of zarr-python 3, used on the loop of zarr. It may read an object whole to know its size."""

    def __init__(
        self,
        store: Any,
        url: str | None = None,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        prototype: Any = None,
        gets_only: bool = False,
    ) -> None:
        """`loop` is another one to use the store on, and not kept alive; `prototype` makes its buffers.

        With `gets_only` it reads by `get` alone, as zarr does: sizes may cost a whole object, or be those of others.
        """
        self._store = store
        self._url = url
        self._loop = _zarr_loop if loop is None else weakref.ref(loop)
        self._prototype = prototype
        self._gets_only = gets_only
        self._crossing: Crossing | None = None
        self._pid = os.getpid()

    def __getstate__(self) -> tuple[Any, str | None]:
        return self._store, self._url

    def __setstate__(self, state: tuple[Any, str | None]) -> None:
        self.__init__(*state)

    @property
    def url(self) -> str:
        """The URL that it was given, or `zarr://` and the class of the store: its own text may hold secrets."""
        return self._url or f"zarr://{type(self._store).__name__}"

    async def whole(self, key: str, max_nbytes: int) -> Buffer | None:  # noqa: ARG002 - zarr knows no limits
        """Returns an object, whatever its size."""
        return await self._get(key, None)

    async def part(self, key: str, start: int, end: int) -> Buffer | None:
        """Returns bytes `[start, end)`, fewer where the object ends."""
        abc: Any = importlib.import_module("zarr.abc.store")
        return await self._get(key, abc.RangeByteRequest(start, end))

    async def last(self, key: str, nbytes: int) -> tuple[Buffer, int | None] | None:
        """Returns the last bytes of an object, and its size where that is known."""
        if not self._gets_only:
            return await sized_last(self, key, nbytes)
        abc: Any = importlib.import_module("zarr.abc.store")
        body = await self._get(key, abc.SuffixByteRequest(nbytes))
        if body is None:
            return None
        # Fewer are all that there are.
        got = memoryview(body).nbytes
        return body, got if got < nbytes else None

    async def size(self, key: str) -> int | None:
        """Returns the number of bytes of an object."""

        async def size() -> int:
            return int(await (await self._opened()).getsize(key))

        with suppress(*ABSENT):
            return await self._run(size())
        return None

    async def names(self, prefix: str) -> Sequence[str]:
        """Returns the names directly under a prefix."""

        async def collect() -> list[str]:
            return [str(name) async for name in (await self._opened()).list_dir(prefix)]

        return await self._run(collect())

    async def _get(self, key: str, request: Any) -> Buffer | None:
        buffers: Any = importlib.import_module("zarr.core.buffer")

        async def get() -> Any:
            store = await self._opened()
            try:
                return await store.get(key, self._prototype or buffers.default_buffer_prototype(), request)
            except ABSENT as error:
                # None says that there is no such object; this is something else, or not meant to be one.
                raise StoreError(f"{type(error).__name__}: {shown(str(error))}", key=key) from None
            except Exception as error:
                # What icechunk says of a key that Zarr does not have, such as a document of another format.
                if "invalid zarr key" not in str(error):
                    raise
                return None

        found = await self._run(get())
        if found is None:
            return None
        body = memoryview(found.as_buffer_like())
        # What can be written belongs to somebody: stores in memory hand out what they were given.
        return body if body.readonly else bytes(body)

    async def _run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        loop, crossing = self._loop(), self._crossing
        if loop is None:
            coroutine.close()
            raise StoreError("the event loop of the store is gone")
        if crossing is None or not crossing.leads(loop):
            crossing = self._crossing = Crossing(loop)
        return await crossing.run(coroutine)

    async def _opened(self) -> Any:
        if self._pid != os.getpid() and type(self._store).__module__.startswith("icechunk"):
            # Its threads are those of the parent: whoever asks would wait for ever.
            message = "a store of icechunk that was opened before a fork"
            raise ForkSafetyError(message, hint='start processes by "spawn" or "forkserver"')
        await self._store._ensure_open()
        return self._store


class FsspecSource:
    """What lies under `root` in a file system of fsspec, which must not be local."""

    def __init__(self, filesystem: Any, root: str) -> None:
        self._filesystem = filesystem
        self._root = root.rstrip("/")
        self._threads = Threads("voxfetch-fsspec")
        self._remade: dict[int, Any] = {}

    def __getstate__(self) -> tuple[Any, str]:
        return self._filesystem, self._root

    def __setstate__(self, state: tuple[Any, str]) -> None:
        self.__init__(*state)

    @property
    def url(self) -> str:
        """URL by the protocol of the file system."""
        protocol = self._filesystem.protocol
        name = protocol if isinstance(protocol, str) else protocol[0]
        return f"{name}://{self._root}"

    async def whole(self, key: str, max_nbytes: int) -> Buffer | None:
        """Returns an object, of a larger one the first `max_nbytes + 1` bytes: two requests, for its size first."""
        size = await self.size(key)
        if not size:
            return None if size is None else b""
        return await self.part(key, 0, min(size, max_nbytes + 1))

    async def part(self, key: str, start: int, end: int) -> Buffer | None:
        """Returns bytes `[start, end)`, fewer where the object ends."""
        with suppress(*ABSENT):
            return await self._call("cat_file", self._path(key), start=start, end=end)
        return None

    async def last(self, key: str, nbytes: int) -> tuple[Buffer, int | None] | None:
        """Returns the last bytes of an object, and its size."""
        return await sized_last(self, key, nbytes)

    async def size(self, key: str) -> int | None:
        """Returns the number of bytes of an object; the file system may have kept that from before."""
        with suppress(*ABSENT):
            found = await self._call("info", self._path(key))
            return int(found["size"]) if found.get("type", "file") == "file" else None
        return None

    async def names(self, prefix: str) -> Sequence[str]:
        """Returns the names directly under a prefix."""
        with suppress(*ABSENT):
            paths = await self._call("ls", self._path(prefix), detail=False)
            return [str(path).rstrip("/").rpartition("/")[2] for path in paths]
        return []

    def _path(self, key: str) -> str:
        return join_key(self._root, key)

    async def _call(self, name: str, *arguments: Any, **keywords: Any) -> Any:
        filesystem = self._here()
        if getattr(filesystem, "async_impl", False):
            return await _on_loop(filesystem.loop, getattr(filesystem, f"_{name}")(*arguments, **keywords))
        return await self._threads.run(lambda: getattr(filesystem, name)(*arguments, **keywords))

    def _here(self) -> Any:
        """The file system, made again where it belongs to a parent process or to a loop that is not known."""
        filesystem, pid = self._filesystem, os.getpid()
        inherited = getattr(filesystem, "_pid", pid) != pid
        if not inherited and not getattr(filesystem, "asynchronous", False):
            return filesystem
        if pid not in self._remade:
            options = {**filesystem.storage_options, "asynchronous": False, "loop": None, "skip_instance_cache": True}
            self._remade[pid] = type(filesystem)(*filesystem.storage_args, **options)
        return self._remade[pid]


async def _on_loop(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Awaits a coroutine of another loop, which runs in another thread."""
    import asyncio

    if loop is asyncio.get_running_loop():
        return await coroutine
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))


def _zarr_loop() -> asyncio.AbstractEventLoop:
    sync: Any = importlib.import_module("zarr.core.sync")
    return sync._get_loop()
