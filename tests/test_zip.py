"""ZIP archives: the same voxels as from the folder, by few requests, whoever wrote the archive and wherever it lies."""

from __future__ import annotations

import asyncio
import io
import os
import pickle
import shutil
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import zarr

import voxfetch as vf
from tests.servers.asking import get, run
from tests.servers.azure import AzureServer
from tests.servers.cloud import Stored
from tests.servers.faulty import FAULTS, FaultyServer
from tests.servers.gcs import GcsServer
from tests.servers.moto_s3 import moto_s3
from tests.stores import CREDENTIALS, nothing_is_found  # noqa: F401 - a fixture
from tests.test_fork import run as run_forked
from tests.zips import FAST, PACKERS, SHARDS, Made, archive, group, pack, packed
from voxfetch.store import Ask
from voxfetch.store.archive import TAIL_NBYTES
from voxfetch.store.file import FileStore
from voxfetch.store.http import HttpStore
from voxfetch.store.memory import MemoryStore
from voxfetch.store.zip import ZipStore

DATA = Path(__file__).parent / "data"
FIB25 = DATA / "fib25/fib25.ome.zarr"
BOX = np.s_[3:30, 5:31, 7:40]


@pytest.fixture
def engine():
    with vf.Engine(decode_threads=2, retry=FAST) as engine:
        yield engine


@pytest.fixture
def big(tmp_path, write_array, make_values):
    return write_array(tmp_path / "big", make_values((128, 128, 64), "uint32"), **SHARDS)


def in_memory(data, *asks):
    """Outcome of each ask for members of an archive."""
    return get(ZipStore(MemoryStore({"a/x.zip": data}), "a/x.zip"), *asks)


# ------------------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("name", ["sharded", "plain", "v2 nested", "point"])
def test_every_archive_reads_as_its_folder(packer, name, cases, tmp_path, engine):
    case = cases(name)
    path = tmp_path / "a.zip"
    path.write_bytes(PACKERS[packer](case.path))
    array = vf.open_array(path, engine=engine)
    np.testing.assert_array_equal(array[...], case.expected)
    if array.ndim == 3:
        np.testing.assert_array_equal(array[BOX], case.expected[BOX])
    with FaultyServer({"d/a.ozx": path.read_bytes()}) as server:
        remote = vf.open_array(f"{server.url}/d/a.ozx", engine=engine)
        np.testing.assert_array_equal(remote[...], case.expected)
        assert server.count(method="HEAD") == 0
    assert array.verify().problem_count == 0


def test_every_layout(case, tmp_path, engine):
    array = vf.open_array(packed(case, tmp_path / "a.zip").path, engine=engine)
    local = case.open()
    assert (array.shape, array.dtype, array.chunks, array.shards) == (
        local.shape,
        local.dtype,
        local.chunks,
        local.shards,
    )
    np.testing.assert_array_equal(array[...], case.expected)
    for box, block in array.blocks(5 if array.ndim else ()):
        np.testing.assert_array_equal(block, case.expected[box.slices])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_archive_that_zarr_python_wrote(zarr_format, tmp_path, make_values, engine):
    path = tmp_path / "a.zip"
    expected = {"a": make_values((40, 41), "uint16"), "deep/b": make_values((30,), "float64")}
    with warnings.catch_warnings():
        # It cannot replace what it wrote: a document stands in the archive twice.
        warnings.filterwarnings("ignore", "Duplicate name")
        store = zarr.storage.ZipStore(path, mode="w")
        group = zarr.create_group(store, zarr_format=zarr_format)
        for name, values in expected.items():
            chunks = {"chunks": (10,) * values.ndim}
            if zarr_format == 3:
                chunks["shards"] = (20,) * values.ndim
            group.create_array(name, shape=values.shape, dtype=values.dtype, **chunks)[...] = values
        group.attrs["n"] = 1
        group.attrs["n"] = 2
        store.close()
    opened = vf.open(path, engine=engine)
    assert opened.attrs["n"] == 2
    assert list(opened.keys()) == ["a", "deep"]
    reader = zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r")
    for name, values in expected.items():
        np.testing.assert_array_equal(opened[name][...], values)
        np.testing.assert_array_equal(reader[name][...], values)
        # What zarr has opened is read in place as well.
        again = vf.open_array(reader[name], engine=engine)
        assert again.url.startswith("file://")
        np.testing.assert_array_equal(again[3:20], values[3:20])


