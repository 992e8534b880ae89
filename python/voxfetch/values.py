"""JSON values of foreign documents, read with suspicion: each is what was expected at its place, or a `MetadataError`.

`at` names the place in the document, `key` the document where the caller does not add it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from voxfetch.errors import LimitExceededError, MetadataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["as_list", "as_object", "as_string", "shown"]


def shown(value: object) -> str:
    """Returns a foreign value for an error message: quoted, and short even when the file is not."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def as_object(value: object, at: str, key: str | None = None) -> Mapping[str, object]:
    """Returns a value that must be an object."""
    if not isinstance(value, dict):
        raise MetadataError(f"{at}: expected an object, found {shown(value)}", key=key)
    return cast("dict[str, object]", value)


def as_list(value: object, at: str, limit: int, key: str | None = None) -> Sequence[object]:
    """Returns a value that must be a list of at most `limit` entries. Raises `LimitExceededError` for more."""
    if not isinstance(value, list):
        raise MetadataError(f"{at}: expected a list, found {shown(value)}", key=key)
    items = cast("list[object]", value)
    if len(items) > limit:
        raise LimitExceededError(f"{at}: {len(items)} entries, the limit is {limit}", key=key)
    return items


def as_string(value: object, at: str, key: str | None = None) -> str:
    """Returns a value that must be a string."""
    if not isinstance(value, str):
        raise MetadataError(f"{at}: expected a string, found {shown(value)}", key=key)
    return value
