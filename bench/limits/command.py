"""The command ``python -m bench limits``: each group in a process of its own, then the report."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.arguments import add_names
from bench.circumstances import Circumstances
from bench.document import head, publish, table
from bench.limits.crowds import crowd, epoch, requests
from bench.limits.figures import Figure
from bench.limits.gil import gil
from bench.limits.planning import indexes, planning, vast
from bench.limits.start import start
from bench.runner import say
from bench.volumes import ROOT

if TYPE_CHECKING:
    import argparse

GROUPS: dict[str, Callable[..., list[Figure]]] = {
    "planning": planning,
    "vast": vast,
    "indexes": indexes,
    "epoch": epoch,
    "crowd": crowd,
    "gil": gil,
    "start": start,
    "requests": requests,
}
SHOWN_DIGITS = 3


@dataclass(frozen=True)
class Settings:
    """What to run."""

    groups: tuple[str, ...]
    repeat: int
    size: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add_names(parser, "--groups", GROUPS)
    parser.add_argument("--repeat", type=int, default=5, help="samples of each time")
    parser.add_argument("--quick", action="store_true", help="few chunks, shards and reads: a test, half a minute")
    parser.add_argument("--name", default="limits", help="of the files in bench/results")


def main(options: argparse.Namespace) -> int:
    """Runs, and writes JSON and Markdown. The exit code: 1 when a count passes its limit."""
    settings = Settings(options.groups, 1 if options.quick else options.repeat, "small" if options.quick else "full")
    document = run(settings, ["python", "-m", "bench", *sys.argv[1:]])
    publish(document, markdown(document), options.name)
    figures = (Figure(**figure) for group in document["groups"].values() for figure in group)
    broken = [figure.what for figure in figures if figure.exact and not figure.holds]
    for what in broken:
        say(f"over its limit: {what}")
    return 1 if broken else 0


def run(settings: Settings, command: list[str]) -> dict[str, Any]:
    """Everything, as JSON."""
    circumstances = Circumstances()
    groups = {}
    for group in settings.groups:
        say(group)
        arguments = [group, str(settings.repeat), settings.size]
        done = subprocess.run(
            [sys.executable, "-m", "bench.limits.command", *arguments], cwd=ROOT, stdout=subprocess.PIPE, check=True
        )
        groups[group] = json.loads(done.stdout)
    return {**circumstances.as_json(command, settings), "groups": groups}


def markdown(document: dict[str, Any]) -> str:
    """The report: one table a group."""
    load = [f"{document['load_average'][when][0]:.1f} {when}" for when in ("before", "after")]
    lines = [
        *head(document, "Limits"),
        f"Python {document['machine']['python']}. Load average {', '.join(load)}. Page cache warm.",
        f"Medians of {document['settings']['repeat']}; a count is marked #: the machine has no part in it.",
    ]
    for group, figures in document["groups"].items():
        rows = [_row(Figure(**figure)) for figure in figures]
        lines += ["", f"## {group}", "", *table(["what", "measured", "limit", "from to", ""], rows)]
    return "\n".join(lines) + "\n"


def _row(figure: Figure) -> list[str]:
    limit = "" if figure.most is None else f"{_number(figure.most)}{'' if figure.holds else ' **missed**'}"
    spread = "" if len(figure.samples) < 2 else f"{_number(min(figure.samples))} to {_number(max(figure.samples))}"
    more = "; ".join(f"{name}: {_short(value)}" for name, value in figure.more.items() if value)
    mark = " #" if figure.exact else ""
    return [figure.what, f"{_number(figure.value)} {figure.unit}{mark}", limit, spread, more.replace("|", "/")]


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_short, value))
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    if value == int(value) or abs(value) >= 10**SHOWN_DIGITS:
        return f"{value:,.0f}"
    return f"{value:.{SHOWN_DIGITS}g}"


if __name__ == "__main__":
    name, repeat, size = sys.argv[1:]
    print(json.dumps([figure.as_json() for figure in GROUPS[name](int(repeat), few=size == "small")]))
