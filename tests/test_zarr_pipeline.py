"""`voxfetch.ZarrPipeline`: whatever zarr-python reads, it reads the same; what it cannot is read by zarr and counted.

The truth is zarr's default pipeline over the same store. The file runs with every version of zarr that is read.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import pickle
import subprocess
import sys
import warnings
import weakref

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.core.buffer import NDBuffer, default_buffer_prototype

import voxfetch as vf
from voxfetch.zarr import ZarrPipeline, report

PIPELINE = {"codec_pipeline.path": "voxfetch.ZarrPipeline"}
NEWER = tuple(map(int, zarr.__version__.split(".")[:2])) >= (3, 3)
pytestmark = pytest.mark.filterwarnings(
    "ignore::zarr.errors.UnstableSpecificationWarning", "ignore::zarr.errors.ZarrUserWarning"
)


def filled(shape, dtype):
    """Voxels of which hardly any two are equal."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape, dtype=int))
    if dtype.names:
        out = np.zeros(shape, dtype)
        for name in dtype.names:
            out[name] = filled(shape, dtype[name])
        return out
    if dtype.kind == "U":
        return np.array([chr(0x100 + k) * (k % 4) for k in range(count)], dtype).reshape(shape)
    if dtype.kind in "SV":
        return np.frombuffer(np.arange(1, count * dtype.itemsize + 1, dtype="u1").tobytes(), dtype).reshape(shape)
    return (np.arange(count) * 7 + 1).astype("i8").astype(dtype).reshape(shape)


def stored(store=None, *, shape, dtype="u2", name="a", holes=(), **layout):
    """An array of zarr's default pipeline; `holes` are selections that are not written."""
    if layout.get("zarr_format", 3) == 3 and "order" in layout:
        layout["config"] = {"order": layout.pop("order")}
    array = zarr.create_array({} if store is None else store, name=name, shape=shape, dtype=dtype, **layout)
    voxels = filled(shape, dtype)
    array[...] = voxels
    for hole in holes:
        array[hole] = array.fill_value
    return array


def same(got, expected):
    np.testing.assert_array_equal(got, expected, strict=True)
    assert np.asarray(got).dtype == np.asarray(expected).dtype


def all_accelerated(array, count=None):
    counts = report(array)
    assert (counts.not_accelerated, counts.reasons) == (0, {})
    assert counts.accelerated == count if count is not None else counts.accelerated > 0


# -------------------------------------------------------------------------------------------------- every selection

DTYPES = {
    2: ["u1", "<i4", ">i4", ">u2", "f2", "<f8", "c8", ">c16", "?", "M8[ns]", "m8[s]", "S3", "<U3", ">U3", "V5",
        [("x", "<i2"), ("y", ">f4")]],
    3: ["u1", "i2", "u8", "f2", "f8", "c8", "?", "M8[ns]", "m8[s]", "S3", "U3", "V5", [("x", "i2"), ("y", "f4")]],
}  # fmt: skip


@st.composite
def arrays(draw):
    zarr_format = draw(st.sampled_from([2, 3]))
    shape = tuple(draw(st.lists(st.integers(1, 11), max_size=3)))
    chunks = tuple(draw(st.integers(1, 5)) for _ in shape)
    layout = {"zarr_format": zarr_format, "shape": shape, "chunks": chunks}
    layout["dtype"] = np.dtype(draw(st.sampled_from(DTYPES[zarr_format])))
    layout["compressors"] = draw(st.sampled_from(["auto", None]))
    layout["order"] = draw(st.sampled_from("CF"))
    writes_shards = NEWER or layout["dtype"].kind != "V"
    if zarr_format == 3 and shape and writes_shards and draw(st.booleans()):
        layout["shards"] = tuple(chunk * draw(st.integers(1, 3)) for chunk in chunks)
    if zarr_format == 2:
        layout["chunk_key_encoding"] = {"name": "v2", "separator": draw(st.sampled_from("./"))}
    else:
        name = draw(st.sampled_from(["v2", "default"]))
        layout["chunk_key_encoding"] = {"name": name, "separator": draw(st.sampled_from("./"))}
    if layout["dtype"].kind in "uif" and draw(st.booleans()):
        layout["fill_value"] = 3
    if zarr_format == 2 and layout["dtype"].kind in "ui" and draw(st.booleans()):
        import numcodecs

        layout["filters"] = [numcodecs.Delta(dtype=layout["dtype"].str)]
    layout["name"] = draw(st.sampled_from(["a", "deep/er/array", "c/0/0"]))
    steps = [slice(draw(st.integers(0, extent - 1)), None) for extent in shape]
    return layout, tuple(steps)


