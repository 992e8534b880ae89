"""What readers make of faulty replies over HTTP: ``python -m bench.faults``, from the root of the repository.

One array of one shard lies on the server of the tests that misbehaves (``tests/servers/faulty.py``). A reader opens it
in a process of its own, undisturbed; then one chunk of 128 KiB is read while the requests for its data meet a fault.
The answer is right, wrong, or an error; a process that gives none in time is ended. Every reader has its defaults.
Nothing here is known beforehand but the voxels: the table, ``bench/results/faults.md``, holds what was seen.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tests.faults import CHUNK, line, plain, shard_of, voxels
from tests.servers.faulty import LOGIN_PAGE, Fault, FaultyServer, redirect, s3_error, status

from bench.circumstances import commit, machine
from bench.runner import say

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = Path(__file__).parent / "results" / "faults.md"
LIMIT_S = 5.0
STALL_LIMIT_S = 15.0
READY_LIMIT_S = 60.0
WAIT_S = 3
NVOXELS = 8 * CHUNK
NEW = 10**8
FIRST = voxels(NVOXELS)[:CHUNK].tobytes()


# ------------------------------------------------------------------------------------------------------------- faults


@dataclass(frozen=True)
class Case:
    """A fault: `faults` meet the requests for data one after the other, or with `always` the first meets all.

    `swap`: with the first of them the shard is replaced, before the reply or, with `late`, after it. `absent`: the fill
    value is right. `plain`: the array has no shards, and a chunk is read as a whole object.
    """

    name: str
    faults: tuple[Fault, ...] = ()
    always: bool = True
    swap: bytes | None = None
    late: bool = False
    absent: bool = False
    plain: bool = False
    etags: str | None = "strong"
    limit_s: float = LIMIT_S


def once(name: str, *faults: Fault, **more: Any) -> Case:
    """A case whose faults come once each, and then none."""
    return Case(name, faults, always=False, **more)


def always(name: str, fault: Fault, **more: Any) -> Case:
    """A case in which every request for data meets the fault."""
    return Case(name, (fault,), **more)


ZIPPED = gzip.compress(FIRST)
OTHER_ORDER = shard_of(voxels(NVOXELS, NEW), CHUNK, order=range(7, -1, -1))
CASES = (
    once("none"),
    always("200 and the whole object for a range", Fault(ignore_range=True)),
    always("200 and a login page", Fault(ignore_range=True, ignore_if_match=True, body=LOGIN_PAGE)),
    once("body shorter than Content-Length, once", Fault(cut=1000)),
    always("body shorter than Content-Length", Fault(cut=1000)),
    once("Content-Length short, Content-Range claims all, once", Fault(lie=1000)),
    always("Content-Length short, Content-Range claims all", Fault(lie=1000)),
    always("no Content-Length, whole (legal)", Fault(framing="close")),
    always("no Content-Length, closed early", Fault(framing="close", cut=1000)),
    always("chunked, whole (legal)", Fault(framing="chunked")),
    once("chunked, closed early, once", Fault(framing="chunked", cut=1000)),
    always("another range, and Content-Range says so", Fault(shift=4)),
    always("Content-Range a-b/* (legal)", Fault(no_total=True)),
    always("no Content-Range", Fault(headers={"Content-Range": None})),
    always("a byte too much", Fault(extra=b"x")),
    always("206, Content-Encoding: gzip", Fault(body=ZIPPED, headers={"Content-Encoding": "gzip"})),
    once("reset amid the body, once", Fault(reset=1000)),
    once("reset amid the body, once, no ETag", Fault(reset=1000), etags=None),
    once("reset amid the body, then another version", Fault(reset=1000), swap=OTHER_ORDER, late=True),
    once("reset before the headers, once", Fault(reset=-1)),
    once("503, twice", status(503), status(503)),
    once("503 with Retry-After: 3, once", status(503, retry_after=str(WAIT_S))),
    once("429 with Retry-After: 3, once", status(429, retry_after=str(WAIT_S))),
    always("500", status(500)),
    always("401", status(401)),
    always("403", status(403)),
    always("403 ExpiredToken", s3_error(403, "ExpiredToken")),
    always("404 (legal: fill value)", status(404), absent=True, plain=True),
    always("a chunk as a whole object: 500", status(500), plain=True),
    always("a chunk as a whole object: 403", status(403), plain=True),
    always("a chunk as a whole object: closed early, no length", Fault(framing="close", cut=100), plain=True),
    always("a chunk as a whole object: a login page", Fault(ignore_range=True, body=LOGIN_PAGE), plain=True),
    always("a chunk as a whole object: empty", Fault(body=b""), plain=True),
    always("redirect to itself", redirect("/c/0")),
    Case("the shard replaced between index and data", swap=OTHER_ORDER),
    once("silence amid the body, once (15 s)", Fault(stall=1000), limit_s=STALL_LIMIT_S),
)


def is_data(request: Any) -> bool:
    """Whether a request is for a chunk, and neither for the index of the shard nor for its size."""
    if request.key != "c/0" or request.method != "GET" or (request.range or "").startswith("bytes=-"):
        return False
    first = (request.range or "bytes=0-").removeprefix("bytes=").partition("-")[0]
    return int(first or 0) < NVOXELS * 4


def served(case: Case) -> FaultyServer:
    """A server of the array of a case, good until `misbehave`."""
    objects = plain(4, CHUNK) if case.plain else line()
    return FaultyServer(objects, etags=case.etags)


def misbehave(server: FaultyServer, case: Case) -> None:
    """From here on requests for data meet the faults."""
    left = list(case.faults)
    swap = [] if case.swap is None else [case.swap]

    def replace(shard: bytes) -> None:
        server._objects["c/0"] = shard
        server._versions["c/0"] = 1

    def rule(request: Any) -> Fault | None:
        if not is_data(request):
            return None
        if swap:
            if case.late:
                asyncio.get_running_loop().call_later(0.005, replace, swap.pop())
            else:
                replace(swap.pop())
        if not left:
            return None
        return left[0] if case.always else left.pop(0)

    server.requests.clear()
    server.rule = rule


# ------------------------------------------------------------------------------------------------------------ readers


def read_voxfetch(url: str) -> Callable[[], Any]:
    import voxfetch as vf

    array = vf.open_array(url)
    return lambda: array[:CHUNK]


def read_zarr(url: str) -> Callable[[], Any]:
    import zarr

    array = zarr.open_array(url, mode="r")
    return lambda: array[:CHUNK]


def read_zarr_obstore(url: str) -> Callable[[], Any]:
    import zarr

    array = zarr.open_array(zarr.storage.ObjectStore(_obstore(url), read_only=True), mode="r")
    return lambda: array[:CHUNK]


def read_zarrs(url: str) -> Callable[[], Any]:
    import zarr
    import zarrs  # noqa: F401

    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "codec_pipeline.strict": True})
    return read_zarr_obstore(url)


def read_tensorstore(url: str) -> Callable[[], Any]:
    import tensorstore as ts

    array = ts.open({"driver": "zarr3", "kvstore": f"{url}/"}, open=True, read=True).result()
    return lambda: array[:CHUNK].read().result()


def read_zarrista(url: str) -> Callable[[], Any]:
    import zarrista

    async def opened() -> Any:
        return await zarrista.AsyncArray.open(_obstore(url), "/")

    async def subset() -> Any:
        return await array.retrieve_array_subset((slice(0, CHUNK),))

    loop = asyncio.new_event_loop()
    array = loop.run_until_complete(opened())
    return lambda: np.asarray(loop.run_until_complete(subset()))


def _obstore(url: str) -> Any:
    from obstore.store import HTTPStore

    return HTTPStore.from_url(url, client_options={"allow_http": True})


#: Beginning of a cell -> kind of outcome, in the order of the columns; an error is what is nothing else.
KINDS = {
    "right": "right",
    "": "error",
    "**silently": "wrong",
    "**p": "crashed",
    "still": "still trying",
    "no answer": "no answer",
}
#: name -> (opens an array and returns what reads its first chunk, packages whose versions are shown)
READERS: dict[str, tuple[Callable[[str], Callable[[], Any]], tuple[str, ...]]] = {
    "voxfetch": (read_voxfetch, ("voxfetch",)),
    "zarr-python, fsspec": (read_zarr, ("zarr", "fsspec", "aiohttp")),
    "zarr-python, obstore": (read_zarr_obstore, ("zarr", "obstore")),
    "zarrs, obstore": (read_zarrs, ("zarrs", "zarr", "obstore")),
    "tensorstore": (read_tensorstore, ("tensorstore",)),
    "zarrista, obstore": (read_zarrista, ("zarrista", "obstore")),
}


def work(reader: str, url: str) -> None:
    """In a process of its own: opens, says so, waits for a line, reads, says what came of it as JSON."""
    read = READERS[reader][0](url)
    print(json.dumps({"ready": True}), flush=True)
    sys.stdin.readline()
    try:
        got = np.asarray(read())
    except BaseException as error:  # noqa: BLE001 - panics of Rust are no Exception
        kind = type(error).__name__
        print(json.dumps({"error": kind, "is_exception": isinstance(error, Exception)}), flush=True)
    else:
        print(json.dumps({"got": seen(got)}), flush=True)
    # Threads that wait for the server are not waited for.
    os._exit(0)


def seen(got: Any) -> str:
    """What an answer is: a version of the chunk, the fill value, or neither."""
    if got.shape == (CHUNK,):
        for name, first in (("old", 1), ("new", NEW)):
            if np.array_equal(got, voxels(CHUNK, first)):
                return name
        if not got.any():
            return "fill value"
    return "other"


# --------------------------------------------------------------------------------------------------------------- runs


def outcome(reader: str, case: Case) -> str:
    """What a reader makes of a case, as the text of a cell."""
    with served(case) as server:
        command = [sys.executable, "-m", "bench.faults", "--work", reader, server.url]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
            timer = threading.Timer(READY_LIMIT_S, process.kill)
            timer.start()
            ready = process.stdout.readline()
            timer.cancel()
            if not ready:
                return "cannot open"
            misbehave(server, case)
            began = time.monotonic()
            timer = threading.Timer(case.limit_s, process.kill)
            timer.start()
            process.stdin.write("go\n")
            process.stdin.flush()
            text = process.stdout.readline()
            took_s = time.monotonic() - began
            timer.cancel()
            process.kill()
        nrequests = sum(is_data(request) for request in server.requests)
        if text:
            return _cell(case, json.loads(text), took_s, nrequests)
        if took_s < case.limit_s:
            return "**process ended**"
        after = f"after {case.limit_s:.0f} s"
        return f"no answer {after}" if nrequests <= 1 else f"still trying {after}, {nrequests} requests"


def _cell(case: Case, said: dict[str, Any], took_s: float, nrequests: int) -> str:
    if "error" in said:
        return said["error"] if said["is_exception"] else f"**panic**: {said['error']}"
    good = {"fill value"} if case.absent else {"old", "new"} if case.swap is not None else {"old"}
    if said["got"] not in good:
        return "**silently wrong**" + (": fill value" if said["got"] == "fill value" else "")
    waits = any("retry-after" in fault.headers for fault in case.faults)
    if waits:
        return f"right, {'waited' if took_s >= WAIT_S else 'did not wait'}"
    return "right" if nrequests <= 1 else f"right, {nrequests} requests"


def markdown(table: dict[str, dict[str, str]], command: list[str]) -> str:
    """The report: who, how often which kind of outcome, then every case."""
    names = list(next(iter(table.values())))
    host = machine()
    lines = [
        f"# Faulty replies over HTTP, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"`{' '.join(command)}` at commit {commit()}, Python {host['python']}.",
        "",
        "One chunk of 128 KiB without a checksum is read from a shard, or where a row says so as an object of its own,",
        "while each request for its data meets the fault; if a row says *once*, the first does. The metadata was read",
        "before. Readers are used with their defaults. One that has not answered after 5 s, or as long as a row says,",
        "is ended: it was still trying, or waited for a reply to its only request. *Legal* replies must be read; of a",
        "shard that was replaced, either version is right. What is not right must be an error.",
        "",
        "| reader | versions | right | errors | silently wrong | crashed | still trying | no answer |",
        "|-|-|-:|-:|-:|-:|-:|-:|",
    ]
    for name in names:
        kinds = Counter(_kind(cells[name]) for cells in table.values())
        counts = " | ".join(str(kinds[kind]) for kind in KINDS.values())
        lines.append(f"| {name} | {', '.join(f'{one} {_version(one)}' for one in READERS[name][1])} | {counts} |")
    lines += ["", f"| fault | {' | '.join(names)} |", f"|{'-|' * (len(names) + 1)}"]
    lines += [f"| {case} | {' | '.join(cells[name] for name in names)} |" for case, cells in table.items()]
    return "\n".join(lines) + "\n"


def _kind(cell: str) -> str:
    return next((kind for start, kind in KINDS.items() if start and cell.startswith(start)), KINDS[""])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"


def main() -> int:
    """Returns the exit code: 1 when voxfetch was silently wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__)
    parser.add_argument(
        "--readers", default=None, help=f"comma-separated, by their beginnings, of: {'; '.join(READERS)}"
    )
    parser.add_argument("--cases", default="", help="only those whose name has this in it; nothing is written then")
    parser.add_argument("--work", nargs=2, metavar=("READER", "URL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(*options.work)
    starts = tuple((options.readers or "").split(","))
    readers = [name for name in READERS if name.startswith(starts)]
    table: dict[str, dict[str, str]] = {}
    for case in CASES:
        if options.cases not in case.name:
            continue
        table[case.name] = {name: outcome(name, case) for name in readers}
        say(f"{case.name}: {table[case.name]}")
    if not table:
        parser.error("no such case")
    text = markdown(table, ["python", "-m", "bench.faults", *sys.argv[1:]])
    if options.cases or options.readers:
        print(text)
    else:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(text)
        say(f"written: {RESULTS}")
    return 1 if any("silently" in cells.get("voxfetch", "") for cells in table.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
