"""The engine and the knobs: what is refused, what is counted, what closing does."""

from __future__ import annotations

import dataclasses
import gc
import os
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

import voxfetch as vf


def test_knobs_are_resolved():
    options = vf.Engine().options
    assert options.memory_limit_bytes >= 64 << 20
    assert options.index_cache_bytes + options.chunk_cache_bytes <= options.memory_limit_bytes
    assert 1 <= options.decode_threads <= (os.cpu_count() or 1)
    assert options.retry == vf.RetryPolicy()
    mine = vf.Engine(1 << 30, 10, 1 << 20, 2 << 20, 3, retry=vf.RetryPolicy(max_attempts=2)).options
    assert dataclasses.asdict(mine) == {
        "memory_limit_bytes": 1 << 30,
        "max_requests": 10,
        "index_cache_bytes": 1 << 20,
        "chunk_cache_bytes": 2 << 20,
        "decode_threads": 3,
        "retry": {"max_attempts": 2, "base_s": 0.1, "cap_s": 10, "idle_timeout_s": 10, "hedge_s": None},
    }


@pytest.mark.parametrize(
    ("make", "keywords"),
    [
        (vf.Engine, {"memory_limit_bytes": 0}),
        (vf.Engine, {"memory_limit_bytes": 1 << 24, "index_cache_bytes": 1 << 25}),
        (vf.Engine, {"max_requests": 0}),
        (vf.Engine, {"index_cache_bytes": -1}),
        (vf.Engine, {"decode_threads": 0}),
        (vf.Engine, {"decode_threads": 1.5}),
        (vf.Engine, {"decode_threads": True}),
        (vf.ReadOptions, {"max_gap_bytes": -1}),
        (vf.ReadOptions, {"max_request_bytes": 0}),
        (vf.ReadOptions, {"verify": "none"}),
        (vf.ReadOptions, {"verify": True}),
        (vf.ReadOptions, {"on_missing": "nan"}),
        (vf.ReadOptions, {"index_ttl_s": -1}),
        (vf.ReadOptions, {"index_ttl_s": float("nan")}),
        (vf.ReadOptions, {"immutable": 1}),
        (vf.ReadOptions, {"priority": "high"}),
        (vf.RetryPolicy, {"max_attempts": 0}),
        (vf.RetryPolicy, {"base_s": 0}),
        (vf.RetryPolicy, {"cap_s": 0.01}),
        (vf.RetryPolicy, {"idle_timeout_s": "10"}),
        (vf.StoreOptions, {"anonymous": "yes"}),
        (vf.StoreOptions, {"endpoint": 3}),
        (vf.StoreOptions, {"missing_status": 200}),
    ],
)
def test_refused_knobs(make, keywords):
    with pytest.raises(
        (ValueError, TypeError), match=next(iter(keywords)) if len(keywords) == 1 else "index_cache_bytes"
    ):
        make(**keywords)


def test_options_are_frozen_and_hide_secrets():
    options = vf.StoreOptions(credentials={"key": "hunter2"}, headers={"Authorization": "hunter2"}, missing_status=403)
    assert "hunter2" not in repr(options)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.profile = "x"


def test_reports_print_tables():
    report = vf.ReadReport(4, 1, 1000, 7, 12, 5_000_000, 6_000_000, 99, 2, exact=False)
    assert str(report).splitlines() == [
        "shards            4 (1 not stored)",
        "chunks            1,000 (7 not stored)",
        "requests          12 in 2 round trips",
        "bytes needed      5,000,000 (4.8 MiB)",
        "bytes fetched     6,000,000 (5.7 MiB)",
        "bytes from cache  99",
        "exact             no: some indexes or cached chunks are not certain yet",
    ]
    problems = tuple(vf.CodecError(f"broken {number}") for number in range(12))
    text = str(vf.VerifyReport(12, 0, 12, 0, 1 << 40, 15, problems))
    assert "1.0 TiB" in text
    assert "CodecError: broken 9" in text
    assert "broken 10" not in text
    assert "and 5 more" in text


