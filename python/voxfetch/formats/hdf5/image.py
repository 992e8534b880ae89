"""Images in HDF5 files: Imaris and BigDataViewer. What an open file holds at a path in, `Multiscale` out.

Axes are z, y, x as stored; each channel and time point is an image of its own.

- Imaris: `DataSet/ResolutionLevel r/TimePoint t/Channel c/Data`, padded to whole chunks; the size is in attributes of
  the channel, the edges of the image in the world are those of `DataSetInfo/Image`. The image is the group of the
  channel in `ResolutionLevel 0`, and the file where it has one only.
- BigDataViewer: `t00000/s00/k/cells`, with the factors of the levels, x first, in `s00/resolutions`. The image is the
  group `t00000/s00`, and the file where it has one only. The voxels of level 0 are in the XML beside the file; its
  transforms are for display and not applied. Levels are averages: one with factor f begins (f - 1) / 2 voxels after
  level 0. Java has no unsigned types: `int16` means `uint16`, or what `dataType` says.

Sources: "Imaris 5.5 File Format" (Bitplane); "BigDataViewer HDF5 format" and its loader.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree as ET

from voxfetch.errors import MetadataError, VoxfetchError
from voxfetch.formats.hdf5.library import library
from voxfetch.formats.hdf5.values import FAILURES, numbers, text
from voxfetch.ngff import Axis, Channel, Dataset, Multiscale

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxfetch.formats.hdf5.file import Hdf5File, Opened
    from voxfetch.formats.hdf5.types import Spelling

__all__ = ["image_at", "meant_shape", "meant_type"]

_MAX_LEVELS = 64
_MAX_SMALL_NBYTES = 64 << 10
_CHANNEL = re.compile(r"DataSet/ResolutionLevel 0/TimePoint ([0-9]+)/Channel ([0-9]+)")
_DATA = re.compile(r"DataSet/ResolutionLevel [0-9]+/TimePoint [0-9]+/Channel [0-9]+/Data")
_SETUP = re.compile(r"t([0-9]+)/s([0-9]+)")
_CELLS = re.compile(r"t[0-9]+/(s[0-9]+)/[0-9]+/cells")
_UNITS = {
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns", "micrometer", "micrometre"), "micrometer"),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), "nanometer"),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), "millimeter"),
    **dict.fromkeys(("m", "meter", "metre"), "meter"),
    **dict.fromkeys(("", "pixel", "pixels", "px", "voxel"), None),
}


def image_at(opened: Opened, file: Hdf5File, path: str) -> Multiscale | None:
    """Returns the image that the group at a path is, None when it is none. Raises `MetadataError`."""
    if path == "":
        path = _only_image(opened.root)
    if (match := _CHANNEL.fullmatch(path)) is not None and _group(opened.root, "DataSetInfo/Image") is not None:
        return _imaris(opened.root, int(match[1]), int(match[2]), file.place)
    if (match := _SETUP.fullmatch(path)) is not None:
        return _viewer(opened.root, path, match[2], file)
    return None


def meant_shape(opened: Opened, path: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the shape of a dataset without the padding that Imaris adds to it."""
    stored = tuple(map(int, shape))
    if len(stored) != 3 or _DATA.fullmatch(path) is None:
        return stored
    channel = opened.root[path.rpartition("/")[0]]
    sizes = [_whole(channel, f"ImageSize{axis}") for axis in "ZYX"]
    if any(size is None or not 0 < size <= most for size, most in zip(sizes, stored, strict=True)):
        return stored
    return tuple(size for size in sizes if size is not None)


def meant_type(opened: Opened, path: str, stored: Spelling) -> Spelling:
    """Returns the type of a dataset as BigDataViewer takes it: unsigned."""
    match = _CELLS.fullmatch(path)
    if match is None or not isinstance(stored, str) or stored[1:2] != "i" or _factors(opened.root, match[1]) is None:
        return stored
    said = opened.root[match[1]].attrs.get("dataType")
    unsigned = f"uint{8 * int(stored[2:])}"
    named = stored[2:] == "2" if said is None else text(said) == unsigned
    return f"{stored[0]}u{stored[2:]}" if named else stored


def _only_image(root: Any) -> str:
    """The path of the image in a file that has one only, "" else."""
    for levels in ("DataSet/ResolutionLevel 0", ""):
        group = root if levels == "" else _group(root, levels)
        times = [] if group is None else [name for name in group if re.fullmatch(r"TimePoint [0-9]+|t[0-9]+", name)]
        if len(times) == 1:
            time = _group(group, times[0])
            names = [] if time is None else [name for name in time if re.fullmatch(r"Channel [0-9]+|s[0-9]+", name)]
            if len(names) == 1:
                return f"{levels}/{times[0]}/{names[0]}".lstrip("/")
    return ""


def _group(group: Any, path: str) -> Any:
    """A group below another; None where there is none, or only by a link, which may lead anywhere."""
    h5py = library()
    for name in path.split("/"):
        if not isinstance(group, h5py.Group) or not isinstance(group.get(name, getlink=True), h5py.HardLink):
            return None
        group = group[name]
    return group if isinstance(group, h5py.Group) else None


def _small_dataset(group: Any, name: str) -> Any:
    """A dataset in a group, None where there is none that h5py may read.

    Links, external storage and virtual datasets lead to any file of the reader's; chunks of any size into any memory.
    """
    h5py = library()
    if group is None or not isinstance(group.get(name, getlink=True), h5py.HardLink):
        return None
    found = group[name]
    if not isinstance(found, h5py.Dataset):
        return None
    plist = found.id.get_create_plist()
    if plist.get_layout() == h5py.h5d.VIRTUAL or plist.get_external_count():
        return None
    return found if found.id.get_storage_size() <= _MAX_SMALL_NBYTES else None


