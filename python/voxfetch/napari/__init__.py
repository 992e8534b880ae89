"""Layers of napari: a source goes in, (data, keywords, type) of its layers come out; nothing is read but documents.

    for one in voxfetch.napari.layers("s3://bucket/image.zarr"):
        viewer.add_layer(napari.layers.Layer.create(*one))

napari slices an array first to the visible tile along the displayed axes, of all planes, and then to the plane. So what
it gets are views (`View`), which read when numpy asks for the voxels.

napari shows every level as if it covered the box of the finest: corners are aligned, and factors are those of the
shapes. What the scales and translations of coarser levels say is not used, but a level that covers another box by more
than one of its own voxels is left out. `get_reader` is the hook of the plugin (`napari.yaml`).
"""

from __future__ import annotations

from voxfetch.napari.layer import layers
from voxfetch.napari.reader import get_reader
from voxfetch.napari.view import View

__all__ = ["View", "get_reader", "layers"]