def test_stats_count(volume):
    with vf.Engine(decode_threads=2) as engine:
        array = vf.open_array(volume.path, engine=engine)
        assert engine.stats().reads == engine.stats().bytes_read == 0
        array[0:8, 0:10, 0:9]
        first = engine.stats()
        array[0:8, 0:10, 0:9]
        second = engine.stats()
        assert (first.reads, second.reads) == (1, 2)
        assert second.chunks_decoded + second.chunks_missing == 2
        assert second.index_hits > first.index_hits
        assert second.index_misses == first.index_misses
        assert second.threads == 2
        assert "chunks decoded" in str(second)


def test_each_chunk_is_decoded_once_per_plan(volume):
    with vf.Engine() as engine:
        array = vf.open_array(volume.path, engine=engine)
        array.read_many([[0, 0, 0]] * 50, (8, 10, 9))
        stats = engine.stats()
        assert stats.chunks_decoded + stats.chunks_missing == 1


def test_works_again_after_close(volume):
    engine = vf.Engine()
    array = vf.open_array(volume.path, engine=engine)
    with engine:
        np.testing.assert_array_equal(array[...], volume.expected)
    assert engine.stats().open_files == 0
    np.testing.assert_array_equal(array[...], volume.expected)
    engine.close()
    engine.close()


def test_close_while_others_read(volume):
    engine = vf.Engine(decode_threads=2)
    array = vf.open_array(volume.path, engine=engine)
    stop, failures = threading.Event(), []

    def work():
        try:
            while not stop.is_set():
                np.testing.assert_array_equal(array[...], volume.expected)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        engine.close()
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_dropped_engine_goes_away(volume):
    def threads():
        return len(os.listdir("/proc/self/task"))

    if not os.path.isdir("/proc/self/task"):
        pytest.skip("counts threads in /proc")
    before = threads()
    engine = vf.Engine(decode_threads=4)
    array = vf.open_array(volume.path, engine=engine)
    array[...]
    assert threads() > before
    gone = weakref.ref(engine)
    del engine, array
    gc.collect()
    assert gone() is None
    assert threads() <= before


def test_default_engine_is_one():
    found = []
    threads = [threading.Thread(target=lambda: found.append(vf.default_engine())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {vf.default_engine()}


def run(code, *arguments):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_interpreter_exit_is_silent(volume):
    code = """
import sys, threading, voxfetch as vf
array = vf.open_array(sys.argv[1])
array[...]
list(array.blocks(8))
iterator = iter(array.blocks(8))
next(iterator)
mine = vf.Engine(decode_threads=3)
vf.open_array(sys.argv[1], engine=mine)[...]
print("read")
"""
    done = run(code, str(volume.path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "read\n", "")


def test_ctrl_c_interrupts_a_long_read(tmp_path):
    """One voxel of each of very many chunks that are not stored: long enough to be interrupted."""
    code = """
import os, signal, sys, threading, voxfetch as vf
# A shell that starts the tests in the background has them ignore the signal.
signal.signal(signal.SIGINT, signal.default_int_handler)
array = vf.create(sys.argv[1], shape=(1 << 24, 8), dtype="u1", chunks=(1, 8), shards=False)
array[0:64] = 1
def interrupt():
    while True:
        # The signal is sent once the main thread is inside the read.
        if vf.default_engine().stats().reads >= 1:
            os.kill(os.getpid(), signal.SIGINT)
            return
threading.Thread(target=interrupt, daemon=True).start()
try:
    array[:, 0]
except KeyboardInterrupt:
    print("interrupted")
"""
    done = run(code, str(tmp_path / "a"))
    assert done.stdout == "interrupted\n", done.stderr


def test_import_is_lazy_and_public_names_exist():
    code = """
import sys, voxfetch as vf
heavy = {"asyncio", "zarr", "dask", "xarray", "torch", "aiohttp", "obstore", "fsspec", "rich", "voxfetch.image"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert callable(vf.open)
missing = [name for name in vf.__all__ if not hasattr(vf, name)]
assert not missing, missing
import voxfetch.open, voxfetch.image
assert callable(vf.open), "the function, not the module"
assert dir(vf) == sorted(vf.__all__)
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_import_is_fast():
    """At most 20 ms of processor time more than numpy; the best of three, for the machine has others on it."""
    code = "import numpy, time; start = time.process_time(); import voxfetch; print(time.process_time() - start)"
    assert min(float(run(code).stdout) for _ in range(3)) < 0.020
