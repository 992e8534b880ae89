"""`voxfetch.zarr.Store`: zarr's own tests of stores, what it asks for, and what it makes of wrong replies.

The truth is what zarr's own stores return. Runs with zarr 3.1 and with 3.4.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import pickle
import signal

import numpy as np
import pytest
import zarr
from obstore.store import HTTPStore
from obstore.store import LocalStore as ObstoreFolder
from obstore.store import MemoryStore as ObstoreMemory
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import cpu, default_buffer_prototype
from zarr.storage import LocalStore, MemoryStore, ObjectStore, WrapperStore
from zarr.testing.store import StoreTests

import voxfetch as vf
from tests.servers import objects_in
from tests.servers.faulty import Fault, FaultyServer
from voxfetch.zarr import Store
from voxfetch.zarr.fetch import Fetched, Version
from voxfetch.zarr.flights import Ends, merged

PROTOTYPE = default_buffer_prototype()
COALESCES = hasattr(zarr.abc.store.Store, "get_ranges")
SHAPE, SHARD, CHUNK = (32, 64, 64), (32, 32, 32), (8, 8, 8)
INDEX_NBYTES = 4 * 4 * 4 * 16 + 4


def buffer(data):
    return cpu.Buffer.from_bytes(data)


# ----------------------------------------------------------------------------------------------------- zarr's own tests


def without_plugin(cls):
    """Tests that are coroutines become functions, so that no plugin of pytest is needed."""
    for name, test in inspect.getmembers(cls, inspect.iscoroutinefunction):
        if name.startswith("test_"):

            @functools.wraps(test)
            def run(*arguments, _test=test, **keywords):
                asyncio.run(_test(*arguments, **keywords))

            setattr(cls, name, run)
    return cls


class OfZarr(StoreTests):
    """What the suite wants to know of any store."""

    __test__ = False
    store_cls = Store
    buffer_cls = cpu.Buffer

    @pytest.fixture
    def store(self, open_kwargs):
        return asyncio.run(Store.open(**open_kwargs))

    @pytest.fixture
    def store_not_open(self, store_kwargs):
        return Store(**store_kwargs)

    def test_store_repr(self, store):
        assert repr(store) == f"Store({store._store!r})"
        assert str(store) == f"voxfetch-{store._store}"

    def test_store_supports_writes(self, store):
        assert store.supports_writes

    def test_store_supports_listing(self, store):
        assert store.supports_listing


@without_plugin
class TestOverMemory(OfZarr):
    __test__ = True

    @pytest.fixture
    def store_kwargs(self):
        return {"store": MemoryStore()}

    async def set(self, store, key, value):
        store._store._store_dict[key] = value

    async def get(self, store, key):
        return store._store._store_dict[key]


class OverFolder(OfZarr):
    async def set(self, store, key, value):
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value.to_bytes())

    async def get(self, store, key):
        return buffer((self.root / key).read_bytes())


@without_plugin
class TestOverLocalStore(OverFolder):
    __test__ = True

    @pytest.fixture
    def store_kwargs(self, tmp_path):
        self.root = tmp_path
        return {"store": str(tmp_path)}


@without_plugin
class TestOverObjectStore(OverFolder):
    __test__ = True

    @pytest.fixture
    def store_kwargs(self, tmp_path):
        self.root = tmp_path
        return {"store": ObjectStore(ObstoreFolder(tmp_path))}


# ------------------------------------------------------------------------------------------------------ what is asked


class Counting(WrapperStore):
    """Notes what it is asked for; `answer(key, byte_range, body)` makes another reply of it."""

    def __init__(self, store):
        super().__init__(store)
        self.asked = []
        self.answer = lambda key, byte_range, body: body

    def _with_store(self, store):
        copy = type(self)(store)
        copy.__dict__.update(self.__dict__, _store=store)
        return copy

    async def get(self, key, prototype, byte_range=None):
        self.asked.append((key, byte_range))
        body = await super().get(key, prototype, byte_range)
        return self.answer(key, byte_range, body)

    def of(self, kind):
        return [one for one in self.asked if isinstance(one[1], kind)]


@pytest.fixture
def volume():
    return np.random.default_rng(0).integers(0, 1000, SHAPE, dtype="uint16")


@pytest.fixture
def counting(volume):
    """A store with an array of four shards of 64 chunks, at `a`."""
    store = MemoryStore()
    zarr.create_array(store, name="a", data=volume, chunks=CHUNK, shards=SHARD)
    return Counting(store)


@pytest.fixture
def folder(volume, tmp_path):
    zarr.create_array(str(tmp_path / "a"), data=volume, chunks=CHUNK, shards=SHARD)
    return tmp_path


def opened(store, **keywords):
    return zarr.open_array(store, path="a", mode="r", **keywords)


def test_a_plane_over_four_shards_asks_for_each_index_once(counting, volume):
    array = opened(Store(counting, index_ttl_s=60))
    counting.asked.clear()
    assert (array[3] == volume[3]).all()
    assert len(counting.of(SuffixByteRequest)) == 4
    data = len(counting.of(RangeByteRequest))
    # zarr 3.1 awaits one chunk after the other; in 3.4 they come together, and are one request a shard.
    assert data == (4 if COALESCES else 64)
    counting.asked.clear()
    assert (array[11] == volume[11]).all()
    assert len(counting.asked) == len(counting.of(RangeByteRequest)) == data


def test_indexes_of_stores_without_etags_are_not_kept_unless_asked_for(counting, volume):
    array = opened(Store(counting))
    for plane in (0, 1):
        counting.asked.clear()
        assert (array[plane] == volume[plane]).all()
        assert len(counting.of(SuffixByteRequest)) == 4


def test_indexes_are_kept_for_their_time(counting, volume, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("voxfetch.zarr.flights.time", type("Clock", (), {"monotonic": lambda: now[0]}))
    array = opened(Store(counting, index_ttl_s=5))
    for at_s, indexes in ((100, 4), (104.9, 4), (105, 8)):
        now[0] = at_s
        assert (array[0] == volume[0]).all()
        assert len(counting.of(SuffixByteRequest)) == indexes


@pytest.mark.parametrize(("budget", "kept"), [(0, 0), (INDEX_NBYTES, 0), (3 * INDEX_NBYTES, 2), (1 << 20, 4)])
def test_a_budget_bounds_what_is_kept(counting, volume, budget, kept):
    """An entry needs 400 bytes besides its own."""
    store = Store(counting, index_ttl_s=60, index_cache_bytes=budget)
    assert (opened(store)[...] == volume).all()
    reading = opened(store).store
    keys = [f"a/c/0/{y}/{x}" for y in (0, 1) for x in (0, 1)]
    for key in keys:
        asyncio.run(reading.get(key, PROTOTYPE, SuffixByteRequest(INDEX_NBYTES)))
    counting.asked.clear()
    # The last one first: what is not kept takes the place of what is.
    for key in reversed(keys):
        asyncio.run(reading.get(key, PROTOTYPE, SuffixByteRequest(INDEX_NBYTES)))
    assert len(counting.asked) == 4 - kept


def test_what_is_written_or_deleted_is_forgotten(counting, volume):
    store = Store(counting, index_ttl_s=60)
    array = zarr.open_array(store, path="a", mode="r+")

    def indexes_of_a_plane():
        counting.asked.clear()
        assert (array[0] == volume[0]).all()
        return sorted(key for key, _ in counting.of(SuffixByteRequest))

    assert len(indexes_of_a_plane()) == 4
    assert indexes_of_a_plane() == []
    # A chunk less: all behind it in the shard lie elsewhere.
    array[:8, :8, :8] = volume[:8, :8, :8] = 0
    assert indexes_of_a_plane() == ["a/c/0/0/0"]
    array[:8, 32:40, :8] = volume[:8, 32:40, :8] = 0
    asyncio.run(store.delete("a/c/0/0/0"))
    volume[:, :32, :32] = 0
    assert indexes_of_a_plane() == ["a/c/0/0/0", "a/c/0/1/0"]
    asyncio.run(store.delete_dir("a/c"))
    volume[...] = 0
    assert len(indexes_of_a_plane()) == 4


def test_an_index_that_came_during_a_write_is_not_kept(counting):
    """The reply is of before the write, and comes after it."""
    store = Store(counting, index_ttl_s=60)
    key, ask = "a/c/0/0/0", SuffixByteRequest(4)

    async def run():
        gate, sent = asyncio.Event(), asyncio.Event()
        get = counting.get

        async def slow(*arguments):
            body = await get(*arguments)
            sent.set()
            await gate.wait()
            return body

        counting.get = slow
        before = asyncio.create_task(store.get(key, PROTOTYPE, ask))
        await sent.wait()
        await store.set(key, buffer(b"the new end"))
        counting.get = get
        # Nor does whoever asks after the write wait for the reply of before.
        after = await store.get(key, PROTOTYPE, ask)
        gate.set()
        return await before, after, await store.get(key, PROTOTYPE, ask)

    before, after, last = asyncio.run(run())
    assert before.to_bytes() != b" end"
    assert after.to_bytes() == last.to_bytes() == b" end"


def test_ranges_asked_for_together_are_merged_and_sent_once(counting):
    data = bytes(range(200))
    asyncio.run(counting._store.set("k", buffer(data)))
    store = Store(counting, max_gap_bytes=10, max_request_bytes=50)
    spans = [(0, 10), (20, 30), (41, 50), (25, 35), (0, 10), (100, 200), (150, 160)]
    asks = [("k", RangeByteRequest(*span)) for span in spans]
    found = asyncio.run(store.get_partial_values(PROTOTYPE, [*asks, ("k", OffsetByteRequest(190)), ("none", None)]))
    assert [one and one.to_bytes() for one in found] == [*(data[a:b] for a, b in spans), data[190:], None]
    assert counting.of(RangeByteRequest) == [("k", RangeByteRequest(*span)) for span in [(0, 50), (100, 200)]]

    async def separately():
        return await asyncio.gather(*(store.get("k", PROTOTYPE, ask) for _, ask in asks))

    counting.asked.clear()
    assert [one.to_bytes() for one in asyncio.run(separately())] == [data[a:b] for a, b in spans]
    assert len(counting.asked) == 2


def test_an_end_that_many_ask_for_is_fetched_once(counting):
    store = Store(counting)

    async def run():
        return await asyncio.gather(*(store.get("a/c/0/0/0", PROTOTYPE, SuffixByteRequest(8)) for _ in range(10)))

    assert len({one.to_bytes() for one in asyncio.run(run())}) == 1
    assert len(counting.asked) == 1


@pytest.mark.parametrize("byte_range", [RangeByteRequest(0, 8), SuffixByteRequest(8)])
def test_whoever_is_cancelled_leaves_the_request_to_the_others(counting, byte_range):
    store = Store(counting)

    async def run():
        ask = ("a/c/0/0/0", PROTOTYPE, byte_range)
        one, other = (asyncio.create_task(store.get(*ask)) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        return len(await other)

    assert asyncio.run(run()) == 8
    assert len(counting.asked) == 1


def test_merging_keeps_every_range_and_the_bounds():
    generator = np.random.default_rng(3)
    for gap, largest in ((0, 64), (16, 100), (16, 1 << 20), (1000, 1 << 20)):
        starts = generator.integers(0, 30_000, 200)
        asked = [
            (RangeByteRequest(int(at), int(at + n)), None)
            for at, n in zip(starts, generator.integers(1, 80, 200), strict=True)
        ]
        groups = merged(asked, gap, largest)
        assert sorted(ask.start for _, members in groups for ask, _ in members) == sorted(starts)
        for whole, members in groups:
            reach = members[0][0].end
            for ask, _ in members:
                assert ask.start - reach <= gap
                reach = max(reach, ask.end)
            assert all(whole.start <= ask.start and ask.end <= whole.end for ask, _ in members)
            assert whole.end - whole.start <= largest or whole in [ask for ask, _ in members]


# --------------------------------------------------------------------------------------------------------------- faults


def errors_of(error):
    """The exceptions in a group, which zarr 3.2 and later make of those of ranges."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [one for inner in error.exceptions for one in errors_of(inner)]


