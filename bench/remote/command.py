"""The command ``python -m bench remote``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from bench.arguments import add_names, add_timing
from bench.document import publish
from bench.remote.engines import ENGINE_GROUPS, ENGINES
from bench.remote.report import markdown
from bench.remote.runner import Settings, check, run
from bench.remote.workloads import WORKLOAD_GROUPS, WORKLOADS
from bench.volumes import SIZES

if TYPE_CHECKING:
    import argparse

QUICK_SUSTAINED_GIB = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--quick", action="store_true", help="answers and request counts only, tiny volumes; for CI")
    parser.add_argument("--where", choices=("http", "s3"), default="http", help="s3: a bucket, and nothing is signed")
    parser.add_argument("--size", choices=SIZES, default="full", help="of the volumes; full is 1 GiB each")
    add_names(parser, "--engines", ENGINES, "of_zarr", ENGINE_GROUPS)
    add_names(parser, "--workloads", WORKLOADS, "of_zarr", WORKLOAD_GROUPS)
    add_timing(parser, budget_s=30)
    parser.add_argument("--crops", type=int, default=2000, help="shards of the workload crops")
    parser.add_argument("--sustained-gib", type=float, default=8, help="decoded, of the workload sustained")
    parser.add_argument("--seed", default="voxfetch")
    parser.add_argument("--name", help="of the files in bench/results; default remote, or remote_s3")


def main(options: argparse.Namespace) -> int:
    """The exit code: 1 when --quick found something wrong."""
    settings = Settings(
        "small" if options.quick else options.size,
        options.engines,
        options.workloads,
        repeat=1 if options.quick else options.repeat,
        seed=options.seed,
        budget_s=options.budget,
        crops=options.crops,
        sustained_gib=QUICK_SUSTAINED_GIB if options.quick else options.sustained_gib,
        few=options.quick,
        where=options.where,
    )
    if options.quick:
        return 1 if check(settings) else 0
    document = run(settings, ["python", "-m", "bench", *sys.argv[1:]])
    name = options.name or ("remote" if options.where == "http" else "remote_s3")
    publish(document, markdown(document), name)
    return 0
