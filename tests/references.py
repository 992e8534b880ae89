"""Makes references: with kerchunk, of files that h5py wrote, and by hand, of Zarr arrays whose objects are one blob."""

from __future__ import annotations

import json

import h5py
import kerchunk.hdf
import numpy as np

BASE64 = "base64:"


def write_hdf5(path, make_values):
    """Writes a file with arrays of many kinds; returns name -> voxels."""
    expected = {
        "volume": make_values((20, 31, 17), "uint16", 1),
        "big": make_values((13, 9), ">i4", 2),
        "deep/er/floats": make_values((40, 12), "float64", 3),
        "contiguous": make_values((11, 7), "float32", 4),
        "short": make_values((6,), "int16", 5),
        "single": make_values((), "int64", 6),
    }
    chunks = {"volume": (8, 16, 10), "big": (5, 4), "deep/er/floats": (16, 5), "short": (2,)}
    with h5py.File(path, "w") as file:
        file.attrs["what"] = "a test"
        for name, values in expected.items():
            file.create_dataset(name, data=values, chunks=chunks.get(name))
        file["volume"].attrs["unit"] = "nm"
        holes = file.create_dataset("holes", (64, 64), "uint8", chunks=(16, 16), fillvalue=9)
        holes[20:40, 3:50] = 1
        expected["holes"] = holes[...]
    return expected


def of_hdf5(path, url=None, inline=30):
    """References of kerchunk to a file, which they call `url`."""
    found = kerchunk.hdf.SingleHdf5ToZarr(str(path), inline_threshold=inline).translate()
    for value in found["refs"].values():
        if isinstance(value, list):
            value[0] = value[0] if url is None else url
    return found


def of_folder(folder, blob, *, gap=b"gap", whole=()):
    """References (version 0) to the objects of a Zarr folder, all in one blob: (references, bytes of the blob).

    Documents are inline. Keys in `whole` are references to whole objects, `KEY.bin` beside the document.
    """
    data, found = bytearray(b"head"), {}
    for path in sorted(folder.rglob("*"), key=lambda path: path.name):
        if not path.is_file():
            continue
        key, body = path.relative_to(folder).as_posix(), path.read_bytes()
        if path.name in ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"):
            found[key] = json.loads(body)
        elif key in whole:
            found[key] = [f"{key}.bin"]
        else:
            found[key] = [blob, len(data), len(body)]
            data += body + gap
    return found, bytes(data)


def written(folder, references, **objects):
    """Writes the document `refs.json`, and objects beside it; returns its path."""
    folder.mkdir(exist_ok=True)
    path = folder / "refs.json"
    path.write_text(json.dumps(references))
    for name, body in objects.items():
        (folder / name).write_bytes(body)
    return path


def flat(values, dtype="|u1", chunks=None):
    """The documents of an array without codecs, as references."""
    shape = list(np.shape(values))
    return {
        ".zarray": {
            "zarr_format": 2,
            "shape": shape,
            "chunks": shape if chunks is None else list(chunks),
            "dtype": dtype,
            "compressor": None,
            "fill_value": 0,
            "filters": None,
            "order": "C",
        }
    }
