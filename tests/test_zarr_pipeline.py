"""`voxfetch.ZarrPipeline`: every selection and type that zarr-python reads, it reads the same.

The truth is zarr's default pipeline over the same store. These files run with every version of zarr that is read.
"""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.core.buffer import default_buffer_prototype

import voxfetch as vf
from tests.zarr_arrays import CHUNKS, NEWER, SHAPE, SHARDS, all_accelerated, same, stored
from voxfetch.zarr import report

pytestmark = pytest.mark.filterwarnings(
    "ignore::zarr.errors.UnstableSpecificationWarning", "ignore::zarr.errors.ZarrUserWarning"
)


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


@pytest.fixture(params=["memory", "local"])
def store(request, tmp_path):
    return zarr.storage.MemoryStore() if request.param == "memory" else zarr.storage.LocalStore(tmp_path)


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
