"""Chunks of a server: made once however many ask, kept within bounds, read ahead, and let go when nobody waits."""

from __future__ import annotations

import asyncio
import math
import socket
import time
import urllib.error
import urllib.request
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
import zarr

import voxfetch as vf
from tests.conftest import values, write
from tests.planes import Planes, by_zarr
from voxfetch.server import Server
from voxfetch.server import cache as caching
from voxfetch.server.cache import ChunkCache
from voxfetch.server.chunks import Boxes, Chunks, position_of
from voxfetch.server.room import Room
from voxfetch.server.shown import show
from voxfetch.server.views import Once


class Fake:
    """A source of chunks: by default each has 1000 bytes at once; with `slow` they come when the gate opens."""

    passes = True

    def __init__(self, shape=(8, 8), chunks=(1, 1), shards=None, *, remote=False, slow=False):
        self.shape, self.chunks = shape, chunks
        source = SimpleNamespace(is_remote=remote, url="http://h/a" if remote else "file:///a")
        self.level = SimpleNamespace(source=source, view=SimpleNamespace(shards=shards), dtype=np.dtype("u1"))
        self.slow, self.gate = slow, asyncio.Event()
        self.fetched, self.cancelled, self.ahead = [], [], []
        self.content = lambda position: bytes(position).ljust(1000, b"x")

    async def fetch(self, position, cache, *, ahead):
        (self.ahead if ahead else self.fetched).append(position)
        try:
            if self.slow:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(position)
            raise
        content = self.content(position)
        if isinstance(content, Exception):
            raise content
        return content


def run(work, fake=None, *, cache_bytes=1 << 20, **keywords):
    """Runs `work(chunks, fake, cache)` and closes the cache."""

    async def main():
        source = fake or Fake(remote=True)
        cache = ChunkCache(cache_bytes, **keywords)
        try:
            return await work(Chunks(source, cache, tag="t"), source, cache)
        finally:
            await cache.aclose()

    return asyncio.run(main())


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


# ------------------------------------------------------------------------------------------------------ one for all


def test_a_chunk_that_many_ask_for_is_fetched_once():
    async def work(chunks, fake, cache):
        waiting = [asyncio.ensure_future(chunks.chunk((1, 2))) for _ in range(20)]
        await settle()
        fake.gate.set()
        bodies = await asyncio.gather(*waiting)
        assert {bytes(body.content) for body in bodies} == {b"\x01\x02".ljust(1000, b"x")}
        assert fake.fetched == [(1, 2)]
        assert (cache.counts.asked, cache.counts.fetched, cache.counts.joined) == (20, 1, 19)
        assert await chunks.chunk((1, 2)) is bodies[0]
        assert cache.counts.hits == 1

    run(work, Fake(remote=True, slow=True))


def test_local_bytes_that_pass_are_read_for_each_and_not_kept():
    async def work(chunks, fake, cache):
        await asyncio.gather(chunks.chunk((0, 0)), chunks.chunk((0, 0)))
        await chunks.chunk((0, 0))
        assert len(fake.fetched) == 3
        assert cache.nbytes == 0

    run(work, Fake())


def test_two_arrays_share_the_cache_and_no_chunk():
    async def work(chunks, fake, cache):
        other = Fake(remote=True)
        other.content = lambda _: b"other"
        first = await chunks.chunk((0, 0))
        second = await Chunks(other, cache, tag="t").chunk((0, 0))
        assert first.content != second.content

    run(work)


@pytest.mark.parametrize("place", [(8, 0), (0, 8), (-1, 0), (0,), (0, 0, 0), ()])
def test_nothing_is_fetched_outside_the_grid(place):
    async def work(chunks, fake, cache):
        assert await chunks.chunk(place) is None
        assert not fake.fetched

    run(work)


