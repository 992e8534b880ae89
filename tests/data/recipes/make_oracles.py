"""Write ``tests/data/oracles/<collection>.json``: what every Zarr array of the collections holds, or why it is refused.

    python tests/data/recipes/make_oracles.py

The content comes from foreign readers, zarr-python and tensorstore; where both read an array they must agree, or this
script stops. What neither reads is left to zarrs (by way of zarrista). Which arrays voxfetch refuses, and with which
error, follows from the rules below, which state what this version promises: they do not ask voxfetch. Keys are the
paths of the array documents below ``tests/data`` (``zarr.json`` or ``.zarray``; some folders have both). Values are

    {"shape", "dtype", "sha256", "readers"}   to be read; sha256 of the C-order little-endian bytes of the whole array, of
                                              objects of what Python shows of them as a list
    {"refused", "names", "reason"}            class of the error, words of which the message has one, for people
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tensorstore as ts
import zarr
import zarrista
from zarrista.store import FilesystemStore

DATA = Path(__file__).resolve().parents[1]
COLLECTIONS = {
    "zarrs": ["zarrs"],
    "zarrita.js": ["zarrita.js"],
    "neuroglancer": ["neuroglancer"],
    "fib25": ["fib25", "ome-zarr-0.4", "zarr-v2", "webknossos"],
}

V3_TYPES = re.compile(
    r"bool|u?int(2|4|8|16|32|64)|b?float(16|32|64)|complex(64|128)|float[468]_\w+|r\d+|raw_bytes|null_terminated_bytes"
    r"|fixed_length_utf32|numpy\.(datetime|timedelta)64|struct(ured)?|string|bytes|variable_length_bytes|binary"
)
V3_CODECS = {
    "bytes",
    "transpose",
    "gzip",
    "zstd",
    "blosc",
    "crc32c",
    "sharding_indexed",
}
V3_CODECS |= {"packbits", "scale_offset", "cast_value", "bitround"}
V2_COMPRESSORS = {"blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "shuffle"}
V2_COMPRESSORS |= {"crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3"}
# Through numcodecs.
V2_COMPRESSORS |= {"pcodec", "zfpy"}
V2_FILTERS = V2_COMPRESSORS | {"delta", "fixedscaleoffset", "astype", "quantize", "bitround", "packbits"}
V3_CODECS |= {f"numcodecs.{name}" for name in V2_FILTERS}
V3_CODECS |= {"vlen-utf8", "vlen-bytes"}
V2_FILTERS |= {"vlen-utf8", "vlen-bytes"}
V2_TYPES = re.compile(r"[<>|]([biufcSUV]\d+|[mM]8\[.*\]|O)")


def array_documents(folder: Path) -> list[Path]:
    """Every array document under ``folder``, sorted."""
    found = list(folder.rglob(".zarray"))
    found += [path for path in folder.rglob("zarr.json") if json.loads(path.read_text())["node_type"] == "array"]
    return sorted(found)


def name_of(extension: str | dict) -> str:
    return extension if isinstance(extension, str) else extension["name"]


def v3_codecs(codecs: list) -> list[str]:
    """Names of the codecs, those inside of shards included."""
    names = []
    for codec in codecs:
        names.append(name_of(codec))
        if names[-1] == "sharding_indexed":
            names += v3_codecs(codec["configuration"]["codecs"]) + v3_codecs(codec["configuration"]["index_codecs"])
    return names


def refusal(document: dict) -> dict | None:
    """The reason for which this version does not read the array, None if it does."""
    reasons = []
    if document["zarr_format"] == 3:
        data_type = name_of(document["data_type"])
        if not V3_TYPES.fullmatch(data_type):
            reasons.append(("data type", data_type))
        reasons += [("codec", name) for name in v3_codecs(document["codecs"]) if name not in V3_CODECS]
    else:
        if not (isinstance(document["dtype"], str) and V2_TYPES.fullmatch(document["dtype"])):
            reasons.append(("data type", document["dtype"]))
        reasons += [("filter", each["id"]) for each in document["filters"] or [] if each["id"] not in V2_FILTERS]
        if document["compressor"] and document["compressor"]["id"] not in V2_COMPRESSORS:
            reasons.append(("compressor", document["compressor"]["id"]))
    if not reasons:
        return None
    return {
        "refused": "UnsupportedError",
        "names": [name for _, name in reasons],
        "reason": ", ".join(f"{kind} {name}" for kind, name in reasons),
    }


def with_zarr(path: Path, zarr_format: int) -> np.ndarray:
    return np.asarray(zarr.open_array(path, mode="r", zarr_format=zarr_format)[...])


def with_tensorstore(path: Path, zarr_format: int) -> np.ndarray:
    driver = {2: "zarr", 3: "zarr3"}[zarr_format]
    return ts.open({"driver": driver, "kvstore": {"driver": "file", "path": str(path)}}).result().read().result()


def with_zarrista(path: Path, _zarr_format: int) -> np.ndarray:
    array = zarrista.Array.open(FilesystemStore(str(path)))
    return np.asarray(array.retrieve_array_subset(tuple(slice(0, extent) for extent in array.shape)))


READERS = {
    f"zarr-python {version('zarr')}": with_zarr,
    f"tensorstore {version('tensorstore')}": with_tensorstore,
}
LAST_READER = {f"zarrista {version('zarrista')}": with_zarrista}


def little_endian(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind in "OT":
        return array.astype(object)
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).reshape(array.shape)


def as_bytes(array: np.ndarray) -> bytes:
    return repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes()


def content(path: Path, zarr_format: int) -> dict:
    """Shape, type and hash of the array, by every reader that opens it."""
    answers, failures = {}, {}
    for reader, read in (READERS | LAST_READER).items():
        if answers and reader in LAST_READER:
            continue
        try:
            answers[reader] = little_endian(read(path, zarr_format))
        except Exception as error:  # noqa: BLE001  a peer's failure is a fact to print
            failures[reader] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    for reader, failure in failures.items():
        print(
            f"{path.relative_to(DATA)}: {reader} does not read it: {failure}",
            file=sys.stderr,
        )
    if not answers:
        message = f"{path}: nobody reads it"
        raise RuntimeError(message)
    hashes = {hashlib.sha256(as_bytes(answer)).hexdigest() for answer in answers.values()}
    if len(hashes) > 1:
        message = f"{path}: the readers disagree: {answers}"
        raise RuntimeError(message)
    first = next(iter(answers.values()))
    return {
        "shape": list(first.shape),
        "dtype": first.dtype.str,
        "sha256": hashes.pop(),
        "readers": list(answers),
    }


def main() -> None:
    # zarr-python warns of types without a specification and of folders with two formats.
    warnings.simplefilter("ignore")
    for collection, folders in COLLECTIONS.items():
        rows = {}
        for folder in folders:
            for document_path in array_documents(DATA / folder):
                document = json.loads(document_path.read_text())
                key = document_path.relative_to(DATA).as_posix()
                rows[key] = refusal(document) or content(document_path.parent, document["zarr_format"])
        lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(row)}" for key, row in rows.items())
        (DATA / "oracles" / f"{collection}.json").write_text("{\n" + lines + "\n}\n")
        refused = sum("refused" in row for row in rows.values())
        print(f"{collection}: {len(rows)} arrays, {len(rows) - refused} to be read, {refused} refused")


if __name__ == "__main__":
    main()
