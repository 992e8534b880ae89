"""The type, the filters and the fill value of an HDF5 dataset -> members of a Zarr v2 document.

What libhdf5 would have to convert is refused by name: chunks are decoded without it. Sources: HDF5 File Format
Specification 3.0, IV.A.2.d "Datatype", IV.A.2.f "Fill Value", IV.A.2.l "Filter Pipeline"; the registry of filters of
the HDF Group; h5py's spelling of booleans and complex numbers.
"""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from voxfetch.errors import UnsupportedError
from voxfetch.formats.hdf5.library import library

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["codecs", "element", "fill_value"]

#: Words of the `dtype` member: a string, or the fields of a structure.
Spelling = str | list[Any]

_MAX_FIELDS = 1000
_MAX_DEPTH = 8
_ORDERS = {0: "<", 1: ">"}
_FLOATS = {"IEEE_F16": "f2", "IEEE_F32": "f4", "IEEE_F64": "f8"}
# Filters whose values say nothing that is needed to read, by number.
_PLAIN = {1: "zlib", 3: "fletcher32", 307: "bz2", 32000: "hdf5_lzf", 32001: "blosc", 32004: "hdf5_lz4", 32015: "zstd"}
# Compressors of the bitshuffle filter, by its fifth value.
_BITSHUFFLED = {0: "none", 2: "lz4", 3: "zstd"}
# Filters that are not read, by number: what people call them.
_REFUSED = {
    4: "szip",
    5: "n-bit",
    6: "scale-offset of floating point numbers",
    305: "LZO",
    32003: "Snappy",
    32010: "VBZ",
    32013: "ZFP",
    32017: "SZ",
    32018: "FCIDECOMP",
    32019: "JPEG",
    32024: "SZ3",
    32026: "Blosc2",
    32028: "SPERR",
}
_REPACK = "repack the file: h5repack -f SHUF -f GZIP=4 old.h5 new.h5"


def element(tid: Any, what: str) -> tuple[Spelling, tuple[int, ...]]:
    """Returns the `dtype` of an element of a dataset, and the axes that an element has itself (types "array").

    `tid` is the `h5py.h5t.TypeID` of the file, `what` names the dataset. Raises `UnsupportedError`.
    """
    if tid.get_class() == library().h5t.ARRAY:
        inner, axes = element(tid.get_super(), what)
        return inner, (*map(int, tid.get_array_dims()), *axes)
    return _spelling(tid, what, 0), ()


def _spelling(tid: Any, what: str, depth: int) -> Spelling:
    h5t = library().h5t
    kind, nbytes = tid.get_class(), int(tid.get_size())
    if kind == h5t.ENUM:
        return "|b1" if tid.dtype == np.dtype(bool) else _spelling(tid.get_super(), what, depth)
    if kind in (h5t.INTEGER, h5t.BITFIELD):
        return _integer(tid, nbytes, what)
    if kind == h5t.FLOAT:
        return _float(tid, what)
    if kind == h5t.STRING:
        if tid.is_variable_str():
            raise _refused("strings of variable length", what, "write them with a fixed length")
        return f"|S{nbytes}"
    if kind == h5t.OPAQUE:
        # h5py keeps dates of numpy like this.
        return tid.dtype.str if tid.dtype.kind in "Mm" else f"|V{nbytes}"
    if kind == h5t.COMPOUND or tid.dtype.kind == "c":
        return _compound(tid, nbytes, what, depth)
    names = {h5t.VLEN: "sequences of variable length", h5t.REFERENCE: "references", h5t.TIME: "times of HDF5"}
    raise _refused(names.get(kind, f"elements of class {kind}"), what, None)


def _integer(tid: Any, nbytes: int, what: str) -> str:
    h5t = library().h5t
    if nbytes not in (1, 2, 4, 8) or tid.get_precision() != 8 * nbytes or tid.get_offset() != 0:
        raise _refused(f"integers of {tid.get_precision()} bits in {nbytes} bytes", what, "write them with all bits")
    signed = tid.get_class() == h5t.INTEGER and tid.get_sign() == h5t.SGN_2
    return f"{_order(tid, nbytes, what)}{'i' if signed else 'u'}{nbytes}"


def _float(tid: Any, what: str) -> str:
    h5t = library().h5t
    for name, spelling in _FLOATS.items():
        for suffix, order in (("LE", "<"), ("BE", ">")):
            if tid.equal(getattr(h5t, name + suffix)):
                return order + spelling
    message = f"floating point numbers of {tid.get_size()} bytes that are none of IEEE 754's"
    raise _refused(message, what, "write them as float32 or float64")


