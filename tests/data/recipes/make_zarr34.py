"""Write ``tests/data/zarr/zarr-python-3.4.2``: arrays that older versions of zarr-python cannot write.

    python3.13 -m venv VENV && VENV/bin/pip install zarr==3.4.2
    VENV/bin/python tests/data/recipes/make_zarr34.py

Grids of chunks of different extents, and structs. ``<name>.npy`` beside each array holds its voxels.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import zarr

OUT = Path(__file__).resolve().parents[1] / "zarr" / f"zarr-python-{zarr.__version__}"
POINT = np.dtype(
    [("id", "u2"), ("at", [("x", "f4"), ("y", "f4")]), ("when", "M8[10s]"), ("tag", "S3"), ("name", "U2"), ("z", "c8")]
)


def numbers(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return (np.arange(np.prod(shape)) * 7919 % 65521).reshape(shape).astype(dtype)


def points(shape: tuple[int, ...]) -> np.ndarray:
    voxels = np.zeros(shape, POINT)
    index = np.arange(voxels.size).reshape(shape)
    voxels["id"], voxels["at"]["x"], voxels["at"]["y"] = index * 259, index / 3, -index
    voxels["when"] = index.astype("M8[10s]")
    voxels["tag"], voxels["name"], voxels["z"] = index.astype("S3"), index.astype("U2"), index - 2j * index
    return voxels


def write(name: str, voxels: np.ndarray, *, holes: tuple[tuple[int, ...], ...] = (), **layout: object) -> None:
    array = zarr.create_array(OUT / f"{name}.zarr", shape=voxels.shape, dtype=voxels.dtype, **layout)
    array[...] = voxels
    for cell in holes:
        (OUT / f"{name}.zarr" / array.metadata.encode_chunk_key(cell)).unlink()
    # What is left, read by the writer itself.
    np.save(OUT / f"{name}.npy", array[...])


def main() -> None:
    warnings.simplefilter("ignore")
    zarr.config.set({"array.rectilinear_chunks": True})
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    plane = numbers((20, 13), "uint16")
    write("plane", plane, chunks=[[3, 7, 2, 8], [5, 8]], fill_value=7, holes=((1, 0), (3, 1)))
    write("plane_raw", plane, chunks=[[1] * 5 + [15], [13]], compressors=None, fill_value=7, holes=((2, 0),))
    write(
        "volume",
        numbers((12, 9, 10), "float32"),
        chunks=[[4, 1, 4, 3], [3, 3, 3], [2, 2, 2, 4]],
        filters=[zarr.codecs.TransposeCodec(order=(2, 0, 1))],
        serializer=zarr.codecs.BytesCodec(endian="big"),
        compressors=[zarr.codecs.BloscCodec(cname="lz4", shuffle="shuffle")],
        fill_value=float("nan"),
        holes=((1, 2, 3), (0, 0, 0)),
    )
    # Edges that reach past the array, by whole chunks too.
    array = zarr.create_array(OUT / "shrunk.zarr", shape=(20,), dtype="int64", chunks=[[3, 7, 2, 8]], fill_value=-1)
    array[...] = np.arange(20)
    array.resize((9,))
    np.save(OUT / "shrunk.npy", array[...])
    write("shards", plane, chunks=(2, 1), shards=[[4, 6, 10], [5, 8]])
    fill = np.array((1, (2.5, "nan"), "NaT", b"x", "é", 1j), POINT)[()]
    for endian in ("little", "big"):
        serializer = zarr.codecs.BytesCodec(endian=endian)
        write(
            f"struct_{endian}", points((5, 4)), chunks=(2, 3), serializer=serializer, fill_value=fill, holes=((1, 1),)
        )
    serializer = zarr.codecs.BytesCodec(endian="big")
    layout = {"chunks": (1, 2), "shards": (3, 2), "serializer": serializer, "compressors": None}
    write("struct_shards", points((5, 4)), fill_value=fill, holes=((0, 1),), **layout)


if __name__ == "__main__":
    main()
