"""`Image`, `Group` and `Collection`: what lies above arrays in a hierarchy.

Group nodes go in. A group whose attributes describe an OME-Zarr multiscale becomes an `Image`, one laid out by
bioformats2raw a `Collection` of images, any other a `Group`. The documents are read by `voxfetch.ngff`; children come
from consolidated metadata where there is any.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any, TypeVar, cast

from voxfetch import ngff
from voxfetch.array import Array
from voxfetch.errors import MetadataError, NotFoundError, SelectionError, VoxfetchError
from voxfetch.hierarchy import child, child_names, with_children
from voxfetch.level import Level, open_level
from voxfetch.scales import level_at_mag, level_at_resolution
from voxfetch.store import join_key
from voxfetch.stored import stored_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from voxfetch.node import Node
    from voxfetch.stored import Stored

__all__ = ["Collection", "Group", "Image", "Labels", "image_from_node", "open_child", "open_group_node"]

#: Nested groups that `tree` follows; a link in a folder may lead back up.
_MAX_TREE_DEPTH = 32


def open_group_node(node: Node) -> Image | Group | Collection:
    """Returns what a group is: an image, a collection of images, or just a group.

    Raises `MetadataError`, `UnsupportedError`, `LimitExceededError`, and what opening the levels of an image raises.
    """
    image = image_from_node(node)
    if image is not None:
        return image
    layout = _named(node, ngff.bioformats2raw_layout)
    # A plate may use the layout too; its wells are groups, not a series of images.
    return Collection(node) if layout and "plate" not in ngff.ome_attributes(node.attributes)[0] else Group(node)


def image_from_node(node: Node) -> Image | None:
    """Returns the image that a group describes, None when it describes none. Raises like `open_group_node`."""
    if node.multiscale is not None:
        return Image(node, node.multiscale)
    if node.kind != "group" or not ngff.is_image(node.attributes):
        return None
    return Image(node, _named(node, ngff.parse_image))


def open_child(node: Node, name: str) -> Array | Image | Group | Collection:
    """Returns what lies at `name` (parts with `/`) below a group. Raises `NotFoundError`, and what opening it does."""
    found = child(node, name)
    return Array(found) if found.kind == "array" else open_group_node(found)


_T = TypeVar("_T")


def _named(node: Node, parse: Callable[[Mapping[str, Any]], _T]) -> _T:
    """Parses the attributes of a node; an error names the document they are in."""
    try:
        return parse(node.attributes)
    except VoxfetchError as error:
        error.in_object(join_key(node.url, ".zattrs" if node.format == "zarr2" else node.document_name))
        raise


def _portable(node: Node) -> Node:
    """The node as it is pickled: without the engine, and without what it knows of nodes below."""
    node = dataclasses.replace(node, settings=dataclasses.replace(node.settings, engine=None))
    # Of a format with one document for all its nodes, that is how the nodes below are known.
    return dataclasses.replace(node, document=b"", consolidated=None) if node.format in ("zarr3", "zarr2") else node


class Image:
    """A picture at several resolutions (an OME-Zarr multiscale); made by `voxfetch.open` and `open_image`.

    Voxels are read from a level: `image.level(0)[...]`. Usable from any thread; pickles small.
    """

    #: Without this, `for` would try `image[0]`, take its error for the end and see an empty image.
    __iter__ = None

    def __init__(self, node: Node, multiscale: ngff.Multiscale) -> None:
        """Opens all levels. Raises what opening an array raises, naming the level."""
        self._node = node
        self._multiscale = multiscale
        parent = with_children(node, [dataset.path for dataset in multiscale.datasets])
        self._levels = tuple(open_level(parent, multiscale, dataset) for dataset in multiscale.datasets)
        self._axes = tuple(axis.name for axis in multiscale.axes)
        self._labels: Labels | None = None

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes, in the order of the levels."""
        return self._axes

    @property
    def levels(self) -> tuple[Level, ...]:
        """The resolutions in the order of the file, finest first."""
        return self._levels

    @property
    def labels(self) -> Labels:
        """The label images stored with this one, by name; each is opened when it is asked for."""
        if self._labels is None:
            self._labels = Labels(self._node, self._axes)
        return self._labels

    @property
    def channels(self) -> tuple[ngff.Channel, ...]:
        """How each channel wants to be shown (label, colour, contrast window); empty when the file does not say."""
        return self._multiscale.channels

    @property
    def is_label(self) -> bool:
        """Whether the file says that voxels are names of objects (a segmentation) and not intensities."""
        return self._multiscale.is_label

    @property
    def label_colors(self) -> Mapping[int, tuple[int, int, int, int]]:
        """Colour of each label that the file gives one to: red, green, blue, alpha, 0 to 255."""
        return dict(self._multiscale.label_colors)

    @property
    def name(self) -> str:
        """Name of the image, else of the folder it is in."""
        return self._multiscale.name or self._node.name

    @property
    def attrs(self) -> Mapping[str, Any]:
        """Attributes of the group, as they are in the file; a copy."""
        return dict(self._node.attributes)

    @property
    def format(self) -> str:
        """Format and version, such as `OME-Zarr 0.5` or `WEBKNOSSOS`."""
        return f"OME-Zarr {self._multiscale.version}" if self._node.multiscale is None else self._multiscale.version

    @property
    def url(self) -> str:
        """URL of the group."""
        return self._node.url

    @property
    def stored(self) -> Stored:
        """The objects that it is stored in, as bytes; in a file, such as HDF5, that file."""
        return stored_of(self._node)

    def level(
        self,
        index: int | None = None,
        *,
        mag: str | int | None = None,
        resolution: Sequence[float] | float | None = None,
        unit: str | None = None,
    ) -> Level:
        """Returns one level, by exactly one of three ways to name it.

        `index`: its place in `levels`, 0 the finest, negative from the end.
        `mag`: WEBKNOSSOS' name, the factors to the finest scale in the order x-y-z; "2" is "2-2-2".
        `resolution`: voxel sizes, one per space axis or per axis (or one for all space axes), in `unit` (default: the
        unit of the file); returns the coarsest level that is at least as fine along each of them.

        Raises `SelectionError` when there is no such level, `UnsupportedError` for one that lies elsewhere,
        `TypeError` for another number of ways.
        """
        if sum(way is not None for way in (index, mag, resolution)) != 1:
            raise TypeError("name a level by its index, by mag=... or by resolution=...")
        if unit is not None and resolution is None:
            raise TypeError("unit=... belongs to resolution=...")
        if mag is not None:
            return level_at_mag(self._levels, self._space(), str(mag), self._multiscale, self.url)
        if resolution is not None:
            return level_at_resolution(self._levels, self._space(), resolution, unit, self.url)
        try:
            return self._levels[cast("int", index)]
        except IndexError:
            raise SelectionError(f"no level {index}, there are {len(self._levels)}", key=self.url) from None

    def with_axes(self, axes: str | Sequence[str]) -> Image:
        """Returns the same image with the axes of all levels in this order, such as "zyx"; costs nothing."""
        view = object.__new__(Image)
        view.__dict__.update(self.__dict__)
        view._levels = tuple(level.with_axes(axes) for level in self._levels)
        view._axes = view._levels[0].axes
        view._labels = None
        return view

    def _space(self) -> list[int]:
        """Places of the space axes: those of that type, or those called x, y, z when the file knows no types."""
        types = {axis.name: axis.type for axis in self._multiscale.axes}
        if any(types.values()):
            return [i for i, name in enumerate(self._axes) if types[name] == "space"]
        return [i for i, name in enumerate(self._axes) if name in ("x", "y", "z")]

    def __getitem__(self, selection: object) -> Any:
        """Refused: an image has several levels. Raises `SelectionError`."""
        message = "an image has several levels and no voxels of its own"
        raise SelectionError(message, key=self.url, hint="index a level: image.level(0)[...]")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:  # noqa: FBT001 - numpy's protocol
        """Refused, for the same reason. Raises `TypeError`."""
        raise TypeError("an image has several levels: numpy.asarray(image.level(0))")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and self.url == other.url and self._levels == other._levels

    def __hash__(self) -> int:
        return hash((self.url, self._levels))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_node": _portable(self._node), "_labels": None}

    def __repr__(self) -> str:
        finest, count = self._levels[0], len(self._levels)
        levels = f"{count} level{'' if count == 1 else 's'} from {finest.shape}"
        return (
            f"<voxfetch.Image {self.name!r} {finest.dtype} ({', '.join(self._axes)}), {levels}, "
            f"{self.format}, {self.url}>"
        )

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{title}</th>" for title in ("level", "shape", "scale", "chunks", "shards"))
        rows = "".join(
            f"<tr><td>{i}</td><td>{level.shape}</td><td>{escape(_scale_text(level))}</td>"
            f"<td>{level.chunks}</td><td>{level.shards or 'none'}</td></tr>"
            for i, level in enumerate(self._levels)
        )
        title = f"{self.name} &middot; {self._levels[0].dtype}" if self.name.isalnum() else escape(self.name)
        return (
            f"<table><caption>voxfetch.Image {title} ({escape(', '.join(self._axes))}), {escape(self.format)}, "
            f"{escape(self.url)}</caption><tr>{head}</tr>{rows}</table>"
        )