def slices(extent):
    edge = st.none() | st.integers(-extent - 1, extent + 1)
    return st.builds(slice, edge, edge, st.none() | st.integers(1, 4))


def indices(extent):
    return st.lists(st.integers(-extent, extent - 1), max_size=8).map(lambda found: np.array(found, int))


def masks(extent):
    return st.lists(st.booleans(), min_size=extent, max_size=extent).map(lambda found: np.array(found, bool))


@st.composite
def selections(draw, shape):
    kind = draw(st.sampled_from(["basic", "oindex", "vindex", "mask", "block"]))
    if kind == "basic" or not shape:
        parts = [draw(slices(extent) | st.integers(-extent, extent - 1)) for extent in shape]
        return "basic", tuple(parts) if draw(st.booleans()) and parts else (*parts[:1], ...)
    if kind == "oindex":
        one = [draw(slices(n) | st.integers(-n, n - 1) | indices(n) | masks(n)) for n in shape]
        return kind, tuple(one)
    if kind == "vindex":
        count = draw(st.integers(1, 9))
        points = [np.array(draw(st.lists(st.integers(-n, n - 1), min_size=count, max_size=count))) for n in shape]
        if count % 2 == 0 and draw(st.booleans()):
            points = [one.reshape(2, -1) for one in points]
        return kind, tuple(points)
    if kind == "mask":
        whole = draw(masks(int(np.prod(shape))))
        return kind, whole.reshape(shape)
    return kind, (draw(st.integers(0, 1)),)


def read(array, kind, selection):
    if kind == "basic":
        return array[selection]
    if kind == "oindex":
        return array.oindex[selection]
    if kind == "vindex":
        return array.vindex[selection]
    if kind == "mask":
        return array.get_mask_selection(selection)
    return array.blocks[selection]


def outcome(array, kind, selection):
    try:
        return read(array, kind, selection)
    except (IndexError, ValueError) as error:
        return type(error), str(error)


@settings(max_examples=200)
@given(data=st.data())
def test_reads_what_zarr_reads(data):
    layout, hole = data.draw(arrays())
    array = stored(**layout, holes=[hole] if layout["shape"] else ())
    fast = vf.accelerate(array)
    for kind, selection in data.draw(st.lists(selections(array.shape), min_size=1, max_size=6)):
        expected = outcome(array, kind, selection)
        got = outcome(fast, kind, selection)
        if isinstance(expected, tuple):
            assert got == expected
        else:
            same(got, expected)
    counts = report(fast)
    assert counts.reasons == {}


SHAPE, CHUNKS, SHARDS = (37, 26, 19), (4, 5, 6), (8, 10, 12)
MANY = [
    ..., (3, 4, 5), (slice(2, 35), 7, slice(1, 18)), (slice(None, None, 3), slice(1, 25, 7), slice(5, 6)),
    (slice(0, 0), slice(None)), (np.int64(3), slice(None), np.int32(-1)), (slice(30, 99),),
]  # fmt: skip


@pytest.mark.parametrize("shards", [None, SHARDS])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("place", ["memory", "local"])
def test_basic_selections_of_many_objects(tmp_path, shards, order, place):
    store = {} if place == "memory" else str(tmp_path)
    array = stored(store, shape=SHAPE, chunks=CHUNKS, shards=shards, order=order)
    fast = vf.accelerate(array)
    for selection in MANY:
        same(fast[selection], array[selection])
    assert fast[...].flags.f_contiguous == (order == "F")
    all_accelerated(fast)


