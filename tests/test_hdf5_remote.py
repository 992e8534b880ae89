"""HDF5 files in remote stores: the same voxels, few requests for structures, one version from beginning to end."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import pickle
import re
import threading
from collections import Counter

import fsspec
import h5py
import numpy as np
import obstore
import pytest

import voxfetch as vf
from tests.hdf5_files import write_layouts
from tests.servers.faulty import Fault, FaultyServer, status
from tests.servers.moto_s3 import moto_s3
from tests.stores import CREDENTIALS, nothing_is_found  # noqa: F401 - a fixture
from tests.zips import FAST
from voxfetch.documents import RemoteDocuments
from voxfetch.formats import hdf5
from voxfetch.formats.hdf5.remote import Blocks
from voxfetch.node import Settings
from voxfetch.store import Reply
from voxfetch.store.memory import MemoryStore


@pytest.fixture
def engine():
    with vf.Engine(decode_threads=2, retry=FAST) as engine:
        yield engine


@pytest.fixture
def layouts(tmp_path):
    """A small file, and what h5py reads of it."""
    path = tmp_path / "a.h5"
    names = write_layouts(path, "latest")
    with h5py.File(path) as file:
        return path.read_bytes(), {name: file[name][...] for name in names}


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A file of 20 MB whose structures lie between its chunks: its bytes, and what it holds."""
    path = tmp_path_factory.mktemp("large") / "a.h5"
    values = np.random.default_rng(0).integers(0, 256, (64, 512, 512), "u1")
    with h5py.File(path, "w", libver="earliest") as file:
        for i in range(4):
            # A tree of chunks grows while they are written, and so do the groups.
            made = file.create_dataset(f"deep/{i}/a", values.shape, "u1", chunks=(4, 64, 64), maxshape=(None,) * 3)
            for z in range(0, 20, 4):
                made[z : z + 4] = values[z : z + 4]
        file["plain"] = values
    expected = np.zeros_like(values)
    expected[:20] = values[:20]
    return path.read_bytes(), expected, values


def ranges(server):
    return [request.range for request in server.requests]


def test_every_layout_over_http(layouts, engine):
    data, expected = layouts
    with FaultyServer({"d/a.h5": data}) as server:
        opened = vf.open(f"{server.url}/d/a.h5", engine=engine)
        assert isinstance(opened, vf.Group)
        assert opened.keys() == tuple(expected)
        for name, values in expected.items():
            array = opened[name]
            np.testing.assert_array_equal(array[...], values)
            np.testing.assert_array_equal(array[1:3, ::2], values[1:3, ::2])
            assert name == "compact" or array.url == f"{server.url}/d/a.h5/{name}"
        again = pickle.loads(pickle.dumps(opened))
        np.testing.assert_array_equal(again["sparse"][...], expected["sparse"])
        assert server.count(method="HEAD") == 0


def test_ways_to_name_what_is_inside(layouts, engine):
    data, expected = layouts
    with FaultyServer({"d/a.H5": data, "d/data": data}) as server:
        for opened in (
            vf.open(f"{server.url}/d/a.H5|hdf5:/contiguous", engine=engine),
            vf.open_array(f"{server.url}/d/a.H5", "contiguous", engine=engine),
            vf.open_array(f"{server.url}/d/a.H5?x=1", "/contiguous", engine=engine),
            vf.open_array(f"{server.url}/d/data", "contiguous", format="hdf5", engine=engine),
            vf.open(f"{server.url}/d/data", engine=engine)["contiguous"],
            asyncio.run(vf.open_async(f"{server.url}/d/data|hdf5:contiguous", engine=engine)),
        ):
            np.testing.assert_array_equal(opened[...], expected["contiguous"])
        with pytest.raises(vf.NotFoundError, match="there is no 'nope'"):
            vf.open(f"{server.url}/d/a.H5|hdf5:nope", engine=engine)
        with pytest.raises(vf.NotFoundError, match="no such file"):
            vf.open(f"{server.url}/d/none.h5", format="hdf5", engine=engine)
        with pytest.raises(vf.NotFoundError, match="nothing that is read"):
            vf.open(f"{server.url}/d/none.h5", engine=engine)


