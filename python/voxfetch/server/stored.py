"""How the chunks of a Zarr array are stored: its document goes in, and what a single chunk's bytes are comes out.

The inner chunk of a shard (Zarr v3, sharding_indexed 1.0) is a legal chunk of an array without shards: same codecs,
same extent. A chunk of Zarr v2 without filters is one of v3 and the other way round, where both have the codec. Such
chunks are served as they are. What cannot be described this way is None here, and is decoded and encoded again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    import numpy as np

    import voxfetch as vf

__all__ = ["Stored", "stored_form"]

_SHUFFLES = ("noshuffle", "shuffle", "bitshuffle")
_COMPRESSORS = ("blosc", "gzip", "zstd", "crc32c")


@dataclass(frozen=True, slots=True)
class Stored:
    """The bytes of a chunk: voxels in the order of `axes`, in byte order `endian`, through `codecs` one by one."""

    #: Extent of a chunk in voxels, stored axis order.
    chunks: tuple[int, ...]
    #: Axis k of what is written, slowest first, is this axis of the array.
    axes: tuple[int, ...]
    endian: str
    #: As in a document of Zarr v3, every setting spelt out; `zlib`, which only v2 has, among them.
    codecs: tuple[dict[str, Any], ...]

    def zarr3_codecs(self) -> list[dict[str, Any]] | None:
        """The codecs of a Zarr v3 document, None where v3 has no such codec."""
        if any(codec["name"] == "zlib" for codec in self.codecs):
            return None
        order = [] if self._is_c() else [_codec("transpose", order=list(self.axes))]
        return [*order, _codec("bytes", endian=self.endian), *self.codecs]

    def zarr2_layout(self) -> tuple[str, Literal["<", ">"], dict[str, Any] | None] | None:
        """(order, byte order, compressor) of a `.zarray`, None where v2 has no such chunks."""
        order = "C" if self._is_c() else "F"
        if len(self.codecs) > 1 or (order == "F" and self.axes != tuple(reversed(range(len(self.axes))))):
            return None
        compressor = None
        if self.codecs:
            name, settings = self.codecs[0]["name"], dict(self.codecs[0].get("configuration", {}))
            if name == "crc32c":
                return None
            if name == "blosc":
                settings = {key: settings[key] for key in ("cname", "clevel", "shuffle", "blocksize")}
                settings["shuffle"] = _SHUFFLES.index(settings["shuffle"])
            # A frame says itself whether it has a checksum, and readers of v2 know no such setting.
            settings.pop("checksum", None)
            compressor = {"id": name, **settings}
        return order, "<" if self.endian == "little" else ">", compressor

    def _is_c(self) -> bool:
        return self.axes == tuple(range(len(self.axes)))


def stored_form(array: vf.Array) -> Stored | None:
    """How the chunks of an array in stored axis order are stored; None where its format or codecs are of no use."""
    if array.format not in ("zarr3", "zarr2"):
        return None
    document = cast("dict[str, Any]", json.loads(array.document))
    parse = _zarr3 if array.format == "zarr3" else _zarr2
    found = parse(document, array.dtype)
    return found if found is not None and found.chunks == array.chunks else None


def _codec(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": name, "configuration": configuration} if configuration else {"name": name}


def _named(value: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(value, str):
        return value, {}
    return str(value["name"]), dict(value.get("configuration") or {})


def _zarr3(document: dict[str, Any], dtype: np.dtype[Any]) -> Stored | None:
    grid, settings = _named(document["chunk_grid"])
    if grid != "regular" or document.get("storage_transformers"):
        return None
    chunks = [int(extent) for extent in settings["chunk_shape"]]
    axes = tuple(range(len(chunks)))
    codecs = [_named(value) for value in document["codecs"]]
    while True:
        name, settings = codecs.pop(0)
        if name == "transpose" and isinstance(settings.get("order"), list):
            axes = tuple(axes[int(axis)] for axis in settings["order"])
        elif name == "sharding_indexed" and not codecs:
            for axis, extent in zip(axes, settings["chunk_shape"], strict=True):
                chunks[axis] = int(extent)
            codecs = [_named(value) for value in settings["codecs"]]
        elif name == "bytes":
            break
        else:
            return None
    if any(name not in _COMPRESSORS for name, _ in codecs):
        return None
    whole = tuple(_whole(name, given, dtype) for name, given in codecs)
    return Stored(tuple(chunks), axes, settings.get("endian", "little"), whole)


def _zarr2(document: dict[str, Any], dtype: np.dtype[Any]) -> Stored | None:
    described = document["dtype"]
    if document.get("filters") or not isinstance(described, str):
        return None
    chunks = tuple(int(extent) for extent in document["chunks"])
    axes = tuple(range(len(chunks)))
    codecs: tuple[dict[str, Any], ...] = ()
    if document.get("compressor") is not None:
        settings = dict(document["compressor"])
        name = str(settings.pop("id"))
        if name not in ("blosc", "gzip", "zstd", "zlib"):
            return None
        codecs = (_whole(name, settings, dtype),)
    order = axes if document.get("order", "C") == "C" else tuple(reversed(axes))
    return Stored(chunks, order, "big" if described[0] == ">" else "little", codecs)


def _whole(name: str, given: dict[str, Any], dtype: np.dtype[Any]) -> dict[str, Any]:
    """A codec with every setting that some reader insists on; none of them changes what is decoded.

    WEBKNOSSOS drops, without a word, a zstd without `level` and `checksum`, and a blosc without `blocksize`.
    """
    if name == "crc32c":
        return _codec(name)
    if name == "blosc":
        shuffle = given.get("shuffle", "noshuffle")
        if isinstance(shuffle, int):
            shuffle = _SHUFFLES[shuffle] if shuffle >= 0 else _SHUFFLES[2 if dtype.itemsize == 1 else 1]
        return _codec(
            name,
            typesize=max(int(given.get("typesize") or dtype.itemsize), 1),
            cname=given.get("cname", "lz4"),
            clevel=int(given.get("clevel", 5)),
            shuffle=shuffle,
            blocksize=int(given.get("blocksize") or 0),
        )
    level = given.get("level")
    if name == "zstd":
        return _codec(name, level=0 if level is None else int(level), checksum=bool(given.get("checksum", False)))
    # Java writes -1 for "the default", which is not a level of v3.
    return _codec(name, level=5 if level is None or not 0 <= int(level) <= 9 else int(level))
