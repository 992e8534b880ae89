"""The command ``python -m bench remote``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bench.remote.engines import ENGINES
from bench.remote.report import markdown
from bench.remote.runner import Settings, check, run
from bench.remote.workloads import WORKLOADS
from bench.runner import say
from bench.volumes import SIZES

RESULTS = Path(__file__).parents[1] / "results"
QUICK_SUSTAINED_GIB = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--quick", action="store_true", help="answers and request counts only, tiny volumes; for CI")
    parser.add_argument("--size", choices=SIZES, default="full", help="of the volumes; full is 1 GiB each")
    parser.add_argument("--engines", default=",".join(ENGINES), help=f"comma-separated, of {', '.join(ENGINES)}")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help=f"comma-separated, of {', '.join(WORKLOADS)}")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each engine and workload")
    parser.add_argument("--budget", type=float, default=30, help="seconds an engine may take in one workload")
    parser.add_argument("--crops", type=int, default=2000, help="shards of the workload crops")
    parser.add_argument("--sustained-gib", type=float, default=8, help="decoded, of the workload sustained")
    parser.add_argument("--seed", default="voxfetch")
    parser.add_argument("--name", default="remote", help="of the files in bench/results")


def main(options: argparse.Namespace) -> int:
    """The exit code: 1 when --quick found something wrong."""
    settings = Settings(
        "small" if options.quick else options.size,
        _chosen(options.engines, list(ENGINES)),
        _chosen(options.workloads, list(WORKLOADS)),
        repeat=1 if options.quick else options.repeat,
        seed=options.seed,
        budget_s=options.budget,
        crops=options.crops,
        sustained_gib=QUICK_SUSTAINED_GIB if options.quick else options.sustained_gib,
        few=options.quick,
    )
    if options.quick:
        return 1 if check(settings) else 0
    document = run(settings, ["python", "-m", "bench", *sys.argv[1:]])
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{options.name}.json"
    path.write_text(json.dumps(document) + "\n")
    text = markdown(document)
    path.with_suffix(".md").write_text(text)
    print(text, end="")
    say(f"written: {path} and .md")
    return 0


def _chosen(text: str, known: list[str]) -> tuple[str, ...]:
    """Known names in the order of ``known``: workloads that must find shards untouched come first there."""
    names = text.split(",")
    unknown = sorted(set(names) - set(known))
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    return tuple(name for name in known if name in names)
