"""Whether ``blocks()`` keeps ahead of its consumer: ``python -m bench.crops.consumer``, from the repository's root.

The consumer takes 500 MB/s: it is busy with each block for as long as that needs, asleep but for the last part of a
millisecond, as a sleep alone ends too late. Its efficiency is the time that it was busy over the wall time: the rest
it waited for blocks, or spent in asking for them. The page cache is warm; the table goes to standard output.
"""

from __future__ import annotations

import argparse
import os
import time
from statistics import median

import voxfetch as vf
from bench.circumstances import commit
from bench.document import table
from bench.volumes import SIZES, build

SPIN_S = 0.0004
#: Shape of the blocks and halo, in voxels along each axis.
BLOCKS = ((64, 0), (128, 0), (128, 8), (256, 0), (256, 16))


def main() -> None:
    """Runs, and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.crops.consumer", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--volume", default="em")
    parser.add_argument("--rate-mb-s", type=float, default=500)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    volume = build(options.volume, options.size)
    array = vf.open_array(volume.path)
    rows = []
    for extent, halo in BLOCKS:
        runs = [_run(array, extent, halo, options.rate_mb_s * 1e6) for _ in range(options.repeat + 1)][1:]
        blocks, nbytes = runs[0][:2]
        busy, wall, cpu = (median(run[at] for run in runs) for at in (2, 3, 4))
        cells = (f"{nbytes / wall / 1e6:.0f}", f"{busy / wall:.3f}", f"{cpu / nbytes * 1e9:.2f}")
        rows.append([f"{extent}^3", f"{halo}", f"{blocks:,}", *cells])
    print(f"{volume.what}, {volume.shape}; commit {commit()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}.\n")
    print("\n".join(table(["blocks", "halo", "number", "MB/s", "efficiency", "CPU s a GB"], rows)))


def _run(array: vf.Array, extent: int, halo: int, rate: float) -> tuple[int, int, float, float, float]:
    """Blocks, bytes, seconds busy, wall and CPU seconds of one iteration over the whole array."""
    blocks, nbytes, busy = 0, 0, 0.0
    cpu, start = time.process_time(), time.perf_counter()
    for _, block in array.blocks(extent, halo=halo):
        began = time.perf_counter()
        end = began + block.nbytes / rate
        time.sleep(max(0.0, end - began - SPIN_S))
        while time.perf_counter() < end:
            pass
        busy += time.perf_counter() - began
        blocks, nbytes = blocks + 1, nbytes + block.nbytes
    return blocks, nbytes, busy, time.perf_counter() - start, time.process_time() - cpu


if __name__ == "__main__":
    main()
