"""What users name as a source: which store has it, with which options, and what is refused."""

from __future__ import annotations

import types
from pathlib import Path

import adlfs
import fsspec
import gcsfs
import obstore.store
import pytest
import s3fs
import zarr
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from fsspec.implementations.dirfs import DirFileSystem

import voxfetch as vf
from tests.servers.asking import get
from tests.stores import DATA, KEY, SECRET, nothing_is_found  # noqa: F401 - a fixture
from voxfetch.options import StoreOptions
from voxfetch.store import Ask
from voxfetch.store.adapters import AdapterStore, ObspecStore
from voxfetch.store.fsspec_options import store_options
from voxfetch.store.http import HttpStore
from voxfetch.store.object import ObjectStore
from voxfetch.store.place import Place, parse_place
from voxfetch.store.resolve import local_source, remote_store


def options_of(store):
    return store._options


# --------------------------------------------------------------------------------------------------------------- URLs


@pytest.mark.parametrize(
    ("url", "place", "shown"),
    [
        ("s3://bucket", Place("s3", "bucket", ""), "s3://bucket"),
        ("s3://bucket/", Place("s3", "bucket", ""), "s3://bucket"),
        ("S3://bucket/a/b c%20#?/", Place("s3", "bucket", "a/b c%20#?"), "s3://bucket/a/b c%20#?"),
        ("gs://bucket/a", Place("gcs", "bucket", "a"), "gs://bucket/a"),
        ("gcs://bucket/a", Place("gcs", "bucket", "a"), "gs://bucket/a"),
        ("az://container/a", Place("azure", "container", "a"), "az://container/a"),
        ("abfs://container/a", Place("azure", "container", "a"), "az://container/a"),
        (
            "abfss://container@account.dfs.core.windows.net/a",
            Place("azure", "container", "a", "account"),
            "abfs://container@account.dfs.core.windows.net/a",
        ),
        (
            "https://account.blob.core.windows.net/container/a%20b",
            Place("azure", "container", "a b", "account"),
            "abfs://container@account.dfs.core.windows.net/a b",
        ),
        (
            "https://account.blob.core.windows.net/container/a?sv=1&sig=hunter2",
            Place("azure", "container", "a", "account", "sv=1&sig=hunter2"),
            "abfs://container@account.dfs.core.windows.net/a",
        ),
    ],
)
def test_urls_of_object_stores(url, place, shown):
    assert parse_place(url) == place
    assert place.url == shown
    store, inside = remote_store(url)
    assert isinstance(store, ObjectStore)
    assert (store.url, inside) == (shown, "")


@pytest.mark.parametrize(
    "url",
    [
        f"s3://{KEY}:{SECRET}@bucket/a",
        "s3://",
        "s3:///a",
        "s3://bucket//a",
        "s3://bucket/a//b",
        "s3://bucket/a/../b",
        "abfs://container@evil.example/a",
        "https://account.blob.core.windows.net/container/a?restype=container",
        "https://user:hunter2@account.blob.core.windows.net/container/a",
        "ftp://host/a",
        "memory://x",
    ],
)
def test_urls_that_are_refused(url):
    with pytest.raises(vf.UnsupportedError) as caught:
        remote_store(url)
    assert SECRET not in str(caught.value)


def test_plain_http():
    store, inside = remote_store("https://host/a/b?sig=hunter2", StoreOptions(headers={"a": "b"}))
    assert isinstance(store, HttpStore)
    assert (store.url, inside) == ("https://host/a/b", "")
    assert (
        remote_store("https://host/a", {"headers": {"a": "b"}})[0]
        == remote_store("https://host/a", StoreOptions(headers={"a": "b"}))[0]
    )
    with pytest.raises(ValueError, match="region"):
        remote_store("https://host/a", StoreOptions(region="x"))


def test_local_sources(tmp_path):
    path = str(tmp_path)
    local = fsspec.filesystem("file")
    for source in (path, f"file://{path}", "relative/path", tmp_path):
        assert remote_store(source) is None
        assert local_source(source) is None, "who opens local sources knows these"
    array = zarr.create_array(path, name="a/x", shape=(2,), dtype="u1")
    wrapped = AsyncFileSystemWrapper(local, asynchronous=True)
    for source, inside in (
        (array, "a/x"),
        (zarr.storage.LocalStore(tmp_path), ""),
        (fsspec.get_mapper(path), ""),
        (zarr.storage.FsspecStore(wrapped, path=path), ""),
        (obstore.store.LocalStore(path), ""),
        (zarr.storage.ObjectStore(obstore.store.LocalStore(path)), ""),
        (path_of_fsspec(local, path), ""),
    ):
        assert remote_store(source) is None
        assert local_source(source) == (path, inside)


