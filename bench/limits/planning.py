"""Arrays on disk: nanoseconds a planned chunk, arrays of 2^34 chunks, bytes an index takes in memory."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import voxfetch as vf
from bench.limits.arrays import (
    ENTRIES,
    FOLDER,
    INDEX_NBYTES,
    SIDE,
    document,
    make,
    missing_shard,
    morton,
    no_order,
    shard,
    undecodable_shard,
)
from bench.limits.figures import Figure, count, times

NS = 1e9
US = 1e6
MOST_NS_A_CHUNK = 150
MOST_BYTES_A_CHUNK = 3
#: An array of 2^34 chunks of 32^3: shards of 1024^3, 128 x 64 x 64 of them.
VAST = (1 << 17, 1 << 16, 1 << 16)
#: The cell of the one shard that is stored.
PLACE = (100, 40, 50)


def seconds(call: Callable[[], Any], repeat: int) -> list[float]:
    """CPU times of a call that works on this thread alone, after one that is not measured."""
    call()
    samples = []
    for _ in range(repeat):
        began = time.thread_time()
        call()
        samples.append(time.thread_time() - began)
    return samples


def planning(repeat: int, *, few: bool) -> list[Figure]:
    """Boxes of many chunks whose indexes are known: plans alone, then reads in which there is little else."""
    figures = []
    grid = (1, 1, 1) if few else (3, 3, 3)
    kinds = {
        "stored, compressed": (undecodable_shard(morton()), 4, True),
        "stored, compressed, in no order": (undecodable_shard(no_order()), 4, True),
        "stored, not compressed": (shard(4, morton()), 4, False),
        "missing": (missing_shard(), 4, False),
    }
    chunks = ENTRIES * int(np.prod(grid))
    for kind, (body, chunk, zstd) in kinds.items():
        shape = [n * SIDE * chunk for n in grid]
        path = make("planned", document(shape, chunk, zstd=zstd), ((cell, body) for cell in np.ndindex(*grid)))
        with vf.Engine(decode_threads=1) as engine:
            array = vf.open_array(path, engine=engine)
            report = array.explain()
            stored = 0 if kind == "missing" else chunks
            if (report.chunks, report.chunks - report.chunks_missing) != (chunks, stored):
                raise AssertionError(f"{kind}: {report}")
            ns = times(f"plan of {chunks:,} chunks, {kind}", "ns a chunk", seconds(array.explain, repeat), NS / chunks)
            ns.most = MOST_NS_A_CHUNK
            figures.append(ns)
            if kind == "missing":
                out = np.empty(array.shape, "u1")
                read = seconds(lambda: array.read(out=out), repeat)  # noqa: B023 - called at once
                if not (out == 7).all():
                    raise AssertionError("missing chunks are not the fill value")
                figures.append(times(f"read of {chunks:,} chunks of 4^3, missing", "ns a chunk", read, NS / chunks))
    return figures


def vast(repeat: int, *, few: bool) -> list[Figure]:
    """An array of 2^34 chunks and one of 2^15, with the same shard: opened, read, explained in turns."""
    body = shard(32, morton()) if not few else shard(2, morton())
    chunk = 2 if few else 32
    side = SIDE * chunk
    real = make("real", document([side] * 3, chunk, zstd=False), [((0, 0, 0), body)])
    arrays = {
        "2^15": (real, (0, 0, 0)),
        "2^34": (
            make("vast", document([n * chunk // 32 for n in VAST], chunk, zstd=False), [(PLACE, real / "c/0/0/0")]),
            PLACE,
        ),
    }
    box = (2 * chunk,) * 3
    samples: dict[tuple[str, str], list[float]] = {}
    costs: dict[str, tuple[int, ...]] = {}
    for number in range(20 * repeat + 1):
        for name, (path, cell) in arrays.items():
            with vf.Engine() as engine:
                began = time.perf_counter()
                array = vf.open_array(path, engine=engine)
                opened = time.perf_counter()
                start = [c * side + chunk // 2 for c in cell]
                answer = array.read_box(start, box)
                first = time.perf_counter()
                again = array.read_box(start, box)
                ended = time.perf_counter()
                if not (answer == again).all() or answer[0, 0, 0] != 0 or answer[0, 0, -1] != 2:
                    raise AssertionError(f"wrong voxels of {name}")
                stats = engine.stats()
                costs[name] = (stats.requests, stats.bytes_read, stats.chunks_decoded, stats.open_files)
            if number:
                for what, took in (
                    ("open", opened - began),
                    ("first box", first - opened),
                    ("box again", ended - first),
                ):
                    samples.setdefault((what, name), []).append(took)
    figures = []
    for (what, name), taken in samples.items():
        figures.append(times(f"{what}, array of {name} chunks", "us", taken, US))
    # Requests, bytes, chunks decoded, open files.
    differ = sum(a != b for a, b in zip(*costs.values(), strict=True))
    figures.append(count("counters of two boxes that differ between the two arrays", differ, 0, more=costs))
    for what in ("open", "first box", "box again"):
        small, large = (float(np.median(samples[what, name])) for name in arrays)
        # Equal, but for what a busy machine makes of two medians.
        figures.append(Figure(f"{what}, vast over small", "times", [large / small], 1.2))
    return figures


def indexes(repeat: int, *, few: bool) -> list[Figure]:
    """What an index of 32^3 chunks takes in memory, by writer, and how fast one becomes known."""
    figures = []
    for writer, write in WRITERS.items():
        folder = FOLDER / f"written-{writer}"
        if not (folder / "zarr.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            write(folder)
        file = next(path for path in folder.joinpath("c").rglob("*") if path.is_file())
        shards = 4 if few else 64
        copies = make(f"copies-{writer}", _longer(folder, shards))
        for number in range(shards):
            path = copies.joinpath("c", str(number), *("0",) * (file.parts[::-1].index("c") - 1))
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, path)
        taken = []
        for _ in range(repeat + 1):
            with vf.Engine(decode_threads=1) as engine:
                array = vf.open_array(copies, engine=engine)
                step = (array.shards or array.shape)[0]
                places = [(slice(n * step, n * step + 1), *(slice(0, 1),) * (array.ndim - 1)) for n in range(shards)]
                began = time.perf_counter()
                for place in places:
                    array.explain(place)
                taken.append(time.perf_counter() - began)
                stats = engine.stats()
        if stats.index_cache_bytes == 0:
            raise AssertionError("no index is kept")
        each = stats.index_cache_bytes / shards / ENTRIES
        figures.append(count(f"index in memory, written by {writer}", each, MOST_BYTES_A_CHUNK, "bytes a chunk"))
        rate = [shards * INDEX_NBYTES / 1e9 / t for t in taken[1:]]
        figures.append(Figure(f"indexes opened, read and decoded, written by {writer}", "GB/s", rate))
    return figures


def _longer(folder: Path, shards: int) -> dict[str, Any]:
    import json

    what: dict[str, Any] = json.loads((folder / "zarr.json").read_bytes())
    return what | {"shape": [shards * what["shape"][0], *what["shape"][1:]]}


# Chunks of 8^3, of 20 to 520 bytes, of which some are not stored.


def _voxels() -> np.ndarray[Any, Any]:
    dice = np.random.default_rng(1)
    voxels = dice.integers(0, 256, (8 * SIDE,) * 3, "u1")
    voxels &= np.repeat(dice.integers(0, 256, (1, 8 * SIDE, SIDE), "u1"), 8, axis=2)
    voxels[:40, :40, :40] = 0
    return voxels


def _zarr(path: Path) -> None:
    import zarr

    side = 8 * SIDE
    array = zarr.create_array(
        str(path), shape=(side,) * 3, dtype="u1", chunks=(8,) * 3, shards=(side,) * 3, fill_value=0
    )
    array[...] = _voxels()


def _zarrs(path: Path) -> None:
    import zarr
    import zarrs  # noqa: F401 - its pipeline

    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "codec_pipeline.strict": True}):
        _zarr(path)


def _tensorstore(path: Path) -> None:
    _with_tensorstore(path, _voxels(), (8 * SIDE,) * 3, (8,) * 3, ())


def _webknossos(path: Path) -> None:
    """As its library has tensorstore write: (c, x, y, z), transposed."""
    transposed = {"name": "transpose", "configuration": {"order": [3, 2, 1, 0]}}
    _with_tensorstore(path, _voxels()[None], (1, *(8 * SIDE,) * 3), (1, 8, 8, 8), (transposed,))


def _with_tensorstore(
    path: Path, voxels: Any, shard_shape: tuple[int, ...], chunk: tuple[int, ...], before: tuple[Any, ...]
) -> None:
    import tensorstore as ts

    what = document((1, 1, 1), 8, zstd=True)
    sharding = what["codecs"][0]["configuration"]
    sharding |= {"chunk_shape": chunk, "codecs": [*before, *sharding["codecs"]]}
    metadata = {
        "shape": shard_shape,
        "data_type": "uint8",
        "fill_value": 0,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard_shape}},
        "codecs": what["codecs"],
    }
    kvstore = {"driver": "file", "path": f"{path}/"}
    ts.open({"driver": "zarr3", "kvstore": kvstore, "metadata": metadata}, create=True).result()[...] = voxels


WRITERS: dict[str, Callable[[Path], None]] = {
    "zarr-python": _zarr,
    "zarrs": _zarrs,
    "tensorstore": _tensorstore,
    "webknossos": _webknossos,
}
