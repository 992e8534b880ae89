"""Number types under a preset: which type a viewer gets, and how voxels become it.

Only what a viewer cannot read is changed, and `native` changes nothing:

| stored | `viv` | `wk` | `pc` (precomputed) |
|-|-|-|-|
| bool | uint8 | uint8 | uint8 |
| float16, float64 | float32 | float32 | float32 |
| int64 of an image | int32, clamped | int32, clamped | int32, clamped |
| uint64 of an image | uint32, clamped | uint32, clamped | as it is |
| int64 of labels | uint32, folded | as it is | uint64, clamped |
| uint64 of labels | uint32, folded | as it is | as it is |

Clamped: numbers out of range become the nearest that there is. Folded: the low 32 bits are kept, so that different
objects stay different as far as they can; an object whose low 32 bits are 0 gets 2**32 - 1, for 0 is no object. A
float64 beyond float32 becomes infinite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Preset", "cast_voxels", "is_number", "shown_dtype"]

Preset = Literal["native", "viv", "wk"]

_FLOATS = {"float16": "float32", "float64": "float32"}
_OF_IMAGES = {
    "viv": {"bool": "uint8", **_FLOATS, "int64": "int32", "uint64": "uint32"},
    "wk": {"bool": "uint8", **_FLOATS, "int64": "int32", "uint64": "uint32"},
    "pc": {"bool": "uint8", **_FLOATS, "int64": "int32"},
}
_OF_LABELS = {
    "viv": {"bool": "uint8", **_FLOATS, "int64": "uint32", "uint64": "uint32"},
    "wk": {"bool": "uint8", **_FLOATS},
    "pc": {"bool": "uint8", **_FLOATS, "int64": "uint64"},
}


def is_number(dtype: np.dtype[Any]) -> bool:
    """Whether voxels are numbers, or dates, which are counted: what Zarr documents of every reader can say."""
    return (dtype.isbuiltin == 1 and dtype.kind in "biufc") or dtype.kind in "mM"


def shown_dtype(dtype: np.dtype[Any], preset: str, *, is_label: bool) -> np.dtype[Any]:
    """The type that voxels of `dtype` get; `preset` may also be `pc`."""
    table = (_OF_LABELS if is_label else _OF_IMAGES).get(preset, {})
    return np.dtype(table.get(dtype.name, dtype))


def cast_voxels(voxels: NDArray[Any], dtype: np.dtype[Any], *, is_label: bool) -> NDArray[Any]:
    """Voxels as `dtype`, one that `shown_dtype` gives; the same array where nothing changes."""
    if voxels.dtype == dtype:
        return voxels
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return voxels.astype(dtype)
    if voxels.dtype.itemsize == 1:
        return voxels.astype(dtype)
    if is_label and dtype == np.uint32:
        folded = voxels.astype(np.uint32)
        folded[(folded == 0) & (voxels != 0)] = 0xFFFFFFFF
        return folded
    info = np.iinfo(dtype)
    low = max(int(info.min), int(np.iinfo(voxels.dtype).min))
    high = min(int(info.max), int(np.iinfo(voxels.dtype).max))
    return voxels.clip(low, high).astype(dtype)