def path_of_fsspec(filesystem, path):
    """What a UPath looks like; the library is not needed for that."""
    cls = type("CloudPath", (), {"__module__": "upath.core"})
    one = cls()
    one.fs, one.path, one.root = filesystem, path, "/"
    return one


@pytest.mark.parametrize("source", [5, None, object(), b"bytes", {"a": 1}])
def test_what_is_no_source(source):
    with pytest.raises(vf.UnsupportedError):
        remote_store(source)
    assert local_source(source) is None


# ------------------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("s3", {}, StoreOptions()),
        ("s3", {"anon": True}, StoreOptions(anonymous=True)),
        ("s3", {"anon": False, "use_ssl": True, "default_block_size": 5}, StoreOptions()),
        (
            "s3",
            {
                "key": "k",
                "secret": "s",
                "token": "t",
                "client_kwargs": {"region_name": "r", "endpoint_url": "http://e"},
            },
            StoreOptions(credentials={"key": "k", "secret": "s", "token": "t"}, region="r", endpoint="http://e"),
        ),
        (
            "s3",
            {"username": "k", "password": "s", "endpoint_url": "http://e", "profile": "p"},
            StoreOptions(credentials={"key": "k", "secret": "s"}, endpoint="http://e", profile="p"),
        ),
        (
            "s3",
            {"client_kwargs": {"aws_access_key_id": "k", "aws_secret_access_key": "s"}},
            StoreOptions(credentials={"key": "k", "secret": "s"}),
        ),
        ("s3", {"requester_pays": True}, StoreOptions(headers={"x-amz-request-payer": "requester"})),
        ("s3", {"anonymous": True, "region": "r"}, StoreOptions(anonymous=True, region="r")),
        ("gcs", {"token": "anon"}, StoreOptions(anonymous=True)),
        ("gcs", {"token": "google_default", "project": "p"}, StoreOptions()),
        ("gcs", {"token": "ya29.token"}, StoreOptions(credentials={"token": "ya29.token"})),
        (
            "gcs",
            {"token": {"type": "service_account", "private_key": "k"}},
            StoreOptions(credentials={"type": "service_account", "private_key": "k"}),
        ),
        (
            "gcs",
            {"requester_pays": True, "project": "p"},
            StoreOptions(headers={"x-goog-user-project": "p"}),
        ),
        (
            "azure",
            {"account_name": "a", "account_key": "k"},
            StoreOptions(credentials={"account_name": "a", "account_key": "k"}),
        ),
        (
            "azure",
            {"account_name": "a", "anon": True, "account_host": "h"},
            StoreOptions(credentials={"account_name": "a"}, anonymous=True, endpoint="https://h"),
        ),
        (
            "http",
            {"headers": {"a": "b"}, "client_kwargs": {"headers": {"c": "d"}}},
            StoreOptions(headers={"a": "b", "c": "d"}),
        ),
    ],
)
def test_options_of_fsspec(kind, given, expected):
    assert store_options(kind, given) == expected


@pytest.mark.parametrize(
    ("kind", "given", "named"),
    [
        ("s3", {"annon": True}, "'annon'"),
        ("s3", {"client_kwargs": {"verify": "x"}}, "'client_kwargs.verify'"),
        ("s3", {"config_kwargs": {"proxies": {"http": SECRET}}}, "'config_kwargs.proxies'"),
        ("s3", {"session": object()}, "'session'"),
        ("gcs", {"key": SECRET}, "'key'"),
        ("gcs", {"token": {"type": "authorized_user", "refresh_token": SECRET}}, "authorized_user"),
        ("azure", {"credential": object()}, "'credential'"),
        ("http", {"client_kwargs": {"cookies": {}, "raise_for_status": SECRET}}, "'client_kwargs.raise_for_status'"),
    ],
)
def test_options_that_are_not_understood(kind, given, named):
    with pytest.raises(ValueError, match=named.replace(".", r"\.")) as caught:
        store_options(kind, given)
    assert SECRET not in str(caught.value)


def test_a_file_of_credentials(tmp_path):
    (tmp_path / "token.json").write_text("{}")
    found = store_options("gcs", {"token": str(tmp_path / "token.json")})
    assert found.credentials == {"application_credentials": str(tmp_path / "token.json")}


def test_unsigned_by_the_settings_of_botocore():
    import botocore

    assert store_options("s3", {"config_kwargs": {"signature_version": botocore.UNSIGNED}}).anonymous is True


# ------------------------------------------------------------------------------------------- objects of other libraries


def filesystems():
    return {
        "s3": (
            s3fs.S3FileSystem(key=KEY, secret=SECRET, endpoint_url="http://e", skip_instance_cache=True),
            "s3://bucket/root",
            {"credentials": {"key": KEY, "secret": SECRET}, "endpoint": "http://e"},
        ),
        "anonymous s3": (s3fs.S3FileSystem(anon=True), "s3://bucket/root", {"anonymous": True}),
        "gcs": (gcsfs.GCSFileSystem(token="anon"), "gs://bucket/root", {"anonymous": True}),
        "azure": (
            adlfs.AzureBlobFileSystem(account_name="account", account_key="aHVudGVyMg=="),
            "az://bucket/root",
            {"credentials": {"account_name": "account", "account_key": "aHVudGVyMg=="}},
        ),
    }


