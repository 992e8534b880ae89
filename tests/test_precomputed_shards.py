"""Precomputed shards hold chunks from anywhere: many reads of one object, what ends them, what they may take."""

from __future__ import annotations

import asyncio
import json
import os
import struct
import time
import zipfile
from contextlib import ExitStack, contextmanager

import brotli
import fsspec
import numpy as np
import pytest

import voxfetch as vf
from tests.precomputed import sharding, write_scale
from tests.servers import objects_in
from tests.servers.faulty import Fault, FaultyServer, status
from tests.servers.moto_s3 import moto_s3
from tests.stores import CREDENTIALS

ONCE = vf.RetryPolicy(max_attempts=1)


def volume(extent, *, chunk=8, minishard_bits=0):
    """The info of a cube of uint8 in one shard."""
    scale = {
        "key": "a",
        "size": [extent] * 3,
        "resolution": [1, 1, 1],
        "chunk_sizes": [[chunk] * 3],
        "encoding": "raw",
        "sharding": sharding(minishard=minishard_bits, shard=0),
    }
    info = {"@type": "neuroglancer_multiscale_volume", "type": "image", "data_type": "uint8", "num_channels": 1}
    return json.dumps({**info, "scales": [scale]}).encode()


def test_many_chunks_that_wait_for_one_shard_end_together():
    # A minishard index that is none, for 32,768 chunks.
    shard = struct.pack("<QQ", 0, 100) + bytes(100)
    with FaultyServer({"info": volume(256), "a/0.shard": shard}) as server, vf.Engine(retry=ONCE) as engine:
        array = vf.open(server.url, engine=engine).level(0)
        for _ in range(2):
            with pytest.raises(vf.ShardIndexError, match="multiple of 24"):
                array[...]


def test_many_chunks_that_wait_for_one_shard_are_cancelled_together():
    async def cancelled(array):
        task = asyncio.create_task(array.read_async())
        await asyncio.sleep(0.5)
        began_s = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - began_s

    objects = {"info": volume(256), "a/0.shard": bytes(16)}
    with FaultyServer(objects) as server, vf.Engine(retry=ONCE) as engine:
        server.rule = lambda request: Fault(delay_s=20) if request.key.endswith(".shard") else None
        array = vf.open(server.url, engine=engine).level(0)
        assert asyncio.run(cancelled(array)) < 1
        server.rule = lambda request: None
        # The engine is fit for the next read, and the shard says that nothing is stored.
        assert not array[:8, :8, :8].any()


def test_a_shard_that_is_known_is_read_in_as_few_requests(tmp_path, make_values):
    voxels = make_values((256, 256, 256, 1), "uint8")
    spec = sharding(preshift=9, minishard=2, shard=0)
    expected = write_scale(tmp_path, voxels, chunk_size=(16, 16, 16), sharding=spec)
    with FaultyServer(tmp_path) as server, vf.Engine() as engine:
        array = vf.open(server.url, engine=engine).level(0)
        taken = []
        for _ in range(2):
            server.requests.clear()
            np.testing.assert_array_equal(array[...], expected)
            taken.append(len(server.requests))
        assert taken[1] <= taken[0] < 60


def test_a_minishard_index_of_any_size_is_not_read(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "info").write_bytes(volume(16))
    with (tmp_path / "a" / "0.shard").open("wb") as file:
        file.write(struct.pack("<QQ", 0, 6 << 30))
        file.truncate((6 << 30) + 16)
    with pytest.raises(vf.LimitExceededError, match="minishard index"):
        vf.open(tmp_path).level(0)[0, 0, 0]
    with FaultyServer(tmp_path) as server, vf.Engine(retry=ONCE) as engine:
        with pytest.raises(vf.LimitExceededError, match="minishard index"):
            vf.open(server.url, engine=engine).level(0)[0, 0, 0]
        assert [request.range for request in server.requests if request.key.endswith(".shard")] == ["bytes=0-15"]


@pytest.mark.parametrize("suffix", [".gz", ".zstd", ".xz", ".bz2", ".br"])
def test_names_that_tell_how_an_object_is_compressed(tmp_path, make_values, suffix):
    import bz2
    import gzip
    import lzma

    from numcodecs import Zstd

    compress = {
        ".gz": gzip.compress,
        ".zstd": Zstd().encode,
        ".xz": lzma.compress,
        ".bz2": bz2.compress,
        ".br": brotli.compress,
    }
    expected = write_scale(tmp_path, make_values((20, 9, 11, 1), "uint16"), chunk_size=(8, 8, 8))
    for path in [path for path in tmp_path.rglob("*-*_*-*") if path.is_file()]:
        path.with_name(path.name + suffix).write_bytes(compress[suffix](path.read_bytes()))
        path.unlink()
    np.testing.assert_array_equal(vf.open(tmp_path).level(0)[...], expected)


