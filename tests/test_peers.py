"""Arrays of random layouts, exchanged with zarr-python and tensorstore: they write and voxfetch reads, and back.

A layout is the document of an array (`zarr.json` or `.zarray`), drawn at random and written as it is, so that each
library reads the same words. What the peer reads back of its own writing must be right before it counts against us.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import voxfetch as vf

# zarr-python warns of codecs around a shard (slow) and of `"filters": []` (not in the specification, but in the world).
pytestmark = [
    pytest.mark.timeout(300),  # to shrink a failure
    pytest.mark.filterwarnings("ignore:Combining a `sharding_indexed` codec:zarr.errors.ZarrUserWarning"),
    pytest.mark.filterwarnings("ignore:Found an empty list of filters:zarr.errors.ZarrUserWarning"),
]

# The same examples each time: a failure here is one for everybody.
PROFILE = settings(settings.get_profile("default"), derandomize=True, max_examples=100)

ARRAY_DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)
INNER_BLOSC = ("blosclz", "lz4", "lz4hc", "zlib", "zstd")
MAX_CHUNKS = (120, 120, 60, 30)  # in an array, by levels of shards: each costs zarr-python milliseconds


@dataclass(frozen=True)
class Layout:
    """An array's document, and what is in it."""

    document: dict[str, Any]
    expected: np.ndarray
    missing: float = 0.0  # share of the stored objects to delete

    @property
    def name(self) -> str:
        return "zarr.json" if self.document["zarr_format"] == 3 else ".zarray"

    @property
    def stored(self) -> tuple[int, ...]:
        """Extents of a stored object in voxels."""
        if self.document["zarr_format"] == 2:
            return tuple(self.document["chunks"])
        return tuple(self.document["chunk_grid"]["configuration"]["chunk_shape"])

    def key(self, grid: tuple[int, ...]) -> str:
        places = [str(place) for place in grid]
        if self.document["zarr_format"] == 2:
            return self.document.get("dimension_separator", ".").join(places) or "0"
        encoding = self.document["chunk_key_encoding"]
        separator = encoding["configuration"]["separator"]
        if encoding["name"] == "default":
            return separator.join(["c", *places])
        return separator.join(places) or "0"


# --------------------------------------------------------------------------------------------------------- documents


def fill_values(dtype: np.dtype) -> st.SearchStrategy[tuple[Any, Any]]:
    """(as in the document, as numpy value)."""
    if dtype.kind == "b":
        return st.booleans().map(lambda value: (value, value))
    if dtype.kind in "iu":
        information = np.iinfo(dtype)
        extremes = st.sampled_from([0, int(information.min), int(information.max)])
        return (extremes | st.integers(int(information.min), int(information.max))).map(lambda value: (value, value))
    named = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf}
    if dtype.kind == "f":
        numbers = st.floats(-1000, 1000, width=16).map(lambda value: (value, value))
        return st.sampled_from([*named.items(), (0.0, 0.0), (-0.0, -0.0)]) | numbers
    # zarr-python takes the zeros of a complex fill value for each other, whatever their signs.
    part = fill_values(np.dtype("f4")).filter(lambda value: str(value[1]) != "-0.0")
    return st.tuples(part, part).map(lambda parts: ([parts[0][0], parts[1][0]], complex(parts[0][1], parts[1][1])))


