"""Replies that the client's own thread hands to the core: only those that are exactly what was asked for, and nothing
else is lost on the way."""

from __future__ import annotations

import asyncio
import contextlib
import time

import numpy as np
import pytest

import voxfetch as vf
from tests.servers import objects_in
from tests.servers.faulty import Fault, FaultyServer, redirect, status
from voxfetch.connections import Connections
from voxfetch.store import BodyLimits, Get

FAST = vf.RetryPolicy(max_attempts=4, base_s=0.01, cap_s=0.05)
RAW = {"chunks": (32, 32, 32), "shards": (64, 64, 64), "compressors": None}


@pytest.fixture
def volume(tmp_path, write_array, make_values):
    """8 shards of 1 MiB: too large to be fetched whole on suspicion."""
    return write_array(tmp_path / "volume", make_values((128, 128, 128), "uint32"), **RAW)


@pytest.fixture
def opened(volume):
    """`opened(**options of the engine)` -> server, array, and the requests that a task was made for.

    `held`: the server has the objects in memory, where they can be replaced.
    """
    with contextlib.ExitStack() as stack:

        def open_one(*, held=False, **options):
            server = stack.enter_context(FaultyServer(objects_in(volume.path) if held else volume.path))
            engine = stack.enter_context(vf.Engine(decode_threads=2, **{"retry": FAST} | options))
            array = vf.open_array(server.url, engine=engine)
            scheduler, tasks = engine.scheduler, []
            fetch = scheduler._fetch

            def counted(number, store, ask, clients):
                tasks.append(ask)
                return fetch(number, store, ask, clients)

            scheduler._fetch = counted
            return server, array, tasks

        yield open_one


def wait_until(condition, seconds=5):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_no_request_of_a_plain_read_costs_a_task(opened, volume):
    server, array, tasks = opened()
    np.testing.assert_array_equal(array[...], volume.expected)
    np.testing.assert_array_equal(array[40:100, 3, 60:70], volume.expected[40:100, 3, 60:70])
    assert len(server.requests) > 16, "8 indexes, 8 shards"
    assert tasks == []
    assert array.engine.stats().requests == len(server.requests)
    assert not array.engine.scheduler._landing


@pytest.mark.parametrize(
    "fault",
    [
        status(503),
        status(429, retry_after="0"),
        Fault(shift=1),
        Fault(cut=100),
        Fault(reset=-1),
        Fault(lie=3),
        Fault(extra=b"more"),
        Fault(headers={"Content-Encoding": "gzip"}),
        Fault(headers={"Content-Range": None}),
        Fault(headers={"ETag": '"another"'}),
        Fault(headers={"ETag": None}),
        Fault(no_total=True),
        Fault(framing="chunked"),
        Fault(framing="close"),
    ],
    ids=str,
)
def test_an_answer_that_is_anything_else_is_looked_at(opened, volume, fault):
    """Never wrong voxels; what another attempt cures is cured, and each attempt is one request."""
    server, array, tasks = opened()
    np.testing.assert_array_equal(array[:64, :64, :64], volume.expected[:64, :64, :64])
    tasks.clear()
    before = len(server.requests)
    server.faults.append(fault)
    try:
        got = array[:64, :64, :64]
    except vf.VoxfetchError:
        assert len(tasks) == 1
    else:
        np.testing.assert_array_equal(got, volume.expected[:64, :64, :64])
        # The client itself sends again what a kept connection took to its grave.
        assert len(tasks) == 1 or len(server.requests) - before == 1 + (fault.reset == -1)
    np.testing.assert_array_equal(array[:64, :64, :64], volume.expected[:64, :64, :64])


def test_a_retry_begins_with_the_answer_that_came(opened, volume):
    server, array, tasks = opened()
    array[0, 0, 0]
    before = len(server.requests)
    server.faults.append(status(503))
    np.testing.assert_array_equal(array[:32, :32, :32], volume.expected[:32, :32, :32])
    assert len(server.requests) - before == 2, "refused, and sent once more"
    assert len(tasks) == 1
    assert array.engine.stats().retries == 1


def test_redirects_are_followed_from_the_answer_that_came(opened, volume):
    server, array, tasks = opened()
    with FaultyServer(volume.path) as other:
        server.rule = lambda request: redirect(f"{other.url}/{request.key}")
        np.testing.assert_array_equal(array[:64, :64, :64], volume.expected[:64, :64, :64])
        assert len(tasks) == len(other.requests)
        assert len(server.requests) - 1 == len(other.requests), "each asked for once, and once where it led"


def test_an_object_that_changes_between_index_and_data(tmp_path, opened, volume, write_array):
    server, array, _ = opened(held=True)
    array[0, 0, 0]
    new = volume.expected[::-1].copy()
    changed = objects_in(write_array(tmp_path / "new", new, **RAW).path)
    for key, value in changed.items():
        server.put(key, value)
    np.testing.assert_array_equal(array[:64, :64, :64], new[:64, :64, :64])


