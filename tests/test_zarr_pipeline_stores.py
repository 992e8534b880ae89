"""`voxfetch.ZarrPipeline` over every kind of store: which are read natively, what is asked, what they cannot say."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from obstore.store import HTTPStore, S3Store
from obstore.store import LocalStore as ObstoreLocal
from obstore.store import MemoryStore as ObstoreMemory
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, LoggingStore, MemoryStore, ObjectStore, WrapperStore, ZipStore

import voxfetch as vf
from tests.servers.faulty import FaultyServer
from voxfetch.zarr import report

pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
SHAPE, CHUNKS, SHARDS = (40, 30, 20), (5, 5, 5), (20, 10, 10)
VOXELS = np.arange(24000, dtype="u2").reshape(SHAPE)
NO_ETAG = "the store shows no ETag"


def needs(*modules):
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"no {', '.join(missing)}")


def written(store, *, shards=SHARDS, chunks=CHUNKS, name="deep/a"):
    array = zarr.create_array(store, name=name, shape=SHAPE, dtype="u2", chunks=chunks, shards=shards)
    array[...] = VOXELS
    return array


def same(got, expected):
    np.testing.assert_array_equal(got, expected, strict=True)


def check(fast, *, native):
    """`native`: whether the store is read without zarr's own; "http" if it is and may show no ETags."""
    same(fast[...], VOXELS)
    same(fast[3:39:2, 7, ::3], VOXELS[3:39:2, 7, ::3])
    same(fast.oindex[[39, 0, 7], :, [1, 2]], VOXELS[np.ix_([39, 0, 7], range(30), [1, 2])])
    counts = report(fast)
    assert (counts.accelerated, counts.reasons) == (3, {})
    kinds = {NO_ETAG: "no", "a server of HTTP may show no ETag": "http"}
    found = [kind for doubt in counts.doubts for begin, kind in kinds.items() if doubt.startswith(begin)]
    assert found == {True: [], False: ["no"], "http": ["http"]}[native]


# ------------------------------------------------------------------------------------------------------------ over HTTP


@pytest.fixture
def served(tmp_path):
    written(str(tmp_path / "root"))
    written(str(tmp_path / "root"), shards=None, name="plain")
    with FaultyServer(tmp_path / "root") as server:
        yield server


def http(server, **options):
    return ObjectStore(HTTPStore(server.url, client_options={"allow_http": True}, **options), read_only=True)


def test_sharded_reads_over_http_ask_little(served, tmp_path):
    """Noise in shards of 512 KiB with 64 chunks each."""
    voxels = np.random.default_rng(0).integers(0, 1 << 16, (64, 64, 128), "u2")
    layout = {"chunks": (16, 16, 16), "shards": (64, 64, 64), "compressors": None}
    zarr.create_array(str(tmp_path / "root"), name="noise", data=voxels, **layout)
    array = zarr.open_array(http(served), path="noise")
    fast = vf.accelerate(array)
    served.requests.clear()
    same(fast[0], voxels[0])
    suffixes = [one for one in served.requests if one.range.startswith("bytes=-")]
    assert sorted(one.key for one in suffixes) == ["noise/c/0/0/0", "noise/c/0/0/1"], "each index once"
    assert len(served.requests) == 2 + 8, "16 chunks of a shard lie in 4 places far from each other"
    served.requests.clear()
    same(fast[20], voxels[20])
    assert len(served.requests) == 8, "indexes are known"
    assert all(one.if_match for one in served.requests), "and are those of what is read"
    served.requests.clear()
    same(array[0], voxels[0])
    assert sum(one.range.startswith("bytes=-") for one in served.requests) == 2, "zarr itself asks for indexes again"


def test_what_is_replaced_over_http_is_noticed(served, tmp_path):
    fast = vf.accelerate(zarr.open_array(http(served), path="deep/a"))
    plain = vf.accelerate(zarr.open_array(http(served), path="plain"))
    for number in range(3):
        for one, name in ((fast, "deep/a"), (plain, "plain")):
            zarr.open_array(str(tmp_path / "root"), path=name, mode="r+")[2:30, 5:] = number
            expected = zarr.open_array(str(tmp_path / "root"), path=name)[...]
            same(one[...], expected)
    shutil.rmtree(tmp_path / "root" / "deep" / "a" / "c" / "1")
    (tmp_path / "root" / "plain" / "c" / "0" / "0" / "0").unlink()
    assert not fast[20:].any()
    assert not plain[:5, :5, :5].any()
    same(fast[:20], zarr.open_array(str(tmp_path / "root"), path="deep/a")[:20])
    written(str(tmp_path / "other"))
    shutil.copytree(tmp_path / "other" / "deep" / "a" / "c" / "1", tmp_path / "root" / "deep" / "a" / "c" / "1")
    same(fast[20:], VOXELS[20:])
    assert report(fast).reasons == report(plain).reasons == {}


