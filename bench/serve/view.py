"""Part 2: a cold view of a distant image: until all its chunks are in the hands of the viewer.

The viewer is a model of Neuroglancer in a browser: at most so many downloads, begun in the order of
``neuroglancer.chunks_of``, over six connections. It reads the shards of a store itself (size of the object, index, one
range a chunk), or chunks from voxfetch's server, which reads that store. The clock runs from the first request for
chunks; metadata is read before, without delay, for both.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp

from bench.engines import OWN
from bench.remote.server import Server
from bench.remote.volumes import SERVED
from bench.runner import say, turns
from bench.serve.chunks import ABSENT, parse_index
from bench.serve.image import Image, build_image
from bench.serve.neuroglancer import Chunk, View, chunks_of
from bench.serve.process import ServerFailedError, ServerProcess, free_port
from bench.serve.servers import SOURCE, own_command
from bench.worker import WrongAnswerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.volumes import Size

DIRECT = "direct"
WAYS = (DIRECT, OWN)
#: Of a browser to one origin, HTTP/1.1.
CONNECTIONS = 6
#: Neuroglancer's default.
DOWNLOADS = 100
LIMIT_S = 300
COUNTED = ("get", "head", "bytes", "max_in_flight", "new_connections")


@dataclass
class Viewed:
    """The runs of one way to see one image from one distance."""

    engine: str
    volume: str
    latency_ms: float
    pixels: int
    chunks: int = 0
    #: {"seconds", "first_s", "half_s": until so many chunks were there, "cpu_s" of the server, counts of the store}
    runs: list[dict[str, float]] = field(default_factory=list)
    problem: str | None = None
    failed: bool = False
    cut_short: bool = False


class Way(Protocol):
    """How a chunk comes to the viewer."""

    async def fetch(self, chunk: Chunk) -> bytes | None:
        """Its bytes, None where it is not stored."""
        ...


class Shards:
    """From the shards, as Neuroglancer's kvstore and codec do: the size by HEAD, then the index, once a shard."""

    def __init__(self, session: aiohttp.ClientSession, image: Image, url: str) -> None:
        self._session = session
        self._image = image
        self._url = url
        self._indexes: dict[str, asyncio.Task[list[tuple[int, int]]]] = {}

    async def fetch(self, chunk: Chunk) -> bytes | None:
        """By a range of its shard."""
        level = self._image.levels[chunk.level]
        position = (0, *chunk.position)
        inside = [s // c for s, c in zip(level.shard, level.chunk, strict=True)]
        cell = "/".join(str(p // n) for p, n in zip(position, inside, strict=True))
        url = f"{self._url}/{chunk.level}/c/{cell}"
        if url not in self._indexes:
            self._indexes[url] = asyncio.create_task(self._index(url, level.index_bytes))
        place = 0
        for p, n in zip(position, inside, strict=True):
            place = place * n + p % n
        offset, length = (await self._indexes[url])[place]
        return None if offset == ABSENT else await self._range(url, offset, offset + length)

    async def _index(self, url: str, nbytes: int) -> list[tuple[int, int]]:
        async with self._session.head(url) as reply:
            reply.raise_for_status()
            size = int(reply.headers["Content-Length"])
        return parse_index(await self._range(url, size - nbytes, size))

    async def _range(self, url: str, start: int, end: int) -> bytes:
        async with self._session.get(url, headers={"Range": f"bytes={start}-{end - 1}"}) as reply:
            if reply.status != 206:
                raise WrongAnswerError(f"{url}: {reply.status} instead of a range")
            return await reply.read()


class Chunks:
    """From a server of chunks without shards."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def fetch(self, chunk: Chunk) -> bytes | None:
        """By a GET; 404 is a chunk that is not stored."""
        url = f"{self._url}/{chunk.level}/c/{'/'.join(map(str, (0, *chunk.position)))}"
        async with self._session.get(url) as reply:
            if reply.status == 404:
                return None
            if reply.status != 200:
                raise WrongAnswerError(f"{url}: {reply.status} {(await reply.text())[:200]}")
            return await reply.read()


def views(
    volumes: Sequence[str], size: Size, engines: Sequence[str], *,
    latencies_ms: Sequence[float], pixels: int, repeat: int,
) -> list[Viewed]:  # fmt: skip
    """All ways, in turns, each time with caches and a server of its own."""
    results: list[Viewed] = []
    with Server(SERVED) as store:
        for name, latency_ms in itertools.product(volumes, latencies_ms):
            image = build_image(name, size)
            found = [Viewed(engine, name, latency_ms, pixels) for engine in engines]
            results += found
            for _, viewed in turns(repeat, found):
                try:
                    seconds = _sample(viewed, image, store)
                except (WrongAnswerError, ServerFailedError, OSError, TimeoutError, aiohttp.ClientError) as reason:
                    viewed.problem, viewed.failed = f"{type(reason).__name__}: {reason}", True
                    say(f"  {viewed.engine:12}{name:14}FAILED: {viewed.problem}")
                    continue
                say(f"  {viewed.engine:12}{name:14}{latency_ms:4g} ms {viewed.chunks:6} chunks{seconds:9.2f} s")
    return results


def middle(image: Image, pixels: int) -> View:
    """A view of the middle of an image, a voxel a pixel. Half a voxel off, as planes go through voxels."""
    x, y, z = (n // 2 + 0.5 for n in image.geometry[0].shape)
    return View((x, y, z), (pixels, pixels))


def image_url(image: Image, port: int) -> str:
    """Of an image in the store at a port."""
    return f"http://127.0.0.1:{port}/{image.path.relative_to(SERVED).as_posix()}"


def _sample(viewed: Viewed, image: Image, store: Server) -> float:
    """One view; its chunks are compared with what they should hold afterwards."""
    wanted = chunks_of(middle(image, viewed.pixels), image.geometry)
    viewed.chunks = len(wanted)
    url = image_url(image, store.port)
    store.control.reset()
    if viewed.engine == DIRECT:
        bodies, at = asyncio.run(_see(wanted, image, store, viewed.latency_ms, url, direct=True))
        cpu_s = 0.0
    else:
        port = free_port()
        with ServerProcess(own_command(url, port), port, f"/z3/{SOURCE}/zarr.json") as server:
            before_s = server.cpu_s()
            served = f"http://127.0.0.1:{port}/z3/{SOURCE}"
            bodies, at = asyncio.run(_see(wanted, image, store, viewed.latency_ms, served, direct=False))
            cpu_s = server.cpu_s() - before_s
    stats = store.control.stats()
    for chunk, body in zip(wanted, bodies, strict=True):
        if body is None:
            raise WrongAnswerError(f"{chunk} was not there")
        image.levels[chunk.level].check((0, *chunk.position), body)
    at.sort()
    run = {"seconds": at[-1], "first_s": at[0], "half_s": at[len(at) // 2], "cpu_s": cpu_s}
    viewed.runs.append(run | {name: stats[name] for name in COUNTED})
    return at[-1]


async def _see(
    wanted: Sequence[Chunk], image: Image, store: Server, latency_ms: float, url: str, *, direct: bool
) -> tuple[list[bytes | None], list[float]]:
    """The bodies, and when each was there, in seconds; metadata is read first."""
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        for document in ("zarr.json", *(f"{number}/zarr.json" for number in range(len(image.levels)))):
            async with session.get(f"{url}/{document}") as reply:
                reply.raise_for_status()
        store.control.reset(latency_ms=latency_ms)
        way: Way = Shards(session, image, url) if direct else Chunks(session, url)
        bodies: list[Any] = [None] * len(wanted)
        at = [0.0] * len(wanted)
        order = iter(enumerate(wanted))
        began = time.perf_counter()

        async def download() -> None:
            # Shared: each takes the next chunk when it has one.
            for number, chunk in order:
                bodies[number] = await way.fetch(chunk)
                at[number] = time.perf_counter() - began

        try:
            async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
                for _ in range(min(DOWNLOADS, len(wanted))):
                    group.create_task(download())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return bodies, at
