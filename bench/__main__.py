"""Command line: ``python -m bench {run,report,check,build,remote}``, from the root of the repository."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bench.arguments import add_names, add_timing
from bench.document import publish
from bench.engines import ENGINES
from bench.remote import command as remote
from bench.remote.runner import check_range_server
from bench.report import markdown
from bench.runner import Settings, check, run, say
from bench.volumes import DEFAULT_VOLUMES, SIZES, VOLUMES, MissingSourceError, build
from bench.workloads import DEFAULT_WORKLOADS, WORKLOADS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Benchmarks of voxfetch and its peers; see bench/README.md"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    select = argparse.ArgumentParser(add_help=False)
    select.add_argument("--size", choices=SIZES, default="medium", help="small runs in seconds, full is 1 GiB a volume")
    add_names(select, "--volumes", VOLUMES, default=None)
    read = argparse.ArgumentParser(add_help=False)
    add_names(read, "--engines", ENGINES)
    add_names(read, "--workloads", WORKLOADS, default=None)
    read.add_argument("--seed", default="voxfetch")

    timed = commands.add_parser("run", parents=[select, read], help="alternating runs; JSON and Markdown")
    add_timing(timed, budget_s=60)
    timed.add_argument("--name", default=None, help="of the files in bench/results; default: the size")
    commands.add_parser("check", parents=[read], help="answers only, small volumes, every layout; for CI")
    commands.add_parser("build", parents=[select], help="builds volumes ahead of a run")
    remote.add_arguments(commands.add_parser("remote", help="reads over HTTP from a server with settable delays"))
    again = commands.add_parser("report", help="Markdown of a stored run, on standard output")
    again.add_argument("results", type=Path)
    return parser


def main() -> int:
    """Returns the exit code: 1 when check, or remote --quick, found a wrong answer or a failure."""
    options = _parser().parse_args()
    if options.command == "report":
        print(markdown(json.loads(options.results.read_text())), end="")
        return 0
    if options.command == "remote":
        return remote.main(options)
    if options.command == "build":
        for name in options.volumes or DEFAULT_VOLUMES:
            try:
                volume = build(name, options.size)
            except MissingSourceError as reason:
                say(f"{name}: skipped, {reason}")
                continue
            stored = volume.stored_bytes
            print(f"{name}: {volume.what}, {stored / 1e6:.0f} MB, {volume.nbytes / stored:.2f}x, {volume.writer}")
        return 0
    if options.command == "check":
        workloads = options.workloads or tuple(WORKLOADS)
        settings = Settings(
            "small", options.engines, workloads, tuple(VOLUMES), repeat=1, seed=options.seed, budget_s=60, few=True
        )
        return 1 if check_range_server() + check(settings) else 0
    settings = Settings(
        options.size,
        options.engines,
        options.workloads or DEFAULT_WORKLOADS,
        options.volumes or DEFAULT_VOLUMES,
        repeat=options.repeat,
        seed=options.seed,
        budget_s=options.budget,
        few=options.size == "small",
    )
    document = run(settings, ["python", "-m", "bench", *sys.argv[1:]])
    publish(document, markdown(document), options.name or options.size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
