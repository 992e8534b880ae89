"""BossDB: the documents of a channel, its experiment and its coordinate frame -> the image that the channel is.

Each resolution is a level, an array with the axes (z, y, x), or (t, z, y, x) where the experiment has several time
samples, that begins where the coordinate frame does: `origin` says where, in voxels of the resolution. x and y halve
from one to the next, z only if the hierarchy is isotropic, for so are the cutouts that a server makes unless told
otherwise. Sources: the REST API of BossDB, version 1; `spdb` for the extents of the resolutions.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, cast

from voxfetch.documents import RemoteDocuments
from voxfetch.errors import MetadataError, NotFoundError, PermissionDeniedError, UnsupportedError
from voxfetch.ngff import Axis, Dataset, Multiscale
from voxfetch.node import Described, Node, known_child, parse_json
from voxfetch.store import join_key
from voxfetch.store.boss import BossStore
from voxfetch.store.cutouts import BLOCK, CUBOID, MAX_CUTOUT_NBYTES, Volume
from voxfetch.values import as_string, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from voxfetch.node import Settings
    from voxfetch.store import Store

__all__ = ["find"]

_ITEM_NBYTES = {"uint8": 1, "uint16": 2, "uint64": 8}
_MAX_RESOLUTIONS = 64
_MAX_EXTENT = 1 << 60
_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}


class _Document(NamedTuple):
    """A document of the server and where it lies."""

    members: Mapping[str, object]
    key: str

    def text(self, name: str) -> str:
        """A member that is a string."""
        return as_string(self.members.get(name), name, self.key)

    def integer(self, name: str, default: int | None = None, *, least: int = 0, most: int = _MAX_EXTENT) -> int:
        """A member that is an integer in a range."""
        value = self.members.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise MetadataError(f"{name}: expected {least} to {most}, found {shown(value)}", key=self.key)
        return value

    def size(self, name: str) -> float:
        """A member that is a positive number."""
        value = self.members.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
            raise MetadataError(f"{name}: expected a positive number, found {shown(value)}", key=self.key)
        return float(value)


class _Channel(NamedTuple):
    """A channel: its path, and what its three documents say."""

    path: str
    channel: _Document
    experiment: _Document
    frame: _Document

    @property
    def times(self) -> int:
        """Number of time samples, at least 1."""
        return self.experiment.integer("num_time_samples", 1, least=1)

    @property
    def axes(self) -> tuple[Axis, ...]:
        unit = _unit(self.frame.members.get("voxel_unit"))
        space = tuple(Axis(name, "space", unit) for name in "zyx")
        time = Axis("t", "time", _unit(self.experiment.members.get("time_step_unit")))
        return (time, *space) if self.times > 1 else space

    @property
    def dtype(self) -> str:
        """Name of the type of a voxel."""
        name = self.channel.text("datatype").lower()
        if name not in _ITEM_NBYTES:
            message = f"datatype: {shown(name)} is not one of {', '.join(_ITEM_NBYTES)}"
            raise UnsupportedError(message, key=self.channel.key)
        return name

    @property
    def resolutions(self) -> range:
        """Those that the server has."""
        base = self.channel.integer("base_resolution", 0, most=_MAX_RESOLUTIONS)
        return range(base, base + self.experiment.integer("num_hierarchy_levels", 1, least=1, most=_MAX_RESOLUTIONS))

    @property
    def written(self) -> range:
        """Those that hold voxels: for the others of a channel that was not downsampled the server sends zeros."""
        status = self.channel.members.get("downsample_status") or "DOWNSAMPLED"
        # Volumes in a bucket are written by other tools, which leave the status as it is.
        is_whole = str(status).upper() == "DOWNSAMPLED" or self.channel.members.get("storage_type") == "cloudvol"
        return self.resolutions if is_whole else self.resolutions[:1]

    def factors(self, resolution: int) -> tuple[int, int, int]:
        """Voxels of resolution 0 in a voxel of another, along z, y and x."""
        method = self.experiment.text("hierarchy_method").lower()
        if method not in ("isotropic", "anisotropic"):
            message = f"hierarchy_method: {shown(method)} is neither isotropic nor anisotropic"
            raise UnsupportedError(message, key=self.experiment.key)
        factor = 1 << resolution
        return factor if method == "isotropic" else 1, factor, factor

    def volume(self, resolution: int) -> Volume:
        box = [(0, self.times)]
        for name, factor in zip("zyx", self.factors(resolution), strict=True):
            start = self.frame.integer(f"{name}_start")
            stop = self.frame.integer(f"{name}_stop", least=start)
            box.append((start // factor, -(-stop // factor)))
        path = join_key(self.path, str(resolution))
        return Volume(path, tuple(box), _ITEM_NBYTES[self.dtype], self.times > 1)

    def dataset(self, resolution: int) -> Dataset:
        """How the voxels of a resolution lie in the world, by their centres; that of voxel 0 of the finest is 0."""
        box, factors = self.volume(resolution).box[1:], self.factors(resolution)
        sizes = [self.frame.size(f"{name}_voxel_size") for name in "zyx"]
        scale = [size * factor for size, factor in zip(sizes, factors, strict=True)]
        places = zip(sizes, factors, box, strict=True)
        translation = [size * (start * factor + (factor - 1) / 2) for size, factor, (start, _) in places]
        if self.times > 1:
            # Series of which nobody said how fast they are have none.
            step = self.experiment.size("time_step") if self.experiment.members.get("time_step") else 1.0
            scale, translation = [step, *scale], [0.0, *translation]
        return Dataset(str(resolution), tuple(scale), tuple(translation))

    def level(self, resolution: int) -> Described:
        """A resolution as the core reads it: cuboids are shards, which the store makes."""
        volume = self.volume(resolution)
        kept = slice(0 if volume.has_time else 1, None)
        box = volume.box[kept]
        codec = {
            "name": "sharding_indexed",
            "configuration": {"chunk_shape": list(BLOCK[kept]), "codecs": [_LITTLE], "index_codecs": [_LITTLE]},
        }
        document = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [end - start for start, end in box],
            "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(CUBOID[kept])}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0,
            "codecs": [codec],
            "dimension_names": [axis.name for axis in self.axes],
            "attributes": {"origin": [start for start, _ in box]},
        }
        return Described("bossdb", "array", document, {})


def find(store: Store, path: str, settings: Settings) -> Node | None:
    """Returns the channel at `collection/experiment/channel`, or with `/resolution` one resolution of it.

    Raises `NotFoundError`, `MetadataError`, `UnsupportedError`, `PermissionDeniedError`, `CredentialsError`,
    `StoreError`.
    """
    collection, experiment, channel, resolution, *more = *path.split("/"), *[""] * 3
    if not channel:
        raise _no_channel(store, path, collection, experiment)
    if any(more) or (resolution and not resolution.isdecimal()):
        raise NotFoundError("there is nothing below a channel but its resolutions", key=join_key(store.url, path))
    found = _channel(store, collection, experiment, channel)
    node = _node(store, found, settings)
    if not resolution:
        return node
    level = known_child(node, str(int(resolution)))
    if level is None:
        first, last = found.resolutions[0], found.resolutions[-1]
        message = f"the channel has no resolution {resolution[:20]}, but {first} to {last}"
        raise NotFoundError(message, key=join_key(store.url, path))
    return level


def _channel(store: Store, collection: str, experiment: str, channel: str) -> _Channel:
    above = f"collection/{collection}/experiment/{experiment}"
    documents = [
        _parsed(store, key, document)
        for key, document in _fetched(store, [f"{above}/channel/{channel}", above]).items()
    ]
    frame = f"coord/{documents[1].text('coord_frame')}"
    ((key, document),) = _fetched(store, [frame]).items()
    path = f"{collection}/{experiment}/{channel}"
    return _Channel(path, documents[0], documents[1], _parsed(store, key, document))


def _node(store: Store, found: _Channel, settings: Settings) -> Node:
    if not isinstance(store, RemoteDocuments) or not isinstance(store.remote, BossStore):
        raise UnsupportedError("BossDB is a server", key=store.url, hint="give bossdb://collection/experiment/channel")
    volumes = [found.volume(resolution) for resolution in found.resolutions]
    options, block_nbytes = settings.read_options, volumes[0].block_nbytes
    if options.max_gap_bytes is None:
        # Blocks between two that are needed would make the cutout larger, parts of blocks do not.
        options = replace(options, max_gap_bytes=block_nbytes - 1)
    if options.max_request_bytes is None:
        # A cuboid is one ask, as far as a cutout may hold it.
        nbytes = block_nbytes * math.prod(CUBOID) // math.prod(BLOCK)
        options = replace(options, max_request_bytes=min(nbytes, MAX_CUTOUT_NBYTES))
    documents = {"channel": found.channel, "experiment": found.experiment, "coord_frame": found.frame}
    attributes = {name: dict(document.members) for name, document in documents.items()}
    levels = tuple(found.dataset(resolution) for resolution in found.written)
    is_label = found.channel.members.get("type") == "annotation"
    return Node(
        store=store.of(store.remote.with_volumes(volumes)),
        path=found.path,
        format="bossdb",
        kind="group",
        document=json.dumps(attributes).encode(),
        attributes=attributes,
        consolidated={str(resolution): found.level(resolution) for resolution in found.resolutions},
        settings=replace(settings, read_options=options),
        multiscale=Multiscale("BossDB", found.path.rpartition("/")[2], found.axes, levels, is_label=is_label),
    )


def _fetched(store: Store, keys: list[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for key, document in zip(keys, store.get_many(keys), strict=True):
        if isinstance(document, PermissionDeniedError):
            raise document
        if document is None:
            what, _, name = key.rpartition("/")
            message = f"the server has no {what.rpartition('/')[2].replace('coord', 'coordinate frame')} {name!r}"
            raise NotFoundError(message, key=join_key(store.url, key), hint="check the spelling; case matters")
        found[key] = document
    return found


def _parsed(store: Store, key: str, document: bytes) -> _Document:
    place = join_key(store.url, key)
    return _Document(parse_json(document, place), place)


def _no_channel(store: Store, path: str, collection: str, experiment: str) -> MetadataError:
    """The error for the path of something else, which says what there is in it."""
    hint = "give bossdb://collection/experiment/channel"
    if collection:
        key = f"collection/{collection}" + (f"/experiment/{experiment}" if experiment else "")
        ((key, document),) = _fetched(store, [key]).items()
        kind = "channels" if experiment else "experiments"
        names = _parsed(store, key, document).members.get(kind)
        listed = [str(name) for name in cast("list[object]", names)] if isinstance(names, list) else []
        hint += f"; its {kind}: {', '.join(listed[:10])}" + (", ..." if len(listed) > 10 else "")
    return MetadataError("this is not the path of a channel", key=join_key(store.url, path), hint=hint)


def _unit(name: object) -> str | None:
    """UDUNITS-2 name of a unit that BossDB has in the plural."""
    return name.removesuffix("s") if isinstance(name, str) and name else None