@needs("aiohttp", "fsspec")
def test_fsspec_over_http(served):
    store = zarr.storage.FsspecStore.from_url(served.url, read_only=True)
    fast = vf.accelerate(zarr.open_array(store, path="deep/a"))
    served.requests.clear()
    check(fast, native="http")
    assert all("python" not in one.headers.get("user-agent", "").lower() for one in served.requests)


# ------------------------------------------------------------------------------------------------------------------- S3


@pytest.fixture
def s3():
    from tests.servers.moto_s3 import moto_s3

    with moto_s3({}) as url:
        yield url


def s3_store(url):
    access = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
    return S3Store("bucket", prefix="root", endpoint=url, client_options={"allow_http": True}, **access)


@needs("moto", "boto3")
@pytest.mark.parametrize("shards", [None, SHARDS])
def test_written_and_read_again_in_s3(s3, shards):
    store = ObjectStore(s3_store(s3))
    array = written(store, shards=shards, chunks=SHARDS if shards is None else CHUNKS)
    fast = vf.accelerate(zarr.open_array(store, path="deep/a", mode="r+"))
    check(fast, native=True)
    fast[3:9] = 1  # through itself
    same(fast[...], array[...])
    array[30:, 2] = 2  # through another object
    same(fast[...], array[...])
    zarr.open_array(ObjectStore(s3_store(s3)), path="deep/a", mode="r+")[:, :, 19] = 3
    same(fast[...], array[...])
    sync(store.delete("deep/a/c/0/0/0"))
    assert not fast[:20, :10, :10].any()
    array[...] = VOXELS
    same(fast[...], VOXELS)
    fast.append(VOXELS)
    same(fast[35:], np.concatenate([VOXELS[35:], VOXELS]))
    assert report(fast).reasons == {}


@needs("moto", "boto3", "s3fs")
def test_s3_through_fsspec(s3):
    store = zarr.storage.FsspecStore.from_url(
        "s3://bucket/root", storage_options={"key": "a", "secret": "b", "endpoint_url": s3}
    )
    written(store)
    check(vf.accelerate(zarr.open_array(store, path="deep/a", mode="r")), native=True)


# -------------------------------------------------------------------------------------------------------- other stores


class Counting(LocalStore):
    """A subclass of the user's, which is asked itself."""

    asked = 0

    async def get(self, key, prototype=None, byte_range=None):
        self.asked += "/c/" in key
        return await super().get(key, prototype, byte_range)


Counting.__name__ = "LocalStore"  # a name says nothing


class Renaming(WrapperStore):
    """One that has the objects under other keys."""

    async def get(self, key, prototype=None, byte_range=None):
        return await self._store.get(key.replace("shown", "deep/a"), prototype, byte_range)

    async def getsize(self, key):
        return await self._store.getsize(key.replace("shown", "deep/a"))


def stores(name, folder):
    match name:
        case "LocalStore":
            return LocalStore(folder), True
        case "subclass":
            return Counting(folder), False
        case "MemoryStore":
            return MemoryStore(), False
        case "LoggingStore":
            return LoggingStore(LocalStore(folder), log_level="ERROR"), False
        case "obstore memory":
            return ObjectStore(ObstoreMemory()), True
        case "obstore local":
            return ObjectStore(ObstoreLocal(folder, mkdir=True)), True


@pytest.mark.parametrize(
    "name", ["LocalStore", "subclass", "MemoryStore", "LoggingStore", "obstore memory", "obstore local"]
)
@pytest.mark.parametrize("shards", [None, SHARDS])
def test_stores(tmp_path, name, shards):
    store, native = stores(name, tmp_path / "root")
    fast = vf.accelerate(written(store, shards=shards))
    if name == "subclass":
        store.asked = 0
    check(fast, native=native)
    if name == "subclass":
        assert store.asked


def test_wrapped_stores(tmp_path):
    inner = MemoryStore()
    written(inner)
    array = zarr.open_array(Renaming(inner), path="shown")
    check(vf.accelerate(array), native=False)


def test_archives(tmp_path):
    with ZipStore(tmp_path / "a.zip", mode="w") as store:
        check(vf.accelerate(written(store)), native=False)
    with ZipStore(tmp_path / "a.zip", mode="r", read_only=True) as store:
        check(vf.accelerate(zarr.open_array(store, path="deep/a", mode="r")), native=True)


@needs("fsspec")
@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_other_file_systems(tmp_path, protocol):
    import fsspec

    filesystem = fsspec.filesystem(
        protocol, skip_instance_cache=True, **({"auto_mkdir": True} if protocol == "file" else {})
    )
    wrapped = importlib.import_module("fsspec.implementations.asyn_wrapper").AsyncFileSystemWrapper
    store = zarr.storage.FsspecStore(wrapped(filesystem, asynchronous=True), path=str(tmp_path / "root"))
    written(store)
    check(vf.accelerate(zarr.open_array(store, path="deep/a", mode="r")), native=protocol == "file")


class Failing(MemoryStore):
    """Chunks of it cannot be had."""

    async def get(self, key, prototype=None, byte_range=None):
        if "/c/" in key and self.is_failing:
            raise PermissionError("no")
        return await super().get(key, prototype, byte_range)

    is_failing = False


