"""The foreign arrays of ``tests/data`` as one table: read and equal to the oracle, or refused with a typed error.

Each row states its expected outcome, so that a regression in either direction fails: an array no longer read, and one
that is suddenly read although this version does not promise it. Zarr arrays take their outcome from
``tests/data/oracles``, which foreign readers wrote (``data/recipes/make_oracles.py``). The encoded chunks of numcodecs
and c-blosc stand alone: a row wraps each into an array of one chunk, and their projects' decoded arrays are the oracle.

    python tests/test_corpora.py            run the table and print what differs
    python tests/test_corpora.py --write    the same, then write tests/corpora.md
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numcodecs
import numpy as np
import pytest

import voxfetch as vf

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).resolve().parent
DATA = TESTS / "data"
TABLE = TESTS / "corpora.md"
FILTERS = ("delta", "fixedscaleoffset", "packbits", "quantize")
COLLECTIONS = ("zarrs", "zarrita.js", "neuroglancer", "fib25", "numcodecs", "c-blosc")


@dataclass(frozen=True)
class Row:
    """One line of the table: a Zarr array, or a set of encoded chunks under ``path``."""

    collection: str
    path: str  # of the array's document, the codec's folder or the encoded chunk, relative to tests/data
    what: str  # type, shape and codecs, for people
    expected: dict  # a row of the oracles, or {"arrays": n}: so many chunks, all to be decoded
    readers: str  # who wrote the oracle

    @property
    def refused(self) -> str | None:
        """Name of the expected error, None for an array to be read."""
        return self.expected.get("refused")

    @property
    def count(self) -> int:
        """How many arrays stand behind the row."""
        return self.expected.get("arrays", 1)


# ---------------------------------------------------------------------------------------------------------- the table
def rows() -> list[Row]:
    """All rows, in the order of the table."""
    return [*zarr_rows(), *numcodecs_rows(), *blosc_rows()]


def zarr_rows() -> Iterator[Row]:
    for collection in COLLECTIONS[:4]:
        oracle = json.loads((DATA / "oracles" / f"{collection}.json").read_text(encoding="utf-8"))
        for path, expected in oracle.items():
            yield Row(
                collection,
                path,
                describe(DATA / path),
                expected,
                ", ".join(expected.get("readers", [])),
            )


def numcodecs_rows() -> Iterator[Row]:
    for config in sorted((DATA / "numcodecs").glob("*/codec.*/config.json")):
        arrays = len(list(config.parent.glob("encoded.*.dat")))
        text = json.dumps(json.loads(config.read_text(encoding="utf-8")), sort_keys=True)
        yield Row(
            "numcodecs",
            config.parent.relative_to(DATA).as_posix(),
            text,
            {"arrays": arrays},
            "numcodecs",
        )


def blosc_rows() -> Iterator[Row]:
    for chunk in sorted((DATA / "c-blosc").glob("*.cdata")):
        yield Row(
            "c-blosc",
            chunk.relative_to(DATA).as_posix(),
            "int32 (1000000,)",
            {"arrays": 1},
            "c-blosc",
        )


def describe(path: Path) -> str:
    """Type, shape and codecs of an array document in a few words."""
    document = json.loads(path.read_text(encoding="utf-8"))
    shape = tuple(document["shape"])
    if document["zarr_format"] == 3:
        return f"v3 {name_of(document['data_type'])} {shape} {codec_names(document['codecs'])}"
    codecs = [each["id"] for each in [*(document["filters"] or []), document["compressor"]] if each]
    return f"v2 {document['dtype']} {shape} {document['order']} {', '.join(codecs) or 'raw'}"


def codec_names(codecs: list) -> str:
    """The codecs of a v3 array, those inside of a shard in brackets."""
    names = []
    for codec in codecs:
        name = name_of(codec)
        names.append(f"{name}[{codec_names(codec['configuration']['codecs'])}]" if name == "sharding_indexed" else name)
    return ", ".join(names)


def name_of(extension: str | dict) -> str:
    return extension if isinstance(extension, str) else extension["name"]


# ------------------------------------------------------------------------------------------------------ running a row
def check(row: Row, scratch: Path) -> None:
    """Raise AssertionError unless the outcome of ``row`` is the expected one; ``scratch`` is an empty folder."""
    if row.collection == "numcodecs":
        check_numcodecs(DATA / row.path, scratch)
    elif row.collection == "c-blosc":
        check_blosc(DATA / row.path, scratch)
    elif row.refused:
        check_refused(row)
    else:
        check_read(row)


def open_document(path: Path) -> vf.Array:
    """Open the array of one document; the format is named only where a folder has documents of two formats."""
    folder = path.parent
    if path.name == ".zarray" and (folder / "zarr.json").exists():
        return vf.open_array(folder, format="zarr2")
    return vf.open_array(folder)


def check_read(row: Row) -> None:
    array = open_document(DATA / row.path)
    dtype = np.dtype(row.expected["dtype"]).newbyteorder("=")
    assert array.shape == tuple(row.expected["shape"])
    assert array.dtype == dtype
    content = np.asarray(array[...])
    assert content.shape == array.shape
    assert content.dtype == dtype
    assert sha256(content) == row.expected["sha256"]
    # A box off the chunk grid in every axis must hold what the whole array holds there.
    box = tuple(slice(n // 3, n // 3 + max(1, n // 2)) for n in array.shape)
    assert sha256(np.asarray(array[box])) == sha256(content[box])


def check_refused(row: Row) -> None:
    with pytest.raises(getattr(vf, row.refused)) as caught:
        open_document(DATA / row.path)
    assert type(caught.value).__name__ == row.refused
    message = str(caught.value)
    assert any(name in message for name in row.expected["names"]), message
    assert str(caught.value.key).endswith(row.path)


def check_numcodecs(folder: Path, scratch: Path) -> None:
    """Decode every ``encoded.NN.dat`` of a codec's configuration and compare with ``array.NN.npy``."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for encoded in sorted(folder.glob("encoded.*.dat")):
        number = encoded.name.split(".")[1]
        expected = np.load(folder.parent / f"array.{number}.npy")
        path = scratch / number
        if config["id"] in ("fixedscaleoffset", "quantize"):  # what they lose they have lost: numcodecs has the rest
            decoded = numcodecs.get_codec(config).decode(encoded.read_bytes())
            expected = np.asarray(decoded).reshape(expected.shape, order="A" if expected.flags.c_contiguous else "F")
        if config["id"] == "crc32c":  # never a v2 compressor: as bytes in a v3 array
            expected = np.frombuffer(expected.tobytes(order="A"), np.uint8)
            one_chunk_v3(path, expected, encoded.read_bytes())
        else:
            one_chunk_v2(path, expected, config, encoded.read_bytes(), is_filter=config["id"] in FILTERS)
        content = np.asarray(vf.open_array(path)[...])
        assert content.dtype == expected.dtype.newbyteorder("="), encoded
        assert content.shape == expected.shape, encoded
        assert content.tobytes() == expected.tobytes(), encoded


