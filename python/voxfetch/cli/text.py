"""What the user types (shapes, regions, levels) -> values, and values -> what the user reads. Pure.

A region has one part per axis, comma separated: `10:20,0:64,5`. A part is a slice or one index; what is left out at
the end is whole; `...` stands for as many whole axes as are missing. Or by name, in any order: `x=0:64,z=5`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: One part of a region: an index drops its axis, a slice keeps it.
Part = slice | int


#: An http URL: user and password before the host, a query or fragment at the end, or before `|` and a format.
_HTTP_URL = re.compile(r"(https?://)(?:[^/?#|]*@)?([^?#|]*)(?:[?#][^|]*)?", re.IGNORECASE)


class UsageError(Exception):
    """The user typed something that cannot be meant; the message says what and what would be right."""


def without_secrets(source: str) -> str:
    """A path or URL as it may be shown: of an http URL without user, password and query."""
    return _HTTP_URL.sub(r"\1\2", source)


def parse_shape(text: str) -> tuple[int, ...]:
    """`32,32,32` -> (32, 32, 32), each at least 1.

    Raises:
        UsageError: anything else.
    """
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise UsageError(f"{text!r} is not a shape such as 32,32,32")
    return shape


def parse_level(text: str) -> int | str:
    """A level's number, or its mag such as `2-2-1`.

    Raises:
        UsageError: neither.
    """
    if text.isdecimal():
        return int(text)
    if all(part.isdecimal() for part in text.split("-")):
        return text
    raise UsageError(f"{text!r} is neither the number of a level nor a mag such as 2-2-1")


def parse_region(text: str | None, axes: Sequence[str]) -> tuple[Part, ...]:
    """One part per axis, in the order of `axes`; None is everything. Bounds are checked by the array, not here.

    Raises:
        UsageError: text that is not a region, or one that does not fit the axes.
    """
    whole: tuple[Part, ...] = (slice(None),) * len(axes)
    if text is None or not text.strip():
        return whole
    parts = [part.strip() for part in text.split(",")]
    named = ["=" in part for part in parts]
    if any(named) and not all(named):
        raise UsageError(f"region {text!r}: either all parts have a name or none")
    if any(named):
        return _by_name(text, parts, axes)
    if parts.count("...") > 1:
        raise UsageError(f"region {text!r}: only one '...' can be filled in")
    if "..." in parts:
        i = parts.index("...")
        parts[i : i + 1] = [":"] * max(0, len(axes) - len(parts) + 1)
    if len(parts) > len(axes):
        raise UsageError(f"region {text!r}: {len(parts)} parts for {len(axes)} axes ({', '.join(axes)})")
    given = tuple(_part(part) for part in parts)
    return given + whole[len(given) :]


def _by_name(text: str, parts: Iterable[str], axes: Sequence[str]) -> tuple[Part, ...]:
    region: dict[str, Part] = {}
    for part in parts:
        name, _, extent = part.partition("=")
        name = name.strip()
        if name not in axes:
            raise UsageError(f"region {text!r}: no axis {name!r}, there are {', '.join(axes)}")
        if name in region:
            raise UsageError(f"region {text!r}: axis {name!r} is given twice")
        region[name] = _part(extent.strip())
    return tuple(region.get(name, slice(None)) for name in axes)


def _part(text: str) -> Part:
    pieces = text.split(":")
    try:
        if len(pieces) == 1:
            return int(pieces[0])
        if len(pieces) <= 3:
            return slice(*(int(piece) if piece.strip() else None for piece in pieces))
    except ValueError:
        pass
    raise UsageError(f"{text!r} is neither an index such as 5 nor a range such as 0:64")


def plain(text: object) -> str:
    """Text from a file, safe for a terminal: control characters (escape sequences among them) are spelt out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def extents(shape: Iterable[int] | None) -> str:
    """`250 x 250 x 250`; a dash for nothing."""
    return "-" if shape is None else " x ".join(map(str, shape)) or "scalar"


def size(count: float) -> str:
    """A number of bytes for people: `14.9 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} PiB"


def number(value: float) -> str:
    """A scale or a position: up to six digits that say something."""
    return f"{value:.6g}"


def duration(seconds: float) -> str:
    """`840 us`, `3.2 ms`, `1.5 s`."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def rate(count: float, seconds: float) -> str:
    """Bytes in a time as MB/s (10^6 bytes)."""
    return f"{count / max(seconds, 1e-9) / 1e6:,.0f} MB/s"