def test_tensorstore_reads_the_same(volume, tmp_path, engine):
    path = packed(volume, tmp_path / "a.zip").path
    spec = {"driver": "zarr3", "kvstore": {"driver": "zip", "base": f"file://{path}"}}
    there = tensorstore.open(spec, read=True).result()[BOX].read().result()
    np.testing.assert_array_equal(vf.open_array(path, engine=engine)[BOX], there)


def test_an_image(tmp_path, engine):
    path = tmp_path / "fib25.ozx"
    path.write_bytes(pack(FIB25))
    image, local = vf.open_image(path, engine=engine), vf.open_image(FIB25)
    assert [level.scale for level in image.levels] == [level.scale for level in local.levels]
    np.testing.assert_array_equal(image.level(1)[20:70, 30:101], local.level(1)[20:70, 30:101])
    labels = image.labels["groundtruth"]
    np.testing.assert_array_equal(labels.level(2)[...], local.labels["groundtruth"].level(2)[...])
    assert image.level(1).url == f"file://{path}|zip:/1"
    np.testing.assert_array_equal(vf.open_array(image.level(1).url)[60], local.level(1)[60])


def test_a_foreign_image(engine):
    folder = DATA / "neuroglancer/ome_zarr"
    image, local = vf.open_image(folder / "simple_0.5.zip", engine=engine), vf.open_image(folder / "simple_0.5")
    assert len(image.levels) == len(local.levels)
    for one, other in zip(image.levels, local.levels, strict=True):
        np.testing.assert_array_equal(one[...], other[...])


FOREIGN = [*sorted((DATA / "yauzl/success").glob("*.zip")), DATA / "neuroglancer/zip/files.zip"]


@pytest.mark.parametrize("path", FOREIGN, ids=lambda path: path.name)
def test_foreign_archives(path):
    with zipfile.ZipFile(path) as archive:
        # A name with a backslash is no key.
        names = [name for name in archive.namelist() if name and "\\" not in name and not name.endswith("/")]
        expected = {name: archive.read(name) for name in names}
    store = ZipStore(FileStore(str(path)))
    got = get(store, *map(Ask, names), Ask("none"))
    assert [bytes(reply.body) for reply in got[:-1]] == list(expected.values()) if names else got is None
    assert run(lambda clients: store.list("", clients)) == sorted({name.partition("/")[0] for name in names})


# ------------------------------------------------------------------------------------------------------ what is asked