def check_blosc(chunk: Path, scratch: Path) -> None:
    """Decode a chunk of c-blosc's compatibility suite: each holds 0, 1, ... 999999 as int32."""
    expected = np.arange(1_000_000, dtype="<i4")
    config = {
        "id": "blosc",
        "cname": "lz4",
        "clevel": 5,
        "shuffle": 1,
        "blocksize": 0,
    }  # the chunk's header says which
    one_chunk_v2(scratch / "array", expected, config, chunk.read_bytes())
    content = np.asarray(vf.open_array(scratch / "array")[...])
    assert np.array_equal(content, expected)


def one_chunk_v2(folder: Path, like: np.ndarray, codec: dict, chunk: bytes, *, is_filter: bool = False) -> None:
    """A Zarr v2 array of the shape and type of ``like`` whose only chunk is ``chunk``."""
    document = {
        "zarr_format": 2,
        "shape": like.shape,
        "chunks": like.shape,
        "dtype": like.dtype.str,
        "compressor": None if is_filter else codec,
        "fill_value": None,
        "order": "C" if like.flags.c_contiguous else "F",
        "filters": [codec] if is_filter else None,
    }
    folder.mkdir()
    (folder / ".zarray").write_text(json.dumps(document), encoding="utf-8")
    (folder / ".".join("0" * like.ndim)).write_bytes(chunk)


def one_chunk_v3(folder: Path, like: np.ndarray, chunk: bytes) -> None:
    """A Zarr v3 array of uint8, shape (n,), whose only chunk is ``chunk``: the bytes with their crc32c after them."""
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": like.shape,
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": like.shape}},
        "chunk_key_encoding": {"name": "default"},
        "fill_value": 0,
        "codecs": [{"name": "bytes"}, {"name": "crc32c"}],
    }
    (folder / "c").mkdir(parents=True)
    (folder / "zarr.json").write_text(json.dumps(document), encoding="utf-8")
    (folder / "c" / "0").write_bytes(chunk)


