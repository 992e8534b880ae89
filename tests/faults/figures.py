"""Rows with numbers: many faults in one read, many reads at once, long waits."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import google_crc32c
import numpy as np

import voxfetch as vf
from tests.faults import (
    CHUNK,
    Figure,
    document,
    line,
    plain,
    reading,
    scripted,
    shard_of,
    verdict,
    voxels,
)
from tests.faults.connections import ScriptedProxy
from tests.servers.faulty import Fault, FaultyServer, status


def three_of_ten():
    """A read of 1,000 chunks of 16 KiB while 30 % of all requests fail."""
    dice = random.Random(1)
    kinds = [status(503), status(500), status(429), Fault(reset=-1), Fault(reset=5000), Fault(cut=100)]
    retry = vf.RetryPolicy(base_s=0.005, cap_s=0.02, idle_timeout_s=2)
    with FaultyServer(plain(1000, 1 << 12)) as server, reading(server, retry=retry) as array:
        server.rule = lambda _: dice.choice(kinds) if dice.random() < 0.3 else None
        text = verdict(array[...], slice(None), array.shape[0])
        share = len(server.requests) / 1000
        most = "at most 1.6 requests a chunk" if share <= 1.6 else "MORE THAN 1.6 REQUESTS A CHUNK"
        return f"{text}; {most}", f"{share:.2f} requests a chunk"


def thousand_errors():
    """Each of 1,000 chunks meets one error, seven kinds in turn, with one attempt each; then none."""
    kinds = [status(403), status(500), status(503), status(401), Fault(reset=-1), Fault(cut=5), Fault(stall=10)]
    retry = vf.RetryPolicy(max_attempts=1, idle_timeout_s=0.1)
    with FaultyServer(plain(1000)) as server, reading(server, retry=retry) as array:
        server.rule = lambda request: kinds[int(request.key[2:]) % 7] if request.key.startswith("c/") else None

        async def one(number):
            place = slice(64 * number, 64 * number + 64)
            try:
                return verdict(await array.read_async(place), place, array.shape[0])
            except vf.StoreError as error:
                return error.kind

        async def main():
            return Counter(await asyncio.gather(*(one(number) for number in range(1000))))

        seen = asyncio.run(main())
        server.rule = lambda _: None
        with reading(server, retry=vf.RetryPolicy()) as patient:
            after = verdict(patient[...], slice(None), array.shape[0])
    errors = sum(number for kind, number in seen.items() if kind.endswith("Error"))
    shown = ", ".join(f"{number} {kind}" for kind, number in sorted(seen.items()))
    return f"{errors} errors, {seen['FILL VALUE']} fill values; then {after}", shown


def reset_at_every_byte():
    """The reply with a chunk of 64 bytes is reset after each number of its bytes, headers included; it comes again."""
    objects = plain(4, 16)

    def some(numbers):
        good = 0
        with (
            FaultyServer(objects) as server,
            ScriptedProxy(server.port, []) as proxy,
            reading(server, url=proxy.url) as array,
        ):
            for number in numbers:
                # The next connection is reset after so many bytes; the one after that is good.
                proxy.script.append(number)
                proxy.reset_all()
                good += verdict(array[16:32], slice(16, 32), 64) == "right"
            return good, array.engine.stats().retries

    with FaultyServer(objects) as server, reading(server) as array:
        array[16:32]
        nbytes = reply_nbytes(server)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(some, [range(first, nbytes + 1, 8) for first in range(8)]))
    good, retries = (sum(column) for column in zip(*results, strict=True))
    return f"{'all' if good == nbytes + 1 else good} recover", f"{good} of {nbytes + 1}, {retries} attempts more"


def reply_nbytes(server):
    """Bytes of the reply to the last request, headers included."""
    request = server.requests[-1]
    lines = [f"GET {request.target} HTTP/1.1", *(f"{name}: {value}" for name, value in request.headers.items()), "", ""]
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall("\r\n".join(lines).encode())
        reply = b""
        while not (reply and reply.partition(b"\r\n\r\n")[2]):
            reply += connection.recv(1 << 16)
    head, _, body = reply.partition(b"\r\n\r\n")
    length = next(int(one.partition(b":")[2]) for one in head.split(b"\r\n") if one.startswith(b"content-length"))
    assert len(body) == length
    return len(reply)


def stall_by_default(fault):
    """A read with the default settings, of which one reply stalls."""

    def run():
        with FaultyServer(line()) as server, reading(server, retry=vf.RetryPolicy()) as array:
            server.rule = scripted(fault, where="data")
            began = time.monotonic()
            text = verdict(array[:100], slice(0, 100), array.shape[0])
            took_s = time.monotonic() - began
            return f"{text} {'within 15 s' if took_s < 15 else 'LATE'}", f"{took_s:.1f} s"

    return run


def stall_of_three_tenths():
    """The same with `idle_timeout_s=0.3`."""
    retry = vf.RetryPolicy(idle_timeout_s=0.3)
    with FaultyServer(line()) as server, reading(server, retry=retry) as array:
        server.rule = scripted(Fault(stall=100), where="data")
        began = time.monotonic()
        text = verdict(array[:100], slice(0, 100), array.shape[0])
        took_s = time.monotonic() - began
        return f"{text} {'within 2 s' if took_s < 2 else 'LATE'}", f"{took_s:.2f} s"


class HeldServer(FaultyServer):
    """Chunk n is full of n + 1. Replies with chunks wait from `/hold` to `/go`, and `late_s` before their last byte."""

    def __init__(self, nchunks, chunk, *, late_s):
        whole = document(nchunks * chunk, chunk=chunk, checksum=True)
        super().__init__({"zarr.json": whole, "hold": b"", "go": b""})
        self._chunk = chunk
        self._late_s = late_s
        self._free = asyncio.Event()
        self._free.set()
        self.rule = self._control

    def read(self, key):
        if not key.startswith("c/"):
            return super().read(key)
        body = np.full(self._chunk, int(key[2:]) + 1, "<u4").tobytes()
        return body + google_crc32c.value(body).to_bytes(4, "little"), f'"{key}"', None

    def _control(self, request):
        if request.key == "hold":
            self._free.clear()
        elif request.key == "go":
            self._free.set()

    async def _send(self, writer, body, fault):
        if len(body) > self._chunk:
            await self._free.wait()
            await super()._send(writer, body[:-1], fault)
            await asyncio.sleep(self._late_s)
            body = body[-1:]
        await super()._send(writer, body, fault)


def waiting_reads(*, late_s):
    """10,000 reads wait for 640 chunks of 1 MiB, in a process that may hold 64 MiB.

    With `late_s` all that is in flight is there but for its last byte, most of the time.
    """

    def run():
        with HeldServer(640, 1 << 18, late_s=late_s) as server:
            script = str(Path(__file__).parent / "waiting.py")
            arguments = [server.url, "10000", str(1 << 18), str(64 << 20)]
            done = subprocess.run(
                [sys.executable, script, *arguments], capture_output=True, text=True, timeout=60, check=True
            )
        took = json.loads(done.stdout)
        data, each = took["data_kib"] / 1024, took["waiting_kib"] / 10_000
        most = 80
        within = f"at most {most} MiB for data" if data <= most else f"MORE THAN {most} MiB for data"
        return f"{took['right']:,} right; {within}", f"{data:.0f} MiB; {each:.0f} KiB for each read that waits"

    return run


def racing_reads():
    """2,000 reads across two chunks each, 20 at once, while a shard is replaced again and again."""
    nvoxels = 8 * CHUNK
    versions = [shard_of(voxels(nvoxels), CHUNK), shard_of(voxels(nvoxels, 10**8), CHUNK, order=range(7, -1, -1))]
    dice = random.Random(0)
    seen = Counter()
    with FaultyServer(line()) as server:
        options = vf.ReadOptions(max_request_bytes=1, index_ttl_s=0)
        with reading(server, read_options=options) as array:

            def rule(request):
                if dice.random() < 0.05:
                    server._versions["c/0"] = request.number
                    server._objects["c/0"] = versions[request.number % 2]

            server.rule = rule

            async def one():
                start = dice.randrange(1, 8) * CHUNK - 50
                try:
                    got = await array.read_async(slice(start, start + 100))
                except vf.ObjectChangedError:
                    return "ObjectChangedError"
                firsts = {int(first) for first in got - np.arange(start, start + 100, dtype="u4")}
                return {(1,): "old", (10**8,): "new"}.get(tuple(firsts), "MIXED")

            async def main():
                for _ in range(100):
                    seen.update(await asyncio.gather(*(one() for _ in range(20))))

            asyncio.run(main())
        replaced = len({request.if_match for request in server.requests} - {None})
    shown = ", ".join(f"{number:,} {kind}" for kind, number in sorted(seen.items()))
    return f"{seen['MIXED']} mixed of {seen.total():,}", f"{shown}; {replaced} versions"


ROWS = [
    Figure(
        "T5.20",
        "30 % of all requests fail",
        "all right, at most 1.6 requests a chunk",
        "right; at most 1.6 requests a chunk",
        three_of_ten,
    ),
    Figure(
        "T7.10",
        "1,000 errors of seven kinds, one attempt each",
        "no fill value",
        "1000 errors, 0 fill values; then right",
        thousand_errors,
    ),
    Figure("T8.20", "reset after each byte of a reply", "all recover", "all recover", reset_at_every_byte),
    Figure(
        "T9.10",
        "silence in the body, default settings",
        "right within 15 s",
        "right within 15 s",
        stall_by_default(Fault(stall=100)),
    ),
    Figure(
        "T9.11",
        "1 byte a second, default settings",
        "right within 15 s",
        "right within 15 s",
        stall_by_default(Fault(trickle_s=1)),
    ),
    Figure(
        "T9.12",
        "silence in the body, idle_timeout_s=0.3",
        "right within 2 s",
        "right within 2 s",
        stall_of_three_tenths,
    ),
    Figure(
        "T12.10",
        "10,000 reads wait, memory_limit_bytes=64 MiB",
        "64 MiB and a quarter",
        "10,000 right; at most 80 MiB for data",
        waiting_reads(late_s=0),
    ),
    Figure(
        "T12.11",
        "the same, all replies stop before their last byte",
        "64 MiB and a quarter",
        "10,000 right; at most 80 MiB for data",
        waiting_reads(late_s=0.2),
    ),
    Figure(
        "C1.10", "2,000 reads of a shard that is replaced all the time", "none mixed", "0 mixed of 2,000", racing_reads
    ),
]
SLOW = ("T9.10", "T9.11")
"""Rows that take 10 s and no processor: they may run beside others."""
