"""`Array.to_dask` and dask's own functions on arrays: answers of numpy, few requests, small graphs and pickles."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
import threading

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import voxfetch as vf
from tests.servers import objects_in
from tests.servers.faulty import Fault, FaultyServer, status
from voxfetch.dask import _blocks


@pytest.fixture(autouse=True)
def threads():
    """The scheduler that dask has by itself, whatever other tests have set."""
    with dask.config.set(scheduler="threads"):
        yield


def is_aligned(lazy, array):
    """Whether blocks begin where shards do, or chunks where there are none."""
    units = array.shards or array.chunks
    starts = [np.cumsum((0, *sizes))[:-1] for sizes in lazy.chunks]
    return all((one % unit == 0).all() for one, unit in zip(starts, units, strict=True))


# ------------------------------------------------------------------------------------------------------- equal to numpy


def test_equals_numpy(case):
    array = case.open()
    lazy = array.to_dask()
    assert (lazy.shape, lazy.dtype, lazy.ndim) == (array.shape, array.dtype, array.ndim)
    assert (type(lazy._meta), lazy._meta.dtype, lazy._meta.shape) == (np.ndarray, array.dtype, (0,) * array.ndim)
    assert is_aligned(lazy, array)
    np.testing.assert_array_equal(lazy.compute(), case.expected)
    for chunks in ("auto", array.chunks or -1, -1):
        np.testing.assert_array_equal(array.to_dask(chunks).compute(), case.expected)


@pytest.mark.parametrize("keywords", [{}, {"asarray": False}, {"inline_array": True}, {"fancy": False}, {"lock": True}])
def test_from_array(case, keywords):
    array = case.open()
    lazy = da.from_array(array, **keywords)
    assert is_aligned(lazy, array), "dask takes what `shards` and `chunks` say"
    np.testing.assert_array_equal(lazy.compute(), case.expected)


def test_views_levels_and_options(volume):
    array = volume.open()
    view = array.with_axes(array.axes[::-1])
    assert view.to_dask().chunksize == view.shards
    np.testing.assert_array_equal(view.to_dask().compute(), volume.expected.T)
    same = array.with_options(vf.ReadOptions(verify="cheap"))
    np.testing.assert_array_equal(same.to_dask().compute(), volume.expected)


def test_a_level_of_an_image():
    path = "tests/data/fib25/fib25.ome.zarr"
    expected = zarr.open_group(path, mode="r")["1"][...]
    level = vf.open_image(path).level(1)
    assert level.to_dask().compute().tobytes() == expected.tobytes()
    assert level.with_axes("xzy").to_dask().mean(axis=0).compute() == pytest.approx(expected.mean(axis=2))


def test_objects_have_blocks_of_chunks(tmp_path):
    """Nobody knows how many bytes they have."""
    words = np.array(["ab", "c", "", "d\u00e9f", "g"], object)
    zarr.create_array(tmp_path / "a", shape=5, dtype="string", chunks=2)[...] = words
    lazy = vf.open_array(tmp_path / "a").to_dask()
    assert lazy.chunks == ((2, 2, 1),)
    assert lazy.compute().tolist() == words.tolist()


@given(data=st.data(), blocks=st.sampled_from([None, "auto", 10, (37, 9, -1)]))
def test_indexing_equals_numpy(volume, data, blocks):
    """Ints, slices of any step, and a list along one of the axes, which dask reads by slices."""
    shape = volume.expected.shape
    key = [data.draw(st.integers(-n, n - 1) | st.slices(n)) for n in shape]
    lazy, expected = volume.open().to_dask(blocks), volume.expected
    np.testing.assert_array_equal(lazy[tuple(key)].compute(), expected[tuple(key)])
    axis = data.draw(st.integers(0, 2))
    indices = data.draw(st.lists(st.integers(-shape[axis], shape[axis] - 1), min_size=1, max_size=5))
    key = [one if isinstance(one, slice) else slice(None) for one in key]
    key[axis] = indices
    np.testing.assert_array_equal(lazy[tuple(key)].compute(), expected[tuple(key)])


def test_what_is_done_with_blocks(volume):
    array, expected = volume.open(), volume.expected
    lazy = array.to_dask()
    np.testing.assert_array_equal(lazy.map_blocks(lambda block: block // 2).compute(), expected // 2)
    summed = lazy.map_overlap(lambda block: block + np.roll(block, 1, 0), depth=(1, 0, 0), boundary="periodic")
    np.testing.assert_array_equal(summed.compute(), expected + np.roll(expected, 1, 0))
    assert lazy.astype("i8").sum().compute() == expected.astype("i8").sum()
    np.testing.assert_array_equal(lazy.rechunk((7, -1, 5)).compute(), expected)
    target = np.zeros_like(expected)
    da.store(lazy, target, lock=False)
    np.testing.assert_array_equal(target, expected)


def test_stored_in_an_array_that_is_written(volume, tmp_path):
    array = volume.open()
    target = vf.create(tmp_path / "a", shape=array.shape, dtype=array.dtype, chunks=array.chunks, shards=array.shards)
    da.store(array.to_dask(), target, lock=False)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a", mode="r")[...], volume.expected)


# --------------------------------------------------------------------------------------------------------------- blocks


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Nothing is stored: shape (1000, 300, 40), chunks of 10 kB in shards of 80 kB."""
    path = tmp_path_factory.mktemp("large")
    layout = {"shape": (1000, 300, 40), "dtype": "u1", "chunks": (10, 50, 20), "fill_value": 3}
    zarr.create_array(path / "sharded", shards=(20, 100, 40), **layout)
    zarr.create_array(path / "plain", **layout)
    return path


