"""Arrays against numpy: every way to read, every kind of output, on arrays that zarr-python wrote."""

from __future__ import annotations

import copy
import json
import mmap
import os
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import voxfetch as vf

# ------------------------------------------------------------------------------------------------- what an array says


def test_description(case):
    array = case.open()
    expected = case.expected
    assert array.shape == expected.shape
    assert array.dtype == expected.dtype
    assert array.dtype.isnative
    assert (array.ndim, array.size, array.nbytes) == (expected.ndim, expected.size, expected.nbytes)
    assert array.axes == tuple(f"dim_{axis}" for axis in range(expected.ndim))
    assert array.origin == (0,) * expected.ndim
    assert array.url == f"file://{case.path}"
    assert array.format in ("zarr3", "zarr2")
    assert array.engine is vf.default_engine()
    assert array.fill_value.dtype == expected.dtype or expected.dtype.kind in "SU"
    if expected.ndim:
        assert len(array) == expected.shape[0]
    else:
        with pytest.raises(TypeError):
            len(array)
    with pytest.raises(TypeError, match="blocks"):
        iter(array)
    for text in (repr(array), array._repr_html_()):
        assert array.url in text
        assert str(expected.shape) in text
    assert str(expected.dtype) in repr(array)


def test_names_from_files_do_not_reach_the_terminal_or_the_page_as_they_are(tmp_path):
    array = vf.create(tmp_path / "a", shape=(2,), dtype="u1", axes=["\x1b[31m<b>"])
    assert array.axes == ("\x1b[31m<b>",)
    assert "\x1b" not in repr(array)
    assert "<b>" not in array._repr_html_()


def test_chunks_shards_fill_value_and_attributes(volume, cases, tmp_path, write_array):
    array = volume.open()
    assert (array.chunks, array.shards, array.fill_value) == ((8, 10, 9), (16, 20, 18), 7)
    assert "sharding_indexed" in array.codecs
    assert cases("plain").open().shards is None
    assert np.isnan(cases("plain").open().fill_value)

    for zarr_format in (2, 3):
        names = {"dimension_names": ["y", None]} if zarr_format == 3 else {}
        written = write_array(
            tmp_path / str(zarr_format),
            np.zeros((2, 3), "u1"),
            chunks=(2, 3),
            zarr_format=zarr_format,
            attributes={"a": {"b": [1, 2]}},
            **names,
        )
        array = written.open()
        assert array.attrs == {"a": {"b": [1, 2]}}
        assert array.axes == (("y", "dim_1") if zarr_format == 3 else ("dim_0", "dim_1"))
        with pytest.raises(TypeError):
            array.attrs["a"] = 1


# ------------------------------------------------------------------------------------------------------ index by index


def selections(shape):
    """A basic index expression with one item per axis."""
    items = []
    for extent in shape:
        bound = st.none() | st.integers(-extent - 2, extent + 2)
        slices = st.builds(slice, bound, bound, st.none() | st.integers(1, max(extent, 1)))
        items.append(slices | st.integers(-extent, extent - 1) if extent else slices)
    return st.tuples(*items)


def same(got, expected):
    assert type(got) is type(expected)
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    np.testing.assert_array_equal(got, expected)


def test_whole(case):
    array = case.open()
    same(array[...], case.expected[...])
    same(array.read(), case.expected[...])
    same(array[()], case.expected[()])
    same(np.asarray(array), case.expected)


@given(data=st.data())
def test_basic_index(case, data):
    expression = data.draw(selections(case.expected.shape))
    same(case.open()[expression], case.expected[expression])


@given(data=st.data())
@settings(max_examples=20)
def test_index_of_a_reordered_view(case, data):
    array = case.open()
    order = data.draw(st.permutations(range(array.ndim)))
    view = array.with_axes([array.axes[axis] for axis in order])
    expected = case.expected.transpose(order)
    assert view.shape == expected.shape
    assert view.axes == tuple(array.axes[axis] for axis in order)
    assert view.chunks == tuple(array.chunks[axis] for axis in order)
    expression = data.draw(selections(expected.shape))
    same(view[expression], expected[expression])
    for memory_order in "CF":
        got = view.read(expression, order=memory_order)
        same(got, expected[expression])
        if isinstance(got, np.ndarray):
            assert got.flags[f"{memory_order}_CONTIGUOUS"]


@given(data=st.data())
@settings(max_examples=30)
def test_oindex(case, data):
    shape = case.expected.shape
    items, expected = [], case.expected
    dropped = 0
    for axis, extent in enumerate(shape):
        kinds = [st.builds(slice, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 3)), npst.arrays(bool, extent)]
        if extent:
            index = st.integers(-extent, extent - 1)
            kinds += [index, st.lists(index, max_size=6).map(lambda values: np.array(values, np.int64))]
        items.append(data.draw(st.one_of(kinds)))
        expected = expected[(slice(None),) * (axis - dropped) + (items[-1],)]
        dropped += isinstance(items[-1], int)
    array = case.open()
    same(array.oindex[tuple(items)], expected if shape else expected[()])
    if array.ndim > 1:
        view = array.with_axes(array.axes[::-1])
        same(view.oindex[tuple(items[::-1])], np.asarray(expected).transpose()[()])


@given(data=st.data())
@settings(max_examples=30)
def test_vindex(case, data):
    shape = case.expected.shape
    if not all(shape):
        pytest.skip("no voxel to point at")
    broadcastable = npst.mutually_broadcastable_shapes(num_shapes=len(shape), max_dims=2, max_side=5)
    shapes = data.draw(broadcastable).input_shapes if shape else ()
    expression = tuple(
        data.draw(npst.arrays(np.int64, one, elements=st.integers(-extent, extent - 1)))
        for one, extent in zip(shapes, shape, strict=True)
    )
    array = case.open()
    expected = np.asarray(case.expected[expression])
    same(array.vindex[expression], expected)
    if array.ndim > 1:
        same(array.with_axes(array.axes[::-1]).vindex[expression[::-1]], expected)
    mask = data.draw(npst.arrays(bool, shape, fill=st.just(False)))
    same(array.vindex[mask], np.asarray(case.expected[mask]))


