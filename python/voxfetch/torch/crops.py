"""`CropDataset`: crops of one or several arrays on the same grid, as torch tensors; a batch is one plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, SupportsIndex, cast

import numpy as np
import torch
from torch.utils.data import Dataset

import voxfetch as vf
from voxfetch.torch.order import RandomStarts, grid_starts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Extents = Sequence[int] | int
    Arrays = vf.Array | Sequence[vf.Array] | Mapping[str, vf.Array]
    Starts = NDArray[np.int64]

__all__ = ["CropDataset"]


@dataclass(frozen=True, slots=True)
class _Member:
    """One of the arrays: its axis k is axis `columns[k]` of the first one, and its voxels are `factor` times as large.

    `crop` is the shape of a crop in its own voxels, `dtype` the type of its tensors.
    """

    name: str
    array: vf.Array
    columns: tuple[int, ...]
    factor: tuple[int, ...]
    crop: tuple[int, ...]
    dtype: torch.dtype

    def starts(self, starts: Starts) -> Starts:
        """Starts in voxels of the first array -> in its own."""
        return starts[:, self.columns] // self.factor


class CropDataset(Dataset[Any]):
    """Crops of `shape` voxels at `starts`, for torch's DataLoader or for `CropLoader`.

    `arrays` is an array or level, or several of them as a tuple or dict (an image and its labels): then an item is a
    tuple or dict of tensors, the same box of each. All have the axes of the first one; named axes may be missing (a
    channel). `factors` (a sequence or dict like `arrays`; an int or one per axis) says how much larger the voxels of
    an array are than those of the first, such as 2 for labels at half the resolution: voxel i lies over the voxels
    2i and 2i + 1, the crop has half the shape, and starts are multiples of 2.

    `starts` (N, ndim) are in voxels of the first array (with `absolute` coordinates, as in `Array.read_box`). None:
    crops side by side that cover the array; the last ones reach outside, or with `bounds="raise"` are moved inside. A
    callable is given the epoch and returns starts, always as many; see also `random`. Crops that reach outside raise
    `SelectionError` at once, or with `bounds="fill"` get the fill value there.

    Tensors have the type of their array, or `dtype` (one for all, or a dict or sequence like `arrays`). `transform` is
    called with each item. An item owns its memory; those of one batch may share it. Errors are those of `Array.read`
    and name the sample and its start. Pickles small; a process that is forked or spawned reads with an engine of its
    own.
    """

    def __init__(  # noqa: PLR0913 - as many as torch's own
        self,
        arrays: Arrays,
        shape: Extents,
        starts: Any = None,
        *,
        bounds: Literal["raise", "fill"] = "raise",
        absolute: bool = False,
        factors: Any = None,
        dtype: Any = None,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        """Raises `SelectionError`, `UnsupportedError` (a type that torch has not), `TypeError` and `ValueError`."""
        if bounds not in ("raise", "fill"):
            raise ValueError(f'bounds must be "raise" or "fill", not {bounds!r}')
        self._names, listed = _listed(arrays)
        first = listed[0]
        self.shape = _extents(shape, first.ndim, "shape")
        self._single = isinstance(arrays, vf.Array)
        names = self._names or [str(number) for number in range(len(listed))]
        given = zip(_each(factors, names, 1, "factors"), _each(dtype, names, None, "dtype"), strict=True)
        self._members = [
            _member(name, array, one, first, self.shape) for name, array, one in zip(names, listed, given, strict=True)
        ]
        for one in self._members:
            own = [first.origin[column] for column in one.columns]
            if not absolute and [at * by for at, by in zip(one.array.origin, one.factor, strict=True)] != own:
                message = f"array {one.name} begins at {one.array.origin}, the first one at {first.origin}"
                raise vf.SelectionError(message, hint="give starts as coordinates, with absolute=True")
        self._bounds: Literal["raise", "fill"] = bounds
        self._absolute = absolute
        self.transform = transform
        if starts is None:
            starts = grid_starts(first.shape, self.shape, self._step(), inside=bounds == "raise")
            if absolute:
                starts += np.array(first.origin, np.int64)
        self._given = starts
        # Shared with worker processes, which live on when an epoch ends.
        self._epoch: torch.Tensor = torch.zeros(1, dtype=torch.int64)
        cast("Any", self._epoch).share_memory_()
        self._known: tuple[int, Starts] | None = None
        self._count = len(self.starts)

    @classmethod
    def random(  # noqa: PLR0913 - as many as torch's own
        cls,
        arrays: Arrays,
        shape: Extents,
        n: int,
        seed: int = 0,
        *,
        mask: Any = None,
        mask_cell: Extents | None = None,
        region: tuple[Sequence[int], Sequence[int]] | None = None,
        factors: Any = None,
        dtype: Any = None,
        transform: Callable[[Any], Any] | None = None,
    ) -> Self:
        """Returns `n` crops an epoch at random places inside the first array, or inside the box `region`.

        `region` is (start, stop), half-open, in voxels. With `mask`, an array of bool that covers the first array in
        cells of `mask_cell` voxels (None: where its shape leaves no doubt), the middle of each crop is drawn from where
        it is True. Places are the same for the same `seed` and epoch (see `set_epoch`).
        """
        _, listed = _listed(arrays)
        extents = listed[0].shape
        crop = _extents(shape, len(extents), "shape")
        low, high = ((0,) * len(extents), extents) if region is None else region
        low, high = _extents(low, len(extents), "region", 0), _extents(high, len(extents), "region", 0)
        fixed = cls(
            arrays, crop, np.zeros((0, len(extents)), np.int64), factors=factors, dtype=dtype, transform=transform
        )
        step = fixed._step()
        room = [
            (end - size) // by - -(-start // by) for start, end, size, by in zip(low, high, crop, step, strict=True)
        ]
        if min(room, default=0) < 0 or any(map(int.__gt__, high, extents)):
            raise vf.SelectionError(f"no crop of {crop} voxels fits into {low} .. {high} of the array {extents}")
        values, cell = (None, ()) if mask is None else _mask(mask, mask_cell, extents, (low, high))
        fixed._known = None
        fixed._given = RandomStarts(n, seed, crop, low, high, step, values, cell)
        fixed._count = len(fixed.starts)
        return fixed

    @property
    def starts(self) -> Starts:
        """Starts (N, ndim) of the samples in this epoch."""
        epoch, known = int(self._epoch[0]), self._known
        if known is None or known[0] != epoch:
            given = self._given(epoch) if callable(self._given) else self._given
            known = self._known = (epoch, self._checked(given))
        return known[1]

    def set_epoch(self, epoch: int) -> None:
        """Takes the starts of another epoch, in worker processes too. `CropLoader` and `BlockSampler` call it.

        It is that of all who iterate over this dataset with workers of torch's DataLoader: loaders that are in use at
        one time need a dataset each.
        """
        self._epoch[0] = epoch
        if len(self.starts) != self._count:
            raise ValueError(f"starts({epoch}) gives {len(self.starts)} samples; {self._count} in the epoch before")

    def blocks(self, block: Extents | None = None) -> NDArray[np.int64]:
        """Returns the number of the block that holds the middle of each sample, in this epoch.

        `block` is its extent in voxels (None: that of a shard of the first array, without shards of a chunk).
        """
        first = self._members[0].array
        extents = np.maximum(_extents(block or first.shards or first.chunks, first.ndim, "block", 0), 1)
        inside = self.starts - np.array(first.origin) if self._absolute else self.starts
        grid = (inside + np.array(self.shape) // 2) // extents
        if not grid.size:
            return np.zeros(len(grid), np.int64)
        return np.asarray(np.unique(grid, axis=0, return_inverse=True)[1], np.int64).reshape(-1)

    def __len__(self) -> int:
        """Number of samples an epoch."""
        return self._count

    def __getitem__(self, index: int) -> Any:
        """Reads one sample."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Reads samples as one plan: each chunk that they need is decoded once."""
        indices = [int(index) for index in indices]
        starts = self.starts[indices]
        try:
            read = vf.read_all(self._pairs(starts))
        except vf.VoxfetchError as error:
            for index, start in zip(indices, starts, strict=True):
                try:
                    vf.read_all(self._pairs(start[np.newaxis]))
                except vf.VoxfetchError as own:
                    raise _naming(own, [index], [start]) from None
            raise _naming(error, indices, starts) from None
        tensors = [_tensor(array).to(one.dtype) for array, one in zip(read, self._members, strict=True)]
        return self.items(tensors)

    # --- for the loader

    async def read_async(self, indices: Sequence[int], starts: Starts, *, pin: bool) -> list[torch.Tensor]:
        """Reads samples as one plan; returns a tensor (N, *crop) for each array, in pinned memory if asked to."""
        pinned = [_pinned(len(starts), one, one.array.dtype) for one in self._members] if pin else None
        try:
            read = await vf.read_all_async(self._pairs(starts, pinned))
        except vf.VoxfetchError as error:
            for index, start in zip(indices, starts, strict=True):
                try:
                    await vf.read_all_async(self._pairs(start[np.newaxis]))
                except vf.VoxfetchError as own:
                    raise _naming(own, [index], [start]) from None
            raise _naming(error, indices, starts) from None
        return pinned or [_tensor(array) for array in read]

    def converted(self, read: list[torch.Tensor], *, pin: bool) -> list[torch.Tensor]:
        """The tensors in the types that were asked for, pinned if asked to."""
        if not pin:
            return [tensor.to(one.dtype) for tensor, one in zip(read, self._members, strict=True)]
        return [
            tensor if tensor.dtype == one.dtype else _pinned(len(tensor), one, one.dtype).copy_(tensor)
            for tensor, one in zip(read, self._members, strict=True)
        ]

    def like_arrays(self, values: Sequence[Any]) -> Any:
        """One value for each array -> alone, as a tuple or as a dict, as the arrays were given."""
        if self._single:
            return values[0]
        return tuple(values) if self._names is None else dict(zip(self._names, values, strict=True))

    def items(self, tensors: list[torch.Tensor]) -> list[Any]:
        """Tensors (N, *crop) -> N items, transformed."""
        items = [self.like_arrays(one) for one in zip(*tensors, strict=True)]
        if self.transform is None:
            return items
        for number, item in enumerate(items):
            try:
                items[number] = self.transform(item)
            except BaseException as error:
                error.add_note(f"in the transform of item {number} of a batch of {len(items)}")
                raise
        return items

    @property
    def sample_nbytes(self) -> int:
        """Bytes of one sample as it is read."""
        return sum(math.prod(one.crop) * one.array.dtype.itemsize for one in self._members)

    @property
    def engines(self) -> list[vf.Engine]:
        """The engines of the arrays, made if need be."""
        return [one.array.engine for one in self._members]

    # ---

    def _pairs(self, starts: Starts, outs: list[torch.Tensor] | None = None) -> list[tuple[vf.Array, vf.Boxes]]:
        memory: Sequence[torch.Tensor | None] = outs or [None] * len(self._members)
        return [
            (one.array, vf.Boxes(one.starts(starts), one.crop, self._absolute, self._bounds, out))
            for one, out in zip(self._members, memory, strict=True)
        ]

    def _step(self) -> tuple[int, ...]:
        """Starts are multiples of it."""
        step = [1] * len(self.shape)
        for one in self._members:
            for column, factor in zip(one.columns, one.factor, strict=True):
                step[column] = math.lcm(step[column], factor)
        return tuple(step)

    def _checked(self, given: Any) -> Starts:
        starts = np.asarray(given)
        if starts.ndim != 2 or starts.shape[1] != len(self.shape) or starts.dtype.kind not in "iu":
            raise ValueError(f"starts must be ints (N, {len(self.shape)}), not {starts.dtype} {starts.shape}")
        starts = starts.astype(np.int64, copy=False)
        for one in self._members:
            own = starts[:, one.columns]
            _refuse((own % one.factor != 0).any(axis=1), starts, f"is no multiple of {one.factor}, as {one.name} asks")
            if self._bounds == "raise":
                place = own // one.factor - (one.array.origin if self._absolute else 0)
                outside = ((place < 0) | (place > np.array(one.array.shape) - one.crop)).any(axis=1)
                what = f"reaches outside the array {one.name} {one.array.shape} with a crop of {one.crop} voxels"
                _refuse(outside, starts, what, 'bounds="fill" gives the fill value there')
        return starts

    def __getstate__(self) -> dict[str, Any]:
        # What is computed is computed again.
        return self.__dict__ | {"_known": None}


