"""The Zarr streaming of a WEBKNOSSOS datastore: layers as uncompressed Zarr, for who has a token."""

from __future__ import annotations

import json
import re

import numpy as np

from tests.servers.cloud import CloudServer

ROUTE = re.compile(
    r"/data/(annotations/)?(zarr|zarr3_experimental)/([^/]+(?:/dataset)?)(?:/([^/]+)(?:/([^/]+))?)?/([^/]+)"
)
BUCKET = 32
NAMES = {"uint8": "|u1", "uint16": "<u2", "uint32": "<u4", "uint64": "<u8"}


class WebknossosServer(CloudServer):
    """Serves `layers`, name -> {mag: voxels (c, x, y, z)}, each from voxel 0 on, as dataset `id` and as `org/dataset`.

    `token` is asked for in the query, but not for annotations by their secret link.
    """

    voxel = (11.24, 11.24, 25)

    def __init__(self, layers, token="hunter2"):
        super().__init__()
        self.layers = layers
        self.token = token

    def answer(self, request):
        match = ROUTE.fullmatch(request.path)
        if match is None:
            return message(404, "Action not found")
        link, version, place, *names = match.groups()
        if link is None and request.query.get("token", request.headers.get("x-auth-token")) != self.token:
            return message(403, f"Token {request.query.get('token')} may be expired")
        if place not in ("id", "org/dataset", "secret"):
            return message(404, "Dataset could not be found")
        layer, mag, name = names
        is_zarr3 = version != "zarr"
        if layer is None:
            return self._of_dataset(name, is_zarr3)
        mags = self.layers.get(layer)
        if mags is None:
            return message(404, "Layer could not be found")
        if mag is None:
            return self._of_layer(name, layer, mags, is_zarr3)
        return self._of_mag(name, mags.get(mag), is_zarr3)

    def _of_dataset(self, name, is_zarr3):
        if name == ".zgroup" and not is_zarr3:
            return document({"zarr_format": 2})
        if name != "datasource-properties.json":
            return message(404, "Action not found")
        layers = [
            {
                "name": layer,
                "category": "segmentation" if next(iter(mags.values())).itemsize > 2 else "color",
                "boundingBox": dict(zip(("width", "height", "depth"), mags["1"].shape[1:], strict=True))
                | {"topLeft": [0, 0, 0]},
                "elementClass": mags["1"].dtype.name,
                "mags": [{"mag": factors(mag), "axisOrder": {"c": 0, "x": 1, "y": 2, "z": 3}} for mag in mags],
                "numChannels": 1,
                "dataFormat": "zarr3" if is_zarr3 else "zarr",
            }
            for layer, mags in self.layers.items()
        ]
        scale = {"factor": self.voxel, "unit": "nanometer"}
        return document({"id": {"name": "dataset", "team": "org"}, "dataLayers": layers, "scale": scale})

    def _of_layer(self, name, layer, mags, is_zarr3):
        axes = [{"name": "c", "type": "channel"}]
        axes += [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "xyz"]
        datasets = [{"path": mag, "coordinateTransformations": [self._scale(mag)]} for mag in mags]
        multiscales = [{"name": layer, "axes": axes, "datasets": datasets}]
        if is_zarr3 and name == "zarr.json":
            ome = {"version": "0.5", "multiscales": multiscales}
            return document({"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}})
        if not is_zarr3 and name == ".zattrs":
            return document({"multiscales": [{"version": "0.4", **multiscales[0]}]})
        if not is_zarr3 and name == ".zgroup":
            return document({"zarr_format": 2})
        return message(404, "Invalid mag")

    def _scale(self, mag):
        return {"type": "scale", "scale": [1, *(a * b for a, b in zip(factors(mag), self.voxel, strict=True))]}

    def _of_mag(self, name, voxels, is_zarr3):
        if voxels is None:
            return message(404, "The mag does not exist")
        chunks = [1, BUCKET, BUCKET, BUCKET]
        if not is_zarr3 and name == ".zarray":
            header = {"zarr_format": 2, "shape": voxels.shape, "chunks": chunks, "compressor": None, "filters": None}
            header |= {"dtype": NAMES[voxels.dtype.name], "fill_value": 0, "order": "F", "dimension_separator": "."}
            return document(header)
        if is_zarr3 and name == "zarr.json":
            header = {
                "zarr_format": 3,
                "node_type": "array",
                "shape": voxels.shape,
                "data_type": voxels.dtype.name,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
                "chunk_key_encoding": {"name": "v2", "configuration": {"separator": "."}},
                "fill_value": 0,
                "codecs": [
                    {"name": "transpose", "configuration": {"order": [3, 2, 1, 0]}},
                    {"name": "bytes", "configuration": {"endian": "little"}},
                ],
                "dimension_names": ["c", "x", "y", "z"],
            }
            return document(header)
        if not re.fullmatch(r"\d+(\.\d+){3}", name):
            return message(404, "Invalid chunk coordinates")
        place = [int(part) * size for part, size in zip(name.split("."), chunks, strict=True)]
        part = voxels[tuple(slice(start, start + size) for start, size in zip(place, chunks, strict=True))]
        if not part.any():
            return message(404, "zarr.chunkNotFound")
        bucket = np.zeros(chunks, voxels.dtype)
        bucket[tuple(slice(extent) for extent in part.shape)] = part
        return 200, {"content-type": "application/octet-stream"}, bucket.tobytes("F")


def factors(mag):
    parts = [int(part) for part in mag.split("-")]
    return parts * 3 if len(parts) == 1 else parts


def document(value):
    return 200, {"content-type": "application/json"}, json.dumps(value).encode()


def message(status, text):
    return status, {"content-type": "application/json"}, json.dumps({"messages": [{"error": text}]}).encode()
