"""Remote arrays and ends: of processes with reads in flight, of calls that are interrupted, of loops and engines.

Over HTTP and from S3. Nothing is written to stderr; a hang is a failure.
"""

# Fixtures are imported, and are arguments.
# ruff: noqa: F811

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

import voxfetch as vf
from tests.scripts import KINDS, logged, moto, places, run, small, started  # noqa: F401 - fixtures
from tests.servers.faulty import Fault

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

# --------------------------------------------------------------------------------------------------------------- ends

# What goes on when `main` returns. Threads that are not daemons are waited for by Python itself.
ENDS = {
    "a thread": "threading.Thread(target=check, args=(array,), daemon=True).start(); time.sleep(0.05)",
    "many threads": "[threading.Thread(target=again, args=(array,), daemon=True).start() for _ in range(6)]; "
    "time.sleep(0.1)",
    "a loop in a thread": "threading.Thread(target=asyncio.run, args=(again_async(array),), daemon=True).start(); "
    "time.sleep(0.1)",
    "tasks": "asyncio.run(leave(array))",
    "a closed loop": "loop = asyncio.new_event_loop(); futures = loop.run_until_complete(begin(array)); loop.close()",
    "blocks": "iterator = iter(array.blocks(8, prefetch=20)); next(iterator)",
    "engines": "arrays = [opened(engine=vf.Engine()) for _ in range(3)]; "
    "[threading.Thread(target=again, args=(one,), daemon=True).start() for one in arrays]; time.sleep(0.05)",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("speed", ["fast", "slow"])
@pytest.mark.parametrize("end", ENDS)
def test_the_process_ends_with_reads_in_flight(end, speed, kind, logged, started):
    place = logged(kind)
    if speed == "slow" and end != "blocks":
        place.server.rule = lambda request: Fault(delay_s=0.3) if "/c/" in request.key else None
    code = f"""
tasks = []
def again(array):
    while True:
        check(array)
async def again_async(array):
    while True:
        await array.read_async()
async def begin(array):
    return [array.engine.start(array.job(...).reads) for _ in range(10)]
async def leave(array):
    tasks.extend(asyncio.ensure_future(array.read_async()) for _ in range(10))
    await asyncio.sleep(0.05)
def main():
    array = opened()
    {ENDS[end]}
"""
    process = started(code, place)
    assert process.stdout.readline() == "done\n", process.communicate()
    began = time.monotonic()
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err, out) == (0, "", "")
    assert time.monotonic() - began < 2


def test_a_thread_that_outlives_main_is_told_and_goes_on(logged, started):
    """Python waits for threads that are no daemons: a closed engine is an error to them, and works again."""
    place = logged("http")
    place.server.rule = lambda request: Fault(stall=-1) if "/c/" in request.key else None
    process = started(
        """
def outlive(array):
    threading.main_thread().join()
    stalled = threading.Thread(target=read_stopped, args=(array,))
    stalled.start()
    time.sleep(0.3)
    array.engine.close()
    stalled.join()
    print("stopped" if told else "not told", flush=True)
    sys.stdin.readline()
    check(array)
    print("read", flush=True)
told = []
def read_stopped(array):
    try:
        array[...]
    except vf.StoreError:
        told.append(True)
def main():
    threading.Thread(target=outlive, args=(opened(),)).start()
""",
        place,
    )
    assert [process.stdout.readline() for _ in range(2)] == ["done\n", "stopped\n"]
    place.server.rule = lambda _: None
    out, err = process.communicate("\n", timeout=20)
    assert (process.returncode, err, out) == (0, "", "read\n")


CALLS = {
    "read": "array[...]",
    "blocks": "list(array.blocks(8))",
    "report": "array.verify()",
    "open": "vf.open_array(url + '/other', options=options)",
    "async": "asyncio.run(array.read_async())",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", CALLS)
def test_an_interrupt_ends_a_call_over_a_stalled_server(call, kind, logged, started):
    place = logged(kind)
    code = f"""
def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    array = opened()
    array[0, 0, 0]
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        {CALLS[call]}
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    sys.stdin.readline()
    check(array)
    check_async(array)
"""
    process = started(code, place)
    assert process.stdout.readline() == "ready\n", process.communicate()
    stalled = threading.Event()
    place.server.rule = lambda _: stalled.set() or Fault(stall=-1)
    print(file=process.stdin, flush=True)
    assert stalled.wait(10)
    time.sleep(0.1)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "interrupted\n", process.communicate()
    assert time.monotonic() - began < 1
    place.server.rule = lambda _: None
    out, err = process.communicate("\n", timeout=20)
    assert (process.returncode, err, out) == (0, "", "done\n")


# ---------------------------------------------------------------------------------------------------- loops and engines


@pytest.mark.parametrize(("kind", "count"), [("http", 200), ("s3", 60)])
def test_engines_that_are_dropped_leave_nothing(kind, count, logged, run):
    code = f"""
def held():
    gc.collect()
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

def use(number):
    array = opened(engine=vf.Engine(decode_threads=1))
    array[0, 0, 0]
    if number % 4 == 0:
        array.engine.close()
    if number % 4 == 1:
        asyncio.run(array.read_async((0, 0, 0)))
    if number % 4 == 2:
        next(iter(array.blocks(8, prefetch=3)))

def main():
    if not os.path.isdir("/proc/self/task"):
        return
    for number in range(8):
        use(number)
    allowed = [number + 4 for number in held()]  # obstore starts and ends threads as it likes
    for number in range({count}):
        use(number)
    assert all(number <= most for number, most in zip(held(), allowed)), (held(), allowed)
"""
    run(code, logged(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_is_closed_while_others_read(kind, logged, run):
    """Reads are right or say that they were stopped: no ending is taken for that of another read."""
    code = """
def main():
    engine = vf.Engine(decode_threads=2)
    array = opened(engine=engine)
    stop = threading.Event()
    counts = [0, 0]
    def read():
        while not stop.is_set():
            try:
                check(array)
                counts[0] += 1
            except vf.StoreError as error:
                assert "stopped" in str(error)
                counts[1] += 1
    def close():
        for number in range(60):
            time.sleep(0.003 * (number % 5))
            engine.close()
        stop.set()
    at_once([close] + [read] * 4)
    assert min(counts) > 0, counts
    check(array)
"""
    run(code, logged(kind))


def test_an_engine_is_closed_by_its_own_thread(logged):
    def headers():
        if closing:
            engine.close()
        return {}

    closing = False
    with vf.Engine(decode_threads=1) as engine:
        array = vf.open_array(logged("http").url, options=vf.StoreOptions(headers=headers), engine=engine)
        thread = next(thread for thread in threading.enumerate() if thread is engine.scheduler._thread)
        closing = True
        with pytest.raises(vf.StoreError, match="stopped"):
            array[...]
        thread.join(2)
        assert not thread.is_alive()
        closing = False
        assert array[0, 0, 0] == 7