def test_vindex_with_slices(volume):
    array = volume.open()
    z, x = [3, -1, 20], [0, 40, 7]
    expected = np.stack([volume.expected[a, 5:40, b] for a, b in zip(z, x, strict=True)])
    same(array.vindex[z, 5:40, x], expected)
    same(array.vindex[z], volume.expected[z])


@given(data=st.data())
@settings(max_examples=25)
def test_random_layouts(tmp_path_factory, write_array, make_values, data):
    """Rank, extents, chunks, shards, type and holes at random: the whole, and one selection."""
    shape = data.draw(npst.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=12))
    chunks = tuple(data.draw(st.integers(1, extent + 2)) for extent in shape)
    shards = tuple(chunk * data.draw(st.integers(1, 3)) for chunk in chunks)
    layout = data.draw(
        st.sampled_from([{"zarr_format": 2}, {"zarr_format": 2, "order": "F"}, {"zarr_format": 3}, {"shards": shards}])
    )
    dtype = data.draw(st.sampled_from(["u1", "i2", "u4", "i8", "f4", "f8", "c8", "?"]))
    expected = make_values(shape, dtype, data.draw(st.integers(0, 99)))
    holes = data.draw(st.sampled_from([0.0, 0.3, 1.0]))
    written = write_array(tmp_path_factory.mktemp("a") / "a", expected, holes=holes, chunks=chunks, **layout)
    array = written.open()
    expression = data.draw(selections(shape))
    same(array[expression], written.expected[expression])
    same(array[...], written.expected)


def test_all_ints_give_a_scalar(volume):
    got = volume.open()[1, -2, 3]
    assert isinstance(got, np.uint16)
    assert got == volume.expected[1, -2, 3]
    assert volume.open()[1, 2, 3, ...].shape == ()


@pytest.mark.parametrize(
    "expression", [None, True, [0], np.array([0]), 1.0, "x", (0, 0, 0, 0), (..., ...), slice(None, None, -1), 37, -38]
)
def test_refused_expressions(volume, expression):
    with pytest.raises(vf.SelectionError) as caught:
        volume.open()[expression]
    assert isinstance(caught.value, IndexError)


def test_index_arrays_are_pointed_to_oindex_and_vindex(volume):
    with pytest.raises(vf.SelectionError, match=r"\.oindex\[.*\.vindex\["):
        volume.open()[[1, 2]]


# --------------------------------------------------------------------------------------------------- boxes and points


def padded(case, margin):
    fill = case.open().fill_value
    return np.pad(case.expected, margin, constant_values=fill)