class Labels(Mapping[str, Image]):
    """The label images of an image, by name. Listing reads one small document, an image is opened when it is taken."""

    def __init__(self, node: Node, axes: Sequence[str]) -> None:
        """`node` is the image's group; `axes` the order in which its levels are seen."""
        self._node = node
        self._axes = tuple(axes)
        self._names: tuple[str, ...] | None = None

    def __getitem__(self, name: str) -> Image:
        """Opens a label image. Raises `NotFoundError` for a name that is not listed, and what opening it raises."""
        if name not in self._listed():
            listed = ", ".join(self._listed()) or "none"
            raise NotFoundError(f"no label image {name!r}, there are: {listed}", key=self._node.url)
        found = child(child(self._node, "labels"), name)
        image = image_from_node(found)
        if image is None:
            raise MetadataError("is listed as a label image, but has no multiscales", key=found.url)
        order = [axis for axis in self._axes if axis in image.axes]
        return image.with_axes(order) if sorted(order) == sorted(image.axes) else image

    def __contains__(self, name: object) -> bool:
        """Whether the name is listed; opens nothing."""
        return name in self._listed()

    def __iter__(self) -> Iterator[str]:
        """The names, in the order of the file."""
        return iter(self._listed())

    def __len__(self) -> int:
        """How many there are."""
        return len(self._listed())

    def __repr__(self) -> str:
        return f"<voxfetch.Labels {', '.join(self._listed()) or 'none'}>"

    def _listed(self) -> tuple[str, ...]:
        if self._names is None:
            try:
                node = child(self._node, "labels")
            except NotFoundError:
                self._names = ()
            else:
                self._names = _named(node, ngff.parse_label_names)
        return self._names


