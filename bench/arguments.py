"""Arguments that commands share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


def add_names(
    parser: argparse.ArgumentParser,
    option: str,
    known: Collection[str],
    default: str = "all",
    groups: Mapping[str, Collection[str]] | None = None,
) -> None:
    """An option that takes a comma-separated list of known names and of ``groups`` of them, or "all".

    Its value has the order of ``known``: workloads that must find shards untouched come first there.
    """
    named = {"all": known, **(groups or {})}
    names = ", ".join([*known, *named])

    def parse(text: str) -> tuple[str, ...]:
        chosen = [name for part in text.split(",") for name in named.get(part, (part,))]
        unknown = [name for name in chosen if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {names}")
        return tuple(name for name in known if name in chosen)

    parser.add_argument(option, type=parse, default=default, help=f"comma-separated, default {default}: {names}")


def add_timing(parser: argparse.ArgumentParser, *, budget_s: float) -> None:
    """How often, and how long at the most."""
    parser.add_argument("--repeat", type=int, default=5, help="runs of each engine and workload")
    parser.add_argument("--budget", type=float, default=budget_s, help="seconds an engine may take in one workload")