def test_a_small_file_takes_one_round_trip(layouts, engine):
    data, expected = layouts
    assert len(data) < 64 << 10
    with FaultyServer({"a.h5": data}) as server:
        opened = vf.open(f"{server.url}/a.h5", engine=engine)
        array = opened["tree or array"]
        # The second is for nothing.
        assert sorted(ranges(server)) == ["bytes=-65536", "bytes=0-262143"]
        np.testing.assert_array_equal(array[...], expected["tree or array"])
        assert len(ranges(server)) == 3


def test_a_file_is_found_whatever_its_name_in_two_round_trips(layouts, engine):
    data, expected = layouts
    with FaultyServer({"assets/1/download": data}, latency_s=0.05) as server:
        array = vf.open_array(f"{server.url}/assets/1/download|hdf5:tree or array", engine=engine)
        server.requests.clear()
        found = vf.open(f"{server.url}/assets/1/download", engine=engine)
        times = [request.time_s for request in server.requests]
        # The third is for the structures of the file.
        assert sum(b - a > 0.025 for a, b in itertools.pairwise(times)) == 2
        assert [request.range for request in server.requests].count("bytes=0-7") == 1
        for each in (array, found["tree or array"]):
            np.testing.assert_array_equal(each[...], expected["tree or array"])


def test_nodes_of_a_tree_are_fetched_at_once(tmp_path, engine):
    values = np.random.default_rng(3).integers(0, 255, (60, 300, 320)).astype("uint8")
    with h5py.File(tmp_path / "a.h5", "w", libver="earliest") as file:
        file.create_dataset("a", data=values, chunks=(4, 20, 32), compression="gzip")
    data = (tmp_path / "a.h5").read_bytes()
    # More than twenty nodes, far apart.
    assert len(data) > 3 << 20
    with FaultyServer({"a.h5": data}, latency_s=0.05) as server:
        array = vf.open_array(f"{server.url}/a.h5", "a", engine=engine)
        times = [request.time_s for request in server.requests]
        assert len(times) > 12
        assert sum(b - a > 0.025 for a, b in itertools.pairwise(times)) <= 3
        np.testing.assert_array_equal(array[30:50, 100:140], values[30:50, 100:140])


