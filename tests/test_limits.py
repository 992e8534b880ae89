"""Limits, by counts that no load of the machine changes: what is asked for, kept and held when there is much of it.

How long it takes is the business of ``python -m bench limits``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time

import numpy as np
import pytest
import zarr

import voxfetch as vf
from tests.servers import objects_in
from tests.servers.faulty import FaultyServer
from voxfetch.wake import close_descriptors, wake_descriptors

SIDE = 16
ENTRIES = SIDE**3


@pytest.fixture
def shard(tmp_path):
    """An array of one shard of 16^3 chunks of 4^3, written by zarr-python, and its voxels."""
    voxels = np.random.default_rng(0).integers(1, 255, (4 * SIDE,) * 3, "u1")
    layout = {"chunks": (4,) * 3, "shards": voxels.shape, "compressors": None, "fill_value": 0}
    array = zarr.create_array(str(tmp_path / "one"), shape=voxels.shape, dtype="u1", **layout)
    array[...] = voxels
    return tmp_path / "one", voxels


def spread(path, name, shards, places):
    """An array of `shards` shards along each axis, of which those at `places` are stored: links to that of `path`."""
    folder = path.parent / name
    folder.mkdir()
    document = json.loads((path / "zarr.json").read_text())
    document["shape"] = [n * count for n, count in zip(document["shape"], shards, strict=True)]
    (folder / "zarr.json").write_text(json.dumps(document))
    for place in places:
        link = folder.joinpath("c", *map(str, place))
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path / "c/0/0/0")
    return folder


def counted(engine):
    stats = engine.stats()
    return stats.requests, stats.bytes_read, stats.chunks_decoded, stats.index_misses, stats.open_files


def test_a_vast_array_costs_what_a_small_one_does(shard):
    small, voxels = shard
    vast = spread(small, "vast", (256, 256, 64), [(100, 200, 50)])
    costs = []
    for path, place in ((small, (0, 0, 0)), (vast, (100, 200, 50))):
        start = tuple(4 * SIDE * n + 10 for n in place)
        with vf.Engine(decode_threads=1) as engine:
            array = vf.open_array(path, engine=engine)
            box = tuple(slice(n, n + 20) for n in start)
            report = array.explain(box)
            np.testing.assert_array_equal(array[box], voxels[10:30, 10:30, 10:30])
            costs.append((report, counted(engine)))
    assert array.size // 4**3 == 2**34
    assert costs[0] == costs[1]


def test_of_a_vast_array_only_what_a_box_touches_is_asked_for(shard):
    vast = spread(shard[0], "vast", (256, 256, 64), [(100, 200, 50)])
    with FaultyServer(objects_in(vast)) as server, vf.Engine() as engine:
        array = vf.open_array(server.url, engine=engine)
        start = (100 * 64 + 60, 200 * 64, 50 * 64)
        got = array.read_box(start, (8, 4, 4))
        np.testing.assert_array_equal(got[:4], shard[1][60:, :4, :4])
        assert not got[4:].any()
    assert {request.key for request in server.requests} == {"zarr.json", "c/100/200/50", "c/101/200/50"}


def test_an_epoch_fetches_each_index_once(shard):
    path, voxels = shard
    shards = 60
    epoch = spread(path, "epoch", (shards, 1, 1), [(n, 0, 0) for n in range(shards)])
    order = np.random.default_rng(1).permutation(np.repeat(np.arange(shards), 4))
    starts = np.random.default_rng(2).integers(0, 4 * SIDE - 4, (len(order), 3))
    truth = np.stack([voxels[z : z + 4, y : y + 4, x : x + 4] for z, y, x in starts])
    starts[:, 0] += order * 4 * SIDE
    # 3 bytes a chunk, and half a KiB for whatever else an index takes.
    most = shards * (3 * ENTRIES + 512)
    with FaultyServer(objects_in(epoch)) as server, vf.Engine(64 << 20, index_cache_bytes=most) as engine:
        array = vf.open_array(server.url, engine=engine)
        for first in range(0, len(order), 16):
            got = array.read_many(starts[first : first + 16], 4)
            np.testing.assert_array_equal(got, truth[first : first + 16])
        stats = engine.stats()
    assert stats.index_misses == shards
    assert stats.index_cache_bytes <= most


@pytest.mark.parametrize("writer", ["zarr", "zarrs", "tensorstore"])
def test_an_index_takes_three_bytes_a_chunk_whoever_wrote_it(tmp_path, writer):
    # Sizes from 20 to 500 bytes; some chunks are not stored.
    dice = np.random.default_rng(1)
    voxels = dice.integers(0, 256, (8 * SIDE,) * 3, "u1")
    voxels &= np.repeat(dice.integers(0, 256, (1, 8 * SIDE, SIDE), "u1"), 8, axis=2)
    voxels[:24, :24, :24] = 0
    if writer == "tensorstore":
        tensorstore = pytest.importorskip("tensorstore")
        sharding = {
            "chunk_shape": [8] * 3,
            "codecs": [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 1}}],
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        }
        metadata = {
            "shape": voxels.shape,
            "data_type": "uint8",
            "fill_value": 0,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": voxels.shape}},
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        }
        kvstore = {"driver": "file", "path": f"{tmp_path}/a/"}
        tensorstore.open({"driver": "zarr3", "kvstore": kvstore, "metadata": metadata}, create=True).result()[...] = (
            voxels
        )
    else:
        pipeline = {}
        if writer == "zarrs":
            pytest.importorskip("zarrs")
            pipeline = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "codec_pipeline.strict": True}
        with zarr.config.set(pipeline):
            layout = {"chunks": (8,) * 3, "shards": voxels.shape, "fill_value": 0}
            zarr.create_array(str(tmp_path / "a"), shape=voxels.shape, dtype="u1", **layout)[...] = voxels
    with vf.Engine() as engine:
        np.testing.assert_array_equal(vf.open_array(tmp_path / "a", engine=engine)[...], voxels)
        assert 0 < engine.stats().index_cache_bytes <= 3 * ENTRIES + 512


# -------------------------------------------------------------------------------------------------- many reads at once


@pytest.mark.parametrize("medium", ["disk", "HTTP"])
def test_many_reads_at_once_share_threads_and_descriptors(shard, medium):
    path, voxels = shard
    starts = np.random.default_rng(0).integers(0, 4 * SIDE - 4, (10_000, 3)).tolist()
    before = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
    most = [0, 0]

    def look():
        for number, what in enumerate(("fd", "task")):
            most[number] = max(most[number], len(os.listdir(f"/proc/self/{what}")) - before[number])

    async def main(array):
        tasks = [asyncio.ensure_future(array.read_box_async(start, 4)) for start in starts]
        while not all(task.done() for task in tasks):
            look()
            await asyncio.sleep(0.01)
        look()
        for (z, y, x), task in zip(starts, tasks, strict=True):
            assert (task.result() == voxels[z : z + 4, y : y + 4, x : x + 4]).all()

    with FaultyServer(objects_in(path)) as server, vf.Engine(64 << 20, max_requests=8, decode_threads=2) as engine:
        asyncio.run(main(vf.open_array(path if medium == "disk" else server.url, engine=engine)))
    # The server is in this process: its thread, and its end of each connection. A connection whose reply is complete
    # may not be free yet when the next request is sent. Three loops have descriptors, and the channels.
    assert most[0] <= 2 * 2 * 8 + 32
    assert most[1] <= 8


def test_other_threads_run_while_many_ends_are_taken(shard):
    """20,000 reads that have ended are handed to Python in one call, in which other threads have their turns."""
    count, turns, stop = 20_000, [0], threading.Event()

    def take_turns():
        while not stop.is_set():
            turns[0] += 1
            time.sleep(0)

    with vf.Engine(decode_threads=2) as engine:
        array = vf.open_array(shard[0], engine=engine)
        fd, end = wake_descriptors()
        for token in range(count):
            engine.core.submit(array._reads.box((0, 0, 0), (4, 4, 4), bounds="raise").reads, token, end)
        while engine.stats().chunks_decoded < count:
            time.sleep(0.01)
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        thread = threading.Thread(target=take_turns)
        thread.start()
        try:
            before = turns[0]
            ended = engine.core.take_completed(end)
            meanwhile = turns[0] - before
        finally:
            stop.set()
            thread.join()
            sys.setswitchinterval(interval)
            close_descriptors(fd, end)
    # The last read may have counted its chunk and not have ended.
    assert len(ended) >= count - 2
    # One turn before the call, one after it.
    assert meanwhile >= 4
