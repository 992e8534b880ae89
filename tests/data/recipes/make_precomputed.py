"""Write ``tests/data/precomputed/tensorstore-<version>``: one volume without shards and with each kind of them.

    python tests/data/recipes/make_precomputed.py

uint16, 9 x 3 x 5 voxels from (-4, 0, 1000), chunks of 2^3, of which some are empty and not stored. All volumes hold the
same voxels: the chunks of the first one, raw and each an object, are what is found in the shards of the others.
"""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(DATA.parent))

from precomputed import sharding, with_holes, write_scale  # noqa: E402

SHARDED = {
    "identity": sharding("identity", preshift=1, minishard=1, shard=2),
    "identity_gzip": sharding("identity", preshift=0, minishard=2, shard=5, index="gzip", data="gzip"),
    "murmur": sharding("murmurhash3_x86_128", preshift=1, minishard=2, shard=2),
    "murmur_gzip": sharding("murmurhash3_x86_128", preshift=2, minishard=1, shard=0, index="gzip"),
}


def main() -> None:
    folder = DATA / "precomputed" / f"tensorstore-{version('tensorstore')}"
    shutil.rmtree(folder, ignore_errors=True)
    chunk_size = (2, 2, 2)
    voxels = np.random.default_rng(0).integers(1, 1 << 16, (9, 3, 5, 1), "u2")
    voxels = with_holes(voxels, chunk_size)
    scale = {"chunk_size": chunk_size, "voxel_offset": (-4, 0, 1000)}
    write_scale(folder / "unsharded", voxels, **scale)
    for name, spec in SHARDED.items():
        write_scale(folder / name, voxels, sharding=spec, **scale)


if __name__ == "__main__":
    main()