@st.composite
def grids(draw, levels: int, min_rank: int, *, cubes: bool = False):
    """(shape, extents of the stored object, of its chunks, of theirs, ...) in voxels, few enough chunks."""
    rank = draw(st.integers(min_rank, (4, 4, 3, 2)[levels]))
    most_entries = 2 if cubes and rank * levels > 3 else 3  # along each axis of a shard

    def numbers(most: int) -> tuple[int, ...]:
        one = st.integers(1, most)
        return (draw(one),) * rank if cubes else tuple(draw(one) for _ in range(rank))

    extents = [numbers((1, 300, 20, 8, 5)[rank])]
    for _ in range(levels):
        extents.insert(
            0, tuple(extent * count for extent, count in zip(extents[0], numbers(most_entries), strict=True))
        )
    shape = tuple(draw(st.integers(1, 3 * extent)) for extent in extents[0])
    # 27^4 chunks help nobody: the last axes are cut to one object, and its chunks to one.
    for axis in reversed(range(rank)):
        per_object = math.prod(large // small for large, small in zip(extents[0], extents[-1], strict=True))
        objects = math.prod(-(-n // extent) for n, extent in zip(shape, extents[0], strict=True))
        if objects * per_object > MAX_CHUNKS[levels]:
            shape = (*shape[:axis], min(shape[axis], extents[0][axis]), *shape[axis + 1 :])
            if not cubes:
                small = extents[-1][axis]
                extents = [(*extent[:axis], small, *extent[axis + 1 :]) for extent in extents]
                shape = (*shape[:axis], min(shape[axis], small), *shape[axis + 1 :])
    return (shape, *extents)


@st.composite
def contents(draw, shape, stored, dtype, fill):
    """Voxels with boxes of the fill value in them, which writers leave out."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    if dtype.kind == "b" or draw(st.booleans()):  # few values: compresses
        voxels = np.asarray(rng.integers(0, 3, shape)).astype(dtype)
    elif dtype.kind in "iu":
        voxels = rng.integers(0, 256, (*shape, dtype.itemsize), "u1").view(dtype).reshape(shape)
    else:
        parts = rng.normal(size=(2, *shape))
        voxels = (parts[0] + 1j * parts[1] if dtype.kind == "c" else parts[0]).astype(dtype)
    voxels = np.asarray(voxels)
    for _ in range(draw(st.integers(0, 3))):
        low = [rng.integers(0, extent) for extent in shape]
        high = [rng.integers(start, start + 2 * extent) + 1 for start, extent in zip(low, stored, strict=True)]
        voxels[tuple(map(slice, low, high))] = fill
    return voxels


def blosc_v3(names, itemsize: int):
    return st.fixed_dictionaries(
        {
            "cname": st.sampled_from(names),
            "clevel": st.integers(0, 9),
            "shuffle": st.sampled_from(["noshuffle", "shuffle", "bitshuffle"]),
            "typesize": st.sampled_from([itemsize, itemsize, 1, 3]),
            "blocksize": st.sampled_from([0, 0, 0, 64, 256]),
        }
    ).map(lambda configuration: {"name": "blosc", "configuration": configuration})


def compressors_v3(names, itemsize: int):
    """bytes -> bytes codecs of a chunk, in encoding order."""
    gzip = st.integers(0, 9).map(lambda level: {"name": "gzip", "configuration": {"level": level}})
    zstd = st.builds(
        lambda level, checksum: {"name": "zstd", "configuration": {"level": level, "checksum": checksum}},
        st.integers(-7, 12),
        st.booleans(),
    )
    crc32c = st.just({"name": "crc32c"})
    one = st.one_of(gzip, zstd, *([blosc_v3(names, itemsize)] * 2 if names else []), crc32c)
    return st.lists(one, max_size=3)


def transposes(rank: int):
    orders = st.permutations(range(rank)).map(lambda order: {"name": "transpose", "configuration": {"order": order}})
    return st.lists(orders, max_size=2 if rank > 1 else 1)


def serializers(dtype: np.dtype):
    if dtype.itemsize == 1:
        return st.just({"name": "bytes"})
    return st.sampled_from(["little", "big"]).map(lambda endian: {"name": "bytes", "configuration": {"endian": endian}})


@st.composite
def codec_lists(draw, dtype, extents, names, *, turn_shards, outside):
    """The codecs of an object of `extents[0]` voxels, sharded into chunks of `extents[1]` and so on.

    `turn_shards`: also transposes before a shard. `outside`: also compressors around one.
    """
    rank = len(extents[0])
    turns = draw(transposes(rank)) if rank and (turn_shards or len(extents) == 1) else []
    if len(extents) == 1:
        return [*turns, draw(serializers(dtype)), *draw(compressors_v3(names, dtype.itemsize))]
    # A shard is cut in stored order.
    order = list(range(rank))
    for turn in turns:
        order = [order[axis] for axis in turn["configuration"]["order"]]
    inner = [tuple(extent[axis] for axis in order) for extent in extents[1:]]
    index = [{"name": "bytes", "configuration": {"endian": draw(st.sampled_from(["little", "little", "big"]))}}]
    if draw(st.integers(0, 3)) == 0:  # legal, if of no use to anybody
        index.insert(0, {"name": "transpose", "configuration": {"order": draw(st.permutations(range(rank + 1)))}})
    if draw(st.booleans()):
        index.append({"name": "crc32c"})
    configuration = {
        "chunk_shape": list(inner[0]),
        "codecs": draw(codec_lists(dtype, inner, names, turn_shards=turn_shards, outside=outside)),
        "index_codecs": index,
        "index_location": draw(st.sampled_from(["start", "end"])),
    }
    shard = {"name": "sharding_indexed", "configuration": configuration}
    around = draw(compressors_v3((), 1)) if outside and draw(st.integers(0, 2)) == 0 else []
    return [*turns, shard, *around]


@st.composite
def layouts_v3(draw, *, names=INNER_BLOSC, min_levels=0, max_levels=1, turn_any_shard=False, outside=False):
    depth = draw(st.integers(min_levels, max_levels))
    cubes = draw(st.booleans()) and not turn_any_shard
    shape, *extents = draw(grids(depth, min_rank=1 if depth else 0, cubes=cubes))
    turn_shards = cubes or turn_any_shard
    dtype = np.dtype(draw(st.sampled_from(ARRAY_DTYPES)))
    written, fill = draw(fill_values(dtype))
    key = draw(st.sampled_from([(name, separator) for name in ("default", "v2") for separator in "/."]))
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": extents[0]}},
        "chunk_key_encoding": {"name": key[0], "configuration": {"separator": key[1]}},
        "fill_value": written,
        "codecs": draw(codec_lists(dtype, extents, names, turn_shards=turn_shards, outside=outside)),
        "attributes": {},
    }
    missing = draw(st.sampled_from([0.0, 0.0, 0.3]))
    return Layout(document, draw(contents(shape, extents[0], dtype, fill)), missing)


def compressors_v2(ids):
    level = st.integers(1, 9)
    known = {
        None: st.none(),
        "zlib": level.map(lambda level: {"id": "zlib", "level": level}),
        "gzip": level.map(lambda level: {"id": "gzip", "level": level}),
        "bz2": level.map(lambda level: {"id": "bz2", "level": level}),
        "zstd": st.integers(-3, 9).map(lambda level: {"id": "zstd", "level": level}),
        "lz4": st.just({"id": "lz4", "acceleration": 1}),
        "blosc": st.fixed_dictionaries(
            {
                "id": st.just("blosc"),
                "cname": st.sampled_from(INNER_BLOSC),
                "clevel": st.integers(0, 9),
                "shuffle": st.sampled_from([-1, 0, 1, 2]),
                "blocksize": st.sampled_from([0, 0, 128]),
            }
        ),
    }
    return st.sampled_from([*ids, "blosc"]).flatmap(known.__getitem__)


@st.composite
def layouts_v2(draw, *, ids, filters=(None,)):
    shape, chunks = draw(grids(0, min_rank=0))
    dtype = np.dtype(draw(st.sampled_from(ARRAY_DTYPES)))
    written, fill = draw(fill_values(dtype))
    stored = dtype if dtype.itemsize == 1 else dtype.newbyteorder(draw(st.sampled_from("<>")))
    document = {
        "zarr_format": 2,
        "shape": shape,
        "chunks": chunks,
        "dtype": stored.str,
        "fill_value": written,
        "order": draw(st.sampled_from("CF")),
        "compressor": draw(compressors_v2(ids)),
        "filters": draw(st.sampled_from(filters)),
    }
    separator = draw(st.sampled_from([None, ".", "/"]))
    if separator is not None:
        document["dimension_separator"] = separator
    missing = draw(st.sampled_from([0.0, 0.0, 0.3]))
    return Layout(document, draw(contents(shape, chunks, dtype, fill)), missing)


# ------------------------------------------------------------------------------------------------------------- peers


class ZarrPython:
    """One open array of zarr-python."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self.array = zarr.open_array(str(path), mode="r+", zarr_format=layout.document["zarr_format"])

    def write(self, voxels: np.ndarray) -> None:
        self.array[...] = voxels

    def read(self) -> np.ndarray:
        voxels = np.asarray(self.array[...])
        return voxels.astype(voxels.dtype.newbyteorder("="))


class Tensorstore:
    """One open array of tensorstore."""

    def __init__(self, path: Path, layout: Layout) -> None:
        driver = "zarr3" if layout.document["zarr_format"] == 3 else "zarr"
        self.array = tensorstore.open({"driver": driver, "kvstore": f"file://{path}/"}, open=True).result()

    def write(self, voxels: np.ndarray) -> None:
        self.array.write(voxels).result()

    def read(self) -> np.ndarray:
        voxels = np.asarray(self.array.read().result())
        return voxels.astype(voxels.dtype.newbyteorder("="))


def lay_out(folder: Path, layout: Layout) -> Path:
    path = folder / "a"
    path.mkdir()
    (path / layout.name).write_text(json.dumps(layout.document))
    return path


def delete_some(path: Path, layout: Layout) -> np.ndarray:
    """Deletes a share of the stored objects and returns what the array is then."""
    expected = layout.expected.copy()
    rng = np.random.default_rng(0)
    fill = vf.open_array(path).fill_value
    counts = [-(-n // extent) for n, extent in zip(expected.shape, layout.stored, strict=True)]
    for grid in np.ndindex(*counts):
        if rng.random() < layout.missing:
            (path / layout.key(grid)).unlink(missing_ok=True)
            box = tuple(slice(g * extent, (g + 1) * extent) for g, extent in zip(grid, layout.stored, strict=True))
            expected[box] = fill
    return expected


def same(got: Any, expected: Any) -> None:
    """Equal bit by bit, save for the many NaNs."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(got, expected)
    if expected.dtype.kind in "fc":
        parts = (got.real, expected.real), (got.imag, expected.imag)
        for one, other in parts:
            np.testing.assert_array_equal(np.signbit(one[one == 0]), np.signbit(other[other == 0]))


def read_by_us(path: Path, expected: np.ndarray, seed: int) -> None:
    """The whole array, and boxes of it in the various ways."""
    array = vf.open_array(path)
    same(array[...], expected)
    rng = np.random.default_rng(seed)
    for number in range(4):
        low = [int(rng.integers(0, extent)) for extent in expected.shape]
        counts = [int(rng.integers(1, extent - start + 1)) for start, extent in zip(low, expected.shape, strict=True)]
        box = tuple(slice(start, start + count) for start, count in zip(low, counts, strict=True))
        if number % 2:
            same(array.read_box(low, counts), expected[box])
        else:
            same(array[box], expected[box])
    assert array.verify().ok


def exchanged(folder: Path, layout: Layout, peer: type) -> None:
    """`peer` writes and we read; then we write other voxels over them and it reads."""
    path = lay_out(folder, layout)
    theirs = peer(path, layout)
    theirs.write(layout.expected)
    same(theirs.read(), layout.expected)
    expected = delete_some(path, layout)
    read_by_us(path, expected, seed=layout.expected.size)

    ours = vf.open_array(path, mode="r+")
    voxels = layout.expected[(slice(None, None, -1),) * layout.expected.ndim]
    if "blosc" in json.dumps(layout.document):
        with pytest.raises(vf.UnsupportedError, match="blosc"):
            ours[...] = voxels
        same(ours[...], expected)
        return
    ours[...] = voxels
    same(ours[...], voxels)
    assert ours.verify().ok
    same(peer(path, layout).read(), voxels)


# ------------------------------------------------------------------------------------------------------------- tests


# zarr-python 3.1.6 checks the chunks of a shard against its shape before transposes, so there only cubes are turned.


@PROFILE
@given(layout=layouts_v3())
def test_zarr_python_v3(tmp_path_factory, layout):
    exchanged(tmp_path_factory.mktemp("a"), layout, ZarrPython)


@PROFILE
@given(layout=layouts_v3(min_levels=1, max_levels=3, outside=True))
def test_zarr_python_nested_shards_and_codecs_around_them(tmp_path_factory, layout):
    exchanged(tmp_path_factory.mktemp("a"), layout, ZarrPython)


@PROFILE
@given(layout=layouts_v2(ids=(None, "zlib", "gzip", "bz2", "zstd", "lz4"), filters=(None, [])))
def test_zarr_python_v2(tmp_path_factory, layout):
    exchanged(tmp_path_factory.mktemp("a"), layout, ZarrPython)


@PROFILE
@given(layout=layouts_v3(names=(*INNER_BLOSC, "snappy"), turn_any_shard=True))
def test_tensorstore_v3(tmp_path_factory, layout):
    exchanged(tmp_path_factory.mktemp("a"), layout, Tensorstore)


@PROFILE
@given(layout=layouts_v3(min_levels=2, max_levels=3, turn_any_shard=True))
def test_tensorstore_nested_shards(tmp_path_factory, layout):
    exchanged(tmp_path_factory.mktemp("a"), layout, Tensorstore)


@PROFILE
@given(layout=layouts_v2(ids=(None, "zlib", "gzip", "bz2", "zstd")))
def test_tensorstore_v2(tmp_path_factory, layout):
    exchanged(tmp_path_factory.mktemp("a"), layout, Tensorstore)


@pytest.mark.parametrize("shuffle", ["noshuffle", "shuffle", "bitshuffle"])
@pytest.mark.parametrize("cname", [*INNER_BLOSC, "snappy"])
def test_blosc_of_several_blocks(tmp_path, cname, shuffle):
    """Every inner codec with every shuffle, on chunks that are cut into blocks, the last one shorter."""
    dtype, level = np.dtype("u4"), 5
    expected = np.random.default_rng(0).integers(0, 50, (90_001,)).cumsum().astype(dtype)
    for number, blocksize in enumerate((0, 4096, 4100)):
        blosc = {"cname": cname, "clevel": level, "shuffle": shuffle, "typesize": 4, "blocksize": blocksize}
        layout = Layout(
            {
                "zarr_format": 3,
                "node_type": "array",
                "shape": expected.shape,
                "data_type": dtype.name,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [60_000]}},
                "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
                "fill_value": 0,
                "codecs": [
                    {"name": "bytes", "configuration": {"endian": "little"}},
                    {"name": "blosc", "configuration": blosc},
                ],
            },
            expected,
        )
        folder = tmp_path / str(number)
        folder.mkdir()
        # numcodecs is built without snappy.
        exchanged(folder, layout, Tensorstore if cname == "snappy" or number % 2 else ZarrPython)