def test_a_node_of_a_tree_that_lies_in_two_blocks_is_fetched_with_the_others(tmp_path, engine):
    values = np.random.default_rng(3).integers(0, 255, (32, 300, 320)).astype("uint8")
    node_nbytes = 24 + 65 * 40 + 64 * 8
    for pad in range(0, 60_000, 2500):
        with h5py.File(tmp_path / "a.h5", "w", libver="earliest") as file:
            file["pad"] = np.zeros(pad, "u1")
            file.create_dataset("a", data=values, chunks=(4, 20, 32))
        data = (tmp_path / "a.h5").read_bytes()
        leaves = [found.start() for found in re.finditer(rb"TREE\x01\x00", data)]
        cut = [at for at in leaves if at // (64 << 10) != (at + node_nbytes - 1) // (64 << 10) and at > 320 << 10]
        if cut and cut[0] != leaves[-1]:
            break
    else:
        pytest.fail("no such file")
    with FaultyServer({"a.h5": data}, latency_s=0.05) as server:
        array = vf.open_array(f"{server.url}/a.h5", "a", engine=engine)
        times = [request.time_s for request in server.requests]
        # The ends, and all nodes; both blocks of one by one request.
        assert sum(b - a > 0.025 for a, b in itertools.pairwise(times)) == 1
        first = cut[0] // (64 << 10) * (64 << 10)
        assert f"bytes={first}-{first + (128 << 10) - 1}" in ranges(server)
        np.testing.assert_array_equal(array[10:20, 100:140], values[10:20, 100:140])


def test_requests_for_the_structures_of_a_large_file(large, engine):
    data, expected, values = large
    with FaultyServer({"a.h5": data}) as server:
        array = vf.open_array(f"{server.url}/a.h5", "deep/3/a", engine=engine)
        asked = ranges(server)
        assert sorted(asked[:2]) == ["bytes=-65536", "bytes=0-262143"]
        assert all(request.if_match for request in server.requests[2:])
        # Nothing twice, and little of it.
        assert max(Counter(asked).values()) == 1
        assert len(asked) < 16
        spans = [list(map(int, span.removeprefix("bytes=").split("-"))) for span in asked if span != "bytes=-65536"]
        assert sum(end + 1 - start for start, end in spans) < len(data) / 4
        np.testing.assert_array_equal(array[:, 100:200, 100:200], expected[:, 100:200, 100:200])
        # Rows of what is stored in one piece are merged, and no more of them is fetched than a box needs.
        plain = vf.open_array(f"{server.url}/a.h5", "plain", engine=engine)
        before = len(server.requests)
        np.testing.assert_array_equal(plain[:2, :10], values[:2, :10])
        assert len(server.requests) - before <= 4


def test_siblings_share_what_was_read(large, engine):
    data, *_ = large
    with FaultyServer({"a.h5": data}) as server:
        opened = vf.open(f"{server.url}/a.h5", engine=engine)
        assert opened.keys() == ("deep", "plain")
        for name in ("deep/0/a", "deep/1/a", "deep/0/a", "plain"):
            opened[name]
        assert max(Counter(ranges(server)).values()) == 1


def test_tables_that_are_kept_spare_requests(large, tmp_path, engine):
    data, expected, _ = large
    keywords = {"format_options": {"chunk_tables": tmp_path / "tables"}, "engine": engine}
    with FaultyServer({"a.h5": data}) as server:
        counts = []
        for _ in range(2):
            before = len(server.requests)
            array = vf.open_array(f"{server.url}/a.h5", "deep/3/a", **keywords)
            counts.append(len(server.requests) - before)
            np.testing.assert_array_equal(array[:4, :70, :70], expected[:4, :70, :70])
        assert counts[1] < counts[0]
        # Where nothing but the size tells versions apart, a table is not trusted.
        server.etags, server.modified = None, False
        for _ in range(2):
            before = len(server.requests)
            vf.open_array(f"{server.url}/a.h5", "deep/3/a", **keywords)
            assert len(server.requests) - before == counts[0]


def test_transient_failures_are_tried_again(layouts, engine):
    data, expected = layouts
    with FaultyServer({"a.h5": data}) as server:
        server.faults.extend([status(503), Fault(cut=100)])
        array = vf.open_array(f"{server.url}/a.h5", "contiguous", engine=engine)
        np.testing.assert_array_equal(array[...], expected["contiguous"])
    assert engine.stats().retries >= 2


def test_a_failure_that_lasts_is_that_of_the_store(large, engine):
    data, *_ = large
    with FaultyServer({"a.h5": data}) as server:
        opened = vf.open(f"{server.url}/a.h5", engine=engine)
        server.rule = lambda request: status(503)
        with pytest.raises(vf.RetriesExhaustedError) as caught:
            opened["deep/3/a"]
        assert caught.value.key == f"{server.url}/a.h5"
        server.rule = lambda request: status(403)
        with pytest.raises(vf.PermissionDeniedError):
            opened["deep/3/a"]
        server.rule = lambda request: None
        opened["deep/3/a"]


@pytest.mark.parametrize("etags", ["strong", None])
def test_a_file_that_is_replaced(large, etags, engine):
    data, expected, _ = large
    with FaultyServer({"a.h5": data}, etags=etags) as server:
        opened = vf.open(f"{server.url}/a.h5", engine=engine)
        array = opened["deep/2/a"]
        server.put("a.h5", data + b"\0")
        with pytest.raises(vf.ObjectChangedError):
            array[:4]
        with pytest.raises(vf.ObjectChangedError):
            opened["deep/3/a"]
        # What is opened again is the new one.
        np.testing.assert_array_equal(opened["deep/3/a"][:4, :9], expected[:4, :9])
        np.testing.assert_array_equal(vf.open_array(f"{server.url}/a.h5", "deep/2/a", engine=engine)[7], expected[7])


def test_a_server_without_ranges(layouts, engine):
    data, expected = layouts
    with FaultyServer({"a.h5": data}) as server:
        server.rule = lambda request: Fault(ignore_range=True)
        array = vf.open_array(f"{server.url}/a.h5", "contiguous", engine=engine)
        np.testing.assert_array_equal(array[...], expected["contiguous"])


def test_other_formats_cost_no_request_more(engine, tmp_path):
    vf.create(tmp_path / "a", shape=(8, 8), dtype="u1")
    with FaultyServer(tmp_path) as server:
        vf.open(f"{server.url}/a", engine=engine)
        assert ranges(server) == [None]


def test_stores_of_other_libraries(layouts, engine):
    data, expected = layouts
    store = obstore.store.MemoryStore()
    obstore.put(store, "d/a.h5", data)
    obstore.put(store, "d/other", data)
    files = fsspec.filesystem("memory")
    files.pipe("/hdf5-test/a.h5", data)
    for array in (
        vf.open_array(store, "d/a.h5/contiguous", engine=engine),
        vf.open_array(files.get_mapper("/hdf5-test"), "a.h5/contiguous", engine=engine),
    ):
        np.testing.assert_array_equal(array[...], expected["contiguous"])
    assert vf.open_array(store, "d/a.h5/contiguous", engine=engine).shape == (13, 17, 11)


def test_s3(layouts, engine):
    data, expected = layouts
    with moto_s3({"d/a.h5": data}) as url:
        options = vf.StoreOptions(endpoint=url, region="us-east-1", credentials=CREDENTIALS)
        array = vf.open("s3://bucket/d/a.h5|hdf5:/second tree", options=options, engine=engine)
        np.testing.assert_array_equal(array[...], expected["second tree"])


class _Collecting(MemoryStore):
    """Collects garbage in each request, on the engine's thread, unless that is switched off."""

    def __init__(self, objects):
        super().__init__(objects)
        self.collected = []

    async def get(self, ask, clients):
        self.collected.append(gc.isenabled())
        if gc.isenabled():
            gc.collect()
        return await super().get(ask, clients)


def test_garbage_of_h5py_is_not_collected_on_the_thread_that_it_waits_for(layouts, engine):
    store = _Collecting({"a.h5": layouts[0]})
    threshold = gc.get_threshold()
    gc.set_threshold(0)
    try:
        cycle = [h5py.h5s.create_simple((3,))]
        cycle.append(cycle)
        del cycle
        file = hdf5.Hdf5File(RemoteDocuments(store, engine), "a.h5", None)
        assert hdf5.find(file, "", Settings(engine=engine)).kind == "group"
    finally:
        gc.set_threshold(*threshold)
    assert gc.isenabled()
    assert set(store.collected) == {False}


class _Waiting:
    """A store whose requests end when they may."""

    url = "x"

    def __init__(self):
        self.asked, self.may_end, self.collects = threading.Event(), threading.Event(), None

    def ends(self, key, first_nbytes, last_nbytes):
        self.asked.set()
        assert self.may_end.wait(30)
        self.collects = gc.isenabled()
        return Reply(b"x" * 10, 0, 10, '"e"', None), None


def _asking(store):
    thread = threading.Thread(target=Blocks, args=(store, "a.h5"), daemon=True)
    thread.start()
    assert store.asked.wait(30)
    return thread


@pytest.mark.parametrize("collects", [True, False])
def test_collecting_is_off_until_the_last_of_several_threads_has_its_reply(collects):
    stores = [_Waiting() for _ in range(3)]
    if not collects:
        gc.disable()
    try:
        threads = [_asking(store) for store in stores[:2]]
        for i, (store, thread) in enumerate(zip(stores[:2], threads, strict=True)):
            if i == 1:
                # One more, which comes when the first has gone.
                stores[2].may_end.set()
                _asking(stores[2]).join(30)
            assert not gc.isenabled()
            store.may_end.set()
            thread.join(30)
        assert [store.collects for store in stores] == [False] * 3
        assert gc.isenabled() == collects
    finally:
        gc.enable()


def test_a_fork_while_another_thread_waits_for_a_reply():
    waiting = _Waiting()
    thread = _asking(waiting)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            own = _Waiting()
            own.may_end.set()
            before = gc.isenabled()
            Blocks(own, "a.h5")
            code = 0 if (before, own.collects, gc.isenabled()) == (True, False, True) else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert not gc.isenabled()
    waiting.may_end.set()
    thread.join(30)
    assert gc.isenabled()