ODD_ROWS = np.arange(37) % 5 == 3
ORTHOGONAL = [
    (ODD_ROWS, slice(3, 20), 4), (ODD_ROWS, slice(None), slice(2, 9)), (ODD_ROWS, [25, 0, 3], [1, 1]),
    (slice(None), slice(1, 9, 3), np.arange(19)[::-1]), ([5, 5, 30, 2], slice(None), slice(None)), ([3], [4], [5]),
    (36, slice(7, 8), [18, 0]), (np.arange(10, 30), slice(None), slice(None)),
]  # fmt: skip


@pytest.mark.parametrize("shards", [None, SHARDS])
def test_orthogonal_selections(shards):
    array = stored(shape=SHAPE, chunks=CHUNKS, shards=shards)
    fast = vf.accelerate(array)
    for selection in ORTHOGONAL:
        same(fast.oindex[selection], array.oindex[selection])
    all_accelerated(fast, len(ORTHOGONAL))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_out_of_the_user(zarr_format):
    array = stored(shape=SHAPE, chunks=CHUNKS, zarr_format=zarr_format)
    fast = vf.accelerate(array)
    expected = array[...]
    other = np.zeros((*SHAPE[::-1], 2), "u2")
    for memory in (np.zeros(SHAPE, "u2", order="F"), other[..., 1].T, np.zeros(SHAPE, ">u2"), np.zeros(SHAPE, "f4"),
                   np.zeros(SHAPE, "u2")[::-1, :, ::-1]):  # fmt: skip
        fast.get_basic_selection(..., out=default_buffer_prototype().nd_buffer(memory))
        np.testing.assert_array_equal(memory, expected)
    assert not other[..., 0].any(), "nothing beside the output is written"
    memory.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        fast.get_basic_selection(..., out=default_buffer_prototype().nd_buffer(memory))
    all_reasons = report(fast).reasons
    assert all_reasons == {"an output that is no array of numpy": 1}


def test_fields_of_structures():
    dtype = np.dtype([("x", "<i2"), ("y", "<f4"), ("z", "S2")])
    array = stored(shape=(11, 7), dtype=dtype, chunks=(3, 4), zarr_format=2)
    fast = vf.accelerate(array)
    same(fast[...], array[...])
    for fields in ("x", ["y"], ["x", "z"]):
        expected = outcome_of_fields(array, fields)
        assert str(outcome_of_fields(fast, fields)) == str(expected)


def outcome_of_fields(array, fields):
    try:
        return array.get_basic_selection(..., fields=fields)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the same
        return type(error)


@pytest.mark.parametrize("dtype", ["i4", "f4", "?", "U3", "S3", "M8[s]", "m8[ns]", "c8"])
def test_no_fill_value_in_version_2(dtype):
    array = stored(shape=(9, 9), chunks=(4, 4), zarr_format=2, fill_value=None, dtype=dtype)
    zarr.core.sync.sync(array.store.delete("a/0.1"))
    fast = vf.accelerate(array)
    same(fast[...], array[...])
    all_accelerated(fast)


# ------------------------------------------------------------------------------------------------------- what changes


@pytest.fixture(params=["memory", "local"])
def store(request, tmp_path):
    return zarr.storage.MemoryStore() if request.param == "memory" else zarr.storage.LocalStore(tmp_path)


@pytest.mark.parametrize("shards", [None, (8, 8)])
def test_what_is_written_is_read(store, shards):
    array = stored(store, shape=(30, 20), chunks=(4, 4), shards=shards)
    with zarr.config.set(PIPELINE):
        fast = zarr.open_array(store, path="a")
    assert isinstance(fast._async_array.codec_pipeline, ZarrPipeline)
    same(fast[...], array[...])
    for number, place in enumerate([np.s_[...], np.s_[3:9, 2], np.s_[29, 19]]):
        fast[place] = 1000 + number  # through itself
        same(fast[...], array[...])
        array[place] = 2000 + number  # through another object
        same(fast[...], array[...])
    for key in ("a/c/0/0", "a/c/1/1"):
        zarr.core.sync.sync(store.delete(key))
        assert not fast[:4, :4].any()
        same(fast[...], array[...])
    array[...] = 7  # and back again
    same(fast[...], array[...])
    all_accelerated(fast)


