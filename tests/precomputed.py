"""Neuroglancer precomputed volumes that tensorstore writes, for tests that read them. Axes are x, y, z, channel."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts


def sharding(hash_="identity", *, preshift=0, minishard=1, shard=1, index="raw", data="raw") -> dict[str, Any]:
    """The parameters of a sharded scale."""
    return {
        "@type": "neuroglancer_uint64_sharded_v1",
        "preshift_bits": preshift,
        "hash": hash_,
        "minishard_bits": minishard,
        "shard_bits": shard,
        "minishard_index_encoding": index,
        "data_encoding": data,
    }


def write_scale(
    folder: Path, voxels: np.ndarray, *, chunk_size, encoding="raw", resolution=(4, 4, 40), kind="image", **scale: Any
) -> np.ndarray:
    """Adds a scale to the volume in `folder`, which is made if need be. Returns the voxels as tensorstore reads them.

    `scale` holds other members of the scale, such as `voxel_offset` and `sharding`. Chunks of zeros are not stored.
    """
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": str(folder)},
        "multiscale_metadata": {"type": kind, "data_type": str(voxels.dtype), "num_channels": voxels.shape[3]},
        "scale_metadata": {
            "size": voxels.shape[:3],
            "chunk_size": chunk_size,
            "encoding": encoding,
            "resolution": resolution,
            **scale,
        },
    }
    store = ts.open(spec, create=True, open=True).result()
    with ts.Transaction() as transaction:
        store.with_transaction(transaction)[...] = voxels
    return store.read().result()


def with_holes(voxels: np.ndarray, chunk_size) -> np.ndarray:
    """The voxels with about every third chunk empty."""
    voxels, generator = voxels.copy(), np.random.default_rng(1)
    starts = (range(0, extent, step) for extent, step in zip(voxels.shape[:3], chunk_size, strict=True))
    for start in itertools.product(*starts):
        if generator.random() < 0.3:
            voxels[tuple(slice(at, at + step) for at, step in zip(start, chunk_size, strict=True))] = 0
    return voxels


def labels(shape, dtype, seed=0) -> np.ndarray:
    """Objects of some voxels each, none of them 0; large numbers for large types."""
    generator = np.random.default_rng(seed)
    cells = [*(-(-extent // 5) for extent in shape[:3]), shape[3]]
    coarse = generator.integers(1, np.iinfo(dtype).max, cells, dtype, endpoint=True)
    for axis in range(3):
        coarse = coarse.repeat(5, axis)
    return coarse[tuple(slice(n) for n in shape)]


def picture(shape, seed=0) -> np.ndarray:
    """Soft uint8 voxels, which a JPEG hardly changes; waves of one colour, as decoders mix colours differently."""
    wave = np.random.default_rng(seed).uniform(0.05, 0.2, 3)
    grey = 120 + 60 * np.sin(np.tensordot(wave, np.indices(shape[:3]), 1))
    return (grey[..., None] + 40 * (np.arange(shape[3]) - shape[3] // 2)).astype("u1")


def zip_chunks(folder: Path) -> None:
    """Compresses all chunks of a volume as cloud-files does on disk: `.gz` is added to their names."""
    for path in [path for path in folder.rglob("*") if path.is_file() and path.name != "info"]:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        path.unlink()
