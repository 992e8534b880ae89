"""Chunks as they are stored: the bytes that a foreign writer puts in files of their own, out of shards and stores."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, TransposeCodec, ZstdCodec

import voxfetch as vf
from tests.conftest import values
from tests.servers.boss import BossServer, Channel
from tests.servers.faulty import FaultyServer, status
from voxfetch.encoding import Encoder, fingerprint

SHAPE, CHUNKS, SHARDS = (37, 50, 41), (8, 10, 9), (16, 20, 18)
GRID = tuple(-(-extent // one) for extent, one in zip(SHAPE, CHUNKS, strict=True))
HOLE = (slice(8, 16), slice(10, 20), slice(9, 18))  # chunk (1, 1, 1)
GONE = (slice(32, 37), slice(40, 50), slice(36, 41))  # shard (2, 2, 2)


def written(folder, name, **layout):
    data = values(SHAPE, "u2")
    data[HOLE] = data[GONE] = 7
    path = folder / name
    array = zarr.create_array(str(path), shape=SHAPE, dtype="u2", fill_value=7, **layout)
    array[...] = data
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same voxels, unsharded in files (what is expected) and inside shards, both by zarr-python."""
    folder = tmp_path_factory.mktemp("encoded")
    codecs = {"filters": [TransposeCodec(order=(2, 0, 1))], "compressors": [ZstdCodec(level=3), Crc32cCodec()]}
    written(folder, "files", chunks=CHUNKS, **codecs)
    written(folder, "shards", chunks=CHUNKS, shards=SHARDS, **codecs)
    return folder


def stored(folder, position):
    path = folder / "files" / "c" / "/".join(map(str, position))
    return path.read_bytes() if path.exists() else None


@pytest.fixture(params=["local", "remote"])
def opened(request, folder):
    """`opened(name, **keywords)`: an array of the folder, local or behind a server."""
    if request.param == "local":
        yield lambda name, **keywords: vf.open_array(folder / name, **keywords)
        return
    with FaultyServer(folder) as server:
        yield lambda name, **keywords: vf.open_array(f"{server.url}/{name}", **keywords)


@pytest.mark.parametrize("name", ["files", "shards"])
def test_every_chunk_is_what_a_foreign_writer_stores_alone(opened, folder, name):
    array = opened(name)
    missing = 0
    for position in np.ndindex(GRID):
        expected = stored(folder, position)
        assert array.read_encoded(position) == expected, position
        missing += expected is None
    assert missing == 2


def test_nothing_is_decoded(opened):
    with vf.Engine() as engine:
        array = opened("shards", engine=engine)
        array.read_encoded((0, 0, 0))
        array.read_encoded((0, 0, 1))
        stats = engine.stats()
    assert stats.chunks_decoded == 0
    assert stats.requests <= 3  # an index and two chunks; a small shard comes whole


def test_many_at_once_share_requests(folder):
    with FaultyServer(folder) as server:
        array = vf.open_array(f"{server.url}/shards")
        before = len(server.requests)

        async def all_of_a_shard():
            positions = list(np.ndindex(2, 2, 2))
            return positions, await asyncio.gather(*map(array.read_encoded_async, positions))

        positions, found = asyncio.run(all_of_a_shard())
        assert found == [stored(folder, position) for position in positions]
        assert len(server.requests) - before <= 2


def test_a_view_counts_chunks_in_its_own_order(opened, folder):
    array = opened("shards")
    view = array.with_axes(array.axes[::-1])
    assert view.read_encoded((3, 2, 1)) == stored(folder, (1, 2, 3)) is not None


@pytest.mark.parametrize("position", [(5, 0, 0), (0, 0, 5), (-1, 0, 0), (0, 0), (1 << 62, 0, 0)])
def test_places_outside_the_grid_are_refused(opened, position):
    with pytest.raises(vf.SelectionError):
        opened("shards").read_encoded(position)


def test_decoded_chunks_that_are_kept_do_not_stand_in(opened, folder):
    with vf.Engine(chunk_cache_bytes=64 << 20) as engine:
        for name in ("files", "shards"):
            array = opened(name, engine=engine)
            array.read()
            array.read()
            assert array.read_encoded((0, 0, 0)) == stored(folder, (0, 0, 0))


def test_what_is_missing_is_none_also_where_reads_raise(opened):
    strict = opened("shards").with_options(vf.ReadOptions(on_missing="raise"))
    assert strict.read_encoded((1, 1, 1)) is None
    with pytest.raises(vf.NotFoundError):
        strict[HOLE]


