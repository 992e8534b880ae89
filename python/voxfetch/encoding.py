"""Voxels -> stored chunks, for those who give arrays out in another form than they are stored in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from voxfetch import _core
from voxfetch.dtypes import exported, numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from typing_extensions import Buffer

__all__ = ["Encoder", "fingerprint"]


def fingerprint(content: Buffer) -> str:
    """Returns the XXH3 of 64 bits of some bytes as 16 hexadecimal digits: other bytes have others, but for chance."""
    return f"{_core.fingerprint(content):016x}"


class Encoder:
    """Encodes the chunks of one array; usable from any thread."""

    def __init__(self, document: bytes) -> None:
        """`document` is the `zarr.json` of a Zarr v3 array.

        Raises what opening it raises, and `UnsupportedError` for codecs that are only read.
        """
        meta = _core.ArrayMeta.from_zarr3(document)
        self._shape = meta.shape
        self._extent = meta.shards or meta.chunks
        self._dtype = numpy_dtype(meta.dtype, "")
        self._core = _core.Encoder(meta)

    def encode(self, position: Sequence[int], voxels: NDArray[Any]) -> bytes | None:
        """Returns the stored object at `position` of the grid; None where all its voxels are the fill value.

        `voxels` has the extent of the object, or what of it lies inside the array; what is given beyond the array's end
        is left out. Raises `ValueError` for a place outside the grid, or voxels of another shape.
        """
        inside = tuple(
            min(extent, whole - place * extent)
            for place, extent, whole in zip(position, self._extent, self._shape, strict=True)
        )
        if any(have < want for have, want in zip(voxels.shape, inside, strict=True)):
            raise ValueError(f"voxels of shape {voxels.shape} for a chunk of {inside}")
        cut = voxels[tuple(slice(0, extent) for extent in inside)].astype(self._dtype, copy=False)
        return self._core.encode(list(position), exported(cut if cut.ndim else cut.reshape(1)))