@given(data=st.data())
def test_boxes_that_reach_outside(cases, data):
    case = cases(data.draw(st.sampled_from(["sharded", "plain", "v2 F big", "five", "v2 dates"])))
    array, shape = case.open(), case.expected.shape
    margin = 9
    around = padded(case, margin)
    count = data.draw(st.integers(0, 4))
    extents = tuple(data.draw(st.integers(0, 9)) for _ in shape)
    starts = np.array(
        [
            [data.draw(st.integers(-margin, extent + margin - box)) for extent, box in zip(shape, extents, strict=True)]
            for _ in range(count)
        ],
        np.int64,
    ).reshape(count, len(shape))
    blocks = [
        around[tuple(slice(a + margin, a + margin + n) for a, n in zip(start, extents, strict=True))]
        for start in starts
    ]
    expected = np.array(blocks, case.expected.dtype).reshape(count, *extents)
    same(array.read_many(starts, extents, bounds="fill"), expected)
    view = array.with_axes(array.axes[::-1])
    turned = expected.transpose(0, *range(len(shape), 0, -1))
    same(view.read_many(starts[:, ::-1], extents[::-1], bounds="fill"), turned)
    for start, block in zip(starts, expected, strict=True):
        same(array.read_box(start, extents, bounds="fill"), block)
        inside = all(a >= 0 and a + n <= extent for a, n, extent in zip(start, extents, shape, strict=True))
        if inside:
            same(array.read_box(start, extents), block)
        else:
            with pytest.raises(vf.SelectionError, match="outside"):
                array.read_box(start, extents)
    out = np.empty_like(expected)
    assert array.read_many(starts, extents, bounds="fill", out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_boxes_far_outside(volume):
    array = volume.open()
    far = np.iinfo(np.int64).max - 8
    for start in ((far, 0, 0), (-far, 0, 0), (0, far, -far)):
        assert (array.read_box(start, (2, 3, 4), bounds="fill") == 7).all()
        with pytest.raises(vf.SelectionError):
            array.read_box(start, (2, 3, 4))


def test_box_arguments(volume):
    array = volume.open()
    same(array.read_box((1, 2, 3), 5), volume.expected[1:6, 2:7, 3:8])
    same(array.read_box((1, 2, 3), 5, absolute=True), volume.expected[1:6, 2:7, 3:8])
    with pytest.raises(ValueError, match="bounds"):
        array.read_box((0, 0, 0), 1, bounds="wrap")
    for start in ((0, 0), (0, 0, 0, 0), (0, 0, 0.5), None):
        with pytest.raises(vf.SelectionError):
            array.read_box(start, 1)
    with pytest.raises(vf.SelectionError, match="3 more errors"):
        array.read_many([[0, 0, 0], *[[37, 0, 0]] * 4], 1)


def test_many_duplicates_and_overlaps(volume):
    starts = np.array([[5, 5, 5]] * 20 + [[6, 5, 5]] * 20)
    got = volume.open().read_many(starts, (12, 30, 20))
    for start, block in zip(starts, got, strict=True):
        np.testing.assert_array_equal(block, volume.expected[start[0] : start[0] + 12, 5:35, 5:25])


def test_points(volume):
    array, expected = volume.open(), volume.expected
    generator = np.random.default_rng(0)
    coords = generator.integers(0, expected.shape, (500, 3))
    same(array.read_points(coords), expected[tuple(coords.T)])
    same(array.with_axes(array.axes[::-1]).read_points(coords[:, ::-1]), expected[tuple(coords.T)])
    same(array.read_points(np.zeros((0, 3), int)), np.zeros(0, "u2"))
    same(array.read_points([[-1, 0, 0], [0, 0, 0]], bounds="fill"), np.array([7, expected[0, 0, 0]], "u2"))
    with pytest.raises(vf.SelectionError):
        array.read_points([[-1, 0, 0]])


def test_read_all(volume, cases):
    other = cases("plain")
    engine = vf.Engine(decode_threads=1)
    mine = vf.open_array(volume.path, engine=engine)
    got = vf.read_all(
        [(volume.open(), np.s_[3:9]), (other.open(), ...), (mine, (1, 2, 3)), (volume.open(), np.s_[0:0])]
    )
    same(got[0], volume.expected[3:9])
    same(got[1], other.expected)
    same(got[2], volume.expected[1, 2, 3])
    same(got[3], volume.expected[0:0])
    assert vf.read_all([]) == []
    assert engine.stats().reads == 1
    engine.close()


# ---------------------------------------------------------------------------------------------------------- outputs


def outputs(shape, dtype):
    """Arrays of this shape with every kind of strides; the memory around them must stay as it is."""
    yield np.empty(shape, dtype)
    yield np.empty(shape, dtype, "F")
    for order in ("C", "F"):
        wide = np.empty(tuple(2 * extent + 3 for extent in shape), dtype, order)
        yield wide[tuple(slice(1, 1 + 2 * extent, 2) for extent in shape)]
        yield wide[tuple(slice(extent, None if extent == 0 else 0, -1) for extent in shape)]
    turned = np.empty((*shape[1:], *shape[:1]), dtype)
    yield np.moveaxis(turned, -1, 0)
    # One field of a record: not even aligned.
    yield np.empty(shape, np.dtype([("a", "u1"), ("b", dtype), ("c", "u1")]))["b"]


def root_of(array):
    while array.base is not None:
        array = array.base
    return array


@pytest.mark.parametrize("name", ["sharded", "plain", "v2 dates", "v2 words", "one chunk"])
def test_out_with_all_strides(cases, name):
    case = cases(name)
    expression = tuple(slice(1, extent - 1) for extent in case.expected.shape)
    expected = case.expected[expression]
    for reverse in (False, True):
        array = case.open()
        if reverse:
            array, expected = array.with_axes(array.axes[::-1]), expected.transpose()
        for out in outputs(expected.shape, expected.dtype):
            assert out.shape == expected.shape
            memory = root_of(out)
            raw = memory.reshape(-1, order="A").view("u1")
            raw[:] = 0xA5
            before = raw.copy()
            assert array.read(expression[:: -1 if reverse else 1], out=out) is out
            np.testing.assert_array_equal(out, expected)
            # Nothing else was written: put the guard back into the selection, and all is as before.
            out.view(f"V{out.itemsize}")[...] = before[: out.itemsize].view(f"V{out.itemsize}")[0]
            np.testing.assert_array_equal(raw, before)


def test_out_drops_the_axes_of_ints(volume):
    out = np.empty((50,), "u2")
    assert volume.open().read((3, slice(None), 5), out=out) is out
    np.testing.assert_array_equal(out, volume.expected[3, :, 5])
    out = np.empty((), "u2")
    assert volume.open().read((3, 4, 5), out=out) is out
    assert out == volume.expected[3, 4, 5]


def test_out_as_bytes(volume, tmp_path):
    array, expected = volume.open(), volume.expected[2:30, 1:7]
    for out in (bytearray(expected.nbytes), np.zeros(expected.nbytes, "u1"), np.zeros(expected.nbytes, "S1")):
        assert array.read(np.s_[2:30, 1:7], out=out) is out
        assert bytes(out) == expected.tobytes()
    view = memoryview(bytearray(expected.nbytes))
    assert array.read(np.s_[2:30, 1:7], out=view) is view
    assert bytes(view) == expected.tobytes()
    with (tmp_path / "f").open("w+b") as file:
        file.truncate(expected.nbytes)
        with mmap.mmap(file.fileno(), expected.nbytes) as mapped:
            array.read(np.s_[2:30, 1:7], out=mapped)
            assert mapped[:] == expected.tobytes()


def test_out_through_dlpack(volume):
    class Tensor:
        """Exports memory by DLPack only, like a tensor."""

        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **keywords):
            return self.array.__dlpack__(**keywords)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    memory = np.zeros((10, 50, 41), "u2")
    tensor = Tensor(memory)
    try:
        assert volume.open().read(np.s_[5:15], out=tensor) is tensor
    except vf.SelectionError as error:  # old numpy imports DLPack memory read-only
        assert "read-only" in str(error)
    else:
        np.testing.assert_array_equal(memory, volume.expected[5:15])


def read_only():
    array = np.empty((4, 50, 41), "u2")
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "out",
    [
        np.empty((5, 50, 41), "u2"),
        np.empty((4, 50, 41), "i2"),
        np.empty((4, 50, 41), ">u2"),
        np.empty((4, 50 * 41), "u2"),
        np.empty((1, 4, 50, 41), "u2"),
        np.empty(4 * 50 * 41, "u2"),
        np.empty(4 * 50 * 41 * 2 - 1, "u1"),
        np.empty(4 * 50 * 41 * 4, "u1")[::2],
        read_only(),
        bytes(4 * 50 * 41 * 2),
        np.broadcast_to(np.empty((1, 50, 41), "u2"), (4, 50, 41)),
        np.lib.stride_tricks.as_strided(np.empty(10_000, "u2"), (4, 50, 41), (2, 82, 2)),
        np.lib.stride_tricks.sliding_window_view(np.empty((4, 90), "u2"), 41, axis=1, writeable=True),
        [0],
        "text",
        object(),
    ],
    ids=lambda out: f"{type(out).__name__}{getattr(out, 'shape', '')}{getattr(out, 'dtype', '')}",
)
def test_refused_outputs(volume, out):
    with pytest.raises(vf.SelectionError):
        volume.open().read(np.s_[:4], out=out)