def _compound(tid: Any, nbytes: int, what: str, depth: int) -> Spelling:
    """A complex number (two floats, r and i), or a structure without gaps."""
    dtype = tid.dtype
    if dtype.kind == "c" and dtype.itemsize == nbytes:
        return dtype.str
    if tid.get_class() != library().h5t.COMPOUND:
        raise _refused("complex numbers that are no pairs of IEEE floats", what, None)
    members = int(tid.get_nmembers())
    if members > _MAX_FIELDS or depth >= _MAX_DEPTH:
        raise _refused(f"a structure of {members:,} fields, nested {depth} deep,", what, None)
    fields: list[Any] = []
    end = 0
    for i in range(members):
        member = tid.get_member_type(i)
        if tid.get_member_offset(i) != end:
            raise _refused("structures with gaps between their fields", what, "write them packed")
        end += int(member.get_size())
        name = tid.get_member_name(i).decode("utf-8", "replace")
        axes: tuple[int, ...] = ()
        if member.get_class() == library().h5t.ARRAY:
            inner, axes = element(member, what)
        else:
            inner = _spelling(member, what, depth + 1)
        fields.append([name, inner, list(axes)] if axes else [name, inner])
    if end != nbytes:
        raise _refused("structures with gaps between their fields", what, "write them packed")
    return fields


def _order(tid: Any, nbytes: int, what: str) -> str:
    order = _ORDERS.get(tid.get_order())
    if order is None:
        raise _refused("numbers in a byte order that is neither little nor big endian", what, None)
    return "|" if nbytes == 1 else order


def codecs(plist: Any, item_nbytes: int, what: str) -> list[dict[str, Any]]:
    """Returns the filters of a dataset in encoding order; the i-th is skipped for chunks with bit i of their mask.

    `plist` is its creation property list. Raises `UnsupportedError` for a filter that is not read.
    """
    found: list[dict[str, Any]] = []
    for i in range(plist.get_nfilters()):
        number, _, values, name = plist.get_filter(i)
        codec = _codec(number, values, item_nbytes, what)
        if codec is None:
            known = _REFUSED.get(number) or name.decode("utf-8", "replace")[:80] or "unknown"
            raise _refused(f"the filter {known} ({number})", what, _REPACK)
        found.append(codec)
    return found


def _codec(number: int, values: Sequence[int], item_nbytes: int, what: str) -> dict[str, Any] | None:
    if number in _PLAIN:
        return {"id": _PLAIN[number]}
    if number == 2:
        # Written by the library when the dataset is made; without it the element has its own size.
        return {"id": "shuffle", "elementsize": int(values[0]) if values else item_nbytes}
    if number == 6 and len(values) > 9 and values[0] == 2:
        # Kind, digits, elements of a chunk, class, bytes, sign, byte order, whether there is a fill value, its words.
        _, _, elements, _, size, _, order, has_fill, *words = (int(value) for value in values[:10])
        return {
            "id": "hdf5_scaleoffset",
            "elementsize": size,
            "elements": elements,
            "endian": "big" if order else "little",
            "fill": words[0] | words[1] << 32 if has_fill else None,
        }
    if number == 32008:
        size = int(values[2]) if len(values) > 2 else item_nbytes
        method = int(values[4]) if len(values) > 4 else 0
        if method not in _BITSHUFFLED:
            raise _refused(f"bitshuffle with the compressor {method}", what, _REPACK)
        return {"id": "hdf5_bitshuffle", "elementsize": size, "cname": _BITSHUFFLED[method]}
    return None


def fill_value(plist: Any, dtype: np.dtype[Any], what: str) -> Any:
    """Returns the `fill_value` member: zeros where the file leaves it undefined.

    `dtype` is h5py's for an element. Raises `UnsupportedError` for an element with axes whose values differ.
    """
    if plist.fill_value_defined() != library().h5d.FILL_VALUE_USER_DEFINED:
        return None
    value: np.ndarray[Any, np.dtype[Any]] = np.zeros((), dtype)
    plist.get_fill_value(value)
    if value.ndim:
        first = value.reshape(-1)[:1]
        if value.size and value.tobytes() != first.tobytes() * value.size:
            raise _refused("a fill value whose elements differ", what, None)
        value = first.reshape(())
    kind = value.dtype.kind
    if kind in "biu":
        return bool(value) if kind == "b" else int(value)
    if kind == "f":
        return _number(float(value))
    if kind == "c":
        number = complex(value)
        return [_number(number.real), _number(number.imag)]
    if kind in "Mm":
        return int(value.view("i8"))
    return base64.b64encode(value.tobytes()).decode()


def _number(value: float) -> float | str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _refused(found: str, what: str, hint: str | None) -> UnsupportedError:
    verb = "is" if found.startswith(("the ", "a ", "bitshuffle")) else "are"
    return UnsupportedError(f"{found} {verb} not read", key=what, hint=hint)