def test_failures_of_stores_are_errors():
    store = Failing()
    fast = vf.accelerate(written(store))
    store.is_failing = True
    with pytest.raises(vf.PermissionDeniedError):
        fast[...]
    assert report(fast).not_accelerated == 0


class Absent(MemoryStore):
    """`get` is not to say in this way that there is no such object: something else is missing."""

    is_failing = False

    async def get(self, key, prototype=None, byte_range=None):
        if "/c/" in key and self.is_failing:
            raise FileNotFoundError("~/.credentials")
        return await super().get(key, prototype, byte_range)


@pytest.mark.parametrize("shards", [None, SHARDS])
def test_what_get_raises_is_no_missing_chunk(shards):
    store = Absent()
    fast = vf.accelerate(written(store, shards=shards))
    store.is_failing = True
    with pytest.raises(vf.StoreError, match=r"FileNotFoundError: ~/.credentials") as caught:
        fast[...]
    assert "/deep/a/c/" in caught.value.key


class Encrypted(LocalStore):
    """Objects are longer in their files than they are: the size of one says nothing."""

    async def get(self, key, prototype=None, byte_range=None):
        whole = await super().get(key, prototype or default_buffer_prototype())
        if whole is None:
            return None
        found = await MemoryStore({key: whole[:-9]}).get(key, prototype, byte_range)
        self.asked.append((key, byte_range))
        return found

    async def set(self, key, value):
        await super().set(key, value + default_buffer_prototype().buffer.from_bytes(b"signature"))

    async def getsize(self, key):
        self.sizes.append(key)
        return await super().getsize(key)


def test_no_size_is_asked_for(tmp_path):
    """The end of a shard is asked for as zarr does: its size may cost the whole shard."""
    store = Encrypted(tmp_path)
    store.asked, store.sizes = [], []
    voxels = np.random.default_rng(0).integers(0, 1 << 16, (64, 64, 64), "u2")
    array = zarr.create_array(store, name="a", data=voxels, chunks=(16, 16, 16), shards=(64, 64, 64), compressors=None)
    fast = vf.accelerate(array)
    asked = []
    for one in (array, fast):
        store.asked.clear()
        same(one[:16, :16, :16], voxels[:16, :16, :16])
        asked.append([*store.asked])
    assert asked[0] == asked[1]
    assert len(asked[0]) == 2
    same(fast[...], voxels)
    assert not store.sizes
    assert report(fast).reasons == {}


def test_buffers_are_made_by_the_prototype_that_zarr_hands_over():
    import zarr.core.buffer.cpu as cpu

    class Mine(cpu.Buffer):
        pass

    class Asserting(MemoryStore):
        asked = 0

        async def get(self, key, prototype=None, byte_range=None):
            if "/c/" in key and self.watched:
                assert prototype.buffer is Mine
                self.asked += 1
            return await super().get(key, prototype, byte_range)

        watched = False

    store = Asserting()
    fast = vf.accelerate(written(store))
    store.watched = True
    prototype = zarr.core.buffer.BufferPrototype(Mine, cpu.NDBuffer)
    same(fast.get_basic_selection(..., prototype=prototype), VOXELS)
    assert store.asked
    assert report(fast).not_accelerated == 0


def test_paths_of_the_folder(tmp_path):
    """Names that URLs and patterns would make something else of."""
    for name in ("with space", "100%41", "a#b?c", "ünï", "[x]*"):
        array = written(LocalStore(tmp_path / name), name=name)
        check(vf.accelerate(array), native=True)
        assert Path(tmp_path / name / name / "c").is_dir()


@needs("icechunk")
def test_a_session_of_icechunk(tmp_path):
    icechunk = importlib.import_module("icechunk")
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path)))
    session = repository.writable_session("main")
    written(session.store)
    check(vf.accelerate(zarr.open_array(session.store, path="deep/a", mode="r+")), native=False)
    session.commit("one")
    array = zarr.open_array(repository.readonly_session("main").store, path="deep/a", mode="r")
    check(vf.accelerate(array), native=False)


class SlowOnce(MemoryStore):
    """Answers one read of a chunk a second late, with what it held when it was asked."""

    is_slow = False

    async def get(self, key, prototype, byte_range=None):
        found = await super().get(key, prototype, byte_range)
        if SlowOnce.is_slow and key.startswith("c/"):
            SlowOnce.is_slow = False
            await asyncio.sleep(0.5)
        return found


@pytest.mark.parametrize("layout", [{"chunks": (8,)}, {"chunks": (4,), "shards": (8,)}])
def test_a_read_sees_what_was_written_before_it_while_an_older_one_waits(layout):
    array = vf.accelerate(
        zarr.create_array(SlowOnce(), shape=(8,), dtype="u1", compressors=None, fill_value=7, **layout)
    )
    SlowOnce.is_slow = True
    older = threading.Thread(target=lambda: array[...])
    older.start()
    while SlowOnce.is_slow:
        time.sleep(0.01)
    array[...] = 1
    array[...] = array[...] + 1
    older.join()
    assert (array[...] == 2).all()
