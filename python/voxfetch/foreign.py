"""Codecs that the core does not have and numcodecs has: found when an array is opened, decoded in Python.

Zarr v2 names them by numcodecs' own ids, Zarr v3 by `numcodecs.<id>`. The core calls a decoder on any of its threads,
with encoded bytes and the most bytes that it may return; what it returns is copied before the call ends.
"""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from voxfetch.errors import CodecError, MetadataError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    #: (encoded bytes, most bytes of the result) -> the result, an array of bytes.
    Decoder = Callable[[bytes, int], NDArray[np.uint8]]
    #: (name, settings as JSON, whether what it encodes are objects) -> (what decodes it, decoder), or None.
    Finder = Callable[[str, str, bool], tuple[str, Decoder] | None]

__all__ = ["as_bytes", "decoder", "numcodec", "short_name"]

# What numcodecs registers only where another package is installed, and the extra that brings it.
_EXTRAS = {"zfpy": "zfpy", "pcodec": "pcodec", "msgpack2": "msgpack"}
# Those that make objects; they are of use only where the elements are objects.
_OBJECT_CODECS = frozenset({"vlen-utf8", "vlen-bytes", "vlen-array", "json2", "msgpack2"})


def short_name(name: str, zarr: Literal["zarr2", "zarr3"]) -> str | None:
    """Returns the id by which numcodecs knows a codec of a document, None when it is no codec of its."""
    if zarr == "zarr2" or name in _OBJECT_CODECS or name.startswith("imagecodecs_"):
        return name
    return name.removeprefix("numcodecs.") if name.startswith("numcodecs.") else None


def numcodec(name: str, settings: str) -> tuple[str, Any]:
    """Returns what decodes a codec, for people to read, and numcodecs' codec object.

    Raises `UnsupportedError` where there is no such codec, or it would run code; `MetadataError` for wrong settings.
    """
    if name == "pickle":
        hint = "write the array again with vlen-utf8, vlen-bytes or json2"
        raise UnsupportedError("codec `pickle` runs code when it is decoded, and is not read", hint=hint)
    try:
        numcodecs = cast("Any", importlib.import_module("numcodecs"))
    except ImportError:
        message = f"codec `{name:.40}` is read through numcodecs, which is not installed"
        raise UnsupportedError(message, hint="pip install numcodecs") from None
    configuration = cast("dict[str, Any]", json.loads(settings)) | {"id": name}
    try:
        codec = numcodecs.get_codec(configuration)
    except Exception as error:  # noqa: BLE001 - of any package that registers a codec
        if "UnknownCodec" not in type(error).__name__ and "codec not available" not in str(error):
            message = f"codec `{name:.40}`: {type(error).__name__}: {str(error)[:200]}"
            raise MetadataError(message) from None
        message = f"codec `{name:.40}`: numcodecs {numcodecs.__version__} has none of this name"
        extra = _EXTRAS.get(name)
        hint = f'pip install "numcodecs[{extra}]"' if extra else "install and import the package that registers it"
        raise UnsupportedError(message, hint=hint) from None
    return f"through numcodecs {numcodecs.__version__}", codec


def decoder(codec: Any, order: Literal["A", "C"]) -> Decoder:
    """Returns the decoder of a codec object that decodes to bytes, or to an array that is its elements.

    `order` "C": elements of an array are wanted in C order and native byte order; "A": as they lie in memory.
    """

    def decode(encoded: bytes, most: int) -> NDArray[np.uint8]:
        del most  # the core sees to it
        return as_bytes(codec.decode(encoded), order)

    return decode


def as_bytes(result: object, order: Literal["A", "C"]) -> NDArray[np.uint8]:
    """Returns the bytes of what a codec decoded to. Raises `CodecError` for objects, `TypeError` for no buffer."""
    array = cast("Any", result if isinstance(result, np.ndarray) else np.asarray(memoryview(cast("Any", result))))
    if array.dtype.hasobject:
        raise CodecError("decodes to objects where bytes are expected")
    if order == "C":
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return array.reshape(-1, order=order).view(np.uint8)