def failure(read):
    with pytest.raises(BaseException) as caught:
        read()
    (error, *_) = errors_of(caught.value)
    return error


@pytest.mark.parametrize("kind", [RangeByteRequest, SuffixByteRequest])
@pytest.mark.parametrize(("wrong", "error"), [(-1, vf.ObjectChangedError), (1, vf.RangeNotHonouredError)])
def test_a_reply_of_another_length_is_an_error(counting, kind, wrong, error):
    def answer(key, byte_range, body):
        if key.startswith("a/c") and isinstance(byte_range, kind):
            data = body.to_bytes()
            return buffer(data[:wrong] if wrong < 0 else data + b"x" * wrong)
        return body

    counting.answer = answer
    array = opened(Store(counting))
    found = failure(lambda: array[3])
    assert type(found) is error
    assert found.key.startswith("a/c/0/")


def test_an_object_that_is_gone_is_missing(counting, volume):
    array = opened(Store(counting))
    asyncio.run(counting._store.delete("a/c/0/1/0"))
    expected = volume[3].copy()
    expected[32:, :32] = 0
    assert (array[3] == expected).all()


def over_http(server, **keywords):
    store = HTTPStore(f"{server.url}/", client_options={"allow_http": True}, retry_config={"max_retries": 0})
    return Store(ObjectStore(store, read_only=True), **keywords)


