"""Parameters of a query or a body that do not fit: said to the client by name, for they are the client's own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from voxfetch.server.answers import Body

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BadParameterError", "bad_parameter", "integer", "parts_of"]


class BadParameterError(ValueError):
    """A parameter that does not fit; the text begins with its name."""


def bad_parameter(error: BadParameterError) -> Body:
    """Returns the answer that says so (400)."""
    content = json.dumps({"error": "bad_request", "message": str(error)}).encode()
    return Body(content, "application/json", headers={"Cache-Control": "no-store"}, status=400)


def integer(query: Mapping[str, str], name: str, default: int, least: int, greatest: int) -> int:
    """A whole number of a query, within bounds that are included. Raises `BadParameterError`."""
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and least <= int(text) <= greatest):
        raise BadParameterError(f"{name}: a number of {least}..{greatest} is needed, not {text[:40]!r}")
    return int(text)


def parts_of(name: str, path: str) -> tuple[str, ...]:
    """The names in a path below a source, which may be empty. Raises `BadParameterError` for what is no path."""
    parts = tuple(path.strip("/").split("/")) if path.strip("/") else ()
    if any(part in {"", ".", ".."} or not part.isprintable() for part in parts):
        raise BadParameterError(f"{name}: {path[:40]!r} is not a path below a source")
    return parts
