"""`voxfetch verify`: reads and decodes everything that is stored, with all checksums, and reports what is broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import voxfetch as vf
from voxfetch.cli import text
from voxfetch.cli.info import walk
from voxfetch.cli.read import open_array

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from voxfetch.cli.console import Console

_SHOWN_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What verifying one array found; `report` is None when it could not even be opened."""

    path: str
    report: vf.VerifyReport | None
    problem_count: int
    problems: Sequence[vf.VoxfetchError]

    def as_json(self) -> dict[str, object]:
        counts: dict[str, object] = {}
        if self.report is not None:
            names = ("objects", "objects_missing", "chunks", "chunks_missing", "bytes")
            counts = {name: getattr(self.report, name) for name in names}
        problems = [{"kind": problem.kind, "message": str(problem)} for problem in self.problems]
        return {"path": self.path, **counts, "problem_count": self.problem_count, "problems": problems}

    def __str__(self) -> str:
        path, report = text.plain(self.path), self.report
        if report is None:
            return f"{path}: cannot be opened"
        return (
            f"{path}: {report.objects:,} objects ({report.objects_missing:,} absent), "
            f"{report.chunks:,} chunks ({report.chunks_missing:,} absent), {text.size(report.bytes)} read"
        )


def verify(args: argparse.Namespace, console: Console) -> int:
    """Verifies one array, or all of an image or group; 1 if there is a problem."""
    found = _arrays(args)
    outcomes: list[_Outcome] = []
    with console.progress("verifying", len(found)) as progress:
        for path, node in found:
            outcome = _outcome(path, node)
            outcomes.append(outcome)
            console.line(str(outcome))
            for problem in outcome.problems[:_SHOWN_PROBLEMS]:
                console.line(f"  ! {text.plain(problem)}")
            if outcome.problem_count > _SHOWN_PROBLEMS:
                console.line(f"  ! ... and {outcome.problem_count - _SHOWN_PROBLEMS:,} more")
            progress.advance()
    count = sum(outcome.problem_count for outcome in outcomes)
    arrays = [outcome.as_json() for outcome in outcomes]
    console.result(
        {"source": text.without_secrets(args.source), "ok": count == 0, "problem_count": count, "arrays": arrays}
    )
    console.line("ok" if count == 0 else f"{count:,} problem{'s' if count > 1 else ''} found")
    return 1 if count else 0


def _arrays(args: argparse.Namespace) -> list[tuple[str, vf.Array | vf.VoxfetchError]]:
    """All arrays below the source, or the one level asked for."""
    if args.level is not None:
        return [(f"level {args.level}", open_array(args.source, args.level))]
    nodes = walk(vf.open(args.source))
    return [(path, node) for path, node in nodes if isinstance(node, vf.Array | vf.VoxfetchError)]


def _outcome(path: str, node: vf.Array | vf.VoxfetchError) -> _Outcome:
    if isinstance(node, vf.VoxfetchError):
        return _Outcome(path, None, 1, (node,))
    report = node.verify()
    return _Outcome(path, report, report.problem_count, report.problems)