@pytest.mark.parametrize("name", ["s3", "anonymous s3", "gcs", "azure"])
def test_file_systems_become_stores_of_ours(name):
    filesystem, url, expected = filesystems()[name]
    sources = [
        (filesystem.get_mapper("bucket/root"), ""),
        (path_of_fsspec(filesystem, "bucket/root"), ""),
        (DirFileSystem("bucket/root", filesystem), ""),
    ]
    if name != "azure":  # adlfs complains at exit that nobody has run such a file system
        opened = zarr.storage.FsspecStore(asynchronous(filesystem), path="bucket/root")
        sources.append((zarr.storage.StorePath(opened, "a"), "a"))
    for source, where in sources:
        store, inside = remote_store(source)
        assert isinstance(store, ObjectStore)
        assert (store.url, inside) == (url, where)
        assert options_of(store) == StoreOptions(**expected)
    # A file system alone names no place: the path that comes with it does.
    store, inside = remote_store(filesystem, None, "bucket/root")
    assert (store.url, inside, options_of(store)) == (url, "", StoreOptions(**expected))


def asynchronous(filesystem):
    return type(filesystem)(asynchronous=True, **filesystem.storage_options)


def test_what_only_the_file_system_knows_is_left_to_it():
    filesystem = s3fs.S3FileSystem(anon=True, config_kwargs={"proxies": {"https": "http://proxy"}})
    store, _ = remote_store(filesystem.get_mapper("bucket/root"))
    assert isinstance(store, AdapterStore)
    assert store.url == "s3://bucket/root"


def test_http_of_fsspec():
    filesystem = fsspec.filesystem("https", client_kwargs={"headers": {"a": "b"}})
    store, _ = remote_store(filesystem.get_mapper("https://host/root"))
    assert store == HttpStore("https://host/root", headers={"a": "b"})


def test_other_file_systems_are_adapted():
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe_file("/resolve/x", DATA)
    store, _ = remote_store(filesystem.get_mapper("/resolve"))
    assert isinstance(store, AdapterStore)
    assert bytes(get(store, Ask("x", 1, 5)).body) == DATA[1:5]


def test_objects_of_zarr():
    memory = zarr.storage.MemoryStore()
    group = zarr.create_group(memory)
    array = group.create_array("a/b", shape=(2,), dtype="u1")
    for source, where in ((memory, ""), (group, ""), (array, "a/b"), (array.async_array, "a/b"), (group["a"], "a")):
        store, inside = remote_store(source)
        assert isinstance(store, AdapterStore)
        assert inside == where
        assert get(store, Ask("a/b/zarr.json")) is not None


def test_objects_of_obstore():
    own = obstore.store.S3Store("bucket", prefix="root", region="us-east-1")
    store, inside = remote_store(own)
    assert isinstance(store, ObjectStore)
    assert (store.url, inside) == ("s3://bucket/root", "")
    wrapped, inside = remote_store(zarr.storage.StorePath(zarr.storage.ObjectStore(own), "a"))
    assert (wrapped, inside) == (store, "a")
    memory = obstore.store.MemoryStore()
    assert isinstance(remote_store(memory)[0], ObjectStore)
    other = types.SimpleNamespace(get_async=memory.get_async)
    assert isinstance(remote_store(other)[0], ObspecStore)


def test_options_of_objects_are_part_of_them():
    own = obstore.store.MemoryStore()
    store, _ = remote_store(own, StoreOptions(missing_status=403))
    assert options_of(store).missing_status == 403
    for options in (StoreOptions(anonymous=True), {"region": "x"}):
        with pytest.raises(ValueError, match="MemoryStore"):
            remote_store(own, options)


def test_paths_are_local():
    assert remote_store(Path("x")) is None


def test_plain_http_of_obstore_is_read_by_our_own_client(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    options = {"allow_http": True, "timeout": "5s"}

    def kind(url="http://host/a", **client):
        store = obstore.store.HTTPStore(url, client_options=options | client, retry_config={"max_retries": 1})
        found, key = remote_store(store, None, "b")
        assert (found.url, key) == ("http://host/a", "b")
        return type(found).__name__

    assert kind() == "HttpStore"
    assert kind(default_headers={"authorization": "me"}) == kind(proxy_url="http://proxy") == "ObjectStore"
    assert kind("http://user:word@host/a") == "ObjectStore"
    monkeypatch.setenv("http_proxy", "http://proxy")
    assert kind() == "ObjectStore"