# --- Imaris -------------------------------------------------------------------------------------------------------


def _imaris(root: Any, time: int, channel: int, key: str) -> Multiscale:
    about = _group(root, "DataSetInfo/Image")
    edges = [(_real(about, f"ExtMin{axis}"), _real(about, f"ExtMax{axis}")) for axis in (2, 1, 0)]
    datasets: list[Dataset] = []
    for level in range(_MAX_LEVELS):
        place = f"DataSet/ResolutionLevel {level}/TimePoint {time}/Channel {channel}"
        group = _group(root, place)
        if group is None:
            break
        sizes = [_whole(group, f"ImageSize{axis}") for axis in "ZYX"]
        datasets.append(_imaris_level(f"/{place}/Data", sizes, edges, key))
    unit = _UNITS.get(text(about.attrs.get("Unit", "")).strip().lower())
    axes = tuple(Axis(name, "space", unit) for name in "zyx")
    shown = _imaris_channel(_group(root, f"DataSetInfo/Channel {channel}"))
    name = text(about.attrs.get("Name", "")).strip() or None
    return Multiscale("Imaris", name, axes, tuple(datasets), channels=shown)


def _imaris_level(
    path: str, sizes: Sequence[int | None], edges: Sequence[tuple[float | None, float | None]], key: str
) -> Dataset:
    """Index 0 is the voxel at the lower edge; where there are no edges, voxels are 1 wide."""
    scale: list[float] = []
    translation: list[float] = []
    for size, (low, high) in zip(sizes, edges, strict=True):
        if size is None or size <= 0:
            raise MetadataError(f"{path}: the group of the channel has no ImageSizeX, Y and Z", key=key)
        step = 1.0 if low is None or high is None or high <= low else (high - low) / size
        scale.append(step)
        translation.append(0.0 if low is None or high is None or high <= low else low + step / 2)
    return Dataset(path, tuple(scale), tuple(translation))


def _imaris_channel(about: Any) -> tuple[Channel, ...]:
    if about is None:
        return ()
    parts = numbers(text(about.attrs.get("Color", "")).split(), 3)
    colour = None
    if parts is not None and all(0 <= part <= 1 for part in parts):
        colour = "".join(f"{round(255 * part):02X}" for part in parts)
    return (Channel(label=text(about.attrs.get("Name", "")).strip() or None, color=colour),)


def _real(group: Any, name: str) -> float | None:
    found = numbers([text(group.attrs.get(name, ""))], 1)
    return None if found is None else found[0]


def _whole(group: Any, name: str) -> int | None:
    found = _real(group, name)
    return int(found) if found is not None and found == int(found) else None


# --- BigDataViewer ------------------------------------------------------------------------------------------------


class _Voxel(NamedTuple):
    """What the XML says of a setup: its name, the size of a voxel (x, y, z) and its unit."""

    name: str | None = None
    size: tuple[float, ...] = (1.0, 1.0, 1.0)
    unit: str | None = None


def _viewer(root: Any, path: str, setup: str, file: Hdf5File) -> Multiscale | None:
    factors = _factors(root, f"s{setup}")
    if factors is None:
        return None
    voxel = _voxel(file, int(setup))
    datasets: list[Dataset] = []
    for level, three in enumerate(factors):
        if _group(root, f"{path}/{level}") is None:
            break
        sizes = [size * factor for size, factor in zip(voxel.size, three, strict=True)]
        starts = [size * (factor - 1) / 2 for size, factor in zip(voxel.size, three, strict=True)]
        datasets.append(Dataset(f"/{path}/{level}/cells", tuple(sizes[::-1]), tuple(starts[::-1])))
    if not datasets:
        return None
    axes = tuple(Axis(name, "space", voxel.unit) for name in "zyx")
    return Multiscale("BigDataViewer HDF5", voxel.name, axes, tuple(datasets))


def _factors(root: Any, setup: str) -> list[list[float]] | None:
    """The factors of the levels of a setup (x, y, z), None where the file is none of BigDataViewer's."""
    found = _small_dataset(_group(root, setup), "resolutions")
    if found is None or len(found.shape or ()) != 2 or found.shape[1] != 3:
        return None
    if not 0 < found.shape[0] <= _MAX_LEVELS or found.dtype.kind not in "fiu":
        return None
    rows = [numbers(row, 3) for row in found[...]]
    factors = [row for row in rows if row is not None and min(row) > 0]
    return factors if len(factors) == len(rows) else None


def _voxel(file: Hdf5File, setup: int) -> _Voxel:
    """What the XML beside the file says; a broken one says nothing."""
    stem, dot, _ = file.key.rpartition(".")
    if not dot:
        return _Voxel()
    document = None
    with suppress(VoxfetchError):
        document = file.store.get(f"{stem}.xml")
    # Entities are how a small document becomes a large one, and nothing of BigDataViewer's needs them.
    if document is None or b"<!" in document.replace(b"<!--", b""):
        return _Voxel()
    with suppress(ET.ParseError, ValueError, *FAILURES):
        for one in ET.fromstring(document).iter("ViewSetup"):  # noqa: S314 - without entities
            if (one.findtext("id") or "").strip() == str(setup):
                sizes = numbers((one.findtext("voxelSize/size") or "").split(), 3)
                if sizes is None or min(sizes) <= 0:
                    break
                unit = (one.findtext("voxelSize/unit") or "").strip()
                name = (one.findtext("name") or "").strip() or None
                return _Voxel(name, tuple(sizes), _UNITS.get(unit.lower(), unit))
    return _Voxel()
