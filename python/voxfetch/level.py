"""`Level`: one resolution of an image; what an image says of it and the node it names go in.

Which of the levels is meant by a mag or a resolution is in `voxfetch.scales`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Self

from voxfetch.array import Array
from voxfetch.errors import MetadataError, NotFoundError, SelectionError, UnsupportedError
from voxfetch.hierarchy import child
from voxfetch.node import parse_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxfetch import ngff
    from voxfetch.node import Node

__all__ = ["Level", "open_level"]


class Level(Array):
    """One resolution of an image: an `Array` that knows where its voxels lie.

    Index i of an axis is at `scale * i + translation`, the centre of the voxel, in `unit`; one entry per axis.
    """

    def __init__(self, node: Node, dataset: ngff.Dataset, axes: Sequence[ngff.Axis]) -> None:
        """Raises `MetadataError` when the array has another number of axes, and what `Array` raises."""
        names = [axis.name for axis in axes]
        try:
            super().__init__(node, axes=names)
        except SelectionError as error:
            raise MetadataError(f"the image has the axes {', '.join(names)}: {error.message}", key=node.url) from None
        self._scale = dataset.scale
        self._translation = dataset.translation
        self._unit = tuple(axis.unit for axis in axes)

    @property
    def scale(self) -> tuple[float, ...]:
        """Distance between neighbouring voxels along each axis, in its unit; 1.0 where the file says nothing."""
        return self._scale

    @property
    def translation(self) -> tuple[float, ...]:
        """Position of the centre of the first voxel along each axis, in its unit."""
        return self._translation

    @property
    def unit(self) -> tuple[str | None, ...]:
        """Unit of each axis, such as `nanometer`; None where the file says nothing."""
        return self._unit

    def _permuted(self, order: tuple[int, ...], stored: tuple[int, ...]) -> Self:
        view = super()._permuted(order, stored)
        view._scale = tuple(self._scale[axis] for axis in order)
        view._translation = tuple(self._translation[axis] for axis in order)
        view._unit = tuple(self._unit[axis] for axis in order)
        return view


def open_level(node: Node, multiscale: ngff.Multiscale, dataset: ngff.Dataset) -> Level:
    """Opens one resolution. Its errors say that the other levels may be fine."""
    try:
        return Level(_level_node(node, multiscale, dataset), dataset, multiscale.axes)
    except (NotFoundError, UnsupportedError, MetadataError) as error:
        if len(multiscale.datasets) > 1 and (error.hint is None or isinstance(error, NotFoundError)):
            error.hint = "the image lists it as a level; the other levels can be opened by their own paths"
        raise


def _level_node(node: Node, multiscale: ngff.Multiscale, dataset: ngff.Dataset) -> Node:
    found = child(node, dataset.path)
    if found.kind != "array":
        raise MetadataError("a level of the image, but a group and not an array", key=found.url)
    return _with_separator(found, multiscale.version)


def _with_separator(node: Node, version: str) -> Node:
    """The node, with `/` between chunk coordinates if that is what its files have and its document forgot to say.

    OME-Zarr asks for `/` since 0.2, Zarr v2 takes a missing `dimension_separator` as `.`: arrays by writers that
    relied on the former read as nothing but fill value under the latter. What is on disk decides.
    """
    if node.format != "zarr2" or node.settings.dimension_separator is not None or version.startswith("0.1"):
        return node
    if "dimension_separator" in parse_json(node.document, node.url):
        return node
    try:
        names = node.store.list(node.path)
    except UnsupportedError:
        # Nobody can tell what is there (plain HTTP): what the format asks for is taken.
        names = ["0"]
    dotted = any("." in name and all(part.isdecimal() for part in name.split(".")) for name in names)
    if dotted or not any(name.isdecimal() for name in names):
        return node
    return dataclasses.replace(node, settings=dataclasses.replace(node.settings, dimension_separator="/"))
