"""The command ``python -m bench crops``: batches of random crops for training, from disk and over HTTP."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.arguments import add_names
from bench.circumstances import Circumstances
from bench.document import engines, head, publish, table
from bench.engines import is_own
from bench.remote.server import Server
from bench.remote.volumes import SERVED
from bench.runner import EngineFailedError, EngineUnsupportedError, Process, say, turns
from bench.volumes import SIZES, Size, Volume, build

if TYPE_CHECKING:
    import argparse

WORKER = "bench.crops.worker"
PLACES = ("local", "http")
PROBLEM_CHARS = 300
#: Of ``bench.crops.loaders``, which is imported by workers only: it needs torch.
LIBRARIES = ("voxfetch", "zarr", "zarrs", "tensorstore")
WORKERS = (0, 2, 8)
ENGINES = ("voxfetch", *(f"{name}-{workers}w" for name in LIBRARIES for workers in WORKERS))
DEFAULT_ENGINES = ",".join(name for name in ENGINES if not name.endswith("-8w"))


@dataclass(frozen=True)
class Settings:
    """What to run. ``limit_s``: a run of an engine ends at the first batch after it."""

    size: Size
    engines: tuple[str, ...]
    where: tuple[str, ...]
    extents: tuple[int, ...]
    crops: int
    batch: int
    repeat: int
    latency_ms: float
    limit_s: float
    seed: str


@dataclass
class Samples:
    """The runs of one engine at one place, and why there are no more."""

    engine: str
    where: str
    extent: int
    runs: list[dict[str, Any]]
    problem: str | None = None
    failed: bool = False
    cut_short: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--size", choices=SIZES, default="full", help="of the volume em")
    add_names(parser, "--engines", ENGINES, DEFAULT_ENGINES)
    add_names(parser, "--where", PLACES)
    parser.add_argument("--extents", default="64,128", help="of crops, in voxels along each axis, multiples of 8")
    parser.add_argument("--crops", type=int, default=512, help="of a run")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=3, help="runs of each engine")
    parser.add_argument("--latency-ms", type=float, default=20)
    parser.add_argument("--limit", type=float, default=60, help="seconds of one run, which ends then")
    parser.add_argument("--seed", default="voxfetch")
    parser.add_argument("--name", default="crops_torch", help="of the files in bench/results")


def main(options: argparse.Namespace) -> None:
    """Runs, and writes JSON and Markdown."""
    settings = Settings(
        options.size, options.engines, options.where, tuple(map(int, options.extents.split(","))), options.crops,
        options.batch, options.repeat, options.latency_ms, options.limit, options.seed,
    )  # fmt: skip
    document = run(settings, ["python", "-m", "bench", *sys.argv[1:]])
    publish(document, markdown(document), options.name)


def run(settings: Settings, command: list[str]) -> dict[str, Any]:
    """Everything, as JSON."""
    volume = build("em", settings.size)
    circumstances = Circumstances()
    loaded: dict[str, dict[str, Any]] = {}
    results: list[Samples] = []
    with Server(SERVED) as server:
        for where in settings.where:
            for extent in settings.extents:
                results += _alternate(settings, server.port, volume, where, extent, loaded)
    return {
        **circumstances.as_json(command, settings),
        "engines": loaded,
        "volume": volume.what,
        "results": [vars(samples) for samples in results],
    }


def _alternate(
    settings: Settings, port: int, volume: Volume, where: str, extent: int, loaded: dict[str, dict[str, Any]]
) -> list[Samples]:
    """All runs of crops of one extent at one place, in turns."""
    results = [Samples(engine, where, extent, []) for engine in settings.engines]
    processes: dict[str, Process] = {}
    try:
        for number, samples in turns(settings.repeat, results):
            engine = samples.engine
            try:
                if engine not in processes:
                    processes[engine] = process = Process(engine, WORKER, port=port)
                    loaded.setdefault(engine, process.loaded)
                    process.call(
                        "open", volume=volume.as_json(), extent=extent, count=settings.crops, batch=settings.batch,
                        runs=settings.repeat, seed=settings.seed, remote=where == "http",
                    )  # fmt: skip
                samples.runs.append(
                    processes[engine].call(
                        "run", number=number, latency_ms=settings.latency_ms, limit_s=settings.limit_s
                    )
                )
            except (EngineUnsupportedError, EngineFailedError) as reason:
                samples.problem = str(reason).split("\n", 1)[0][:PROBLEM_CHARS]
                samples.failed = isinstance(reason, EngineFailedError)
                loaded.setdefault(engine, {"problem": samples.problem})
                say(f"  {engine:17}{'FAILED' if samples.failed else 'skipped'}: {samples.problem}")
                continue
            done = samples.runs[-1]
            say(f"  {where:6}{extent:4}^3 {engine:17}{done['crops'] / done['seconds']:9.1f} crops/s")
    finally:
        for process in processes.values():
            process.close()
    return results


def markdown(document: dict[str, Any]) -> str:
    """The report: a table for each place and extent."""
    settings = document["settings"]
    load = [f"{document['load_average'][when][0]:.1f} {when}" for when in ("before", "after")]
    lines = [
        *head(document, "Random crops for PyTorch"),
        f"Python {document['machine']['python']}. Load average {', '.join(load)}. Page cache warm.",
        f"Medians of {settings['repeat']} alternating runs of {settings['crops']} crops in batches of",
        f"{settings['batch']}, at other places in each run. The first batches were compared with the source voxel by",
        "voxel, every crop of the measured runs by a checksum.",
        f"{document['volume']}. HTTP: {settings['latency_ms']:g} ms a request; server and reader share the cores.",
        "",
        *engines(document),
    ]
    for where in settings["where"]:
        for extent in settings["extents"]:
            found = [r for r in document["results"] if r["where"] == where and r["extent"] == extent]
            lines += ["", f"## {where}, {extent}^3", "", *_table(found, where)]
    return "\n".join(lines) + "\n"


def _table(results: list[dict[str, Any]], where: str) -> list[str]:
    rates = {r["engine"]: median(run["crops"] / run["seconds"] for run in r["runs"]) for r in results if r["runs"]}
    peer = max((engine for engine in rates if not is_own(engine)), key=rates.__getitem__, default=None)
    rows: list[list[str]] = []
    for result in results:
        engine = result["engine"]
        if engine not in rates:
            rows.append([engine, result["problem"] or "-", "", *["", "", ""][: 3 * (where == "http")]])
            continue
        to_peer = f"{rates[engine] / rates[peer]:.2f}" if peer else "-"
        crops = sum(run["crops"] for run in result["runs"])
        served = [sum(run[name] for run in result["runs"]) / crops for name in ("get", "head", "bytes")]
        cells = [f"{served[0] + served[1]:.1f}", f"{served[2] / 1e6:.3f}"]
        most = max(run["max_in_flight"] for run in result["runs"])
        name = f"**{engine}**" if engine == peer else engine
        rows.append([name, f"{rates[engine]:.1f}", to_peer, *([*cells, f"{most}"] if where == "http" else [])])
    columns = ["engine", "crops/s", "x best peer (above 1 = faster)"]
    if where == "http":
        columns += ["requests a crop", "MB a crop", "in flight"]
    return table(columns, rows)
