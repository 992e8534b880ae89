"""References of kerchunk: the same voxels as from the files they refer to, by few requests, wherever those lie."""

from __future__ import annotations

import json
import pickle
from base64 import b64encode
from pathlib import Path

import fsspec
import h5py
import hdf5plugin
import kerchunk.combine
import kerchunk.hdf
import kerchunk.utils
import kerchunk.zarr
import numpy as np
import pytest
import zarr

import voxfetch as vf
from tests.references import BASE64, flat, of_folder, of_hdf5, write_hdf5, written
from tests.servers.asking import get, run
from tests.servers.faulty import FaultyServer
from tests.servers.moto_s3 import BUCKET, moto_s3
from tests.stores import CREDENTIALS, nothing_is_found  # noqa: F401 - a fixture
from tests.zips import FAST
from voxfetch.cli import main
from voxfetch.store import Ask
from voxfetch.store.kerchunk import parse_references
from voxfetch.store.memory import MemoryStore
from voxfetch.store.references import ReferenceStore
from voxfetch.store.targets import Targets

DATA = Path(__file__).parent / "data"
FIB25 = DATA / "fib25/fib25.ome.zarr"
NAMES = ["volume", "big", "deep/er/floats", "contiguous", "short", "single", "holes"]


@pytest.fixture
def engine():
    with vf.Engine(decode_threads=2, retry=FAST) as engine:
        yield engine


@pytest.fixture
def file(tmp_path, make_values):
    """A file of HDF5, and what is in it."""
    path = tmp_path / "a.h5"
    return path, write_hdf5(path, make_values)


# ------------------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("inline", [0, 30, 10_000])
def test_files_of_hdf5(inline, file, tmp_path, engine):
    path, expected = file
    group = vf.open(written(tmp_path, of_hdf5(path, "a.h5", inline)), engine=engine)
    assert group.attrs["what"] == "a test"
    assert group["volume"].attrs["unit"] == "nm"
    assert list(group.keys()) == sorted({name.partition("/")[0] for name in expected})
    with h5py.File(path) as reader:
        for name in NAMES:
            array = group[name]
            np.testing.assert_array_equal(array[...], expected[name])
            np.testing.assert_array_equal(array[...], reader[name][...])
            assert array.verify().problem_count == 0
    np.testing.assert_array_equal(group["volume"][3:17, 15:20, 2:], expected["volume"][3:17, 15:20, 2:])


@pytest.mark.parametrize(
    "filters",
    [{"compression": 4}, {"compression": 4, "shuffle": True}, hdf5plugin.Zstd(), hdf5plugin.Blosc()],
    ids=["gzip", "shuffle", "zstd", "blosc"],
)
@pytest.mark.parametrize("dtype", ["<u2", ">i4"])
def test_filters_of_hdf5(filters, dtype, tmp_path, engine, make_values):
    expected = make_values((20, 31), dtype) % 100
    with h5py.File(tmp_path / "a.h5", "w") as writer:
        writer.create_dataset("x", data=expected, chunks=(8, 10), **filters)
    array = vf.open_array(written(tmp_path, of_hdf5(tmp_path / "a.h5", "a.h5")), "x", engine=engine)
    np.testing.assert_array_equal(array[...], expected)
    assert array.verify().problem_count == 0


def test_as_zarr_and_fsspec_read_them(file, tmp_path, engine):
    path, _ = file
    references = of_hdf5(path)
    store = kerchunk.utils.refs_as_store(references)
    group = vf.open(references, engine=engine, format_options={"allowed_prefixes": [str(tmp_path)]})
    reader = zarr.open_group(store, mode="r")
    for name in NAMES:
        np.testing.assert_array_equal(group[name][...], reader[name][...])
        # A store of zarr over a file system of references is a source as any other.
        np.testing.assert_array_equal(vf.open_array(reader[name], engine=engine)[...], reader[name][...])


