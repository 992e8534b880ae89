"""Lies that only formats beside Zarr can tell, from disk and over HTTP: errors that say where, never other voxels."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest

import voxfetch as vf
from tests import mutants
from tests.n5_files import encoded_block, put_block
from tests.n5_files import put_document as put_n5
from tests.precomputed import picture, sharding, write_scale
from tests.servers.faulty import FaultyServer
from tests.wkw_data import layer, write_mag, write_properties

MIB = 1 << 20
PLACES = pytest.mark.parametrize("place", ["disk", "http"])
ONCE = vf.RetryPolicy(max_attempts=1)


@contextmanager
def source_at(place, path):
    """What opens a file or folder from where it is."""
    if place == "disk":
        yield path
        return
    folder = path if path.is_dir() else path.parent
    with FaultyServer(folder) as server:
        yield server.url if path.is_dir() else f"{server.url}/{path.name}"


@contextmanager
def opened(place, path, inside=None):
    with source_at(place, path) as source, vf.Engine(retry=ONCE) as engine:
        found = vf.open(source, engine=engine) if inside is None else vf.open_array(source, inside, engine=engine)
        yield found.level(0) if isinstance(found, vf.Image) else found


# --------------------------------------------------------------------------------------------------------------- WKW


@PLACES
@pytest.mark.parametrize("block", [1, 20, 63])
def test_a_jump_table_of_wkw_that_goes_backwards(tmp_path, make_values, place, block):
    values = make_values((1, 32, 32, 32), "uint8")
    write_mag(tmp_path / "color" / "1", values, block_type="lz4")
    write_properties(tmp_path, [layer("color", (0, 0, 0), (32, 32, 32), ["1"])])
    (path,) = tmp_path.rglob("x0.wkw")
    content = bytearray(path.read_bytes())
    end = struct.unpack_from("<Q", content, 16 + 8 * (block - 1))[0]
    struct.pack_into("<Q", content, 16 + 8 * block, end - 1)
    path.write_bytes(content)
    with opened(place, tmp_path, "color/1") as array:
        # Blocks lie in Morton order, eight along each axis of this file of 4^3.
        x, y, z = (sum((block >> (3 * bit + axis) & 1) << bit for bit in range(2)) for axis in range(3))
        own = np.s_[:, 8 * x : 8 * x + 8, 8 * y : 8 * y + 8, 8 * z : 8 * z + 8]
        with pytest.raises(vf.ShardIndexError) as caught:
            array[own]
        assert caught.value.chunk == (0, x, y, z)
        np.testing.assert_array_equal(array[:, :8, :8, :8], values[:, :8, :8, :8])


# ------------------------------------------------------------------------------------------------------- precomputed


def sharded(folder, values, change):
    """One shard with one minishard, whose index `change` may change: words of u64, from the start of the shard on."""
    write_scale(folder, values, chunk_size=(8, 8, 8), sharding=sharding(minishard=0, shard=0))
    (path,) = folder.rglob("0.shard")
    words = np.frombuffer(path.read_bytes(), "<u8").copy()
    change(words, 2 + words[0].astype(int) // 8, (words[1] - words[0]).astype(int) // 24)
    path.write_bytes(words.tobytes())


LIES_OF_SHARDS = {
    "a minishard index past the end": lambda words, at, n: words.__setitem__(1, words[1] + np.uint64(24)),
    "a minishard index far away": lambda words, at, n: words.__setitem__(slice(2), words[:2] + np.uint64(1 << 60)),
    "a minishard index that ends before it starts": lambda words, at, n: words.__setitem__(1, words[0] - np.uint64(8)),
    "a chunk past the end": lambda words, at, n: words.__setitem__(at + 2 * n, 1 << 20),
    "a chunk far away": lambda words, at, n: words.__setitem__(at + n, 1 << 63),
    "a chunk that is the index": lambda words, at, n: words.__setitem__(at + n, 2**64 - 8),
}


@PLACES
@pytest.mark.parametrize("lie", LIES_OF_SHARDS)
@pytest.mark.parametrize("extent", [16, 96])
def test_indexes_of_precomputed_shards(tmp_path, make_values, place, lie, extent):
    """Of a small shard, which is read whole over a network, and of one that is not."""
    sharded(tmp_path, make_values((extent, extent, extent, 1), "uint8"), LIES_OF_SHARDS[lie])
    with opened(place, tmp_path) as array, pytest.raises(vf.ShardIndexError) as caught:
        array[:8, :8, :8]
    assert str(caught.value.key).endswith("0.shard")
    assert caught.value.chunk == (0, 0, 0, 0)


LIES_OF_INFOS = {
    "chunks of no extent": ({"chunk_sizes": [[8, 0, 8]]}, "chunk_sizes"),
    "chunks of less": ({"chunk_sizes": [[8, -8, 8]]}, "chunk_sizes"),
    "no chunks": ({"chunk_sizes": []}, "chunk_sizes"),
    "a size below zero": ({"size": [16, -16, 16]}, "size"),
    "a size beyond numbers": ({"size": [16, 1 << 70, 16]}, "size"),
    "no resolution": ({"resolution": [0, 8, 8]}, "resolution"),
    "a resolution below zero": ({"resolution": [-8, 8, 8]}, "resolution"),
}


@PLACES
@pytest.mark.parametrize("lie", LIES_OF_INFOS)
def test_numbers_of_an_info(tmp_path, make_values, place, lie):
    change, part = LIES_OF_INFOS[lie]
    write_scale(tmp_path, make_values((16, 16, 16, 1), "uint8"), chunk_size=(8, 8, 8))
    info = json.loads((tmp_path / "info").read_text())
    info["scales"][0].update(change)
    (tmp_path / "info").write_text(json.dumps(info))
    with pytest.raises(vf.MetadataError, match=part), opened(place, tmp_path):
        pass


@PLACES
def test_a_volume_without_extent_has_no_voxels(tmp_path, make_values, place):
    write_scale(tmp_path, make_values((16, 16, 16, 1), "uint8"), chunk_size=(8, 8, 8))
    info = json.loads((tmp_path / "info").read_text())
    info["scales"][0]["size"] = [0, 16, 0]
    (tmp_path / "info").write_text(json.dumps(info))
    with opened(place, tmp_path) as array:
        assert array[...].shape == (0, 16, 0, 1)


@PLACES
def test_a_jpeg_that_claims_to_be_huge(tmp_path, place):
    """60,000 x 60,000 pixels, 3.6 GB, in a chunk of a volume of 16^3."""
    voxels = picture((16, 16, 16, 1))
    expected = write_scale(tmp_path, voxels, chunk_size=(8, 16, 16), encoding="jpeg")
    first = min(path for path in tmp_path.rglob("*-*_*-*") if path.is_file())
    content = bytearray(first.read_bytes())
    at = content.index(b"\xff\xc0") + 5
    struct.pack_into(">2H", content, at, 60_000, 60_000)
    first.write_bytes(content)
    with source_at(place, tmp_path) as source:
        code = "a = vf.open(path).level(0)\na[8:]\ngrown(lambda: a[...])"
        ended = mutants.in_child(code, source)
        assert (ended.kind, ended.seconds < 5, ended.grown_nbytes < 24 * MIB) == ("CodecError", True, True), ended
        assert first.name in ended.text
        # Decoders round differently.
        np.testing.assert_allclose(vf.open(source).level(0)[8:], expected[8:].astype(int), atol=2)


# ---------------------------------------------------------------------------------------------------------------- N5

VALUES = np.arange(1, 17, dtype="uint16").reshape(4, 4)


def block(extent, elements, *, mode=0, count=None):
    """A block whose header says this `extent`."""
    counted = b"" if count is None else struct.pack(">I", count)
    return struct.pack(f">HH{len(extent)}I", mode, len(extent), *extent) + counted + elements


ELEMENTS = VALUES.astype(">u2").tobytes(order="F")
LIES_OF_BLOCKS = {
    "larger": block((5, 4), ELEMENTS),
    "smaller": block((4, 3), ELEMENTS),
    "much larger": block((1 << 20, 4), ELEMENTS),
    "endless": block((2**32 - 1, 2**32 - 1), ELEMENTS),
    "nothing": block((0, 4), ELEMENTS),
    "one axis": block((16,), ELEMENTS),
    "three axes": block((4, 4, 1), ELEMENTS),
    "no axis": block((), ELEMENTS),
    "65,535 axes": struct.pack(">HH", 0, 65_535) + ELEMENTS,
    "a count of more": block((4, 4), ELEMENTS, mode=1, count=17),
    "a count of less": block((4, 4), ELEMENTS, mode=1, count=15),
    "an endless count": block((4, 4), ELEMENTS, mode=1, count=2**32 - 1),
}


@PLACES
@pytest.mark.parametrize("lie", LIES_OF_BLOCKS)
def test_headers_of_n5_blocks(tmp_path, place, lie):
    path = put_n5(tmp_path / "a.n5", np.zeros((8, 8), "uint16"), (4, 4))
    put_block(path, (0, 0), encoded_block(VALUES))
    put_block(path, (1, 0), LIES_OF_BLOCKS[lie])
    with opened(place, path) as array:
        np.testing.assert_array_equal(array[:4, :4], VALUES)
        with pytest.raises((vf.DataError, vf.LimitExceededError, vf.UnsupportedError)) as caught:
            array[...]
    assert caught.value.chunk == (1, 0)
    assert str(caught.value.key).endswith("1/0")


@PLACES
@pytest.mark.parametrize("extent", [(2, 3), (4, 6), (6, 4), (1, 9)])
def test_an_n5_block_of_another_extent_is_what_its_header_says(tmp_path, place, extent):
    """That is no lie: what is missing of it is zero, what is too much belongs to nobody."""
    path = put_n5(tmp_path / "a.n5", np.zeros((8, 8), "uint16"), (4, 4))
    stored = np.arange(1, 1 + np.prod(extent), dtype="uint16").reshape(extent)
    put_block(path, (1, 0), encoded_block(stored))
    expected = np.zeros((8, 8), "uint16")
    part = stored[:4, :4]
    expected[4 : 4 + part.shape[0], : part.shape[1]] = part
    with opened(place, path) as array:
        np.testing.assert_array_equal(array[...], expected)


# --------------------------------------------------------------------------------------------------------------- ZIP


def packed(folder, change):
    """An archive of an array; `change(bytes, number of an entry, place of it)` changes its directory."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())
        names = archive.namelist()
    data = bytearray(file.getvalue())
    at = data.index(b"PK\1\2")
    for name in names:
        if name.startswith("c/"):
            change(data, at)
        at += 46 + len(name)
    return bytes(data)


