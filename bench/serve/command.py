"""The command ``python -m bench serve``: both parts, then the report; with ``--quick`` answers alone."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.arguments import add_names
from bench.circumstances import Circumstances
from bench.document import publish
from bench.runner import say
from bench.serve.load import LoadError, wrk
from bench.serve.report import markdown
from bench.serve.servers import SERVERS, TRANSCODED
from bench.serve.throughput import throughput
from bench.serve.view import WAYS, views
from bench.volumes import SIZES, Size

if TYPE_CHECKING:
    import argparse

PARTS = ("throughput", "view")
QUICK_PIXELS = 128
QUICK_LATENCY_MS = 5.0


@dataclass(frozen=True)
class Settings:
    """What to run. ``size`` is that of the volumes of throughput, ``view_size`` of the images of view."""

    size: Size
    view_size: Size
    parts: tuple[str, ...]
    engines: tuple[str, ...]
    volumes: tuple[str, ...]
    connections: tuple[int, ...]
    seconds: float
    latencies_ms: tuple[float, ...]
    pixels: int
    repeat: int
    seed: str
    cores: tuple[int, int] | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--quick", action="store_true", help="answers only, tiny volumes, a load of a second; for CI")
    add_names(parser, "--parts", PARTS)
    add_names(parser, "--engines", SERVERS)
    add_names(parser, "--volumes", TRANSCODED)
    parser.add_argument("--size", choices=SIZES, default="medium", help="of the volumes of throughput")
    parser.add_argument("--view-size", choices=SIZES, default="full", help="of the images of view; full is 1024^3")
    parser.add_argument("--connections", default="1,6,64")
    parser.add_argument("--seconds", type=float, default=3, help="of one load, whole seconds")
    parser.add_argument("--latencies-ms", default="20,50,100", help="of the store, in view")
    parser.add_argument("--pixels", type=int, default=1024, help="width and height of each of the three planes")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seed", default="voxfetch")
    parser.add_argument("--browser", action="store_true", help="the view once more, in Neuroglancer in Chromium")
    parser.add_argument("--name", default="serve", help="of the files in bench/results")


def main(options: argparse.Namespace) -> int:
    """The exit code: 1 when a server failed, or gave a wrong answer."""
    settings = Settings(
        size="small" if options.quick else options.size,
        view_size="small" if options.quick else options.view_size,
        parts=options.parts,
        engines=options.engines,
        volumes=options.volumes,
        connections=_connections(options),
        seconds=1 if options.quick else options.seconds,
        latencies_ms=(QUICK_LATENCY_MS,) if options.quick else tuple(map(float, options.latencies_ms.split(","))),
        pixels=QUICK_PIXELS if options.quick else options.pixels,
        repeat=1 if options.quick else options.repeat,
        seed=options.seed,
        cores=_two_cores(),
    )
    if not options.quick and "throughput" in settings.parts and settings.cores is None:
        raise SystemExit("a core for the server and one for the load are needed, and taskset (Debian: util-linux)")
    document = run(settings, ["python", "-m", "bench", *sys.argv[1:]], browser=options.browser)
    failed = [r for part in PARTS for r in document[part] if r["failed"]]
    for r in failed:
        say(f"FAILED: {r['engine']}, {r['volume']}: {r['problem']}")
    if not options.quick:
        publish(document, markdown(document), options.name)
    return 1 if failed else 0


def _two_cores() -> tuple[int, int] | None:
    """One for the server and one for the load, of those that this process may use; None where there are none."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1]) if len(cores) > 1 and shutil.which("taskset") is not None else None


def _connections(options: argparse.Namespace) -> tuple[int, ...]:
    """Of wrk. Without it there is no load: a quick run says so, any other ends."""
    try:
        wrk()
    except LoadError as reason:
        if "throughput" in options.parts and not options.quick:
            raise SystemExit(str(reason)) from reason
        say(f"no load: {reason}")
        return ()
    return (6,) if options.quick else tuple(map(int, options.connections.split(",")))


def run(settings: Settings, command: list[str], *, browser: bool = False) -> dict[str, Any]:
    """Everything, as JSON."""
    circumstances = Circumstances()
    document: dict[str, Any] = {part: [] for part in PARTS}
    if "throughput" in settings.parts:
        served = throughput(
            settings.volumes, settings.size, settings.engines, connections=settings.connections,
            seconds=settings.seconds, repeat=settings.repeat, seed=settings.seed, cores=settings.cores,
        )  # fmt: skip
        document["throughput"] = [vars(one) for one in served]
    if "view" in settings.parts:
        seen = views(
            settings.volumes, settings.view_size, WAYS, latencies_ms=settings.latencies_ms, pixels=settings.pixels,
            repeat=settings.repeat,
        )  # fmt: skip
        document["view"] = [vars(one) for one in seen]
    if browser:
        from bench.serve.browser import in_browser

        document["browser"] = in_browser(settings.volumes, settings.view_size, settings.latencies_ms, settings.pixels)
    return {**circumstances.as_json(command, settings), **document}
