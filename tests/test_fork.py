"""Fork: whatever the parent has used, the child reads right, and the parent goes on. A hang is a failure."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

# The parent: `use(...)` makes use of the engine, `child()` runs in the forked process. An alarm ends whatever hangs.
PRELUDE = """
import asyncio, faulthandler, os, signal, sys, threading, warnings
import numpy as np
import numpy.testing  # at once: were it imported while another thread forks, its lock would be held in the child
import voxfetch as vf

warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of fork with threads
faulthandler.register(signal.SIGALRM, chain=True)  # says where it hangs, without a thread of its own
signal.alarm(40)
path, expected = sys.argv[1], np.load(sys.argv[2])
array = vf.open_array(path)

def check(a=None):
    np.testing.assert_array_equal((a or array)[...], expected)

def check_async():
    async def main():
        blocks = await asyncio.gather(*(array.read_async() for _ in range(10)))
        for block in blocks:
            np.testing.assert_array_equal(block, expected)
    asyncio.run(main())

def in_child(work, times=1):
    for _ in range(times):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                signal.alarm(20)
                work()
                code = 0
            except BaseException:
                import traceback
                traceback.print_exc()
            finally:
                os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status == 0, f"the child ended with {status}"
"""


def run(code, volume, tmp_path):
    import numpy as np

    np.save(tmp_path / "expected.npy", volume.expected)
    arguments = [sys.executable, "-c", PRELUDE + code, str(volume.path), str(tmp_path / "expected.npy")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=55, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "done\n"), done.stderr


USES = {
    "nothing": "",
    "sync": "check()",
    "async": "check_async()",
    "blocks": "list(array.blocks(8))",
    "blocks, begun": "iterator = iter(array.blocks(8, prefetch=10)); next(iterator)",
    "verify": "array.verify(); array.explain()",
    "own engine": "array = vf.open_array(path, engine=vf.Engine(decode_threads=4)); check(); check_async()",
    "closed engine": "check(); vf.default_engine().close()",
    "all": "check(); check_async(); iterator = iter(array.blocks(8, prefetch=10)); next(iterator); array.verify()",
}


@pytest.mark.parametrize("use", USES)
def test_child_reads_after_the_parent_has_used(use, volume, tmp_path):
    code = """
{use}
def work():
    check()
    check_async()
    for box, block in array.blocks(8):
        np.testing.assert_array_equal(block, expected[box.slices])
    array.engine.close()
    check()
    assert array.verify().problem_count == 0
in_child(work, 3)
check()
check_async()
in_child(work)
print("done")
"""
    run(code.replace("{use}", USES[use]), volume, tmp_path)


def test_child_of_a_child(volume, tmp_path):
    code = """
check()
def work():
    check()
    in_child(lambda: (check(), check_async()))
    check()
in_child(work)
check()
print("done")
"""
    run(code, volume, tmp_path)


def test_fork_while_other_threads_read(volume, tmp_path):
    """A lock that another thread holds at the fork is held for ever in the child."""
    code = """
stop = threading.Event()
def busy(target):
    while not stop.is_set():
        target()
threads = [threading.Thread(target=busy, args=(target,)) for target in (check, check, check_async)]
for thread in threads:
    thread.start()
try:
    in_child(lambda: (check(), check_async()), 40)
finally:
    stop.set()
    for thread in threads:
        thread.join()
check()
print("done")
"""
    run(code, volume, tmp_path)


def test_fork_inside_a_running_loop(volume, tmp_path):
    code = """
async def main():
    reads = [asyncio.ensure_future(array.read_async()) for _ in range(30)]
    await asyncio.sleep(0)
    in_child(lambda: (check(), check_async()))
    for block in await asyncio.gather(*reads):
        np.testing.assert_array_equal(block, expected)
asyncio.run(main())
print("done")
"""
    run(code, volume, tmp_path)


def test_iteration_goes_on_in_both(volume, tmp_path):
    """Blocks that were read ahead in the parent are read again by the child, and neither takes the other's."""
    code = """
iterator = iter(array.blocks(8, prefetch=12))
for _ in range(3):
    next(iterator)
def rest():
    count = 3
    for box, block in iterator:
        np.testing.assert_array_equal(block, expected[box.slices])
        count += 1
    assert count == len(array.blocks(8))
in_child(rest)
rest()
print("done")
"""
    run(code, volume, tmp_path)


def test_default_engine_of_the_child_is_its_own(volume, tmp_path):
    code = """
check()
mine = vf.default_engine()
def work():
    assert vf.default_engine() is not mine
    assert vf.default_engine() is vf.default_engine()
    assert vf.default_engine().stats().reads == 0
    check()
    assert vf.default_engine().stats().reads == 1
in_child(work)
assert mine is vf.default_engine()
assert mine.stats().reads == 1
print("done")
"""
    run(code, volume, tmp_path)


def test_child_that_exits_like_any_program(volume, tmp_path):
    """Not by `os._exit`: what runs at the interpreter's exit must not touch the parent's threads and descriptors."""
    code = """
check()
check_async()
sys.stdout.flush()
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    check()
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
check_async()
print("done")
"""
    run(code, volume, tmp_path)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_pools_of_processes(volume, tmp_path, method):
    code = f"""
import multiprocessing
def work(number):
    return int(array[number].sum())
if __name__ == "__main__":
    check()
    with multiprocessing.get_context("{method}").Pool(2) as pool:
        sums = pool.map({"work" if method == "fork" else "array.__getitem__"}, range(10))
        assert [int(np.sum(one)) for one in sums] == [int(plane.sum(dtype="u8")) for plane in expected[:10]]
    print("done")
"""
    run(code.replace(".sum())", '.sum(dtype="u8"))'), volume, tmp_path)
