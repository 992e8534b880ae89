"""Many reads that wait at once, in a process of its own: `waiting.py URL READS CHUNK LIMIT`; what it took as JSON.

Chunk n of the array, of CHUNK voxels, holds nothing but n + 1. Each read takes a few voxels somewhere.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from urllib.request import urlopen

import voxfetch as vf


def memory_kib(name):
    """A line of /proc/self/status: VmRSS is what is resident now, VmHWM the most it was."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def say(url, word):
    """Tells the server what to do."""
    with urlopen(f"{url}/{word}") as reply:
        reply.read()


def start_anew():
    """Makes VmHWM what is resident now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


async def main(url, nreads, chunk, limit):
    with vf.Engine(memory_limit_bytes=limit) as engine:
        array = await vf.open_array_async(url, engine=engine)
        await array.read_async(slice(0, 1))
        await asyncio.to_thread(say, url, "hold")
        start_anew()
        before_kib = memory_kib("VmRSS")
        starts = [number * array.shape[0] // nreads // 8 * 8 for number in range(nreads)]
        tasks = [asyncio.ensure_future(array.read_async(slice(start, start + 8))) for start in starts]
        # While no reply has come no data is held: all this memory is of the reads themselves.
        waiting_kib = 0
        while (now_kib := memory_kib("VmRSS") - before_kib) > waiting_kib + 100 or not waiting_kib:
            waiting_kib = now_kib
            await asyncio.sleep(0.3)
        await asyncio.to_thread(say, url, "go")
        answers = await asyncio.gather(*tasks)
        right = sum(bool((got == start // chunk + 1).all()) for start, got in zip(starts, answers, strict=True))
        data_kib = memory_kib("VmHWM") - before_kib - waiting_kib
    print(json.dumps({"right": right, "data_kib": data_kib, "waiting_kib": waiting_kib}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