def test_another_process_writes(tmp_path):
    array = stored(str(tmp_path), shape=(30, 20), chunks=(4, 4), shards=(8, 8))
    fast = vf.accelerate(array)
    same(fast[...], array[...])
    code = f"import zarr; zarr.open_array({str(tmp_path)!r}, path='a')[2:19] = 4242"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)
    assert (fast[2:19] == 4242).all()
    same(fast[...], array[...])


@pytest.mark.parametrize("shards", [None, (8, 8)])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_resize_append_and_attributes(store, zarr_format, shards):
    if zarr_format == 2 and shards:
        pytest.skip("version 2 has no shards")
    array = stored(store, shape=(10, 10), chunks=(4, 4), shards=shards, zarr_format=zarr_format, fill_value=9)
    fast = vf.accelerate(array)
    expected = array[...]
    same(fast[...], expected)
    fast.append(expected)
    expected = np.concatenate([expected, expected])
    same(fast[...], expected)
    for _ in range(2):
        fast.append(expected, axis=1)
        expected = np.concatenate([expected, expected], axis=1)
    same(fast[...], expected)
    fast.resize((100, 3))
    same(fast[:20], expected[:, :3])
    assert (fast[20:] == 9).all()
    fast.resize((3, 3))
    same(fast[...], expected[:3, :3])
    fast.resize((12, 12))
    fast.update_attributes({"some": "thing"})
    same(fast[...], zarr.open_array(store, path="a", mode="r")[...])
    fast[...] = 5
    assert (fast[...] == 5).all()
    all_accelerated(fast)


# ---------------------------------------------------------------------------------------- pickles, threads, processes


def test_pickles_and_equals(tmp_path):
    for name, fill in (("a", 0), ("b", float("nan"))):
        array = stored(str(tmp_path), shape=(9, 9), dtype="f4", chunks=(4, 4), name=name, fill_value=fill)
        fast = vf.accelerate(array)
        same(fast[...], array[...])
        again = pickle.loads(pickle.dumps(fast))
        assert isinstance(again._async_array.codec_pipeline, ZarrPipeline)
        assert pickle.dumps(fast._async_array.codec_pipeline).count(b"voxfetch") == 1, "nothing of ours is in it"
        same(again[...], array[...])
        all_accelerated(again, 1)
    assert again == fast or name == "b"
    assert ZarrPipeline.__module__ == "voxfetch"
    assert ZarrPipeline.__qualname__ == "ZarrPipeline"
    assert pickle.loads(pickle.dumps(ZarrPipeline)) is ZarrPipeline


def test_many_threads_read_one_array(store):
    array = stored(store, shape=SHAPE, chunks=CHUNKS, shards=SHARDS)
    fast, expected = vf.accelerate(array), array[...]

    def work(number):
        place = np.s_[number % 30 :, number % 7 :: 1 + number % 3]
        return np.array_equal(fast[place], expected[place])

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(120)))
    all_accelerated(fast, 120)


def test_loops_of_the_user(store):
    array = stored(store, shape=SHAPE, chunks=CHUNKS, shards=SHARDS)
    fast, expected = vf.accelerate(array)._async_array, array[...]

    loops = []

    async def main():
        loops.append(weakref.ref(asyncio.get_running_loop()))
        return await asyncio.gather(*(fast.getitem(np.s_[number:]) for number in range(20)))

    for _ in range(3):
        for number, got in enumerate(asyncio.run(asyncio.wait_for(main(), 20))):
            same(got, expected[number:])
    all_accelerated(fast, 60)
    gc.collect()
    assert [loop() for loop in loops] == [None] * 3, "nothing is kept for loops that are gone"


@pytest.mark.parametrize("end", ["cancelled", "timed out"])
def test_a_read_that_is_cancelled(end, caplog):
    """The store is asked on the loop of the user, which ends while it has not answered."""
    plain = stored(shape=SHAPE, chunks=CHUNKS, shards=SHARDS)
    begun, ended = asyncio.Event(), asyncio.Event()

    class Slow(zarr.storage.MemoryStore):
        async def get(self, key, prototype=None, byte_range=None):
            if "/c/" in key and not ended.is_set():
                begun.set()
                try:
                    await asyncio.sleep(30)
                except asyncio.CancelledError:
                    ended.set()
                    raise
            return await super().get(key, prototype, byte_range)

        async def getsize(self, key):
            return len((await super().get(key, default_buffer_prototype())).to_bytes())

    fast = vf.accelerate(zarr.open_array(Slow(plain.store._store_dict), path="a"))

    async def main():
        read = asyncio.ensure_future(fast._async_array.getitem(...))
        await begun.wait()
        if end == "cancelled":
            read.cancel()
        with pytest.raises(asyncio.CancelledError if end == "cancelled" else TimeoutError):
            await asyncio.wait_for(read, 0.05)
        await asyncio.wait_for(ended.wait(), 10)  # the store is told

    asyncio.run(main())
    assert not caplog.records
    same(fast[...], plain[...])