def test_over_http_indexes_are_kept_and_data_is_asked_for_by_version(folder, volume):
    with FaultyServer(objects_in(folder)) as server:
        array = opened(over_http(server))
        for plane in (3, 11):
            before = len(server.requests)
            assert (array[plane] == volume[plane]).all()
            mine = server.requests[before:]
            assert sum(one.range.startswith("bytes=-") for one in mine) == (4 if plane == 3 else 0)
            data = [one for one in mine if not one.range.startswith("bytes=-")]
            assert len(data) == (4 if COALESCES else 64)
            assert all(one.if_match is not None for one in data)


@pytest.mark.parametrize("heeds", [True, False])
def test_an_object_replaced_between_index_and_data_is_an_error_once(folder, volume, heeds):
    """Replaced by one of the same size; a server that does not know If-Match is seen through as well."""
    other = folder / "other"
    zarr.create_array(str(other / "a"), data=volume[::-1].copy(), chunks=CHUNK, shards=SHARD, compressors=None)
    plain = folder / "plain"
    zarr.create_array(str(plain / "a"), data=volume, chunks=CHUNK, shards=SHARD, compressors=None)
    with FaultyServer(objects_in(plain)) as server:
        array = opened(over_http(server))
        assert (array[3] == volume[3]).all()
        for key, body in objects_in(other).items():
            server.put(key, body)
        server.rule = lambda request: None if heeds else Fault(ignore_if_match=True)
        assert type(failure(lambda: array[3])) is vf.ObjectChangedError
        # Each read forgets at least one index, and there are four.
        for _ in range(3):
            try:
                found = array[3]
                break
            except (vf.ObjectChangedError, BaseExceptionGroup) as error:
                assert {type(one) for one in errors_of(error)} == {vf.ObjectChangedError}
        else:
            found = array[3]
        assert (found == volume[-4]).all()


