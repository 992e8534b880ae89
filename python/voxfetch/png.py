"""A PNG from an array: the part of the format (W3C PNG, third edition) that a slice needs, and no more.

In go (rows, columns) grey voxels or (rows, columns, 3 or 4) colours; out comes a file.
For the command line and the server.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from typing import BinaryIO

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_SIDE = 2**31 - 1
_STRIP_BYTES = 4 << 20


def write_png(file: BinaryIO, image: np.ndarray[Any, Any], *, effort: int = 6) -> None:
    """Writes `image`: (rows, columns) uint8 or uint16 as grey, (rows, columns, 3) uint8 as RGB, (..., 4) as RGBA.

    `effort` is zlib's, 1 (fast) to 9 (small). Needs a few MiB beside the image.

    Raises:
        ValueError: another data type or shape, or a side that is empty or too long for the format.
    """
    colour_type = {(): 0, (3,): 2, (4,): 6}.get(image.shape[2:]) if image.ndim >= 2 else None
    allowed = (np.uint8, np.uint16) if colour_type == 0 else (np.uint8,)
    if colour_type is None or image.dtype not in allowed:
        raise ValueError(f"a PNG here is 2-D and uint8 or uint16, or uint8 colours, not {image.shape} {image.dtype}")
    rows, columns = image.shape[:2]
    if not (0 < rows <= _MAX_SIDE and 0 < columns <= _MAX_SIDE):
        raise ValueError(f"a PNG cannot have {rows} rows of {columns} voxels")
    file.write(_SIGNATURE)
    # Width, height, bit depth, colour type, compression, filter and interlace method.
    _chunk(file, b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8 * image.itemsize, colour_type, 0, 0, 0))
    compressor = zlib.compressobj(effort)
    row_bytes = image.nbytes // rows
    step = max(1, _STRIP_BYTES // row_bytes)
    for top in range(0, rows, step):
        strip = np.ascontiguousarray(image[top : top + step], dtype=f">u{image.itemsize}")
        # Every row begins with its filter type: 0, none.
        lines = np.zeros((strip.shape[0], 1 + row_bytes), np.uint8)
        lines[:, 1:] = strip.view(np.uint8).reshape(strip.shape[0], row_bytes)
        _chunk(file, b"IDAT", compressor.compress(lines.data))
    _chunk(file, b"IDAT", compressor.flush())
    _chunk(file, b"IEND", b"")


def _chunk(file: BinaryIO, kind: bytes, body: bytes) -> None:
    if body or kind == b"IEND":
        file.write(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))


def as_grey(image: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], tuple[float, float] | None]:
    """`image` as something a PNG can hold, and the range of values stretched over 0..255 if that was needed.

    uint8 and uint16 stay as they are. Anything else (bool and complex magnitudes too) is stretched from its least to
    its greatest finite value; what is not finite becomes 0.

    Raises:
        ValueError: values that have no order, such as text.
    """
    if image.dtype in (np.uint8, np.uint16):
        return image, None
    if image.dtype.kind in "mM":
        image = image.view(np.int64)
    if image.dtype.kind not in "biufc":
        raise ValueError(f"{image.dtype} has no shades of grey")
    numbers = np.abs(image) if image.dtype.kind == "c" else image
    values = numbers.astype(np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(image.shape, np.uint8), (0.0, 0.0)
    low, high = float(values[finite].min()), float(values[finite].max())
    span = high - low
    if span == 0 or not np.isfinite(span):
        return np.zeros(image.shape, np.uint8), (low, high)
    grey = np.zeros(image.shape, np.uint8)
    grey[finite] = np.rint((values[finite] - low) * (255 / span)).astype(np.uint8)
    return grey, (low, high)
