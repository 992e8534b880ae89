"""`voxfetch.ZarrPipeline` in use: arrays that change, pickles, threads, loops, forks, and how it is chosen."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import logging
import os
import pickle
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.core.buffer import default_buffer_prototype

import voxfetch as vf
from tests.zarr_arrays import CHUNKS, PIPELINE, SHAPE, SHARDS, all_accelerated, same, stored
from voxfetch.zarr import ZarrPipeline, report

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.filterwarnings(
    "ignore::zarr.errors.UnstableSpecificationWarning", "ignore::zarr.errors.ZarrUserWarning"
)


# ------------------------------------------------------------------------------------------------------- what changes


@pytest.fixture(params=["memory", "local"])
def store(request, tmp_path):
    return zarr.storage.MemoryStore() if request.param == "memory" else zarr.storage.LocalStore(tmp_path)


@pytest.mark.parametrize("shards", [None, (8, 8)])
def test_what_is_written_is_read(store, shards):
    array = stored(store, shape=(30, 20), chunks=(4, 4), shards=shards)
    with zarr.config.set(PIPELINE):
        fast = zarr.open_array(store, path="a")
    assert isinstance(fast._async_array.codec_pipeline, ZarrPipeline)
    same(fast[...], array[...])
    for number, place in enumerate([np.s_[...], np.s_[3:9, 2], np.s_[29, 19]]):
        fast[place] = 1000 + number  # through itself
        same(fast[...], array[...])
        array[place] = 2000 + number  # through another object
        same(fast[...], array[...])
    for key in ("a/c/0/0", "a/c/1/1"):
        zarr.core.sync.sync(store.delete(key))
        assert not fast[:4, :4].any()
        same(fast[...], array[...])
    array[...] = 7  # and back again
    same(fast[...], array[...])
    all_accelerated(fast)


def test_another_process_writes(tmp_path):
    array = stored(str(tmp_path), shape=(30, 20), chunks=(4, 4), shards=(8, 8))
    fast = vf.accelerate(array)
    same(fast[...], array[...])
    code = f"import zarr; zarr.open_array({str(tmp_path)!r}, path='a')[2:19] = 4242"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)
    assert (fast[2:19] == 4242).all()
    same(fast[...], array[...])


@pytest.mark.parametrize("shards", [None, (8, 8)])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_resize_append_and_attributes(store, zarr_format, shards):
    if zarr_format == 2 and shards:
        pytest.skip("version 2 has no shards")
    array = stored(store, shape=(10, 10), chunks=(4, 4), shards=shards, zarr_format=zarr_format, fill_value=9)
    fast = vf.accelerate(array)
    expected = array[...]
    same(fast[...], expected)
    fast.append(expected)
    expected = np.concatenate([expected, expected])
    same(fast[...], expected)
    for _ in range(2):
        fast.append(expected, axis=1)
        expected = np.concatenate([expected, expected], axis=1)
    same(fast[...], expected)
    fast.resize((100, 3))
    same(fast[:20], expected[:, :3])
    assert (fast[20:] == 9).all()
    fast.resize((3, 3))
    same(fast[...], expected[:3, :3])
    fast.resize((12, 12))
    fast.update_attributes({"some": "thing"})
    same(fast[...], zarr.open_array(store, path="a", mode="r")[...])
    fast[...] = 5
    assert (fast[...] == 5).all()
    all_accelerated(fast)


# ---------------------------------------------------------------------------------------- pickles, threads, processes


def test_pickles_and_equals(tmp_path):
    for name, fill in (("a", 0), ("b", float("nan"))):
        array = stored(str(tmp_path), shape=(9, 9), dtype="f4", chunks=(4, 4), name=name, fill_value=fill)
        fast = vf.accelerate(array)
        same(fast[...], array[...])
        again = pickle.loads(pickle.dumps(fast))
        assert isinstance(again._async_array.codec_pipeline, ZarrPipeline)
        assert pickle.dumps(fast._async_array.codec_pipeline).count(b"voxfetch") == 1, "nothing of ours is in it"
        same(again[...], array[...])
        all_accelerated(again, 1)
    assert again == fast or name == "b"
    assert ZarrPipeline.__module__ == "voxfetch"
    assert ZarrPipeline.__qualname__ == "ZarrPipeline"
    assert pickle.loads(pickle.dumps(ZarrPipeline)) is ZarrPipeline


def test_many_threads_read_one_array(store):
    array = stored(store, shape=SHAPE, chunks=CHUNKS, shards=SHARDS)
    fast, expected = vf.accelerate(array), array[...]

    def work(number):
        place = np.s_[number % 30 :, number % 7 :: 1 + number % 3]
        return np.array_equal(fast[place], expected[place])

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(120)))
    all_accelerated(fast, 120)


def test_loops_of_the_user(store):
    array = stored(store, shape=SHAPE, chunks=CHUNKS, shards=SHARDS)
    fast, expected = vf.accelerate(array)._async_array, array[...]

    loops = []

    async def main():
        loops.append(weakref.ref(asyncio.get_running_loop()))
        return await asyncio.gather(*(fast.getitem(np.s_[number:]) for number in range(20)))

    for _ in range(3):
        for number, got in enumerate(asyncio.run(asyncio.wait_for(main(), 20))):
            same(got, expected[number:])
    all_accelerated(fast, 60)
    gc.collect()
    assert [loop() for loop in loops] == [None] * 3, "nothing is kept for loops that are gone"


@pytest.mark.parametrize("end", ["cancelled", "timed out"])
def test_a_read_that_is_cancelled(end, caplog):
    """The store is asked on the loop of the user, which ends while it has not answered."""
    plain = stored(shape=SHAPE, chunks=CHUNKS, shards=SHARDS)
    begun, ended = asyncio.Event(), asyncio.Event()

    class Slow(zarr.storage.MemoryStore):
        async def get(self, key, prototype=None, byte_range=None):
            if "/c/" in key and not ended.is_set():
                begun.set()
                try:
                    await asyncio.sleep(30)
                except asyncio.CancelledError:
                    ended.set()
                    raise
            return await super().get(key, prototype, byte_range)

        async def getsize(self, key):
            return len((await super().get(key, default_buffer_prototype())).to_bytes())

    fast = vf.accelerate(zarr.open_array(Slow(plain.store._store_dict), path="a"))

    async def main():
        read = asyncio.ensure_future(fast._async_array.getitem(...))
        await begun.wait()
        if end == "cancelled":
            read.cancel()
        with pytest.raises(asyncio.CancelledError if end == "cancelled" else TimeoutError):
            await asyncio.wait_for(read, 0.05)
        await asyncio.wait_for(ended.wait(), 10)  # the store is told

    asyncio.run(main())
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]
    same(fast[...], plain[...])


class OneLoop(zarr.storage.MemoryStore):
    """A store that works on the loop only on which it is asked first."""

    loop = None

    async def get(self, key, prototype=None, byte_range=None):
        loop = asyncio.get_running_loop()
        self.loop = self.loop or loop
        assert loop is self.loop, "another loop"
        await asyncio.sleep(0)
        return await super().get(key, prototype, byte_range)


def test_a_store_is_used_on_the_loop_that_reads():
    plain = stored(shape=SHAPE, chunks=CHUNKS, shards=SHARDS)
    expected, data = plain[...], plain.store._store_dict

    async def main():
        array = await zarr.api.asynchronous.open_array(store=OneLoop(data), path="a")
        fast = vf.accelerate(array)
        same(await fast.getitem(...), expected)
        all_accelerated(fast, 1)

    asyncio.run(asyncio.wait_for(main(), 20))
    fast = vf.accelerate(zarr.open_array(OneLoop(data), path="a"))
    same(fast[...], expected)


FORK = """
import os, signal, sys, warnings
import numpy as np, zarr
import voxfetch as vf
from voxfetch.zarr import report
warnings.simplefilter("ignore", DeprecationWarning)
signal.alarm(40)
store = sys.argv[1] if sys.argv[1] != "memory" else {}
array = zarr.create_array(store, name="a", shape=(30, 40), dtype="u2", chunks=(4, 4), shards=(8, 8))
array[...] = np.arange(1200).reshape(30, 40)
fast = vf.accelerate(array)
expected = fast[...]
for _ in range(3):
    pid = os.fork()
    if not pid:
        signal.alarm(20)
        good = np.array_equal(fast[...], expected) and report(fast).not_accelerated == 0
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert np.array_equal(fast[...], expected)
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("place", ["memory", "local"])
def test_a_forked_child_reads(tmp_path, place):
    arguments = [sys.executable, "-c", FORK, "memory" if place == "memory" else str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=55, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "done\n")


