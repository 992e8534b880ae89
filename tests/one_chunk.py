"""Zarr arrays of one chunk whose bytes are given."""

from __future__ import annotations

import json

import numpy as np


def put_v2(path, chunk, *, shape, dtype, filters, compressor=None, **members):
    """An array of one chunk, of the bytes given."""
    path.mkdir(parents=True)
    document = {
        "zarr_format": 2,
        "shape": list(shape),
        "chunks": list(shape),
        "dtype": np.dtype(dtype).str,
        "order": "C",
        "fill_value": 0,
        "filters": filters,
        "compressor": compressor,
    }
    (path / ".zarray").write_text(json.dumps(document | members))
    (path / ".".join("0" * len(shape))).write_bytes(chunk)
    return path


def put_v3(path, chunk, *, shape, dtype, codecs, fill_value=0):
    """The same in version 3."""
    (path / "c").mkdir(parents=True)
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shape)}},
        "chunk_key_encoding": {"name": "v2"},
        "fill_value": fill_value,
        "codecs": codecs,
    }
    (path / "zarr.json").write_text(json.dumps(document))
    (path / ".".join("0" * len(shape))).write_bytes(chunk)
    return path


def codec(name, **configuration):
    return {"name": name, "configuration": configuration}


LITTLE = codec("bytes", endian="little")
