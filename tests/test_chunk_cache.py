"""`Engine(chunk_cache_bytes=...)`: chunks are fetched and decoded once, and what is read is what is stored now."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorstore
import zarr

import voxfetch as vf
from tests.precomputed import labels, sharding, write_scale
from tests.servers import objects_in
from tests.servers.faulty import FaultyServer
from tests.wkw_data import layer, write_mag, write_properties

FAST = vf.RetryPolicy(max_attempts=4, base_s=0.01, cap_s=0.05)
LARGE = 64 << 20
# Shards are too large to be fetched whole on suspicion.
CHUNKS, SHARDS, SHAPE = (16, 16, 16), (96, 96, 48), (96, 96, 90)
COUNT = 6 * 6 * 6


def settle(path):
    """Makes files as old as they have to be for their chunks to be kept."""
    for file in [path, *path.rglob("*")]:
        os.utime(file, (time.time() - 100,) * 2)


@pytest.fixture
def engines():
    """`engines(bytes)` -> an engine with such a chunk cache."""
    with contextlib.ExitStack() as stack:
        yield lambda nbytes=LARGE, **keywords: stack.enter_context(
            vf.Engine(256 << 20, chunk_cache_bytes=nbytes, decode_threads=2, retry=FAST, **keywords)
        )


@pytest.fixture
def places():
    """`places(kind, path)` -> where an array in a folder is opened from, and the server if there is one."""
    with contextlib.ExitStack() as stack:

        def place(kind, path):
            if kind == "disk":
                settle(path)
                return path, None
            server = stack.enter_context(FaultyServer(objects_in(path)))
            return server.url, server

        yield place


@pytest.fixture
def voxels(make_values):
    return make_values(SHAPE, "uint16", seed=5)


def written(folder, voxels, **layout):
    layout = {"chunks": CHUNKS, "shards": SHARDS, "fill_value": 0} | layout
    zarr.create_array(str(folder), shape=voxels.shape, dtype=voxels.dtype, **layout)[...] = voxels
    return folder


both = pytest.mark.parametrize("kind", ["disk", "http"])
LAYOUTS = {
    "packed": {},
    "raw": {"compressors": None},
    "unsharded": {"shards": None},
    "unsharded raw": {"shards": None, "compressors": None},
}


@both
def test_every_layout_twice(case, kind, engines, places):
    engine = engines()
    source, server = places(kind, case.path)
    array = vf.open_array(source, engine=engine)
    for _ in range(2):
        np.testing.assert_array_equal(array[...], case.expected)
        after_first = engine.stats()
    sent = server and len(server.requests)
    np.testing.assert_array_equal(array.read(order="F"), case.expected)
    for box, block in array.blocks(5 if array.ndim else ()):
        np.testing.assert_array_equal(block, case.expected[box.slices])
    stats = engine.stats()
    assert (stats.chunks_decoded, stats.requests) == (after_first.chunks_decoded, after_first.requests)
    assert sent == (server and len(server.requests))
    assert stats.chunk_cache_misses == stats.chunks_decoded
    assert (stats.chunk_cache_hits > 0) == (stats.chunks_decoded > 0)


def n5(path, voxels, compression):
    metadata = {"dimensions": voxels.shape, "blockSize": [16, 12, 20], "dataType": "uint32", "compression": compression}
    spec = {"driver": "n5", "kvstore": {"driver": "file", "path": f"{path}/"}, "metadata": metadata, "create": True}
    tensorstore.open(spec).result().write(voxels).result()
    return voxels


def wkw(path, voxels, block_type):
    voxels = voxels[None, :32, :32, :32]
    write_mag(path / "color" / "1", voxels, block_type=block_type)
    write_properties(path, [layer("color", (0, 0, 0), voxels.shape[1:], ["1"], dtype="uint32", channels=1)])
    return voxels


def precomputed(path, voxels, **scale):
    return write_scale(path, voxels[..., None], chunk_size=(16, 12, 20), kind="segmentation", **scale)


CSEG = {"encoding": "compressed_segmentation", "compressed_segmentation_block_size": (8, 8, 8)}
# Of shards of many cells of the grid, and of chunks that are stored cut off at the array's end.
OTHERS = {
    "n5 raw": (n5, {"compression": {"type": "raw"}}, None),
    "n5 gzip": (n5, {"compression": {"type": "gzip"}}, None),
    "wkw raw": (wkw, {"block_type": "raw"}, "color/1"),
    "wkw lz4": (wkw, {"block_type": "lz4"}, "color/1"),
    "precomputed raw": (precomputed, {}, "4_4_40"),
    "precomputed segmentation": (precomputed, CSEG, "4_4_40"),
    "precomputed shards": (
        precomputed,
        {"sharding": sharding(preshift=2, minishard=2, shard=1, data="gzip")},
        "4_4_40",
    ),
}


@both
@pytest.mark.parametrize("name", OTHERS)
def test_other_formats(kind, name, tmp_path, engines, places):
    write, given, inside = OTHERS[name]
    expected = write(tmp_path / "a", labels((40, 41, 42, 1), "uint32")[..., 0], **given)
    source, server = places(kind, tmp_path / "a")
    engine = engines()
    array = vf.open_array(source, inside, engine=engine)
    for number in range(array.shape[-1 if array.shape[0] == 1 else 0]):
        plane = (..., number) if array.shape[0] == 1 else (number,)
        np.testing.assert_array_equal(array[plane], expected[plane])
    chunks = np.prod([-(-extent // chunk) for extent, chunk in zip(array.shape, array.chunks, strict=True)])
    stats, sent = engine.stats(), server and len(server.requests)
    assert stats.chunks_decoded == stats.chunk_cache_misses == chunks
    np.testing.assert_array_equal(array[...], expected)
    assert engine.stats().chunks_decoded == chunks
    assert sent == (server and len(server.requests))
    assert array.verify().ok


@both
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("axis", [0, 2])
def test_planes_one_after_the_other_decode_each_chunk_once(kind, layout, axis, tmp_path, voxels, engines, places):
    source, server = places(kind, written(tmp_path / "a", voxels, **LAYOUTS[layout]))
    engine = engines()
    array = vf.open_array(source, engine=engine)
    for number in range(SHAPE[axis]):
        plane = (slice(None),) * axis + (number,)
        np.testing.assert_array_equal(array[plane], voxels[plane])
    stats = engine.stats()
    assert stats.chunks_decoded == stats.chunk_cache_misses == COUNT
    assert stats.chunk_cache_hits == COUNT // 6 * SHAPE[axis] - COUNT
    assert voxels.nbytes < stats.chunk_cache_bytes < 2 * voxels.nbytes
    if server:
        spans = [(request.key, request.range) for request in server.requests]
        assert len(spans) == len(set(spans)), "nothing is asked for twice"


@both
def test_overlapping_crops(kind, tmp_path, voxels, engines, places):
    source, _ = places(kind, written(tmp_path / "a", voxels))
    engine = engines()
    array = vf.open_array(source, engine=engine)
    dice = np.random.default_rng(1)
    padded = np.pad(voxels, 40)
    for _ in range(20):
        starts = dice.integers(-20, 90, (5, 3))
        boxes = [padded[tuple(slice(at + 40, at + 70) for at in start)] for start in starts]
        np.testing.assert_array_equal(array.read_many(starts, 30, bounds="fill"), boxes)
        np.testing.assert_array_equal(array.read_box(starts[0], 30, bounds="fill"), boxes[0])
    assert engine.stats().chunks_decoded <= COUNT
    before = engine.stats().chunks_decoded
    for box, block in array.blocks(24, halo=5, prefetch=0):
        middle = tuple(slice(5, 5 + extent) for extent in box.shape)
        np.testing.assert_array_equal(block[middle], voxels[box.slices])
    assert engine.stats().chunks_decoded == COUNT >= before


@both
def test_off_by_default(kind, tmp_path, voxels, places):
    source, _ = places(kind, written(tmp_path / "a", voxels))
    with vf.Engine() as engine:
        array = vf.open_array(source, engine=engine)
        for _ in range(2):
            np.testing.assert_array_equal(array[3], voxels[3])
        stats = engine.stats()
    assert stats.chunks_decoded == 2 * 36
    assert stats.chunk_cache_hits == stats.chunk_cache_misses == stats.chunk_cache_bytes == 0


@both
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_explained_is_what_is_read(kind, layout, tmp_path, voxels, engines, places):
    source, _ = places(kind, written(tmp_path / "a", voxels, **LAYOUTS[layout]))
    engine = engines()
    array = vf.open_array(source, engine=engine)
    for selection in (np.s_[4, 20:70, 3:5], np.s_[8, 10:80], np.s_[:, 50], np.s_[30:90, 20:60, 10], np.s_[...]):
        array.explain(selection)  # reads the indexes
        report, before = array.explain(selection), engine.stats()
        np.testing.assert_array_equal(array[selection], voxels[selection])
        after = engine.stats()
        assert report.requests == after.requests - before.requests
        assert report.round_trips == (1 if report.requests else 0)
        if report.exact:
            assert report.bytes_fetched == after.bytes_read - before.bytes_read
        warm = array.explain(selection)
        assert (warm.requests, warm.bytes_fetched, warm.exact) == (0, 0, True)
        assert warm.bytes_from_cache >= warm.bytes_needed > 0
        assert kind == "http" or warm.bytes_needed == report.bytes_needed


@both
def test_the_bound_holds_and_answers_are_right_under_threads(kind, tmp_path, voxels, engines, places):
    limit = 40 * 2 * 16**3
    source, _ = places(kind, written(tmp_path / "a", voxels))
    engine = engines(limit)
    array = vf.open_array(source, engine=engine)
    failures, most = [], []

    def work(seed):
        dice = random.Random(seed)
        try:
            for _ in range(40):
                place = tuple(slice(start := dice.randrange(n), start + dice.choice([1, 1, 20, 60])) for n in SHAPE)
                np.testing.assert_array_equal(array[place], voxels[place])
                most.append(engine.stats().chunk_cache_bytes)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert limit * 3 // 4 < max(most) <= limit
    assert engine.stats().chunk_cache_hits > 0
    engine.close()
    assert engine.stats().chunk_cache_bytes == 0
    np.testing.assert_array_equal(array[50], voxels[50])


def test_two_arrays_over_the_same_file(tmp_path, voxels, engines):
    """One with another type of voxels and one with other codecs; what is kept of one is not for the others."""
    first = written(tmp_path / "a", voxels, compressors=None, shards=None)
    settle(first)
    document = json.loads((first / "zarr.json").read_text())
    views = {"uint16": voxels, "int16": voxels.view("int16"), ">u2": voxels.byteswap()}
    engine = engines()
    arrays = []
    for name in views:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "c").symlink_to(first / "c")
        other = document | {"data_type": "int16" if name == "int16" else "uint16"}
        if name == ">u2":
            other["codecs"] = [{"name": "bytes", "configuration": {"endian": "big"}}]
        (folder / "zarr.json").write_text(json.dumps(other))
        arrays.append(vf.open_array(folder, engine=engine))
    for _ in range(2):
        for array, expected in zip(arrays, views.values(), strict=True):
            np.testing.assert_array_equal(array[20:50, :, 3], expected[20:50, :, 3])
    assert engine.stats().chunk_cache_hits == engine.stats().chunk_cache_misses > 0


# ---------------------------------------------------------------------------------------------------- other versions


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_read_after_a_write_is_right(layout, tmp_path, voxels, engines):
    engine = engines()
    kind = {"chunks": CHUNKS, "shards": False if "unsharded" in layout else SHARDS}
    kind |= {"codecs": ["bytes"]} if "raw" in layout else {}
    array = vf.create(tmp_path / "a", shape=SHAPE, dtype="uint16", **kind)
    array = vf.open_array(tmp_path / "a", mode="r+", engine=engine)
    for number in range(30):
        array[...] = voxels + number
        if number % 3 == 0:
            settle(tmp_path / "a")
        for _ in range(2):
            np.testing.assert_array_equal(array[40], voxels[40] + number)
    assert engine.stats().chunk_cache_hits > 0


def test_a_file_that_was_just_written_is_not_kept(tmp_path, voxels, engines):
    """Its next version could have the same size and, by a coarse clock, the same time."""
    path = written(tmp_path / "a", voxels)
    engine = engines()
    array = vf.open_array(path, engine=engine)
    for age_s, is_kept in ((0, False), (-100, False), (100, True)):
        for file in path.rglob("*"):
            os.utime(file, (time.time() - age_s,) * 2)
        array[3]
        assert (engine.stats().chunk_cache_bytes > 0) == is_kept


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("etags", ["strong", "weak", None])
def test_another_version_on_a_server(layout, etags, tmp_path, voxels, engines):
    old = objects_in(written(tmp_path / "a", voxels, **LAYOUTS[layout]))
    new = objects_in(written(tmp_path / "b", ~voxels, **LAYOUTS[layout]))
    with FaultyServer(old, etags=etags) as server:
        engine = engines()
        array = vf.open_array(server.url, engine=engine)
        careful = array.with_options(vf.ReadOptions(index_ttl_s=0))
        for _ in range(2):
            np.testing.assert_array_equal(array[40], voxels[40])
        hits, sent = engine.stats().chunk_cache_hits, len(server.requests)
        assert hits == 36
        np.testing.assert_array_equal(careful[40], voxels[40])
        asked = server.requests[sent:]
        if etags == "strong" and "unsharded" not in layout:
            assert len(asked) == 2, "the indexes of the shards"
            assert engine.stats().chunk_cache_hits == 2 * hits
        else:
            assert len(asked) > 2
            assert engine.stats().chunk_cache_hits == hits
        for key, value in new.items():
            server.put(key, value)
        np.testing.assert_array_equal(careful[40], ~voxels[40])
        np.testing.assert_array_equal(array[41], ~voxels[41])


def test_verify_reads_what_is_stored(tmp_path, voxels, engines):
    path = written(tmp_path / "a", voxels)
    settle(path)
    engine = engines()
    array = vf.open_array(path, engine=engine)
    np.testing.assert_array_equal(array[...], voxels)
    assert array.verify().ok
    shard = path / "c/0/0/0"
    before, stored = shard.stat(), bytearray(shard.read_bytes())
    stored[:200] = bytes(200)
    shard.write_bytes(stored)
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
    # As the docstring of the engine says.
    np.testing.assert_array_equal(array[...], voxels)
    assert not array.verify().ok


@both
def test_what_was_read_without_checksums_is_for_those_who_want_none(kind, tmp_path, voxels, engines, places):
    path = written(tmp_path / "a", voxels, compressors=zarr.codecs.Crc32cCodec(), shards=None)
    chunk = path / "c/0/0/0"
    stored = bytearray(chunk.read_bytes())
    stored[-1] ^= 1
    chunk.write_bytes(stored)
    source, _ = places(kind, path)
    engine = engines()
    array = vf.open_array(source, engine=engine)
    cheap = array.with_options(vf.ReadOptions(verify="cheap"))
    for _ in range(2):
        np.testing.assert_array_equal(cheap[0], voxels[0])
        with pytest.raises(vf.ChecksumError):
            array[0]
    assert engine.stats().chunk_cache_hits > 0


@both
def test_a_chunk_that_is_broken_where_it_is_not_needed(kind, tmp_path, make_values, engines, places):
    """Reads as without a cache: its first planes, and no more."""
    noise = make_values((128, 64, 64), "uint8") & 15
    path = written(tmp_path / "a", noise, chunks=(128, 64, 64), shards=None)
    chunk = path / "c/0/0/0"
    stored = bytearray(chunk.read_bytes())
    stored[-2000:] = bytes(2000)
    chunk.write_bytes(stored)
    source, _ = places(kind, path)
    for nbytes in (0, LARGE):
        array = vf.open_array(source, engine=engines(nbytes))
        for _ in range(2):
            np.testing.assert_array_equal(array[3], noise[3])
            with pytest.raises(vf.CodecError):
                array[127]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_starts_empty(tmp_path, voxels):
    path = written(tmp_path / "a", voxels)
    settle(path)
    np.save(tmp_path / "expected.npy", voxels)
    code = """
import os, signal, sys, warnings
import numpy as np
import voxfetch as vf
warnings.simplefilter("ignore", DeprecationWarning)
signal.alarm(40)
expected = np.load(sys.argv[2])
engine = vf.Engine(chunk_cache_bytes=64 << 20)
array = vf.open_array(sys.argv[1], engine=engine)
def check(hits):
    assert (array[3] == expected[3]).all()
    assert engine.stats().chunk_cache_hits == hits, engine.stats()
check(0)
check(36)
sys.stdout.flush()
pid = os.fork()
if pid == 0:
    try:
        signal.alarm(20)
        assert engine.stats().chunk_cache_bytes == 0
        check(0)
        check(36)
        os._exit(0)
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
check(72)
print("done")
"""
    arguments = [sys.executable, "-W", "error", "-c", code, str(path), str(tmp_path / "expected.npy")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=55, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "done\n"), done.stderr + done.stdout
