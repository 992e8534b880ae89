"""Reads over HTTP: the same voxels as from disk, by exactly the requests that are needed, whatever the server does."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import voxfetch as vf
from tests.servers import objects_in
from tests.servers.faulty import FAULTS, Fault, FaultyServer, status
from voxfetch.limit import Limit

FAST = vf.RetryPolicy(max_attempts=4, base_s=0.01, cap_s=0.05)
IMPATIENT = vf.RetryPolicy(max_attempts=4, base_s=0.01, cap_s=0.05, idle_timeout_s=0.3)


@pytest.fixture
def engine():
    with vf.Engine(decode_threads=2, retry=FAST) as engine:
        yield engine


@pytest.fixture
def served():
    """`served(case)` -> a server of its folder."""
    with contextlib.ExitStack() as servers:
        yield lambda case, **options: servers.enter_context(FaultyServer(getattr(case, "path", case), **options))


def data_requests(server):
    return [request for request in server.requests if not request.key.endswith((".json", ".zarray", ".zattrs"))]


CHUNK_NBYTES = 4 * 32**3


def big(tmp_path, write_array, make_values, *, shape=(128, 128, 128), **layout):
    """Raw chunks of 32^3 in shards of 64^3, 1 MiB each, which are too large to be fetched whole on suspicion."""
    layout = {"chunks": (32, 32, 32), "shards": (64, 64, 64), "compressors": None, "fill_value": 9} | layout
    return write_array(tmp_path / "big", make_values(shape, "uint32"), **layout)


# ------------------------------------------------------------------------------------------------------- what is read


def test_every_layout_reads_as_from_disk(case, served, engine):
    server = served(case)
    array, local = vf.open_array(server.url, engine=engine), case.open()
    assert (array.shape, array.dtype, array.chunks, array.shards) == (
        local.shape,
        local.dtype,
        local.chunks,
        local.shards,
    )
    np.testing.assert_array_equal(array[...], case.expected)
    np.testing.assert_array_equal(array.read(order="F"), case.expected)
    for box, block in array.blocks(5 if array.ndim else ()):
        np.testing.assert_array_equal(block, case.expected[box.slices])
    report, same = array.verify(), local.verify()
    assert (report.objects, report.objects_missing, report.chunks, report.chunks_missing, report.problem_count) == (
        same.objects,
        same.objects_missing,
        same.chunks,
        same.chunks_missing,
        0,
    )
    with pytest.raises(vf.UnsupportedError):
        vf.open_array(server.url, mode="r+", engine=engine)[...] = case.expected
    copy = pickle.loads(pickle.dumps(array))
    assert copy == array
    np.testing.assert_array_equal(copy[...], case.expected)
    assert server.count(method="HEAD") == 0


@pytest.fixture(scope="module")
def over_http(volume):
    with FaultyServer(volume.path) as server, vf.Engine(decode_threads=2) as engine:
        yield vf.open_array(server.url, engine=engine), server


@given(data=st.data())
@settings(max_examples=60)
def test_any_selection_is_that_of_numpy(data, over_http, volume):
    array, _ = over_http
    axes = [
        data.draw(
            st.one_of(
                st.integers(-extent, extent - 1),
                st.builds(slice, st.integers(-50, 50), st.integers(-50, 50), st.integers(1, 7)),
            )
        )
        for extent in array.shape
    ]
    np.testing.assert_array_equal(array[tuple(axes)], volume.expected[tuple(axes)])


@given(starts=st.lists(st.tuples(*[st.integers(-10, 45)] * 3), min_size=1, max_size=12), kind=st.sampled_from("msa"))
@settings(max_examples=40)
def test_boxes_alone_together_and_at_once(starts, kind, over_http, volume):
    array, _ = over_http
    shape = (9, 7, 11)
    padded = np.pad(volume.expected, 60, constant_values=7)
    expected = [padded[tuple(slice(s + 60, s + 60 + n) for s, n in zip(start, shape, strict=True))] for start in starts]
    if kind == "m":
        got = list(array.read_many(starts, shape, bounds="fill"))
    elif kind == "s":
        with ThreadPoolExecutor(4) as pool:
            got = list(pool.map(lambda start: array.read_box(start, shape, bounds="fill"), starts))
    else:

        async def main():
            return await asyncio.gather(*(array.read_box_async(start, shape, bounds="fill") for start in starts))

        got = asyncio.run(main())
    np.testing.assert_array_equal(np.array(got), np.array(expected))


def test_local_and_remote_in_one_call(volume, served, engine):
    remote, local = vf.open_array(served(volume).url, engine=engine), volume.open(engine=engine)
    for one in vf.read_all([(local, np.s_[3:30]), (remote, np.s_[5:20, 2])]):
        assert one.size
    got = asyncio.run(vf.read_all_async([(remote, ...), (local, ...)]))
    np.testing.assert_array_equal(got[0], got[1])


# ------------------------------------------------------------------------------------------------------ what is asked


def test_opening_takes_one_request_and_an_image_two_round_trips(served, engine):
    root = Path(__file__).parent / "data/fib25/fib25.ome.zarr"
    server = served(root)
    vf.open_array(f"{server.url}/0", engine=engine)
    assert [(request.method, request.key) for request in server.requests] == [("GET", "0/zarr.json")]
    server.requests.clear()
    server.latency_s = 0.15
    started = time.monotonic()
    image = vf.open_image(server.url, engine=engine)
    assert time.monotonic() - started < 0.45, "more than two round trips"
    assert server.requests[0].key == "zarr.json"
    assert sorted(request.key for request in server.requests[1:]) == [f"{n}/zarr.json" for n in range(3)]
    assert image.level(0)[10:20, 0:64, 0:64].mean() == 125.904736328125


def test_one_chunk_takes_two_requests_then_one(tmp_path, write_array, make_values, served, engine):
    case = big(tmp_path, write_array, make_values)
    server = served(case)
    array = vf.open_array(server.url, engine=engine)
    server.requests.clear()
    np.testing.assert_array_equal(array[:32, :32, :32], case.expected[:32, :32, :32])
    index, data = server.requests
    assert (index.range, index.if_match) == ("bytes=-132", None)
    assert data.range == f"bytes=0-{CHUNK_NBYTES - 1}"
    assert data.if_match == server.call(server.read, "c/0/0/0")[1]
    server.requests.clear()
    np.testing.assert_array_equal(array[:32, :32, 32:64], case.expected[:32, :32, 32:64])
    assert len(server.requests) == 1
    # Nobody asks for an index twice, whatever the order.
    np.testing.assert_array_equal(array[...], case.expected)
    suffixes = [request.key for request in server.requests if request.range == "bytes=-132"]
    assert sorted(suffixes) == sorted(set(suffixes))
    assert "c/0/0/0" not in suffixes
    assert server.count(method="HEAD") == 0


def test_a_small_shard_takes_one_request(tmp_path, write_array, make_values, served, engine):
    case = write_array(tmp_path / "a", make_values((32, 32), "uint16"), chunks=(8, 8), shards=(16, 16))
    server = served(case)
    array = vf.open_array(server.url, engine=engine)
    server.requests.clear()
    np.testing.assert_array_equal(array[:8, :8], case.expected[:8, :8])
    assert [(request.key, request.range) for request in server.requests] == [("c/0/0", None)]
    # Then its index is known.
    np.testing.assert_array_equal(array[8:16, :8], case.expected[8:16, :8])
    assert [request.key for request in server.requests] == ["c/0/0"] * 2
    assert server.requests[1].range is not None


def test_neighbours_are_merged_and_far_ones_are_not(tmp_path, write_array, make_values, served, engine):
    case = big(tmp_path, write_array, make_values)
    server = served(case)
    # Chunks lie end to end in Morton order, dimension 0 lowest.
    for gap, cut, expected in [
        (0, CHUNK_NBYTES, ["0-131071", "131072-262143", "524288-655359"]),
        (0, 1 << 20, ["0-262143", "524288-655359"]),
        (2 * CHUNK_NBYTES, 1 << 20, ["0-655359"]),
        (2 * CHUNK_NBYTES, 3 * CHUNK_NBYTES, ["0-262143", "524288-655359"]),
    ]:
        options = vf.ReadOptions(max_gap_bytes=gap, max_request_bytes=cut)
        array = vf.open_array(server.url, engine=engine, read_options=options)
        array.explain(np.s_[0, 0, 0])
        server.requests.clear()
        starts = [(0, 0, 0), (32, 0, 0), (0, 0, 32)]
        got = array.read_many(starts, (32, 32, 32))
        for start, one in zip(starts, got, strict=True):
            np.testing.assert_array_equal(one, case.expected[tuple(slice(s, s + 32) for s in start)])
        assert sorted(server.ranges) == sorted(f"bytes={one}" for one in expected)


def test_concurrent_reads_share_requests(tmp_path, write_array, make_values, served, engine):
    case = big(tmp_path, write_array, make_values)
    server = served(case, latency_s=0.05)
    array = vf.open_array(server.url, engine=engine)
    starts = [(i % 100, 7 * i % 100, 3 * i % 100) for i in range(60)]
    server.requests.clear()
    many = array.read_many(starts, (20, 20, 20))
    by_many = len(server.requests)
    array.engine.close()
    server.requests.clear()

    async def main():
        return await asyncio.gather(*(array.read_box_async(start, (20, 20, 20)) for start in starts))

    np.testing.assert_array_equal(np.array(asyncio.run(main())), many)
    assert len(server.requests) <= by_many
    array.engine.close()
    server.requests.clear()
    with ThreadPoolExecutor(30) as pool:
        list(pool.map(lambda _: array[:32, :32, :32], range(30)))
    assert [request.range for request in server.requests].count("bytes=-132") == 1


def test_explain_tells_what_the_server_sees(tmp_path, write_array, make_values, served, engine):
    case = big(tmp_path, write_array, make_values, holes=0.2)
    server = served(case)
    array = vf.open_array(server.url, engine=engine)
    for selection in (np.s_[5:60, 3:120, 20], np.s_[...], np.s_[::33], np.s_[80, 80, 80]):
        engine.close()
        server.requests.clear()
        cold = array.explain(selection)
        assert cold.exact
        indexes = len(server.requests)
        warm = array.explain(selection)
        assert len(server.requests) == indexes, "an index is fetched again"
        server.requests.clear()
        before = engine.stats()
        array[selection]
        sent = len(server.requests)
        assert warm.requests == sent == engine.stats().requests - before.requests
        assert warm.bytes_fetched == engine.stats().bytes_read - before.bytes_read
        assert cold.bytes_needed == warm.bytes_needed <= warm.bytes_fetched
        assert warm.round_trips == (1 if sent else 0)
        assert cold.round_trips == warm.round_trips + (1 if indexes else 0)
    engine.close()
    server.requests.clear()
    blind = array.explain(np.s_[:32], fetch_indexes=False)
    assert not blind.exact
    assert not server.requests


def test_explain_async_leaves_the_loop_alone(volume, served, engine):
    """It waits for the engine's thread, here held up by code of the user; the caller's loop goes on meanwhile."""
    armed, held, released = threading.Event(), threading.Event(), threading.Event()

    def headers():
        if armed.is_set():
            armed.clear()
            held.set()
            released.wait(5)
        return {}

    array = vf.open_array(served(volume).url, options=vf.StoreOptions(headers=headers), engine=engine)

    async def explained_while_held(fetch_indexes):
        held.clear()
        released.clear()
        armed.set()
        reading = asyncio.ensure_future(array.read_async())
        assert await asyncio.to_thread(held.wait, 10)
        explaining = asyncio.ensure_future(array.explain_async(fetch_indexes=fetch_indexes))
        for _ in range(10):
            await asyncio.sleep(0.001)
        assert not explaining.done(), "the loop stood still until the engine's thread went on"
        released.set()
        np.testing.assert_array_equal(await reading, volume.expected)
        return await explaining

    asyncio.run(explained_while_held(fetch_indexes=True))
    report = asyncio.run(explained_while_held(fetch_indexes=False))
    assert report == array.explain(fetch_indexes=False)


def test_interactive_reads_go_first(tmp_path, write_array, make_values, served):
    case = big(tmp_path, write_array, make_values)
    server = served(case, latency_s=0.02)
    with vf.Engine(max_requests=1, retry=FAST) as engine:
        array = vf.open_array(server.url, engine=engine, read_options=vf.ReadOptions(max_request_bytes=1))
        urgent = array.with_options(vf.ReadOptions(priority="interactive"))
        array[0, 0, 0], array[-1, -1, -1]
        server.requests.clear()

        async def main():
            bulk = asyncio.ensure_future(array.read_async(np.s_[:64]))
            while not server.requests:  # noqa: ASYNC110 - the server is another thread
                await asyncio.sleep(0.005)
            await urgent.read_async(np.s_[65:80, 65:80, 65:80])
            done = bulk.done()
            await bulk
            return done

        assert not asyncio.run(main())
        keys = [request.key for request in server.requests]
        assert keys.index("c/1/1/1") <= 3
        assert len(keys) > 8


# ------------------------------------------------------------------------------------------------------------- faults

FINAL = {"unauthorized", "forbidden", "expired token", "skewed clock"}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("at", ["index", "data"])
def test_each_fault_once_is_right_or_an_error(name, at, tmp_path, write_array, make_values, served):
    with vf.Engine(decode_threads=2, retry=IMPATIENT) as engine:
        check_fault(name, at, big(tmp_path, write_array, make_values, shape=(64, 64, 64)), served, engine)


def check_fault(name, at, case, served, engine):
    server = served(case)
    array = vf.open_array(server.url, engine=engine)
    if at == "data":
        array[0, 0, 0]
    server.requests.clear()
    server.faults.append(FAULTS[name])
    started = time.monotonic()
    try:
        got = array[3:60, 3:60, 3:60]
    except (vf.StoreError, vf.DataError) as error:
        assert error.key.endswith("c/0/0/0")
        outcome = error
    else:
        np.testing.assert_array_equal(got, case.expected[3:60, 3:60, 3:60])
        outcome = None
    assert time.monotonic() - started < 6
    if name in FINAL:
        assert outcome is not None, "an answer that is final was taken for another"
    # One bad reply does not spoil the array.
    server.faults.clear()
    np.testing.assert_array_equal(array[...], case.expected)


def test_a_third_of_all_requests_fails(tmp_path, write_array, make_values, served):
    case = big(tmp_path, write_array, make_values, shape=(160, 160, 160), chunks=(16, 16, 16), shards=None)
    server = served(case)
    dice = random.Random(1)
    kinds = [status(503), status(500), Fault(reset=-1), Fault(cut=100), Fault(lie=7), status(429)]
    with vf.Engine(retry=vf.RetryPolicy(max_attempts=8, base_s=0.005, cap_s=0.02, idle_timeout_s=2)) as engine:
        array = vf.open_array(server.url, engine=engine)
        server.requests.clear()
        server.rule = lambda _: dice.choice(kinds) if dice.random() < 0.3 else None
        got = array[...]
    np.testing.assert_array_equal(got, case.expected)
    assert len(server.requests) <= 1.6 * 1000
    assert engine.stats().retries > 100


@pytest.mark.parametrize("number", [403, 500, 503])
def test_an_error_is_never_the_fill_value(number, volume, served, engine):
    server = served(volume)
    array = vf.open_array(server.url, engine=engine)
    server.rule = lambda _: status(number)
    with pytest.raises(vf.StoreError) as caught:
        vf.open_array(server.url, engine=engine)
    assert (caught.value.status, caught.value.attempts) == (number, 1 if number == 403 else 4)
    for _ in range(20):
        with pytest.raises(vf.StoreError) as caught:
            array[:4, :4, :4]
        assert caught.value.status == number
        assert caught.value.attempts == (1 if number == 403 else 4), caught.value


def test_an_object_that_is_replaced_is_one_version_or_the_other(tmp_path, make_values, write_array, served, engine):
    old = big(tmp_path / "old", write_array, make_values, shape=(64, 64, 64))
    one = write_array(
        tmp_path / "new",
        old.expected + 1,
        chunks=(32, 32, 32),
        shards=(64, 64, 64),
        compressors=zarr_zstd(),
        fill_value=9,
    )
    # The same metadata, another layout: a stale index points nowhere.
    objects, other = objects_in(old.path), objects_in(one.path)
    objects["zarr.json"] = other["zarr.json"]
    rewritten = write_array(
        tmp_path / "again",
        old.expected,
        chunks=(32, 32, 32),
        shards=(64, 64, 64),
        compressors=zarr_zstd(),
        fill_value=9,
    )
    objects["c/0/0/0"] = objects_in(rewritten.path)["c/0/0/0"]
    versions = [objects["c/0/0/0"], other["c/0/0/0"]]
    for etags in ("strong", "weak", None):
        server = served(objects, etags=etags)
        array = vf.open_array(server.url, engine=engine, read_options=vf.ReadOptions(max_request_bytes=1))
        np.testing.assert_array_equal(array[...], old.expected)
        server.put("c/0/0/0", versions[1])
        np.testing.assert_array_equal(array[...], old.expected + 1)
        # And while it is read.
        server.latency_s = 0.002
        for number in range(10):
            timer = threading.Timer(0.004 * number, server.put, ("c/0/0/0", versions[number % 2]))
            timer.start()
            got = array[...]
            timer.join()
            assert (got == old.expected).all() or (got == old.expected + 1).all(), "two versions in one answer"


def zarr_zstd():
    return zarr.codecs.ZstdCodec(level=1)


def test_an_object_that_changes_all_the_time_is_an_error(tmp_path, write_array, make_values, served, engine):
    case = big(tmp_path, write_array, make_values, shape=(64, 64, 64))
    server = served(objects_in(case.path))
    array = vf.open_array(server.url, engine=engine)
    body = objects_in(case.path)["c/0/0/0"]

    def rule(request):
        if request.range == "bytes=-132":
            loop = asyncio.get_running_loop()
            loop.call_later(0.001, server._versions.__setitem__, "c/0/0/0", request.number)
            return Fault(delay_s=0.0)
        return Fault(delay_s=0.01) if request.key.startswith("c") else None

    server.rule = rule
    del body
    with pytest.raises(vf.ObjectChangedError):
        array[...]


def test_missing_shards_are_known_for_a_while(tmp_path, write_array, make_values, served, engine):
    case = big(tmp_path, write_array, make_values)
    objects = objects_in(case.path)
    shard = objects.pop("c/0/0/0")
    server = served(objects)
    array = vf.open_array(server.url, engine=engine)
    impatient = array.with_options(vf.ReadOptions(index_ttl_s=0))
    assert (array[:64, :64, :64] == 9).all()
    server.put("c/0/0/0", shard)
    assert (array[:64, :64, :64] == 9).all()
    np.testing.assert_array_equal(impatient[:64, :64, :64], case.expected[:64, :64, :64])
    strict = array.with_options(vf.ReadOptions(on_missing="raise", index_ttl_s=0))
    server.put("c/0/0/0", None)
    with pytest.raises(vf.NotFoundError, match="c/0/0/0"):
        strict[:4, :4, :4]


# ------------------------------------------------------------------------------------------------ threads, time, ends


def test_what_is_missing_is_asked_for_again_where_that_is_not_trusted(
    tmp_path, write_array, make_values, served, engine
):
    expected = make_values((128, 64, 64), "uint32")
    case = write_array(
        tmp_path / "a", expected, chunks=(32, 32, 32), shards=(64, 64, 64), compressors=None, fill_value=9
    )
    writer = zarr.open_array(str(case.path), mode="r+")
    writer[32:64] = 9  # as good as erased: zarr does not store chunks of the fill value
    gone = case.path / writer.metadata.encode_chunk_key((1, 0, 0))
    other = gone.read_bytes()
    gone.unlink()
    server = served(case)
    array = vf.open_array(server.url, engine=engine)
    eager = array.with_options(vf.ReadOptions(missing_ttl_s=0))

    def requests_of(read, selection, wanted):
        before = len(data_requests(server))
        np.testing.assert_array_equal(read[selection], wanted)
        return len(data_requests(server)) - before

    assert requests_of(eager, np.s_[:32, :32, :32], expected[:32, :32, :32]) == 2
    assert requests_of(eager, np.s_[:32, :32, :32], expected[:32, :32, :32]) == 1, "what is there needs no index"
    for _ in range(2):
        assert requests_of(eager, np.s_[32:64], 9) == 1, "the index"
        assert requests_of(eager, np.s_[64:], 9) == 1, "the shard"
    assert requests_of(array, np.s_[32:64], 9) == requests_of(array, np.s_[64:], 9) == 0
    writer[32:64] = expected[32:64]
    gone.write_bytes(other)
    assert requests_of(array, np.s_[32:64], 9) == 0, "missing for a minute, it was told"
    assert requests_of(eager, np.s_[32:64], expected[32:64]) > 1
    assert requests_of(eager, np.s_[64:], expected[64:]) > 1
    np.testing.assert_array_equal(array[...], expected)


def test_cancelling_stops_the_requests(tmp_path, write_array, make_values, served):
    case = big(tmp_path, write_array, make_values)
    server = served(case)
    with vf.Engine(max_requests=4, retry=FAST) as engine:
        array = vf.open_array(server.url, engine=engine, read_options=vf.ReadOptions(max_request_bytes=1))
        array.explain()
        server.latency_s = 0.05
        server.requests.clear()

        async def main():
            for _ in range(20):
                task = asyncio.ensure_future(array.read_async())
                await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await asyncio.sleep(0.2)
            return len(server.requests)

        sent = asyncio.run(main())
        assert sent <= 20 * 4 + 4
        time.sleep(0.1)
        assert len(server.requests) == sent
        assert server.in_flight == 0
        server.latency_s = 0
        np.testing.assert_array_equal(array[...], case.expected)


def test_closing_the_engine_ends_what_waits(tmp_path, write_array, make_values, served):
    case = big(tmp_path, write_array, make_values)
    server = served(case)
    engine = vf.Engine(retry=FAST)
    array = vf.open_array(server.url, engine=engine)
    server.latency_s = 0.25
    raised = []

    def read():
        try:
            array[...]
        except vf.StoreError as error:
            raised.append(error)

    threads = [threading.Thread(target=read) for _ in range(5)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    started = time.monotonic()
    engine.close()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < 0.2
    assert len(raised) == 5
    server.latency_s = 0
    np.testing.assert_array_equal(array[...], case.expected)
    engine.close()


def test_sync_reads_inside_a_running_loop_and_in_many_loops(volume, served, engine):
    array = vf.open_array(served(volume).url, engine=engine)

    async def main():
        np.testing.assert_array_equal(array[...], volume.expected)
        np.testing.assert_array_equal(await array.read_async(), volume.expected)

    for _ in range(5):
        asyncio.run(main())


def test_a_busy_loop_does_not_stall_other_readers(tmp_path, write_array, make_values, served, engine):
    case = big(tmp_path, write_array, make_values)
    server = served(case, latency_s=0.01)
    array = vf.open_array(server.url, engine=engine)

    async def main():
        task = asyncio.ensure_future(array.read_async())
        await asyncio.sleep(0)
        await asyncio.sleep(0.02)
        time.sleep(0.6)  # noqa: ASYNC251 - blocks this loop, not the engine's
        started = time.monotonic()
        await task
        return time.monotonic() - started

    assert asyncio.run(main()) < 0.1


def test_a_blocking_call_on_the_engines_thread_is_refused(volume, served, engine):
    raised = []

    def headers():
        try:
            arrays[0][0, 0, 0]
        except vf.StoreError as error:
            raised.append(error)
        return {"authorization": "Bearer secret"}

    server = served(volume)
    arrays = [vf.open_array(server.url, engine=engine)]
    array = vf.open_array(server.url, options=vf.StoreOptions(headers=headers), engine=engine)
    np.testing.assert_array_equal(array[...], volume.expected)
    assert "_async" in raised[0].hint


def test_memory_stays_within_the_limit(tmp_path, write_array, make_values, served):
    """One request after the other where only one fits."""
    case = big(tmp_path, write_array, make_values, shape=(160, 160, 160))
    server = served(case, latency_s=0.005)
    with vf.Engine(memory_limit_bytes=1 << 20, index_cache_bytes=(1 << 20) - 300_000, retry=FAST) as engine:
        array = vf.open_array(server.url, engine=engine, read_options=vf.ReadOptions(max_request_bytes=1))
        assert array.explain().exact
        server.most_in_flight = 0
        np.testing.assert_array_equal(array[...], case.expected)
    assert server.most_in_flight == 2


def test_secrets_are_nowhere(volume, served, engine):
    server = served(volume)
    url = server.url.replace("//", "//user:pass-secret@") + "/?sig=query-secret"
    options = vf.StoreOptions(headers={"x-token": "header-secret"})
    array = vf.open_array(url, options=options, engine=engine)
    np.testing.assert_array_equal(array[...], volume.expected)
    server.rule = lambda _: status(403)
    texts = [repr(array), str(array), array.url, array._repr_html_(), repr(options)]
    fresh = array.with_options(vf.ReadOptions(index_ttl_s=0))
    with pytest.raises(vf.StoreError) as caught:
        fresh[...]
    texts += [str(caught.value), repr(caught.value), repr(vars(caught.value))]
    assert not [text for text in texts if "secret" in text]
    assert all("sig=query-secret" in request.target for request in server.requests)
    assert all(request.headers["x-token"] == "header-secret" for request in server.requests)


@pytest.mark.parametrize("shards", [None, (64, 64, 64)])
def test_errors_of_the_network_name_their_chunk(tmp_path, write_array, make_values, served, engine, shards):
    """Of a merged request: the first chunk in plan order that it would have brought."""
    case = big(tmp_path, write_array, make_values, shards=shards)
    server = served(case)
    array = vf.open_array(server.url, engine=engine)
    array[0, 0, 0]
    server.rule = lambda request: status(500) if "/c/" in f"/{request.key}" else None
    with pytest.raises(vf.RetriesExhaustedError) as caught:
        array[40:50, 32:60, :20]
    assert caught.value.chunk == (1, 1, 0)
    assert (caught.value.byte_range is None) == (shards is None)


# ------------------------------------------------------------------------------------------------- how many requests


def test_the_limit_doubles_in_a_round_trip_until_a_store_asks_for_less():
    limit = Limit(256)
    assert limit.current == 64
    for _ in range(64):
        limit.succeeded()
    assert limit.current == 128
    for _ in range(500):
        limit.succeeded()
    assert limit.current == 256
    limit.throttled(10.0)
    limit.throttled(10.9)
    assert limit.current == 128, "one crowd of refusals counts once"
    for _ in range(129):
        limit.succeeded()
    assert limit.current == 129
    for second in range(11, 30):
        limit.throttled(float(second))
    assert limit.current == 4
    few = Limit(2)
    few.throttled(1.0)
    assert few.current == 2


@pytest.mark.parametrize("refusal", [status(503, b"SlowDown"), Fault(delay_s=0.4)], ids=["asks for less", "is silent"])
def test_a_store_that_serves_few_at_a_time_gets_few(tmp_path, write_array, make_values, served, refusal):
    case = write_array(tmp_path / "a", make_values((200, 8), "uint8"), chunks=(1, 8), fill_value=255, compressors=None)
    server = served(case)
    most = []

    def rule(request):
        most.append(server.in_flight)
        return refusal if server.in_flight > 12 and "/c/" in f"/{request.key}" else None

    server.rule, server.latency_s = rule, 0.005
    with vf.Engine(retry=vf.RetryPolicy(max_attempts=30, base_s=0.01, cap_s=0.05, idle_timeout_s=0.2)) as engine:
        np.testing.assert_array_equal(vf.open_array(server.url, engine=engine)[...], case.expected)
        assert max(most) > 30
        assert engine.scheduler._limit.current < 64
