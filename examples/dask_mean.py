"""Mean of each plane of an image, worked out by dask in blocks: `python examples/dask_mean.py [SOURCE]`."""

import sys
from pathlib import Path

import voxfetch as vf

FIB25 = Path(__file__).parents[1] / "tests/data/fib25/fib25.ome.zarr"


def main(source: str) -> None:
    """Prints the mean of the finest level of an image, or of an array."""
    found = vf.open(source)
    array = found.level(0) if isinstance(found, vf.Image) else found
    voxels = array.to_dask()  # one block a shard; nothing is read yet
    print(voxels)
    planes = voxels.mean(axis=tuple(range(1, voxels.ndim))).compute()
    print(f"mean of {array.size:,} voxels: {planes.mean():.4f}, of the first plane: {planes[0]:.4f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(FIB25))