@pytest.mark.parametrize("name", ["plain", "sharded", "v2 nested", "point", "v2 F big", "one chunk", "transposed"])
@pytest.mark.parametrize("form", ["parts", "whole"])
def test_every_layout(name, form, cases, tmp_path, engine):
    case = cases(name)
    keys = [path.relative_to(case.path).as_posix() for path in case.path.rglob("*") if path.is_file()]
    whole = keys if form == "whole" else ()
    references, blob = of_folder(case.path, "blob", whole=whole)
    path = written(tmp_path / "x", references, blob=blob)
    for key in whole:
        target = path.parent / f"{key}.bin"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((case.path / key).read_bytes())
    array = vf.open_array(path, engine=engine)
    np.testing.assert_array_equal(array[...], case.expected)
    if array.ndim == 3:
        np.testing.assert_array_equal(array[3:5, 4:15, 1:6], case.expected[3:5, 4:15, 1:6])
    assert array.verify().problem_count == 0


def test_a_folder_by_kerchunk(tmp_path, engine, make_values):
    expected = make_values((20, 30), "int32")
    group = zarr.create_group(tmp_path / "a", zarr_format=2)
    group.create_array("x", shape=expected.shape, chunks=(7, 8), dtype=expected.dtype)[...] = expected
    references = kerchunk.zarr.single_zarr(str(tmp_path / "a"))
    array = vf.open(references, engine=engine, format_options={"allowed_prefixes": [str(tmp_path / "a")]})["x"]
    np.testing.assert_array_equal(array[...], expected)


def test_combined_files(tmp_path, engine, make_values):
    expected = make_values((3, 10, 20), "uint16")
    parts = []
    for i, values in enumerate(expected):
        with h5py.File(tmp_path / f"{i}.h5", "w") as file:
            file["t"] = np.array([float(i)])
            file["t"].make_scale("t")
            file.create_dataset("x", data=values[None], chunks=(1, 5, 10)).dims[0].attach_scale(file["t"])
        parts.append(kerchunk.hdf.SingleHdf5ToZarr(str(tmp_path / f"{i}.h5"), inline_threshold=0).translate())
    together = kerchunk.combine.MultiZarrToZarr(parts, concat_dims=["t"], inline_threshold=0).translate()
    group = vf.open(written(tmp_path, together), engine=engine)
    np.testing.assert_array_equal(group["x"][...], expected)
    np.testing.assert_array_equal(group["t"][...], [0, 1, 2])
    reader = zarr.open_group(kerchunk.utils.refs_as_store(together), mode="r")
    np.testing.assert_array_equal(group["x"][1:, 3:7], reader["x"][1:, 3:7])
    # One a file.
    assert group["x"].explain(...).requests == 3
    short = vf.open(written(tmp_path, kerchunk.combine.MultiZarrToZarr(parts, concat_dims=["t"]).translate()))
    np.testing.assert_array_equal(short["x"][...], expected)


def test_an_image(tmp_path, engine):
    references, blob = of_folder(FIB25, "blob")
    image = vf.open_image(written(tmp_path, references, blob=blob), engine=engine)
    local = vf.open_image(FIB25)
    assert [level.scale for level in image.levels] == [level.scale for level in local.levels]
    np.testing.assert_array_equal(image.level(1)[20:70, 30:101], local.level(1)[20:70, 30:101])
    np.testing.assert_array_equal(image.labels["groundtruth"].level(2)[...], local.labels["groundtruth"].level(2)[...])


def test_consolidated_metadata(file, tmp_path, engine):
    path, expected = file
    references = of_hdf5(path, "a.h5")
    documents = {key: json.loads(value) for key, value in references["refs"].items() if Path(key).name.startswith(".z")}
    references["refs"][".zmetadata"] = json.dumps({"metadata": documents, "zarr_consolidated_format": 1})
    group = vf.open(written(tmp_path, references), engine=engine)
    array = group["deep/er/floats"]
    np.testing.assert_array_equal(array[...], expected["deep/er/floats"])
    assert array.explain(...).requests == 1
    again = pickle.loads(pickle.dumps(group))["deep/er/floats"]
    assert again.explain(...).requests == 1


