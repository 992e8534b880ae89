"""Sources by name, what lies below them, and their stored objects, local and remote, as `/raw/` gives them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import threading
import time

import h5py
import numpy as np
import pytest
import zarr

import voxfetch as vf
from tests.servers.faulty import Fault, FaultyServer, status
from tests.servers.plain import ask, serving
from voxfetch.server import ServerOptions, registry
from voxfetch.server.answers import Answers, Asked, Conditions
from voxfetch.server.raw import RawPlane
from voxfetch.server.registry import Registry, named, named_sources
from voxfetch.stored import Version

BIG = np.random.default_rng(0).integers(0, 256, (3 << 20) + 17, np.uint8).tobytes()


class Nothing:
    """A plane without anything."""

    async def answer(self, asked):
        return None


@pytest.fixture
def volume(tmp_path):
    array = zarr.create_array(tmp_path / "v.zarr", shape=(64, 64), chunks=(16, 16), shards=(64, 64), dtype="u2")
    array[...] = np.arange(4096).reshape(64, 64)
    return tmp_path / "v.zarr"


# --- the registry


def test_names_of_sources(volume):
    assert named("s3://bucket/a/em.zarr/") == "em.zarr"
    assert named("https://u:p@host/a%20b.zarr?sig=hunter2#x") == "a-20b.zarr"
    assert named("https://host") == "host"
    assert named("/data/x.zarr|zarr3:labels/cells") == "cells"
    assert named("/data/x.h5|hdf5:") == "x.h5"
    assert named("/") == "data"
    assert named("..") == "data"
    assert named(vf.open(volume)) == "v.zarr"
    found = named_sources(["/a/x", "/b/x", ("y", "/c/x"), "/d/y", "/e/x"])
    assert found == {"x": "/a/x", "x-2": "/b/x", "y": "/c/x", "y-2": "/d/y", "x-3": "/e/x"}
    for wrong in ([], [("a/b", "x")], [("..", "x")], [("", "x")], [("a", "x"), ("a", "y")], {"a b": "x"}):
        with pytest.raises(ValueError):
            named_sources(wrong)


@pytest.fixture
def tree(tmp_path):
    """A group with arrays, an image with labels, and an image one level of which is lost."""
    root = zarr.open_group(tmp_path / "tree", mode="w")
    root.create_array("a", shape=(4, 4), chunks=(2, 2), dtype="u1")[...] = 1
    for name, count in (("em", 2), ("em/labels/cells", 1), ("torn", 2)):
        axes = [{"name": axis, "type": "space"} for axis in "yx"]
        datasets = [
            {"path": f"s{i}", "coordinateTransformations": [{"type": "scale", "scale": [2**i] * 2}]}
            for i in range(count)
        ]
        ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
        if "labels" in name:
            ome["image-label"] = {}
        image = root.create_group(name, attributes={"ome": ome})
        for i in range(count if name != "torn" else 1):
            image.create_array(f"s{i}", shape=(8 >> i,) * 2, chunks=(4, 4), dtype="u1")[...] = 7
    root.require_group("em/labels").attrs["ome"] = {"version": "0.5", "labels": ["cells"]}
    return tmp_path / "tree"


def test_the_registry_walks_down(tree):
    async def main():
        found = Registry({"t": str(tree)})
        try:
            for path, kind, rest in (
                ("", vf.Group, ""),
                ("zarr.json", vf.Group, "zarr.json"),
                ("none/zarr.json", vf.Group, "none/zarr.json"),
                ("a", vf.Array, ""),
                ("a/c/0/0", vf.Array, "c/0/0"),
                ("em", vf.Image, ""),
                ("em/0/c/0/0", vf.Image, "0/c/0/0"),
                ("em/labels", vf.Image, "labels"),
                ("em/labels/zarr.json", vf.Image, "labels/zarr.json"),
                ("em/labels/none/zarr.json", vf.Image, "labels/none/zarr.json"),
                ("em/labels/cells/0/c/0/0", vf.Image, "0/c/0/0"),
            ):
                node, left = await found.find("t", path.split("/") if path else [])
                assert (type(node), "/".join(left)) == (kind, rest), path
            assert (await found.find("t", ["em", "labels", "cells", "x"]))[0].is_label
            same = await asyncio.gather(*(found.find("t", ["em"]) for _ in range(20)))
            assert len({id(node) for node, _ in same}) == 1
            # Of an image that is there a part is missing.
            with pytest.raises(vf.NotFoundError) as error:
                await found.find("t", ["torn", "0"])
            assert error.value.key is not None
            with pytest.raises(vf.NotFoundError) as error:
                await found.find("u", [])
            assert error.value.key is None
        finally:
            found.close()

    asyncio.run(main())


def test_what_is_wanted_by_many_is_opened_once(tree, monkeypatch):
    opened = []
    original = registry._open_child

    def slowly(parent, name):
        opened.append(name)
        time.sleep(0.1)
        return original(parent, name)

    monkeypatch.setattr(registry, "_open_child", slowly)

    async def main():
        found = Registry({"t": str(tree)})
        first = asyncio.create_task(found.find("t", ["em", "0"]))
        others = [asyncio.create_task(found.find("t", ["em", str(i)])) for i in range(9)]
        await asyncio.sleep(0.05)
        first.cancel()
        await asyncio.gather(*others)
        for _ in range(3):
            await found.find("t", ["none", "x"])
        found.close()

    asyncio.run(main())
    assert opened == ["em", "none"]


def test_a_source_that_is_replaced_is_shown_as_it_is(tree, monkeypatch):
    monkeypatch.setitem(registry._TRUSTED_S, False, 0.05)
    place = {"root": tree.parent / "w.zarr", "child": tree / "a"}
    kinds = [("u2", 64, 1), ("i2", 64, -2), ("f4", 200, 0.5)]

    def write(path, kind, extent, value):
        shutil.rmtree(path, ignore_errors=True)
        array = zarr.create_array(path, shape=(extent,) * 2, chunks=(16, 16), dtype=kind, compressors=None)
        array[...] = value

    for path in place.values():
        write(path, *kinds[0])
    with serving({"root": str(place["root"]), "t": str(tree)}) as server:
        urls = {"root": server.url_of("root"), "child": f"{server.url_of('t')}/a"}
        for kind in kinds:
            for path in place.values():
                write(path, *kind)
            time.sleep(0.1)
            for url in urls.values():
                np.testing.assert_array_equal(zarr.open_array(url, mode="r")[...], np.full((kind[1],) * 2, kind[2]))
        shutil.rmtree(place["child"])
        shutil.rmtree(place["root"])
        time.sleep(0.1)
        assert ask(server, "/z3/t/a/zarr.json").status == 404
        assert ask(server, "/z3/root/zarr.json").status == 503


def test_a_file_that_is_replaced_is_opened_again(tmp_path):
    def write(value):
        with h5py.File(tmp_path / "new.h5", "w") as file:
            file.create_dataset("d", data=np.full((64, 64), value, "u2"), chunks=(16, 16))
        (tmp_path / "new.h5").replace(tmp_path / "x.h5")

    file = tmp_path / "x.h5"
    write(1)
    with serving({"x": str(file), "d": f"{file}|hdf5:/d"}) as server:
        shown = {"x/d": f"{server.url_of('x')}/d", "d": server.url_of("d")}
        for url in shown.values():
            assert zarr.open_array(url, mode="r")[0, 0] == 1
        write(2)
        for name, url in shown.items():
            # Another chunk: the first one is kept.
            assert ask(server, f"/z3/{name}/c/1/1").status == 503
            assert zarr.open_array(url, mode="r")[0, 0] == 2


def test_a_label_image_that_is_added_is_shown(tree, monkeypatch):
    monkeypatch.setitem(registry._TRUSTED_S, False, 0.0)
    with serving({"em": str(tree / "em")}) as server:

        def labels():
            return json.loads(ask(server, "/z3/em/labels/zarr.json").body)["attributes"]["ome"]["labels"]

        assert labels() == ["cells"]
        shutil.copytree(tree / "em" / "labels" / "cells", tree / "em" / "labels" / "nuclei")
        zarr.open_group(tree / "em" / "labels").attrs["ome"] = {"version": "0.5", "labels": ["cells", "nuclei"]}
        assert labels() == ["cells", "nuclei"]
        assert ask(server, "/z3/em/labels/nuclei/0/zarr.json").status == 200


def test_what_has_not_changed_stays_open(tree, monkeypatch):
    monkeypatch.setitem(registry._TRUSTED_S, False, 0.0)

    async def main():
        found = Registry({"t": str(tree)})
        for path in (["a"], ["em"], ["em", "labels", "cells"]):
            first, _ = await found.find("t", path)
            assert (await found.find("t", path))[0] is first
        found.close()

    asyncio.run(main())


def test_what_nobody_waits_for_any_more_is_not_opened(tree, monkeypatch):
    opened, go = [], threading.Event()

    def slowly(parent, name):
        opened.append(name)
        go.wait(20)

    monkeypatch.setattr(registry, "_open_child", slowly)

    async def main():
        found = Registry({"t": str(tree)})
        await found.root("t")
        asking = [asyncio.create_task(found.find("t", [f"none{i}"])) for i in range(100)]
        while len(opened) < registry._THREADS:  # noqa: ASYNC110 - threads fill it
            await asyncio.sleep(0.005)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        assert len(found._opening) == registry._THREADS
        # What runs is joined, and what was not begun is begun for who asks again.
        again = [asyncio.create_task(found.find("t", [f"none{i}"])) for i in (0, 99)]
        await asyncio.sleep(0)
        go.set()
        async with asyncio.timeout(10):
            await asyncio.gather(*again)
        found.close()
        with pytest.raises(RuntimeError):
            await found.run(list)

    asyncio.run(main())
    assert sorted(opened) == sorted([*(f"none{i}" for i in range(registry._THREADS)), "none99"])


def test_what_was_opened_is_bounded(tree, monkeypatch):
    monkeypatch.setattr(registry, "_MAX_CHILDREN", 2)
    monkeypatch.setattr(registry, "_MAX_ABSENT", 3)

    async def main():
        found = Registry({"t": str(tree)})
        for path in (["a"], ["em"], ["em", "labels", "cells"], *([f"none{i}"] for i in range(9))):
            await found.find("t", path)
        found.close()
        return found

    found = asyncio.run(main())
    assert list(found._children) == [("t", "em"), ("t", "em", "labels", "cells")]
    assert len(found._absent) == 3


def test_folders_are_listed_for_people(tree):
    with serving({"t": str(tree)}, {"z3": Nothing()}) as server:
        for path, expected in (
            ("/z3/t/", ["a", "em", "torn"]),
            ("/z3/t/em/", ["0", "1", "labels/cells"]),
            ("/raw/t/em/", ["s0", "s1", "labels/cells"]),
        ):
            got = ask(server, path)
            assert (got.status, got["Content-Type"]) == (200, "text/html; charset=utf-8")
            assert [f'href="./{name}/"' in got.body.decode() for name in expected] == [True] * len(expected)
            assert got.body.count(b"<a ") == len(expected)
            assert "default-src 'none'" in got["Content-Security-Policy"]
        got = ask(server, "/z3/t/em", Accept="text/html,*/*")
        assert (got.status, got["Location"]) == (308, "./em/")
        # Nothing of chunks, and nothing for programs that do not ask.
        assert ask(server, "/z3/t/a/").status == 404
        assert ask(server, "/raw/t/a/").status == 404
        assert ask(server, "/raw/t/a/zarr.json").status == 200
        assert ask(server, "/raw/t/a/zarr.json/").status == 404
        assert ask(server, "/z3/t/em", Accept="*/*").status == 404


# --- objects as they are


def test_only_names_that_can_be_asked_for_are_listed(tree):
    for name in ("b\udcff", "c\\d", "e\nf"):
        shutil.copytree(tree / "a", os.path.join(tree, name))
    with serving({"t": str(tree)}) as server:
        got = ask(server, "/z3/t/")
    assert (got.status, got.body.count(b"<li>")) == (200, len(os.listdir(tree)) - 4)
    assert b'href="./a/"' in got.body


def test_stored_objects_are_exact(volume):
    with serving({"v": str(volume)}) as server:
        for path in volume.rglob("*"):
            key = path.relative_to(volume).as_posix()
            got = ask(server, f"/raw/v/{key}")
            if path.is_dir():
                assert got.status == 404
                continue
            data = path.read_bytes()
            assert (got.status, got.body) == (200, data)
            assert ask(server, f"/raw/v/{key}", "HEAD")["Content-Length"] == str(len(data))
            assert ask(server, f"/raw/v/{key}", Range="bytes=-20").body == data[-20:]
            assert ask(server, f"/raw/v/{key}", Range="bytes=5-9").body == data[5:10]
            assert ask(server, f"/raw/v/{key}", If_None_Match=got["ETag"]).status == 304
        shard = volume / "c" / "0" / "0"
        before = ask(server, "/raw/v/c/0/0")
        shard.write_bytes(b"other")
        after = ask(server, "/raw/v/c/0/0", If_None_Match=before["ETag"], Range="bytes=0-1", If_Range=before["ETag"])
        assert (after.status, after.body) == (200, b"other")


def test_an_object_that_is_replaced_while_it_is_read(volume):
    async def main():
        stored = vf.open(volume).stored
        version = await stored.version("c/0/0")
        before = (volume / "c" / "0" / "0").read_bytes()
        assert bytes(await stored.read("c/0/0", 3, 9, version)) == before[3:9]
        (volume / "c" / "0" / "0").write_bytes(before[::-1])
        with pytest.raises(vf.ObjectChangedError):
            await stored.read("c/0/0", 3, 9, version)
        (volume / "c" / "0" / "0").unlink()
        with pytest.raises(vf.ObjectChangedError):
            await stored.read("c/0/0", 3, 9, version)
        assert await stored.version("c/0/0") is None
        for key in ("../x", "/etc/passwd", "a//b"):
            with pytest.raises(vf.MetadataError):
                await stored.version(key)

    asyncio.run(main())


def test_an_object_is_another_one_whatever_time_it_bears(volume):
    path = volume / "c" / "0" / "0"
    with serving({"v": str(volume)}) as server:
        got, status = ask(server, "/raw/v/c/0/0"), path.stat()
        with path.open("r+b") as file:
            file.write(b"new")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        again = ask(server, "/raw/v/c/0/0", If_None_Match=got["ETag"])
    assert (again.status, again.body[:3]) == (200, b"new")


def test_the_longest_etag_of_a_store_is_no_trouble():
    class Store:
        async def version(self, key):
            return Version(3, key * 300)

        async def read(self, *_, **__):
            return b"abc"

    class Found:
        stored = Store()

        async def root(self, name):
            return self

    def etag(key):
        plane = RawPlane(Found(), ServerOptions())
        parts = asyncio.run(plane.answer(Asked("GET", (key,), "native", "v", {})))
        return Answers(ServerOptions()).reply(parts, Conditions(), lasting=True).fields.partition("ETag: ")[2][:40]

    assert etag("x")
    assert etag("x") != etag("y")


def test_stored_objects_are_read_by_zarr(volume):
    with serving({"v": str(volume)}) as server:
        read = zarr.open_array(server.url_of("v", "raw"), mode="r")[...]
    np.testing.assert_array_equal(read, np.arange(4096).reshape(64, 64))


def test_links_that_lead_out_lead_nowhere(tmp_path, volume):
    (tmp_path / "secret").write_text("hunter2")
    (volume / "out").symlink_to(tmp_path / "secret")
    (volume / "up").symlink_to(tmp_path)
    (volume / "in").symlink_to(volume / "zarr.json")
    os.mkfifo(volume / "pipe")
    (tmp_path / "alias").symlink_to(volume)
    (tmp_path / "v.zarr-beside").write_text("hunter2")
    (volume / "beside").symlink_to(tmp_path / "v.zarr-beside")
    with serving({"v": str(volume), "alias": str(tmp_path / "alias")}) as server:
        for source in ("v", "alias"):
            for key in ("out", "beside", "up/secret", "up/v.zarr/../secret", "pipe", "up"):
                assert ask(server, f"/raw/{source}/{key}").status in (400, 404)
            assert ask(server, f"/raw/{source}/in").body == (volume / "zarr.json").read_bytes()
            assert ask(server, f"/raw/{source}/up/v.zarr/zarr.json").status == 200


def test_a_file_that_may_not_be_read_is_trouble(volume, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    with serving({"v": str(volume)}) as server:
        monkeypatch.setattr("voxfetch.store.local.os.open", refuse)
        got = ask(server, "/raw/v/c/0/0")
        monkeypatch.undo()
    assert (got.status, json.loads(got.body)["error"]) == (503, "PermissionDeniedError")


def test_large_objects_come_in_slices(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["d"] = np.frombuffer(BIG, np.uint8)
    data = path.read_bytes()
    with serving({"x": str(path), "d": f"{path}|hdf5:d"}, max_response_bytes=8 << 20) as server:
        for name in ("x", "d"):
            got = ask(server, f"/raw/{name}")
            assert (got.status, hashlib.md5(got.body).hexdigest()) == (200, hashlib.md5(data).hexdigest())
            got = ask(server, f"/raw/{name}", Range=f"bytes=3-{len(data) - 5}")
            assert (got.status, got.body == data[3:-4]) == (206, True)
            assert ask(server, f"/raw/{name}/x.h5").status == 404


@pytest.fixture
def remote(volume):
    objects = {
        f"v/{path.relative_to(volume).as_posix()}": path.read_bytes() for path in volume.rglob("*") if path.is_file()
    }
    objects["v/big"] = BIG
    with FaultyServer(objects) as store:
        yield store, objects


def test_stored_objects_of_a_remote_store(remote):
    store, objects = remote
    with serving({"v": f"{store.url}/v"}) as server:
        for key, data in objects.items():
            got = ask(server, f"/raw/{key}")
            assert (got.status, got.body == data) == (200, True)
            assert got["ETag"]
            assert ask(server, f"/raw/{key}", If_None_Match=got["ETag"]).status == 304
        shard = objects["v/c/0/0"]
        before = len(store.requests)
        assert ask(server, "/raw/v/c/0/0", Range="bytes=-30").body == shard[-30:]
        assert ask(server, "/raw/v/c/0/0", "HEAD")["Content-Length"] == str(len(shard))
        assert ask(server, "/raw/v/none").status == 404
        # No more is fetched than what is asked for.
        last = f"bytes={len(shard) - 30}-{len(shard) - 1}"
        assert [request.range for request in store.requests[before:]] == ["bytes=0-0", last, "bytes=0-0", "bytes=0-0"]


@pytest.mark.parametrize(
    ("fault", "codes"),
    [
        (status(403), {"PermissionDeniedError", "CredentialsError"}),
        (status(500), {"RetriesExhaustedError", "timeout"}),
        (Fault(stall=-1), {"timeout", "StoreTimeoutError"}),
    ],
)
def test_a_remote_store_in_trouble_is_not_absence(remote, fault, codes):
    store, _ = remote
    with serving({"v": f"{store.url}/v"}, timeout_s=1.0) as server:
        store.rule = lambda _: fault
        got = ask(server, "/raw/v/c/0/0")
        assert (got.status, got["Retry-After"], got["Access-Control-Allow-Origin"]) == (503, "1", "*")
        assert json.loads(got.body)["error"] in codes
        assert store.url.encode() not in got.body
        store.rule = lambda _: None
        assert ask(server, "/raw/v/c/0/0").status == 200
