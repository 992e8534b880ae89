"""Planes through the same chunks, one after the other: ``python -m bench.planes``, from the root of the repository.

What a cache of decoded chunks is for: 64 planes z = const, each at most 1024^2, read by one call each, of chunks that
are 32 deep. Every sample is a process of its own; readers take turns; every answer is compared with the source. The
caches of voxfetch and tensorstore have the same size. The table goes to standard output.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from importlib.metadata import version
from statistics import median
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from bench.circumstances import commit, machine
from bench.document import table
from bench.runner import say
from bench.volumes import SIZES, Volume, build
from bench.workloads import Box

if TYPE_CHECKING:
    from collections.abc import Callable

PLANES = 64
EXTENT_MAX = 1024
MS = 1e3

Read: TypeAlias = "Callable[[Box], np.ndarray[Any, Any]]"


def _voxfetch(volume: Volume, cache_nbytes: int) -> Read:
    import voxfetch as vf

    array = vf.open_array(str(volume.path), engine=vf.Engine(1 << 30, chunk_cache_bytes=cache_nbytes))
    return lambda box: array.read_box(box.start, box.shape)


def _tensorstore(volume: Volume, cache_nbytes: int) -> Read:
    import tensorstore as ts

    context = ts.Context({"cache_pool": {"total_bytes_limit": cache_nbytes}})
    spec = {"driver": volume.format, "kvstore": f"file://{volume.path}/", "recheck_cached_data": "open"}
    array = ts.open(spec, context=context, open=True, read=True).result()
    return lambda box: array[box.slices].read().result()


#: How a volume is opened, and whether with a cache.
READERS: dict[str, tuple[Callable[[Volume, int], Read], bool]] = {
    "voxfetch": (_voxfetch, False),
    "voxfetch, cache": (_voxfetch, True),
    "tensorstore, cache": (_tensorstore, True),
}


def main() -> None:
    """Runs, and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.planes", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="medium")
    parser.add_argument("--volumes", default="em,em_raw")
    parser.add_argument("--cache-mib", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--sample", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sample:
        print(json.dumps(sample(build(options.volumes, options.size), options.sample, options.cache_mib << 20)))
        return
    rows = []
    for name in options.volumes.split(","):
        build(name, options.size)
        samples: dict[str, list[dict[str, float]]] = {reader: [] for reader in READERS}
        for number in range(options.repeat + 1):
            for reader in READERS:
                given = [f"--size={options.size}", f"--volumes={name}", f"--cache-mib={options.cache_mib}"]
                command = [sys.executable, "-m", "bench.planes", f"--sample={reader}", *given]
                done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
                if number:  # the first one fills the page cache
                    samples[reader].append(json.loads(done.stdout))
        for reader, taken in samples.items():
            middle = {what: median(one[what] for one in taken) for what in taken[0]}
            numbers = [f"{middle[what] * MS:.2f}" for what in ("first", "plane", "cpu")]
            rows.append([name, reader, *numbers, f"{middle['all'] * MS:.0f}"])
            say(" ".join(rows[-1]))
    columns = ["volume", "reader", "first plane, ms", "median plane, ms", "CPU a plane, ms", f"all {PLANES}, ms"]
    versions = ", ".join(f"{name} {version(name)}" for name in ("voxfetch", "tensorstore"))
    host = machine()
    lines = [
        f"# {PLANES} planes one after the other, size {options.size}",
        "",
        f"`{' '.join(['python', '-m', 'bench.planes', *sys.argv[1:]])}` at commit {commit()}; {versions}.",
        f"{host['cores']} x {host['cpu']}. Caches of {options.cache_mib} MiB; page cache warm.",
        f"Medians of {options.repeat} processes.",
        "",
        *table(columns, rows),
    ]
    print("\n".join(lines))


def sample(volume: Volume, reader: str, cache_nbytes: int) -> dict[str, float]:
    """Seconds of the first plane, of the median one, of all; of the processor for one. A wrong plane ends it all."""
    make, has_cache = READERS[reader]
    read = make(volume, cache_nbytes if has_cache else 0)
    shape = tuple(1 if axis == "z" else min(n, EXTENT_MAX) for axis, n in zip(volume.axes, volume.shape, strict=True))
    z = volume.axes.index("z")
    count = min(PLANES, volume.shape[z])
    boxes = [Box(tuple(number if axis == z else 0 for axis in range(len(shape))), shape) for number in range(count)]
    taken, answers = [], []
    cpu = time.process_time()
    for box in boxes:
        began = time.perf_counter()
        answers.append(read(box))
        taken.append(time.perf_counter() - began)
    cpu = time.process_time() - cpu
    for box, answer in zip(boxes, answers, strict=True):
        if not np.array_equal(answer, volume.truth(box)):
            raise SystemExit(f"{reader}: a wrong plane at {box.start}")
    return {"first": taken[0], "plane": median(taken), "all": sum(taken), "cpu": cpu / count}


if __name__ == "__main__":
    main()