def pack_into(layout, offset, value):
    return lambda data, at: struct.pack_into(layout, data, at + offset, value)


LIES_OF_DIRECTORIES = {
    "another checksum": pack_into("<I", 16, 12345),
    "a size of more": lambda data, at: struct.pack_into("<2I", data, at + 20, 4000, 4000),
    "two sizes": pack_into("<I", 24, 7),
    "beyond the archive": pack_into("<I", 42, 1 << 30),
    "another member's place": pack_into("<I", 42, 0),
    "in the middle of one": pack_into("<I", 42, 7),
    "deflated": pack_into("<H", 10, 8),
    "encrypted": pack_into("<H", 8, 1),
}


@PLACES
@pytest.mark.parametrize("lie", LIES_OF_DIRECTORIES)
def test_directories_of_archives(tmp_path, write_array, make_values, place, lie):
    case = write_array(tmp_path / "a", make_values((8, 8), "uint16"), chunks=(4, 8), compressors=None)
    path = tmp_path / "x.zip"
    path.write_bytes(packed(case.path, LIES_OF_DIRECTORIES[lie]))
    # What members cannot be beside each other is refused with the archive, the others when they are read.
    with pytest.raises((vf.DataError, vf.UnsupportedError)) as caught, opened(place, path) as array:
        array[...]
    assert "x.zip|zip:/" in str(caught.value.key)
