"""voxfetch in zarr-python: `ZarrPipeline` reads zarr's own arrays, `report` says of how many reads that was so."""

from __future__ import annotations

from voxfetch.zarr.counts import Report
from voxfetch.zarr.pipeline import ZarrPipeline, accelerate, report

__all__ = ["Report", "ZarrPipeline", "accelerate", "report"]