def test_the_ways_to_name_them(file, tmp_path, engine):
    path, expected = file
    document = written(tmp_path, of_hdf5(path, "a.h5"))
    named = tmp_path / "other.txt"
    named.write_bytes(document.read_bytes())
    for source, keywords in (
        (document, {}),
        (str(document), {}),
        (f"{document}|kerchunk:", {}),
        (f"file://{document}|kerchunk:|zarr2:", {}),
        (f"kerchunk://{named}", {}),
        (named, {"format": "kerchunk"}),
        (f"{named}|kerchunk:", {}),
    ):
        array = vf.open_array(source, "deep/er/floats", engine=engine, **keywords)
        assert array.url == f"file://{named if 'other' in str(source) else document}|kerchunk:/deep/er/floats"
        np.testing.assert_array_equal(vf.open_array(array.url)[1], expected["deep/er/floats"][1])
    assert vf.open(f"{document}/deep/er", engine=engine).keys() == ("floats",)
    assert vf.open(f"{document}|kerchunk:deep", engine=engine).keys() == ("er",)


def test_templates_and_ranges(tmp_path, engine):
    values = np.arange(60, dtype="u1").reshape(6, 10)
    document = {
        "version": 1,
        "templates": {"dir": "data", "name": "x"},
        "gen": [
            {
                "key": "{{i}}.{{j}}",
                "url": "{{dir}}/{{ name }}{{i}}",
                "offset": "{{(j + 1) * 5 - 5}}",
                "length": "5",
                "dimensions": {"i": {"start": 0, "stop": 6, "step": 1}, "j": [0, 1]},
            },
            {"key": "other/{{i % 2}}{{i // 2}}", "url": "w", "dimensions": {"i": {"stop": 4}}},
        ],
        "refs": {**flat(values, chunks=(1, 5)), "whole": ["{{dir}}/x0"], "part": ["{{dir}}/x1", 2, 3]},
    }
    path = written(tmp_path, document)
    (tmp_path / "data").mkdir()
    for i, row in enumerate(values):
        (tmp_path / f"data/x{i}").write_bytes(row.tobytes())
    np.testing.assert_array_equal(vf.open(path, engine=engine)[...], values)
    store = store_of(json.dumps(document).encode())
    assert run(lambda clients: store.list("other", clients)) == ["00", "01", "10", "11"]
    keys = ["whole", "part"]
    found = [parse_references(json.dumps(document).encode()).find(key) for key in keys]
    assert [(one.offset, one.nbytes) for one in found] == [(0, (1 << 64) - 1), (2, 3)]


def test_lindi(file, tmp_path, engine):
    path, expected = file
    references = of_hdf5(path, "a.h5") | {"generationMetadata": {"generatedBy": "lindi"}}
    references["refs"]["big/.zattrs"] = {"_EXTERNAL_ARRAY_LINK": {"link_type": "hdf5_dataset", "url": "http://h/a.h5"}}
    document = tmp_path / "a.nwb.lindi.json"
    document.write_text(json.dumps(references))
    group = vf.open(document, engine=engine)
    np.testing.assert_array_equal(group["volume"][...], expected["volume"])
    with pytest.raises(vf.UnsupportedError, match="not among the references") as caught:
        group["big"]
    assert "http://h/a.h5" in str(caught.value)


# ------------------------------------------------------------------------------------------------------ what is asked


