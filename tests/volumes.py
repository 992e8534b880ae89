"""OME-Zarr images whose voxels are a function of their place, for tests that look at pictures of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr

from voxfetch.server.answers import Asked


def write_volume(
    folder,
    value,
    *,
    shape=(32, 96, 128),
    scale=(40.0, 10.0, 10.0),
    translation=(0.0, 0.0, 0.0),
    levels=1,
    dtype="u1",
    unit="nanometer",
    axes="zyx",
    chunks=32,
    **ome,
):
    """Level i has every 2**i-th voxel along y and x of `value(*indices)`; returns the voxels of the finest level.

    `translation` is that of the finest level; the others cover the same box. `ome` goes into the attributes.
    """
    group = zarr.create_group(str(folder), zarr_format=3)
    voxels = np.asarray(value(*np.meshgrid(*map(np.arange, shape), indexing="ij"))).astype(dtype)
    types = {"t": "time", "c": "channel"}
    datasets = []
    for level in range(levels):
        steps = [2**level if name in "yx" else 1 for name in axes]
        part = voxels[tuple(slice(None, None, step) for step in steps)]
        sides = [min(chunks, extent) for extent in part.shape]
        group.create_array(str(level), shape=part.shape, chunks=sides, dtype=dtype, dimension_names=axes)[...] = part
        sizes = [size * step for size, step in zip(scale, steps, strict=True)]
        places = [place + (size - first) / 2 for place, size, first in zip(translation, sizes, scale, strict=True)]
        moves = [{"type": "scale", "scale": sizes}, {"type": "translation", "translation": places}]
        datasets.append({"path": str(level), "coordinateTransformations": moves})
    named = [
        {"name": name, "type": types.get(name, "space"), **({"unit": unit} if unit and name not in types else {})}
        for name in axes
    ]
    multiscale = {"name": Path(folder).name.partition(".")[0], "axes": named, "datasets": datasets}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale], **ome}
    return voxels


def write_labels(folder, name, value, **more):
    """A label image of the image in `folder`; as `write_volume`."""
    labels = zarr.open_group(str(folder)).require_group("labels")
    listed = labels.attrs.get("ome", {}).get("labels", [])
    labels.attrs["ome"] = {"version": "0.5", "labels": [*listed, name]}
    return write_volume(Path(folder) / "labels" / name, value, **{"dtype": "u4", "image-label": {}, **more})


def asked(*segments, source="", method="GET", body=b"", **query):
    """A request for a plane."""
    return Asked(method, segments, "native", source, query, body, prefix="/t/TOKEN", origin="http://127.0.0.1:1")
