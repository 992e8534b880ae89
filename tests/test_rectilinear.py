"""Chunk grids whose cells differ in extent: arrays by zarr-python 3.4 and by hand, voxel by voxel."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

import voxfetch as vf
from tests.servers.faulty import FaultyServer

DATA = Path(__file__).parent / "data" / "zarr" / "zarr-python-3.4.2"
NAMES = ["plane", "plane_raw", "volume", "shrunk", "shards"]
CHUNKS = {"plane": (8, 8), "plane_raw": (15, 13), "volume": (4, 3, 4), "shrunk": (7,), "shards": (2, 1)}


@pytest.fixture(params=[0, 64 << 20], ids=["no cache", "cache"])
def engine(request):
    with vf.Engine(decode_threads=2, chunk_cache_bytes=request.param) as engine:
        yield engine


@pytest.fixture(params=["local", "HTTP"])
def opened(request, engine):
    """`opened(name)` -> the array and its voxels as zarr-python reads them."""
    if request.param == "local":
        yield lambda name: (vf.open_array(DATA / f"{name}.zarr", engine=engine), np.load(DATA / f"{name}.npy"))
    else:
        with FaultyServer(DATA) as server:
            yield lambda name: (
                vf.open_array(f"{server.url}/{name}.zarr", engine=engine),
                np.load(DATA / f"{name}.npy"),
            )


def same(got, expected):
    np.testing.assert_array_equal(got, expected, strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_whole_arrays(opened, name):
    array, expected = opened(name)
    assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
    assert (array.chunks, array.shards) == (CHUNKS[name], (10, 8) if name == "shards" else None)
    for _ in range(2):
        same(array[...], expected)
    same(array.read(order="F"), expected)
    same(array.with_axes(array.axes[::-1])[...], expected.T)
    same(pickle.loads(pickle.dumps(array))[...], expected)
    assert array.verify().problem_count == 0


@pytest.mark.parametrize("name", NAMES)
def test_every_box_and_step(opened, name):
    array, expected = opened(name)
    generator = np.random.default_rng(1)
    for _ in range(60):
        ends = [sorted(generator.integers(0, extent + 1, 2).tolist()) for extent in expected.shape]
        box = tuple(slice(low, high, int(generator.integers(1, 9))) for low, high in ends)
        same(array[box], expected[box])


@pytest.mark.parametrize("name", NAMES)
def test_points_indices_and_borders(opened, name):
    array, expected = opened(name)
    generator = np.random.default_rng(2)
    points = np.stack([generator.integers(0, extent, 50) for extent in expected.shape], axis=1)
    same(array.read_points(points), expected[tuple(points.T)])
    rows = generator.integers(0, expected.shape[0], 12)
    same(array.oindex[rows], expected[rows])
    starts = np.stack([generator.integers(-3, extent, 20) for extent in expected.shape], axis=1)
    boxes = array.read_many(starts, 4, bounds="fill")
    padded = np.pad(expected, 4, constant_values=array.fill_value)
    for start, box in zip(starts + 4, boxes, strict=True):
        same(box, padded[tuple(slice(low, low + 4) for low in start)])
    out = np.zeros([2 * extent for extent in expected.shape], expected.dtype)[(slice(None, None, 2),) * expected.ndim]
    same(array.read(out=out), expected)


@pytest.mark.parametrize("name", NAMES)
def test_blocks(opened, name):
    array, expected = opened(name)
    got = np.zeros_like(expected)
    for box, block in array.blocks((5,) * expected.ndim):
        got[tuple(slice(low, low + extent) for low, extent in zip(box.start, block.shape, strict=True))] = block
    same(got, expected)


def test_explain(engine):
    array = vf.open_array(DATA / "plane.zarr", engine=engine)
    report = array.explain()
    assert (report.shards, report.shards_missing, report.chunks) == (8, 2, 8)
    # Rows 3..11 lie in chunks 1 and 2 of rows, columns 5.. in the second chunk of columns.
    report = array.explain((slice(3, 12), slice(5, 13)))
    assert (report.chunks, report.chunks_missing, report.requests) == (2, 0, 2)
    report = array.explain((slice(2, 3), slice(0, 5)))
    assert (report.chunks, report.requests) == (1, 1)


def test_explain_shards(engine):
    array = vf.open_array(DATA / "shards.zarr", engine=engine)
    report = array.explain()
    assert (report.shards, report.chunks, report.chunks_missing) == (6, 10 * 13, 0)
    # The index of the second shard, 3 x 5 chunks, and of the third, 5 x 5.
    report = array.explain((slice(8, 12), slice(0, 2)))
    assert (report.shards, report.chunks, report.bytes_from_cache) == (2, 4, (15 + 25) * 16 + 2 * 4)


def test_a_broken_chunk_is_named_by_its_place(tmp_path):
    shutil.copytree(DATA / "shards.zarr", tmp_path / "a")
    shard = tmp_path / "a" / "c" / "2" / "1"
    stored = bytearray(shard.read_bytes())
    stored[:4] = b"none"
    shard.write_bytes(stored)
    array = vf.open_array(tmp_path / "a")
    problems = array.verify().problems
    # Rows of chunks 5 to 9, columns 5 to 12 are those of this shard; its first stored chunk may be any of them.
    assert len(problems) == 1
    row, column = problems[0].chunk
    assert (5 <= row < 10, 5 <= column < 13) == (True, True)
    with pytest.raises(vf.CodecError) as caught:
        array[...]
    assert caught.value.chunk == (row, column)
    with pytest.raises(vf.CodecError):
        array[2 * row, column]


def test_only_what_is_needed_is_asked_for():
    with FaultyServer(DATA / "plane.zarr") as server, vf.Engine() as engine:
        array = vf.open_array(server.url, engine=engine)
        same(array[10:12, 3:6], np.load(DATA / "plane.npy")[10:12, 3:6])
        keys = sorted(request.key for request in server.requests if not request.key.endswith(".json"))
        assert keys == ["c/2/0", "c/2/1"]


def by_hand(path, grid, edges, expected, **members):
    """Writes each cell as raw bytes; voxels past the array are 99."""
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(expected.shape),
        "data_type": expected.dtype.name,
        "chunk_grid": grid,
        "chunk_key_encoding": "default",
        "fill_value": 0,
        "codecs": ["bytes"],
    }
    path.mkdir()
    (path / "zarr.json").write_text(json.dumps(document | members))
    starts = [np.cumsum([0, *axis]) for axis in edges]
    padded = np.pad(
        expected,
        [(0, int(ends[-1]) - extent) for ends, extent in zip(starts, expected.shape, strict=True)],
        constant_values=99,
    )
    for cell in np.ndindex(*map(len, edges)):
        box = tuple(slice(int(ends[i]), int(ends[i + 1])) for ends, i in zip(starts, cell, strict=True))
        key = path.joinpath("c", *map(str, cell))
        key.parent.mkdir(parents=True, exist_ok=True)
        key.write_bytes(padded[box].tobytes())
    return path


GRIDS = [
    ({"name": "rectangular", "configuration": {"chunk_shape": [[4, 1, 6], 3]}}, ([4, 1, 6], [3, 3, 3])),
    ({"name": "zarrs.regular_bounded", "configuration": {"chunk_shape": [4, 3]}}, ([4, 4, 2], [3, 3, 1])),
    (
        {"name": "rectilinear", "configuration": {"kind": "inline", "chunk_shapes": [[[2, 4], 3], [7]]}},
        ([2, 2, 2, 2, 3], [7]),
    ),
]


@pytest.mark.parametrize(("grid", "edges"), GRIDS, ids=[grid["name"] for grid, _ in GRIDS])
def test_grids_by_hand(tmp_path, make_values, grid, edges):
    expected = make_values((10, 7), "int32")
    array = vf.open_array(by_hand(tmp_path / "a", grid, edges, expected))
    same(array[...], expected)
    same(array[3:9:2, 2:], expected[3:9:2, 2:])


def test_a_chunk_must_have_the_size_of_its_cell(tmp_path, make_values):
    grid, edges = GRIDS[0]
    path = by_hand(tmp_path / "a", grid, edges, make_values((10, 7), "int32"))
    shutil.copy(path / "c" / "0" / "0", path / "c" / "1" / "0")
    array = vf.open_array(path)
    with pytest.raises(vf.CodecError) as caught:
        array[4]
    assert caught.value.chunk == (1, 0)
    assert array.verify().problem_count == 1


def test_an_object_of_another_cell_is_noticed_also_when_kept(tmp_path):
    """Hard links: one file is the chunk of two cells, for one of which it is too long."""
    edges = ([1, 2], [4, 1])
    grid = {"name": "rectilinear", "configuration": {"kind": "inline", "chunk_shapes": [[1, 2], [4, 1]]}}
    path = by_hand(tmp_path / "a", grid, edges, np.arange(15, dtype="uint8").reshape(3, 5))
    (path / "c" / "1" / "1").unlink()
    (path / "c" / "1" / "1").hardlink_to(path / "c" / "0" / "0")
    with vf.Engine(chunk_cache_bytes=1 << 20) as engine:
        array = vf.open_array(path, engine=engine)
        for _ in range(2):
            assert array[0, :4].tolist() == [0, 1, 2, 3]
            with pytest.raises(vf.CodecError):
                array[1:, 4]


def test_what_is_not_done(tmp_path, make_values):
    grid, edges = GRIDS[0]
    by_hand(tmp_path / "chunks", grid, edges, make_values((10, 7), "int32"))
    shutil.copytree(DATA / "shards.zarr", tmp_path / "shards")
    for name in ("chunks", "shards"):
        array = vf.open_array(tmp_path / name, mode="r+")
        with pytest.raises(vf.UnsupportedError, match="chunks of different extents"):
            array[...] = 1