def test_an_array_that_is_gone_is_an_error_and_not_missing_chunks(folder, tmp_path):
    shutil.copytree(folder / "shards", tmp_path / "a")
    array = vf.open_array(tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(vf.NotFoundError):
        array.read_encoded((0, 0, 0))


def test_raw_chunks_come_whole_at_the_edge_too(tmp_path):
    data = values((10, 13), "<u4")
    zarr.create_array(str(tmp_path / "raw"), shape=data.shape, chunks=(4, 8), dtype="u4", compressors=None)[...] = data
    files = tmp_path / "raw" / "c"
    with FaultyServer(tmp_path) as server:
        for source in (tmp_path / "raw", f"{server.url}/raw"):
            array = vf.open_array(source)
            for position in np.ndindex(3, 2):
                content = array.read_encoded(position)
                assert content == files.joinpath(*map(str, position)).read_bytes()
                assert len(content) == 4 * 8 * 4


def test_shards_inside_shards_are_opened_to_the_last_level(tmp_path):
    inner = ShardingCodec(chunk_shape=(4, 4), codecs=[BytesCodec(), ZstdCodec()])
    data = values((16, 16), "u1")
    for name, codec in (("nested", ShardingCodec(chunk_shape=(8, 8), codecs=[inner])), ("flat", None)):
        path = str(tmp_path / name)
        layout = {"chunks": (16, 16), "serializer": codec, "compressors": None} if codec else {"chunks": (4, 4)}
        if codec is None:
            layout["compressors"] = [ZstdCodec()]
        zarr.create_array(path, shape=data.shape, dtype="u1", **layout)[...] = data
    nested = vf.open_array(tmp_path / "nested")
    for position in np.ndindex(4, 4):
        expected = (tmp_path / "flat" / "c").joinpath(*map(str, position)).read_bytes()
        assert nested.read_encoded(position) == expected


def test_version_2_and_an_array_without_axes(tmp_path, cases):
    data = values((9, 7), "<i2")
    zarr.create_array(str(tmp_path / "v2"), shape=data.shape, chunks=(4, 4), dtype="<i2", zarr_format=2, order="F")[
        ...
    ] = data
    array = vf.open_array(tmp_path / "v2")
    assert array.read_encoded((2, 1)) == (tmp_path / "v2" / "2.1").read_bytes()
    point = cases("point")
    assert point.open().read_encoded(()) == (point.path / "c").read_bytes()


def test_a_shard_that_is_replaced_gives_its_new_chunk(folder):
    key = "shards/c/0/0/0"
    old, new = (folder / key).read_bytes(), (folder / "shards/c/1/1/1").read_bytes()
    document = (folder / "shards/zarr.json").read_bytes()
    with FaultyServer({"shards/zarr.json": document, key: old}) as server:
        array = vf.open_array(f"{server.url}/shards")
        assert array.read_encoded((0, 0, 0)) == stored(folder, (0, 0, 0))
        server.put(key, new)
        assert array.read_encoded((0, 0, 1)) == stored(folder, (2, 2, 3))


def test_a_store_that_fails_raises(folder):
    with FaultyServer(folder) as server, vf.Engine(retry=vf.RetryPolicy(max_attempts=1)) as engine:
        array = vf.open_array(f"{server.url}/shards", engine=engine)
        server.rule = lambda request: status(500)
        with pytest.raises(vf.StoreError):
            array.read_encoded((0, 0, 0))


def test_a_service_without_chunks_refuses():
    with BossServer({"c/e/ch": Channel(values((16, 512, 512), "u1"))}) as server:
        array = vf.open_array(f"bossdb://{server.url}/c/e/ch", "0")
        with pytest.raises(vf.UnsupportedError):
            array.read_encoded((0, 0, 0))


# -------------------------------------------------------------------------------------------------------- the other way


def document_of(path):
    return (path / "zarr.json").read_bytes()


def test_encoded_chunks_are_read_by_a_foreign_reader(tmp_path):
    data = values(SHAPE, "u2")
    data[HOLE] = 7
    path = tmp_path / "a"
    array = zarr.create_array(
        str(path), shape=SHAPE, dtype="u2", chunks=CHUNKS, fill_value=7, compressors=[ZstdCodec(level=1)]
    )
    encoder = Encoder(document_of(path))
    left_out = []
    for position in np.ndindex(GRID):
        place = tuple(slice(at * one, at * one + one) for at, one in zip(position, CHUNKS, strict=True))
        # Beyond the array's end anything may stand.
        full = np.full(CHUNKS, 9, "u2")
        part = data[place]
        full[tuple(slice(0, extent) for extent in part.shape)] = part
        content = encoder.encode(position, full if sum(position) % 2 else part)
        if content is None:
            left_out.append(position)
            continue
        file = path / "c" / "/".join(map(str, position))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    assert left_out == [(1, 1, 1)]
    np.testing.assert_array_equal(array[...], data)


def test_an_encoder_refuses_what_does_not_fit(tmp_path):
    zarr.create_array(str(tmp_path / "a"), shape=(10, 10), dtype="u1", chunks=(4, 4))
    encoder = Encoder(document_of(tmp_path / "a"))
    with pytest.raises(ValueError):
        encoder.encode((3, 0), np.ones((4, 4), "u1"))
    with pytest.raises(ValueError):
        encoder.encode((0, 0), np.ones((4, 3), "u1"))
    with pytest.raises(ValueError):
        encoder.encode((0,), np.ones((4, 4), "u1"))
    assert encoder.encode((2, 2), np.ones((2, 2), "u1"))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory in use is read from /proc")
def test_encoders_that_are_idle_hold_no_memory_of_chunks():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    voxels = np.arange(1 << 20, dtype="u8")
    store = zarr.storage.MemoryStore()
    zarr.create_array(store, shape=voxels.shape, dtype="u8", chunks=voxels.shape, compressors=ZstdCodec(level=1))
    document = bytes(store._store_dict["zarr.json"].to_bytes())
    kept = [Encoder(document)]
    kept[0].encode((0,), voxels)
    before = resident()
    for _ in range(16):
        kept.append(Encoder(document))
        kept[-1].encode((0,), voxels)
    assert resident() - before < 4 * voxels.nbytes


def test_fingerprints_are_those_of_xxh3():
    # From the vectors of the reference implementation: XXH3_64bits of nothing, seed 0.
    assert fingerprint(b"") == "2d06800538d394c2"
    assert fingerprint(b"a") != fingerprint(b"b")
