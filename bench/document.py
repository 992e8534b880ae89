"""What the results of all benchmarks share: pieces of the Markdown, files in bench/results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.engines import is_own
from bench.runner import say

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RESULTS = Path(__file__).parent / "results"


def publish(document: dict[str, Any], text: str, name: str) -> None:
    """Writes the JSON and its Markdown to bench/results, and the Markdown to standard output."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(document) + "\n")
    path.with_suffix(".md").write_text(text)
    print(text, end="")
    say(f"written: {path} and .md")


# ------------------------------------------------------------------------------------------------------------ Markdown


def head(document: dict[str, Any], title: str) -> list[str]:
    """Title, command and machine; the sentence that begins with the machine is to be ended by the caller."""
    host = document["machine"]
    return [
        f"# {title}, {document['created'][:10]}, size {document['settings']['size']}",
        "",
        f"`{' '.join(document['command'])}` at commit {document['commit']}.",
        "",
        f"{host['cores']} x {host['cpu']}, {host['memory_bytes'] / 2**30:.0f} GiB, Linux {host['kernel']},",
    ]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table."""
    return [_row(columns), "|-" * len(columns) + "|", *map(_row, rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def engines(document: dict[str, Any], **more: str) -> list[str]:
    """The table of engines; ``more`` are fields besides versions and configuration, and their headings."""
    rows = []
    for engine, loaded in document["engines"].items():
        if "problem" in loaded:
            rows.append([engine, "-", one_line(loaded["problem"]), *("" for _ in more)])
        else:
            versions = ", ".join(f"{name} {version}" for name, version in loaded["versions"].items())
            rows.append([engine, versions, *(one_line(loaded[field]) for field in ("configuration", *more))])
    return table(["engine", "versions", "configuration", *more.values()], rows)


def best_peer(times: dict[str, float], floors: Sequence[str]) -> str | None:
    """The fastest engine that is neither voxfetch nor a floor. ``times``: engine -> seconds."""
    peers = {engine: seconds for engine, seconds in times.items() if not is_own(engine) and engine not in floors}
    return min(peers, key=peers.__getitem__, default=None)


def one_line(text: str) -> str:
    """As it may stand in a cell."""
    return text.replace("|", "/").replace("\n", " ")
