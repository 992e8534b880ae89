"""Documents with references are foreign: what they may lead to, what they may say, and how much of it."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

import voxfetch as vf
from tests.references import flat, written
from tests.servers.asking import get, run
from tests.servers.faulty import FaultyServer, redirect
from tests.zips import FAST
from voxfetch.store import Ask, kerchunk
from voxfetch.store.file import FileStore
from voxfetch.store.http import HttpStore
from voxfetch.store.kerchunk import parse_references
from voxfetch.store.memory import MemoryStore
from voxfetch.store.object import ObjectStore
from voxfetch.store.references import ReferenceStore
from voxfetch.store.targets import Targets

SECRET = b"a secret"


@pytest.fixture
def engine():
    with vf.Engine(decode_threads=2, retry=FAST) as engine:
        yield engine


def led(document, url, allowed=()):
    """Where a reference leads: (URL of its store, key), or the error."""
    targets = Targets(document, allowed)

    async def find(clients):
        try:
            target = await targets.find(url)
        except vf.VoxfetchError as error:
            return error
        return target.store.url, target.key

    return run(find)


def is_refused(found):
    return isinstance(found, (vf.PermissionDeniedError, vf.UnsupportedError, vf.MetadataError))


# --------------------------------------------------------------------------------------------- where references lead

HTTP = (HttpStore("https://host/data"), "refs.json")
BUCKET = (ObjectStore("s3://bucket/data", vf.StoreOptions()), "refs.json")


@pytest.mark.parametrize(
    ("document", "url", "found"),
    [
        (HTTP, "a.h5", ("https://host/data", "a.h5")),
        (HTTP, "deep/a b.h5", ("https://host/data", "deep/a b.h5")),
        (HTTP, "https://host/data/a.h5", ("https://host/data", "a.h5")),
        (HTTP, "https://HOST:443/data/a%20b.h5", ("https://host/data", "a b.h5")),
        (HTTP, "https://host/data/a.h5?version=2", ("https://host/data/a.h5", "")),
        (HTTP, "https://host/data/a%2Fb.h5", ("https://host/data/a%2Fb.h5", "")),
        (BUCKET, "a.h5", ("s3://bucket/data", "a.h5")),
        (BUCKET, "s3://bucket/data/deep/a.h5", ("s3://bucket/data", "deep/a.h5")),
        (BUCKET, "s3a://bucket/data/a.h5", ("s3://bucket/data", "a.h5")),
    ],
)
def test_beside_the_document(document, url, found):
    assert led(document, url) == found


@pytest.mark.parametrize(
    ("document", "url"),
    [
        (document, url)
        for document in (HTTP, BUCKET)
        for url in (
            "https://host/other/a.h5",
            "https://host/data",
            "https://host/data-2/a.h5",
            "https://host/data/../a.h5",
            "https://host/data/%2e%2e/a.h5",
            "https://host/data/x/..%2f../a.h5",
            "https://host/data/..%5ca.h5",
            "https://host//data/a.h5",
            "https://host/data//a.h5",
            "https://host:8443/data/a.h5",
            "http://host/data/a.h5",
            "https://host.evil/data/a.h5",
            "https://host@evil/data/a.h5",
            "https://evil/data/a.h5",
            "http://169.254.169.254/latest/meta-data",
            "s3://bucket/other/a.h5",
            "s3://bucket/data/../a.h5",
            "s3://bucket/data-2/a.h5",
            "s3://bucket-2/data/a.h5",
            "s3://data/a.h5",
            "gs://bucket/data/a.h5",
            "abfs://bucket@account.dfs.core.windows.net/data/a.h5",
            "../a.h5",
            "x/../../a.h5",
            "..\\a.h5",
            "a//b",
            "/etc/passwd",
            "/data/a.h5",
            "file:///data/a.h5",
            "file:///etc/passwd",
            "file://localhost/etc/passwd",
            "FILE:///etc/passwd",
            "ftp://host/data/a.h5",
            "memory://x",
            "simplecache::s3://bucket/data/a.h5",
            "zip://x::s3://bucket/data/a.h5",
            "data:text/plain,x",
            "https://",
            "s3://",
            "a\0b",
        )
        if not (document is BUCKET and url == "data:text/plain,x")
        and not (document is HTTP and url.startswith("data:"))
    ],
)
def test_elsewhere(document, url):
    assert is_refused(led(document, url)), url


@pytest.mark.parametrize(
    ("prefix", "url", "found"),
    [
        ("s3://bucket-2", "s3://bucket-2/x/a.h5", ("s3://bucket-2", "x/a.h5")),
        ("s3://bucket-2/", "s3://bucket-2/x/a.h5", ("s3://bucket-2", "x/a.h5")),
        ("s3://bucket-2/x", "s3://bucket-2/x/a.h5", ("s3://bucket-2", "x/a.h5")),
        ("s3://bucket-2/x/a.h5", "s3://bucket-2/x/a.h5", ("s3://bucket-2", "x/a.h5")),
        ("https://h/d/", "https://h/d/a.h5", ("https://h", "d/a.h5")),
        ("https://h", "https://h/d/a.h5?sig=x", ("https://h/d/a.h5", "")),
        ("s3://bucket-2", "s3://bucket-22/a", None),
        ("s3://bucket-2", "s3://bucket/a", None),
        ("s3://bucket-2/x", "s3://bucket-2/xy/a", None),
        ("s3://bucket-2/x", "s3://bucket-2/a", None),
        ("s3://bucket-2/x", "s3://bucket-2/x/../a", None),
        ("https://h/d", "https://h/d2/a", None),
        ("https://h/d", "https://h.x/d/a", None),
        ("https://h/d", "https://h:444/d/a", None),
        ("https://h/d", "http://h/d/a", None),
        ("https://h/d", "https://h/d/%2E%2E/a", None),
        ("https://h/d", "https://h/%64/a", ("https://h/d/a", "")),
        ("/", "s3://bucket-2/a", None),
    ],
)
def test_allowed_prefixes(prefix, url, found):
    got = led(HTTP, url, [prefix])
    assert is_refused(got) if found is None else got[1] == found[1] and got[0].replace("%64", "d") == found[0]


def test_files(tmp_path):
    folder, other = tmp_path / "data", tmp_path / "data-2"
    folder.mkdir()
    other.mkdir()
    (folder / "deep").mkdir()
    (other / "a").write_bytes(SECRET)
    (folder / "link").symlink_to(other / "a")
    (folder / "way").symlink_to(other)
    (tmp_path / "in").symlink_to(folder)
    document = (FileStore(str(folder / "refs.json")), "")
    inside = [
        "a",
        "deep/a",
        "deep/../a",
        "../data/a",
        str(folder / "a"),
        f"file://{folder}/a",
        f"file://localhost{folder}/a",
        str(tmp_path / "in/a"),
    ]
    for url in inside:
        found = led(document, url)
        assert found[0].startswith(f"file://{folder}/"), (url, found)
        assert found[0].endswith("/a")
    outside = [
        "../data-2/a",
        "link",
        "way/a",
        "deep/../../data-2/a",
        str(other / "a"),
        f"file://{other}/a",
        "/etc/passwd",
    ]
    for url in [*outside, f"file://{folder}/%2e%2e/data-2/a", "file://other/etc/passwd", "a\0b", "/a\0b"]:
        assert is_refused(led(document, url)), url
    for prefix in (str(other), f"{other}/", f"file://{other}", str(tmp_path)):
        assert led(document, "way/a", [prefix]) == (f"file://{other}/a", "")
    assert is_refused(led(document, "way/a", [str(tmp_path / "data-")]))
    # A document from elsewhere reads no file unless it is allowed.
    assert is_refused(led(HTTP, str(folder / "a")))
    assert led(HTTP, str(other / "a"), [str(other)]) == (f"file://{other}/a", "")
    through = (FileStore(str(tmp_path / "in/refs.json")), "")
    assert led(through, "deep/a") == (f"file://{folder}/deep/a", "")


def test_a_document_without_a_folder():
    for url in ("a.h5", "/a.h5", "https://host/a.h5", "memory://references/a"):
        assert is_refused(led((MemoryStore({"": b"{}"}, "references"), ""), url)), url


def test_prefixes_that_are_none():
    for prefix in ("data", "", "ftp://x", "s3://", "https://user:hunter2@h/d", "https://h/d?sig=hunter2", "a/../b"):
        with pytest.raises(ValueError) as caught:
            Targets(HTTP, [prefix])
        assert "hunter2" not in str(caught.value)
    for wrong in ("s3://bucket", [3], [b"x"]):
        with pytest.raises(TypeError):
            vf.open({".zgroup": {"zarr_format": 2}}, format_options={"allowed_prefixes": wrong})


def test_nothing_outside_is_asked_for(tmp_path, engine):
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    with FaultyServer({"secret": SECRET}) as other:
        urls = [str(secret), f"file://{secret}", "../secret", f"{other.url}/secret"]
        for number, url in enumerate(urls):
            documents = flat(np.zeros(8)) | {"0": [url, 0, 8]}
            path = written(tmp_path / "data", documents)
            for source in (path, documents):
                array = vf.open(source, engine=engine)
                with pytest.raises(vf.VoxfetchError, match="not followed") as caught:
                    array[...]
                assert "allowed_prefixes" in str(caught.value)
            whole = vf.open(written(tmp_path / "data", flat(np.zeros(8)) | {"0": [url]}), engine=engine)
            with pytest.raises(vf.VoxfetchError, match="not followed"):
                whole[...]
            # A document that is a reference is none either.
            with pytest.raises(vf.VoxfetchError):
                vf.open({".zgroup": [url], ".zarray": [url]}, engine=engine)
            with FaultyServer({"d/refs.json": json.dumps(documents).encode(), "secret": SECRET}) as server:
                array = vf.open(f"{server.url}/d/refs.json", engine=engine)
                with pytest.raises(vf.VoxfetchError):
                    array[...]
                assert [request.key for request in server.requests] == ["d/refs.json"], number
        assert not other.requests


def test_secrets_stay_out_of_errors(engine):
    url = "https://user:hunter2@host/a.h5?token=hunter2"
    array = vf.open(flat(np.zeros(8)) | {"0": [url, 0, 8]}, engine=engine)
    with pytest.raises(vf.PermissionDeniedError) as caught:
        array[...]
    assert "hunter2" not in str(caught.value)
    assert "https://host/a.h5" in str(caught.value)


def test_headers_go_to_the_host_of_the_document_only(engine):
    documents = flat(np.zeros(16), chunks=(8,))
    with FaultyServer({"a": SECRET}) as other, FaultyServer({}) as server:
        documents |= {"0": ["a", 0, 8], "1": [f"{other.url}/a", 0, 8]}
        server.put("refs.json", json.dumps(documents).encode())
        server.put("a", SECRET)
        array = vf.open(
            f"{server.url}/refs.json",
            engine=engine,
            options=vf.StoreOptions(headers={"authorization": "Bearer hunter2"}),
            format_options={"allowed_prefixes": [other.url]},
        )
        assert array[...].tobytes() == SECRET * 2
        assert {request.headers.get("authorization") for request in server.requests} == {"Bearer hunter2"}
        assert {request.headers.get("authorization") for request in other.requests} == {None}
        # To a prefix that the caller named for a document of their own they go.
        vf.open(
            documents | {"0": [f"{other.url}/a", 0, 8]},
            engine=engine,
            options=vf.StoreOptions(headers={"x-key": "k"}, region="eu"),
            format_options={"allowed_prefixes": [other.url]},
        )[...]
        assert other.requests[-1].headers["x-key"] == "k"


def test_redirects_to_the_secrets_of_the_machine(engine):
    with FaultyServer(
        {"refs.json": json.dumps(flat(np.zeros(8)) | {"0": ["a", 0, 8]}).encode(), "a": SECRET}
    ) as server:
        array = vf.open(f"{server.url}/refs.json", engine=engine)
        server.rule = lambda request: redirect("http://169.254.169.254/x")
        with pytest.raises(vf.StoreError, match="not followed"):
            array[...]


# ------------------------------------------------------------------------------------------------- what documents say

GROUP = {".zgroup": {"zarr_format": 2}}


@pytest.mark.parametrize(
    ("document", "kind", "what"),
    [
        (b"", vf.MetadataError, "not a JSON document"),
        (b"\xff\xfe", vf.MetadataError, "not a JSON document"),
        (b"<html>", vf.MetadataError, "not a JSON document"),
        (b"[" * 100_000, vf.LimitExceededError, "nested"),
        (b'{"refs":{"a":' + b'{"a":' * 100_000, vf.LimitExceededError, "nested"),
        (b'{"refs":{"a":["x",' + b"9" * 5000 + b",1]}}", vf.MetadataError, "not a JSON document|number"),
        (b"[]", vf.UnsupportedError, "no references"),
        (b'{"a": "b"}', vf.UnsupportedError, "no references"),
        (b'{"zarr_format": 3, "node_type": "group"}', vf.UnsupportedError, "no references"),
        ({"refs": []}, vf.MetadataError, "refs: a JSON object"),
        ({"version": 2, "refs": {}}, vf.UnsupportedError, "version 2"),
        ({"version": True, "refs": {}}, vf.UnsupportedError, "version True"),
        ({"version": "1", "refs": {}}, vf.UnsupportedError, "version"),
        (GROUP | {"a": None}, vf.MetadataError, "'a' is None"),
        (GROUP | {"a": 5}, vf.MetadataError, "'a' is 5"),
        (GROUP | {"a": []}, vf.MetadataError, "'a' is list"),
        (GROUP | {"a": ["u", 1]}, vf.MetadataError, "'a' is list"),
        (GROUP | {"a": ["u", 1, 2, 3]}, vf.MetadataError, "'a' is list"),
        (GROUP | {"a": [5, 1, 2]}, vf.MetadataError, "text was expected, not 5"),
        (GROUP | {"a": ["", 1, 2]}, vf.MetadataError, "text was expected"),
        (GROUP | {"a": ["u", -1, 2]}, vf.MetadataError, "the number -1"),
        (GROUP | {"a": ["u", 1, -2]}, vf.MetadataError, "the number -2"),
        (GROUP | {"a": ["u", 1.0, 2]}, vf.MetadataError, r"the number 1\.0"),
        (GROUP | {"a": ["u", True, 2]}, vf.MetadataError, "the number True"),
        (GROUP | {"a": ["u", None, None]}, vf.MetadataError, "the number None"),
        (GROUP | {"a": ["u", 1 << 63, 2]}, vf.MetadataError, "the number"),
        (GROUP | {"a": ["u", (1 << 63) - 1, 1]}, vf.MetadataError, "after byte"),
        (GROUP | {"a": "base64:!"}, vf.MetadataError, "base64"),
        (GROUP | {"a": "base64:YQ"}, vf.MetadataError, "base64"),
        (GROUP | {"a": "\ud800"}, vf.MetadataError, "base64"),
        (GROUP | {"": "x"}, vf.MetadataError, "names nothing"),
        (GROUP | {"../a": "x"}, vf.MetadataError, "relative path"),
        (GROUP | {"/a": "x"}, vf.MetadataError, "relative path"),
        (GROUP | {"a//b": "x"}, vf.MetadataError, "relative path"),
        (GROUP | {".targets/0": "x"}, vf.MetadataError, "names nothing"),
        (GROUP | {".inline": "x"}, vf.MetadataError, "names nothing"),
        (GROUP | {".joined/40": "x"}, vf.MetadataError, "names nothing"),
        (GROUP | {"a": ["u" * 9000, 1, 2]}, vf.LimitExceededError, "9,000 letters"),
        ({"version": 1, "templates": []}, None, None),
        ({"version": 1, "templates": ["a"], "refs": {}}, vf.MetadataError, "templates"),
        ({"version": 1, "templates": {"u": 5}, "refs": {}}, vf.MetadataError, "templates"),
        ({"version": 1, "refs": {"a": ["{{u}}", 1, 2]}}, vf.UnsupportedError, "'u' in a template"),
        (
            {"version": 1, "templates": {"f": "{{c}}"}, "refs": {"a": ["{{f}}"]}},
            vf.UnsupportedError,
            "'f' in a template",
        ),
        ({"version": 1, "templates": {"f": "x"}, "refs": {"a": ["{{f(c=1)}}"]}}, vf.UnsupportedError, "f.c=1."),
        ({"version": 1, "templates": {"f": "x"}, "refs": {"a": ["{{f"]}}, vf.UnsupportedError, "template"),
        ({"version": 1, "templates": {"f": "x"}, "refs": {"a": ["{{f | upper}}"]}}, vf.UnsupportedError, "template"),
        ({"version": 1, "templates": {"f": "x"}, "refs": {"a": ["{{f}}{% if 1 %}"]}}, vf.UnsupportedError, "template"),
        ({"version": 1, "refs": {"a": ["{{().__class__}}"]}}, vf.UnsupportedError, "template"),
        ({"version": 1, "refs": {"a": ["{{__import__('os')}}"]}}, vf.UnsupportedError, "template"),
        ({"version": 1, "refs": {"a": ["{{" + "(" * 100 + "}}"]}}, vf.UnsupportedError, "template"),
        ({"version": 1, "refs": {"a": ["{{" + "1+" * 150 + "1}}"]}}, vf.UnsupportedError, "template"),
        ({"version": 1, "refs": {"a": ["{{9**9**9}}"]}}, vf.UnsupportedError, "template"),
        ({"version": 1, "refs": {"a": ["{{9999999999*9999999999}}"]}}, vf.MetadataError, "63 bits"),
        ({"version": 1, "refs": {"a": ["{{1//0}}"]}}, vf.MetadataError, "divides by 0"),
    ],
)
def test_documents(document, kind, what):
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    if kind is None:
        parse_references(data)
        return
    with pytest.raises(kind, match=what):
        parse_references(data)


def generated(**changes):
    generator = {"key": "{{i}}", "url": "u", "offset": "{{i}}", "length": "1", "dimensions": {"i": {"stop": 3}}}
    generator |= changes
    return json.dumps({"version": 1, "gen": [{k: v for k, v in generator.items() if v is not None}]}).encode()


@pytest.mark.parametrize(
    ("changes", "kind", "what"),
    [
        ({"key": None}, vf.MetadataError, "gen.key"),
        ({"url": None}, vf.MetadataError, "gen.url"),
        ({"length": None}, vf.MetadataError, "'offset' alone"),
        ({"offset": None}, vf.MetadataError, "'length' alone"),
        ({"offset": "x"}, vf.MetadataError, "not a number"),
        ({"offset": "-1"}, vf.MetadataError, "not a number"),
        ({"offset": "{{0 - i}}"}, vf.MetadataError, "not a number"),
        ({"offset": "9" * 30}, vf.MetadataError, "not a number"),
        ({"key": "same"}, vf.MetadataError, "two references"),
        ({"dimensions": None}, vf.MetadataError, "dimensions"),
        ({"dimensions": {}}, vf.MetadataError, "dimensions: 0"),
        ({"dimensions": {f"i{n}": [0] for n in range(40)}}, vf.MetadataError, "dimensions: 40"),
        ({"dimensions": {"i": 5}}, vf.MetadataError, "JSON object"),
        ({"dimensions": {"i": {}}}, vf.MetadataError, "integers"),
        ({"dimensions": {"i": {"stop": 1.5}}}, vf.MetadataError, "integers"),
        ({"dimensions": {"i": {"stop": 3, "step": 0}}}, vf.MetadataError, "step is 0"),
        ({"dimensions": {"i": ["a"]}}, vf.MetadataError, "integers"),
        ({"dimensions": {"i": {"stop": 1 << 70}}}, vf.MetadataError, "integers"),
        ({"dimensions": {"i": {"stop": 1 << 40}}}, vf.LimitExceededError, "gen"),
        ({"dimensions": {"i": {"start": -(1 << 62) - 5, "stop": 1 << 62}}}, vf.LimitExceededError, "gen"),
        ({"dimensions": {"i": {"start": 1 << 40, "stop": 0, "step": -1}}}, vf.LimitExceededError, "gen"),
        ({"dimensions": {"i": {"stop": 1 << 15}, "j": {"stop": 1 << 15}}}, vf.LimitExceededError, "gen"),
        ({"dimensions": {"i": {"stop": 1 << 15}, "j": {"stop": 1 << 15}, "k": []}}, vf.LimitExceededError, "gen"),
    ],
)
def test_generators(changes, kind, what):
    with pytest.raises(kind, match=what):
        parse_references(generated(**changes))


def test_generators_that_make_little():
    assert parse_references(generated()).keys == ["0", "1", "2"]
    assert parse_references(generated(dimensions={"i": {"start": 5, "stop": 0, "step": -2}})).keys == ["1", "3", "5"]
    assert parse_references(generated(dimensions={"i": {"stop": -5}})).keys == []
    assert parse_references(generated(dimensions={"i": []})).keys == []


def test_limits(monkeypatch):
    monkeypatch.setattr(kerchunk, "MAX_REFERENCES", 3)
    with pytest.raises(vf.LimitExceededError, match="4 references"):
        parse_references(json.dumps({"refs": dict.fromkeys("abcd", "")}).encode())
    with pytest.raises(vf.LimitExceededError, match="gen"):
        parse_references(generated(dimensions={"i": {"stop": 4}}))
    monkeypatch.setattr(kerchunk, "MAX_REFERENCES", 1 << 22)
    monkeypatch.setattr(kerchunk, "MAX_NBYTES", 100)
    with pytest.raises(vf.LimitExceededError, match="letters"):
        parse_references(generated(key="{{i}}" + "k" * 60))
    with pytest.raises(vf.LimitExceededError, match="letters"):
        parse_references(generated(url="{{i}}" + "k" * 60))
    monkeypatch.setattr("voxfetch.store.references.MAX_NBYTES", 100)
    store = MemoryStore({"x": b" " * 101})
    assert isinstance(get(ReferenceStore(store, "x", Targets((store, "x"))), Ask("a")), vf.LimitExceededError)


def test_what_is_no_document(tmp_path, engine):
    for name, body, what in (
        ("zarr.json", b'{"zarr_format": 3, "node_type": "group"}', "no references"),
        ("a.json", b"hello", "not a JSON document"),
    ):
        (tmp_path / name).write_bytes(body)
        with pytest.raises(vf.VoxfetchError, match=what) as caught:
            vf.open(tmp_path / name, engine=engine)
        assert name in str(caught.value)
    with pytest.raises(vf.NotFoundError):
        vf.open(tmp_path / "none.json", engine=engine)
    with pytest.raises(vf.UnsupportedError, match="folder"):
        vf.open(f"{tmp_path}|kerchunk:", engine=engine)
    with FaultyServer({}) as server, pytest.raises(vf.NotFoundError, match="no such document"):
        vf.open(f"{server.url}/refs.json", engine=engine)
    with pytest.raises(vf.UnsupportedError, match="within another"):
        vf.open("a.zip|zip:refs.json|kerchunk:", engine=engine)
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(vf.VoxfetchError):
        vf.open(tmp_path / "pipe.json", engine=engine)


def test_references_in_parquet(tmp_path, engine):
    (tmp_path / ".zmetadata").write_text(json.dumps({"metadata": GROUP, "record_size": 10_000}))
    with pytest.raises(vf.UnsupportedError, match="parquet"):
        vf.open(tmp_path, engine=engine)


def test_a_grid_of_any_size(engine):
    for shape, chunks in (([1 << 62, 1 << 62], [1, 1]), ([1 << 40], [1]), ([-5], [1]), (["a"], [1]), ([5], [0])):
        documents = flat(np.zeros(0)) | {"0.0": "x", "0": "x"}
        documents[".zarray"] |= {"shape": shape, "chunks": chunks}
        try:
            vf.open(documents, engine=engine)
        except vf.VoxfetchError:
            continue
        assert shape[0] > 0
        assert chunks[0] > 0


def test_generators_that_take_long():
    """Texts that are short whatever they take to work out."""
    with pytest.raises(vf.LimitExceededError, match="steps"):
        parse_references(generated(key="{{i-i}}" * 60, dimensions={"i": {"stop": 1 << 17}}))