def test_whoever_waits_for_a_turn_is_told_of_each_reply(opened, volume):
    """With as many requests in flight as may be and none to send, only their replies can let others go on."""
    server, array, _ = opened(max_requests=2)
    array[0, 0, 0]
    array[64, 0, 0]
    server.latency_s = 0.4

    async def both():
        reads = asyncio.gather(array.read_async(np.s_[:32, :32, :32]), array.read_async(np.s_[64:96, :32, :32]))
        await asyncio.sleep(0.1)
        opened = await asyncio.to_thread(vf.open_array, f"{server.url}/", engine=array.engine)
        return opened, await reads

    began_s = time.monotonic()
    other, (low, _) = asyncio.run(asyncio.wait_for(both(), 20))
    assert time.monotonic() - began_s < 5
    assert other.shape == volume.expected.shape
    np.testing.assert_array_equal(low, volume.expected[:32, :32, :32])


def test_a_store_that_asked_for_a_pause_gets_it(opened, volume):
    server, array, _ = opened()
    array[0, 0, 0]
    array[64, 0, 0]
    server.faults.append(status(503, retry_after="1"))
    refused_s = time.monotonic()

    async def one_after_the_other():
        first = asyncio.ensure_future(array.read_async(np.s_[:32, :32, :32]))
        await asyncio.sleep(0.3)
        return await asyncio.gather(first, array.read_async(np.s_[64:96, :32, :32]))

    low, high = asyncio.run(one_after_the_other())
    np.testing.assert_array_equal(low, volume.expected[:32, :32, :32])
    np.testing.assert_array_equal(high, volume.expected[64:96, :32, :32])
    assert [request.time_s for request in server.requests[-2:]] > [refused_s + 0.9] * 2


def test_answers_that_have_come_wait_for_no_pause(opened, volume):
    """A pause that one request was told of holds for those to come, once."""
    server, array, _ = opened(retry=vf.RetryPolicy(max_attempts=4, base_s=0.01, cap_s=0.05))
    small = vf.open_array(server.url, engine=array.engine, read_options=vf.ReadOptions(max_request_bytes=1))
    np.testing.assert_array_equal(small[::32, ::32, ::32], volume.expected[::32, ::32, ::32])
    server.faults.extend([status(503, retry_after="1")] * 16)
    began_s = time.monotonic()
    np.testing.assert_array_equal(small[:64, :64], volume.expected[:64, :64])
    assert 1 <= time.monotonic() - began_s < 1.9
    assert array.engine.scheduler._limit.current >= 32, "halved once"


def test_a_reply_between_two_looks_is_not_lost(tmp_path, write_array, make_values):
    """The core is asked what has landed, and then what there is to send: what lands in between wakes again."""
    case = write_array(tmp_path / "many", make_values((64, 64, 64), "uint8"), chunks=(8, 16, 16), compressors=None)
    with FaultyServer(case.path) as server, vf.Engine(max_requests=4, retry=FAST) as engine:
        array = vf.open_array(server.url, engine=engine)
        array[0, 0, 0]
        scheduler = engine.scheduler
        taken = scheduler._take_landed

        def slow():
            taken()
            if scheduler._landing:
                time.sleep(0.02)  # the replies that are awaited come, and are decoded

        scheduler._take_landed = slow

        async def read():
            return await asyncio.wait_for(array.read_async(), 20)

        np.testing.assert_array_equal(asyncio.run(read()), case.expected)


def test_a_client_that_refuses_what_it_is_given(opened, volume, monkeypatch):
    """Whatever it raises on the loop, those who wait are told."""
    _, array, _ = opened()
    array[0, 0, 0]
    clients = array.engine.scheduler._clients

    class Refusing:
        def __getattr__(self, name):
            raise RuntimeError(name)

    monkeypatch.setattr(type(clients), "_started", lambda _: Refusing())
    np.testing.assert_array_equal(array[:64, :64, :64], volume.expected[:64, :64, :64])
    monkeypatch.undo()

    async def refused():
        clients = Connections()
        try:
            await clients.get(Get(array.url, {"x-a": "\udc80"}, BodyLimits(1, 1, sized=False)))
        finally:
            await clients.close()

    with pytest.raises(UnicodeEncodeError):
        asyncio.run(asyncio.wait_for(refused(), 10))
    with pytest.raises(ValueError, match="HTTP does not allow"):
        vf.open_array("http://localhost:1/", options=vf.StoreOptions(headers={"x-a": "\udc80"}))


@pytest.mark.filterwarnings("error")
def test_closing_amid_answers_that_stray(opened, volume):
    server, array, _ = opened()
    array[0, 0, 0]
    server.rule = lambda request: status(503) if "c/" in request.key else None
    for _ in range(10):
        with contextlib.ExitStack() as stack:
            engine = stack.enter_context(vf.Engine(retry=FAST))
            other = vf.open_array(server.url, engine=engine)
            server.rule = lambda _: None
            other[0, 0, 0]
            server.rule = lambda request: status(503) if "c/" in request.key else None

            async def begun(other=other, engine=engine):
                read = asyncio.ensure_future(other.read_async())
                await asyncio.sleep(0.01)
                await engine.aclose()
                with pytest.raises(vf.StoreError):
                    await read

            asyncio.run(begun())


