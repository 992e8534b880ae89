"""OME-Zarr documents as values: what the JSON says, checked, with nothing opened.

Vectors have one entry per axis, in the order of the array's own dimensions. Coordinates are those of voxel centres:
`world = scale * index + translation`, in the unit of the axis (OME-Zarr 0.4 and 0.5, "multiscales").
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Axis:
    """One dimension of an image: its name and, where the file says so, its type and unit."""

    name: str
    #: `space`, `time`, `channel` or a type of the writer's own.
    type: str | None = None
    #: UDUNITS-2 name such as `nanometer`.
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """Contrast limits of a channel: `min`..`max` is what the data can be, `start`..`end` what is shown."""

    min: float
    max: float
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Channel:
    """How one channel wants to be shown (`omero.channels`)."""

    label: str | None = None
    #: Six hexadecimal digits, red first, no `#`.
    color: str | None = None
    window: Window | None = None
    active: bool = True


@dataclass(frozen=True, slots=True)
class Dataset:
    """One resolution: where its array lies, relative to the group, and how its voxels lie in the world."""

    path: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Multiscale:
    """An image as its group describes it: resolutions from fine to coarse, in the order of the file."""

    #: OME-Zarr version as the file spells it, or the one its layout belongs to.
    version: str
    name: str | None
    axes: tuple[Axis, ...]
    datasets: tuple[Dataset, ...]
    channels: tuple[Channel, ...] = ()
    #: Whether the group carries `image-label`: the voxels are names of objects, not intensities.
    is_label: bool = False
    #: Colours that the file gives to labels: red, green, blue, alpha, 0 to 255.
    label_colors: tuple[tuple[int, tuple[int, int, int, int]], ...] = ()
    #: Scale of mag 1, where the format says it apart from the datasets: the finest may not be among them.
    voxel: tuple[float, ...] | None = None
    #: Mags that lie where this source does not reach: (name, place without secrets). They are no datasets.
    elsewhere: tuple[tuple[str, str], ...] = ()