def test_new_results_in_either_order(volume):
    array = volume.open()
    assert array.read(np.s_[3:9]).flags.c_contiguous
    assert array.read(np.s_[3:9], order="F").flags.f_contiguous
    same(array.read(np.s_[3:9, 4], order="F"), volume.expected[3:9, 4])
    assert array.read(np.s_[3:9]).flags.owndata
    with pytest.raises(ValueError, match="order"):
        array.read(order="K")


def test_nothing_selected_needs_no_file(volume, tmp_path):
    engine = vf.Engine()
    array = vf.open_array(volume.path, engine=engine)
    assert array[5:5].shape == (0, 50, 41)
    assert array.oindex[[], :, [1]].shape == (0, 50, 1)
    assert array.vindex[np.zeros(array.shape, bool)].shape == (0,)
    assert array.read_many(np.zeros((0, 3), int), 4).shape == (0, 4, 4, 4)
    assert array.read_box((1, 1, 1), (0, 2, 2)).shape == (0, 2, 2)
    assert array.read(np.s_[5:5], out=bytearray(0)) == b""
    assert engine.stats().reads == 0
    engine.close()


def test_asarray_refuses_more_than_memory(tmp_path):
    array = vf.create(tmp_path / "huge", shape=(1 << 20,) * 3, dtype="u2")
    with pytest.raises(vf.LimitExceededError) as caught:
        np.asarray(array)
    assert isinstance(caught.value, MemoryError)
    assert "blocks" in str(caught.value)
    with pytest.raises(vf.LimitExceededError):
        array[...]
    assert array[5:6, 7:9, 1 << 19].tolist() == [[0, 0]]
    assert np.asarray(array.with_axes(array.axes[::-1])[0, 0, :3], "f4").dtype == np.float32


def test_asarray_protocol(volume):
    array = volume.open()
    assert np.asarray(array, "f8").dtype == np.float64
    np.testing.assert_array_equal(np.array(array), volume.expected)
    with pytest.raises(ValueError, match="new array"):
        array.__array__(copy=False)
    assert (array == array.shape) is False


# ------------------------------------------------------------------------------------------------------------ blocks