class Group:
    """A group of a hierarchy: names that lead to arrays, images and other groups. Usable from any thread."""

    def __init__(self, node: Node) -> None:
        """Opens nothing."""
        self._node = node

    @property
    def attrs(self) -> Mapping[str, Any]:
        """Attributes of the group, as they are in the file; a copy."""
        return dict(self._node.attributes)

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self._node.name

    @property
    def format(self) -> str:
        """`zarr3`, `zarr2`, `n5`, `precomputed`, `wkw`, `hdf5` or `bossdb`."""
        return self._node.format

    @property
    def url(self) -> str:
        """URL of the group."""
        return self._node.url

    @property
    def stored(self) -> Stored:
        """The objects that it is stored in, as bytes; in a file, such as HDF5, that file."""
        return stored_of(self._node)

    def keys(self) -> tuple[str, ...]:
        """Names of what lies directly in the group, from consolidated metadata, else by listing; sorted."""
        return tuple(child_names(self._node))

    def __getitem__(self, name: str) -> Array | Image | Group | Collection:
        """Opens what lies at `name`; parts with `/` reach deeper. Raises `NotFoundError`, and what opening it does."""
        if not isinstance(cast("object", name), str):
            message = f"a group is indexed by names, not by {type(name).__name__}"
            raise SelectionError(message, key=self.url, hint="keys() lists the names, tree() all that lies below")
        return open_child(self._node, name)

    def __iter__(self) -> Iterator[str]:
        """The names, as `keys` has them."""
        return iter(self.keys())

    def __contains__(self, name: object) -> bool:
        """Whether `keys` has the name."""
        return name in self.keys()

    def __len__(self) -> int:
        """How many names there are."""
        return len(self.keys())

    def tree(self, depth: int | None = None) -> str:
        """All that lies below as text, one line per node; `depth` limits how far down.

        What cannot be opened is shown with its error. Reads a document per node where nothing is consolidated.
        """
        limit = _MAX_TREE_DEPTH if depth is None else min(depth, _MAX_TREE_DEPTH)
        lines = [f"{_plain(self.name)} {_summary(self)}"]
        _draw(self, "", limit, lines)
        return "\n".join(lines)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.url == cast("Group", other).url

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.url))

    def __getstate__(self) -> dict[str, Any]:
        return {"_node": _portable(self._node)}

    def __repr__(self) -> str:
        return f"<voxfetch.{type(self).__name__} {self.format}, {self.url}>"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}\n{escape(self.tree(depth=2))}</pre>"