def test_few_requests(file, tmp_path, engine):
    path, expected = file
    document = json.dumps(of_hdf5(path, "a.h5")).encode()
    with FaultyServer({"d/refs.json": document, "d/a.h5": path.read_bytes()}) as server:
        group = vf.open(f"{server.url}/d/refs.json", engine=engine)
        assert group.url == f"{server.url}/d/refs.json|kerchunk:"
        array = group["volume"]
        assert [request.key for request in server.requests] == ["d/refs.json"]
        server.requests.clear()
        np.testing.assert_array_equal(array[...], expected["volume"])
        with h5py.File(path) as reader:
            dataset = reader["volume"].id
            stored = [dataset.get_chunk_info(i) for i in range(dataset.get_num_chunks())]
        (request,) = server.requests
        assert request.key == "d/a.h5"
        assert request.range.startswith(f"bytes={min(one.byte_offset for one in stored)}-")
        server.requests.clear()
        np.testing.assert_array_equal(array[:8, :16, :10], expected["volume"][:8, :16, :10])
        assert server.ranges == [f"bytes={stored[0].byte_offset}-{stored[0].byte_offset + stored[0].size - 1}"]
        server.requests.clear()
        np.testing.assert_array_equal(group["short"][...], expected["short"])
        np.testing.assert_array_equal(group["holes"][:16], expected["holes"][:16])
        # What lies in the document, and what lies nowhere.
        assert not server.requests
        whole = vf.open_array(f"{server.url}/d/refs.json|kerchunk:contiguous", engine=engine)
        np.testing.assert_array_equal(whole[2:4], expected["contiguous"][2:4])


def test_shards_are_read_by_their_parts(write_array, make_values, tmp_path, engine):
    case = write_array(
        tmp_path / "a", make_values((64, 64, 32), "uint32"), chunks=(16, 16, 16), shards=(64, 64, 32), compressors=None
    )
    references, blob = of_folder(case.path, "blob")
    with FaultyServer({"refs.json": json.dumps(references).encode(), "blob": blob}) as server:
        array = vf.open_array(f"{server.url}/refs.json", engine=engine)
        server.requests.clear()
        np.testing.assert_array_equal(array[:16, :16, :16], case.expected[:16, :16, :16])
        offset, nbytes = references["c/0/0/0"][1:]
        index, chunk = server.ranges
        assert index == f"bytes={offset + nbytes - 32 * 16 - 4}-{offset + nbytes - 1}"
        assert chunk == f"bytes={offset}-{offset + 4 * 16**3 - 1}"


def test_far_fewer_references_than_cells(tmp_path, engine):
    documents = flat(np.zeros(0), chunks=(1, 1))
    documents[".zarray"]["shape"] = [1 << 20, 1 << 20]
    array = vf.open(
        written(tmp_path, documents | {"5.7": "a", "1048575.1048575": "z", "1048576.0": "no", "05.7": "no"}),
        engine=engine,
    )
    np.testing.assert_array_equal(array[5:7, 7:9], [[ord("a"), 0], [0, 0]])
    assert array[-1, -1] == ord("z")


def test_keys_that_are_no_chunks(tmp_path, engine):
    documents = flat(np.zeros((2, 4)), chunks=(1, 2)) | {"0.0": "ab", "1.1": "cd"}
    for key in (
        "00.0",
        "0.00",
        "0.2",
        "2.0",
        "1",
        "1.0.0",
        "-1.0",
        "+1.0",
        "1. 0",
        "\u0661.0",
        "1.0/0",
        "9" * 30 + ".0",
    ):
        documents[key] = "no"
    array = vf.open(written(tmp_path, documents), engine=engine)
    assert array[...].tobytes() == b"ab\0\0\0\0cd"


def test_chunks_of_one_object_are_of_one_version(tmp_path, engine):
    documents = flat(np.zeros(4), chunks=(2,)) | {"0": ["x", 0, 2], "1": ["x", 2, 2]}
    array = vf.open(written(tmp_path, documents, x=b"abcd"), engine=engine)
    assert array[...].tobytes() == b"abcd"
    assert array._table.files == (".targets/0",)
    both = vf.open(written(tmp_path, documents | {"1": ["y", 2, 2]}, y=b"efgh"), engine=engine)
    assert both[...].tobytes() == b"abgh"
    assert both._table.files == (".joined/40",)


def test_chunks_at_the_same_bytes(tmp_path, engine):
    documents = flat(np.zeros(6), chunks=(2,)) | {"0": ["x", 0, 2], "1": ["x", 1, 2], "2": ["x", 0, 2]}
    array = vf.open(written(tmp_path, documents, x=b"abc"), engine=engine)
    assert array[...].tobytes() == b"abbcab"
    assert array[4:].tobytes() == b"ab"