def test_what_nobody_waits_for_is_dropped_with_its_connection(opened, volume):
    server, array, _ = opened()
    array[0, 0, 0]
    server.rule = lambda _: Fault(trickle_s=0.01)

    async def given_up():
        read = asyncio.ensure_future(array.read_async(np.s_[:64, :64, :64]))
        await asyncio.to_thread(wait_until, lambda: server.in_flight)
        read.cancel()
        with pytest.raises(asyncio.CancelledError):
            await read

    asyncio.run(given_up())
    wait_until(lambda: server.in_flight == 0)
    scheduler = array.engine.scheduler
    assert not scheduler._landing
    server.rule = lambda _: None
    np.testing.assert_array_equal(array[:64, :64, :64], volume.expected[:64, :64, :64])


def test_the_limit_holds_and_grows_by_what_lands(opened, volume):
    server, array, _ = opened(max_requests=3)
    small = vf.open_array(server.url, engine=array.engine, read_options=vf.ReadOptions(max_request_bytes=1))
    server.latency_s = 0.002
    np.testing.assert_array_equal(small[...], volume.expected)
    assert server.most_in_flight == 3


def test_a_client_that_does_not_start_is_an_error_of_the_read(opened, monkeypatch):
    _, array, _ = opened()
    array[0, 0, 0]

    def refused(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(type(array.engine.scheduler._clients), "_started", refused)
    with pytest.raises(vf.VoxfetchError):
        array[:64, :64, :64]


# -------------------------------------------------------------------------------------------------------------- hedges


def late(share, delay_s):
    """A rule: of all requests for chunks, `share` are answered late, the second of a kind never."""
    random, seen = np.random.default_rng(3), set()

    def rule(request):
        first = (request.key, request.range) not in seen
        seen.add((request.key, request.range))
        return Fault(delay_s=delay_s) if "c/" in request.key and first and random.random() < share else None

    return rule


@pytest.mark.parametrize("headers", [None, dict], ids=["landing", "tasks"])
def test_the_few_that_are_late_are_sent_once_more(volume, headers):
    def read(hedge_s):
        retry = vf.RetryPolicy(max_attempts=4, base_s=0.01, cap_s=0.05, hedge_s=hedge_s)
        with FaultyServer(volume.path) as server, vf.Engine(retry=retry) as engine:
            options = vf.StoreOptions(headers=headers)
            small = vf.ReadOptions(max_request_bytes=1)
            array = vf.open_array(server.url, engine=engine, options=options, read_options=small)
            array[0, 0, 0]
            server.rule = late(0.04, 1.5)
            began_s = time.monotonic()
            np.testing.assert_array_equal(array[...], volume.expected)
            took_s = time.monotonic() - began_s
            scheduler = engine.scheduler
            wait_until(lambda: not (scheduler._hedges._twins or scheduler._tasks or scheduler._landing))
            assert not scheduler._hedges._sent
            return took_s, len(server.requests), engine.stats().hedges

    slow_s, requests, none = read(None)
    assert slow_s > 1.5
    assert none == 0
    fast_s, more, hedges = read(0.2)
    assert fast_s < 1.2
    assert 1 <= hedges == more - requests <= 4 + requests // 10


def test_a_store_that_is_slow_altogether_is_not_asked_twice(volume):
    retry = vf.RetryPolicy(hedge_s=0.02)
    with FaultyServer(volume.path, latency_s=0.1) as server, vf.Engine(retry=retry) as engine:
        array = vf.open_array(server.url, engine=engine, read_options=vf.ReadOptions(max_request_bytes=1))
        np.testing.assert_array_equal(array[...], volume.expected)
        assert engine.stats().hedges <= 4 + len(server.requests) // 10


def test_a_second_request_that_fails_leaves_it_to_the_first(volume):
    retry = vf.RetryPolicy(max_attempts=1, hedge_s=0.05)
    with FaultyServer(volume.path) as server, vf.Engine(retry=retry) as engine:
        array = vf.open_array(server.url, engine=engine)
        array[0, 0, 0]
        server.faults.extend([Fault(delay_s=0.4), status(503)])
        np.testing.assert_array_equal(array[:32, :32, :32], volume.expected[:32, :32, :32])
        assert engine.stats().hedges == 1


def test_a_read_that_is_given_up_takes_both_with_it(volume):
    with FaultyServer(volume.path) as server, vf.Engine(retry=vf.RetryPolicy(hedge_s=0.05)) as engine:
        array = vf.open_array(server.url, engine=engine)
        array[0, 0, 0]
        server.rule = lambda _: Fault(trickle_s=0.01)

        async def given_up():
            read = asyncio.ensure_future(array.read_async(np.s_[:64, :64, :64]))
            await asyncio.to_thread(wait_until, lambda: engine.stats().hedges)
            read.cancel()
            await asyncio.gather(read, return_exceptions=True)

        asyncio.run(given_up())
        wait_until(lambda: server.in_flight == 0)
        assert not engine.scheduler._hedges._twins