@pytest.mark.parametrize("order", ["shard", "C"])
@pytest.mark.parametrize("prefetch", [None, 0, 1, 7])
@pytest.mark.parametrize("halo", [0, 2, (0, 3, 1)])
def test_blocks(volume, order, prefetch, halo):
    array = volume.open()
    halos = (halo,) * 3 if isinstance(halo, int) else halo
    around = np.pad(volume.expected, [(one, one) for one in halos], constant_values=7)
    blocks = array.blocks((10, 17, 41), halo=halo, order=order, prefetch=prefetch)
    assert len(blocks) == 4 * 3 * 1
    seen = np.zeros(array.shape, int)
    starts = []
    for box, block in blocks:
        starts.append(box.start)
        seen[box.slices] += 1
        expected = around[tuple(slice(a, a + n + 2 * h) for a, n, h in zip(box.start, box.shape, halos, strict=True))]
        same(block, expected)
    assert (seen == 1).all()
    if order == "C":
        assert starts == sorted(starts)
    else:
        shard_of = [tuple(a // n for a, n in zip(start, array.shards, strict=True)) for start in starts]
        runs = [shard for number, shard in enumerate(shard_of) if number == 0 or shard_of[number - 1] != shard]
        assert len(runs) == len(set(runs)), "a shard was left and come back to"
    assert len(list(blocks)) == len(blocks), "iterates again from the start"


def test_blocks_of_shapes(case):
    array = case.open()
    if array.ndim == 0:
        ((box, block),) = array.blocks(())
        same(block, case.expected)
        assert box.shape == ()
        return
    seen = 0
    for box, block in array.blocks(3):
        same(block, case.expected[box.slices])
        seen += block.size
    assert seen == array.size


def test_blocks_end_early(volume):
    engine = vf.Engine()
    array = vf.open_array(volume.path, engine=engine)
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    for _ in range(20):
        for _, block in array.blocks(8, prefetch=30):
            assert block.any()
            break
    engine.close()
    if descriptors is not None:
        assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_blocks_report_errors_in_place(tmp_path, write_array, make_values):
    written = write_array(tmp_path / "a", make_values((40, 8), "u2"), chunks=(4, 8))
    path = tmp_path / "a" / "c" / "5" / "0"
    path.write_bytes(path.read_bytes()[:-3])
    blocks = iter(written.open().blocks((4, 8), prefetch=4))
    assert [next(blocks)[0].start[0] for _ in range(5)] == [0, 4, 8, 12, 16]
    with pytest.raises(vf.DataError):
        next(blocks)
    assert list(blocks) == []


@pytest.mark.parametrize("keywords", [{"order": "X"}, {"prefetch": -1}, {"halo": -1}, {"halo": (1, 2)}])
def test_refused_blocks(volume, keywords):
    with pytest.raises((ValueError, vf.SelectionError)):
        volume.open().blocks(8, **keywords)
    for shape in (0, (1, 2), (1, 2, 0)):
        with pytest.raises(vf.SelectionError):
            volume.open().blocks(shape)


# ------------------------------------------------------------------------------------------------- reports and options


def test_explain_counts_and_reads_no_data(tmp_path, write_array, make_values):
    expected = make_values((32, 32), "u2")
    written = write_array(tmp_path / "a", expected, chunks=(8, 8), shards=(16, 16))
    (tmp_path / "a" / "c" / "1" / "1").unlink()
    with vf.Engine() as engine:
        array = vf.open_array(written.path, engine=engine)
        report = array.explain(np.s_[:, :], fetch_indexes=False)
        assert (report.shards, report.chunks, report.exact) == (4, 16, False)
        assert engine.stats().bytes_read == 0
        report = array.explain(np.s_[0:16, 0:16])
        assert (report.shards, report.shards_missing, report.chunks, report.chunks_missing) == (1, 0, 4, 0)
        assert report.exact
        assert 0 < report.bytes_needed <= report.bytes_fetched
        assert engine.stats().chunks_decoded == 0
        report = array.explain(np.s_[16:, 16:])
        assert (report.shards, report.shards_missing, report.chunks_missing) == (1, 1, 4)
        assert report.requests == report.bytes_fetched == 0
        text = str(report)
        assert "not stored" in text
        assert len(text.splitlines()) == 7
        # What was announced is what happens.
        array[0:16, 0:16]
        before = engine.stats()
        report = array.explain(np.s_[0:16, 0:16])
        assert report.bytes_from_cache > 0
        array[0:16, 0:16]
        after = engine.stats()
        assert after.requests - before.requests == report.requests
        assert after.bytes_read - before.bytes_read == report.bytes_fetched


def test_verify(tmp_path, write_array, make_values):
    written = write_array(tmp_path / "a", make_values((40, 8), "u2"), chunks=(4, 8))
    report = written.open().verify()
    assert report.ok
    assert (report.objects, report.chunks, report.problems) == (10, 10, ())
    for number in (2, 7):
        path = tmp_path / "a" / "c" / str(number) / "0"
        path.write_bytes(path.read_bytes()[:-3])
    (tmp_path / "a" / "c" / "9" / "0").unlink()
    report = written.open().verify()
    assert not report.ok
    assert report.problem_count == len(report.problems) == 2
    assert [problem.chunk for problem in report.problems] == [(2, 0), (7, 0)]
    assert report.objects_missing == 1
    assert "2" in str(report)
    assert report.problems[0].kind in str(report)


def test_missing_can_be_an_error(volume):
    array = volume.open()
    strict = array.with_options(vf.ReadOptions(on_missing="raise"))
    assert type(strict) is type(array)
    assert strict != array
    with pytest.raises(vf.NotFoundError) as caught:
        strict[...]
    assert isinstance(caught.value, FileNotFoundError)
    assert str(volume.path) in str(caught.value)
    with pytest.raises(TypeError):
        array.with_options({"on_missing": "raise"})


def test_a_damaged_chunk_is_named(tmp_path, make_values):
    written = vf.create(tmp_path / "a", shape=(16, 16), dtype="u2", chunks=(4, 4), shards=(16, 16))
    written[...] = make_values((16, 16), "u2")
    path = tmp_path / "a" / "c" / "0" / "0"
    content = bytearray(path.read_bytes())
    content[10] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(vf.ChecksumError) as caught:
        written[...]
    assert str(path) in str(caught.value)
    assert caught.value.chunk is not None
    assert caught.value.byte_range is not None


# --------------------------------------------------------------------------------------------- pickle, hash, tokens


def test_pickles_are_small_and_read_no_metadata(case, tmp_path):
    array = case.open()
    data = pickle.dumps(array)
    document = "zarr.json" if array.format == "zarr3" else ".zarray"
    assert len(data) < (case.path / document).stat().st_size + 1000
    hidden = tmp_path / "hidden"
    (case.path / document).rename(hidden)
    try:
        again = pickle.loads(data)
        assert again == array
        assert hash(again) == hash(array)
        assert again.attrs == array.attrs
        assert repr(again) == repr(array)
    finally:
        hidden.rename(case.path / document)
    same(again[...], case.expected[...])


def test_pickles_keep_view_and_options_but_no_engine(volume):
    with vf.Engine() as engine:
        options = vf.ReadOptions(on_missing="raise", max_gap_bytes=0)
        array = vf.open_array(volume.path, engine=engine, axes=("dim_2", "dim_0", "dim_1"), read_options=options)
        again = pickle.loads(pickle.dumps(array))
        assert again.axes == ("dim_2", "dim_0", "dim_1")
        assert again.engine is vf.default_engine()
        assert array.engine is engine
        assert again == array
        with pytest.raises(vf.NotFoundError):
            again[...]
        with pytest.raises(TypeError):
            pickle.dumps(engine)


def test_pickled_in_r_plus_mode_still_writes(tmp_path):
    array = vf.create(tmp_path / "a", shape=(4, 4), dtype="u1")
    again = pickle.loads(pickle.dumps(array))
    again[...] = 3
    assert (array[...] == 3).all()


def test_copies_are_the_array_itself(volume):
    """With its engine, which pickles leave behind."""
    with vf.Engine() as engine:
        array = volume.open(engine=engine)
        assert copy.copy(array).engine is copy.deepcopy([array])[0].engine is engine


def test_equality_and_tokens(volume, cases):
    one, two = volume.open(), volume.open()
    assert one == two
    assert len({one, two}) == 1
    assert one.__dask_tokenize__() == two.__dask_tokenize__()
    others = [cases("plain").open(), one.with_axes(one.axes[::-1]), one.with_options(vf.ReadOptions(max_gap_bytes=1))]
    assert len({one, *others}) == 4
    assert len({array.__dask_tokenize__() for array in (one, *others)}) == 4
    assert (one == 3) is False


def test_threads(volume):
    array = volume.open()
    failures = []

    def work(seed):
        generator = np.random.default_rng(seed)
        for _ in range(60):
            start = generator.integers(0, 30, 3)
            box = tuple(slice(a, a + 11) for a in start)
            try:
                np.testing.assert_array_equal(array[box], volume.expected[box])
            except BaseException as error:
                failures.append(error)
                raise

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# ------------------------------------------------------------------------------------------------- opening and writing


def test_sources(volume, tmp_path, monkeypatch):
    import zarr

    path = str(volume.path)
    monkeypatch.chdir(volume.path.parent)
    sources = [
        path,
        volume.path,
        path + "/",
        path + "//",
        volume.path.name,
        f"./{volume.path.name}",
        f"file://{path}",
        f"file://localhost{path}/",
        f"zarr3://{path}",
        f"zarr3://file://{path}",
        f"zarr://{path}",
        f"{path}|zarr3:",
        f"file://{path}/|zarr3:",
        f"{volume.path.parent}|zarr3:{volume.path.name}",
        zarr.open_array(path, mode="r"),
        zarr.storage.LocalStore(path),
    ]
    for source in sources:
        array = vf.open(source)
        assert isinstance(array, vf.Array)
        assert array == vf.open_array(source) == volume.open(), source
    inner = zarr.open_group(tmp_path / "g", mode="w").create_array("a/b", shape=(3,), dtype="u1", chunks=(3,))
    inner[...] = [1, 2, 3]
    for array in (vf.open(inner), vf.open_array(tmp_path / "g", "a/b"), vf.open_array(tmp_path / "g", "/a/b/")):
        assert array[...].tolist() == [1, 2, 3]
    space = tmp_path / "a b%20#ü"
    os.symlink(path, space)
    assert vf.open(space)[1, 2, 3] == volume.expected[1, 2, 3]
    assert vf.open(vf.open(space).url)[1, 2, 3] == volume.expected[1, 2, 3]


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        ("ftp://host/a.zarr", vf.UnsupportedError, "ftp"),
        ("dvid://host/a", vf.UnsupportedError, "dvid"),
        ("http://", vf.StoreError, "URL"),
        ("file://host/a.zarr", vf.UnsupportedError, "this machine"),
        ("a.zip|zip:|zarr3:", vf.NotFoundError, "no such file"),
        ("", vf.NotFoundError, "empty"),
        ("a\0b", vf.NotFoundError, "NUL"),
        ("no/such/folder", vf.NotFoundError, "no such folder"),
        (None, vf.UnsupportedError, "NoneType"),
        (b"bytes", vf.UnsupportedError, "bytes"),
        ("a\udcff", vf.UnsupportedError, "UTF-8"),
    ],
)
def test_refused_sources(source, error, says):
    with pytest.raises(error, match=says):
        vf.open(source)


