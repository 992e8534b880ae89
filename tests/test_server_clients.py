"""Programs of others read every format from a real server: zarr-python, tensorstore, zarrita.js and viv in node."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import urllib.error
import urllib.request
import zipfile
from contextlib import contextmanager
from pathlib import Path

import h5py
import icechunk
import numpy as np
import pytest
import tensorstore as ts
import zarr
from zarr.storage import FsspecStore, ObjectStore

import voxfetch as vf
from tests.conftest import values, write
from tests.servers.faulty import FaultyServer
from tests.servers.plain import serving
from tests.volumes import write_volume
from tests.wkw_data import layer, read_mag, write_mag, write_properties
from voxfetch.server.app import Server

SMALL = (21, 30, 17)


@pytest.fixture(scope="module")
def made(tmp_path_factory, request):
    """name -> (what is opened, level of it or None, the voxels as the library that wrote them has them)."""
    root, data = tmp_path_factory.mktemp("made"), request.config.rootpath / "tests/data"
    found = {}
    layouts = {
        "sharded": {"chunks": (5, 8, 6), "shards": (10, 16, 12), "holes": 0.2, "fill_value": 7},
        "v3": {"chunks": (5, 8, 6), "compressors": zarr.codecs.BloscCodec(cname="zstd", shuffle="shuffle")},
        "turned": {
            "chunks": (5, 8, 6),
            "shards": (10, 16, 12),
            "filters": [zarr.codecs.TransposeCodec(order=(2, 0, 1))],
            "compressors": [zarr.codecs.GzipCodec(level=1), zarr.codecs.Crc32cCodec()],
        },
        "v2": {"chunks": (5, 8, 6), "zarr_format": 2, "order": "F", "holes": 0.2},
    }
    for name, layout in layouts.items():
        case = write(root / name, values(SMALL, "uint16"), **layout)
        found[name] = str(case.path), None, case.expected
    voxels = values((1, 24, 40, 32), "uint16")
    write_mag(root / "wkw/color/1", voxels, block_type="lz4")
    write_properties(root / "wkw", [layer("color", (0, 0, 0), (24, 40, 32), ["1"], dtype="uint16")])
    found["wkw"] = f"{root / 'wkw'}|wkw:color", 0, read_mag(root / "wkw/color/1", (0, 0, 0), (24, 40, 32))
    spec = {"driver": "n5", "kvstore": {"driver": "file", "path": str(root / "n5")}}
    n5 = ts.open(
        spec, create=True, dtype=ts.uint16, shape=SMALL, chunk_layout=ts.ChunkLayout(chunk_shape=(5, 8, 6))
    ).result()
    n5[...] = values(SMALL, "uint16", 3)
    found["n5"] = str(root / "n5"), None, n5.read().result()
    place = data / "precomputed/tensorstore-0.1.86/murmur_gzip"
    spec = {"driver": "neuroglancer_precomputed", "kvstore": {"driver": "file", "path": str(place)}}
    found["precomputed"] = str(place), 0, ts.open(spec).result()[ts.d[:].translate_to[0]].read().result()
    with h5py.File(root / "a.h5", "w") as file:
        dataset = file.create_dataset(
            "d", data=values(SMALL, "int16", 4), chunks=(5, 8, 6), compression="gzip", shuffle=True
        )
        found["hdf5"] = f"{root / 'a.h5'}|hdf5:d", None, dataset[...]
    found["b2nd"] = str(data / "b2nd/blosc2-4.14.1/lz4-bitshuffle.b2nd"), None, None
    with zipfile.ZipFile(root / "a.zip", "w") as archive:
        for path in sorted((root / "sharded").rglob("*")):
            archive.write(path, path.relative_to(root / "sharded"))
    found["zip"] = str(root / "a.zip"), None, found["sharded"][2]
    chunks = {
        str(path.relative_to(root / "v3")): [str(path)] for path in (root / "v3" / "c").rglob("*") if path.is_file()
    }
    references = {"zarr.json": (root / "v3" / "zarr.json").read_text(), **chunks}
    (root / "references.json").write_text(json.dumps({"version": 1, "refs": references}))
    found["references"] = str(root / "references.json"), None, found["v3"][2]
    found["icechunk"] = str(root / "icechunk"), None, values(SMALL, "float32", 5)
    session = icechunk.Repository.create(icechunk.local_filesystem_storage(str(root / "icechunk"))).writable_session(
        "main"
    )
    zarr.create_array(session.store, shape=SMALL, chunks=(5, 8, 6), dtype="float32")[...] = found["icechunk"][2]
    session.commit("one")
    return found


NAMES = ["sharded", "v3", "turned", "v2", "wkw", "n5", "precomputed", "hdf5", "b2nd", "zip", "references", "icechunk"]


@pytest.fixture(scope="module")
def server(made):
    server = Server({name: source for name, (source, _, _) in made.items()}).start_in_thread()
    yield server
    server.stop()


def array_url(server, made, name, plane, preset="native"):
    level = made[name][1]
    return server.url_of(name, plane, preset) + ("" if level is None else f"/{level}")


def expected(made, name):
    """The voxels, by the library that wrote them and by us."""
    source, level, voxels = made[name]
    found = vf.open(source)
    ours = (found if level is None else found.level(level))[...]
    if voxels is not None:
        np.testing.assert_array_equal(ours, voxels, strict=True)
    return ours


def same(got, voxels):
    np.testing.assert_array_equal(got.astype(got.dtype.newbyteorder("=")), voxels, strict=True)


# ------------------------------------------------------------------------------------------------------ zarr-python


@pytest.mark.parametrize("plane", ["z3", "z2"])
@pytest.mark.parametrize("name", NAMES)
def test_zarr_python_reads_every_format(server, made, name, plane):
    store = ObjectStore(obstore_of(array_url(server, made, name, plane)), read_only=True)
    array = zarr.open_array(store, mode="r", zarr_format=int(plane[1]))
    same(array[...], expected(made, name))


def obstore_of(url):
    from obstore.store import HTTPStore

    return HTTPStore.from_url(url, client_options={"allow_http": True})


def test_zarr_python_reads_over_fsspec_too(server, made):
    store = FsspecStore.from_url(array_url(server, made, "sharded", "z3"), read_only=True)
    same(zarr.open_array(store, mode="r")[...], made["sharded"][2])


# ------------------------------------------------------------------------------------------------------ tensorstore


@pytest.mark.parametrize("plane", ["z3", "z2"])
@pytest.mark.parametrize("name", NAMES)
def test_tensorstore_reads_every_format(server, made, name, plane):
    url = array_url(server, made, name, plane)
    driver = {"z3": "zarr3", "z2": "zarr"}[plane]
    spec = {"driver": driver, "kvstore": {"driver": "http", "base_url": f"{url}/"}}
    same(ts.open(spec, read=True, open=True).result().read().result(), expected(made, name))


@pytest.mark.parametrize("name", ["wkw", "precomputed"])
def test_tensorstore_reads_volumes(server, made, name):
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "http", "base_url": server.url_of(name, "pc") + "/"},
        "scale_index": 0,
    }
    volume = ts.open(spec, read=True, open=True).result()
    voxels = expected(made, name)
    if name == "wkw":
        voxels = voxels.transpose(1, 2, 3, 0)
    same(volume[ts.d[:].translate_to[0]].read().result(), voxels)
    if name == "precomputed":
        assert volume.domain.inclusive_min[:3] == (-4, 0, 1000)


# ---------------------------------------------------------------------------------------------------------- zarrita


@contextmanager
def node_program(root, package, script):
    """`ask(**what)` -> what a script in node says, a line of JSON each; `package` is installed into `build`."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("no node, no npm")
    name = package.rpartition("@")[0]
    place = root / "build" / Path(script).stem
    if not (place / "node_modules" / name).is_dir():
        place.mkdir(parents=True, exist_ok=True)
        (place / "package.json").write_text('{"private": true}')
        command = [npm, "install", "--no-audit", "--no-fund", package]
        done = subprocess.run(command, cwd=place, capture_output=True, timeout=50, check=False)
        if done.returncode != 0:
            pytest.skip(f"npm: {done.stderr.decode()[-200:]}")
    command = [node, str(root / "tests" / script), str(place)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def ask(**what):
        process.stdin.write(json.dumps(what) + "\n")
        answer = json.loads(process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer

    yield ask
    process.stdin.close()
    process.stdout.close()
    process.wait(10)


@pytest.fixture(scope="module")
def zarrita(request):
    """`zarrita(url, version)` -> voxels; one process of node for all tests."""
    with node_program(request.config.rootpath, "zarrita@0.7.5", "read_by_zarrita.mjs") as ask:

        def read(url, version):
            answer = ask(url=url, version=version)
            flat = np.frombuffer(base64.b64decode(answer["base64"]), answer["dtype"])
            strides = [step * flat.itemsize for step in answer["stride"]]
            return np.ascontiguousarray(np.lib.stride_tricks.as_strided(flat, answer["shape"], strides))

        yield read


@pytest.mark.parametrize("plane", ["z3", "z2"])
@pytest.mark.parametrize("name", NAMES)
def test_zarrita_reads_every_format(server, made, zarrita, name, plane):
    same(zarrita(array_url(server, made, name, plane), int(plane[1])), expected(made, name))


@pytest.mark.parametrize("name", ["wkw", "precomputed", "sharded"])
def test_zarrita_reads_what_viv_gets(server, made, zarrita, name):
    voxels = expected(made, name)
    if name != "sharded":
        axes = {"wkw": "cxyz", "precomputed": "xyzc"}[name]
        voxels = voxels.transpose([axes.index(axis) for axis in "czyx"])
    same(zarrita(array_url(server, made, name, "z3", "viv"), 3), voxels)


# ---------------------------------------------------------------------------------------------------------------- viv


@pytest.fixture(scope="module")
def viv(request):
    """`viv(url=, level=, selection=)` -> what viv's loader, which vizarr is built on, says of an image, and a plane."""
    with node_program(request.config.rootpath, "@vivjs/loaders@0.21.0", "read_by_viv.mjs") as ask:
        yield ask


@pytest.mark.parametrize("plane", ["z3", "z2"])
@pytest.mark.parametrize("axes", ["czyx", "cxyz", "zyx"])
def test_viv_shows_images_of_any_order_of_axes(tmp_path, viv, axes, plane):
    extents = {"c": 2, "z": 6, "y": 96, "x": 128}
    window = {"min": 0, "max": 4000, "start": 10, "end": 3000}
    looks = {"omero": {"channels": [{"color": "00FF00", "label": f"ch{i}", "window": window} for i in range(2)]}}
    shape = tuple(extents[axis] for axis in axes)
    order = [axes.index(axis) for axis in "czyx" if axis in axes]
    voxels = write_volume(
        tmp_path / "a.zarr",
        lambda *at: sum(step * one for step, one in zip((1000, 100, 10, 1), at, strict=False)) % 4001,
        shape=shape,
        axes=axes,
        scale=tuple(40.0 if axis == "z" else 1.0 if axis == "c" else 10.0 for axis in axes),
        translation=(0.0,) * len(axes),
        levels=2,
        dtype="u2",
        **(looks if "c" in axes else {}),
    ).transpose(order)
    with serving({"a": str(tmp_path / "a.zarr")}) as server:
        for level in (0, 1):
            selection = {"z": 4} | ({"c": 1} if "c" in axes else {})
            got = viv(url=server.url_of("a", plane, "viv"), level=level, selection=selection)
            expected = (voxels[1] if "c" in axes else voxels)[4, :: level + 1, :: level + 1]
            assert (got["levels"], got["dtype"]) == (2, "Uint16")
            assert "".join(got["labels"]) == "czyx"[-len(axes) :]
            found = np.frombuffer(base64.b64decode(got["base64"]), "u2").reshape(got["height"], got["width"])
            np.testing.assert_array_equal(found, expected)
            windows = [channel["window"] for channel in got["channels"]]
            assert windows == [window, window] if "c" in axes else windows[0]["start"] < windows[0]["end"]


# ------------------------------------------------------------------------------------------------------- what it costs


def test_clients_make_the_server_decode_nothing_that_passes(tmp_path):
    case = write(tmp_path / "a", values((64, 64, 64), "u1"), chunks=(16, 16, 16), shards=(32, 32, 32))
    engine = vf.Engine()
    server = Server({"a": case.open(engine=engine)}).start_in_thread()
    try:
        spec = {"driver": "zarr3", "kvstore": {"driver": "http", "base_url": server.url_of("a") + "/"}}
        same(ts.open(spec, read=True, open=True).result().read().result(), case.expected)
    finally:
        server.stop()
    stats = engine.stats()
    assert (stats.chunks_decoded, stats.index_misses) == (0, 8)


def test_a_client_far_from_the_store_costs_one_range_for_a_chunk(tmp_path):
    case = write(tmp_path / "a", values((64, 64), "u2"), chunks=(16, 16), shards=(64, 64))
    with FaultyServer(case.path) as store:
        server = Server({"a": vf.open(store.url, engine=vf.Engine())}).start_in_thread()
        try:
            for key in ("zarr.json", "c/0/0"):
                fetched(server.url_of("a") + f"/{key}")
            # Neighbours are read ahead: all that is ever read is the index and sixteen chunks, each once.
            for key in ("c/0/1", "c/1/0", "c/3/3", "c/0/0"):
                fetched(server.url_of("a") + f"/{key}")
        finally:
            server.stop()
        asked = [request.range for request in store.requests if request.method == "GET" and request.range]
        assert len(asked) == len(set(asked)) <= 17


def fetched(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read()


# ------------------------------------------------------------------------------------------------------------- images


@pytest.fixture(scope="module")
def images(request):
    data = request.config.rootpath / "tests/data"
    server = Server({"fib25": data / "fib25/fib25.ome.zarr", "wk": data / "webknossos/fib25"}).start_in_thread()
    yield server
    server.stop()


def test_an_image_is_opened_by_zarr_python_with_all_that_is_below(images, request):
    group = zarr.open_group(ObjectStore(obstore_of(images.url_of("fib25")), read_only=True), mode="r")
    stored = zarr.open_group(request.config.rootpath / "tests/data/fib25/fib25.ome.zarr", mode="r")
    for path in ("2", "labels/groundtruth/2"):
        same(group[path][...], stored[path][...])
    assert group.attrs["ome"]["multiscales"][0]["axes"] == stored.attrs["ome"]["multiscales"][0]["axes"]


@pytest.mark.parametrize("plane", ["z3", "z2"])
@pytest.mark.parametrize(("name", "member"), [("fib25", None), ("wk", "color"), ("wk", "segmentation")])
def test_an_image_shown_is_the_image(images, plane, name, member):
    source = images.registry._opened[name].node
    source = source if member is None else source[member]
    found = vf.open(images.url_of(name, plane) + (f"/{member}" if member else ""))
    assert found.axes == source.axes
    for one, other in zip(found.levels, source.levels, strict=True):
        assert (one.scale, one.translation, one.unit) == (other.scale, other.translation, other.unit)
        assert (one.shape, one.chunks, one.dtype) == (other.shape, other.chunks, other.dtype)
    same(found.levels[-1][...], source.levels[-1][...])
    assert list(found.labels) == list(source.labels)
    for label in source.labels:
        assert found.labels[label].is_label
        same(found.labels[label].levels[-1][...], source.labels[label].levels[-1][...])
    for one, other in zip(found.channels, source.channels, strict=False):
        assert one == other


# ------------------------------------------------------------------------------------------------------------ statuses


def status_of(url, method="GET"):
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.status, dict(error.headers), error.read()


def test_what_is_absent_is_404_and_what_is_broken_503(tmp_path):
    case = write(tmp_path / "a", values((64, 64), "f8"), chunks=(16, 16), shards=(32, 32))
    (case.path / "c/0/1").unlink()
    shard = case.path / "c/1/1"
    content = bytearray(shard.read_bytes())
    content[:2000] = bytes(2000)
    shard.write_bytes(content)
    (case.path / "c/1/0").write_bytes(b"short")
    server = Server({"a": case.path}).start_in_thread()
    try:
        url = server.url_of("a", preset="viv")
        expected = {
            "zarr.json": 200,
            "c/0/0": 200,
            "c/0/2": 404,
            "c/4/0": 404,
            "c/00/0": 404,
            ".zarray": 404,
            "c/2/2": 503,
            "c/2/0": 503,
        }
        got = {key: status_of(f"{url}/{key}") for key in expected}
        assert {key: code for key, (code, _, _) in got.items()} == expected
        assert all(headers["Access-Control-Allow-Origin"] == "*" for _, headers, _ in got.values())
        assert got["zarr.json"][1]["Content-Type"] == "application/json"
        assert got["c/0/0"][1]["Content-Type"] == "application/octet-stream"
        assert status_of(f"{url}/c/0/0", "HEAD")[1]["Content-Length"] == str(len(got["c/0/0"][2]))
        assert status_of(server.url_of("a", "pc") + "/info")[0] == 404, "two axes are no volume"
    finally:
        server.stop()


def test_an_etag_is_answered_with_304(images):
    url = images.url_of("fib25") + "/0/c/0/0/0"
    tag = status_of(url)[1]["ETag"]
    request = urllib.request.Request(url, headers={"If-None-Match": tag})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    with caught.value:
        assert caught.value.status == 304