def test_a_reference_to_a_file_that_is_gone(file, tmp_path, engine):
    path, _ = file
    references = of_hdf5(path, "gone.h5")
    references["refs"]["short/0"] = ["gone.bin"]
    group = vf.open(written(tmp_path, references), engine=engine)
    # Never the fill value: that a chunk is stored the document says.
    for name in ("volume", "short"):
        with pytest.raises(vf.NotFoundError, match="is not there") as caught:
            group[name][...]
        assert f"{tmp_path}/gone" in str(caught.value)
    with FaultyServer({"refs.json": json.dumps(references).encode()}) as server:
        array = vf.open_array(f"{server.url}/refs.json", "volume", engine=engine)
        with pytest.raises(vf.NotFoundError, match="is not there"):
            array[...]


def test_a_range_past_the_end_of_a_file(tmp_path, engine):
    documents = flat(np.zeros(4), chunks=(2,)) | {"0": ["x", 0, 2], "1": ["x", 2, 2]}
    array = vf.open(written(tmp_path, documents, x=b"abc"), engine=engine)
    assert array[:2].tobytes() == b"ab"
    with pytest.raises(vf.VoxfetchError):
        array[...]


def store_of(document, key="", allowed=(), objects=None):
    own = MemoryStore({key: document} | (objects or {}))
    return ReferenceStore(own, key, Targets((own, key), allowed))


def test_asks():
    document = {"version": 1, "refs": {"a/t": "text", "a/b": BASE64 + b64encode(b"\0\1\2\3").decode(), "o": {"x": 1}}}
    document["refs"] |= {"p": ["big", 2, 5], "w": ["big"], "e": ["big", 3, 0]}
    store = store_of(json.dumps(document).encode(), "d/refs.json", objects={"d/big": b"0123456789"})
    asks = [
        (Ask("a/t"), b"text", 0, 4),
        (Ask("a/b", 1, 3), b"\1\2", 1, 4),
        (Ask("a/b", suffix=9), b"\0\1\2\3", 0, 4),
        (Ask("p"), b"23456", 0, 5),
        (Ask("p", 1, 3), b"34", 1, 5),
        (Ask("p", suffix=2), b"56", 3, 5),
        (Ask("w", 1, 3), b"12", 1, 10),
        (Ask("w"), b"0123456789", 0, 10),
        (Ask("w", suffix=3), b"789", 7, 10),
        (Ask("e"), b"", 0, 0),
        (Ask(".targets/0", 4, 6), b"45", 4, 10),
        (Ask(".inline", 0, 4), b"text", 0, 16),
    ]
    for (ask, body, start, total), reply in zip(asks, get(store, *(ask for ask, *_ in asks)), strict=True):
        assert (bytes(reply.body), reply.start, reply.total) == (body, start, total), ask
    assert json.loads(bytes(get(store, Ask("o")).body)) == {"x": 1}
    assert get(store, Ask("a"), Ask("a/tt"), Ask(".targets/1"), Ask(".targets"), Ask("q")) == [None] * 5
    large, inline, over = get(store, Ask("p", max_nbytes=4), Ask("a/t", max_nbytes=3), Ask("p", 3, 7))
    assert isinstance(large, vf.LimitExceededError)
    assert isinstance(inline, vf.LimitExceededError)
    assert isinstance(over, vf.ObjectChangedError)
    etags = [reply.etag for reply in get(store, Ask("p"), Ask("w"), Ask(".targets/0"), Ask("a/t"))]
    assert len(set(etags[:3])) == 1
    for key, etag in (("p", etags[0]), ("a/t", etags[3])):
        same, other = get(store, Ask(key, 0, 1, if_match=etag), Ask(key, 0, 1, if_match='"x"'))
        assert bytes(same.body)
        assert isinstance(other, vf.ObjectChangedError)


