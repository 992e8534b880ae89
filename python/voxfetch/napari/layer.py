"""A source -> its pictures -> the layers of napari that show them. Reads few voxels, for contrast limits only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np

import voxfetch as vf
from voxfetch.napari.picture import members, pictures
from voxfetch.napari.view import View

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from voxfetch.napari.picture import Picture

__all__ = ["LayerData", "layers", "viewer_engine"]

LayerData: TypeAlias = "tuple[View | list[View], dict[str, Any], Literal['image', 'labels']]"

#: Decoded chunks that are kept, for planes one after the other.
_CHUNK_CACHE_NBYTES = 256 << 20
#: Voxels that are decoded to find contrast limits, at most.
_MAX_CONTRAST_NBYTES = 8 << 20
_TWO_COLORS = ("magenta", "green")
_COLORS = ("cyan", "magenta", "yellow", "blue", "green", "red")


def layers(source: Any, **open_options: Any) -> list[LayerData]:
    """Returns the layers of what lies at `source`, each `(data, keywords, type)` for `napari.layers.Layer.create`.

    `source` is what `voxfetch.open` takes, with `open_options`, or an `Array`, `Image` or `Group`. An image becomes one
    layer per channel, or one of colours where its channels are those of a picture; its label images, and what its
    format calls a segmentation, become layers of labels. Of a group all images become layers, its arrays if there are
    none. An array that no image describes is taken for labels if it holds integers of 32 or 64 bits, as by napari.

    `data` is a `View`, or a list of one per level, finest first. Of its axes z, y and x are the last. `scale`,
    `translate`, `units` and `axis_labels` are those of the finest level. Contrast limits are those of the file, else
    those of the coarsest level if it has at most 8 MiB, which are read here, else napari takes the first plane that it
    shows. What is opened here without `engine=` gets an engine of its own, with a chunk cache.

    Raises what `voxfetch.open` raises, `UnsupportedError` for voxels that are no numbers and for less than two axes,
    `MetadataError` for a group in which there is nothing to show, `LimitExceededError` for more than 24 images.
    """
    found = source
    if not isinstance(source, (vf.Array, vf.Image, vf.Group)):
        if open_options.get("engine") is None:
            open_options["engine"] = viewer_engine()
        found = vf.open(source, **open_options)
    shown = members(found) if isinstance(found, vf.Group) else [cast("vf.Array | vf.Image", found)]
    return [layer for member in shown for picture in pictures(member) for layer in _layers_of(picture)]


def viewer_engine() -> vf.Engine:
    """Returns an engine that keeps chunks."""
    limit = vf.default_engine().options.memory_limit_bytes
    return vf.Engine(chunk_cache_bytes=min(_CHUNK_CACHE_NBYTES, limit // 2))


def _layers_of(picture: Picture) -> Iterator[LayerData]:
    """One layer, or one per channel."""
    finest, axis, count = picture.arrays[0], picture.channel_axis, picture.split
    dropped = axis if picture.rgb or count else None
    kept = [i for i in range(finest.ndim) if i != dropped]
    common: dict[str, Any] = {
        "multiscale": len(picture.arrays) > 1,
        "axis_labels": tuple(finest.axes[i] for i in kept),
        "metadata": picture.metadata,
        **_place(finest, kept),
    }
    limits = [] if picture.is_label else _limits(picture)
    for number in range(max(count, 1)):
        views = [_channel(array, number if count else None, axis) for array in picture.arrays]
        data = views if len(views) > 1 else views[0]
        keywords = {**common, "name": picture.name}
        if picture.is_label:
            if count > 1:
                keywords["name"] = f"{picture.name}: {number}"
            if any(picture.colors):  # with one for the background alone, all others get those of napari
                keywords["colormap"] = _label_colormap(picture.colors)
            yield data, keywords, "labels"
            continue
        keywords |= {"rgb": picture.rgb, **_looks(picture, number)}
        if limits[number] is not None:
            keywords["contrast_limits"] = limits[number]
        yield data, keywords, "image"


def _label_colormap(colors: Mapping[int, tuple[int, int, int, int]]) -> dict[int | None, tuple[float, ...]]:
    """Colours of labels as napari takes them; those without one are grey, the background is not shown."""
    found: dict[int | None, tuple[float, ...]] = {None: (0.5, 0.5, 0.5, 1.0), 0: (0.0, 0.0, 0.0, 0.0)}
    return found | {label: tuple(part / 255 for part in color) for label, color in colors.items()}


def _channel(array: vf.Array, number: int | None, axis: int | None) -> View:
    whole = (slice(None),) * (axis or 0)
    return View(array) if number is None else View(array)[(*whole, number)]


def _place(array: vf.Array, kept: Sequence[int]) -> dict[str, Any]:
    """Scale, translation and units along the axes that are kept, as far as they are known."""
    if not isinstance(array, vf.Level):
        return {"translate": tuple(array.origin[i] for i in kept)} if any(array.origin) else {}
    place: dict[str, Any] = {
        "scale": tuple(array.scale[i] for i in kept),
        "translate": tuple(array.translation[i] for i in kept),
    }
    units = tuple(_unit(array.unit[i]) for i in kept)
    return place if set(units) == {"pixel"} else {**place, "units": units}


def _unit(name: str | None) -> str:
    """The unit as napari takes it, pixel for none and for what it does not know."""
    import pint

    if name is None or not name.isidentifier():
        return "pixel"
    try:
        pint.get_application_registry().Unit(name)
    except (AttributeError, ValueError):
        return "pixel"
    return name


def _looks(picture: Picture, number: int) -> dict[str, Any]:
    """Name, colour and visibility of one channel."""
    count = picture.split
    channel = picture.shown[number] if number < len(picture.shown) and not picture.rgb else None
    looks: dict[str, Any] = {}
    if count > 1:
        looks["colormap"] = (_TWO_COLORS if count == 2 else _COLORS)[number % len(_COLORS)]
        looks["blending"] = "additive" if number else "translucent_no_depth"
    label = None if channel is None else channel.label
    if label or count > 1:
        looks["name"] = f"{picture.name}: {label or number}"
    if channel is not None:
        looks["visible"] = channel.active
        if channel.color == "FFFFFF":
            looks["colormap"] = "gray"
        elif channel.color not in (None, "000000"):
            looks["colormap"], looks["blending"] = f"#{channel.color}", "additive"
    return looks


def _limits(picture: Picture) -> list[tuple[float, float] | None]:
    """Contrast limits of each layer: the window of the file, else those of the voxels; None leaves it to napari."""
    dtype, count = picture.arrays[0].dtype, max(picture.split, 1)
    if picture.rgb or (dtype.itemsize == 1 and not picture.shown):
        return [_of_type(dtype)] * count
    windows = [channel.window for channel in picture.shown[:count]] + [None] * (count - len(picture.shown))
    limits = [(one.start, one.end) if one is not None and one.start < one.end else None for one in windows]
    if None not in limits:
        return limits
    if dtype.itemsize == 1:
        return [one or _of_type(dtype) for one in limits]
    coarsest = picture.arrays[-1]
    padded = (-(-extent // chunk) * chunk for extent, chunk in zip(coarsest.shape, coarsest.chunks, strict=True))
    if math.prod(padded) * dtype.itemsize > _MAX_CONTRAST_NBYTES or not coarsest.size:
        return limits
    voxels = coarsest.read()
    axis = picture.channel_axis
    parts = [voxels.take(number, axis) if picture.split else voxels for number in range(count)]
    return [one or _range_of(part) for one, part in zip(limits, parts, strict=True)]


def _of_type(dtype: np.dtype[Any]) -> tuple[float, float]:
    if dtype.kind == "b":
        return 0.0, 1.0
    return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)


def _range_of(voxels: NDArray[Any]) -> tuple[float, float] | None:
    finite = voxels[np.isfinite(voxels)]
    if not finite.size:
        return None
    low, high = float(finite.min()), float(finite.max())
    # Further than the next number, also of a large one.
    return (low, high) if low < high else (low, low + max(1.0, abs(low) * 1e-6))