class Collection(Group):
    """The images of one conversion by bioformats2raw (layout 3), in order; `keys` are their paths."""

    def keys(self) -> tuple[str, ...]:
        """Paths of the images: as the `OME` group lists them, else the children called 0, 1, ..."""
        try:
            listed = _named(child(self._node, "OME"), ngff.parse_series)
        except NotFoundError:
            listed = ()
        return listed or tuple(sorted((name for name in child_names(self._node) if name.isdecimal()), key=int))


def _scale_text(level: Level) -> str:
    parts = zip(level.scale, level.unit, strict=True)
    return " x ".join(f"{scale:g} {unit}" if unit else f"{scale:g}" for scale, unit in parts)


def _plain(text: str) -> str:
    """Text from a file, safe for a terminal: control characters are spelt out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _summary(found: Array | Image | Group) -> str:
    if isinstance(found, Array):
        return f"{found.shape} {found.dtype}"
    if isinstance(found, Image):
        count = len(found.levels)
        return f"(image, {count} level{'' if count == 1 else 's'}) {found.level(0).shape} {found.level(0).dtype}"
    return f"({type(found).__name__.lower()})"


def _draw(found: Group | Image | Labels, indent: str, depth: int, lines: list[str]) -> None:
    """Appends a line for each child, and below it those of its own."""
    if depth <= 0:
        return
    names = list(found.labels) if isinstance(found, Image) else list(found)
    owner = found.labels if isinstance(found, Image) else found
    for i, name in enumerate(names):
        last = i == len(names) - 1
        shown = f"labels/{name}" if isinstance(found, Image) else name
        try:
            below = owner[name]
            line, error = _summary(below), False
        except VoxfetchError as problem:
            below, line, error = None, f"! {_plain(str(problem))}", True
        lines.append(f"{indent}{'`-- ' if last else '|-- '}{_plain(shown)} {line}")
        if not error and isinstance(below, Group | Image):
            _draw(below, indent + ("    " if last else "|   "), depth - 1, lines)
