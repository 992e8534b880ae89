"""What eight consumers fetch of what one fetches: ``python -m bench.crops.sharing``, from the root of the repository.

An epoch of random crops over HTTP, by one iteration of CropLoader that one thread or eight share, and by the worker
processes of torch's DataLoader, with samples all mixed or with blocks of their own (BlockSampler); each without and
with a cache of decoded chunks, which each process has for itself. Counted by the server; times say nothing here. The
table goes to standard output.
"""

from __future__ import annotations

import argparse
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

import voxfetch as vf
from bench.circumstances import commit
from bench.document import table
from bench.remote.server import Server
from bench.remote.volumes import SERVED, RemoteVolume
from bench.volumes import SIZES, build
from voxfetch.torch import BlockSampler, CropDataset, CropLoader

if TYPE_CHECKING:
    from collections.abc import Callable

CONSUMERS = 8


def _threads(crops: CropDataset, options: argparse.Namespace, consumers: int) -> int:
    batches = iter(CropLoader(crops, options.batch, window=options.window))
    with ThreadPoolExecutor(consumers) as threads:
        return sum(threads.map(lambda _: sum(map(len, batches)), range(consumers)))


def _processes(crops: CropDataset, options: argparse.Namespace, workers: int, *, blocks: bool) -> int:
    order: dict[str, Any] = {"batch_size": options.batch, "shuffle": True}
    if blocks:
        order = {"batch_sampler": BlockSampler(crops, options.batch, workers=workers, window=options.window)}
    # Forked ones keep the options of the engine.
    return sum(map(len, DataLoader(crops, num_workers=workers, multiprocessing_context="fork", **order)))


HOW: dict[str, Callable[[CropDataset, argparse.Namespace, int], int]] = {
    "CropLoader, threads": _threads,
    "DataLoader, BlockSampler": lambda crops, options, count: _processes(crops, options, count, blocks=True),
    "DataLoader, shuffle=True": lambda crops, options, count: _processes(crops, options, count, blocks=False),
}


def main() -> None:
    """Runs, and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.crops.sharing", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--extent", type=int, default=64)
    parser.add_argument("--crops", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--window", type=int, default=1)
    parser.add_argument("--cache-mib", type=int, default=512)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # more workers than cores, forks of threads
    torch.set_num_threads(1)
    volume = build("em", options.size)
    rows: list[list[str]] = []
    with Server(SERVED) as server:
        url = f"{server.control.url}/{RemoteVolume(volume, volume).path}"
        for how, load in HOW.items():
            for cache_nbytes in (0, options.cache_mib << 20):
                of_one = 0
                for consumers in (1, CONSUMERS):
                    engine = vf.Engine(cache_nbytes + (512 << 20), chunk_cache_bytes=cache_nbytes)
                    array = vf.open_array(url, engine=engine)
                    crops = CropDataset.random(array, options.extent, options.crops)
                    server.control.reset()
                    if load(crops, options, consumers) != options.crops:
                        raise SystemExit(f"{how}: not every sample came once")
                    stats = server.control.stats()
                    engine.close()
                    of_one = of_one or stats["bytes"]
                    cells = [str(consumers), f"{stats['get']:,}", f"{stats['bytes'] / 1e6:,.0f}"]
                    rows.append([how, f"{cache_nbytes >> 20}", *cells, f"{stats['bytes'] / of_one:.2f}"])
    print(f"{options.crops} crops of {options.extent}^3 in batches of {options.batch}, window {options.window},")
    print(f"from {volume.what}, {volume.shape}; commit {commit()}, {os.cpu_count()} cores.\n")
    print("\n".join(table(["how", "cache, MiB", "consumers", "requests", "MB", "of one"], rows)))


if __name__ == "__main__":
    main()