# ---------------------------------------------------------------------------------------------------- how it is chosen

CHOSEN = """
import sys, zarr
{before}
array = zarr.create_array({{}}, shape=(4, 4), chunks=(2, 2), dtype="u1")
array[...] = 3
print(type(array._async_array.codec_pipeline).__module__, int(array[...].sum()))
import voxfetch.zarr
print(voxfetch.zarr.report())
"""
ENTRY_POINTS = "[zarr.codec_pipeline]\nvoxfetch = voxfetch:ZarrPipeline\n"


@pytest.mark.parametrize(
    ("before", "environment", "entry_points"),
    [
        ("", True, True),
        ("zarr.config.set({'codec_pipeline.path': 'voxfetch.ZarrPipeline'})", False, True),
        ("import voxfetch.zarr", True, False),
        ("import voxfetch; voxfetch.ZarrPipeline", True, False),
        ("import voxfetch.zarr; zarr.config.set({'codec_pipeline.path': 'voxfetch.ZarrPipeline'})", False, False),
    ],
)
def test_chosen_by_name(tmp_path, before, environment, entry_points):
    path = [entry for entry in sys.path if entry]
    if entry_points:
        about = tmp_path / "fake_voxfetch-0.dist-info"
        about.mkdir()
        (about / "entry_points.txt").write_text(ENTRY_POINTS)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-voxfetch\nVersion: 0\n")
        path.insert(0, str(tmp_path))
    variables = {"ZARR_CODEC_PIPELINE__PATH": "voxfetch.ZarrPipeline"} if environment else {}
    done = subprocess.run(
        [sys.executable, "-c", CHOSEN.format(before=before)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(path), **variables},
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "voxfetch 48\n1 of 1 reads accelerated\n"


def test_our_entry_point_is_the_one_that_is_tried():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["zarr.codec_pipeline"] == {"voxfetch": "voxfetch:ZarrPipeline"}


def test_accelerate_leaves_the_given_array_alone(store):
    array = stored(store, shape=(9, 9), chunks=(4, 4))
    before = array._async_array.codec_pipeline
    fast = vf.accelerate(array)
    assert array._async_array.codec_pipeline is before
    assert type(fast) is zarr.Array
    assert type(vf.accelerate(array._async_array)) is zarr.AsyncArray
    for wrong in (zarr.create_group({}), array[...], "a"):
        with pytest.raises(TypeError, match="an Array or AsyncArray of zarr was expected"):
            vf.accelerate(wrong)
    with pytest.raises(TypeError, match="does not use"):
        report(array)


def test_the_example():
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / "zarr_pipeline.py")],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "ZarrPipeline: mean 121.692" in done.stdout
    assert "2 of 2 reads accelerated" in done.stdout


def test_a_read_that_raises_is_counted_too(tmp_path):
    array = stored(str(tmp_path), shape=(8, 8), chunks=(4, 4), shards=(8, 8))
    fast = vf.accelerate(array)
    shard = tmp_path / "a" / "c" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(vf.DataError):
        fast[...]
    counts = vf.zarr.report(fast)
    assert (counts.accelerated, counts.not_accelerated) == (1, 0)