def test_equal_files_of_chunks_that_are_cut_off_otherwise(tmp_path):
    """Deduplicating file systems and tools make hard links of equal files."""
    labels = np.full((12, 8, 8, 1), 7, "uint32")
    segmentation = {"encoding": "compressed_segmentation", "compressed_segmentation_block_size": [8, 8, 8]}
    write_scale(tmp_path, labels, chunk_size=(8, 8, 8), kind="segmentation", **segmentation)
    whole, cut = sorted(path for path in tmp_path.rglob("*-*_*-*") if path.is_file())
    assert whole.read_bytes() == cut.read_bytes()
    cut.unlink()
    os.link(whole, cut)
    # What was just written may be written again unnoticed, and is not kept.
    os.utime(whole, (1, 1))
    with vf.Engine(chunk_cache_bytes=1 << 20) as engine:
        array = vf.open(tmp_path, engine=engine).level(0)
        for _ in range(2):
            for part in (slice(8, 12), slice(0, 8)):
                assert (array[part] == 7).all()
        assert engine.stats().chunk_cache_hits == 2


def test_objects_are_those_of_the_folder(tmp_path, make_values):
    expected = write_scale(tmp_path, make_values((20, 9, 11, 1), "uint16"), chunk_size=(8, 8, 8))
    with FaultyServer(objects_in(tmp_path)) as server:
        np.testing.assert_array_equal(vf.open(server.url).level(0)[...], expected)


@pytest.mark.parametrize("place", ["disk", "http", "s3", "fsspec"])
def test_shards_in_two_files_are_refused(tmp_path, make_values, place):
    voxels = make_values((16, 16, 16, 1), "uint8")
    write_scale(tmp_path, voxels, chunk_size=(8, 8, 8), sharding=sharding(minishard=1, shard=0))
    (shard,) = tmp_path.rglob("*.shard")
    content = shard.read_bytes()
    shard.with_suffix(".index").write_bytes(content[:32])
    shard.with_suffix(".data").write_bytes(content[32:])
    shard.unlink()
    with opened_at(place, tmp_path) as open_:
        array = open_()
        for _ in range(2):
            with pytest.raises(vf.UnsupportedError, match=r"\.index"):
                array[...]


def test_one_look_for_shards_in_two_files(tmp_path, make_values):
    """However many shards of a sparse volume are absent."""
    voxels = make_values((64, 64, 64, 1), "uint8")
    write_scale(tmp_path, voxels, chunk_size=(8, 8, 8), sharding=sharding(minishard=1, shard=6))
    for shard in sorted(tmp_path.rglob("*.shard"))[::2]:
        shard.unlink()
    with FaultyServer(tmp_path) as server, vf.Engine(retry=ONCE) as engine:
        # One that failed is no answer.
        server.rule = lambda request: status(500) if request.key.endswith(".index") else None
        array = vf.open(server.url, engine=engine).level(0)
        with pytest.raises(vf.StoreError, match="the server failed"):
            array[...]
        server.rule = lambda request: status(403) if request.key.endswith(".index") else None
        server.requests.clear()
        for _ in range(2):
            assert array[...].any()
        again = vf.open(server.url, engine=engine).level(0)
        again[...]
        assert len([request for request in server.requests if request.key.endswith(".index")]) == 1


@pytest.mark.parametrize("extent", [16, 256])
@pytest.mark.parametrize("place", ["disk", "http", "http without ranges", "s3", "fsspec", "zip"])
def test_a_shard_without_a_byte_holds_nothing(tmp_path, extent, place):
    """Writers leave such objects; a chunk without a byte is broken, and so is a shard cut off."""
    (tmp_path / "a").mkdir()
    (tmp_path / "info").write_bytes(volume(extent))
    (tmp_path / "a" / "0.shard").write_bytes(b"")
    part = np.s_[:8, :8, :8]
    with opened_at(place, tmp_path) as open_:
        assert not open_()[part].any()
        with pytest.raises(vf.NotFoundError):
            open_(read_options=vf.ReadOptions(on_missing="raise"))[part]
    (tmp_path / "a" / "0.shard").write_bytes(bytes(9))
    with opened_at(place, tmp_path) as open_, pytest.raises(vf.ShardIndexError):
        open_()[part]
    info = json.loads(volume(extent))
    del info["scales"][0]["sharding"]
    (tmp_path / "info").write_text(json.dumps(info))
    (tmp_path / "a" / "0-8_0-8_0-8").write_bytes(b"")
    with opened_at(place, tmp_path) as open_, pytest.raises(vf.DataError):
        open_()[part]


@contextmanager
def opened_at(place, folder):
    """What opens the finest level of the volume in a folder from where it is copied to."""
    with vf.Engine(retry=ONCE) as engine, ExitStack() as stack:
        options = None
        match place:
            case "disk":
                source = folder
            case "http":
                source = stack.enter_context(FaultyServer(objects_in(folder))).url
            case "http without ranges":
                server = stack.enter_context(FaultyServer(objects_in(folder)))
                server.rule = lambda _: Fault(ignore_range=True)
                source = server.url
            case "s3":
                endpoint = stack.enter_context(moto_s3(objects_in(folder)))
                source, options = "s3://bucket", vf.StoreOptions(endpoint=endpoint, credentials=CREDENTIALS)
            case "fsspec":
                source = fsspec.filesystem("memory").get_mapper(folder.name + place)
                source.update(objects_in(folder))
            case "zip":
                source = folder.with_suffix(".zip")
                with zipfile.ZipFile(source, "w") as archive:
                    for name, body in objects_in(folder).items():
                        archive.writestr(name, body)
        yield lambda **more: vf.open(source, engine=engine, options=options, **more).level(0)
