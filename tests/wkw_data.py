"""WEBKNOSSOS datasets as others write them: WKW files by webknossos-wrap's library, and their properties."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import wkw

BLOCK_TYPES = {"raw": 1, "lz4": 2, "lz4hc": 3}


def write_mag(path, values, *, block_type="raw", block_len=8, file_len=4, at=(0, 0, 0)):
    """Writes (c, x, y, z) voxels at `at` into the folder of a mag, by webknossos-wrap's library."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    header = wkw.Header(
        values.dtype.type, values.shape[0], block_len=block_len, file_len=file_len, block_type=BLOCK_TYPES[block_type]
    )
    voxels = block_len * file_len
    if block_type != "raw":
        # Files with compression are written as wholes.
        low = [first // voxels * voxels for first in at]
        high = [-(-(first + n) // voxels) * voxels for first, n in zip(at, values.shape[1:], strict=True)]
        whole = np.zeros((values.shape[0], *np.subtract(high, low)), values.dtype)
        inside = tuple(slice(a - b, a - b + n) for a, b, n in zip(at, low, values.shape[1:], strict=True))
        whole[(slice(None), *inside)] = values
        values, at = whole, tuple(low)
    dataset = wkw.Dataset.create(str(path), header)
    try:
        dataset.write(at, np.asfortranarray(values))
    finally:
        dataset.close()


def read_mag(path, start, shape):
    """(c, x, y, z) voxels as webknossos-wrap's library reads them."""
    dataset = wkw.Dataset.open(str(path))
    try:
        return dataset.read(start, shape)
    finally:
        dataset.close()


def layer(name, start, shape, mags, *, category="color", dtype="uint8", channels=1, **more):
    """A layer as the properties of a dataset describe it; `mags` are names such as "1" and "2-2-1"."""
    listed = []
    for mag in mags:
        parts = [int(part) for part in mag.split("-")]
        listed.append({"mag": parts * (3 // len(parts)), "path": f"./{name}/{mag}", "cubeLength": 32})
    return {
        "name": name,
        "category": category,
        "boundingBox": {"topLeft": list(start), **dict(zip(("width", "height", "depth"), shape, strict=True))},
        "elementClass": dtype,
        "dataFormat": "wkw",
        "numChannels": channels,
        "mags": listed,
        **more,
    }


def write_properties(path, layers, scale=(11.24, 11.24, 28.0)):
    """Writes the properties of a dataset."""
    Path(path).mkdir(parents=True, exist_ok=True)
    voxel = {"factor": list(scale), "unit": "nanometer"}
    properties = {"id": {"name": "d", "team": "t"}, "dataLayers": layers, "scale": voxel, "version": 1}
    (Path(path) / "datasource-properties.json").write_text(json.dumps(properties))