@pytest.mark.parametrize(
    ("chunks", "blocks"),
    [
        (None, (20, 100, 40)),
        (7, (10, 50, 20)),
        (11, (20, 50, 20)),
        ((1, 51, -1), (10, 100, 40)),
        ([1, None, 1], (10, 300, 20)),
        (np.array([1, 51, 20]), (10, 100, 20)),
        ({0: 15}, (20, 300, 40)),
        ("20 kB", (20, 50, 20)),
        ("40 kB", (20, 50, 40)),
        ("80 kB", (20, 100, 40)),
        ("160 kB", (40, 100, 40)),
        (("auto", 50, 40), (1000, 50, 40)),
        (("40 kB", 50, 40), (20, 50, 40)),
        ("1 B", (10, 50, 20)),
        ("auto", (1000, 300, 40)),
    ],
)
def test_blocks_of_shards(large, chunks, blocks):
    lazy = vf.open_array(large / "sharded").to_dask(chunks)
    assert lazy.chunksize == blocks
    assert lazy.shape == (1000, 300, 40)


@pytest.mark.parametrize(
    ("limit", "blocks"),
    [("1 B", (10, 50, 20)), ("20 kB", (20, 50, 20)), ("160 kB", (80, 50, 40)), ("1 GB", (1000, 300, 40))],
)
def test_blocks_of_chunks(large, limit, blocks):
    array = vf.open_array(large / "plain")
    with dask.config.set({"array.chunk-size": limit}):
        lazy = array.to_dask()
        assert lazy.chunksize == blocks
        assert is_aligned(lazy, array)
        assert (lazy[:, 0, 0].compute() == 3).all()


def test_128_mib_of_chunks(tmp_path):
    zarr.create_array(tmp_path / "a", shape=(4096, 4096, 4096), dtype="u2", chunks=(64, 64, 64))
    lazy = vf.open_array(tmp_path / "a").to_dask()
    assert math.prod(lazy.chunksize) * 2 == 128 << 20
    assert min(lazy.chunksize) >= 256, "close to a cube"


def test_shards_larger_than_a_block_are_cut_between_chunks(tmp_path):
    zarr.create_array(tmp_path / "a", shape=(60, 60), dtype="u1", chunks=(5, 5), shards=(30, 30))
    array = vf.open_array(tmp_path / "a")
    assert array.to_dask("100 B").chunks == ((10,) * 6,) * 2
    assert array.to_dask("130 B").chunks == ((10,) * 6,) * 2
    assert array.to_dask("150 B").chunks == ((15,) * 4, (10,) * 6)
    assert array.to_dask("400 B").chunks == ((15,) * 4,) * 2, "20 would fit, and not divide 30"


def test_what_lies_outside_the_array_counts_nothing(tmp_path):
    zarr.create_array(tmp_path / "a", shape=(1, 512, 512), dtype="u1", chunks=(64, 64, 64))
    assert vf.open_array(tmp_path / "a").to_dask("16 KiB").chunksize == (1, 128, 128)


def test_shards_that_no_chunk_divides():
    """The largest along an axis, where they differ in extent."""

    class Ragged:
        chunks, shards, shape, ndim, dtype = (4,), (10,), (100,), 1, np.dtype("u1")

    assert _blocks(Ragged(), ["auto"], 7) == (4,)
    assert _blocks(Ragged(), ["auto"], 19) == (10,)
    assert _blocks(Ragged(), ["auto"], 25) == (20,)