def names_of(data):
    """Member -> (first byte of its header, first byte of its data, bytes of its data), of a packed archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
    return {
        one.filename: (one.header_offset, one.header_offset + 30 + len(one.filename), one.file_size) for one in infos
    }


def test_few_requests(big, engine):
    data = pack(big.path)
    places = names_of(data)
    with FaultyServer({"x.zip": data}) as server:
        array = vf.open_array(f"{server.url}/x.zip", engine=engine)
        _, start, nbytes = places["zarr.json"]
        assert server.ranges == [f"bytes=-{TAIL_NBYTES}", f"bytes=0-{start + nbytes - 1}"]
        etag = server.call(server.read, "x.zip")[1]
        assert [request.if_match for request in server.requests] == [None, etag]
        server.requests.clear()
        np.testing.assert_array_equal(array[:32, :32, :32], big.expected[:32, :32, :32])
        header, start, nbytes = places["c/0/0/0"]
        first, index, chunk = server.ranges
        # The header and the index at once, for they are far from each other, then the chunk.
        assert {first, index} == {
            f"bytes={header}-{start - 1}",
            f"bytes={start + nbytes - 132}-{start + nbytes - 1}",
        }
        assert chunk == f"bytes={start}-{start + 4 * 32**3 - 1}"
        server.requests.clear()
        np.testing.assert_array_equal(array[40:60, :32, :32], big.expected[40:60, :32, :32])
        assert len(server.requests) == 1
        assert all(request.if_match == etag for request in server.requests)
        np.testing.assert_array_equal(array[...], big.expected)
        server.requests.clear()
        np.testing.assert_array_equal(array[:, 40], big.expected[:, 40])
        report = array.explain(np.s_[:, 40])
        assert len(server.requests) == report.requests


def test_a_chunk_takes_one_request_with_its_header(cases, engine):
    case = cases("plain")
    data = pack(case.path)
    with FaultyServer({"x.zip": data}) as server:
        array = vf.open_array(f"{server.url}/x.zip", engine=engine)
        server.requests.clear()
        name = next(name for name in names_of(data) if name.startswith("c/"))
        header, start, nbytes = names_of(data)[name]
        corner = tuple(int(part) * extent for part, extent in zip(name.split("/")[1:], array.chunks, strict=True))
        array[corner]
        array[corner]
        assert server.ranges == [f"bytes={header}-{start + nbytes - 1}", f"bytes={start}-{start + nbytes - 1}"]


@pytest.mark.parametrize("packer", PACKERS)
def test_no_writer_costs_more_requests(packer, big, engine):
    """Local headers may be longer than the directory says, and sizes may stand behind the data."""
    data = PACKERS[packer](big.path)
    with FaultyServer({"x.zip": data}) as server:
        vf.open_array(f"{server.url}/x.zip", engine=engine)
        assert len(server.requests) == 2
        got, count = requests_of(server, Ask("c/1/1/0", suffix=132))
        assert bytes(got.body) == (big.path / "c/1/1/0").read_bytes()[-132:]
        method = data[data.index(b"c/1/1/0") - 22]
        assert count == {zipfile.ZIP_STORED: 2, zipfile.ZIP_DEFLATED: 1}[method]


def requests_of(server, *asks):
    """Outcome of each ask for a member of `x.zip`, and how many requests it took; the directory is read before."""

    async def work(clients):
        store = ZipStore(HttpStore(server.url), "x.zip")
        await store.list("", clients)
        for ask in asks:
            server.requests.clear()
            yield await store.get(ask, clients), len(server.requests)

    async def outcomes(clients):
        return [one async for one in work(clients)]

    found = run(outcomes)
    return found[0] if len(found) == 1 else found


def test_what_lies_between_members_costs_one_request_more():
    far, extra = bytes(100_000), struct.pack("<2H40x", 0x7777, 40)
    members = [
        Made(b"a", far + b"A" * 100),
        Made(b"b", far + b"B" * 100, extra=extra),
        Made(b"c", b"C" * 100, extra=extra),
    ]
    for one in members:
        one.behind = b"?" * 200_000
    asks = [Ask("a", suffix=50), Ask("b", suffix=50), Ask("b", suffix=20), Ask("c", 5, 30), Ask("c", 5, 30)]
    with FaultyServer({"x.zip": archive(*members)}) as server:
        got = requests_of(server, *asks)
    assert [bytes(reply.body) for reply, _ in got] == [b"A" * 50, b"B" * 50, b"B" * 20, b"C" * 25, b"C" * 25]
    assert [count for _, count in got] == [2, 3, 1, 2, 1]


def test_a_long_directory_takes_one_request_more(engine):
    members = [Made(b"%06d" % number, b"%d" % number) for number in range(70_000)]
    data = archive(*members, Made(b"zarr.json", group()), zip64=True)
    with FaultyServer({"x.zip": data}) as server:
        opened = vf.open(f"{server.url}/x.zip", engine=engine)
        assert isinstance(opened, vf.Group)
        assert len(server.requests) == 3
        assert server.ranges[0] == f"bytes=-{TAIL_NBYTES}"
        assert server.ranges[1].endswith(f"-{len(data) - TAIL_NBYTES - 1}")
    for ask, got in zip(asks := [Ask("069999"), Ask("000000")], in_memory(data, *asks), strict=True):
        assert bytes(got.body) == b"%d" % int(ask.key)


def test_compressed_members_are_fetched_once_for_many_parts(big, engine, caplog):
    data = pack(big.path, zipfile.ZIP_DEFLATED)
    with FaultyServer({"x.zip": data}) as server:
        array = vf.open_array(f"{server.url}/x.zip", engine=engine)
        server.requests.clear()
        np.testing.assert_array_equal(array[:64, :64], big.expected[:64, :64])
        np.testing.assert_array_equal(array[5:20, 3], big.expected[5:20, 3])
        assert len(server.requests) == 1
    # The server knows ranges, and nobody is told otherwise.
    assert not [record for record in caplog.records if record.name == "voxfetch"]


@pytest.mark.parametrize("suffixes", [206, 416, 200])
def test_servers_without_suffixes(suffixes, volume, engine):
    with FaultyServer({"x.zip": pack(volume.path)}, suffixes=suffixes) as server:
        array = vf.open_array(f"{server.url}/x.zip", engine=engine)
        np.testing.assert_array_equal(array[...], volume.expected)


def test_a_server_that_ignores_ranges(volume, engine):
    with FaultyServer({"x.zip": pack(volume.path)}, suffixes=200) as server:
        server.rule = lambda _: FAULTS["200 for a range"]
        array = vf.open_array(f"{server.url}/x.zip", engine=engine)
        np.testing.assert_array_equal(array[...], volume.expected)
        # The end that is asked for is all of it, from which nobody learns that ranges are ignored.
        assert len(server.requests) == 2


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_once_is_right_or_an_error(name, volume):
    with (
        vf.Engine(
            decode_threads=2, retry=vf.RetryPolicy(max_attempts=4, base_s=0.01, cap_s=0.05, idle_timeout_s=0.3)
        ) as engine,
        FaultyServer({"x.zip": pack(volume.path)}) as server,
    ):
        for at in range(4):
            server.faults.extend([None] * at + [FAULTS[name]])
            try:
                array = vf.open_array(f"{server.url}/x.zip", engine=engine)
                got = array[...]
            except vf.VoxfetchError:
                pass
            else:
                np.testing.assert_array_equal(got, volume.expected)
            server.faults.clear()
            engine.close()


# --------------------------------------------------------------------------------------------------------- where it is


def test_on_s3(volume, engine):
    data = pack(volume.path)
    with moto_s3({"dir/x.zip": data, "whatever": data, "x.ozx": data}) as url:
        options = vf.StoreOptions(endpoint=url, credentials=CREDENTIALS, region="us-east-1")
        for source in ("s3://bucket/dir/x.zip", "s3://bucket/whatever|zip:", "s3://bucket/x.ozx|zip:|zarr3:"):
            array = vf.open_array(source, options=options, engine=engine)
            np.testing.assert_array_equal(array[BOX], volume.expected[BOX])
        with pytest.raises(vf.NotFoundError, match="there is no such archive"):
            vf.open("s3://bucket/none.zip", options=options, engine=engine)


def test_on_gcs_and_azure(volume, engine):
    stored = Stored(pack(volume.path))
    with GcsServer({"bucket/dir/x.zip": stored}) as gcs, AzureServer({"container/x.ozx": stored}, public=True) as azure:
        public = {"credentials": {"account": "account"}, "anonymous": True, "endpoint": azure.url}
        for source, options in [
            ("gs://bucket/dir/x.zip", {"anonymous": True, "endpoint": gcs.url}),
            # It knows no suffixes.
            ("az://container/x.ozx", public),
        ]:
            array = vf.open_array(source, options=options, engine=engine)
            np.testing.assert_array_equal(array[BOX], volume.expected[BOX])


def test_a_file_as_a_store(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(range(100)))
    store = FileStore(str(path))
    whole, part, end = get(store, Ask(""), Ask("", 5, 9), Ask("", suffix=3))
    assert bytes(whole.body) == path.read_bytes()
    assert (bytes(part.body), part.start, part.total, part.etag) == (b"\5\6\7\x08", 5, 100, whole.etag)
    assert (bytes(end.body), end.start) == (b"abc", 97)
    asks = [Ask("", 5, 101), Ask("", 5, 9, if_match='"other"'), Ask("", max_nbytes=99), Ask("other")]
    outside, other, large, none = get(store, *asks)
    assert [type(one) for one in (outside, other)] == [vf.ObjectChangedError] * 2
    assert isinstance(large, vf.LimitExceededError)
    assert none is None
    assert get(FileStore(str(tmp_path)), Ask("")) is None
    assert get(FileStore(str(tmp_path / "none")), Ask("")) is None
    path.write_bytes(bytes(100))
    assert isinstance(get(pickle.loads(pickle.dumps(store)), Ask("", 5, 9, if_match=whole.etag)), vf.ObjectChangedError)


def test_sources(volume, tmp_path, engine, monkeypatch):
    shutil.copytree(volume.path, tmp_path / "top/in/a.zarr")
    data = pack(tmp_path / "top")
    (tmp_path / "x.zip").write_bytes(data)
    (tmp_path / "x.data").write_bytes(data)
    (tmp_path / "begun.data").write_bytes(pack(tmp_path / "top", before=b"#!/bin/sh\n"))
    monkeypatch.chdir(tmp_path)
    for source in (
        "x.zip|zip:in/a.zarr",
        "x.zip/in/a.zarr",
        "x.data|zip:/in/|zarr3:a.zarr",
        "zarr3://x.data/in/a.zarr",
        "begun.data/in/a.zarr",
        Path("x.zip/in/a.zarr"),
        f"file://{tmp_path}/x.zip|zip:in|zarr:a.zarr",
    ):
        np.testing.assert_array_equal(vf.open_array(source, engine=engine)[BOX], volume.expected[BOX])
    array = vf.open_array("x.zip", "in/a.zarr", engine=engine)
    np.testing.assert_array_equal(array[BOX], volume.expected[BOX])
    opened = asyncio.run(vf.open_array_async("x.zip", "in/a.zarr", engine=engine))
    np.testing.assert_array_equal(asyncio.run(opened.read_async(BOX)), volume.expected[BOX])
    with pytest.raises(vf.NotFoundError, match=r"it holds: in; `ARCHIVE\|zip:PATH`"):
        vf.open("x.zip", engine=engine)
    with FaultyServer({"x.zip": data, "y": data}) as server:
        for source in ("x.zip|zip:in/a.zarr", "x.zip?sig=1|zip:in/a.zarr", "y|zip:in/a.zarr"):
            np.testing.assert_array_equal(vf.open_array(f"{server.url}/{source}", engine=engine)[0], volume.expected[0])
        for source in ("none.zip", "none|zip:"):
            with pytest.raises(vf.NotFoundError, match="there is no such archive"):
                vf.open(f"{server.url}/{source}", engine=engine)


def test_what_is_no_archive(volume, tmp_path, engine):
    shutil.copytree(volume.path, tmp_path / "folder.zip")
    np.testing.assert_array_equal(vf.open_array(tmp_path / "folder.zip")[BOX], volume.expected[BOX])
    with FaultyServer(tmp_path) as server:
        np.testing.assert_array_equal(vf.open_array(f"{server.url}/folder.zip/", engine=engine)[0], volume.expected[0])
    (tmp_path / "file.tif").write_bytes(b"II*\0" + bytes(100))
    (tmp_path / "text.zip").write_bytes(b"no archive" * 10)
    for source, kind, message in [
        ("file.tif", vf.UnsupportedError, "this is a file"),
        ("file.tif|zip:", vf.DataError, "no ZIP archive"),
        ("text.zip", vf.DataError, "no ZIP archive"),
        ("none.zip", vf.NotFoundError, "there is no such"),
        ("none.zip|zip:", vf.NotFoundError, "there is no such"),
        ("folder.zip|zip:", vf.UnsupportedError, "a folder and not an archive"),
        ("a.zip|zip:b.zip|zip:", vf.UnsupportedError, "an archive within another"),
        ("a|zarr3:b.zip|zip:", vf.UnsupportedError, "an archive within another"),
        ("text.zip|zip:../..", vf.VoxfetchError, ""),
    ]:
        with pytest.raises(kind) as caught:
            vf.open(f"{tmp_path}/{source}", engine=engine)
        assert message in str(caught.value)
        assert caught.value.hint
    with pytest.raises(vf.UnsupportedError, match="archives are not written"):
        vf.create(f"{tmp_path}/new.zip|zip:", shape=(1,), dtype="u1")
    array = vf.open_array(packed(volume, tmp_path / "a.zip").path, mode="r+", engine=engine)
    with pytest.raises(vf.UnsupportedError):
        array[...] = volume.expected


def test_pickles_small_and_forks(volume, tmp_path, engine):
    case = packed(volume, tmp_path / "a.zip")
    array = vf.open_array(case.path, engine=engine)
    array[0]
    pickled = pickle.dumps(array)
    assert len(pickled) < 4000
    copy = pickle.loads(pickled)
    assert copy == array
    np.testing.assert_array_equal(copy[BOX], volume.expected[BOX])
    if hasattr(os, "fork"):
        code = "check()\nin_child(check, 2)\ncheck()\nin_child(check_async)\ncheck()\nprint('done')"
        run_forked(code, case, tmp_path)
