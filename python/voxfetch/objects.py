"""Elements of no fixed size: strings, bytes and other objects, which the core handles as numbers.

The numbers of a chunk are made when it is decoded, and stand for objects of one read: each read has a table of its own,
which goes when its result is made. Number 0 is the fill value.

Sources: Zarr v3 extensions, codecs `vlen-utf8` and `vlen-bytes`; numcodecs, codecs of the same names and `vlen-array`.
"""

from __future__ import annotations

import itertools
import json
import math
import struct
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from voxfetch.errors import CodecError, MetadataError, UnsupportedError
from voxfetch.foreign import decoder, numcodec, short_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from voxfetch.foreign import Decoder, Finder

__all__ = ["Objects", "finder"]

_LENGTH = struct.Struct("<I")
# A number is that of a chunk and that of an element in it.
_ELEMENT_BITS = 32
_ELEMENT_MASK = (1 << _ELEMENT_BITS) - 1


class Objects:
    """The objects that one read decodes, chunk by chunk, from any number of threads.

    Takes no lock: a fork would leave it locked in the child.
    """

    def __init__(self, *, keeps: bool = True) -> None:
        """`keeps`: False for a read that only checks."""
        self._keeps = keeps
        self._next = itertools.count(1)
        self._chunks: dict[int, NDArray[Any]] = {}

    def add(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Takes the objects of a chunk (1-D); returns their numbers, 8 bytes each."""
        chunk = next(self._next) if self._keeps else 0
        if self._keeps:
            self._chunks[chunk] = values
        return (np.arange(len(values), dtype=np.uint64) | np.uint64(chunk << _ELEMENT_BITS)).view(np.uint8)

    def of(self, numbers: NDArray[np.uint64], fill: object) -> NDArray[Any]:
        """Returns the objects that numbers stand for, in an array of their shape and memory order."""
        first = np.empty(1, object)
        first[0] = fill
        chunks = sorted(self._chunks.items())
        values = np.concatenate([first, *(chunk for _, chunk in chunks)])
        starts = np.zeros(1 + max(self._chunks, default=0), np.int64)
        starts[[number for number, _ in chunks]] = np.cumsum([1, *(len(chunk) for _, chunk in chunks)])[:-1]
        order = "F" if numbers.flags.f_contiguous else "C"
        flat = numbers.reshape(-1, order=order)
        places = starts[flat >> _ELEMENT_BITS] + (flat & _ELEMENT_MASK).astype(np.int64)
        return values[places].reshape(numbers.shape, order=order)


def finder(zarr: Literal["zarr2", "zarr3"], objects: Objects) -> Finder:
    """Returns what finds the codecs of an array that the core does not have. Objects go to `objects`.

    The function raises `UnsupportedError` for a codec that is not read, `MetadataError` for wrong settings.
    """

    def find(name: str, settings: str, is_first_of_objects: bool) -> tuple[str, Decoder] | None:  # noqa: FBT001 - called by the core
        short = short_name(name, zarr)
        if short is None:
            return None
        if is_first_of_objects:
            return _object_decoder(short, settings, objects)
        if short.startswith("vlen-"):
            raise MetadataError(f"codec `{name}` encodes elements of no fixed size; those of this array are not")
        through, codec = numcodec(short, settings)
        return through, decoder(codec, "A" if zarr == "zarr2" else "C")

    return find


def _object_decoder(name: str, settings: str, objects: Objects) -> tuple[str, Decoder]:
    if name in ("vlen-utf8", "vlen-bytes", "vlen-array"):
        element = _element(name, settings)
        return "in Python", lambda encoded, most: objects.add(_parse_vlen(encoded, most // 8, element))
    through, codec = numcodec(name, settings)

    def decode(encoded: bytes, most: int) -> NDArray[np.uint8]:
        _check_envelope(name, codec, encoded, most // 8)
        values = codec.decode(encoded)
        if not isinstance(values, np.ndarray) or cast("NDArray[Any]", values).dtype != object:
            raise CodecError("decodes to something else than an array of objects")
        if values.size != most // 8:
            raise CodecError(f"{values.size} elements, expected {most // 8}")
        return objects.add(cast("NDArray[Any]", values).reshape(-1, order="A"))

    return through, decode


def _check_envelope(name: str, codec: Any, encoded: bytes, count: int) -> None:
    """Raises `CodecError` where `json2` and `msgpack2` would make an array of another size, however large, of a chunk.

    Both are a list: the elements, the data type and the shape, which numcodecs believes.
    """
    items: Any = None
    if name == "json2":
        items = json.loads(bytes(encoded).decode(codec.get_config()["encoding"]))
    elif name == "msgpack2":
        items = cast("Any", import_module("msgpack")).unpackb(encoded, raw=codec.raw)
    else:
        return
    found = cast("list[Any]", items) if isinstance(items, list) else []
    dtype, shape = found[-2:] if len(found) > 1 else (None, None)
    sizes: list[Any] = cast("list[Any]", shape) if isinstance(shape, list) else [-1]
    is_shape = all(type(size) is int and size >= 0 for size in sizes)
    is_whole = len(found) - 2 == (sizes[0] if sizes else 1)
    if dtype not in ("|O", b"|O") or not is_shape or not is_whole or math.prod(sizes) != count:
        raise CodecError(f"not {count} objects")


def _element(name: str, settings: str) -> Callable[[bytes], object]:
    """What makes an object of its bytes."""
    if name == "vlen-utf8":
        return lambda stored: str(stored, "utf-8")
    if name == "vlen-bytes":
        return lambda stored: stored
    try:
        dtype = np.dtype(json.loads(settings)["dtype"])
    except (KeyError, TypeError, ValueError) as error:
        raise MetadataError(f"codec `vlen-array`: dtype: {str(error)[:200]}") from None
    if dtype.hasobject or not dtype.itemsize:
        raise UnsupportedError(f"codec `vlen-array` of {dtype}")
    return lambda stored: np.frombuffer(stored, dtype).copy()


def _parse_vlen(encoded: bytes, count: int, element: Callable[[bytes], object]) -> NDArray[Any]:
    """Parses a number of elements, and of each the number of its bytes and these. Raises `CodecError`."""
    end = len(encoded)
    stored = _LENGTH.unpack_from(encoded)[0] if end >= _LENGTH.size else 0
    if stored != count or end < _LENGTH.size * (1 + count):
        raise CodecError(f"{stored} elements in {end} bytes, expected {count}")
    values = np.empty(count, object)
    place = _LENGTH.size
    for number in range(count):
        start = place + _LENGTH.size
        nbytes = _LENGTH.unpack_from(encoded, place)[0] if start <= end else 0
        place = start + nbytes
        if place > end:
            raise CodecError(f"element {number} of {nbytes} bytes ends at byte {place} of {end}")
        values[number] = element(encoded[start:place])
    if place != end:
        raise CodecError(f"{end - place} bytes after the last element")
    return values
