"""Fork and spawn with remote arrays: whatever the parent has used, the child reads right. A hang is a failure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tests.servers.faulty import Fault, FaultyServer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

# The parent: `in_child(work)` runs it in a forked process. An alarm ends whatever hangs.
PRELUDE = """
import asyncio, multiprocessing, os, pickle, signal, sys, threading, time, warnings
import numpy as np
import numpy.testing
import voxfetch as vf

warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of fork with threads
signal.alarm(40)
url, expected = sys.argv[1], np.load(sys.argv[2])

def check(a):
    np.testing.assert_array_equal(a[...], expected)

def check_async(a):
    async def main():
        for block in await asyncio.gather(*(a.read_async() for _ in range(5))):
            np.testing.assert_array_equal(block, expected)
    asyncio.run(main())

def in_child(work):
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

MAIN = """
if __name__ == "__main__":
    main()
    print("done")
"""


@pytest.fixture
def run(volume, tmp_path):
    """`run(code)` -> what a process prints that has the URL of the volume; the server."""
    np.save(tmp_path / "expected.npy", volume.expected)
    with FaultyServer(volume.path) as server:

        def started(code):
            script = tmp_path / "script.py"
            script.write_text(PRELUDE + code + MAIN)
            arguments = [sys.executable, "-W", "error", str(script), server.url, str(tmp_path / "expected.npy")]
            return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

        def run(code):
            process = started(code)
            out, err = process.communicate(timeout=55)
            assert (process.returncode, err, out) == (0, "", "done\n"), err

        run.server, run.started = server, started
        yield run


USES = {
    "opened": "",
    "sync": "check(array)",
    "async": "check_async(array)",
    "blocks, begun": "iterator = iter(array.blocks(8)); next(iterator)",
    "reports": "array.verify(); array.explain()",
    "own engine": "array = vf.open_array(url, engine=vf.Engine()); check(array); check_async(array)",
    "closed engine": "check(array); array.engine.close()",
    "in flight": "threads = [threading.Thread(target=check, args=(array,)) for _ in range(4)]; check(array); "
    "[thread.start() for thread in threads]",
}


@pytest.mark.parametrize("use", USES)
def test_child_reads_after_the_parent_has_used(use, run):
    run(f"""
def main():
    array = vf.open_array(url)
    {USES[use]}
    def work():
        check(array)
        check_async(array)
        check(vf.open_array(url))
        for box, block in array.blocks(8):
            np.testing.assert_array_equal(block, expected[box.slices])
        array.engine.close()
        in_child(lambda: check(array))
    for _ in range(3):
        in_child(work)
    check(array)
    check_async(array)
""")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_pools_of_processes_read_pickled_arrays(method, run):
    run(f"""
def read(job):
    array, start = job
    return array.read_box(start, (8, 8, 8))

def main():
    array = vf.open_array(url)
    check(array)
    assert len(pickle.dumps(array)) < 4096
    starts = [(i, 2 * i, i) for i in range(10)]
    with multiprocessing.get_context("{method}").Pool(2) as pool:
        for start, box in zip(starts, pool.map(read, [(array, start) for start in starts])):
            np.testing.assert_array_equal(box, expected[tuple(slice(s, s + 8) for s in start)])
""")
    assert sum(request.key == "zarr.json" for request in run.server.requests) == 1, "metadata is read again"


def test_a_child_ends_as_any_process(run):
    run("""
def main():
    array = vf.open_array(url)
    check(array)
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        check(array)
        check_async(array)
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
""")


@pytest.mark.parametrize("how", ["thread", "asyncio"])
def test_the_process_ends_with_reads_in_flight(how, run):
    started = time.monotonic()
    run.server.rule = lambda request: Fault(stall=-1) if request.key.startswith("c/") else None
    body = {
        "thread": "threading.Thread(target=lambda: array[...], daemon=True).start(); time.sleep(0.3)",
        "asyncio": """
    async def go():
        task = asyncio.ensure_future(array.read_async())
        await asyncio.sleep(0.3)
        task.cancel()
    asyncio.run(go())
""",
    }[how]
    run(f"""
def main():
    array = vf.open_array(url)
    {body.strip()}
""")
    assert time.monotonic() - started < 10


def test_an_interrupt_ends_a_read_that_stalls(run):
    run.server.rule = lambda request: Fault(stall=-1) if request.key.startswith("c/") else None
    process = run.started("""
def main():
    array = vf.open_array(url)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print("reading", flush=True)
    try:
        array[...]
    except KeyboardInterrupt:
        print("interrupted", flush=True)
""")
    assert process.stdout.readline() == "reading\n"
    time.sleep(0.3)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "interrupted\n"
    assert time.monotonic() - started < 1
    assert process.stdout.readline() == "done\n"
    assert (process.wait(timeout=20), process.stderr.read()) == (0, "")
    process.stdout.close()
    process.stderr.close()
