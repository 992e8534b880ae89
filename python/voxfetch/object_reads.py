"""Reads of arrays whose elements have no fixed size: `Reads` of their numbers, each with the objects they stand for."""

from __future__ import annotations

import base64
import binascii
import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from voxfetch.errors import MetadataError, SelectionError, UnsupportedError
from voxfetch.node import parse_json
from voxfetch.objects import Objects
from voxfetch.values import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from voxfetch import _core
    from voxfetch.reads import Bounds, Job, Reads

__all__ = ["ObjectReads", "object_fill_value"]


@dataclass(frozen=True, slots=True)
class ObjectReads:
    """Makes the reads of one array, as `Reads` does.

    `numbers` makes reads that decode and forget; `handle` gives the core's array with a table for one read.
    """

    numbers: Reads
    handle: Callable[[Objects], _core.LocalArray | _core.RemoteArray]
    fill: object

    def basic(self, selection: object, out: object = None, order: Literal["C", "F"] = "C") -> Job:
        """The read of `a[selection]`. Raises `SelectionError`, `LimitExceededError`."""
        return self._job(lambda reads: reads.basic(selection, None, order), out)

    def outer(self, selection: object) -> Job:
        """The read of `a.oindex[selection]`. Raises `SelectionError`, `LimitExceededError`."""
        return self._job(lambda reads: reads.outer(selection))

    def points(self, selection: object) -> Job:
        """The read of `a.vindex[selection]`. Raises `SelectionError`, `LimitExceededError`."""
        return self._job(lambda reads: reads.points(selection))

    def box(
        self,
        start: Sequence[int],
        shape: Sequence[int] | int,
        *,
        absolute: bool = False,
        bounds: Bounds,
        out: object = None,
    ) -> Job:
        """The read of one box. Raises `SelectionError`, `LimitExceededError`."""
        return self._job(lambda reads: reads.box(start, shape, absolute=absolute, bounds=bounds), out)

    def boxes(
        self, starts: object, shape: Sequence[int] | int, *, absolute: bool = False, bounds: Bounds, out: object = None
    ) -> Job:
        """The read of boxes of one shape at `starts` (N, ndim). Raises `SelectionError`, `LimitExceededError`."""
        return self._job(lambda reads: reads.boxes(starts, shape, absolute=absolute, bounds=bounds), out)

    def explained(self, selection: object) -> _core.Read:
        """A read without memory, to be explained. Raises `SelectionError`."""
        return self.numbers.explained(selection)

    def box_to_write(self, selection: object, value: object) -> tuple[tuple[int, ...], NDArray[Any]]:
        """Refused with `UnsupportedError`."""
        del selection, value
        raise UnsupportedError("elements of no fixed size are not written", key=self.numbers.where)

    def _job(self, make: Callable[[Reads], Job], out: object = None) -> Job:
        objects = Objects()
        job = make(replace(self.numbers, array=self.handle(objects)))
        if out is not None and not _fits(out, job.array.shape):
            message = f"out must be an array of objects of the shape {job.array.shape}, which can be written"
            raise SelectionError(message, key=self.numbers.where)

        def convert(numbers: NDArray[Any]) -> NDArray[Any]:
            values = objects.of(numbers, self.fill)
            fill = self.fill
            if type(fill) in (list, dict):
                # One for each: they can be changed.
                for place in np.argwhere(numbers == 0):
                    values[tuple(place)] = copy.deepcopy(fill)
            if out is not None:
                cast("NDArray[Any]", out)[...] = values
            return values

        job.out, job.convert = out, convert
        return job


def _fits(out: object, shape: tuple[int, ...]) -> bool:
    array = cast("Any", out)
    return isinstance(out, np.ndarray) and array.dtype == object and array.shape == shape and array.flags.writeable


def object_fill_value(document: bytes, codec: str, key: str) -> object:
    """Returns the element that a Zarr array with objects encoded by `codec` has where nothing is stored.

    `null` in Zarr v2 is the empty string, empty bytes, or None for other objects. Raises `MetadataError`.
    """
    fields = parse_json(document, key)
    _check_data_type(fields.get("data_type"), codec, key)
    value: object = fields.get("fill_value")
    match codec, value:
        case "vlen-utf8", None:
            return ""
        case "vlen-utf8", str() | int() | float():
            return str(value)
        case "vlen-bytes", None | 0:
            return b""
        case "vlen-bytes", str():
            try:
                return base64.b64decode(value, validate=True)
            except binascii.Error:
                pass
        case "vlen-bytes", list():
            try:
                return bytes(cast("list[int]", value))
            except (TypeError, ValueError):
                pass
        case (("vlen-utf8" | "vlen-bytes"), _):
            pass
        case _:
            return value
    raise MetadataError(f"fill_value: {shown(cast('object', value))} is none of an array with `{codec}`", key=key)


def _check_data_type(data_type: object, codec: str, key: str) -> None:
    """The codec of a Zarr v3 array must be that of its type; version 2 has no other name of it than the codec's."""
    if data_type is None:
        return
    name = cast("dict[str, Any]", data_type).get("name") if isinstance(data_type, dict) else data_type
    needed = "vlen-utf8" if name == "string" else "vlen-bytes"
    if codec != needed:
        raise MetadataError(f"data type `{name}` is encoded by `{needed}`, not by `{codec}`", key=key)
