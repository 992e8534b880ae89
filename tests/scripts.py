"""Scripts that read a volume over HTTP or from S3, each in a process of its own; the servers are here.

Fixtures, to be imported by the tests: `logged(kind)` and `places(kind)` are where the volume lies, `run(code, place)`
runs a script, `started(code, place)` lets it run. Code is a function `main`; what it may use is in `PRELUDE`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tests.servers import objects_in
from tests.servers.faulty import FaultyServer
from tests.servers.moto_s3 import moto_s3

CREDENTIALS = {"key": "a", "secret": "b"}
KINDS = ("http", "s3")

# `in_child(work)` runs it in a forked process, which ends by `leave`. An alarm ends whatever hangs.
PRELUDE = """
import asyncio, concurrent.futures, faulthandler, gc, json, multiprocessing, os, pickle, random, signal, sys, threading
import time, warnings
import numpy as np
import numpy.testing
import voxfetch as vf

warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of fork with threads
faulthandler.register(signal.SIGALRM, chain=True)  # says where it hangs, without a thread of its own
signal.alarm(40)
url, options = json.loads(sys.argv[1])
expected = np.load(sys.argv[2])

def opened(**keywords):
    return vf.open_array(url, options=options, **keywords)

def check(a):
    np.testing.assert_array_equal(a[...], expected)

def check_async(a):
    async def main():
        for block in await asyncio.gather(*(a.read_async() for _ in range(4))):
            np.testing.assert_array_equal(block, expected)
    asyncio.run(main())

def check_blocks(blocks, number=0):
    for box, block in blocks:
        np.testing.assert_array_equal(block, expected[box.slices])
        number += 1
    return number

def at_once(functions):
    failures = []
    def run(function):
        try:
            function()
        except BaseException as error:
            failures.append(error)
            raise
    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failures

def in_child(work, leave=os._exit):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            work()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        leave(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, f"the child ended with {status}"
"""
MAIN = """
if __name__ == "__main__":
    main()
    print("done", flush=True)
"""


@dataclass
class Place:
    """Where the volume lies: a source, and options for it. `server` is None where requests are not looked at."""

    url: str
    options: dict[str, Any] = field(default_factory=dict)
    server: FaultyServer | None = None


@pytest.fixture(scope="module")
def small(tmp_path_factory, write_array, make_values):
    """Four shards, one of which is missing."""
    path = tmp_path_factory.mktemp("small")
    voxels = make_values((20, 24, 22), "uint16")
    voxels[:10, :12] = 7
    case = write_array(path / "a", voxels, chunks=(5, 4, 11), shards=(10, 12, 22), fill_value=7)
    np.save(path / "expected.npy", case.expected)
    return case


@pytest.fixture(scope="module")
def moto(small):
    with moto_s3(objects_in(small.path, "root/")) as endpoint:
        yield Place("s3://bucket/root", {"endpoint": endpoint, "credentials": CREDENTIALS})


@pytest.fixture
def logged(small):
    """`logged(kind)` -> the volume on a server that keeps a log and misbehaves on demand."""
    with contextlib.ExitStack() as servers:

        def start(kind):
            server = servers.enter_context(FaultyServer(objects_in(small.path, "bucket/root/")))
            if kind == "s3":
                return Place("s3://bucket/root", {"endpoint": server.url, "credentials": CREDENTIALS}, server)
            return Place(f"{server.url}/bucket/root", {}, server)

        yield start


@pytest.fixture
def places(moto, logged):
    """`places(kind)` -> the volume, on S3 as moto has it."""
    return lambda kind: moto if kind == "s3" else logged(kind)


@pytest.fixture
def started(small, tmp_path):
    """`started(code, place)` -> the process that runs it."""
    running = []

    def start(code, place, *flags, **environ):
        script = tmp_path / "script.py"
        script.write_text(PRELUDE + code + MAIN)
        source = json.dumps([place.url, place.options])
        process = subprocess.Popen(
            [sys.executable, "-W", "error", *flags, str(script), source, str(small.path.parent / "expected.npy")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path), **environ},
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def run(started):
    """`run(code, place)`: its `main` succeeds, and nothing is written to stderr."""

    def run(code, place, *flags, **environ):
        process = started(code, place, *flags, **environ)
        out, err = process.communicate(timeout=50)
        assert (process.returncode, err, out) == (0, "", "done\n"), err

    return run
