"""Archives that are replaced while they are open: never voxels of two versions, nor old ones for long."""

from __future__ import annotations

import os
import zipfile

import numpy as np
import pytest

import voxfetch as vf
from tests.servers.asking import get
from tests.servers.faulty import FaultyServer
from tests.zips import FAST, SHARDS, Made, archive, pack, packed
from voxfetch.store import Ask
from voxfetch.store import file as files
from voxfetch.store import zip as zips
from voxfetch.store.http import HttpStore
from voxfetch.store.zip import ZipStore

LAYOUT = {"chunks": (8, 8), "shards": (16, 16)}


@pytest.fixture
def engine():
    with vf.Engine(decode_threads=2, retry=FAST) as engine:
        yield engine


@pytest.fixture
def big(tmp_path, write_array, make_values):
    return write_array(tmp_path / "big", make_values((128, 128, 64), "uint32"), **SHARDS)


@pytest.mark.parametrize("etags", ["strong", "weak", None])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_that_was_replaced(etags, method, tmp_path, write_array, make_values, engine):
    old = write_array(tmp_path / "old", make_values((40, 40), "uint16", 1), **LAYOUT)
    new = write_array(tmp_path / "new", make_values((40, 40), "uint16", 2), **LAYOUT)
    with FaultyServer({"x.zip": pack(old.path, method)}, etags=etags) as server:
        array = vf.open_array(f"{server.url}/x.zip", engine=engine)
        np.testing.assert_array_equal(array[:9], old.expected[:9])
        server.put("x.zip", pack(new.path, method))
        for selection in (np.s_[:9], np.s_[...], np.s_[20:]):
            np.testing.assert_array_equal(array[selection], new.expected[selection])
        server.put("x.zip", None)
        engine.close()
        with pytest.raises(vf.NotFoundError, match="the archive is gone"):
            array[...]


@pytest.mark.parametrize("etags", ["strong", "weak", None])
def test_a_member_is_given_in_the_version_asked_for(etags):
    data = archive(Made(b"a", b"A" * 100))
    with FaultyServer({"x.zip": data}, etags=etags) as server:
        store = ZipStore(HttpStore(server.url), "x.zip")
        reply = get(store, Ask("a"))
        again, other = get(store, Ask("a", 5, 9, if_match=reply.etag), Ask("a", 5, 9, if_match='"other"'))
        assert (bytes(again.body), again.start, again.total, again.etag) == (b"AAAA", 5, 100, reply.etag)
        assert isinstance(other, vf.ObjectChangedError)
        server.requests.clear()
        outside, inside = get(store, Ask("a", 5, 101), Ask("a", 5, 9))
        assert isinstance(outside, vf.ObjectChangedError)
        assert inside.etag == reply.etag
        # More than there is of a member was asked for: that says nothing of the archive.
        assert len(server.requests) == 1
        server.put("x.zip", data)
        gone, now = get(store, Ask("a", 5, 9, if_match=reply.etag), Ask("a", 5, 9))
        assert isinstance(gone, vf.ObjectChangedError)
        assert now.etag != reply.etag


def test_what_is_kept_of_a_compressed_member_is_of_one_version(big, tmp_path, write_array, engine):
    new = write_array(tmp_path / "new", big.expected + 1, **SHARDS)
    with FaultyServer({"x.zip": pack(big.path, zipfile.ZIP_DEFLATED)}) as server:
        options = vf.ReadOptions(index_ttl_s=0)
        array = vf.open_array(f"{server.url}/x.zip", read_options=options, engine=engine)
        np.testing.assert_array_equal(array[:5], big.expected[:5])
        server.put("x.zip", pack(new.path, zipfile.ZIP_DEFLATED))
        np.testing.assert_array_equal(array[100:], new.expected[100:])
        np.testing.assert_array_equal(array[:5], new.expected[:5])


@pytest.mark.parametrize("how", ["renamed", "in place"])
def test_a_file_that_was_replaced(how, tmp_path, write_array, make_values, engine):
    old = write_array(tmp_path / "old", make_values((40, 40), "uint16", 1), **LAYOUT)
    new = write_array(tmp_path / "new", make_values((40, 40), "uint16", 2), **LAYOUT)
    path = packed(old, tmp_path / "x.zip").path
    array = vf.open_array(path, engine=engine)
    np.testing.assert_array_equal(array[...], old.expected)
    if how == "renamed":
        packed(new, tmp_path / "y.zip").path.rename(path)
    else:
        path.write_bytes(pack(new.path))
    np.testing.assert_array_equal(array[...], new.expected)
    path.unlink()
    with pytest.raises(vf.NotFoundError, match="the archive is gone"):
        array[...]


def test_a_missing_chunk_that_comes_later(tmp_path, write_array, make_values, engine, monkeypatch):
    case = write_array(tmp_path / "a", make_values((16,), "uint8"), chunks=(8,), fill_value=0)
    with FaultyServer({"x.zip": pack(case.path, only=lambda name: name != "c/1")}) as server:
        options = vf.ReadOptions(index_ttl_s=0)
        array = vf.open_array(f"{server.url}/x.zip", read_options=options, engine=engine)
        np.testing.assert_array_equal(array[8:], np.zeros(8))
        server.requests.clear()
        np.testing.assert_array_equal(array[8:], np.zeros(8))
        assert not server.requests
        server.put("x.zip", pack(case.path))
        np.testing.assert_array_equal(array[8:], np.zeros(8))
        monkeypatch.setattr(zips, "TRUST_S", 0)
        np.testing.assert_array_equal(array[8:], case.expected[8:])
        np.testing.assert_array_equal(array[...], case.expected)
        server.put("x.zip", None)
        with pytest.raises(vf.NotFoundError, match="the archive is gone"):
            array[:8]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_file_that_is_rewritten_within_a_step_of_the_clock(method, tmp_path, write_array, make_values):
    """It keeps its number, its size and its time."""
    values = make_values((40, 40), "uint16", 1)
    versions = [write_array(tmp_path / name, values + k, chunks=(8, 8)) for k, name in enumerate("ab")]
    nbytes = [len(pack(one.path, method)) for one in versions]
    # As long as each other by what stands in front.
    packed_ones = [
        pack(one.path, method, before=bytes(max(nbytes) - n)) for one, n in zip(versions, nbytes, strict=True)
    ]
    path = tmp_path / "x.zip"
    path.write_bytes(packed_ones[0])
    modified_ns = path.stat().st_mtime_ns
    with vf.Engine() as engine:
        array = vf.open_array(path, engine=engine)
        for k in (0, 1, 0):
            with path.open("r+b") as file:
                file.write(packed_ones[k])
            os.utime(path, ns=(modified_ns, modified_ns))
            np.testing.assert_array_equal(array[...], versions[k].expected)


def test_a_file_that_was_written_a_while_ago_is_read_once(tmp_path, write_array, make_values, monkeypatch):
    one = write_array(tmp_path / "one", make_values((40, 40), "uint16", 1), chunks=(8, 8))
    path = tmp_path / "x.zip"
    path.write_bytes(pack(one.path))
    os.utime(path, (1, 1))
    monkeypatch.setattr(files, "find_end", lambda *_: pytest.fail("the directory is looked for again"))
    with vf.Engine() as engine:
        np.testing.assert_array_equal(vf.open_array(path, engine=engine)[...], one.expected)