def test_without_etags_an_object_of_another_size_is_noticed(folder, volume):
    with FaultyServer(objects_in(folder), etags=None) as server:
        array = opened(over_http(server, index_ttl_s=60))
        assert (array[3] == volume[3]).all()
        for key, body in objects_in(folder).items():
            server.put(key, b"x" + body if "/c/" in key else body)
        assert type(failure(lambda: array[3])) is vf.ObjectChangedError


@pytest.mark.parametrize("fault", [Fault(shift=4), Fault(ignore_range=True), Fault(lie=1), Fault(cut=10)])
def test_a_wrong_reply_over_http_is_an_error(folder, fault):
    with FaultyServer(objects_in(folder)) as server:
        array = opened(over_http(server))
        server.rule = lambda request: fault if request.range and not request.range.startswith("bytes=-") else None
        error = failure(lambda: array[3])
        assert isinstance(error, Exception), "not a fill value"


def test_a_store_without_suffixes_asks_for_the_size_first(counting):
    class NoSuffix:
        """As Azure over obstore."""

        def __init__(self, store):
            self._store = store

        async def get_async(self, key, *, options):
            if isinstance(options["range"], dict):
                from obstore.exceptions import NotSupportedError

                raise NotSupportedError("no suffixes")
            return await self._store.get_async(key, options=options)

        def __getattr__(self, name):
            return getattr(self._store, name)

    inner = ObstoreMemory()
    inner.put("k", b"0123456789")
    store = ObjectStore(inner)
    store.store = NoSuffix(inner)
    mine = Store(store)
    assert asyncio.run(mine.get("k", PROTOTYPE, SuffixByteRequest(3))).to_bytes() == b"789"
    assert type(failure(lambda: asyncio.run(mine.get("k", PROTOTYPE, SuffixByteRequest(30))))) is vf.ObjectChangedError
    assert asyncio.run(mine.get("none", PROTOTYPE, SuffixByteRequest(3))) is None


