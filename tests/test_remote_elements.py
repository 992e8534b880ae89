"""Chunks without compression that are objects of their own: only the bytes of the voxels needed are read."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

import voxfetch as vf
from tests.servers import objects_in
from tests.servers.faulty import Fault, FaultyServer

SHAPE, CHUNK = (64, 128, 128), (32, 64, 64)
ROW_NBYTES, PLANE_NBYTES, CHUNK_NBYTES = 4 * 64, 4 * 64**2, 4 * 32 * 64**2


@pytest.fixture
def case(tmp_path, write_array, make_values):
    return write_array(tmp_path / "a", make_values(SHAPE, "uint32"), chunks=CHUNK, compressors=None, fill_value=9)


@pytest.fixture
def server(case):
    with FaultyServer(objects_in(case.path)) as server:
        yield server


@pytest.fixture
def engine():
    with vf.Engine(retry=vf.RetryPolicy(max_attempts=2, base_s=0.01, cap_s=0.02)) as engine:
        yield engine


def difference(after, before):
    return after.requests - before.requests, after.bytes_read - before.bytes_read


@pytest.mark.parametrize("where", ["disk", "http"])
@pytest.mark.parametrize(
    ("selection", "requests", "nbytes"),
    [
        (np.s_[40], 4, 4 * PLANE_NBYTES),
        (np.s_[40, 7], 2, 2 * ROW_NBYTES),
        (np.s_[5:7, 3:5, 10:12], 1, PLANE_NBYTES + ROW_NBYTES + 8),
        (np.s_[63, 127, 127], 1, 4),
        (np.s_[:32, :64, :64], 1, CHUNK_NBYTES),
    ],
)
def test_only_what_is_needed_is_read(where, selection, requests, nbytes, case, server, engine):
    array = vf.open_array(case.path if where == "disk" else server.url, engine=engine)
    for _ in range(2):
        before = engine.stats()
        np.testing.assert_array_equal(array[selection], case.expected[selection])
        assert difference(engine.stats(), before) == (requests, nbytes)
    if where == "http":
        report = array.explain(selection)
        assert (report.requests, report.bytes_fetched, report.exact) == (requests, nbytes, False)


@pytest.mark.parametrize("where", ["disk", "http"])
@pytest.mark.parametrize("change", [1, -1, -(CHUNK_NBYTES - 5), -CHUNK_NBYTES, CHUNK_NBYTES])
def test_an_object_of_another_size_is_no_chunk(where, change, case, server, engine):
    """Also where the bytes that are needed are there."""
    path = case.path / "c/1/0/0"
    stored = path.read_bytes()
    path.write_bytes(stored[: CHUNK_NBYTES + change] + bytes(max(change, 0)))
    server.put("c/1/0/0", path.read_bytes())
    array = vf.open_array(case.path if where == "disk" else server.url, engine=engine)
    for selection in (np.s_[32, 0, 0], np.s_[63, 63, 63], np.s_[40]):
        with pytest.raises((vf.DataError, vf.LimitExceededError), match="c/1/0/0"):
            array[selection]
    np.testing.assert_array_equal(array[31], case.expected[31])


def test_an_object_that_was_replaced_or_deleted_is_read_as_it_is(case, server, engine):
    array = vf.open_array(server.url, engine=engine)
    np.testing.assert_array_equal(array[40], case.expected[40])
    server.put("c/1/0/0", bytes(CHUNK_NBYTES))
    server.put("c/1/0/1", None)
    assert (array[40, :64, :64] == 0).all()
    assert (array[40, :64, 64:] == 9).all()


@pytest.mark.parametrize("fault", [Fault(ignore_range=True), Fault(no_total=True), Fault(headers={"ETag": None})])
def test_servers_that_give_no_parts_or_tell_no_size(fault, case, server, engine):
    server.rule = lambda request: fault if "/c/" in f"/{request.key}" else None
    array = vf.open_array(server.url, engine=engine)
    for selection in (np.s_[40], np.s_[3, 5], np.s_[:, :, 100], np.s_[...]):
        np.testing.assert_array_equal(array[selection], case.expected[selection])


def test_a_store_that_tells_no_size_is_asked_for_whole_objects_from_then_on(case, server, engine):
    server.rule = lambda request: Fault(no_total=True) if "/c/" in f"/{request.key}" else None
    array = vf.open_array(server.url, engine=engine)
    array[40, 0, 0]
    before = engine.stats()
    np.testing.assert_array_equal(array[5], case.expected[5])
    assert difference(engine.stats(), before) == (4, 4 * CHUNK_NBYTES)


@pytest.mark.parametrize("shards", [None, (8,)])
def test_a_read_joins_no_request_that_was_sent_before_a_write(shards, tmp_path, write_array, make_values):
    """Where nothing that is missing is trusted: an older read waits for its answer meanwhile."""
    values = make_values((8,), "uint8") | 1
    case = write_array(tmp_path / "a", values, chunks=(8,), shards=shards, compressors=None, fill_value=0)
    objects = objects_in(case.path)
    (key,) = (name for name in objects if name.startswith("c/"))
    chunk = objects.pop(key)
    with FaultyServer(objects) as server, vf.Engine() as engine:
        options = vf.ReadOptions(missing_ttl_s=0)
        array = vf.open_array(server.url, engine=engine, read_options=options)
        server.faults.extend([Fault(status=404, delay_s=0.5)])
        older = threading.Thread(target=lambda: array[...])
        older.start()
        while not any(request.key == key for request in server.requests):
            time.sleep(0.01)
        server.put(key, chunk)
        np.testing.assert_array_equal(array[...], values)
        assert shards or older.is_alive(), "the older read still waits"
        older.join()


def test_a_part_is_checked_also_where_the_whole_was_not_there_a_moment_ago(case, server, engine):
    server.put("c/1/0/0", None)
    missing = Fault(status=404, delay_s=0.1)
    server.rule = lambda request: None if request.key != "c/1/0/0" else Fault(delay_s=0.4) if request.range else missing
    array = vf.open_array(server.url, engine=engine)
    whole = threading.Thread(target=lambda: array[32:, :64, :64])
    whole.start()
    found = []

    def read():
        try:
            found.append(array[40, 3, 3])
        except vf.VoxfetchError as error:
            found.append(error)

    part = threading.Thread(target=read)
    part.start()
    time.sleep(0.2)
    server.put("c/1/0/0", bytes(2 * CHUNK_NBYTES))
    part.join()
    whole.join()
    assert found == [9], "all that the server says of the whole object is that it is not there"


def test_a_store_that_gives_no_parts_is_asked_for_whole_objects_from_then_on(case, server, engine):
    server.rule = lambda request: Fault(headers={"Content-Encoding": "gzip"}) if request.range else None
    array = vf.open_array(server.url, engine=engine)
    for requests in (2, 1, 1):
        before = len(server.requests)
        np.testing.assert_array_equal(array[40, :64, :64], case.expected[40, :64, :64])
        assert len(server.requests) - before == requests


def test_a_part_counts_as_its_whole_chunk_against_the_limit_of_memory(tmp_path, write_array):
    """For a server may send all of it: none of these parts says more than ten bytes."""
    voxels = np.zeros((12, 8 << 20), "uint8")
    case = write_array(tmp_path / "a", voxels, chunks=(1, 8 << 20), compressors=None, fill_value=1)
    with FaultyServer(case.path) as server, vf.Engine(memory_limit_bytes=32 << 20) as engine:
        array = vf.open_array(server.url, engine=engine)
        server.rule = lambda request: Fault(delay_s=0.3)
        assert (array[:, 5:15] == 0).all()
        sent = [request.time_s for request in server.requests if request.range]
    assert len(sent) == 12
    assert sum(one - sent[0] < 0.2 for one in sent) <= 4
