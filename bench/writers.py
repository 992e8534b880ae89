"""Who writes volumes: one function a format and library, never voxfetch. Each takes a path, voxels and their layout.

Voxels have the axes of the layout; whole shards or whole layers of chunks are written at once.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.layouts import Layout
    from bench.volumes import Array

Format = Literal["zarr3", "zarr", "zip", "wkw", "n5", "precomputed", "hdf5", "references", "b2nd", "bossdb"]
Writer = Literal["zarr", "tensorstore", "wkw", "h5py", "kerchunk", "blosc2", "numpy"]

#: The array in an HDF5 file, and in references to it.
DATASET = "voxels"
#: The volume of a BossDB server: collection, experiment and channel.
CHANNEL = "bench/volume/voxels"
#: In references the URL of their file is this template, so that they hold wherever both lie.
TEMPLATE = "file"

_INDEX: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
_WKW_BLOCK_TYPES = {"raw": 1, "lz4": 2, "lz4hc": 3}


def _zarr(path: Path, voxels: Array, layout: Layout) -> None:
    _zarr_in(str(path), voxels, layout)


def _zarr_in_zip(path: Path, voxels: Array, layout: Layout) -> None:
    from zarr.storage import ZipStore

    with ZipStore(path, mode="w") as store:
        _zarr_in(store, voxels, layout)


def _zarr_in(store: Any, voxels: Array, layout: Layout) -> None:
    import zarr

    array = zarr.create_array(
        store, shape=voxels.shape, dtype=voxels.dtype, chunks=layout.chunk, shards=layout.shard, fill_value=0,
        compressors=[codec for codec in layout.codecs if codec.get("name") != "bytes"] or None,
        zarr_format=2 if layout.format == "zarr" else 3,
    )  # fmt: skip
    _write_shards(array, voxels, layout)


def _tensorstore_zarr3(path: Path, voxels: Array, layout: Layout) -> None:
    sharding = {"chunk_shape": layout.chunk, "codecs": layout.codecs, "index_codecs": _INDEX}
    metadata: dict[str, Any] = {
        "shape": voxels.shape,
        "data_type": voxels.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": layout.shard}},
        "fill_value": 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "dimension_names": list(layout.axes),
    }
    _write_shards(_tensorstore("zarr3", path, metadata=metadata), voxels, layout)


def _tensorstore_n5(path: Path, voxels: Array, layout: Layout) -> None:
    metadata = {
        "dimensions": voxels.shape,
        "dataType": voxels.dtype.name,
        "blockSize": layout.chunk,
        "compression": layout.codecs[0],
        "axes": list(layout.axes),
    }
    _write_shards(_tensorstore("n5", path, metadata=metadata), voxels, layout)
    (path.parent / "attributes.json").write_text(json.dumps({"n5": "2.0.0"}))  # of the container, for z5


def _tensorstore_precomputed(path: Path, voxels: Array, layout: Layout) -> None:
    """All shards at once: tensorstore writes a shard again for every part of it that it gets."""
    import tensorstore as ts

    kind = "image" if layout.codecs[0]["encoding"] == "raw" else "segmentation"
    array = _tensorstore(
        "neuroglancer_precomputed",
        path,
        multiscale_metadata={"type": kind, "data_type": voxels.dtype.name, "num_channels": voxels.shape[3]},
        scale_metadata={
            "size": voxels.shape[:3],
            "chunk_size": layout.chunk[:3],
            "resolution": (10, 10, 10),
            **layout.codecs[0],
        },
    )
    with ts.Transaction() as transaction:
        array.with_transaction(transaction)[...] = np.asarray(voxels)


def _tensorstore(driver: str, path: Path, **metadata: Any) -> Any:
    import tensorstore as ts

    spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{path}/"}, **metadata}
    return ts.open(spec, create=True, open=True).result()


def _wkw(path: Path, voxels: Array, layout: Layout) -> None:
    """Files with compression are written as wholes."""
    import wkw

    if layout.shard is None:
        raise ValueError("a WKW dataset has files of several blocks")
    block, file = layout.chunk[1], layout.shard[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    header = wkw.Header(
        voxels.dtype.type, voxels.shape[0], block_len=block, file_len=file // block,
        block_type=_WKW_BLOCK_TYPES[layout.codecs[0]["block_type"]],
    )  # fmt: skip
    dataset = wkw.Dataset.create(str(path), header)
    try:
        for cell in np.ndindex(*(-(-n // file) for n in voxels.shape[1:])):
            at = tuple(i * file for i in cell)
            stored = voxels[(slice(None), *(slice(a, a + file) for a in at))]
            # Pages that stay empty are never touched: a large file costs no memory.
            whole = np.zeros((voxels.shape[0], file, file, file), voxels.dtype, order="F")
            whole[tuple(slice(0, n) for n in stored.shape)] = stored
            dataset.write(at, whole)
    finally:
        dataset.close()


def _hdf5(path: Path, voxels: Array, layout: Layout) -> None:
    """The file, and references to it beside, so that who reads either has the same bytes."""
    import h5py
    from kerchunk.hdf import SingleHdf5ToZarr

    file = path.with_suffix(".h5")
    with h5py.File(file, "w") as hdf5:
        array = hdf5.create_dataset(
            DATASET, voxels.shape, voxels.dtype, chunks=layout.chunk, fillvalue=0, **layout.codecs[0]
        )
        _write_shards(array, voxels, layout)
    with file.open("rb") as stored:  # given a path, kerchunk takes that for the URL
        references: dict[str, Any] = SingleHdf5ToZarr(stored, url=f"{{{{{TEMPLATE}}}}}").translate()
    references["templates"] = {TEMPLATE: file.name}
    path.with_suffix(".json").write_text(json.dumps(references))


def _b2nd(path: Path, voxels: Array, layout: Layout) -> None:
    import blosc2

    array = blosc2.zeros(voxels.shape, voxels.dtype, chunks=layout.chunk, urlpath=str(path), mode="w", contiguous=True)
    _write_shards(array, voxels, layout)


def _numpy(path: Path, voxels: Array, layout: Layout) -> None:
    """What a server holds that has no files of its own (``bench.remote.boss``)."""
    del layout
    np.save(path, voxels)


def _write_shards(array: Any, voxels: Array, layout: Layout) -> None:
    """Whole shards, or whole layers of chunks, so that no writer reads back what it wrote."""
    stored = layout.shard or (layout.chunk[0], *voxels.shape[1:])
    grid = [range(0, n, s) for n, s in zip(voxels.shape, stored, strict=True)]
    for start in np.ndindex(*(len(r) for r in grid)):
        where = tuple(slice(r[i], r[i] + s) for r, i, s in zip(grid, start, stored, strict=True))
        clipped = tuple(slice(w.start, min(w.stop, n)) for w, n in zip(where, voxels.shape, strict=True))
        array[clipped] = np.asarray(voxels[clipped])


WRITERS: dict[tuple[Writer, Format], Callable[[Path, Array, Layout], None]] = {
    ("zarr", "zarr3"): _zarr,
    ("zarr", "zarr"): _zarr,
    ("zarr", "zip"): _zarr_in_zip,
    ("tensorstore", "zarr3"): _tensorstore_zarr3,
    ("tensorstore", "n5"): _tensorstore_n5,
    ("tensorstore", "precomputed"): _tensorstore_precomputed,
    ("wkw", "wkw"): _wkw,
    ("h5py", "hdf5"): _hdf5,
    ("kerchunk", "references"): _hdf5,
    ("blosc2", "b2nd"): _b2nd,
    ("numpy", "bossdb"): _numpy,
}


def describe_dataset(root: Path, voxels: Array, layout: Layout) -> None:
    """datasource-properties.json, by which WEBKNOSSOS and its client know a layer. Axes are c, x, y, z."""
    layer, (_, width, height, depth) = layout.layer, voxels.shape
    mag: dict[str, Any] = {"mag": [1, 1, 1], "path": f"./{layer}/1"}
    if layout.format == "wkw":
        mag["cubeLength"] = layout.object_shape[1]
    else:
        mag["axisOrder"] = {"c": 0, "x": 1, "y": 2, "z": 3}
    category = "color" if layer == "color" else "segmentation"
    described: dict[str, Any] = {
        "name": layer,
        "category": category,
        "elementClass": voxels.dtype.name,
        "dataFormat": layout.format,
        "numChannels": 1,
        "boundingBox": {"topLeft": [0, 0, 0], "width": width, "height": height, "depth": depth},
        "mags": [mag],
    }
    if category == "segmentation":
        described["largestSegmentId"] = None
    description = {
        "id": {"name": "bench", "team": ""},
        "scale": {"factor": [10, 10, 10], "unit": "nanometer"},
        "version": 1,
        "dataLayers": [described],
    }
    (root / "datasource-properties.json").write_text(json.dumps(description, indent=1))
