"""A cube of an image, cut out by world coordinates at each resolution: `python examples/xarray_levels.py [SOURCE]`."""

import sys
from pathlib import Path

import xarray as xr

from voxfetch.xarray import VoxfetchBackend

FIB25 = Path(__file__).parents[1] / "tests/data/fib25/fib25.ome.zarr"


def main(source: str) -> None:
    """Prints shape and mean of the middle half of the image, at each level."""
    tree = xr.open_datatree(source, engine=VoxfetchBackend)  # engine="voxfetch" where it is installed
    for name, level in tree.children.items():
        image = next(iter(level.data_vars.values()))
        ends = {axis: (at.values[0], at.values[-1]) for axis, at in image.coords.items() if axis in image.dims}
        half = {axis: slice((3 * first + last) / 4, (first + 3 * last) / 4) for axis, (first, last) in ends.items()}
        cube = image.sel(half)  # nothing is read yet
        print(f"level {name}: {cube.shape}, mean {float(cube.mean()):.4f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(FIB25))
