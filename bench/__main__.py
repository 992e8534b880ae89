"""Command line: ``python -m bench {run,scale,start,limits,formats,report,check,build,remote,crops,serve}``, from the
root.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bench import formats, start
from bench.arguments import add_names, add_timing
from bench.crops import command as crops
from bench.document import publish
from bench.engines import ENGINE_GROUPS, ENGINES
from bench.layouts import VOLUME_GROUPS, VOLUMES
from bench.limits import command as limits
from bench.remote import command as remote
from bench.remote.runner import check_range_server
from bench.report import markdown
from bench.runner import Settings, check, run, say
from bench.serve import command as serve
from bench.serve.report import markdown as serve_markdown
from bench.volumes import SIZES, MissingSourceError, Size, build
from bench.workloads import WORKLOAD_GROUPS, WORKLOADS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Benchmarks of voxfetch and its peers; see bench/README.md"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    timed = commands.add_parser("run", help="alternating runs; JSON and Markdown")
    _add_reads(timed, size="medium", volumes="shards", workloads="reads", engines="of_zarr", name=None)
    timed.set_defaults(cores=(None,))
    scale = commands.add_parser("scale", help="the same of growing parts of a long volume, on one core and on two")
    engines = "voxfetch,tensorstore-best,floor-1t,floor-2t"
    _add_reads(scale, size="full", volumes="em_long", workloads="parts", engines=engines, name="scale")
    scale.set_defaults(cores=(1, 2))
    start.add_arguments(commands.add_parser("start", help="from the start of an interpreter to the first voxels"))
    limits.add_arguments(commands.add_parser("limits", help="counts, memory and times at very large sizes"))
    answers = commands.add_parser("check", help="answers only, small volumes, every layout; for CI")
    add_names(answers, "--engines", ENGINES)
    add_names(answers, "--workloads", WORKLOADS, groups=WORKLOAD_GROUPS)
    answers.add_argument("--seed", default="voxfetch")
    _add_volumes(commands.add_parser("build", help="builds volumes ahead of a run"), size="medium", volumes="shards")
    remote.add_arguments(commands.add_parser("remote", help="reads over HTTP from a server with settable delays"))
    formats.add_arguments(commands.add_parser("formats", help="WKW, N5, HDF5 and others: from disk and over HTTP"))
    crops.add_arguments(commands.add_parser("crops", help="random crops for PyTorch, from disk and over HTTP"))
    serve.add_arguments(commands.add_parser("serve", help="voxfetch's server and others: throughput, a cold view"))
    again = commands.add_parser("report", help="Markdown of a stored run, on standard output")
    again.add_argument("results", type=Path)
    return parser


def _add_volumes(parser: argparse.ArgumentParser, *, size: Size, volumes: str) -> None:
    parser.add_argument("--size", choices=SIZES, default=size, help="small is for tests, full is 1 GiB a volume")
    add_names(parser, "--volumes", VOLUMES, volumes, VOLUME_GROUPS)


def _add_reads(
    parser: argparse.ArgumentParser, *, size: Size, volumes: str, workloads: str, engines: str, name: str | None
) -> None:
    _add_volumes(parser, size=size, volumes=volumes)
    add_names(parser, "--engines", ENGINES, engines, ENGINE_GROUPS)
    add_names(parser, "--workloads", WORKLOADS, workloads, WORKLOAD_GROUPS)
    add_timing(parser, budget_s=60)
    parser.add_argument("--seed", default="voxfetch")
    parser.add_argument("--name", default=name, help=f"of the files in bench/results; default: {name or 'the size'}")


def main() -> int:
    """Returns the exit code: 1 when check, remote --quick or serve found something wrong, limits a count too high."""
    options = _parser().parse_args()
    if options.command == "report":
        document = json.loads(options.results.read_text())
        kinds = {formats.LOCAL: formats.markdown, "throughput": serve_markdown}
        print(next((kinds[name] for name in kinds if name in document), markdown)(document), end="")
        return 0
    if options.command == "formats":
        return formats.main(options)
    if options.command == "remote":
        return remote.main(options)
    if options.command == "limits":
        return limits.main(options)
    if options.command == "crops":
        crops.main(options)
        return 0
    if options.command == "serve":
        return serve.main(options)
    if options.command == "start":
        start.main(options)
        return 0
    if options.command == "build":
        for name in options.volumes:
            try:
                volume = build(name, options.size)
            except MissingSourceError as reason:
                say(f"{name}: skipped, {reason}")
                continue
            stored = volume.stored_bytes
            print(f"{name}: {volume.what}, {stored / 1e6:.0f} MB, {volume.nbytes / stored:.2f}x, {volume.writer}")
        return 0
    if options.command == "check":
        settings = Settings(
            "small", options.engines, options.workloads, tuple(VOLUMES),
            repeat=1, seed=options.seed, budget_s=60, few=True,
        )  # fmt: skip
        return 1 if check_range_server() + check(settings) + start.check(options.engines) else 0
    settings = Settings(
        options.size,
        options.engines,
        options.workloads,
        options.volumes,
        repeat=options.repeat,
        seed=options.seed,
        budget_s=options.budget,
        few=options.size == "small",
        cores=options.cores,
    )
    document = run(settings, ["python", "-m", "bench", *sys.argv[1:]])
    publish(document, markdown(document), options.name or options.size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