def test_an_error_reaches_all_who_wait_and_is_not_kept():
    async def work(chunks, fake, cache):
        fake.content = lambda _: vf.StoreError("down")
        outcomes = await asyncio.gather(*(chunks.chunk((0, 0)) for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in outcomes] == [vf.StoreError] * 3
        assert len(fake.fetched) == 1
        fake.content = lambda _: b"up"
        assert (await chunks.chunk((0, 0))).content == b"up"

    run(work)


def test_a_chunk_that_is_not_there_is_looked_for_again():
    async def work(chunks, fake, cache):
        fake.content = lambda _: None
        assert await chunks.chunk((0, 0)) is None
        fake.content = lambda _: b"now"
        assert (await chunks.chunk((0, 0))).content == b"now"

    run(work)


# -------------------------------------------------------------------------------------------------------- going away


def test_work_is_cancelled_when_the_last_who_waits_goes_away():
    async def work(chunks, fake, cache):
        first, second = (asyncio.ensure_future(chunks.chunk((0, 0))) for _ in range(2))
        await settle()
        first.cancel()
        await settle()
        assert not fake.cancelled, "another still waits"
        second.cancel()
        await settle()
        assert fake.cancelled == [(0, 0)]
        third = asyncio.ensure_future(chunks.chunk((0, 0)))
        await settle()
        fake.gate.set()
        assert (await third).content
        assert fake.fetched == [(0, 0)] * 2

    run(work, Fake(remote=True, slow=True))


def test_who_stays_gets_the_chunk():
    async def work(chunks, fake, cache):
        first, second = (asyncio.ensure_future(chunks.chunk((0, 0))) for _ in range(2))
        await settle()
        first.cancel()
        await settle()
        fake.gate.set()
        assert (await second).content
        assert fake.fetched == [(0, 0)]
        assert not fake.cancelled

    run(work, Fake(remote=True, slow=True))


def test_closing_cancels_what_is_in_flight():
    fake = Fake((8, 8), (1, 1), (8, 8), remote=True, slow=True)

    async def work(chunks, fake, cache):
        waiting = [asyncio.ensure_future(chunks.chunk(place)) for place in ((4, 4), (4, 5))]
        await settle()
        await cache.aclose()
        assert sorted(fake.cancelled) == [(4, 4), (4, 5), (4, 6), (4, 7)]
        for one in waiting:
            with pytest.raises(asyncio.CancelledError):
                await one
        await asyncio.sleep(0)
        cache.look_ahead("more", fake.fetch, 60, 10)
        assert len(asyncio.all_tasks()) == 1

    run(work, fake)


def test_a_value_is_made_once_for_all_who_wait_and_anew_after_a_failure():
    made, gate = [], None

    async def make():
        made.append(len(made))
        number = len(made)
        await gate.wait()
        if number < 3:
            raise vf.StoreError(str(number))
        return number

    async def main():
        nonlocal gate
        gate, once = asyncio.Event(), Once(make)
        waiting = [asyncio.ensure_future(once()) for _ in range(3)]
        await settle()
        gate.set()
        assert {str(one) for one in await asyncio.gather(*waiting, return_exceptions=True)} == {"1"}
        gate.clear()
        first, second = (asyncio.ensure_future(once()) for _ in range(2))
        await settle()
        first.cancel()
        await settle()
        assert len(made) == 2, "another still waits"
        second.cancel()
        await settle()
        first, second, third = (asyncio.ensure_future(once()) for _ in range(3))
        await settle()
        first.cancel()
        await settle()
        gate.set()
        assert [await second, await third, await once()] == [3, 3, 3]
        assert len(made) == 3
        await settle()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


# ------------------------------------------------------------------------------------------------------------ bounds


def test_what_is_kept_is_bounded_and_the_least_recently_used_goes_first():
    async def work(chunks, fake, cache):
        for place in np.ndindex(8, 8):
            await chunks.chunk(place)
            await chunks.chunk((0, 0))
            assert cache.nbytes <= 20_000
        assert fake.fetched.count((0, 0)) == 1
        fake.fetched.clear()
        await chunks.chunk((7, 7))
        assert fake.fetched == []
        await chunks.chunk((0, 1))
        assert fake.fetched == [(0, 1)]

    run(work, cache_bytes=20_000)


def test_a_chunk_larger_than_the_cache_is_given_and_not_kept():
    async def work(chunks, fake, cache):
        await chunks.chunk((1, 1))
        fake.content = lambda _: bytes(50_000)
        assert len((await chunks.chunk((0, 0))).content) == 50_000
        assert 0 < cache.nbytes < 2_000
        await chunks.chunk((1, 1))
        assert fake.fetched == [(1, 1), (0, 0)]

    run(work, cache_bytes=20_000)


def test_without_a_cache_chunks_are_given_all_the_same():
    async def work(chunks, fake, cache):
        assert await chunks.chunk((3, 3))
        assert await chunks.chunk((3, 3))
        assert (cache.nbytes, cache.counts.ahead) == (0, 0)

    run(work, Fake((8, 8), (1, 1), (8, 8), remote=True), cache_bytes=0)


def test_what_is_kept_is_trusted_for_a_while(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(caching.time, "monotonic", lambda: now[0])

    async def work(chunks, fake, cache):
        await chunks.chunk((0, 0))
        now[0] += 59
        await chunks.chunk((0, 0))
        assert len(fake.fetched) == 1
        now[0] += 2
        await chunks.chunk((0, 0))
        assert len(fake.fetched) == 2
        lasting = Chunks(fake, cache, tag="t", immutable=True)
        await lasting.chunk((0, 0))
        now[0] += 10**9
        await lasting.chunk((0, 0))
        assert len(fake.fetched) == 3

    run(work)


# -------------------------------------------------------------------------------------------------- held until sent


def test_large_chunks_that_pass_take_room_until_they_are_sent():
    async def work(chunks, fake, cache):
        cache.unsent = Room(2 << 20)
        first, second = [await chunks.chunk((0, at)) for at in range(2)]
        third = asyncio.ensure_future(chunks.chunk((0, 2)))
        await settle()
        assert fake.fetched == [(0, 0), (0, 1)], "no room for another"
        first.release()
        body = await asyncio.wait_for(third, 5)
        assert body is not None
        second.release()
        fourth = await asyncio.wait_for(chunks.chunk((0, 3)), 5)
        for one in (body, fourth):
            one.release()
        fake.content = lambda _: None
        assert await chunks.chunk((0, 4)) is None
        fake.content = lambda _: vf.StoreError("failed")
        with pytest.raises(vf.StoreError):
            await chunks.chunk((0, 5))
        fake.slow = True
        gone = asyncio.ensure_future(chunks.chunk((0, 6)))
        await settle()
        gone.cancel()
        await settle()
        assert cache.unsent._taken == 0

    run(work, Fake((8192, 8192), (1024, 1024)))


def test_small_chunks_take_no_room():
    async def work(chunks, fake, cache):
        assert (await chunks.chunk((0, 0))).release is None

    run(work, Fake((8192, 8192), (512, 512)))


def test_what_is_sent_or_not_to_be_gives_its_room_back(tmp_path):
    case = write(tmp_path / "a", values((2048, 1024), "u1"), chunks=(1024, 1024))
    server = Server({"a": case.path}).start_in_thread()
    try:
        url = f"{server.url_of('a')}/c/1/0"
        with urllib.request.urlopen(url, timeout=10) as answer:
            etag = answer.headers["ETag"]
            assert len(answer.read()) > 1 << 19
        room = server._routes._cache.unsent
        for method, headers in (("HEAD", {}), ("GET", {"If-None-Match": etag}), ("GET", {"If-Match": '"other"'})):
            with suppress(urllib.error.HTTPError):
                urllib.request.urlopen(urllib.request.Request(url, headers=headers, method=method), timeout=10).close()
        # One that is gone before all is sent.
        path = url.partition(f":{server.port}")[2]
        with socket.create_connection(("127.0.0.1", server.port), 10) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            client.recv(10)
        end = time.monotonic() + 10
        while room._taken and time.monotonic() < end:
            time.sleep(0.02)
        assert room._taken == 0
    finally:
        server.stop()


# ------------------------------------------------------------------------------------------------------------- ahead


def test_what_lies_on_the_way_in_the_same_shard_is_read_ahead_and_used():
    async def work(chunks, fake, cache):
        await chunks.chunk((3, 0))
        await settle()
        assert fake.ahead == [], "there is no way yet"
        await chunks.chunk((3, 1))
        await settle()
        assert fake.fetched == [(3, 0), (3, 1)]
        assert fake.ahead == [(3, 2), (3, 3)], "nothing beside the way"
        await chunks.chunk((3, 2))
        await settle()
        assert fake.fetched == [(3, 0), (3, 1)]
        assert (cache.counts.used, cache.counts.hits) == (1, 1)
        assert fake.ahead == [(3, 2), (3, 3)], "(3, 4) lies in the next shard"

    run(work, Fake((8, 8), (1, 1), (4, 4), remote=True))


def test_ways_lead_back_and_along_every_axis():
    async def work(chunks, fake, cache):
        for place in ((4, 5), (4, 4), (5, 4)):
            await chunks.chunk(place)
            await settle()
        assert fake.ahead == [(4, 3), (4, 2), (6, 4), (7, 4)]

    run(work, Fake((8, 8), (1, 1), (8, 8), remote=True))


def test_without_shards_the_next_objects_are_read_ahead():
    async def work(chunks, fake, cache):
        for place in ((3, 0), (3, 1)):
            await chunks.chunk(place)
            await settle()
        assert fake.ahead == [(3, 2), (3, 3)]

    run(work, Fake((8, 8), (1, 1), None, remote=True))


@pytest.mark.parametrize(("remote", "shards"), [(False, (4, 4)), (False, None), (True, (1, 1))])
def test_nothing_is_read_ahead_of_local_files_or_where_each_chunk_has_an_index(remote, shards):
    async def work(chunks, fake, cache):
        await chunks.chunk((3, 0))
        await chunks.chunk((3, 1))
        await settle()
        assert (fake.ahead, cache.counts.ahead) == ([], 0)

    run(work, Fake((8, 8), (1, 1), shards, remote=remote))


def test_nothing_is_read_ahead_past_the_end():
    async def work(chunks, fake, cache):
        for place in ((0, 1), (0, 0), (1, 2), (2, 2)):
            await chunks.chunk(place)
            await settle()
        assert fake.ahead == []

    run(work, Fake((5, 5), (2, 2), (8, 8), remote=True))


def test_reading_ahead_is_bounded_in_number():
    async def work(chunks, fake, cache):
        waiting = [asyncio.ensure_future(chunks.chunk((k, at))) for at in (8, 9) for k in range(0, 99, 2)]
        await settle()
        assert len(fake.ahead) == caching.AHEAD_AT_WORK == 64
        assert len(fake.fetched) == 100
        fake.gate.set()
        await asyncio.gather(*waiting)

    run(work, Fake((128, 64), (1, 1), (128, 64), remote=True, slow=True))


def test_reading_ahead_is_bounded_in_bytes_and_pushes_nothing_out():
    async def work(chunks, fake, cache):
        fake.content = lambda position: bytes(9_000)
        for k in range(4):
            await chunks.chunk((0, 8 * k))
        asked = list(fake.fetched)
        for k in range(40):
            await chunks.chunk((2 * k + 2, 1))
            await chunks.chunk((2 * k + 2, 2))
            await settle()
            assert cache._ahead.nbytes <= 20_000
            assert cache._ahead_nbytes <= 20_000
        fake.fetched.clear()
        for place in asked:
            await chunks.chunk(place)
        assert fake.fetched == []

    run(work, Fake((6400, 6400), (64, 64), (6400, 6400), remote=True), cache_bytes=10 << 20, ahead_bytes=20_000)


def test_failures_ahead_are_nobodys_and_do_not_last():
    async def work(chunks, fake, cache):
        fake.content = lambda position: b"x" if position < (1, 2) else vf.StoreError("down")
        assert (await chunks.chunk((1, 0))).content == b"x"
        assert (await chunks.chunk((1, 1))).content == b"x"
        await settle()
        with pytest.raises(vf.StoreError):
            await chunks.chunk((1, 2))
        fake.content = lambda _: b"up"
        assert (await chunks.chunk((1, 2))).content == b"up"

    run(work, Fake((4, 4), (1, 1), (4, 4), remote=True))


def test_a_chunk_that_is_being_read_ahead_is_joined():
    async def work(chunks, fake, cache):
        before = asyncio.ensure_future(chunks.chunk((1, 0)))
        first = asyncio.ensure_future(chunks.chunk((1, 1)))
        await settle()
        second = asyncio.ensure_future(chunks.chunk((1, 2)))
        await settle()
        assert (1, 2) not in fake.fetched
        fake.gate.set()
        assert all(await asyncio.gather(before, first, second))
        assert (cache.counts.joined, cache.counts.used) == (1, 1)
        assert fake.ahead.count((1, 2)) == 1

    run(work, Fake((4, 4), (1, 1), (4, 4), remote=True, slow=True))


# ------------------------------------------------------------------------------------------------------------- small


def test_a_place_is_spelt_in_one_way():
    assert position_of(["0", "12", "345"]) == (0, 12, 345)
    assert position_of([]) == ()
    for text in ("", "00", "01", "+1", "-1", "1_0", " 1", "1 ", "\u0661", "\u00b2", "1.0", "0x1", "9" * 19, "9" * 5000):
        assert position_of([text]) is None


def test_chunks_are_encoded_beside_the_loop_when_they_are_large(tmp_path):
    array = zarr.create_array(tmp_path / "a", data=values((128, 128, 64), "f8"), chunks=(64, 64, 64))
    cache = ChunkCache(1 << 26)
    planes = Planes(_cache=cache, a=vf.open(tmp_path / "a"))
    np.testing.assert_array_equal(by_zarr(planes, "z3/@viv/a"), array[...].astype("f4"))
    assert math.prod(array.cdata_shape) == cache.counts.fetched


@pytest.mark.parametrize(("room", "most"), [(6, 2), (3, 1), (1, 1), (100, 8)])
def test_so_many_bytes_are_encoded_at_a_time(tmp_path, monkeypatch, room, most):
    """A chunk takes three times what its voxels do; one that needs more than there is gets all of it."""
    zarr.create_array(str(tmp_path / "a"), shape=(64, 8), chunks=(8, 8), dtype="u1", filters=[], compressors=None)
    level = show(vf.open_array(tmp_path / "a")).levels[0]
    monkeypatch.setattr(caching, "ROOM_BYTES", 64 * room)
    at_work = {"now": 0, "most": 0}

    class Slow:
        dtype = np.dtype("u1")

        async def read_box_async(self, start, shape, *, bounds):
            at_work["now"] += 1
            at_work["most"] = max(at_work["most"], at_work["now"])
            await asyncio.sleep(0.005)
            at_work["now"] -= 1
            return np.full(shape, start[0] + 1, "u1")

    class Plain(Boxes):
        def encoded(self, position, voxels):
            return voxels.tobytes()

    source = Plain(level)
    source._arrays = (Slow(), Slow())

    async def work(chunks, _, cache):
        bodies = await asyncio.gather(*(chunks.chunk((i, 0)) for i in range(8)))
        assert [set(body.content) for body in bodies] == [{8 * i + 1} for i in range(8)]
        # One that leaves before its turn takes no place.
        waiting = [asyncio.ensure_future(chunks.chunk((i, 0))) for i in range(8)]
        await asyncio.sleep(0)
        waiting[-1].cancel()
        await asyncio.gather(*waiting[:-1])

    run(work, source)
    assert at_work["most"] == most