class OneLoop(zarr.storage.MemoryStore):
    """A store that works on the loop only on which it is asked first."""

    loop = None

    async def get(self, key, prototype=None, byte_range=None):
        loop = asyncio.get_running_loop()
        self.loop = self.loop or loop
        assert loop is self.loop, "another loop"
        await asyncio.sleep(0)
        return await super().get(key, prototype, byte_range)


def test_a_store_is_used_on_the_loop_that_reads():
    plain = stored(shape=SHAPE, chunks=CHUNKS, shards=SHARDS)
    expected, data = plain[...], plain.store._store_dict

    async def main():
        array = await zarr.api.asynchronous.open_array(store=OneLoop(data), path="a")
        fast = vf.accelerate(array)
        same(await fast.getitem(...), expected)
        all_accelerated(fast, 1)

    asyncio.run(asyncio.wait_for(main(), 20))
    fast = vf.accelerate(zarr.open_array(OneLoop(data), path="a"))
    same(fast[...], expected)


FORK = """
import os, signal, sys, warnings
import numpy as np, zarr
import voxfetch as vf
from voxfetch.zarr import report
warnings.simplefilter("ignore", DeprecationWarning)
signal.alarm(40)
store = sys.argv[1] if sys.argv[1] != "memory" else {}
array = zarr.create_array(store, name="a", shape=(30, 40), dtype="u2", chunks=(4, 4), shards=(8, 8))
array[...] = np.arange(1200).reshape(30, 40)
fast = vf.accelerate(array)
expected = fast[...]
for _ in range(3):
    pid = os.fork()
    if not pid:
        signal.alarm(20)
        good = np.array_equal(fast[...], expected) and report(fast).not_accelerated == 0
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert np.array_equal(fast[...], expected)
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("place", ["memory", "local"])
def test_a_forked_child_reads(tmp_path, place):
    arguments = [sys.executable, "-c", FORK, "memory" if place == "memory" else str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=55, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "done\n")


# ---------------------------------------------------------------------------------------------------- how it is chosen

CHOSEN = """
import sys, zarr
{before}
array = zarr.create_array({{}}, shape=(4, 4), chunks=(2, 2), dtype="u1")
array[...] = 3
print(type(array._async_array.codec_pipeline).__module__, int(array[...].sum()))
import voxfetch.zarr
print(voxfetch.zarr.report())
"""
ENTRY_POINTS = "[zarr.codec_pipeline]\nvoxfetch = voxfetch:ZarrPipeline\n"


@pytest.mark.parametrize(
    ("before", "environment", "entry_points"),
    [
        ("", True, True),
        ("zarr.config.set({'codec_pipeline.path': 'voxfetch.ZarrPipeline'})", False, True),
        ("import voxfetch.zarr", True, False),
        ("import voxfetch; voxfetch.ZarrPipeline", True, False),
        ("import voxfetch.zarr; zarr.config.set({'codec_pipeline.path': 'voxfetch.ZarrPipeline'})", False, False),
    ],
)
def test_chosen_by_name(tmp_path, before, environment, entry_points):
    path = [entry for entry in sys.path if entry]
    if entry_points:
        about = tmp_path / "fake_voxfetch-0.dist-info"
        about.mkdir()
        (about / "entry_points.txt").write_text(ENTRY_POINTS)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-voxfetch\nVersion: 0\n")
        path.insert(0, str(tmp_path))
    variables = {"ZARR_CODEC_PIPELINE__PATH": "voxfetch.ZarrPipeline"} if environment else {}
    done = subprocess.run(
        [sys.executable, "-c", CHOSEN.format(before=before)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(path), **variables},
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "voxfetch 48\n1 of 1 reads accelerated\n"


def test_our_entry_point_is_the_one_that_is_tried():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["zarr.codec_pipeline"] == {"voxfetch": "voxfetch:ZarrPipeline"}


def test_accelerate_leaves_the_given_array_alone(store):
    array = stored(store, shape=(9, 9), chunks=(4, 4))
    before = array._async_array.codec_pipeline
    fast = vf.accelerate(array)
    assert array._async_array.codec_pipeline is before
    assert type(fast) is zarr.Array
    assert type(vf.accelerate(array._async_array)) is zarr.AsyncArray
    for wrong in (zarr.create_group({}), array[...], "a"):
        with pytest.raises(TypeError, match="an Array or AsyncArray of zarr was expected"):
            vf.accelerate(wrong)
    with pytest.raises(TypeError, match="does not use"):
        report(array)


# ---------------------------------------------------------------------------------------------- what it does not read


def strings():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = zarr.create_array({}, name="a", shape=(5,), chunks=(2,), dtype=str)
    array[...] = np.array(["a", "bc", "", "def", "g"])
    return array


def test_what_is_not_accelerated_is_read_by_zarr_and_counted():
    array = strings()
    with pytest.raises(vf.UnsupportedError, match="elements of no fixed size"):
        vf.accelerate(array)
    whole = report()
    whole.reset()
    assert str(report()) == "0 of 0 reads accelerated"
    with zarr.config.set(PIPELINE):
        slow = zarr.open_array(array.store, path="a")
        fast = stored(shape=(5,), chunks=(2,))
    assert slow[...].tolist() == ["a", "bc", "", "def", "g"]
    assert fast[...].shape == (5,)
    assert str(report()) == "1 of 2 reads accelerated; 1 not: elements of no fixed size (1)"
    assert str(report(slow)) == (
        "0 of 1 reads accelerated; 1 not: elements of no fixed size (1); never accelerated: elements of no fixed size"
    )
    assert str(report(fast)).startswith("1 of 1 reads accelerated; the store shows no ETag: ")
    with zarr.config.set({"codec_pipeline.strict": True}), pytest.raises(vf.UnsupportedError, match="no fixed size"):
        slow[...]
    counts = report(slow)
    assert (counts.accelerated, counts.not_accelerated, dict(counts.reasons)) == (
        0,
        1,
        {"elements of no fixed size": 1},
    )
    counts.reset()
    assert report(slow).not_accelerated == 0
    assert report().not_accelerated == 1


def test_codec_classes_of_others_are_used():
    """A class of the user under the name of a codec that the core knows."""
    from zarr.codecs import GzipCodec
    from zarr.registry import register_codec

    array = stored(shape=(9,), chunks=(4,), dtype="u1", compressors=GzipCodec())

    class Mine(GzipCodec):
        used = 0

        async def _decode_single(self, *arguments):
            type(self).used += 1
            return await super()._decode_single(*arguments)

        def _decode_sync(self, *arguments):
            type(self).used += 1
            return super()._decode_sync(*arguments)

    register_codec("gzip", Mine)
    name = f"{Mine.__module__}.{Mine.__qualname__}"
    try:
        with zarr.config.set({**PIPELINE, "codecs.gzip": name}):
            slow = zarr.open_array(array.store, path="a")
            same(slow[...], array[...])
    finally:
        names = vars(zarr.registry)
        names.get("__codec_registries", names.get("_codec_registries"))["gzip"].pop(name)
    assert Mine.used
    assert list(report(slow).reasons) == [f"codec class {name}"]


class OtherMemory(NDBuffer):
    """An output whose memory is not numpy's, as that of a GPU."""

    def as_ndarray_like(self):
        return Opaque(self._data)

    def as_numpy_array(self):
        return self._data

    def __getitem__(self, key):
        return type(self)(self._data[key])

    def __setitem__(self, key, value):
        self._data[key] = value._data if isinstance(value, NDBuffer) else value


