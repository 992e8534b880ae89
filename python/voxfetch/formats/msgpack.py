"""Values in msgpack, as frames of Blosc 2 have them: bytes -> plain Python values, within limits.

There are only so many values in all, and none is nested deeper than a document may be. Extension types, whose meaning
is the writer's, are an error. Source: msgpack specification (2013).
"""

from __future__ import annotations

import struct
from typing import Any

__all__ = ["MAX_VALUES", "Unpacker"]

_MAX_DEPTH = 64
MAX_VALUES = 1 << 16
"""Values that one `Unpacker` takes: a list of a byte takes some sixty in memory."""
#: First byte -> format of a number.
_NUMBERS = {
    0xCA: ">f",
    0xCB: ">d",
    0xCC: ">B",
    0xCD: ">H",
    0xCE: ">I",
    0xCF: ">Q",
    0xD0: ">b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}
#: First byte -> (kind, format of the length).
_SIZED = {
    0xC4: ("bytes", ">B"),
    0xC5: ("bytes", ">H"),
    0xC6: ("bytes", ">I"),
    0xD9: ("str", ">B"),
    0xDA: ("str", ">H"),
    0xDB: ("str", ">I"),
    0xDC: ("list", ">H"),
    0xDD: ("list", ">I"),
    0xDE: ("dict", ">H"),
    0xDF: ("dict", ">I"),
}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


class Unpacker:
    """Takes one value after the other off `data`, no more than `left`.

    What is not msgpack, or cut off, or more than that, is a `ValueError`.
    """

    def __init__(self, data: bytes | memoryview, at: int = 0, left: int = MAX_VALUES) -> None:
        self._data = data
        self.at = at
        self.left = left

    def value(self, depth: int = 0) -> Any:
        """Returns the next value: None, bool, int, float, str, bytes, list or dict."""
        self.left -= 1
        if self.left < 0:
            raise ValueError(f"too many values at byte {self.at}")
        first = self._take(1)[0]
        if first < 0x80 or first >= 0xE0:
            return first if first < 0x80 else first - 256
        if first < 0xC0:
            kind, count = ("dict", first & 15) if first < 0x90 else ("list", first & 15)
            return self._sized("str", first & 31, depth) if first >= 0xA0 else self._sized(kind, count, depth)
        if first in _CONSTANTS:
            return _CONSTANTS[first]
        if first in _NUMBERS:
            return self._number(_NUMBERS[first])
        if first in _SIZED:
            kind, length = _SIZED[first]
            return self._sized(kind, self._number(length), depth)
        raise ValueError(f"an extension, {first:#04x}, at byte {self.at - 1}")

    def _sized(self, kind: str, count: int, depth: int) -> Any:
        if kind == "bytes":
            return bytes(self._take(count))
        if kind == "str":
            return bytes(self._take(count)).decode()
        if depth == _MAX_DEPTH:
            raise ValueError(f"values nested more than {_MAX_DEPTH} deep")
        if kind == "list":
            return [self.value(depth + 1) for _ in range(count)]
        found: dict[Any, Any] = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if not isinstance(key, str):
                raise ValueError(f"a key that is no text at byte {self.at}")  # noqa: TRY004 - of the data
            found[key] = self.value(depth + 1)
        return found

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _take(self, count: int) -> bytes | memoryview:
        taken = self._data[self.at : self.at + count]
        if len(taken) < count:
            raise ValueError(f"{count} bytes at byte {self.at}, of {len(self._data)}")
        self.at += count
        return taken
