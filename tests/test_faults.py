"""Faults of servers and networks as one table: what is done to a read over HTTP, what is required, what happens.

The rows are in ``tests/faults``. Each states its outcome, which its test compares with what happens; of the figures the
numbers of the last writing are kept beside the outcome, and not compared.

    python tests/test_faults.py            run the table and print what differs
    python tests/test_faults.py --write    the same, then write tests/faults.md
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
if __name__ == "__main__":
    sys.path.insert(0, str(TESTS.parent))

from tests.faults import Figure, connections, figures, replies, versions  # noqa: E402 - as a script it needs the path

TABLE = TESTS / "faults.md"
SECTIONS = {
    "Replies": replies.ROWS,
    "Connections": connections.ROWS,
    "Versions": versions.ROWS,
    "Figures": figures.ROWS,
}
ROWS = [row for rows in SECTIONS.values() for row in rows]


def run(row):
    """(outcome, numbers) of a row; rows other than figures have no numbers."""
    result = row.run()
    return result if isinstance(row, Figure) else (result, "")


# ----------------------------------------------------------------------------------------------------------- as tests


@pytest.fixture(scope="module")
def waiting():
    """The rows that do nothing but wait, begun at the first test: name -> future."""
    with ThreadPoolExecutor(len(figures.SLOW)) as pool:
        yield {row.name: pool.submit(run, row) for row in ROWS if row.name in figures.SLOW}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_outcome(row, waiting):
    outcome, _ = waiting[row.name].result(30) if row.name in waiting else run(row)
    assert outcome == row.outcome


def test_names_are_unique():
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_the_written_table_is_current():
    written = TABLE.read_text(encoding="utf-8").splitlines()
    expected = render({}).splitlines()
    figures_begin = expected.index("## Figures")
    # The numbers are those of the last writing.
    written[figures_begin:] = [without_numbers(one) for one in written[figures_begin:]]
    assert written == expected, "run python tests/test_faults.py --write"


def without_numbers(one):
    cells = one.split(" | ")
    return " | ".join([*cells[:-1], " |"]) if len(cells) == 5 and cells[0] not in {"| row", "|---"} else one


# -------------------------------------------------------------------------------------------------------- as Markdown


def render(numbers):
    """The table as Markdown; `numbers` of figures by the names of rows."""
    lines = [
        "# Faults of servers and networks",
        "",
        "An array is opened over HTTP and read while a server or a proxy does what a row says. *Required* is what must",
        "come of it, *outcome* is what does; the test suite compares outcomes word for word. Requests are counted from",
        "the opening of the array on, that for the index of a shard included. If a row does not say otherwise, 4",
        'attempts are made, a reply may stand still for 0.3 s, and "once" and "always" are said of requests for data.',
        "Written by `python tests/test_faults.py --write`.",
    ]
    for title, rows in SECTIONS.items():
        last = title == "Figures"
        lines += ["", f"## {title}", ""]
        lines += [f"| row | fault | required | outcome |{' measured |' if last else ''}", f"|{'---|' * (4 + last)}"]
        for row in rows:
            cells = [row.name, row.fault, row.required, row.outcome, *([numbers.get(row.name, "")] if last else [])]
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write tests/faults.md if no row differs")
    arguments = parser.parse_args()
    failures, numbers = 0, {}
    for row in ROWS:
        try:
            outcome, numbers[row.name] = run(row)
        except Exception as error:  # noqa: BLE001  one line a row, whatever went wrong
            outcome = f"{type(error).__name__}: {error}"
        if outcome != row.outcome:
            failures += 1
            print(f"{row.name} {row.fault}: expected {row.outcome!r}, not {outcome!r}", file=sys.stderr)
    print(f"{len(ROWS)} rows, {failures} not as expected")
    if arguments.write and not failures:
        TABLE.write_text(render(numbers), encoding="utf-8")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
