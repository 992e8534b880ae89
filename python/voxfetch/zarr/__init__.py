"""voxfetch in zarr-python: `ZarrPipeline` reads zarr's own arrays, `report` says of how many reads that was so.

`Store` is for code that keeps zarr's own pipelines.
"""

from __future__ import annotations

from voxfetch.zarr.counts import Report
from voxfetch.zarr.pipeline import ZarrPipeline, accelerate, report
from voxfetch.zarr.store import Store

__all__ = ["Report", "Store", "ZarrPipeline", "accelerate", "report"]
