"""Metadata documents of a remote store, for callers that wait: the sync face of a `RemoteStore`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from voxfetch.engine import Engine, default_engine
from voxfetch.errors import ObjectChangedError, PermissionDeniedError, VoxfetchError
from voxfetch.store import Ask, Reply, check_key, join_key

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from voxfetch.scheduler import Scheduler
    from voxfetch.store import RemoteStore

    Found = bytes | None | PermissionDeniedError

__all__ = ["Beginning", "RemoteDocuments"]


class RemoteDocuments:
    """Whole documents of a remote store, fetched on the I/O thread of an engine. Pickles without the engine."""

    __slots__ = ("_beginning", "_engine", "_known", "remote")

    def __init__(
        self, remote: RemoteStore, engine: Engine | None = None, known: dict[str, Found] | None = None
    ) -> None:
        """`engine`: None takes the default engine of the process at each use. `known`: documents fetched already."""
        self.remote = remote
        self._engine = engine
        self._known = known or {}
        self._beginning: Beginning | None = None

    def __repr__(self) -> str:
        return f"RemoteDocuments({self.url!r})"

    def __reduce__(self) -> tuple[Callable[..., RemoteDocuments], tuple[RemoteStore]]:
        return RemoteDocuments, (self.remote,)

    @property
    def url(self) -> str:
        """URL of the root."""
        return self.remote.url

    def place(self, key: str) -> str:
        """Returns what people call the object or prefix `key`: its URL."""
        return join_key(self.url, key)

    def get(self, key: str) -> bytes | None:
        """Returns a whole document, None when there is none."""
        found = self.get_many([key])[0]
        if isinstance(found, PermissionDeniedError):
            raise found
        return found

    def get_many(self, keys: Sequence[str]) -> list[Found]:
        """Returns several documents, asked for at once; for one that the store refuses, the refusal."""
        for key in keys:
            check_key(key)
        unknown = [key for key in keys if key not in self._known]
        fetched: dict[str, Found] = {}
        if unknown:
            scheduler = self._scheduler()
            fetched = dict(zip(unknown, scheduler.run(lambda: scheduler.documents(self.remote, unknown)), strict=True))
        return [fetched[key] if key in fetched else self._known[key] for key in keys]

    def ask(self, *asks: Ask) -> list[Reply | None]:
        """Returns what is asked for, at once, of objects that are no documents, None when there is none."""
        for ask in asks:
            check_key(ask.key)
        scheduler = self._scheduler()

        async def together() -> list[Reply | None]:
            import asyncio

            return await asyncio.gather(*(scheduler.metadata(self.remote, ask) for ask in asks))

        return scheduler.run(together)

    async def ask_async(self, ask: Ask) -> Reply | None:
        """Returns what is asked for, None when there is no such object, without blocking the running loop."""
        import asyncio

        check_key(ask.key)
        scheduler = self._scheduler()
        return await asyncio.wrap_future(scheduler.start(lambda: scheduler.metadata(self.remote, ask)))

    def ends(self, key: str, first_nbytes: int, last_nbytes: int) -> tuple[Reply | None, Reply | None]:
        """Returns the last bytes of an object and, asked for at the same time, the first; None of one without so many.

        Both are None where there is none.
        """
        check_key(key)
        scheduler = self._scheduler()

        async def together() -> tuple[Reply | None, Reply | None]:
            import asyncio

            last, first = await asyncio.gather(
                scheduler.metadata(self.remote, Ask(key, suffix=last_nbytes)),
                scheduler.metadata(self.remote, Ask(key, 0, first_nbytes)),
                return_exceptions=True,
            )
            for reply in (last, first):
                if isinstance(reply, BaseException) and not (reply is first and isinstance(reply, ObjectChangedError)):
                    raise reply
            return cast("Reply | None", last), None if isinstance(first, BaseException) else first

        return scheduler.run(together)

    def ahead(self, keys: Sequence[str]) -> RemoteDocuments:
        """Returns this store with these documents fetched at once."""
        beginning, self._beginning = self._beginning, None
        if beginning is not None:
            scheduler = self._scheduler()
            scheduler.run(lambda: beginning.look(scheduler, self.remote, keys, self._known))
        return RemoteDocuments(self.remote, self._engine, dict(zip(keys, self.get_many(keys), strict=True)))

    @contextmanager
    def looking_at(self, beginning: Beginning) -> Generator[RemoteDocuments]:
        """Gives this store, which looks at the beginning of an object with the first documents fetched ahead."""
        documents = RemoteDocuments(self.remote, self._engine, dict(self._known))
        documents._beginning = beginning
        try:
            yield documents
        finally:
            documents._beginning = None

    def of(self, remote: RemoteStore) -> RemoteDocuments:
        """Returns the documents of another store, fetched in the same way."""
        return RemoteDocuments(remote, self._engine)

    def exists(self, key: str) -> bool:
        """Returns whether there is such an object."""
        return self.get(key) is not None

    def list(self, prefix: str = "") -> Sequence[str]:
        """Returns the names directly under `prefix`. Raises `UnsupportedError` where nobody can tell (plain HTTP)."""
        check_key(prefix)
        scheduler = self._scheduler()
        return scheduler.run(lambda: scheduler.list(self.remote, prefix))

    def _scheduler(self) -> Scheduler:
        return (self._engine or default_engine()).scheduler


class Beginning:
    """The first `nbytes` bytes of an object that may be no document; `body` is None until they are there."""

    def __init__(self, key: str, nbytes: int) -> None:
        self.key = key
        self.nbytes = nbytes
        self.body: bytes | None = None

    async def look(
        self, scheduler: Scheduler, store: RemoteStore, keys: Sequence[str], known: dict[str, Found]
    ) -> None:
        """Fetches them and, at the same time, the documents of `keys` into `known`."""
        import asyncio

        unknown = [key for key in keys if key not in known]
        reply, found = await asyncio.gather(
            scheduler.metadata(store, Ask(self.key, 0, self.nbytes)),
            scheduler.documents(store, unknown),
            return_exceptions=True,
        )
        if isinstance(found, BaseException):
            raise found
        known.update(zip(unknown, found, strict=True))
        # Where it cannot be told, there is none.
        if isinstance(reply, BaseException) and not isinstance(reply, VoxfetchError):
            raise reply
        if isinstance(reply, Reply):
            self.body = bytes(reply.body)