def test_the_blocks_of_the_only_axis(cases):
    lazy = cases("line").open().to_dask
    assert lazy((600, 400)).chunks == lazy([600, 400]).chunks == lazy(np.array([600, 400])).chunks == ((600, 400),)


def test_extents_given_one_by_one_are_taken(volume):
    lazy = volume.open().to_dask(((30, 7), (50,), "auto"))
    assert lazy.chunks[:2] == ((30, 7), (50,))
    np.testing.assert_array_equal(lazy.compute(), volume.expected)


@pytest.mark.parametrize(
    "chunks", [0, -2, 2.5, (10, 10), ((30, 8), -1, -1), "much", ("1 kB", "2 kB", -1), ((), -1, -1), (10, 10, 10, 10)]
)
def test_blocks_that_do_not_fit_are_refused(volume, chunks):
    with pytest.raises(ValueError):
        volume.open().to_dask(chunks)


# ---------------------------------------------------------------------------------------------------- what is requested


def decoded_by(engine, work):
    before = engine.stats().chunks_decoded
    work()
    return engine.stats().chunks_decoded - before


@pytest.mark.parametrize("lazily", [lambda array: array.to_dask(), da.from_array], ids=["to_dask", "from_array"])
def test_slices_become_slices_of_the_reads(write_array, make_values, tmp_path, lazily):
    case = write_array(tmp_path / "a", make_values((40, 40, 40), "u2"), chunks=(5, 5, 5), shards=(20, 20, 20))
    with vf.Engine() as engine:
        array = case.open(engine=engine)
        lazy = lazily(array)
        assert decoded_by(engine, lazy[3, 21:24, 7].compute) == 1
        assert decoded_by(engine, lazy[0:10:2, 0, 0].compute) == 2
        assert decoded_by(engine, lazy.compute) == 512, "each chunk once"


def test_making_a_graph_reads_nothing(volume):
    with FaultyServer(objects_in(volume.path, "a/")) as server, vf.Engine() as engine:
        array = vf.open_array(f"{server.url}/a", engine=engine)
        opened = len(server.requests)
        lazy = [array.to_dask(), array.to_dask("auto"), da.from_array(array), da.from_array(array, asarray=False)]
        lazy += [lazy[0][::2].mean(axis=0), lazy[0].map_blocks(np.abs, dtype=array.dtype), lazy[0].T + 1]
        assert repr(lazy)
        assert len(server.requests) == opened
        np.testing.assert_array_equal(lazy[0].compute(), volume.expected)
        asked = server.requests[opened:]
        assert asked
        assert not [request.key for request in asked if request.key.endswith("zarr.json")]


def test_graphs_and_pickles_are_small(tmp_path):
    zarr.create_array(tmp_path / "a", shape=(4700, 4700, 4700), dtype="u1", chunks=(50,) * 3, shards=(100,) * 3)
    array = vf.open_array(tmp_path / "a")
    lazy = array.to_dask()
    assert lazy.npartitions == 47**3
    assert len(pickle.dumps(array)) < 2_000
    assert len(cloudpickle.dumps(lazy.dask)) < 4_000
    assert len(lazy.dask.layers) == 1
    again = cloudpickle.loads(cloudpickle.dumps(lazy))
    assert again.name == lazy.name
    assert again[0, 0, :3].compute().tolist() == [0, 0, 0]


# ---------------------------------------------------------------------------------------------------------------- names


def test_the_same_array_has_the_same_name_in_every_process(volume):
    code = "import sys, voxfetch as vf; a = vf.open_array(sys.argv[1]); print(a.to_dask().name, a.to_dask(10).name)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(volume.path)], capture_output=True, text=True, timeout=50, check=True
    )
    array = volume.open()
    assert done.stdout.split() == [array.to_dask().name, array.to_dask(10).name]
    assert pickle.loads(pickle.dumps(array)).to_dask().name == array.to_dask().name
    assert array.to_dask(8).name == array.to_dask((1, 1, 1)).name, "the same blocks"


def test_others_have_other_names(volume, write_array, tmp_path):
    array = volume.open()
    other = write_array(tmp_path / "a", volume.expected, chunks=(8, 10, 9))
    names = [array.to_dask().name, array.to_dask(10).name, other.open().to_dask().name]
    names += [array.with_axes(array.axes[::-1]).to_dask().name]
    names += [array.with_options(vf.ReadOptions(on_missing="raise")).to_dask().name]
    before = other.open()
    zarr.open_array(other.path, mode="r+").attrs["version"] = 2
    names += [other.open().to_dask().name]
    assert len(set(names)) == len(names)
    assert before.to_dask().name == names[2], "it was opened before"