class Opaque:
    def __init__(self, array):
        self.array = array


def test_outputs_of_other_memory():
    array = stored(shape=(9, 8), chunks=(4, 4))
    fast = vf.accelerate(array)
    out = np.zeros((9, 8), "u2")
    fast.get_basic_selection(..., out=OtherMemory(out))
    same(out, array[...])
    assert report(fast).reasons == {"an output that is no array of numpy": 1}


def test_broken_data_is_an_error_and_no_fallback(store):
    array = stored(store, shape=(9, 8), chunks=(4, 4), shards=(8, 8))
    fast = vf.accelerate(array)
    whole = zarr.core.sync.sync(store.get("a/c/0/0", default_buffer_prototype())).to_bytes()
    broken = default_buffer_prototype().buffer.from_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    zarr.core.sync.sync(store.set("a/c/0/0", broken))
    with pytest.raises(vf.DataError):
        fast[...]
    assert report(fast).not_accelerated == 0


@pytest.mark.skipif(not NEWER, reason="zarr 3.3 and later")
@pytest.mark.parametrize("shards", [None, (8, 8)])
def test_missing_objects_as_errors(store, shards):
    array = stored(
        store, shape=(20, 20), chunks=(4, 4), shards=shards, fill_value=9, holes=[np.s_[:4, :4], np.s_[16:, 16:]]
    )
    array = zarr.open_array(store, path="a", config={"read_missing_chunks": False})
    fast = vf.accelerate(array)
    for selection in (..., np.s_[0, 0], np.s_[:4, 4:8], np.s_[:8, :8], np.s_[17:, 17:], np.s_[::9, ::9]):
        try:
            expected = array[selection]
        except Exception as error:  # noqa: BLE001 - zarr's class has changed its place
            with pytest.raises(type(error)) as caught:
                fast[selection]
            assert str(caught.value) == str(error)
        else:
            out = np.full(expected.shape, 77, "u2")
            fast.get_basic_selection(selection, out=default_buffer_prototype().nd_buffer(out))
            same(out, np.asarray(expected))
    all_accelerated(fast)


