"""ZIP archives that are broken, or made to do harm: a typed error that names the member, never other bytes."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import voxfetch as vf
from tests.servers.asking import get, run
from tests.zips import Made, archive, deflated, group, pack
from voxfetch.store import Ask, Reply
from voxfetch.store import archive as archives
from voxfetch.store import zip as zips
from voxfetch.store.file import FileStore
from voxfetch.store.memory import MemoryStore
from voxfetch.store.zip import ZipStore

FAILURES = Path(__file__).parent / "data/yauzl/failure"
A, B = b"A" * 500, bytes(range(256)) * 2


def asked(data, *asks):
    """Outcome of each ask for members of an archive."""
    return get(ZipStore(MemoryStore({"x.zip": data}), "x.zip"), *asks)


def two(first=None, second=None, **how):
    return archive(first or Made(b"a", A), second or deflated(b"b", B), **how)


def widened(*values):
    """The extra field of ZIP64."""
    return struct.pack(f"<2H{len(values)}Q", 1, 8 * len(values), *values)


FULL = 0xFFFFFFFF
HEADER = "header of the member 'a'"
# Name -> (archive, the member asked for, error, a part of its message).
BROKEN = {
    "nothing": (b"", "a", vf.DataError, "no ZIP archive"),
    "text": (b"text" * 100, "a", vf.DataError, "no ZIP archive"),
    "an end that is cut": (two()[:-5], "a", vf.DataError, "no ZIP archive"),
    "something behind the end": (two() + b"?", "a", vf.DataError, "no ZIP archive"),
    "something before the start": (b"?" + two(), "a", vf.DataError, "not where the archive says"),
    "the first half is missing": (two()[200:], "a", vf.DataError, "not where the archive says"),
    "a directory elsewhere": (two(end={"start": 10}), "a", vf.DataError, "not where the archive says"),
    "a directory that is too long": (two(end={"nbytes": 900}), "a", vf.DataError, "not where the archive says"),
    "a directory of 4 GiB": (two(end={"nbytes": FULL, "start": FULL}), "a", vf.DataError, "not where the archive says"),
    "too many entries": (two(end={"here": 9, "members": 9}), "a", vf.DataError, "not where the archive says"),
    "too few entries": (two(end={"here": 1, "members": 1}), "a", vf.DataError, "2 entries, 1 are announced"),
    "in several files": (two(end={"disk": 1}), "a", vf.UnsupportedError, "several files"),
    "a part of the entries": (two(end={"here": 1}), "a", vf.UnsupportedError, "several files"),
    "a member in another file": (two(Made(b"a", A, central={"disk": 1})), "a", vf.UnsupportedError, "another file"),
    "ZIP64, no record": (two(zip64=True, end64={"sign": b"PK\6\5"}), "a", vf.DataError, "ZIP64 end"),
    "ZIP64, record elsewhere": (two(zip64=True, end64={"place": 1 << 63}), "a", vf.DataError, "ZIP64 end"),
    "ZIP64, record too long": (two(zip64=True, end64={"size": 1 << 63}), "a", vf.DataError, "ZIP64 end"),
    "ZIP64, other counts": (two(zip64=True, end={"members": 3}), "a", vf.DataError, "contradict"),
    "ZIP64, more files": (two(zip64=True, end64={"disks": 2}), "a", vf.UnsupportedError, "several files"),
    "ZIP64, a huge directory": (
        two(zip64=True, end64={"nbytes": 1 << 62}),
        "a",
        vf.DataError,
        "not where the archive says",
    ),
    "an entry without its sign": (two(Made(b"a", A, central={"sign": b"PK\1\1"})), "b", vf.DataError, "at entry 0"),
    "an entry with a long name": (
        two(second=deflated(b"b", B, central={"name_nbytes": 60000})),
        "a",
        vf.DataError,
        "at entry 1",
    ),
    "a member behind the end": (two(Made(b"a", A, central={"offset": 5000})), "b", vf.DataError, "'a' reaches out"),
    "a member beyond the end": (two(Made(b"a", A, central={"stored": 5000})), "b", vf.DataError, "'a' reaches out"),
    "a member beyond all numbers": (
        two(Made(b"a", A, central={"stored": FULL}, central_extra=widened((1 << 64) - 1))),
        "b",
        vf.DataError,
        "'a' reaches out",
    ),
    "ZIP64 sizes missing": (two(Made(b"a", A, central={"stored": FULL})), "b", vf.DataError, "sizes of the member 'a'"),
    "ZIP64 sizes cut": (
        two(Made(b"a", A, central={"stored": FULL}, central_extra=widened(1)[:-3])),
        "b",
        vf.DataError,
        "sizes of the member 'a'",
    ),
    "members that overlap": (
        two(second=deflated(b"b", B, central={"offset": 100})),
        "a",
        vf.DataError,
        "overlap",
    ),
    "one member twice": (two(second=Made(b"b", A, central={"offset": 0})), "a", vf.DataError, "overlap"),
    "two members of one name": (two(second=Made(b"a", B), order=[1, 0]), "a", vf.DataError, "two members 'a'"),
    "another header": (two(Made(b"a", A, local={"sign": b"PK\3\5"})), "a", vf.DataError, HEADER),
    "the header of another": (two(Made(b"a", A, local={"name": b"c"})), "a", vf.DataError, HEADER),
    "a header of another method": (
        two(Made(b"a", A, local={"method": 8})),
        "a",
        vf.DataError,
        HEADER,
    ),
    "a header of another size": (
        two(Made(b"a", A, local={"stored": 499})),
        "a",
        vf.DataError,
        HEADER,
    ),
    "a header of another sum": (two(Made(b"a", A, local={"crc": 1})), "a", vf.DataError, HEADER),
    "a header with a longer name": (
        two(Made(b"a", A, local={"name_nbytes": 9})),
        "a",
        vf.DataError,
        HEADER,
    ),
    "a header that reaches into the next": (
        two(Made(b"a", A, local={"extra_nbytes": 1})),
        "a",
        vf.DataError,
        HEADER,
    ),
    "stored with two sizes": (two(Made(b"a", A, central={"nbytes": 499})), "a", vf.DataError, "two different sizes"),
    "another checksum": (two(Made(b"a", A, local={"crc": 1}, central={"crc": 1})), "a", vf.ChecksumError, "member 'a'"),
    "another checksum, deflated": (
        two(second=deflated(b"b", B, local={"crc": 1}, central={"crc": 1})),
        "b",
        vf.ChecksumError,
        "member 'b'",
    ),
    "no deflate": (two(second=Made(b"b", B, 8, b"\xff" * 99)), "b", vf.DataError, "'b' does not decode"),
    "deflate that is cut": (
        two(second=Made(b"b", B, 8, deflated(b"b", B).encoded[:-4])),
        "b",
        vf.DataError,
        "'b' does not decode",
    ),
    "deflate with something behind": (
        two(second=Made(b"b", B, 8, deflated(b"b", B).encoded + b"?")),
        "b",
        vf.DataError,
        "'b' does not decode",
    ),
    "a bomb": (
        two(second=Made(b"b", B, 8, deflated(b"b", bytes(20 << 20)).encoded)),
        "b",
        vf.DataError,
        "'b' does not decode",
    ),
    "a document that is too large": (
        two(second=deflated(b"b", bytes(17 << 20))),
        "b",
        vf.LimitExceededError,
        "more than the 16,777,216 bytes",
    ),
    "encrypted": (two(Made(b"a", A, flags=1)), "a", vf.UnsupportedError, "'a' is encrypted"),
    "strongly encrypted": (two(Made(b"a", A, flags=0x41)), "a", vf.UnsupportedError, "'a' is encrypted"),
    "hidden": (two(Made(b"a", A, flags=0x2000)), "a", vf.UnsupportedError, "'a' is encrypted"),
    "bzip2": (two(Made(b"a", A, 12)), "a", vf.UnsupportedError, "'a' is compressed with bzip2 (12)"),
    "zstd": (two(Made(b"a", A, 93)), "a", vf.UnsupportedError, "'a' is compressed with zstd (93)"),
    "an unknown method": (two(Made(b"a", A, 7)), "a", vf.UnsupportedError, "another method (7)"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_archives(name):
    data, member, kind, message = BROKEN[name]
    tracemalloc.start()
    error = asked(data, Ask(member))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert type(error) is kind, error
    assert message in str(error)
    assert error.key == member
    assert error.hint
    assert peak < len(data) + (4 << 20)


def test_the_archive_of_these_tests_is_right():
    for data in (two(), two(zip64=True), two(order=[1, 0]), two(comment=b"PK\5\6" + bytes(18) + b"?")):
        got = asked(data, Ask("a"), Ask("b"), Ask("b", 5, 9), Ask("c"))
        assert [None if one is None else bytes(one.body) for one in got] == [A, B, B[5:9], None]


def test_what_is_broken_in_one_member_leaves_the_others_alone():
    for name in ("another header", "encrypted", "zstd", "stored with two sizes", "another checksum"):
        assert bytes(asked(BROKEN[name][0], Ask("b")).body) == B


def test_of_a_name_that_stands_twice_the_later_counts():
    data = archive(Made(b"a", A), Made(b"b", B), Made(b"a", B))
    assert bytes(asked(data, Ask("a")).body) == B


def test_names_are_keys_and_nothing_else():
    names = [
        b"../up",
        b"/absolute",
        b"a\\b",
        b"C:\\x",
        b"a//b",
        b"./c",
        b"",
        b"dir/",
        b"dir/d",
        "ä/ö".encode(),
        b"\x84",
    ]
    store = ZipStore(MemoryStore({"": archive(*(Made(name, A) for name in names))}))
    assert run(lambda clients: store.list("", clients)) == ["a", "dir", "ä"]
    assert [bytes(one.body) for one in get(store, Ask("dir/d"), Ask("ä/ö"), Ask("ä"))] == [A] * 3
    for key in ("../up", "/absolute", "a\\b", "a//b", "./c", "dir/"):
        assert isinstance(get(store, Ask(key)), vf.MetadataError)


def test_limits(monkeypatch):
    monkeypatch.setattr(archives, "MAX_DIRECTORY_NBYTES", 50)
    error = asked(two(), Ask("a"))
    assert isinstance(error, vf.LimitExceededError)
    assert "central directory" in str(error)
    monkeypatch.undo()
    monkeypatch.setattr(zips, "MAX_DEFLATED_NBYTES", 100)
    error = asked(two(), Ask("b", 0, 5))
    assert isinstance(error, vf.LimitExceededError)
    assert "'b' is compressed as a whole" in str(error)
    assert bytes(asked(two(), Ask("a", 0, 5)).body) == A[:5]


@pytest.mark.parametrize("path", sorted(FAILURES.glob("*.zip")), ids=lambda path: path.stem)
def test_foreign_broken_archives(path):
    got = get(ZipStore(FileStore(str(path))), Ask("a.txt"), Ask("b.txt"), Ask("empty.txt"))
    # An extra field that nothing is taken from may be broken.
    is_error = any(isinstance(one, (vf.DataError, vf.UnsupportedError)) for one in got)
    assert is_error == (path.stem != "extra field length exceeds extra field buffer size")
    assert all(bytes(one.body) in {b"asdf\n", b"bsdf\n"} for one in got if isinstance(one, Reply))


WHOLE = two(comment=b"a comment")


@given(
    data=st.data(),
    changes=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.one_of(st.none(), st.integers(0, len(WHOLE))),
)
def test_any_damage_is_an_error_or_harmless(data, changes, cut):
    damaged = bytearray(WHOLE)
    for at, value in changes:
        damaged[at] = value
    for got, body in zip(asked(bytes(damaged[:cut]), Ask("a"), Ask("b")), (A, B), strict=True):
        # A member may have another name now.
        assert got is None or isinstance(got, vf.VoxfetchError) or bytes(got.body) == body


def test_an_error_names_archive_and_member(tmp_path):
    path = tmp_path / "x.zip"
    path.write_bytes(archive(Made(b"zarr.json", group(), 93)))
    with pytest.raises(vf.UnsupportedError) as caught:
        vf.open(path)
    assert str(caught.value).startswith(f"file://{path}|zip:/zarr.json: the member 'zarr.json' is compressed with zstd")


def test_a_broken_chunk_is_named(volume, tmp_path):
    data = bytearray(pack(volume.path))
    name = next(one.encode() for one in zipfile.ZipFile(io.BytesIO(data)).namelist() if one.startswith("c/"))
    data[data.index(name) + 20] ^= 1
    path = tmp_path / "x.zip"
    path.write_bytes(data)
    array = vf.open_array(path)
    with pytest.raises(vf.DataError) as caught:
        array[...]
    assert caught.value.key == f"file://{path}|zip:/{name.decode()}"
    np.testing.assert_array_equal(array[20:], volume.expected[20:])


def test_names_with_backslashes_are_no_missing_chunks(tmp_path, write_array, make_values):
    """Old writers on Windows leave such names; what they hold must not pass for the fill value."""
    case = write_array(tmp_path / "a", make_values((4, 4), "uint8"), chunks=(2, 2))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for path in sorted(path for path in case.path.rglob("*") if path.is_file()):
            member = zipfile.ZipInfo("x")
            member.filename = str(path.relative_to(case.path)).replace("/", "\\")
            file.writestr(member, path.read_bytes())
    with pytest.raises(vf.UnsupportedError, match="backslashes"):
        vf.open(tmp_path / "x.zip")[...]
