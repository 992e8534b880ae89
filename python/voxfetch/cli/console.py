"""Where output goes: results to stdout (text or one JSON document), remarks and progress to stderr."""

from __future__ import annotations

import json
import math
import sys
import time
from typing import TYPE_CHECKING, Self, cast

import numpy as np

from voxfetch.cli import text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: A progress line appears when a command runs longer than this, and then as often.
_QUIET_S = 1.0
_REFRESH_S = 0.1


class Console:
    """One command's output. `as_json`: results as one JSON document instead of text, and remarks not at all."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def result(self, value: Mapping[str, object]) -> None:
        """The JSON form of the result, printed only when JSON was asked for."""
        if self.as_json:
            print(json.dumps(_jsonable(value), ensure_ascii=False, allow_nan=False))

    def line(self, message: str = "") -> None:
        """One line of the text form."""
        if not self.as_json:
            print(message)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Aligned columns; on a terminal by `rich`, where it is installed."""
        if self.as_json or not rows:
            return
        if sys.stdout.isatty() and _rich_table(header, rows):
            return
        widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
        for line in (header, *rows):
            print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())

    def remark(self, message: str) -> None:
        """Something beside the result, such as how long it took."""
        if not self.as_json:
            print(message, file=sys.stderr)

    def progress(self, what: str, total: int) -> Progress:
        """Progress over `total` steps of any unit; silent unless stderr is a terminal."""
        return Progress(what, total, visible=not self.as_json and sys.stderr.isatty())


class Progress:
    """A line on stderr that says how far a command is, once it has run for a second. A context manager."""

    def __init__(self, what: str, total: int, *, visible: bool) -> None:
        self._what, self._total, self._visible = what, max(total, 1), visible
        self._done = 0
        self._next = time.monotonic() + _QUIET_S
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def advance(self, steps: int = 1) -> None:
        """Counts finished steps and redraws the line when it is time."""
        self._done += steps
        now = time.monotonic()
        if not self._visible or now < self._next:
            return
        self._next, self._shown = now + _REFRESH_S, True
        filled = round(30 * self._done / self._total)
        bar = "#" * filled + "." * (30 - filled)
        sys.stderr.write(f"\r{self._what} [{bar}] {100 * self._done // self._total:3d} %")
        sys.stderr.flush()

    def __exit__(self, *_: object) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _rich_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Prints the table by `rich`; False if that is not installed."""
    try:
        from rich.console import Console as RichConsole
        from rich.markup import escape
        from rich.table import Table
    except ImportError:
        return False
    table = Table(box=None, pad_edge=True, header_style="bold")
    for name in header:
        table.add_column(escape(name), no_wrap=True)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    RichConsole().print(table)
    return True


def _jsonable(value: object) -> object:
    """A value as JSON has it: NaN and infinities as the strings that Zarr uses, bytes as hexadecimal digits."""
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in cast("dict[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in cast("Sequence[object]", value)]
    if isinstance(value, np.generic):
        return _jsonable(cast("object", value.item()))
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, str | int | float | type(None)) else text.plain(value)