def test_listings():
    keys = ["a/x", "a.b", "a/y/z", "a/y/w", "ab/c", "a0", "b"]
    store = store_of(json.dumps({"refs": dict.fromkeys(keys, "")}).encode())
    listings = {"": ["a", "a.b", "a0", "ab", "b"], "a": ["x", "y"], "a/y": ["w", "z"], "b": [], "none": []}
    for prefix, names in listings.items():
        assert run(lambda clients, prefix=prefix: store.list(prefix, clients)) == names


def test_copies(file, tmp_path, engine):
    path, expected = file
    document = written(tmp_path, of_hdf5(path, "a.h5"))
    group = vf.open(document, engine=engine)
    array, short = pickle.loads(pickle.dumps((group["volume"], group["short"])))
    np.testing.assert_array_equal(array[...], expected["volume"])
    np.testing.assert_array_equal(short[...], expected["short"])
    assert len(pickle.dumps(array)) < 4000
    held = pickle.dumps(group["big"].with_options(vf.ReadOptions()))
    array.engine.close()
    document.write_text(document.read_text() + " ")
    # The places of its chunks are those of the document as it was.
    with pytest.raises(vf.StoreError, match="replaced"):
        pickle.loads(held)[...]
    np.testing.assert_array_equal(group["big"][:3], expected["big"][:3])
    given = vf.open(of_hdf5(path), engine=engine, format_options={"allowed_prefixes": [str(tmp_path)]})["volume"]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(given))[...], expected["volume"])


def test_objects_of_a_bucket(file, tmp_path, engine):
    path, expected = file
    body = path.read_bytes()
    beside, elsewhere = (json.dumps(of_hdf5(path, url)).encode() for url in ("a.h5", f"s3://{BUCKET}/e/a.h5"))
    objects = {"d/refs.json": beside, "d/other.json": elsewhere, "d/a.h5": body, "e/a.h5": body}
    with moto_s3(objects) as url:
        options = vf.StoreOptions(endpoint=url, region="us-east-1", credentials=CREDENTIALS)
        for name, allowed in (("refs", []), ("other", [f"s3://{BUCKET}/e"])):
            array = vf.open_array(
                f"s3://{BUCKET}/d/{name}.json",
                "volume",
                options=options,
                engine=engine,
                format_options={"allowed_prefixes": allowed},
            )
            np.testing.assert_array_equal(array[...], expected["volume"])
        # A document on disk, or none at all: the options are for what it refers to.
        there = vf.open_array(
            json.loads(elsewhere),
            "volume",
            options={"key": "a", "secret": "b", "endpoint_url": url, "client_kwargs": {"region_name": "us-east-1"}},
            engine=engine,
            format_options={"allowed_prefixes": [f"s3://{BUCKET}"]},
        )
        np.testing.assert_array_equal(there[...], expected["volume"])
        with pytest.raises(vf.PermissionDeniedError, match="not followed"):
            vf.open_array(f"s3://{BUCKET}/d/other.json", "volume", options=options, engine=engine)[...]


def test_a_document_that_fsspec_reads(file, tmp_path, engine):
    path, expected = file
    fsspec.filesystem("memory").pipe_file("/refs/refs.json", json.dumps(of_hdf5(path)).encode())
    document = fsspec.open("memory://refs/refs.json")
    keywords = {"engine": engine, "format": "kerchunk", "format_options": {"allowed_prefixes": [f"file://{tmp_path}"]}}
    np.testing.assert_array_equal(vf.open_array(document, "volume", **keywords)[...], expected["volume"])


def test_info(file, tmp_path, capsys):
    path, _ = file
    document = written(tmp_path, of_hdf5(path, "a.h5"))
    assert main(["info", str(document)]) == 0
    assert main(["info", f"{document}|kerchunk:volume"]) == 0
    assert main(["ls", str(document)]) == 0
    shown = capsys.readouterr().out
    assert "|kerchunk:: group, zarr2 (kerchunk references)" in shown
    assert "/volume: array, zarr2 (kerchunk references)" in shown
    assert "deep/er/floats  40 x 12 float64" in shown
