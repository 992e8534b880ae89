"""Arrays whose chunks lie where a table says: on disk and remote, masks, versions, clipped chunks, hostile tables."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import voxfetch as vf
from tests.servers.faulty import FaultyServer
from voxfetch.array import Array
from voxfetch.documents import RemoteDocuments
from voxfetch.node import Node, Settings
from voxfetch.store.local import LocalStore
from voxfetch.store.resolve import remote_store
from voxfetch.table import MISSING, ChunkTable, FileVersion, ObjectVersion

SHAPE, CHUNKS, FILL = (37, 50, 41), (8, 16, 9), 7
GRID = tuple(-(-n // c) for n, c in zip(SHAPE, CHUNKS, strict=True))
DATA = np.random.default_rng(5).integers(0, 40, SHAPE).astype("uint16")


def document(*, compressor=True, shape=SHAPE, chunks=CHUNKS):
    value = {
        "zarr_format": 2,
        "shape": shape,
        "chunks": chunks,
        "dtype": "<u2",
        "compressor": {"id": "zlib", "level": 1} if compressor else None,
        "fill_value": FILL,
        "order": "C",
        "filters": None,
    }
    return json.dumps(value).encode()


def pieces(data=DATA, chunks=CHUNKS, *, clipped=False):
    """The bytes of each chunk, in C order of the grid."""
    for cell in itertools.product(*(range(-(-n // c)) for n, c in zip(data.shape, chunks, strict=True))):
        part = data[tuple(slice(i * c, i * c + c) for i, c in zip(cell, chunks, strict=True))]
        if not clipped:
            whole = np.full(chunks, 9999, data.dtype)
            whole[tuple(slice(0, n) for n in part.shape)] = part
            part = whole
        yield part.tobytes()


def packed(encoded, *, files=1, seed=0):
    """Puts chunks (None for one that is not stored) into blobs in any order with gaps: (blobs, table)."""
    rng = np.random.default_rng(seed)
    count = len(encoded)
    blobs = [bytearray(b"head") for _ in range(files)]
    offsets, nbytes = np.full(count, MISSING, np.uint64), np.zeros(count, np.uint64)
    numbers = rng.integers(0, files, count).astype(np.uint32)
    for entry in rng.permutation(count):
        if encoded[entry] is not None:
            blob = blobs[numbers[entry]]
            blob += b"x" * int(rng.integers(0, 30))
            offsets[entry], nbytes[entry] = len(blob), len(encoded[entry])
            blob += encoded[entry]
    names = tuple(f"files/blob{i}" for i in range(files))
    return dict(zip(names, map(bytes, blobs), strict=True)), ChunkTable(
        names, offsets, nbytes, None if files == 1 else numbers
    )


def with_holes(encoded, every=5):
    """Leaves out some chunks; returns also what is to be read then."""
    expected, left = DATA.copy(), list(encoded)
    for entry, cell in enumerate(itertools.product(*map(range, GRID))):
        if entry % every == 0:
            left[entry] = None
            expected[tuple(slice(i * c, i * c + c) for i, c in zip(cell, CHUNKS, strict=True))] = FILL
    return left, expected


def local(folder, blobs, table, value, **settings):
    for name, blob in blobs.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(blob)
    node = Node(LocalStore(str(folder)), "files/blob0/in", "zarr2", "array", value, {}, settings=Settings(**settings))
    return Array(replace(node, table=table))


def remote(server, table, value, engine, **settings):
    store, path = remote_store(server.url, None, "")
    node = Node(RemoteDocuments(store, engine), path, "zarr2", "array", value, {})
    return Array(replace(node, table=table, settings=Settings(engine=engine, **settings)))


def check(array, expected):
    np.testing.assert_array_equal(array[...], expected)
    np.testing.assert_array_equal(array[3:30:4, 17, 5:], expected[3:30:4, 17, 5:])
    np.testing.assert_array_equal(
        array.read_box((-2, 40, 36), (20, 20, 9), bounds="fill")[2:, :10, :5], expected[:18, 40:, 36:]
    )
    points = np.random.default_rng(1).integers(0, SHAPE, (200, 3))
    np.testing.assert_array_equal(array.read_points(points), expected[tuple(points.T)])
    assert array.shards is None
    assert array.chunks == CHUNKS


@pytest.fixture
def engine():
    with vf.Engine(decode_threads=2, retry=vf.RetryPolicy(max_attempts=3, base_s=0.01, cap_s=0.02)) as engine:
        yield engine


@pytest.mark.parametrize("files", [1, 3])
@pytest.mark.parametrize("compressor", [True, False])
def test_every_voxel(tmp_path, engine, files, compressor):
    encoded = [zlib.compress(one) if compressor else one for one in pieces()]
    encoded, expected = with_holes(encoded)
    blobs, table = packed(encoded, files=files)
    value = document(compressor=compressor)
    array = local(tmp_path, blobs, table, value)
    check(array, expected)
    check(pickle.loads(pickle.dumps(array)), expected)
    assert array.verify().ok
    with FaultyServer(blobs) as server:
        check(remote(server, table, value, engine), expected)


def test_chunks_are_merged(tmp_path, engine):
    blobs, table = packed([zlib.compress(one) for one in pieces()])
    with FaultyServer(blobs) as server:
        array = remote(server, table, document(), engine)
        np.testing.assert_array_equal(array[...], DATA)
        assert len(server.requests) == 1, server.ranges
        report = array.explain(...)
        assert (report.chunks, report.requests, report.round_trips) == (len(table.offsets), 1, 1)
        np.testing.assert_array_equal(array[:8, :16, :9], DATA[:8, :16, :9])
        assert len(server.requests) == 2
        assert (
            int(server.ranges[1].partition("-")[2]) - int(server.ranges[1][6:].partition("-")[0]) == table.nbytes[0] - 1
        )


def test_two_arrays_of_one_file_share_no_decoded_chunks(tmp_path):
    """Same file, document and numbers of chunks; the tables alone differ."""
    first, second = DATA, DATA[::-1]
    blobs, table = packed([*map(zlib.compress, pieces(first)), *map(zlib.compress, pieces(second))])
    half = len(table.offsets) // 2
    os.makedirs(tmp_path / "files")
    (tmp_path / "files/blob0").write_bytes(blobs["files/blob0"])
    old = os.stat(tmp_path / "files/blob0").st_mtime - 60
    os.utime(tmp_path / "files/blob0", (old, old))
    with vf.Engine(chunk_cache_bytes=64 << 20) as engine:
        for _ in range(2):
            for part, expected in ((slice(0, half), first), (slice(half, None), second)):
                one = ChunkTable(table.files, table.offsets[part].copy(), table.nbytes[part].copy())
                node = Node(LocalStore(str(tmp_path)), "x", "zarr2", "array", document(), {})
                array = Array(replace(node, table=one, settings=Settings(engine=engine)))
                np.testing.assert_array_equal(array[...], expected)
        assert engine.stats().chunk_cache_bytes > 0


@pytest.mark.parametrize("where", ["local", "remote"])
def test_masks(tmp_path, engine, where):
    raw = list(pieces())
    masks = np.arange(len(raw), dtype=np.uint32) % 2
    blobs, table = packed([one if mask else zlib.compress(one) for one, mask in zip(raw, masks, strict=True)])
    table = replace(table, masks=masks)
    with FaultyServer(blobs) as server:
        array = (
            local(tmp_path, blobs, table, document()) if where == "local" else remote(server, table, document(), engine)
        )
        check(array, DATA)
        wrong = replace(table, masks=1 - masks)
        array = (
            local(tmp_path, blobs, wrong, document()) if where == "local" else remote(server, wrong, document(), engine)
        )
        with pytest.raises(vf.CodecError):
            array[...]


def test_too_many_masks_are_refused():
    _, table = packed([zlib.compress(one) for one in pieces()])
    table = replace(table, masks=np.arange(len(table.offsets), dtype=np.uint32))
    with pytest.raises(vf.LimitExceededError, match="lists of codecs"):
        local_array(table)


def local_array(table):
    return Array(replace(Node(LocalStore("/nowhere"), "x", "zarr2", "array", document(), {}), table=table))


@pytest.mark.parametrize("chunks", [(8, 50, 41), (1, 20, 41), (37, 50, 41), (1, 1, 9)])
def test_clipped_chunks(tmp_path, engine, chunks):
    """As a contiguous dataset is cut: all bytes of it in order, the last ones fewer than a chunk."""
    value = document(compressor=False, chunks=chunks)
    encoded = list(pieces(DATA, chunks, clipped=True))
    assert sum(map(len, encoded)) == DATA.nbytes
    blob = b"head" + b"".join(encoded)
    nbytes = np.array([len(one) for one in encoded], np.uint64)
    offsets = np.cumsum(nbytes) - nbytes + np.uint64(4)
    table = ChunkTable(("files/blob0",), offsets.astype(np.uint64), nbytes, clipped=True)
    array = local(tmp_path, {"files/blob0": blob}, table, value)
    with FaultyServer({"files/blob0": blob}) as server:
        for one in (array, remote(server, table, value, engine)):
            np.testing.assert_array_equal(one[...], DATA)
            np.testing.assert_array_equal(one[5:, 10:45:7, 3:40], DATA[5:, 10:45:7, 3:40])
            np.testing.assert_array_equal(one[36, 49], DATA[36, 49])
            assert one[36, 49, 40] == DATA[36, 49, 40]


def test_clipped_along_two_axes_is_refused():
    with pytest.raises(vf.MetadataError, match="more than one axis"):
        local_array(replace(packed(list(pieces()))[1], clipped=True))


# --------------------------------------------------------------------------------------------------- versions of files


def file_version(path):
    status = os.stat(path)
    return FileVersion(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def test_a_local_file_that_changed(tmp_path):
    blobs, table = packed([zlib.compress(one) for one in pieces()])
    local(tmp_path, blobs, table, document())
    path = tmp_path / "files/blob0"
    array = local_again(tmp_path, replace(table, version=file_version(path)))
    check(array, DATA)
    body = path.read_bytes()
    os.utime(path, ns=(0, file_version(path).modified_ns + 1))
    with pytest.raises(vf.ObjectChangedError, match="open it again") as caught:
        array[0, 0, 0]
    assert "blob0" in str(caught.value)
    path.unlink()
    with pytest.raises(vf.NotFoundError):
        array[0, 0, 0]
    path.write_bytes(body)
    check(local_again(tmp_path, replace(table, version=file_version(path))), DATA)


def local_again(folder, table):
    return Array(replace(Node(LocalStore(str(folder)), "x", "zarr2", "array", document(), {}), table=table))


@pytest.mark.parametrize("etags", ["strong", None])
def test_a_remote_file_that_changed(engine, etags):
    blobs, table = packed([zlib.compress(one) for one in pieces()])
    with FaultyServer(blobs, etags=etags) as server:
        body, etag, modified = server.read("files/blob0")
        table = replace(table, version=ObjectVersion(etag, modified, len(body)))
        array = remote(server, table, document(), engine)
        check(array, DATA)
        assert {request.if_match for request in server.requests} == {etag}
        server.put("files/blob0", body)
        with pytest.raises(vf.ObjectChangedError, match="open it again"):
            array[...]
        _, etag, modified = server.read("files/blob0")
        again = remote(server, replace(table, version=ObjectVersion(etag, modified, len(body))), document(), engine)
        np.testing.assert_array_equal(again[...], DATA)
        with pytest.raises(vf.ObjectChangedError, match="open it again"):
            array[0:9, 0:9, 0:9]
        server.put("files/blob0", None)
        for one in (array, again):
            with pytest.raises((vf.NotFoundError, vf.ObjectChangedError)):
                one[...]


def test_a_file_that_is_gone_is_no_fill_value(tmp_path, engine):
    blobs, table = packed([zlib.compress(one) for one in pieces()], files=2)
    del blobs["files/blob1"]
    array = local(tmp_path, blobs, table, document())
    with pytest.raises(vf.NotFoundError):
        array[...]
    with FaultyServer(blobs) as server, pytest.raises(vf.NotFoundError):
        remote(server, table, document(), engine)[...]


# ------------------------------------------------------------------------------------------------------- hostile tables


@pytest.mark.parametrize("where", ["local", "remote"])
@pytest.mark.parametrize(
    ("offset", "nbytes"),
    [(2**63, 10), (MISSING - 1, 10), (10**9, 100), (4, 0), (4, 2**40), (4, 2**64 - 1), (4, 10**6), (0, 3)],
)
def test_one_bad_entry_hides_no_other(tmp_path, engine, where, offset, nbytes):
    blobs, table = packed([zlib.compress(one) for one in pieces()])
    table.offsets[3], table.nbytes[3] = offset, nbytes
    with FaultyServer(blobs) as server:
        array = (
            local(tmp_path, blobs, table, document()) if where == "local" else remote(server, table, document(), engine)
        )
        box = np.unravel_index(3, GRID)
        first = tuple(int(i) * c for i, c in zip(box, CHUNKS, strict=True))
        with pytest.raises((vf.DataError, vf.StoreError, vf.LimitExceededError)):
            array[first]
        np.testing.assert_array_equal(array[8:], DATA[8:])


def test_tables_that_contradict_the_array():
    _, table = packed([zlib.compress(one) for one in pieces()])
    for wrong in (
        replace(table, offsets=table.offsets[:-1].copy()),
        replace(table, nbytes=table.nbytes[:-1].copy()),
        replace(table, files=()),
        replace(table, numbers=np.ones(len(table.offsets), np.uint32)),
        replace(table, masks=np.ones(3, np.uint32)),
    ):
        with pytest.raises(vf.MetadataError, match="chunk table"):
            local_array(wrong)


def test_a_grid_that_is_too_large_is_refused():
    value = document(shape=(2**40, 2**20, 41))
    node = Node(LocalStore("/nowhere"), "x", "zarr2", "array", value, {})
    with pytest.raises(vf.LimitExceededError):
        Array(replace(node, table=packed(list(pieces()))[1]))


def test_many_chunks(tmp_path):
    """More chunks than one visit of a plan takes."""
    data = np.arange(300 * 300, dtype="uint16").reshape(300, 300)
    value = document(compressor=False, shape=data.shape, chunks=(1, 2))
    blob = data.tobytes()
    offsets = np.arange(0, len(blob), 4, dtype=np.uint64)
    table = ChunkTable(("files/blob0",), offsets, np.full(len(offsets), 4, np.uint64))
    array = local(Path(tmp_path), {"files/blob0": blob}, table, value)
    np.testing.assert_array_equal(array[...], data)
    np.testing.assert_array_equal(array[250:, ::3], data[250:, ::3])