def test_refused_folders(tmp_path, volume):
    with pytest.raises(vf.NotFoundError, match=r"zarr3 \(zarr\.json\), zarr2 \(\.zarray, \.zgroup"):
        vf.open(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(vf.UnsupportedError, match="this is a file"):
        vf.open(tmp_path / "file")
    for path in ("../x", "/../x", "a/../../x"):
        with pytest.raises(vf.MetadataError, match="relative path"):
            vf.open_array(tmp_path, path)
    with pytest.raises(vf.NotFoundError):
        vf.open(volume.path, format="zarr2")
    with pytest.raises(vf.UnsupportedError, match="tiff"):
        vf.open(volume.path, format="tiff")
    with pytest.raises(vf.UnsupportedError, match="not an HDF5 file"):
        vf.open(volume.path, format="hdf5")
    for keywords in ({"mode": "w"}, {"format_options": {"dimension_separator": ":"}}):
        with pytest.raises(ValueError, match="must be"):
            vf.open(volume.path, **keywords)
    for keywords in ({"read_options": {}}, {"engine": "fast"}):
        with pytest.raises(TypeError):
            vf.open(volume.path, **keywords)
    with pytest.raises(vf.UnsupportedError, match="compression"):
        vf.open(volume.path, format_options={"compression": "no"})
    with pytest.raises(vf.SelectionError):
        vf.open(volume.path, axes="zyx")
    with pytest.raises(vf.MetadataError, match="no OME-Zarr"):
        vf.open_image(volume.path)


def group_of(nodes):
    """The document of a group with consolidated metadata."""
    consolidated = {"kind": "inline", "must_understand": False, "metadata": nodes}
    return json.dumps({"zarr_format": 3, "node_type": "group", "consolidated_metadata": consolidated}).encode()


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (b"", vf.MetadataError),
        (b"[]", vf.MetadataError),
        (b"\xff\xfe", vf.MetadataError),
        (b'{"zarr_format": 2, "node_type": "array"}', vf.MetadataError),
        (b'{"zarr_format": 3, "node_type": "image"}', vf.MetadataError),
        (b'{"zarr_format": 3, "node_type": "array"}', vf.MetadataError),
        (b'{"zarr_format": 3, "node_type": "group", "attributes": 1}', vf.MetadataError),
        (b'{"zarr_format": 3, "node_type": "group", "consolidated_metadata": []}', vf.MetadataError),
        (group_of({"../x": {"zarr_format": 3, "node_type": "group"}}), vf.MetadataError),
        (b'{"a":' * 100 + b"1" + b"}" * 100, vf.LimitExceededError),
        (b"[" * 200_000, vf.LimitExceededError),
        (b'{"a": ' + b"1" * 5000 + b"}", vf.MetadataError),
        (b'{"x": "' + b"y" * (16 << 20) + b'"}', vf.LimitExceededError),
    ],
    ids=range(13),
)
def test_bad_documents(tmp_path, document, error):
    (tmp_path / "zarr.json").write_bytes(document)
    with pytest.raises(error) as caught:
        vf.open(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_folders_and_pipes_as_documents(tmp_path):
    (tmp_path / "zarr.json").mkdir()
    os.mkfifo(tmp_path / ".zarray")
    with pytest.raises(vf.NotFoundError):
        vf.open(tmp_path)


def test_permission(tmp_path, volume):
    link = tmp_path / "a"
    link.mkdir()
    (link / "zarr.json").write_bytes((volume.path / "zarr.json").read_bytes())
    (link / "zarr.json").chmod(0)
    if os.access(link / "zarr.json", os.R_OK):
        pytest.skip("root may read everything")
    with pytest.raises(vf.PermissionDeniedError, match=r"zarr\.json"):
        vf.open(link)
    link.chmod(0)
    try:
        with pytest.raises(vf.PermissionDeniedError):
            vf.open(link)
    finally:
        link.chmod(0o700)


def test_detection_prefers_v3_and_can_be_told(tmp_path, write_array):
    write_array(tmp_path / "two", np.full((2, 2), 2, "u1"), chunks=(2, 2), zarr_format=2)
    write_array(tmp_path / "both", np.full((2, 2), 3, "u1"), chunks=(2, 2), zarr_format=3)
    for name in (".zarray", "0.0"):
        (tmp_path / "both" / name).write_bytes((tmp_path / "two" / name).read_bytes())
    assert vf.open(tmp_path / "both")[0, 0] == 3
    assert vf.open(tmp_path / "both", format="zarr2")[0, 0] == 2
    assert vf.open(f"{tmp_path}/both|zarr2:")[0, 0] == 2


def test_dimension_separator(tmp_path, write_array, make_values):
    key = {"name": "v2", "separator": "/"}
    written = write_array(
        tmp_path / "a", make_values((4, 6), "u2"), chunks=(2, 3), zarr_format=2, chunk_key_encoding=key
    )
    document = json.loads((tmp_path / "a" / ".zarray").read_text())
    assert document.pop("dimension_separator") == "/"
    (tmp_path / "a" / ".zarray").write_text(json.dumps(document))
    assert not written.open()[...].any()
    array = written.open(format_options={"dimension_separator": "/"})
    same(array[...], written.expected)
    same(pickle.loads(pickle.dumps(array))[...], written.expected)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_consolidated_metadata_spares_the_documents_of_children(tmp_path, zarr_format):
    import warnings

    import zarr

    root = zarr.open_group(tmp_path, mode="w", zarr_format=zarr_format, attributes={"top": 1})
    inner = root.create_group("g", attributes={"in": 2})
    inner.create_array("a", shape=(3,), dtype="u1", chunks=(3,), attributes={"x": 3})[...] = [1, 2, 3]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(tmp_path)
    for name in (".zarray", ".zattrs", ".zgroup", "zarr.json"):
        for folder in ("g", "g/a"):
            (tmp_path / folder / name).unlink(missing_ok=True)
    group = vf.open(tmp_path)
    assert group.attrs == {"top": 1}
    assert list(group.keys()) == ["g"]
    assert group["g"].attrs == {"in": 2}
    assert list(group["g"].keys()) == ["a"]
    for array in (group["g"]["a"], group["g/a"]):
        assert array.attrs == {"x": 3}
        assert array[...].tolist() == [1, 2, 3]
    with pytest.raises(vf.NotFoundError):
        vf.open_array(tmp_path, "g/a")


def test_direct_documents_win_over_consolidated_ones(tmp_path):
    import warnings

    import zarr

    zarr.open_group(tmp_path, mode="w").create_array("a", shape=(3,), dtype="u1", chunks=(3,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(tmp_path)
    document = json.loads((tmp_path / "a" / "zarr.json").read_text())
    document["shape"] = [5]
    (tmp_path / "a" / "zarr.json").write_text(json.dumps(document))
    assert vf.open(tmp_path / "a").shape == (5,)
    assert vf.open_array(tmp_path, "a").shape == (5,)
    assert vf.open(tmp_path)["a"].shape == (3,)


def test_read_only(volume):
    with pytest.raises(vf.ReadOnlyError, match=r"r\+"):
        volume.open()[...] = 1


LAYOUTS_TO_CREATE = [
    {"shape": (70, 80, 90), "dtype": "u2"},
    {"shape": (70, 80, 90), "dtype": "u2", "shards": False},
    {"shape": (2, 40, 40, 40), "dtype": "f4", "axes": "cxyz", "fill_value": float("nan")},
    {"shape": (300, 500), "dtype": "i8", "axes": "yx", "attrs": {"a": [1, {"b": None}]}},
    {"shape": (100_000,), "dtype": "?", "fill_value": True},
    {"shape": (), "dtype": "c16", "fill_value": 1 + 2j},
    {"shape": (64, 64), "dtype": "u8", "chunks": (8, 8), "shards": (16, 32), "fill_value": (1 << 64) - 1},
    {"shape": (64, 64), "dtype": "f2", "shards": (24, 48), "fill_value": -np.inf},
    {"shape": (30, 30), "dtype": ">i4", "chunks": 10, "fill_value": -5},
]


@pytest.mark.parametrize("layout", LAYOUTS_TO_CREATE, ids=range(len(LAYOUTS_TO_CREATE)))
def test_created_arrays_are_read_by_others(tmp_path, make_values, layout):
    import tensorstore
    import zarr

    array = vf.create(tmp_path / "a", **layout)
    expected = make_values(layout["shape"], layout["dtype"]).astype(array.dtype)
    assert (array.shape, array.dtype) == (expected.shape, np.dtype(layout["dtype"]).newbyteorder("="))
    same(array[...], np.full(array.shape, layout.get("fill_value", 0), array.dtype)[...])
    array[...] = expected
    same(array[...], expected[...])
    assert array.verify().ok
    other = zarr.open_array(tmp_path / "a", mode="r")
    np.testing.assert_array_equal(other[...], expected)
    np.testing.assert_array_equal(other.fill_value, array.fill_value)
    assert dict(other.attrs) == dict(array.attrs) == layout.get("attrs", {})
    if "axes" in layout:
        assert array.axes == other.metadata.dimension_names == tuple(layout["axes"])
    spec = {"driver": "zarr3", "kvstore": f"file://{tmp_path}/a"}
    np.testing.assert_array_equal(tensorstore.open(spec).result().read().result(), expected)


def test_default_layout(tmp_path):
    def layout(**keywords):
        array = vf.create(tmp_path / "a", overwrite=True, **keywords)
        return array.chunks, array.shards

    assert layout(shape=(2000, 2000, 2000), dtype="u1") == ((32,) * 3, (512, 1024, 1024))
    assert layout(shape=(2000, 2000, 2000), dtype="u1", shards=False) == ((32,) * 3, None)
    assert layout(shape=(3, 2000, 2000, 2000), dtype="u1", axes="cxyz") == ((1, *(32,) * 3), (1, 512, 1024, 1024))
    assert layout(shape=(100, 100, 100), dtype="u1") == ((32,) * 3, (128,) * 3)
    assert layout(shape=(20, 20, 20), dtype="u1") == ((20,) * 3, None)
    assert layout(shape=(5000, 5000), dtype="u2") == ((256, 256), (5120, 5120))
    assert layout(shape=(0, 10), dtype="u2") == ((1, 10), None)
    assert layout(shape=(1000, 1000), dtype="u2", shards=(100, 300)) == ((100, 150), (100, 300))
    text = (tmp_path / "a" / "zarr.json").read_text()
    names = [codec["name"] for codec in json.loads(text)["codecs"][0]["configuration"]["codecs"]]
    assert names == ["bytes", "zstd", "crc32c"]


@pytest.mark.parametrize(
    ("keywords", "error"),
    [
        ({"dtype": "U3"}, vf.UnsupportedError),
        ({"dtype": "M8[s]"}, vf.UnsupportedError),
        ({"dtype": "nonsense"}, vf.UnsupportedError),
        ({"dtype": "u1", "fill_value": 256}, vf.MetadataError),
        ({"dtype": "u1", "fill_value": 0.5}, vf.MetadataError),
        ({"dtype": "u1", "fill_value": [1, 2]}, vf.MetadataError),
        ({"dtype": "u1", "fill_value": np.int64(-1)}, vf.MetadataError),
        ({"chunks": (3, 3), "shards": (4, 6)}, vf.MetadataError),
        ({"chunks": (0, 3)}, vf.SelectionError),
        ({"chunks": (3,)}, vf.SelectionError),
        ({"shape": (-1, 2)}, vf.SelectionError),
        ({"axes": "x"}, vf.MetadataError),
        ({"attrs": {"a": object()}}, vf.MetadataError),
        ({"attrs": {"a": float("nan")}}, vf.MetadataError),
        ({"format": "n5"}, vf.UnsupportedError),
        ({"codecs": [{"name": "magic"}]}, vf.UnsupportedError),
        ({"codecs": []}, vf.MetadataError),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_refused_creations_leave_nothing(tmp_path, keywords, error):
    with pytest.raises(error):
        vf.create(tmp_path / "a", **{"shape": (4, 6), "dtype": "u2", **keywords})
    assert not (tmp_path / "a").exists()


def test_overwrite_never_deletes_what_is_no_array(tmp_path):
    import zarr

    def create(**keywords):
        return vf.create(tmp_path / "a", shape=(8, 8), dtype="u1", chunks=(4, 4), shards=False, **keywords)

    create()[...] = 1
    (tmp_path / "a" / "notes.txt").write_text("mine")
    with pytest.raises(vf.ConflictError, match="overwrite=True"):
        create()
    array = create(overwrite=True)
    assert not array[...].any(), "chunks of the old array are gone"
    assert sorted(os.listdir(tmp_path / "a")) == ["notes.txt", "zarr.json"]

    zarr.open_group(tmp_path / "group", mode="w").create_array("x", shape=(2,), dtype="u1")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "c").write_text("mine")
    for name in ("group", "other"):
        before = sorted(os.listdir(tmp_path / name))
        for overwrite in (False, True):
            with pytest.raises(vf.ConflictError):
                vf.create(tmp_path / name, shape=(2,), dtype="u1", overwrite=overwrite)
        assert sorted(os.listdir(tmp_path / name)) == before


def test_overwrite_does_not_follow_links(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    vf.create(tmp_path / "a", shape=(2,), dtype="u1")
    (tmp_path / "a" / "c").symlink_to(tmp_path / "precious")
    vf.create(tmp_path / "a", shape=(2,), dtype="u1", overwrite=True)
    assert (tmp_path / "precious" / "file").read_text() == "mine"


def test_writes_of_whole_shards(tmp_path, make_values):
    array = vf.create(tmp_path / "a", shape=(20, 30), dtype="i4", chunks=(4, 5), shards=(8, 10), fill_value=-1)
    expected = np.full((20, 30), -1, "i4")
    block = make_values((8, 20), "i4")
    for selection, value in [
        (np.s_[8:16, 10:30], block),
        (np.s_[16:, 0:10], 7),  # clipped at the end of the array
        (np.s_[0:8, 0:10], np.arange(10, dtype="i4")),
        (np.s_[0:8, 10:20], [[5]]),
        (np.s_[-4:, 20:], block[:4, 1:20:2]),
        (np.s_[5:5], 1),
    ]:
        array[selection] = value
        expected[selection] = value
        np.testing.assert_array_equal(array[...], expected)
    array.with_axes(array.axes[::-1])[10:20, 0:8] = block[:, :10].T
    expected[0:8, 10:20] = block[:, :10]
    np.testing.assert_array_equal(array[...], expected)
    assert array.verify().ok
    assert not [name for _, _, files in os.walk(tmp_path) for name in files if name.endswith(".tmp")]
    for selection in (np.s_[0:7, 0:10], np.s_[0, 0], np.s_[0:8, 5:15], np.s_[::2], np.s_[16:19, 0:10]):
        with pytest.raises(vf.UnsupportedError):
            array[selection] = 1
    array[0:8, 0:10] = np.full((8, 10), 3, "u8")
    expected[0:8, 0:10] = 3
    for value in (
        np.ones(3, "i4"),
        1 << 40,
        1 << 80,
        "x",
        0.5,
        1j,
        np.ones((8, 10), "f4"),
        None,
        np.full((8, 10), -1 << 40),
    ):
        with pytest.raises(vf.SelectionError):
            array[0:8, 0:10] = value
    np.testing.assert_array_equal(array[...], expected)


@pytest.mark.parametrize(
    ("names", "axes"),
    [(["y", "x"], ("y", "x")), (["y"], ("dim_0", "dim_1")), ([1, 2], ("dim_0", "dim_1")), ("yx", ("dim_0", "dim_1"))],
)
def test_axes_of_zarr_2_are_named_as_xarray_does(tmp_path, write_array, make_values, names, axes):
    case = write_array(tmp_path / "a", make_values((3, 4), "uint8"), chunks=(2, 2), zarr_format=2)
    (case.path / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": names}))
    array = pickle.loads(pickle.dumps(case.open()))
    assert array.axes == axes
    np.testing.assert_array_equal(array.with_axes(axes[::-1])[...], case.expected.T)
