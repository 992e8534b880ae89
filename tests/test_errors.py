"""The exception tree: builtin bases, attributes, text, pickling, and agreement with the kinds of the core."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

import voxfetch as vf
from voxfetch import errors

TREE = {
    "VoxfetchError": (Exception,),
    "MetadataError": (vf.VoxfetchError, ValueError),
    "UnsupportedError": (vf.VoxfetchError, NotImplementedError),
    "SelectionError": (vf.VoxfetchError, IndexError),
    "ReadOnlyError": (vf.VoxfetchError,),
    "NotFoundError": (vf.VoxfetchError, FileNotFoundError),
    "StoreError": (vf.VoxfetchError, OSError),
    "PermissionDeniedError": (vf.StoreError, PermissionError),
    "CredentialsError": (vf.StoreError,),
    "StoreTimeoutError": (vf.StoreError, TimeoutError),
    "RangeNotHonouredError": (vf.StoreError,),
    "RetriesExhaustedError": (vf.StoreError,),
    "ObjectChangedError": (vf.StoreError,),
    "DataError": (vf.VoxfetchError,),
    "ShardIndexError": (vf.DataError,),
    "CodecError": (vf.DataError,),
    "ChecksumError": (vf.DataError,),
    "LimitExceededError": (vf.VoxfetchError, MemoryError),
    "ConflictError": (vf.VoxfetchError,),
    "ForkSafetyError": (vf.VoxfetchError,),
    "InternalError": (vf.VoxfetchError,),
}
FIELDS = {
    "key": "/data/c/0/1",
    "byte_range": (10, 20),
    "chunk": (3, 4),
    "attempts": 8,
    "status": 503,
    "hint": "try again",
    "others": 2,
}


def test_the_tree_is_complete():
    assert set(TREE) == set(errors.__all__)
    assert set(TREE) <= set(vf.__all__)


@pytest.mark.parametrize("name", TREE)
def test_class(name):
    cls = getattr(vf, name)
    for base in TREE[name]:
        assert issubclass(cls, base)
    plain = cls("it broke")
    assert str(plain) == "it broke"
    assert plain.kind == name
    assert {field: getattr(plain, field) for field in FIELDS} == {**dict.fromkeys(FIELDS), "others": 0}

    error = cls("it broke", **FIELDS)
    assert {field: getattr(error, field) for field in FIELDS} == FIELDS
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert str(again) == str(error)
    assert {field: getattr(again, field) for field in FIELDS} == FIELDS
    with pytest.raises(cls, match="it broke"):
        raise again


def test_text_says_what_where_and_what_to_do():
    text = str(vf.ChecksumError("crc32c: stored 1, computed 2", **FIELDS))
    assert text == (
        "/data/c/0/1: crc32c: stored 1, computed 2 (chunk (3, 4), bytes 10..20, status 503, 8 attempts)"
        "; and 2 more errors. Hint: try again"
    )
    assert str(vf.CodecError("x", others=1)) == "x; and 1 more error"


def test_the_object_is_named_once():
    error = vf.CodecError("x")
    assert error.in_object("inner") is error
    assert error.in_object("outer").key == "inner"


def test_chunk_is_a_tuple_of_ints_whatever_comes():
    assert vf.CodecError("x", chunk=[1, 2]).chunk == (1, 2)


def test_every_kind_of_the_core_has_its_class():
    source = Path(__file__).parents[1] / "rust" / "core" / "src" / "error.rs"
    if not source.exists():
        pytest.skip("no Rust sources next to the tests")
    kinds = set(re.findall(r'=> "(\w+Error)"', source.read_text()))
    assert len(kinds) >= 12
    assert kinds <= set(TREE)
