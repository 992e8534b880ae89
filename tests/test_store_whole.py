"""Servers that ignore ranges: what is asked for of an object comes out of one fetch of it; the user is told once."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import zarr

import voxfetch as vf
from tests.servers.asking import KEY, OBJECT, RANGE, SUFFIX, get, is_right, outcome, run
from tests.servers.faulty import FAULTS, Fault, FaultyServer, status
from voxfetch.store import Ask, TransientError, whole
from voxfetch.store.http import HttpStore

MIB = 1 << 20
OTHER = Ask("other", 1, 2)
PARTS = [Ask(KEY, number, number + 10) for number in range(0, 1000, 10)]


@pytest.fixture
def server():
    with FaultyServer({KEY: OBJECT, "other": OBJECT}, suffixes=200) as server:
        server.rule = lambda _: FAULTS["200 for a range"]
        yield server


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.WARNING, "voxfetch")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "voxfetch"]


async def all_of(store, clients, asks):
    return await asyncio.gather(*(outcome(store, ask, clients) for ask in asks))


# ------------------------------------------------------------------------------------------------------- what is sent


def test_parts_come_from_one_fetch(server, warnings):
    asks = [SUFFIX, RANGE, Ask(KEY, suffix=5000), Ask(KEY, 0, 1024), *PARTS]
    for ask, got in zip(asks, get(HttpStore(server.url), *asks), strict=True):
        assert is_right(got, ask)
    assert server.ranges == ["bytes=-100"]
    (message,) = warnings()
    assert server.url in message
    assert "a server that knows ranges" in message


def test_those_that_ask_together_share_one_fetch(server):
    async def work(clients):
        store = HttpStore(server.url)
        await store.get(OTHER, clients)
        server.latency_s = 0.05
        got = await all_of(store, clients, PARTS)
        nothing = await all_of(store, clients, [Ask("none", 0, 5), Ask("none", suffix=5)])
        return got, nothing

    got, nothing = run(work)
    assert all(map(is_right, got, PARTS))
    assert nothing == [None, None]
    assert [request.key for request in server.requests] == ["other", KEY, "none"]


def test_documents_are_asked_for_as_ever(server):
    get(HttpStore(server.url), RANGE, Ask(KEY), Ask(KEY))
    assert server.ranges == ["bytes=100-299", None, None]


def test_no_secret_is_told(server, warnings):
    url = f"http://me:hush@{server.url.removeprefix('http://')}/a?sig=hush"
    ask = Ask("c/0/0", 100, 300)
    get(HttpStore(url), ask, ask)
    (message,) = warnings()
    assert f"{server.url}/a:" in message
    assert "hush" not in message


def test_all_of_an_object_may_come_as_200(server, warnings):
    """Where all was asked for nothing is ignored."""
    get(HttpStore(server.url), Ask(KEY, suffix=5000), Ask(KEY, 0, 1024), Ask(KEY, suffix=1024))
    assert len(server.requests) == 3
    assert warnings() == []


def test_a_server_that_knows_ranges_after_all(server, warnings):
    """A cache on the way may answer once with all of it."""

    async def work(clients):
        store = HttpStore(server.url)
        server.faults.append(FAULTS["200 for a range"])
        server.rule = lambda _: None
        await store.get(OTHER, clients)
        got = await all_of(store, clients, PARTS[:10])
        server.latency_s = 0.05
        return got + await all_of(store, clients, PARTS[:10])

    assert all(map(is_right, run(work), PARTS[:10] * 2))
    assert len(server.requests) == 21
    assert server.most_in_flight == 10, "side by side again"
    assert len(warnings()) == 1


# ---------------------------------------------------------------------------------------------- cancelled, failed


@pytest.mark.parametrize("gone", [[0], [1], [0, 1, 2]])
def test_one_is_cancelled_and_the_others_go_on(server, gone):
    async def work(clients):
        store = HttpStore(server.url)
        await store.get(OTHER, clients)
        server.latency_s = 0.1
        tasks = [asyncio.ensure_future(store.get(ask, clients)) for ask in PARTS[:5]]
        await asyncio.sleep(0.03)
        for number in gone:
            tasks[number].cancel()
        got = await asyncio.gather(*tasks, return_exceptions=True)
        for number, (one, ask) in enumerate(zip(got, PARTS, strict=False)):
            assert isinstance(one, asyncio.CancelledError) if number in gone else is_right(one, ask)
        assert len(server.requests) == 2

    run(work)


def test_all_are_cancelled(server):
    async def work(clients):
        store = HttpStore(server.url)
        await store.get(OTHER, clients)
        server.faults.append(Fault(stall=-1))
        tasks = [asyncio.ensure_future(store.get(ask, clients)) for ask in PARTS[:5]]
        await asyncio.sleep(0.03)
        for task in tasks:
            task.cancel()
        # Who comes now does not wait for what is being given up.
        again = asyncio.ensure_future(store.get(RANGE, clients))
        await asyncio.gather(*tasks, return_exceptions=True)
        assert is_right(await again, RANGE)
        assert clients.in_flight == 0
        assert len(asyncio.all_tasks()) == 1

    run(work)


def test_failures_are_shared_and_not_kept(server):
    async def work(clients):
        store = HttpStore(server.url)
        await store.get(OTHER, clients)
        server.faults.append(status(503, retry_after="7"))
        failed = await all_of(store, clients, PARTS[:5])
        assert len(server.requests) == 2
        assert all(isinstance(one, TransientError) and one.retry_after_s == 7 for one in failed)
        assert all(map(is_right, await all_of(store, clients, PARTS), PARTS))
        assert len(server.requests) == 3

    run(work)


def test_an_error_of_one_ask_is_not_that_of_another(server):
    async def work(clients):
        store = HttpStore(server.url)
        await store.get(OTHER, clients)
        server.latency_s = 0.02
        wrong, *right = await all_of(store, clients, [Ask(KEY, 1000, 2000), *PARTS])
        assert isinstance(wrong, vf.ObjectChangedError)
        assert wrong.byte_range == (1000, 2000)
        assert all(map(is_right, right, PARTS))
        assert len(server.requests) == 3

    run(work)


def test_large_objects_are_refused_at_once(server):
    server.put("large", bytes(8 * MIB + 1))
    asks = [Ask("large", 5, 10), Ask("large", suffix=10)] * 2
    _, *got = get(HttpStore(server.url), RANGE, *asks)
    assert all(type(one) is vf.RangeNotHonouredError for one in got)
    assert server.sent_nbytes < 16 * MIB, "before the bodies, but for what was on its way"

    # Taken where much of it is wanted, and too large to be kept.
    half = Ask("large", 0, 4 * MIB)
    server.requests.clear()
    assert {len(one.body) for one in get(HttpStore(server.url), half, half)} == {4 * MIB}
    assert len(server.requests) == 2


# --------------------------------------------------------------------------------------------------- versions, bounds


def test_versions(server):
    def put(data):
        server._objects[KEY] = data
        server._versions[KEY] = server._versions.get(KEY, 0) + 1

    async def work(clients):
        store = HttpStore(server.url)
        old = (await store.get(RANGE, clients)).etag
        assert is_right(await store.get(Ask(KEY, 100, 300, if_match=old), clients), RANGE)
        assert len(server.requests) == 1
        put(OBJECT[::-1])
        new = server.read(KEY)[1]
        # Nobody can have this version from us: the server is asked.
        reply = await store.get(Ask(KEY, 100, 300, if_match=new), clients)
        assert (bytes(reply.body), reply.etag) == (OBJECT[::-1][100:300], new)
        for rule in (FAULTS["200 for a range"], Fault(ignore_range=True, ignore_if_match=True)):
            server.rule = lambda _, rule=rule: rule
            got = await outcome(store, Ask(KEY, 100, 300, if_match=old), clients)
            assert isinstance(got, vf.ObjectChangedError)
        # It has grown, as far as the asker knows.
        put(OBJECT * 2)
        assert bytes((await store.get(Ask(KEY, 1000, 2000), clients)).body) == (OBJECT * 2)[1000:2000]

    run(work)


def test_what_has_no_version_is_not_kept(server, warnings):
    """It may be a page of something else; those that ask together share it."""
    server.etags, server.modified = None, False

    async def work(clients):
        store = HttpStore(server.url)
        assert is_right(await store.get(RANGE, clients), RANGE)
        server.latency_s = 0.05
        assert all(map(is_right, await all_of(store, clients, PARTS), PARTS))
        assert len(server.requests) == 2
        assert is_right(await store.get(RANGE, clients), RANGE)
        assert len(server.requests) == 3

    run(work)
    assert len(warnings()) == 1


@pytest.mark.parametrize("which", ["UNUSED_S", "AGE_S"])
def test_nothing_is_kept_for_long(server, monkeypatch, which):
    monkeypatch.setattr(whole, which, 0.3)

    async def work(clients):
        store = HttpStore(server.url)
        for _ in range(10):
            assert is_right(await store.get(RANGE, clients), RANGE)
            await asyncio.sleep(0.05)
        fetches = len(server.requests)
        assert fetches == 1 if which == "UNUSED_S" else 2 <= fetches <= 3
        await asyncio.sleep(0.7)
        assert clients.wholes.nbytes == (0 if which == "UNUSED_S" else len(OBJECT))
        await store.get(RANGE, clients)
        assert len(server.requests) == fetches + 1
        assert clients.wholes.nbytes == len(OBJECT)

    run(work)


def test_little_is_kept(server):
    for number in range(5):
        server._objects[f"{number}"] = bytes(7 * MIB)

    async def work(clients):
        store = HttpStore(server.url)

        async def ask(*numbers):
            before = len(server.requests)
            for number in numbers:
                assert (await store.get(Ask(f"{number}", 5, 10), clients)).total == 7 * MIB
                assert clients.wholes.nbytes <= 32 * MIB
            return len(server.requests) - before

        assert await ask(0, 1, 2, 3) == 4
        assert await ask(0, 1, 2, 3, 0) == 0
        assert await ask(4) == 1
        assert await ask(0, 2, 3, 4) == 0
        assert await ask(1) == 1, "longest unused"

    run(work)


def test_copies_and_other_loops(server):
    store = HttpStore(server.url)
    assert is_right(get(store, RANGE), RANGE)
    copy = pickle.loads(pickle.dumps(store))
    assert len(pickle.dumps(store)) < 500
    assert is_right(get(copy, RANGE), RANGE)
    assert is_right(get(store, RANGE), RANGE)
    assert len(server.requests) == 3


# ------------------------------------------------------------------------------------------------------- http.server


class Folder(SimpleHTTPRequestHandler):
    """`python -m http.server`; counts what it sends."""

    def log_message(self, *_):
        """Nothing."""

    def copyfile(self, source, outputfile):
        self.server.sent.append((self.path, os.fstat(source.fileno()).st_size))
        super().copyfile(source, outputfile)


@pytest.fixture
def folder(tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Folder, directory=str(tmp_path))) as server:
        server.sent = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server, tmp_path, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_shards_behind_http_server(folder, warnings):
    server, path, url = folder
    values = np.arange(64 * 128 * 128, dtype="uint32").reshape(64, 128, 128)
    made = zarr.create_array(path / "a", shape=values.shape, dtype="uint32", chunks=(16, 16, 16), shards=(64, 64, 64))
    made[...] = values
    with vf.Engine() as engine:
        array = vf.open_array(f"{url}/a", engine=engine)
        for z in range(0, 64, 16):
            for y in range(0, 128, 16):
                assert np.array_equal(array[z : z + 16, y : y + 16], values[z : z + 16, y : y + 16])
        assert np.array_equal(array[...], values)
    shards = [key for key, _ in server.sent if "/c/" in key]
    assert sorted(shards) == sorted(set(shards)), "each once"
    assert len(shards) == 4
    assert len(warnings()) == 1


def test_a_shard_that_is_replaced_behind_http_server(folder, monkeypatch):
    monkeypatch.setattr(whole, "AGE_S", 0.1)
    _, path, url = folder
    made = zarr.create_array(path / "a", shape=(64, 64), dtype="uint32", chunks=(8, 8), shards=(64, 64))
    made[...] = 1
    os.utime(path / "a/c/0/0", (1, 1))
    with vf.Engine() as engine:
        array = vf.open_array(f"{url}/a", engine=engine)
        assert (array[:8] == 1).all()
        values = np.arange(64 * 64).reshape(64, 64)
        made[...] = values
        threading.Event().wait(0.2)
        assert np.array_equal(array[32:], values[32:])
        assert np.array_equal(array[...], values)