def _listed(arrays: Arrays) -> tuple[list[str] | None, list[vf.Array]]:
    """The names, if there are any, and the arrays."""
    if isinstance(arrays, vf.Array):
        return None, [arrays]
    names = [str(name) for name in arrays] if isinstance(arrays, Mapping) else None
    listed = list(arrays.values() if isinstance(arrays, Mapping) else arrays)
    if not listed or not all(isinstance(cast("object", one), vf.Array) for one in listed):
        raise TypeError("arrays must be a voxfetch Array or Level, or a tuple or dict of them")
    return names, listed


def _member(
    name: str, array: vf.Array, given: tuple[Any, torch.dtype | None], first: vf.Array, shape: tuple[int, ...]
) -> _Member:
    """`given` are factors and type."""
    factor, dtype = given
    columns = tuple(range(array.ndim))
    are_named = not any(axis.startswith("dim_") for axis in (*array.axes, *first.axes))
    if array.axes != first.axes and (are_named or array.ndim != first.ndim):
        columns = tuple(first.axes.index(axis) for axis in array.axes if axis in first.axes)
        if len(columns) < array.ndim or list(columns) != sorted(columns) or array.axes[0].startswith("dim_"):
            message = f"array {name} has the axes {array.axes}, the first one {first.axes}"
            hint = "an array may lack axes of the first one, by name, in the same order; with_axes gives another order"
            raise vf.SelectionError(message, hint=hint)
    factors = _extents(factor, array.ndim, "factors")
    own = tuple(shape[column] for column in columns)
    if any(extent % by for extent, by in zip(own, factors, strict=True)):
        raise ValueError(f"the shape {own} is no multiple of the factors {factors} of array {name}")
    try:
        stored = _tensor(np.empty(0, array.dtype)).dtype
    except TypeError:
        raise vf.UnsupportedError(f"torch has no type for {array.dtype}, of array {name}", key=array.url) from None
    if dtype is not None and not isinstance(cast("object", dtype), torch.dtype):
        raise TypeError(f"dtype must be one of torch, such as torch.float32, not {dtype!r}, of array {name}")
    crop = tuple(extent // by for extent, by in zip(own, factors, strict=True))
    return _Member(name, array, columns, factors, crop, dtype or stored)


def _each(value: Any, names: list[str], default: Any, what: str) -> list[Any]:
    """One value for each array."""
    if isinstance(value, Mapping):
        given = cast("Mapping[str, Any]", value)
        if unknown := set(given) - set(names):
            raise ValueError(f"{what} for {sorted(unknown)}, but the arrays are {names}")
        return [given.get(name, default) for name in names]
    if isinstance(value, Sequence) and not isinstance(value, str):
        listed = list(cast("Sequence[Any]", value))
        if len(listed) != len(names):
            raise ValueError(f"{what}: {len(listed)} values for {len(names)} arrays")
        return listed
    return [default if value is None else value] * len(names)


def _extents(value: Any, ndim: int, what: str, minimum: int = 1) -> tuple[int, ...]:
    """One int for each axis."""
    extents: tuple[Any, ...] = (value,) * ndim if isinstance(value, SupportsIndex) else tuple(value)
    if len(extents) != ndim or any(extent != int(extent) or extent < minimum for extent in extents):
        raise ValueError(f"{what} must be an int or {ndim} of them, each at least {minimum}, not {value!r}")
    return tuple(map(int, extents))


def _mask(
    mask: Any, given: Extents | None, extents: tuple[int, ...], region: tuple[tuple[int, ...], tuple[int, ...]]
) -> tuple[NDArray[np.bool_], tuple[int, ...]]:
    """The values, False outside of the region, and the voxels that each stands for."""
    values: NDArray[np.bool_] = np.asarray(mask) != 0
    if values.ndim != len(extents):
        raise ValueError(f"mask must have {len(extents)} axes; its shape is {values.shape}")
    if given is None:
        cell = tuple(_cell(extent, cells) for extent, cells in zip(extents, values.shape, strict=True))
    else:
        cell = _extents(given, len(extents), "mask_cell")
    if 0 in cell or any(n not in (m // by, -(-m // by)) for m, by, n in zip(extents, cell, values.shape, strict=True)):
        message = f"mask {values.shape} does not cover the array {extents} in cells of one size without doubt"
        raise ValueError(f"{message}: mask_cell tells the voxels of one")
    there = np.zeros_like(values)
    box = tuple(slice(low // by, -(-high // by)) for low, high, by in zip(*region, cell, strict=True))
    there[box] = values[box]
    if not there.any():
        raise ValueError(f"mask is True nowhere in the region {region[0]} .. {region[1]}")
    return there, cell


def _cell(extent: int, cells: int) -> int:
    """Voxels of a cell along an axis: what divides it, or all that fits; 0 for none, and where several do."""
    if cells and extent % cells == 0:
        return extent // cells
    about = range(max(extent // (cells + 1), 1), extent // max(cells - 1, 1) + 2)
    fitting = [by for by in about if cells in (extent // by, -(-extent // by))]
    return fitting[0] if len(fitting) == 1 else 0


def _pinned(count: int, member: _Member, dtype: Any) -> torch.Tensor:
    if isinstance(dtype, np.dtype):
        dtype = _tensor(np.empty(0, cast("Any", dtype))).dtype
    return torch.empty((count, *member.crop), dtype=dtype, pin_memory=True)


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    """The same memory."""
    return cast("Any", torch).from_numpy(array)


def _refuse(wrong: Any, starts: Starts, what: str, hint: str | None = None) -> None:
    if wrong.any():
        index = int(wrong.argmax())
        message = f"sample {index} at {_place(starts[index])} {what}"
        raise vf.SelectionError(message, hint=hint, others=int(wrong.sum()) - 1)


def _place(start: NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(int(value) for value in start)


def _naming(error: vf.VoxfetchError, indices: Sequence[int], starts: Sequence[Starts] | Starts) -> vf.VoxfetchError:
    """The error, which now names the sample, or several where none of them fails alone."""
    if len(indices) == 1:
        error.message = f"sample {indices[0]} at {_place(starts[0])}: {error.message}"
    else:
        error.message = f"samples {list(indices)}, of which each can be read alone: {error.message}"
    return error
