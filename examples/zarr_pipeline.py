"""zarr-python, faster without other code: `python examples/zarr_pipeline.py [ARRAY]`, a path or URL of a Zarr array."""

import sys
from pathlib import Path
from time import perf_counter

import zarr

import voxfetch.zarr

ARRAY = Path(__file__).parents[1] / "tests" / "data" / "fib25" / "fib25.ome.zarr" / "0"


def seconds(array: zarr.Array) -> float:
    """Time of the first plane, the better of two reads."""
    best = float("inf")
    for _ in range(2):
        start = perf_counter()
        plane = array[0]
        best = min(best, perf_counter() - start)
    print(f"{type(array.async_array.codec_pipeline).__name__}: mean {plane.mean():.3f} in {best * 1e3:.1f} ms")
    return best


def main(source: str) -> None:
    """Reads with zarr's own pipeline, then with that of voxfetch."""
    before = seconds(zarr.open_array(source, mode="r"))
    # Or ZARR_CODEC_PIPELINE__PATH=voxfetch.ZarrPipeline in the environment.
    zarr.config.set({"codec_pipeline.path": "voxfetch.ZarrPipeline"})
    after = seconds(zarr.open_array(source, mode="r"))
    print(f"{before / after:.1f} times as fast; {voxfetch.zarr.report()}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(ARRAY))
