"""An array as Zarr shows it: the documents of both versions, and where the bytes of its chunks come from.

Stored chunks pass where they can (see `voxfetch.server.chunks`); everything else is little-endian in C order behind
`zstd` of level 1. A zstd always says `level` and `checksum`, `bytes` its `endian`, and `fill_value` is a number, or a
text as Zarr spells NaN and infinity: readers drop codecs that lack the former, or read fill value for the latter.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

import voxfetch as vf
from voxfetch.server.chunks import Encoded, Passed
from voxfetch.server.ome import plain_json
from voxfetch.server.stored import stored_form

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxfetch.server.chunks import Source
    from voxfetch.server.shown import ShownLevel

__all__ = ["array_attributes", "fill_json", "given_names", "zarr2_array", "zarr3_array"]

_ENCODED = [
    {"name": "bytes", "configuration": {"endian": "little"}},
    {"name": "zstd", "configuration": {"level": 1, "checksum": False}},
]


def zarr3_array(level: ShownLevel, attributes: dict[str, Any]) -> tuple[dict[str, Any], Source]:
    """The `zarr.json` of an array (core 3.1) without shards, and its chunks. Raises `UnsupportedError`."""
    form = stored_form(level.source) if level.is_stored else None
    codecs = None if form is None else form.zarr3_codecs()
    source: Source = _encoded(level) if codecs is None else Passed(level)
    document = _zarr3(level, source.chunks, codecs or _ENCODED)
    return {**document, "attributes": plain_json(attributes)}, source


def zarr2_array(level: ShownLevel) -> tuple[dict[str, Any], Source]:
    """The `.zarray` of an array, and its chunks. Raises `UnsupportedError`."""
    form = stored_form(level.source) if level.is_stored else None
    layout = None if form is None else form.zarr2_layout()
    source: Source = _encoded(level) if layout is None else Passed(level)
    order, endian, compressor = layout or ("C", "<", {"id": "zstd", "level": 1})
    document = {
        "zarr_format": 2,
        "shape": list(level.shape),
        "chunks": list(source.chunks),
        "dtype": level.dtype.newbyteorder(endian).str,
        "fill_value": fill_json(level.fill_value),
        "order": order,
        "filters": None,
        "compressor": compressor,
        "dimension_separator": "/",
    }
    return document, source


def fill_json(value: Any) -> Any:
    """A fill value as both versions of Zarr spell it: whole numbers as such, however large."""
    if value.dtype.kind in "mM":
        return int(value.view("i8"))
    if value.dtype.kind == "c":
        return [plain_json(float(value.real)), plain_json(float(value.imag))]
    return plain_json(value.item())


def array_attributes(level: ShownLevel) -> dict[str, Any]:
    """Attributes of the array in the source; and where its first voxel lies, of one that no image places."""
    own = {name: value for name, value in level.source.attrs.items() if name != "_ARRAY_DIMENSIONS"}
    if not isinstance(level.source, vf.Level) and any(level.view.origin):
        own["voxfetch"] = {"origin": list(level.view.origin)}
    return own


def given_names(level: ShownLevel) -> list[str] | None:
    """Names of the axes, None unless the source has one for each."""
    names = [_given_name(name, axis) for axis, name in enumerate(level.axes)]
    return None if None in names else list(level.axes)


def _given_name(name: str, axis: int) -> str | None:
    return None if name == f"dim_{axis}" else name


def _encoded(level: ShownLevel) -> Encoded:
    return Encoded(level, json.dumps(_zarr3(level, level.chunks, _ENCODED)).encode())


def _zarr3(level: ShownLevel, chunks: Sequence[int], codecs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(level.shape),
        "data_type": _data_type(level.dtype),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill_json(level.fill_value),
        "codecs": codecs,
        "attributes": {},
        "dimension_names": [_given_name(name, axis) for axis, name in enumerate(level.axes)],
        "storage_transformers": [],
    }


def _data_type(dtype: np.dtype[Any]) -> Any:
    if dtype.kind in "mM":
        unit, factor = np.datetime_data(dtype)
        name = "numpy.datetime64" if dtype.kind == "M" else "numpy.timedelta64"
        return {"name": name, "configuration": {"unit": unit, "scale_factor": factor}}
    return dtype.name