# ------------------------------------------------------------------------------------------------------------ all else


def test_copies_have_the_options(tmp_path):
    store = Store(LocalStore(tmp_path), index_ttl_s=7, index_cache_bytes=1, max_gap_bytes=2, max_request_bytes=3)
    for copy in (pickle.loads(pickle.dumps(store)), store.with_read_only().with_read_only(read_only=False)):
        assert copy == store
        assert copy._options == {
            "index_ttl_s": 7,
            "index_cache_bytes": 1,
            "max_gap_bytes": 2,
            "max_request_bytes": 3,
        }
    assert store != Store(LocalStore(tmp_path))
    assert store != LocalStore(tmp_path)
    assert Store(str(tmp_path)) == Store(tmp_path) == Store(LocalStore(tmp_path))
    assert Store(str(tmp_path), read_only=True).read_only


def test_urls_are_opened_by_obstore(folder, volume):
    with FaultyServer(objects_in(folder)) as server:
        array = opened(Store(f"{server.url}/"))
        assert (array[3] == volume[3]).all()
        assert server.count(method="GET") > 4


def test_a_forked_child_reads(counting, volume):
    store = Store(counting, index_ttl_s=60)
    array = opened(store)
    assert (array[3] == volume[3]).all()
    with store._ends._lock:
        pid = os.fork()
        if pid == 0:
            signal.alarm(5)
            ends = store._ends
            ends.forget("nothing")
            os._exit(0 if ends.get("a/c/0/0/0", "what") is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_ends_of_one_object_are_of_one_version():
    ends = Ends(60, 1 << 20)
    old, new = (Fetched(buffer(b"x"), Version(tag, 1)) for tag in ("old", "new"))
    ends.put("k", 1, old, ends.turn)
    ends.put("k", 2, new, ends.turn)
    assert ends.get("k", 1) is None
    assert ends.get("k", 2) is new


def test_what_is_used_stays():
    ends = Ends(60, 1000)
    for key in "ab":
        ends.put(key, 1, Fetched(buffer(b"x"), Version()), ends.turn)
    assert ends.get("a", 1) is not None
    ends.put("c", 1, Fetched(buffer(b"x"), Version()), ends.turn)
    assert [ends.get(key, 1) is not None for key in "abc"] == [True, False, True]


def test_what_is_written_is_seen_by_copies_of_the_store():
    store = Store(ObjectStore(ObstoreMemory()))
    writer = zarr.create_array(
        store, name="a", shape=(8, 8), chunks=(2, 2), shards=(8, 8), dtype="u2", fill_value=7
    )  # fmt: skip
    writer[0:2, 0:2] = 1
    reader = zarr.open_array(store, path="a", mode="r")
    assert reader.store is not store
    assert (reader[4:6, 4:6] == 7).all()
    writer[4:6, 4:6] = 9
    assert (reader[4:6, 4:6] == 9).all()
