"""Build the FIB-SEM test volumes of this folder from the original planes and segmentation.

    python tests/data/recipes/make_fib25.py SOURCE DESTINATION

SOURCE is ``training_sample2`` of janelia-flyem/neuroproof_examples: ``grayscale_maps/*.png`` (250 planes along z, each
250 x 250 uint8) and ``groundtruth.h5`` or ``groundtruth.h5.gz`` (``stack``: int32 supervoxels, axes z, y, x;
``transforms``: (n, 2) pairs supervoxel -> body). DESTINATION receives

    fib25/fib25.ome.zarr        OME-Zarr 0.5; image by zarr-python, labels/groundtruth by tensorstore
    fib25/oracle.json           sha256 and box means of every level
    ome-zarr-0.4/fib25.zarr     OME-Zarr 0.4 (Zarr v2, blosc) by zarr-python
    zarr-v2/*.zarr              big-endian, F order, gzip (zarr-python) and zlib, no separator field (tensorstore)
    webknossos/fib25            a WEBKNOSSOS dataset by webknossos-libs, mag 1 of "color" edited to an old spelling

Nothing here is written by voxfetch: these files are foreign input. The versions used are in ``tests/data/README.md``;
with them every file comes out the same, but for the time in the headers of gzip.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import tensorstore as ts
import webknossos as wk
import zarr
from numcodecs import Blosc, GZip
from PIL import Image
from zarr.codecs import ZstdCodec

if TYPE_CHECKING:
    from collections.abc import Callable

VOXEL_SIZE_NM = 10.0
SHARD = 128  # voxels along each axis
CHUNK = 32  # voxels along each axis
LEVELS = 3
# Boxes whose means the oracle states, (start, stop) in level 0 voxels, z, y, x: across chunks, across shards, and in
# the last (cut) shard of each axis.
BOXES = (
    ((10, 0, 0), (20, 64, 64)),
    ((100, 100, 100), (160, 140, 150)),
    ((240, 200, 230), (250, 250, 250)),
)


def read_image(source: Path) -> np.ndarray:
    """The grey values, (z, y, x) uint8."""
    planes = sorted((source / "grayscale_maps").glob("*.png"))
    return np.stack([np.asarray(Image.open(plane)) for plane in planes])


def read_labels(source: Path) -> np.ndarray:
    """The ground truth with its transforms applied: body ids, (z, y, x) uint64."""
    plain = source / "groundtruth.h5"
    raw = plain.read_bytes() if plain.exists() else gzip.decompress((source / "groundtruth.h5.gz").read_bytes())
    with h5py.File(io.BytesIO(raw)) as file:
        stack, transforms = file["stack"][:], file["transforms"][:]
    body = np.zeros(int(transforms[:, 0].max()) + 1, np.uint64)
    body[transforms[:, 0]] = transforms[:, 1].astype(np.uint64)
    return body[stack]


def halve_mean(volume: np.ndarray) -> np.ndarray:
    """Mean over 2 x 2 x 2 voxels, rounded half up; an odd last plane is averaged with itself."""
    padded = np.pad(volume, [(0, n % 2) for n in volume.shape], mode="edge")
    z, y, x = (n // 2 for n in padded.shape)
    total = padded.reshape(z, 2, y, 2, x, 2).sum(axis=(1, 3, 5), dtype=np.uint32)
    return ((total + 4) // 8).astype(volume.dtype)


def halve_mode(volume: np.ndarray) -> np.ndarray:
    """The most frequent label of 2 x 2 x 2 voxels, by tensorstore."""
    reduced = ts.downsample(ts.array(volume), [2] * volume.ndim, "mode").read().result()
    return np.ascontiguousarray(reduced)


def pyramid(volume: np.ndarray, halve: Callable[[np.ndarray], np.ndarray]) -> list[np.ndarray]:
    """``volume`` and its LEVELS - 1 halvings, finest first."""
    levels = [volume]
    while len(levels) < LEVELS:
        levels.append(halve(levels[-1]))
    return levels


def multiscales(name: str, method: str, *, version: str | None = None) -> dict:
    """One NGFF multiscale over the axes z, y, x.

    Voxel i of level k covers voxels i * 2**k ... of level 0, so that its centre is moved by (2**k - 1) / 2 voxels.
    """
    scales = [VOXEL_SIZE_NM * 2**level for level in range(LEVELS)]
    return {
        **({"version": version} if version else {}),
        "name": name,
        "type": method,
        "axes": [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"],
        "datasets": [
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [scale] * 3},
                    {
                        "type": "translation",
                        "translation": [(scale - VOXEL_SIZE_NM) / 2] * 3,
                    },
                ],
            }
            for level, scale in enumerate(scales)
        ],
    }


def omero(name: str) -> dict:
    window = {"min": 0, "max": 255, "start": 60, "end": 200}
    channel = {
        "label": "EM",
        "color": "FFFFFF",
        "active": True,
        "coefficient": 1,
        "family": "linear",
        "inverted": False,
    }
    return {
        "name": name,
        "channels": [{**channel, "window": window}],
        "rdefs": {"model": "greyscale", "defaultZ": 125},
    }


def write_image(path: Path, levels: list[np.ndarray]) -> None:
    """OME-Zarr 0.5 image by zarr-python: shards of 128^3, chunks of 32^3, zstd 5, index with crc32c at the end."""
    ome = {
        "version": "0.5",
        "multiscales": [multiscales("fib25", "mean")],
        "omero": omero("fib25"),
    }
    group = zarr.create_group(path, zarr_format=3, attributes={"ome": ome})
    for level, volume in enumerate(levels):
        array = group.create_array(
            str(level),
            shape=volume.shape,
            dtype=volume.dtype,
            shards=(SHARD,) * 3,
            chunks=(CHUNK,) * 3,
            compressors=ZstdCodec(level=5),
            dimension_names=("z", "y", "x"),
        )
        array[...] = volume


def write_labels(image: Path, levels: list[np.ndarray]) -> None:
    """``labels/groundtruth`` of the image by tensorstore: as the image, and crc32c after every chunk."""
    labels = {"ome": {"version": "0.5", "labels": ["groundtruth"]}}
    zarr.create_group(image / "labels", zarr_format=3, attributes=labels)
    ome = {
        "version": "0.5",
        "multiscales": [multiscales("groundtruth", "mode")],
        "image-label": {
            "source": {"image": "../../"},
            "colors": [{"label-value": 0, "rgba": [0, 0, 0, 0]}],
        },
    }
    zarr.create_group(image / "labels" / "groundtruth", zarr_format=3, attributes={"ome": ome})
    for level, volume in enumerate(levels):
        sharding = {
            "chunk_shape": [CHUNK] * 3,
            "codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "zstd", "configuration": {"level": 5}},
                {"name": "crc32c"},
            ],
            "index_codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "crc32c"},
            ],
            "index_location": "end",
        }
        metadata = {
            "shape": list(volume.shape),
            "data_type": "uint64",
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [SHARD] * 3},
            },
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "fill_value": 0,
            "dimension_names": ["z", "y", "x"],
        }
        write_tensorstore("zarr3", image / "labels" / "groundtruth" / str(level), metadata, volume)


def write_tensorstore(driver: str, path: Path, metadata: dict, volume: np.ndarray) -> None:
    spec = {
        "driver": driver,
        "kvstore": {"driver": "file", "path": str(path)},
        "metadata": metadata,
        "create": True,
    }
    ts.open(spec).result().write(volume).result()


def write_ome_zarr_04(path: Path, levels: list[np.ndarray]) -> None:
    """OME-Zarr 0.4 (Zarr v2, separator "/", blosc of every level) with consolidated metadata, by zarr-python."""
    attributes = {
        "multiscales": [multiscales("fib25", "mean", version="0.4")],
        "omero": {**omero("fib25"), "version": "0.4"},
    }
    group = zarr.create_group(path, zarr_format=2, attributes=attributes)
    compressors = (
        Blosc("lz4", 5, Blosc.SHUFFLE),
        Blosc("zstd", 5, Blosc.BITSHUFFLE),
        Blosc("zlib", 5, Blosc.NOSHUFFLE),
    )
    for level, volume in enumerate(levels):
        array = group.create_array(
            str(level),
            shape=volume.shape,
            dtype=volume.dtype,
            chunks=(24, 24, 24),
            compressors=compressors[level],
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
        array[...] = volume
    zarr.consolidate_metadata(group.store, zarr_format=2)


def write_v2(folder: Path, volume: np.ndarray) -> None:
    """Two Zarr v2 arrays as Java and older tools leave them; ``volume`` (z, y, x) is stored as uint16."""
    wide = volume.astype(np.uint16) * 257
    path = folder / "be_F_gzip.zarr"
    array = zarr.create_array(
        path,
        shape=wide.shape,
        dtype=">u2",
        chunks=(16, 20, 12),
        order="F",
        compressors=GZip(6),
        fill_value=7,
        zarr_format=2,
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )
    array[...] = wide
    # Java writers state the default level as -1 and no filters as []; the chunks are the same.
    document = json.loads((path / ".zarray").read_text())
    document["compressor"]["level"] = -1
    document["filters"] = []
    (path / ".zarray").write_text(json.dumps(document, indent=2) + "\n")

    path = folder / "le_F_zlib_no_separator.zarr"
    metadata = {
        "shape": list(wide.shape),
        "dtype": "<u2",
        "chunks": [16, 20, 12],
        "order": "F",
        "compressor": {"id": "zlib", "level": 5},
        "filters": None,
        "fill_value": None,
        "dimension_separator": ".",
    }
    write_tensorstore("zarr", path, metadata, wide)
    document = json.loads((path / ".zarray").read_text())
    del document["dimension_separator"]
    (path / ".zarray").write_text(json.dumps(document, indent=2) + "\n")


def write_webknossos(path: Path, image: np.ndarray, labels: np.ndarray) -> None:
    """A WEBKNOSSOS dataset by webknossos-libs; ``image`` and ``labels`` have the axes z, y, x."""
    dataset = wk.Dataset(path, voxel_size=(VOXEL_SIZE_NM,) * 3, name="fib25", exist_ok=False)
    color = dataset.add_layer("color", wk.COLOR_CATEGORY, dtype="uint8", data_format="zarr3")
    write_mag(color, 1, image)
    write_mag(color, 2, halve_mean(image))
    segmentation = dataset.add_layer(
        "segmentation",
        wk.SEGMENTATION_CATEGORY,
        dtype="uint64",
        data_format="zarr3",
        largest_segment_id=int(labels.max()),
    )
    write_mag(segmentation, 1, labels)

    # Exports of older servers name the order of the transpose with a letter; codecs and keys lack their configuration.
    document_path = path / "color" / "1" / "zarr.json"
    document = json.loads(document_path.read_text())
    document["chunk_key_encoding"] = {"name": "default"}
    sharding = next(codec for codec in document["codecs"] if codec["name"] == "sharding_indexed")
    for codec in sharding["configuration"]["codecs"]:
        if codec["name"] == "transpose":
            codec["configuration"] = {"order": "F"}
        if codec["name"] == "bytes":
            codec.pop("configuration", None)
    document_path.write_text(json.dumps(document, indent=2) + "\n")


def write_mag(layer: wk.Layer, mag: int, volume: np.ndarray) -> None:
    """Write ``volume`` (z, y, x) as one mag of ``layer``: shards of 64^3, chunks of 32^3. WEBKNOSSOS wants x, y, z."""
    view = layer.add_mag(mag, chunk_shape=(CHUNK,) * 3, shard_shape=(SHARD // 2,) * 3)
    view.write(
        np.ascontiguousarray(volume.transpose(2, 1, 0)),
        absolute_offset=(0, 0, 0),
        allow_resize=True,
    )


def describe(levels: list[np.ndarray]) -> list[dict]:
    """The oracle of every level: shape, dtype, sha256 of the C-order little-endian bytes, means of some boxes."""
    rows = []
    for level, volume in enumerate(levels):
        boxes = []
        for start, stop in BOXES:
            box = tuple(
                slice(a >> level, min(-(-b >> level), n)) for a, b, n in zip(start, stop, volume.shape, strict=True)
            )
            view = volume[box]
            boxes.append(
                {
                    "start": [axis.start for axis in box],
                    "shape": list(view.shape),
                    "mean": float(view.mean(dtype=np.float64)),
                    "sha256": sha256(view),
                },
            )
        rows.append(
            {
                "shape": list(volume.shape),
                "dtype": volume.dtype.name,
                "sha256": sha256(volume),
                "boxes": boxes,
            },
        )
    return rows


def sha256(volume: np.ndarray) -> str:
    little = np.ascontiguousarray(volume, volume.dtype.newbyteorder("<"))
    return hashlib.sha256(little.tobytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("destination", type=Path)
    arguments = parser.parse_args()

    image = read_image(arguments.source)
    labels = read_labels(arguments.source)
    image_levels, label_levels = pyramid(image, halve_mean), pyramid(labels, halve_mode)
    folders = {name: arguments.destination / name for name in ("fib25", "ome-zarr-0.4", "zarr-v2", "webknossos")}
    outputs = {
        "fib25.ome.zarr": folders["fib25"] / "fib25.ome.zarr",
        "0.4": folders["ome-zarr-0.4"] / "fib25.zarr",
        "webknossos": folders["webknossos"] / "fib25",
    }
    for path in (*outputs.values(), *folders["zarr-v2"].glob("*.zarr")):
        shutil.rmtree(path, ignore_errors=True)

    write_image(outputs["fib25.ome.zarr"], image_levels)
    write_labels(outputs["fib25.ome.zarr"], label_levels)
    oracle = {
        "image": describe(image_levels),
        "labels/groundtruth": describe(label_levels),
    }
    (folders["fib25"] / "oracle.json").write_text(json.dumps(oracle, indent=1) + "\n")

    write_ome_zarr_04(outputs["0.4"], pyramid(image[64:128, 60:130, 50:125], halve_mean))
    write_v2(folders["zarr-v2"], image[:50, :45, :37])
    crop = (slice(0, 128),) * 3
    folders["webknossos"].mkdir(exist_ok=True)
    write_webknossos(outputs["webknossos"], image[crop], labels[crop])


if __name__ == "__main__":
    main()
