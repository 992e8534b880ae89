"""A BossDB server as a remote store: its metadata as documents, its cuboids as objects.

A server knows no objects, it cuts boxes out of a volume. One box is an array of its own, of pieces of at most 16 MiB;
all else are blocks of cuboids. What is asked for at the same moment is put together into cutouts as large as that,
whose Blosc chunks are decoded once and taken apart again; the rest is the work of `HttpStore`. Encoded and decoded
cutouts come on top of what the engine counts: what is asked for is held up to three times for a moment. Sources: the
REST API of BossDB, version 1 (collection, experiment, channel, coordinate frame, cutout); its client `intern`. A server
sends no versions: what is replaced while it is read is not noticed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from voxfetch.errors import (
    CodecError,
    CredentialsError,
    DataError,
    InternalError,
    LimitExceededError,
    NotFoundError,
    PermissionDeniedError,
    StoreError,
    UnsupportedError,
    VoxfetchError,
)
from voxfetch.store import Ask, Pieces, Reply, TransientError, check_key, verify
from voxfetch.store.cutouts import (
    BLOCK,
    MAX_CUTOUT_NBYTES,
    TABLE_NBYTES,
    Volume,
    around,
    inside,
    merged,
    split,
    voxels,
)
from voxfetch.store.http import HttpStore
from voxfetch.store.threads import Threads

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from weakref import WeakKeyDictionary

    from typing_extensions import Buffer

    from voxfetch.store import Clients
    from voxfetch.store.cutouts import Box

__all__ = ["BossStore"]

# Asks for blocks are collected until none has come for this long and none is expected ...
_QUIET_S = 0.005
# ... but no longer than this.
_MOST_S = 0.1
# Asks that failed together are to come together again: waits drawn by lot would send each alone.
_AGAIN_S = 0.5
# What a Blosc chunk that does not compress takes beside its bytes.
_BLOSC_EXTRA_NBYTES = 1 << 16
_PUBLIC = "public"
_HINT = 'pass your token: options=StoreOptions(credentials={"token": ...}); without one "public" is sent'


_CELL = re.compile(r"[0-9]+(?:/[0-9]+)+")
_BOX = re.compile(r"(?:/[0-9]+:[0-9]+){3,4}\Z")


class BossStore:
    """The channels of the BossDB server at an http(s) URL without a path.

    `credentials` is a token, or a mapping with `token`; `headers` are sent with each request. `volumes` are the
    resolutions whose cuboids can be read. Raises `StoreError` for a URL that is none, `ValueError` and `TypeError` for
    such credentials and headers.
    """

    __slots__ = ("_cutouts", "_documents", "_loops", "_threads", "_volumes")

    def __init__(self, url: str, *, credentials: object = None, headers: Mapping[str, str] | None = None) -> None:
        own = {"authorization": f"Token {_token_of(credentials)}"} | {n.lower(): v for n, v in (headers or {}).items()}
        root = url.rstrip("/") + "/v1"
        documents, cutouts = (
            HttpStore(root, headers=own | {"accept": f"application/{kind}"}, missing_status=())
            for kind in ("json", "blosc")
        )
        self._restore(documents, cutouts, ())

    def _restore(self, documents: HttpStore, cutouts: HttpStore, volumes: tuple[Volume, ...]) -> None:
        self._documents = documents
        self._cutouts = cutouts
        self._volumes = {volume.path: volume for volume in volumes}
        self._threads = Threads("voxfetch-boss")
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Gathered] | None = None

    def __repr__(self) -> str:
        return f"BossStore({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return self.identity == other.identity if isinstance(other, BossStore) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.identity)

    def __getstate__(self) -> tuple[Any, ...]:
        return self._documents, self._cutouts, tuple(self._volumes.values())

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._restore(*state)

    @property
    def url(self) -> str:
        """URL of the server, with `bossdb://` before it: what opens it again, with a channel behind."""
        return f"bossdb://{self._documents.url.removesuffix('/v1')}"

    @property
    def identity(self) -> str:
        """URL, headers and volumes; never shown."""
        return repr(("boss", self._documents.identity, tuple(self._volumes.values())))

    def with_volumes(self, volumes: Sequence[Volume]) -> BossStore:
        """Returns this store with the resolutions whose cuboids can be read."""
        store = BossStore.__new__(BossStore)
        store._restore(self._documents, self._cutouts, tuple(volumes))
        return store

    def direct(self, ask: Ask, clients: Clients) -> None:
        """None: its answers are not those of a GET."""

    async def get(self, ask: Ask, clients: Clients) -> Reply | None:
        """Returns the bytes asked for, of a document or of a cuboid. See `RemoteStore.get`.

        A cuboid is there if its volume is: the server knows no other. Raises `NotFoundError` where the channel is not,
        `DataError` for a reply that is not what was asked for.
        """
        # From the end: a channel may be called `c` as well.
        path, _, cell = check_key(ask.key).rpartition("/c/")
        box = _BOX.search(path)
        volume = self._volumes.get(path if box is None else path[: box.start()])
        if volume is None:
            if path and _CELL.fullmatch(cell):
                # A document that is not there would stand for a cuboid of zeros.
                raise InternalError("a cuboid of a channel that was not opened", key=ask.key)
            return await _asked(self._documents, ask, clients)
        place, gathered = _cell(cell, volume), self._gathered()
        if box is not None:
            whole = volume.keyed(path)
            piece = volume.grid(whole).piece(place)
            total = math.prod(high - low for low, high in piece) * volume.item_nbytes
            start, end = verify.extent(ask, total)
            # All rows of a piece, one after the other.
            rows = _Parts(volume, (1, 1, 1, piece[3][1] - piece[3][0]))
            body = await gathered.get(_Wanted.of(rows, piece, whole), clients)
            return Reply(body if (start, end) == (0, total) else memoryview(body)[start:end], start, total, None, None)
        cuboid = volume.cuboid(place)
        data_nbytes, total = cuboid.data_nbytes, cuboid.data_nbytes + TABLE_NBYTES
        start, end = verify.extent(ask, total)
        parts: list[Buffer] = []
        if start < data_nbytes:
            run = cuboid.run(start, min(end, data_nbytes))
            gathered.came((path, cuboid.box))
            wanted = _Wanted.of(_Parts(volume, BLOCK), voxels(run.box), volume.box)
            blocks = await gathered.get_blocks(wanted, clients)
            parts.append(memoryview(blocks)[run.skip : run.skip + run.nbytes])
        else:
            # Whoever knows what is where will ask for it.
            gathered.expect((path, cuboid.box))
        if end > data_nbytes:
            parts.append(cuboid.table[max(start - data_nbytes, 0) : end - data_nbytes])
        return Reply(parts[0] if len(parts) == 1 else b"".join(parts), start, total, None, None)

    async def list(self, prefix: str, clients: Clients) -> Sequence[str]:  # noqa: ARG002 - the protocol's
        """Raises `UnsupportedError`: a channel says what it has."""
        raise UnsupportedError("BossDB has no folders", key=prefix or None, hint="name a channel")

    def pieces(self, path: str, box: Sequence[tuple[int, int]]) -> Pieces:
        """Returns a box of the array at `path` as an array of its own. See `CuttingStore.pieces`."""
        volume = self._volumes[path]
        first = [low for low, _ in volume.box[-len(box) :]]
        own = ((low + start, high + start) for (low, high), start in zip(box, first, strict=True))
        whole: Box = tuple(own) if volume.has_time else ((0, 1), *own)
        grid, kept = volume.grid(whole), slice(-len(box), None)
        axes = list(zip(whole, grid.start, strict=True))[kept]
        return Pieces(
            name=volume.key(whole).removeprefix(path + "/"),
            shape=tuple(high - at for (_, high), at in axes),
            chunk_shape=grid.shape[kept],
            start=tuple(low - at for (low, _), at in axes),
        )

    async def cut(self, parts: _Parts, cutout: Box, boxes: Sequence[Box], clients: Clients) -> Sequence[Buffer]:
        """Returns the parts in each of `boxes`, out of one request for the voxels `cutout`. Raises like `get`."""
        volume = parts.volume
        nbytes = math.prod(high - low for low, high in cutout) * volume.item_nbytes
        key = f"cutout/{volume.key(cutout)}"
        try:
            reply = await _asked(self._cutouts, Ask(key, max_nbytes=nbytes + _BLOSC_EXTRA_NBYTES), clients)
            if reply is None:
                message = "the server does not have this channel or resolution any more"
                raise NotFoundError(message, status=404, hint="open it again")
            return await self._threads.run(lambda: split(reply.body, volume.item_nbytes, cutout, parts.shape, boxes))
        except LimitExceededError as error:
            message = f"the reply is longer than a Blosc chunk of {nbytes:,} bytes can be"
            failure: VoxfetchError | TransientError = DataError(message, status=error.status)
        except CodecError as error:
            failure = DataError(f"the reply is not the cutout: {error.message}")
        except (VoxfetchError, TransientError) as error:
            failure = error
        # The object that the error will name is one of several in the cutout.
        error = failure.error if isinstance(failure, TransientError) else failure
        error.message += f", cutout {key.removeprefix(f'cutout/{volume.path}/')}"
        raise failure

    def _gathered(self) -> _Gathered:
        import asyncio
        from weakref import WeakKeyDictionary

        if self._loops is None:
            self._loops = WeakKeyDictionary()
        return self._loops.setdefault(asyncio.get_running_loop(), _Gathered(self))


_Place = tuple[str, "Box"]
"""Path of a volume, and the blocks of a cuboid in it."""


class _Parts(NamedTuple):
    """What cutouts of a volume are taken apart into: `shape` in voxels."""

    volume: Volume
    shape: tuple[int, ...]


class _Wanted(NamedTuple):
    """A box that somebody waits for, of which `needed` is more than padding."""

    parts: _Parts
    box: Box
    needed: Box
    future: asyncio.Future[Buffer]

    @classmethod
    def of(cls, parts: _Parts, box: Box, whole: Box) -> _Wanted:
        """What is needed lies in `whole`."""
        import asyncio

        return cls(parts, box, inside(box, whole), asyncio.get_running_loop().create_future())


class _Gathered:
    """What is asked of a store on one loop, until it is sent."""

    def __init__(self, store: BossStore) -> None:
        self._store = store
        self._waiting: list[_Wanted] = []
        self._blocks: list[_Wanted] = []
        self._came_s = self._sent_s = 0.0
        self._expected: set[_Place] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def expect(self, place: _Place) -> None:
        """Notes what is going to be asked for at once."""
        self._expected.add(place)

    def came(self, place: _Place) -> None:
        """Notes that something expected is asked for."""
        self._expected.discard(place)

    async def get(self, wanted: _Wanted, clients: Clients) -> Buffer:
        """Returns the parts in a box in C order, together with what is asked for now. Raises like `BossStore.get`."""
        import asyncio

        loop = asyncio.get_running_loop()
        if not self._waiting:
            # Asks of one read come in one turn of the loop; behind those of another more are likely.
            are_many = self._tasks and loop.time() - self._sent_s < _QUIET_S
            loop.call_later(_QUIET_S if are_many else 0, self._send, clients)
        self._waiting.append(wanted)
        return await wanted.future

    async def get_blocks(self, wanted: _Wanted, clients: Clients) -> Buffer:
        """Like `get`, together with what is asked for within some milliseconds."""
        import asyncio

        loop = asyncio.get_running_loop()
        self._came_s = loop.time()
        if not self._blocks:
            loop.call_later(_QUIET_S, self._send_blocks, clients, self._came_s)
        self._blocks.append(wanted)
        return await wanted.future

    def _send_blocks(self, clients: Clients, began_s: float) -> None:
        """Sends the blocks that are waited for, unless more are to come."""
        import asyncio

        loop = asyncio.get_running_loop()
        now_s = loop.time()
        if now_s - began_s < _MOST_S and (self._expected or now_s - self._came_s < _QUIET_S):
            loop.call_later(_QUIET_S, self._send_blocks, clients, began_s)
            return
        self._waiting += self._blocks
        self._blocks, self._expected = [], set()
        self._send(clients)

    def _send(self, clients: Clients) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._sent_s = loop.time()
        of_parts: dict[_Parts, dict[Box, list[_Wanted]]] = {}
        for wanted in waiting:
            if not wanted.future.done():
                of_parts.setdefault(wanted.parts, {}).setdefault(wanted.needed, []).append(wanted)
        for parts, of_box in of_parts.items():
            for boxes in merged(of_box, MAX_CUTOUT_NBYTES // parts.volume.item_nbytes):
                group = [wanted for box in boxes for wanted in of_box[box]]
                task = loop.create_task(self._cut(parts, around(boxes), group, clients))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                for wanted in group:
                    wanted.future.add_done_callback(lambda _, task=task, group=group: _give_up(task, group))

    async def _cut(self, parts: _Parts, cutout: Box, group: Sequence[_Wanted], clients: Clients) -> None:
        boxes = list(dict.fromkeys(wanted.box for wanted in group))
        outcomes: Sequence[Buffer | Exception]
        try:
            outcomes = await self._store.cut(parts, cutout, boxes, clients)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is for those who wait
            outcomes = [error] * len(boxes)
        of_box = dict(zip(boxes, outcomes, strict=True))
        for wanted in group:
            outcome = of_box[wanted.box]
            if wanted.future.done():
                continue
            if isinstance(outcome, Exception):
                wanted.future.set_exception(_copy(outcome, is_one=len(group) == 1))
            else:
                wanted.future.set_result(outcome)


def _give_up(task: asyncio.Task[None], group: Sequence[_Wanted]) -> None:
    """Stops a request that nobody waits for any more."""
    if all(wanted.future.cancelled() for wanted in group):
        task.cancel()


def _copy(error: Exception, *, is_one: bool) -> Exception:
    """The outcome for one of those who wait: who raises an exception writes to it."""
    if isinstance(error, TransientError):
        wait_s = error.retry_after_s if is_one or error.retry_after_s is not None else _AGAIN_S
        own = cast("StoreError", _copy(error.error, is_one=is_one))
        return TransientError(own, retry_after_s=wait_s, throttled=error.throttled)
    if isinstance(error, VoxfetchError):
        return type(error)(error.message, key=error.key, status=error.status, hint=error.hint)
    return error


async def _asked(store: HttpStore, ask: Ask, clients: Clients) -> Reply | None:
    try:
        return await store.get(ask, clients)
    except (CredentialsError, PermissionDeniedError) as error:
        error.hint = _HINT
        raise


def _cell(text: str, volume: Volume) -> list[int]:
    """Where a cuboid lies in the grid of cuboids: t, z, y, x."""
    numbers = [int(number) for number in text.split("/")]
    return numbers if volume.has_time else [0, *numbers]


def _token_of(credentials: object) -> str:
    token = cast("Mapping[str, object]", credentials).get("token") if isinstance(credentials, Mapping) else credentials
    if token is None and credentials is None:
        return _PUBLIC
    if not isinstance(token, str) or not token:
        raise ValueError('credentials of BossDB are a token: credentials={"token": ...}')
    return token
