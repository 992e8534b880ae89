"""What the engine takes besides a source, checked by their names."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import voxfetch as vf

__all__ = ["Keywords"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keywords:
    """What the engine takes besides the source, as `VoxfetchBackend` says."""

    drop_variables: frozenset[str]
    path: str | None = None
    level: int = 0
    labels: bool = True
    axes: Any = None
    format: str | None = None
    options: Any = None
    format_options: Mapping[str, Any] | None = None
    read_options: vf.ReadOptions | None = None
    reader: vf.Engine | None = None
    mask_and_scale: Any = True
    decode_times: Any = True
    concat_characters: Any = True
    decode_coords: Any = True
    use_cftime: Any = None
    decode_timedelta: Any = None

    @property
    def opening(self) -> dict[str, Any]:
        """What `voxfetch.open` is to know."""
        given = {name: getattr(self, name) for name in ("format", "options", "format_options", "read_options")}
        return {name: value for name, value in {**given, "engine": self.reader}.items() if value is not None}

    @property
    def decoding(self) -> dict[str, Any]:
        """How xarray decodes variables."""
        names = [one.name for one in fields(self)]
        return {name: getattr(self, name) for name in names[names.index("mask_and_scale") :]}

    @classmethod
    def of(cls, drop_variables: str | Iterable[str] | None = None, **keywords: Any) -> Self:
        """Takes them as a caller gives them. Raises `TypeError` for others."""
        known = [one.name for one in fields(cls)]
        unknown = [name for name in keywords if name not in known]
        if unknown:
            member = " (a member of the source is opened by path=...)" if "group" in unknown else ""
            message = f"the engine voxfetch has no keyword {', '.join(unknown)}{member}; it has {', '.join(known)}"
            raise TypeError(message)
        names = [drop_variables] if isinstance(drop_variables, str) else drop_variables or ()
        return cls(drop_variables=frozenset(names), **keywords)