@pytest.mark.skipif(not NEWER, reason="zarr 3.2 and later")
@pytest.mark.parametrize("sharded", [False, True])
def test_rectilinear_grids(store, sharded):
    with zarr.config.set({"array.rectilinear_chunks": True}):
        grid = {"chunks": [[2, 3, 5, 1], [4, 3]]}
        if sharded:
            grid = {"chunks": (2, 2), "shards": [[2, 4, 6], [4, 4]]}
        shape = (12, 8) if sharded else (11, 7)
        array = stored(store, shape=shape, dtype="i4", **grid)
        fast = vf.accelerate(array)
        for selection in (..., np.s_[1:7, 2], np.s_[::3, ::2], np.s_[10, 6]):
            same(fast[selection], array[selection])
        same(fast.oindex[[9, 0, 3], :], array.oindex[[9, 0, 3], :])
        same(fast.vindex[[9, 0, 3], [1, 2, 6]], array.vindex[[9, 0, 3], [1, 2, 6]])
        all_accelerated(fast)
        fast.resize((16, shape[1]))
        expected = zarr.open_array(store, path="a")[...]
        same(fast[...], expected)
        same(fast[:7], expected[:7])
        counts = report(fast)
        assert (counts.accelerated, counts.reasons) == (7, {"a grid that has changed since it was opened": 1})


# ------------------------------------------------------------------------------------- batches that zarr does not make

