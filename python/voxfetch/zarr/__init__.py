"""voxfetch for zarr-python, with arrays and groups of its own: needs zarr 3.1 or later."""

from __future__ import annotations

from voxfetch.zarr.store import Store as Store