def test_the_way_to_a_store_is_part_of_the_name_and_no_secret():
    objects = {"a/zarr.json": (b"{}")}
    tokens = []
    with FaultyServer(objects) as server:
        document = zarr.create_array(store={}, shape=(3,), dtype="u1").metadata.to_buffer_dict(
            prototype=zarr.core.buffer.default_buffer_prototype()
        )["zarr.json"]
        server.put("a/zarr.json", document.to_bytes())
        for word in ("hunter2", "hunter3"):
            array = vf.open_array(f"{server.url}/a", options={"headers": {"Authorization": word}})
            tokens.append(array.__dask_tokenize__())
            assert array.__dask_tokenize__() == pickle.loads(pickle.dumps(array)).__dask_tokenize__()
    assert tokens[0] != tokens[1]
    assert "hunter" not in repr(tokens)


# ------------------------------------------------------------------------------------------------------- many processes

DISTRIBUTED = """
import json, sys
import dask, dask.array as da, numpy as np
import voxfetch as vf

def main():
    from distributed import Client, LocalCluster
    url, local, expected, gone = sys.argv[1:]
    expected = np.load(expected)
    array, lost = vf.open_array(url), vf.open_array(gone)
    with LocalCluster(n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            pids = set(client.run(lambda: __import__("os").getpid()).values())
            assert len(pids) == 2
            for lazy in (array.to_dask(), array.to_dask(8), da.from_array(array), vf.open_array(local).to_dask()):
                np.testing.assert_array_equal(lazy.compute(), expected)
            assert array.to_dask().astype("i8").sum().compute() == expected.astype("i8").sum()
            try:
                lost.to_dask().compute()
            except vf.StoreError as error:
                assert "/c/" in str(error), error
            else:
                raise AssertionError("a store that is broken")
    np.testing.assert_array_equal(array.to_dask(8).compute(scheduler="processes", num_workers=2), expected)
    print("done")

if __name__ == "__main__":
    main()
"""


def test_workers_read_over_http_without_asking_for_metadata(volume, tmp_path):
    """Two processes of `distributed` and two of dask's own, all spawned."""
    pytest.importorskip("distributed")
    script, expected = tmp_path / "script.py", tmp_path / "expected.npy"
    script.write_text(DISTRIBUTED)
    np.save(expected, volume.expected)
    with FaultyServer(objects_in(volume.path, "a/") | objects_in(volume.path, "gone/")) as server:
        server.rule = lambda one: status(401) if one.key.startswith("gone/c/") else None
        arguments = [f"{server.url}/a", str(volume.path), str(expected), f"{server.url}/gone"]
        command = [sys.executable, "-W", "error", str(script), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=55, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "done\n"
        documents = [one.key for one in server.requests if one.key.endswith("zarr.json")]
        assert sorted(documents) == ["a/zarr.json", "gone/zarr.json"], "those that the script opened"


# ------------------------------------------------------------------------------------------------------------- failures


def test_a_broken_chunk_is_an_error_of_compute(write_array, make_values, tmp_path):
    case = write_array(tmp_path / "a", make_values((16, 16), "u2"), chunks=(8, 8))
    chunk = case.path / "c/1/0"
    chunk.write_bytes(chunk.read_bytes()[:-5])
    lazy = case.open().to_dask((8, 8))
    np.testing.assert_array_equal(lazy[:8].compute(), case.expected[:8])
    with pytest.raises(vf.DataError, match="c/1/0"):
        lazy.compute()


@pytest.mark.parametrize(
    "fault",
    [status(500), Fault(cut=-1), Fault(reset=5), Fault(stall=5)],
    ids=["500", "closed", "reset", "stalled"],
)
def test_a_store_that_dies_half_way_is_an_error_of_compute(volume, fault):
    lock, seen = threading.Lock(), []

    def rule(request):
        with lock:
            seen.append(request.key)
            return fault if len(seen) > 12 else None

    retry = vf.RetryPolicy(max_attempts=2, base_s=0.01, cap_s=0.02, idle_timeout_s=0.3)
    with FaultyServer(objects_in(volume.path, "a/")) as server, vf.Engine(retry=retry) as engine:
        lazy = vf.open_array(f"{server.url}/a", engine=engine).to_dask()
        server.rule = rule
        with pytest.raises(vf.StoreError) as caught:
            lazy.compute(num_workers=4)
        assert caught.value.attempts == 2
        server.rule = lambda _: None
        # Not with this engine, in which reads of other blocks may still be failing.
        np.testing.assert_array_equal(vf.open_array(f"{server.url}/a").to_dask().compute(), volume.expected)