WHOLE = (slice(0, 4), slice(0, 5))
LEFT, RIGHT = (slice(0, 4), slice(0, 5)), (slice(0, 4), slice(5, 10))
LOWER = (slice(4, 8), slice(5, 10))
# Of each: the shape of the output; key, selection and place of each object; whether it is one read all the same.
ODD = {
    "places exchanged": ((4, 10), [("c/0/0", WHOLE, RIGHT), ("c/0/1", WHOLE, LEFT)], True),
    "steps that differ": ((4, 8), [("c/0/0", WHOLE, LEFT), ("c/0/1", (WHOLE[0], slice(0, 5, 2)),
                                                             (slice(0, 4), slice(5, 8)))], True),
    "kinds that differ": ((4, 10), [("c/0/0", WHOLE, LEFT), ("c/0/1", (WHOLE[0], np.array([3, 2, 1, 0, 2])), RIGHT)],
                          False),
    "backwards": ((4, 10), [("c/0/0", (slice(3, None, -1), slice(5)), LEFT)], False),
    "rows that differ": ((2, 10), [("c/0/0", (slice(0, 2), slice(5)), (slice(0, 2), slice(0, 5))),
                                   ("c/0/1", (slice(2, 4), slice(5)), (slice(0, 2), slice(5, 10)))], False),
    "places that differ": ((2, 10), [("c/0/0", (slice(0, 2), slice(5)), (slice(0, 2), slice(0, 5))),
                                     ("c/0/1", (slice(0, 2), slice(5)), np.ix_([1, 0], range(5, 10)))], False),
    "one twice": ((4, 10), [("c/0/0", WHOLE, LEFT), ("c/0/0", WHOLE, RIGHT)], False),
    "a part of the output": ((4, 10), [("c/0/0", WHOLE, LEFT)], False),
    "places that overlap": ((4, 9), [("c/0/0", WHOLE, LEFT),
                                     ("c/0/1", (WHOLE[0], slice(0, 4)), (slice(0, 4), slice(4, 8)))], False),
    "a diagonal": ((8, 10), [("c/0/0", WHOLE, LEFT), ("c/1/1", WHOLE, LOWER)], False),
    "arrays across": ((2, 2), [("c/0/0", (np.array([[0, 1]]), np.array([[2], [3]])), (slice(0, 2),) * 2)], False),
    "lists": ((4, 10), [("c/0/0", ([0, 1], [2, 3]), ([0, 1], [0, 1]))], False),
    "points for one place": ((2,), [("c/0/0", (np.array([0, 1]), np.array([2, 3])), [0, 0])], False),
    "points beside their object": ((2,), [("c/0/0", (np.array([0, 1]), np.array([2, 5])), slice(0, 2))], False),
    "indices beside their object": ((4, 2), [("c/0/0", (slice(0, 4), np.array([1, 5])), (slice(4), slice(2)))], False),
    "another array": ((4, 10), [("c/0/0", WHOLE, LEFT), ("../b/c/0/1", WHOLE, RIGHT)], False),
    "no coordinates": ((4, 10), [("c/x/0", WHOLE, LEFT)], False),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_batches(name):
    """Whatever is handed over, it is read as zarr reads it, or both fail."""
    shape, parts, is_understood = ODD[name]
    array = stored(shape=(10, 10), chunks=(4, 5))
    stored(array.store, shape=(10, 10), chunks=(4, 5), name="b")
    if name == "places that overlap":
        array[...] = 1  # zarr says nothing of which comes last
    fast = vf.accelerate(array)._async_array
    prototype = default_buffer_prototype()

    def carried_out(pipeline):
        out = prototype.nd_buffer(np.zeros(shape, "u2"))
        batch = []
        for key, selection, to in parts:
            path = zarr.storage.StorePath(array.store, key.replace("../", "") if ".." in key else f"a/{key}")
            batch.append((path, spec_of(array, prototype), selection, to, False))
        try:
            zarr.core.sync.sync(pipeline.read(batch, out))
        except Exception as error:  # noqa: BLE001 - the same from both
            return type(error)
        return out.as_numpy_array().tolist()

    assert carried_out(fast.codec_pipeline) == carried_out(array._async_array.codec_pipeline)
    counts = report(fast)
    assert (counts.accelerated, counts.not_accelerated) == ((1, 0) if is_understood else (0, 1)), counts.reasons


def spec_of(array, prototype):
    from zarr.core.array_spec import ArraySpec

    inner = array._async_array
    kind = getattr(inner.metadata, "data_type", None) or inner.metadata.dtype
    return ArraySpec(array.chunks, kind, inner.metadata.fill_value, inner.config, prototype)


def test_what_the_engine_refuses_is_read_by_zarr(monkeypatch):
    """A codec may turn out not to be read only when its data is seen."""
    array = stored(shape=(9, 9), chunks=(4, 4))
    fast = vf.accelerate(array)

    async def refuse(self, reads):
        raise vf.UnsupportedError("a dictionary")

    monkeypatch.setattr(vf.Engine, "run", refuse)
    same(fast[...], array[...])
    assert report(fast).reasons == {"a dictionary": 1}
