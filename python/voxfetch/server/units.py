"""Names of units: those that OME-Zarr, Neuroglancer and WEBKNOSSOS know, under the names they know them by.

Neuroglancer refuses an image with a unit that it does not know, WEBKNOSSOS one whose space axes have other than a
length: such a unit is left out, and the numbers are taken for nanometres (WEBKNOSSOS) or plain numbers.
"""

from __future__ import annotations

__all__ = ["nanometres", "unit_of"]

_PREFIXES = {
    "yocto": -24,
    "zepto": -21,
    "atto": -18,
    "femto": -15,
    "pico": -12,
    "nano": -9,
    "micro": -6,
    "milli": -3,
    "centi": -2,
    "deci": -1,
    "": 0,
    "hecto": 2,
    "kilo": 3,
    "mega": 6,
    "giga": 9,
    "tera": 12,
    "peta": 15,
    "exa": 18,
    "zetta": 21,
    "yotta": 24,
}
#: Metres.
_LENGTHS = {f"{prefix}meter": 10.0**power for prefix, power in _PREFIXES.items()} | {
    "angstrom": 1e-10,
    "inch": 0.0254,
    "foot": 0.3048,
    "yard": 0.9144,
    "mile": 1609.344,
    "parsec": 3.0856775814913673e16,
}
_TIMES = {f"{prefix}second" for prefix in _PREFIXES} | {"minute", "hour", "day"}
_OTHER_NAMES = {
    "metre": "meter",
    "m": "meter",
    "cm": "centimeter",
    "mm": "millimeter",
    "micron": "micrometer",
    "um": "micrometer",
    "\u00b5m": "micrometer",
    "\u03bcm": "micrometer",
    "nm": "nanometer",
    "pm": "picometer",
    "s": "second",
    "sec": "second",
    "ms": "millisecond",
    "us": "microsecond",
    "ns": "nanosecond",
    "min": "minute",
    "h": "hour",
}


def unit_of(name: str | None, axis_type: str | None, *, strict: bool) -> str | None:
    """The unit as OME-Zarr spells it, None for one that viewers refuse; `strict`: also one that is not of that axis."""
    if name is None or axis_type == "channel":
        return None
    plain = _OTHER_NAMES.get(name, name)
    if plain not in _LENGTHS and plain.endswith("metre"):
        plain = f"{plain[:-5]}meter"
    known = plain in _LENGTHS if axis_type == "space" else plain in _TIMES if axis_type == "time" else False
    return plain if known or (not strict and (plain in _LENGTHS or plain in _TIMES)) else None


def nanometres(size: float, unit: str | None) -> float:
    """A length in nanometres; one in no unit, or in one that is no length, is taken for nanometres."""
    plain = unit_of(unit, "space", strict=True)
    # The factor first: 11.24 * 1e-9 / 1e-9 is not 11.24.
    return size if plain is None else size * (_LENGTHS[plain] / 1e-9 if plain != "nanometer" else 1.0)
