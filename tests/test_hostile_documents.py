"""Hostile and broken metadata: each a typed error that names the document, in bounded time and memory."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import voxfetch as vf

sys.path.insert(0, str(Path(__file__).parent))
import mutants
from mutants import BYTES, CRC32C, codec, document_v2, document_v3, put_document, refused, sharding

MIB = 1 << 20
ZSTD = codec("zstd", level=1, checksum=False)

UNSUPPORTED, METADATA, LIMIT = vf.UnsupportedError, vf.MetadataError, vf.LimitExceededError
GRID = "regular"


def _grid(*chunk: Any) -> dict[str, Any]:
    return {"name": GRID, "configuration": {"chunk_shape": list(chunk)}}


def _rectilinear(*axes: Any) -> dict[str, Any]:
    return {"name": "rectilinear", "configuration": {"kind": "inline", "chunk_shapes": list(axes)}}


def _struct(names: list[str], dtype: str = "uint8") -> dict[str, Any]:
    return {"name": "struct", "configuration": {"fields": [{"name": name, "data_type": dtype} for name in names]}}


def _deep_record(levels: int) -> list[Any]:
    dtype: Any = "|u1"
    for _ in range(levels):
        dtype = [["x", dtype]]
    return dtype


def _nested(depth: int) -> bytes:
    text = json.dumps(document_v3(attributes="HERE"))
    return text.replace('"HERE"', '{"a": ' + "[" * depth + "]" * depth + "}").encode()


def _deep_shards(levels: int) -> list[Any]:
    codecs: list[Any] = [BYTES]
    for _ in range(levels):
        codecs = [sharding([1, 1], codecs)]
    return codecs


DOCUMENTS_V3: dict[str, tuple[Any, type | tuple[type, ...]]] = {
    "unknown codec": (document_v3(codecs=[BYTES, codec("rot13")]), UNSUPPORTED),
    "unknown codec in a shard": (document_v3(codecs=[sharding([2, 2], [BYTES, codec("rot13")])]), UNSUPPORTED),
    "unknown codec of an index": (
        document_v3(codecs=[sharding([2, 2], [BYTES], index_codecs=[BYTES, codec("rot13")])]),
        UNSUPPORTED,
    ),
    "unknown setting": (document_v3(codecs=[BYTES, codec("gzip", level=1, secret=True)]), UNSUPPORTED),
    "field to be understood": (document_v3(invention={"must_understand": True}), UNSUPPORTED),
    "field without a word on it": (document_v3(invention={"name": "x"}), UNSUPPORTED),
    "storage transformer": (document_v3(storage_transformers=[{"name": "x"}]), UNSUPPORTED),
    "other grid": (document_v3(chunk_grid={"name": "hexagonal", "configuration": {}}), UNSUPPORTED),
    "grid of no kind": (document_v3(chunk_grid={"name": "rectilinear", "configuration": {}}), METADATA),
    "grid of very many cells": (
        document_v3(shape=[(1 << 40) + 2, 8], chunk_grid=_rectilinear([[1, 1 << 40], 2], [8])),
        LIMIT,
    ),
    "grid short of the array": (document_v3(chunk_grid=_rectilinear([[1, 3], 2], [8])), METADATA),
    "fields without end": (document_v3(data_type=_struct([f"f{n}" for n in range(5000)])), LIMIT),
    "fields of one name": (document_v3(data_type=_struct(["x", "x"])), METADATA),
    "element of many bytes": (document_v3(data_type=_struct(["x", "y"], "r8000000"), fill_value=""), LIMIT),
    "other keys": (document_v3(chunk_key_encoding={"name": "fanout"}), UNSUPPORTED),
    "other type": (document_v3(data_type="string", fill_value=""), UNSUPPORTED),
    "no such type": (document_v3(data_type="uint7"), (UNSUPPORTED, METADATA)),
    "type as a number": (document_v3(data_type=16), METADATA),
    "version as text": (document_v3(zarr_format="3"), METADATA),
    "version 4": (document_v3(zarr_format=4), METADATA),
    "neither array nor group": (document_v3(node_type="tree"), METADATA),
    "shape as a number": (document_v3(shape=8), METADATA),
    "shape as text": (document_v3(shape="8, 8"), METADATA),
    "extent as text": (document_v3(shape=[8, "8"]), METADATA),
    "extent as a fraction": (document_v3(shape=[8, 8.5]), METADATA),
    "extent as a truth": (document_v3(shape=[8, True]), METADATA),
    "extent as nothing": (document_v3(shape=[8, None]), METADATA),
    "extent below zero": (document_v3(shape=[8, -1]), METADATA),
    "extent of 2^62": (document_v3(shape=[8, 2**62]), (METADATA, LIMIT)),
    "extent of 2^63": (document_v3(shape=[8, 2**63]), (METADATA, LIMIT)),
    "extent of 2^64": (document_v3(shape=[8, 2**64]), (METADATA, LIMIT)),
    "extent of 10^40": (document_v3(shape=[8, 10**40]), (METADATA, LIMIT)),
    "product of extents": (document_v3(shape=[2**61, 2**61], chunk_grid=_grid(1, 1)), LIMIT),
    "33 axes": (document_v3(shape=[1] * 33, chunk_grid=_grid(*[1] * 33)), (METADATA, LIMIT)),
    "too few chunk axes": (document_v3(chunk_grid=_grid(4)), METADATA),
    "chunk of nothing": (document_v3(chunk_grid=_grid(0, 4)), METADATA),
    "chunk below zero": (document_v3(chunk_grid=_grid(-4, 4)), METADATA),
    "chunk of 2^62": (document_v3(chunk_grid=_grid(2**61, 2**61)), LIMIT),
    "chunk of 8 GiB": (document_v3(chunk_grid=_grid(1 << 16, 1 << 16)), LIMIT),
    "part of nothing": (document_v3(codecs=[sharding([0, 2], [BYTES])]), METADATA),
    "part that does not divide": (document_v3(codecs=[sharding([3, 2], [BYTES])]), METADATA),
    "part larger than its shard": (document_v3(codecs=[sharding([8, 8], [BYTES])]), METADATA),
    "index of 256 GiB": (
        document_v3(shape=[1 << 17] * 2, chunk_grid=_grid(1 << 17, 1 << 17), codecs=[sharding([1, 1], [BYTES])]),
        LIMIT,
    ),
    "index of any size": (
        document_v3(codecs=[sharding([2, 2], [BYTES], index_codecs=[BYTES, ZSTD])]),
        (METADATA, UNSUPPORTED),
    ),
    "shards in shards in shards": (document_v3(codecs=_deep_shards(6)), LIMIT),
    "no array to bytes": (document_v3(codecs=[]), METADATA),
    "two array to bytes": (document_v3(codecs=[BYTES, BYTES]), METADATA),
    "codecs as text": (document_v3(codecs="bytes"), METADATA),
    "40 codecs": (document_v3(codecs=[BYTES, *[CRC32C] * 40]), (METADATA, LIMIT)),
    "ten compressors": (document_v3(codecs=[BYTES, *[ZSTD] * 10]), (METADATA, LIMIT)),
    "no permutation": (document_v3(codecs=[codec("transpose", order=[0, 0]), BYTES]), METADATA),
    "axis beyond": (document_v3(codecs=[codec("transpose", order=[0, 7]), BYTES]), METADATA),
    "fill value as text": (document_v3(fill_value="zero"), METADATA),
    "fill value too large": (document_v3(fill_value=65536), METADATA),
    "no fill value": (document_v3(fill_value=...), METADATA),
    "no shape": (document_v3(shape=...), METADATA),
    "no document": (b"", METADATA),
    "half a document": (json.dumps(document_v3()).encode()[:-20], METADATA),
    "a list": (b"[]", METADATA),
    "not UTF-8": (json.dumps(document_v3(attributes={"a": "HERE"})).encode().replace(b"HERE", b"\xff\xfe"), METADATA),
    "twice the same name": (json.dumps(document_v3()).encode()[:-1] + b', "shape": [4, 4]}', METADATA),
    "not a number": (json.dumps(document_v3(fill_value="HERE")).encode().replace(b'"HERE"', b"NaN"), METADATA),
    "200,000 deep": (_nested(200_000), (LIMIT, METADATA)),
    "100 deep": (_nested(100), (LIMIT, METADATA)),
    "200,000 deep, unclosed": (b'{"a":' * 200_000, (LIMIT, METADATA)),
    "17 MiB": (json.dumps(document_v3(attributes={"a": "x" * (17 * MIB)})).encode(), LIMIT),
}

DOCUMENTS_V2: dict[str, tuple[Any, type | tuple[type, ...]]] = {
    "pickle": (document_v2(dtype="|O", filters=[{"id": "pickle", "protocol": 4}], fill_value=None), UNSUPPORTED),
    "pickle as compressor": (document_v2(compressor={"id": "pickle", "protocol": 4}), UNSUPPORTED),
    "objects": (document_v2(dtype="|O", fill_value=None), UNSUPPORTED),
    "record of one name": (document_v2(dtype=[["a", "<u2"], ["a", "<f4"]], fill_value=None), METADATA),
    "record of many bytes": (document_v2(dtype=[["a", "<u2", [1 << 40, 1 << 40]]], fill_value=None), LIMIT),
    "record in a record too deep": (document_v2(dtype=_deep_record(100), fill_value=None), LIMIT),
    "filter": (document_v2(filters=[{"id": "rot13"}]), UNSUPPORTED),
    "filter of other elements": (document_v2(filters=[{"id": "delta", "dtype": "<u8"}]), METADATA),
    "filter that makes objects": (document_v2(filters=[{"id": "vlen-utf8"}], fill_value=None), METADATA),
    "numbers as objects": (document_v2(dtype="|O", filters=[{"id": "rot13"}], fill_value=None), UNSUPPORTED),
    "objects with a wrong fill value": (
        document_v2(dtype="|O", filters=[{"id": "vlen-bytes"}], fill_value=[256]),
        METADATA,
    ),
    "unknown compressor": (document_v2(compressor={"id": "rot13"}), UNSUPPORTED),
    "compressor without id": (document_v2(compressor={"level": 1}), METADATA),
    "order": (document_v2(order="X"), METADATA),
    "type": (document_v2(dtype="<u3"), (METADATA, UNSUPPORTED)),
    "type of a terabyte": (document_v2(dtype="|S1099511627776", fill_value=None), (METADATA, LIMIT)),
    "chunk of nothing": (document_v2(chunks=[0, 4]), METADATA),
    "extent below zero": (document_v2(shape=[-8, 8]), METADATA),
    "separator": (document_v2(dimension_separator="-"), METADATA),
    "version": (document_v2(zarr_format=3), METADATA),
}


@pytest.mark.parametrize("what", DOCUMENTS_V3)
def test_v3_documents(tmp_path, what):
    document, kinds = DOCUMENTS_V3[what]
    path = put_document(tmp_path / "a.zarr", document)
    refused(lambda: vf.open(path), kinds, "a.zarr/zarr.json")


@pytest.mark.parametrize("what", DOCUMENTS_V2)
def test_v2_documents(tmp_path, what):
    document, kinds = DOCUMENTS_V2[what]
    path = put_document(tmp_path / "a.zarr", document, ".zarray")
    refused(lambda: vf.open(path), kinds, "a.zarr/.zarray")


def test_the_base_documents_are_sound(tmp_path):
    put_document(tmp_path / "three", document_v3(invention={"must_understand": False}, storage_transformers=[]))
    put_document(tmp_path / "two", document_v2(), ".zarray")
    for name in ("three", "two"):
        assert vf.open_array(tmp_path / name)[...].sum() == 0


def test_a_large_document_costs_little_memory(tmp_path):
    # Just below the limit: a million and more small values.
    attributes = {"a": [[] for _ in range(5 * MIB)]}
    path = put_document(tmp_path, json.dumps(document_v3(attributes=attributes), separators=(",", ":")).encode())
    assert (path / "zarr.json").stat().st_size < 16 * MIB
    ended = mutants.in_child("grown(lambda: vf.open(path))", path)
    assert ended.kind in {"ok", "LimitExceededError"}
    assert ended.grown_nbytes < 1024 * MIB
    assert ended.seconds < 20


@pytest.mark.parametrize(
    "name", ["../secret", "a/../../secret", "/etc", "a//b", ".", "..", "a\\b", "a\0b", "http://x/y"]
)
def test_names_do_not_leave_the_store(tmp_path, name):
    group = {"zarr_format": 3, "node_type": "group"}
    put_document(tmp_path / "secret", document_v3())
    root = put_document(tmp_path / "root", group)
    refused(lambda: vf.open(root)[name], (vf.MetadataError, vf.NotFoundError))
    refused(lambda: vf.open_array(root, name), (vf.MetadataError, vf.NotFoundError))
    consolidated = {"kind": "inline", "must_understand": False, "metadata": {name: document_v3()}}
    put_document(root, group | {"consolidated_metadata": consolidated})
    refused(lambda: vf.open(root)[name][...], (vf.MetadataError, vf.NotFoundError))


@pytest.mark.parametrize("name", ["../secret", "/secret", "http://x/y", "a\0b", 7, None])
def test_levels_do_not_leave_the_image(tmp_path, name):
    put_document(tmp_path / "secret", document_v3())
    axes = [{"name": axis, "type": "space"} for axis in "yx"]
    scale = [{"type": "scale", "scale": [1, 1]}]
    multiscales = [{"version": "0.5", "axes": axes, "datasets": [{"path": name, "coordinateTransformations": scale}]}]
    attributes = {"ome": {"version": "0.5", "multiscales": multiscales}}
    root = put_document(tmp_path / "root", {"zarr_format": 3, "node_type": "group", "attributes": attributes})
    refused(lambda: vf.open_image(root).level(0)[...], (vf.MetadataError, vf.NotFoundError))
