"""Stores of zarr, fsspec and obspec through their own interfaces, and our store in memory: the same rules for all."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal

import fsspec
import numpy as np
import obstore.store
import pytest
import zarr
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from fsspec.implementations.memory import MemoryFileSystem
from zarr.core.buffer import default_buffer_prototype

import voxfetch as vf
from tests.references import of_folder
from tests.servers.asking import get, run
from tests.stores import DATA, SECRET, is_reply, listed
from tests.zips import pack
from voxfetch.store import Ask, RemoteStore, TransientError
from voxfetch.store.adapters import AdapterStore, ObspecStore
from voxfetch.store.foreign import FsspecSource, ZarrSource
from voxfetch.store.memory import MemoryStore

OBJECTS = {"a/c/0/0": DATA, "a/zarr.json": b"{}", "a/empty": b"", "b/c": b"other"}


class AsyncMemory(AsyncFileSystem):
    """A file system with a loop of its own, as s3fs has one."""

    protocol = "asyncmemory"
    cachable = False

    def __init__(self, objects=None, failure=None, **keywords):
        super().__init__(**keywords)
        self.objects = objects
        self.failure = failure
        self.loops = set()

    def _seen(self, path):
        self.loops.add(asyncio.get_running_loop())
        if self.failure is not None:
            raise self.failure
        if path not in self.objects:
            raise FileNotFoundError(path)
        return self.objects[path]

    async def _cat_file(self, path, start=None, end=None, **_):
        return self._seen(path)[start:end]

    async def _info(self, path, **_):
        return {"name": path, "size": len(self._seen(path)), "type": "file"}

    async def _ls(self, path, detail=True, **_):
        start = f"{path}/"
        found = {start + key.removeprefix(start).partition("/")[0] for key in self.objects if key.startswith(start)}
        if not found:
            raise FileNotFoundError(path)
        return sorted(found)


def of_fsspec_threads(tmp_path):
    MemoryFileSystem.store.clear()
    filesystem = MemoryFileSystem()
    for key, value in OBJECTS.items():
        filesystem.pipe_file(f"/root/{key}", value)
    return AdapterStore(FsspecSource(filesystem, "/root"))


def of_fsspec_loop(tmp_path):
    return AdapterStore(FsspecSource(AsyncMemory({f"root/{key}": value for key, value in OBJECTS.items()}), "root"))


def of_zarr_memory(tmp_path):
    prototype = default_buffer_prototype()
    return AdapterStore(
        ZarrSource(
            zarr.storage.MemoryStore({key: prototype.buffer.from_bytes(value) for key, value in OBJECTS.items()})
        )
    )


def of_zarr_zip(tmp_path):
    store = zarr.storage.ZipStore(tmp_path / "x.zip", mode="w")
    prototype = default_buffer_prototype()

    async def fill():
        for key, value in OBJECTS.items():
            await store.set(key, prototype.buffer.from_bytes(value))

    asyncio.run(fill())
    store.close()
    return AdapterStore(ZarrSource(zarr.storage.ZipStore(tmp_path / "x.zip", mode="r")))


def of_obspec(tmp_path):
    own = obstore.store.MemoryStore()
    for key, value in OBJECTS.items():
        obstore.put(own, key, value)
    return ObspecStore(own)


def of_ourselves(tmp_path):
    return MemoryStore(OBJECTS, "here")


STORES = [of_fsspec_threads, of_fsspec_loop, of_zarr_memory, of_zarr_zip, of_obspec, of_ourselves]


@pytest.fixture(params=STORES, ids=lambda function: function.__name__)
def store(request, tmp_path):
    return request.param(tmp_path)


def test_parts_and_whole_objects(store):
    whole, part, end, longer, missing, no_end = get(
        store,
        Ask("a/c/0/0"),
        Ask("a/c/0/0", 100, 300),
        Ask("a/c/0/0", suffix=24),
        Ask("a/c/0/0", suffix=5000),
        Ask("a/c/0/1", 0, 5),
        Ask("a/c/0/1", suffix=5),
    )
    assert is_reply(whole, DATA, 0, 1024)
    assert bytes(part.body) == DATA[100:300]
    assert part.start == 100
    assert part.total in {None, 1024}
    assert is_reply(end, DATA[1000:], 1000, 1024)
    assert is_reply(longer, DATA, 0, 1024)
    assert missing is no_end is get(store, Ask("nothing")) is None


def test_the_rules_of_all_stores(store):
    over, outside, large, empty, no_end = get(
        store,
        Ask("a/c/0/0", 1000, 1100),
        Ask("a/c/0/0", 5000, 5001),
        Ask("a/c/0/0", max_nbytes=1000),
        Ask("a/empty"),
        Ask("a/empty", suffix=10),
    )
    assert isinstance(over, vf.ObjectChangedError)
    assert isinstance(outside, vf.ObjectChangedError)
    assert isinstance(large, vf.LimitExceededError)
    assert is_reply(empty, b"", 0, 0)
    assert is_reply(no_end, b"", 0, 0)
    for ask, kind in ((Ask("a", 5, 5), vf.InternalError), (Ask("../x"), vf.MetadataError)):
        with pytest.raises(kind):
            run(lambda clients, ask=ask: store.get(ask, clients))


def test_listings(store):
    assert listed(store) == ["a", "b"]
    assert listed(store, "a") == ["c", "empty", "zarr.json"]
    assert listed(store, "nothing") == []


def test_names(store):
    assert repr(store).endswith(f"({store.url!r})")
    assert "://" in store.url
    checked: RemoteStore = store
    assert checked.identity == store.identity


def test_whoever_shows_etags_is_asked_for_them(tmp_path):
    for store in (of_obspec(tmp_path), of_ourselves(tmp_path)):
        etag = get(store, Ask("a/c/0/0", 1, 2)).etag
        same, other = get(store, Ask("a/c/0/0", 1, 2, if_match=etag), Ask("a/c/0/0", 1, 2, if_match='"x"'))
        assert is_reply(same, DATA[1:2], 1, 1024)
        assert isinstance(other, vf.ObjectChangedError)
    assert get(of_fsspec_loop(tmp_path), Ask("a/c/0/0")).etag is None


def test_file_systems_run_on_their_own_loop():
    filesystem = AsyncMemory({"root/x": DATA})
    store = AdapterStore(FsspecSource(filesystem, "root"))
    for _ in range(2):
        assert bytes(get(store, Ask("x", 1, 5)).body) == DATA[1:5]
    assert filesystem.loops == {filesystem.loop}


def test_a_file_system_for_some_other_loop_is_made_again():
    filesystem = AsyncMemory({"root/x": DATA}, asynchronous=True)
    store = AdapterStore(FsspecSource(filesystem, "root"))
    assert bytes(get(store, Ask("x", 1, 5)).body) == DATA[1:5]
    assert not filesystem.loops


@pytest.mark.parametrize("make", [of_fsspec_threads, of_fsspec_loop, of_zarr_memory])
def test_forked_children_read_on(make, tmp_path):
    store = make(tmp_path)
    assert get(store, Ask("b/c")).body is not None
    pid = os.fork()
    if pid == 0:
        signal.alarm(5)
        code = 1
        try:
            code = 0 if bytes(get(store, Ask("b/c")).body) == b"other" else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert bytes(get(store, Ask("b/c")).body) == b"other"


class WithStatusError(Exception):
    def __init__(self, status):
        super().__init__(f"GET https://host/x?sig={SECRET} gave {status}")
        self.status = status


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (PermissionError(SECRET), vf.PermissionDeniedError),
        (TimeoutError(), TransientError),
        (ConnectionResetError("reset"), TransientError),
        (OSError(f"https://user:{SECRET}@host"), vf.StoreError),
        (RuntimeError(f"at https://host/x?token={SECRET}"), vf.StoreError),
        (WithStatusError(404), type(None)),
        (WithStatusError(403), vf.PermissionDeniedError),
        (WithStatusError(401), vf.CredentialsError),
        (WithStatusError(503), TransientError),
        (WithStatusError(400), vf.StoreError),
        (IsADirectoryError("x"), type(None)),
    ],
    ids=lambda value: repr(value)[:30].replace(SECRET, "") if isinstance(value, Exception) else value.__name__,
)
def test_what_errors_of_others_become(failure, kind):
    store = AdapterStore(FsspecSource(AsyncMemory({}, failure), "root"))
    for error in get(store, Ask("x", 1, 2), Ask("x", suffix=5)):
        assert type(error) is kind
        assert SECRET not in str(error)
        assert getattr(error, "__cause__", None) is None
        assert getattr(error, "__context__", None) is None

    class Broken:
        async def get_async(self, path, *, options=None):
            raise failure

    for error in get(ObspecStore(Broken()), Ask("x", 1, 2), Ask("x", suffix=5)):
        assert type(error) is kind
        assert SECRET not in str(error)


def test_a_store_without_suffixes_and_listings():
    own = obstore.store.MemoryStore()
    obstore.put(own, "x", DATA)

    class NoSuffix:
        async def get_async(self, path, *, options=None):
            if isinstance(options.get("range"), dict):
                raise NotSupportedError("it does not support suffix ranges")
            return await own.get_async(path, options=options)

    class NotSupportedError(Exception):
        pass

    store = ObspecStore(NoSuffix())
    assert is_reply(get(store, Ask("x", suffix=24)), DATA[1000:], 1000, 1024)
    with pytest.raises(vf.UnsupportedError):
        listed(store)


def test_pickles():
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe_file("/pickles/x", DATA)
    store = AdapterStore(FsspecSource(filesystem, "/pickles"))
    assert get(store, Ask("x", 1, 5)) is not None
    copy = pickle.loads(pickle.dumps(store))
    assert bytes(get(copy, Ask("x", 1, 5)).body) == DATA[1:5]
    assert copy.identity == store.identity


def test_versions_in_memory():
    store = MemoryStore({"x": b"one"})
    first = get(store, Ask("x"))
    store.put("x", b"one")
    second = get(store, Ask("x"))
    assert first.etag != second.etag
    copy = pickle.loads(pickle.dumps(store))
    store.delete("x")
    assert get(store, Ask("x")) is None
    assert get(copy, Ask("x")) == second
    assert copy.identity != store.identity


# ------------------------------------------------------------------------------------------- every store of zarr-python


def zarr_local(folder):
    return zarr.storage.LocalStore(folder, read_only=True)


def zarr_memory(folder):
    prototype = default_buffer_prototype()
    files = [path for path in folder.rglob("*") if path.is_file()]
    return zarr.storage.MemoryStore(
        {path.relative_to(folder).as_posix(): prototype.buffer.from_bytes(path.read_bytes()) for path in files},
        read_only=True,
    )


def zarr_object(folder):
    return zarr.storage.ObjectStore(obstore.store.LocalStore(folder), read_only=True)


def zarr_object_memory(folder):
    own = obstore.store.MemoryStore()
    for path in folder.rglob("*"):
        if path.is_file():
            obstore.put(own, path.relative_to(folder).as_posix(), path.read_bytes())
    return zarr.storage.ObjectStore(own, read_only=True)


def zarr_fsspec(folder):
    filesystem = AsyncFileSystemWrapper(fsspec.filesystem("local"), asynchronous=True)
    return zarr.storage.FsspecStore(filesystem, read_only=True, path=str(folder))


def zarr_references(folder):
    references, blob = of_folder(folder, str(folder.parent / "blob"))
    (folder.parent / "blob").write_bytes(blob)
    texts = {key: json.dumps(value) if isinstance(value, dict) else value for key, value in references.items()}
    filesystem = fsspec.filesystem(
        "reference", fo=texts, asynchronous=True, remote_protocol="file", skip_instance_cache=True
    )
    return zarr.storage.FsspecStore(filesystem, read_only=True, path="")


def zarr_zip(folder):
    path = folder.parent / "a.zip"
    path.write_bytes(pack(folder))
    return zarr.storage.ZipStore(path, mode="r")


def zarr_wrapper(folder):
    return zarr.storage.WrapperStore(zarr_local(folder))


def zarr_logging(folder):
    return zarr.storage.LoggingStore(zarr_memory(folder), log_level="CRITICAL")


ZARR_STORES = [
    zarr_local,
    zarr_memory,
    zarr_object,
    zarr_object_memory,
    zarr_fsspec,
    zarr_references,
    zarr_zip,
    zarr_wrapper,
    zarr_logging,
]


@pytest.mark.parametrize("make", ZARR_STORES, ids=lambda function: function.__name__)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_stores_of_zarr(make, zarr_format, tmp_path, make_values):
    expected = {"plain": make_values((20, 30), "uint16", 1), "deep/other": make_values((17, 9), "float32", 2)}
    written = zarr.create_group(tmp_path / "a", zarr_format=zarr_format)
    for name, values in expected.items():
        shards = {"shards": (8, 8)} if zarr_format == 3 and "/" in name else {}
        written.create_array(name, shape=values.shape, chunks=(4, 4), dtype=values.dtype, **shards)[...] = values
    store = make(tmp_path / "a")
    reader = zarr.open_group(store, mode="r")
    for source in (store, reader):
        group = vf.open(source)
        for name, values in expected.items():
            np.testing.assert_array_equal(group[name][...], values)
            np.testing.assert_array_equal(group[name][2:9, 3:7], values[2:9, 3:7])
    for name, values in expected.items():
        np.testing.assert_array_equal(vf.open(reader[name])[...], values)
        np.testing.assert_array_equal(vf.open_array(store, name)[...], values)
    np.testing.assert_array_equal(vf.open(reader["deep"].store_path)["other"][...], expected["deep/other"])
    with pytest.raises(vf.NotFoundError):
        vf.open(store)["none"]


def test_a_map_of_fsspec_is_no_dict_of_references(tmp_path, make_values):
    values = make_values((20, 30), "uint16")
    written = zarr.create_array(str(tmp_path / "a"), shape=values.shape, chunks=(8, 8), dtype=values.dtype)
    written[...] = values
    filesystem = MemoryFileSystem()
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file():
            filesystem.pipe_file(f"/map/{path.relative_to(tmp_path / 'a').as_posix()}", path.read_bytes())
    np.testing.assert_array_equal(vf.open(filesystem.get_mapper("/map"))[...], values)