def sha256(array: np.ndarray) -> str:
    """Hash of the C-order little-endian bytes, of objects of what Python shows of them as a list."""
    if array.dtype.hasobject:
        return hashlib.sha256(repr(array.tolist()).encode()).hexdigest()
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    return hashlib.sha256(little.tobytes()).hexdigest()


# ----------------------------------------------------------------------------------------------------------- as tests
@pytest.mark.parametrize("row", rows(), ids=lambda row: row.path)
def test_outcome(row: Row, tmp_path: Path) -> None:
    check(row, tmp_path)


def test_every_array_has_a_row() -> None:
    groups_too = DATA.rglob("zarr.json")
    v3 = [path for path in groups_too if json.loads(path.read_text(encoding="utf-8"))["node_type"] == "array"]
    # Arrays of `zarr` have their voxels beside them and tests of their own.
    documents = [path for path in [*DATA.rglob(".zarray"), *v3] if not path.is_relative_to(DATA / "zarr")]
    assert sorted(path.relative_to(DATA).as_posix() for path in documents) == sorted(row.path for row in zarr_rows())


def test_the_written_table_is_current() -> None:
    assert TABLE.read_text(encoding="utf-8") == render(), "run python tests/test_corpora.py --write"


@pytest.mark.parametrize("image", ["image", "labels/groundtruth"])
def test_boxes_of_the_real_volume(image: str) -> None:
    """Boxes across chunks, across shards and in the cut last shard, at all levels, each read alone."""
    folder = DATA / "fib25" / "fib25.ome.zarr" / ("" if image == "image" else image)
    levels = json.loads((DATA / "fib25" / "oracle.json").read_text(encoding="utf-8"))[image]
    for level, expected in enumerate(levels):
        array = vf.open_array(folder / str(level))
        for box in expected["boxes"]:
            selection = tuple(slice(a, a + n) for a, n in zip(box["start"], box["shape"], strict=True))
            content = np.asarray(array[selection])
            assert sha256(content) == box["sha256"]
            assert content.mean(dtype=np.float64) == box["mean"]


# -------------------------------------------------------------------------------------------------------- as Markdown
def render() -> str:
    """The table as Markdown: the counts of each collection, then every row."""
    table = rows()
    lines = [
        "# Foreign arrays",
        "",
        "Arrays of other projects, kept in `tests/data` (origin and licence: `tests/data/README.md`). A *read* one",
        "equals its oracle bit for bit, as a whole and in a box off the chunk grid; a *refused* one raises the error",
        "named when it is opened. Written by `python tests/test_corpora.py --write`; the test suite checks every row.",
        "",
        "| collection | arrays | read | refused |",
        "|---|---:|---:|---:|",
    ]
    for collection in (*COLLECTIONS, "all"):
        chosen = [row for row in table if collection in (row.collection, "all")]
        refused = sum(row.count for row in chosen if row.refused)
        total = sum(row.count for row in chosen)
        lines.append(f"| {collection} | {total} | {total - refused} | {refused} |")
    lines += [
        "",
        "The collection fib25 is our real volume, written by zarr-python, tensorstore and webknossos-libs.",
    ]
    for collection in COLLECTIONS:
        lines += [
            "",
            f"## {collection}",
            "",
            "| array | what | outcome | oracle |",
            "|---|---|---|---|",
        ]
        for row in table:
            if row.collection == collection:
                lines.append(f"| {row.path} | {cell(row.what)} | {cell(outcome(row))} | {row.readers} |")
    return "\n".join(lines) + "\n"


def outcome(row: Row) -> str:
    if row.refused:
        return f"refused: {row.refused} ({row.expected['reason']})"
    return "read" if row.count == 1 else f"read, {row.count} arrays"


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write tests/corpora.md if no row differs")
    arguments = parser.parse_args()
    table, failures = rows(), 0
    for row in table:
        with tempfile.TemporaryDirectory() as scratch:
            try:
                check(row, Path(scratch))
            except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001  one line a row, whatever went wrong
                failures += 1
                print(
                    f"{row.path}: expected {outcome(row)}; {type(error).__name__}: {error}",
                    file=sys.stderr,
                )
    print(f"{len(table)} rows, {failures} not as expected")
    if arguments.write and not failures:
        TABLE.write_text(render(), encoding="utf-8")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
