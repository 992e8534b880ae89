"""The benchmarks: volumes are what they say, wrong answers are found, and reports say what was measured.

That every engine reads every layout right is the business of ``python -m bench check``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import shutil
import sys
from contextlib import closing
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import zarr

pytest.importorskip("bench", reason="no benchmarks next to the tests")

from bench import __main__ as command
from bench import formats, planes, start
from bench.arguments import add_names
from bench.engines import UnsupportedVolumeError, load
from bench.layouts import VOLUME_GROUPS, VOLUMES
from bench.limits import command as limits
from bench.remote.engines import load as load_remote
from bench.remote.places import Place
from bench.remote.server import Server
from bench.remote.volumes import RemoteVolume, prepare
from bench.remote.worker import RemoteWorker
from bench.remote.workloads import WORKLOADS as REMOTE_WORKLOADS
from bench.remote.workloads import plan as remote_plan
from bench.report import markdown
from bench.volumes import CACHE_VERSION, build, linked
from bench.worker import WrongAnswerError, compare
from bench.workloads import WORKLOADS, Box, plan


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where volumes are built."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setattr("bench.volumes.CACHE", folder)
        served = folder / f"v{CACHE_VERSION}"
        served.mkdir()
        yield served


def whole(volume):
    return Box((0,) * len(volume.shape), volume.shape)


# ------------------------------------------------------------------------------------------------------------ volumes

LAYOUTS = {  # volume -> codecs in zarr.json, or the compressor of .zarray
    "em": ["sharding_indexed", "bytes", "zstd"],
    "em_raw": ["sharding_indexed", "bytes"],
    "slabs": ["bytes", "zstd"],
    "em64": ["bytes", "zstd"],
    "em128": ["bytes", "zstd"],
    "lm_blosc": ["sharding_indexed", "bytes", "blosc"],
    "v2_blosc": ["blosc"],
    "cubes": ["blosc"],
    "tiles": ["blosc"],
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(cache, name):
    volume = build(name, "small")
    if volume.format == "zarr":
        document = json.loads((volume.path / ".zarray").read_text())
        codecs, chunk = [document["compressor"]["id"]], document["chunks"]
    else:
        document = json.loads((volume.path / "zarr.json").read_text())
        inside = document["codecs"][0].get("configuration", {})
        codecs = [codec["name"] for codec in [*document["codecs"], *inside.get("codecs", [])]]
        chunk = inside.get("chunk_shape") or document["chunk_grid"]["configuration"]["chunk_shape"]
    assert codecs == LAYOUTS[name]
    assert tuple(chunk) == volume.chunk == tuple(map(min, VOLUMES[name][1].chunk, volume.shape))
    assert np.array_equal(zarr.open_array(volume.path, mode="r")[...], volume.truth(whole(volume)))


@pytest.mark.parametrize("name", [n for n in VOLUME_GROUPS["formats"] if n != "bossdb"])
def test_formats_are_what_their_readers_read(cache, name):
    pytest.importorskip(VOLUMES[name][1].writer)
    volume = build(name, "small")
    readers, _ = formats.READERS[volume.format]
    read = []
    for reader in readers:
        try:
            handle = load(reader).open(volume)
        except ImportError:
            continue  # in an environment of its own
        compare(handle.read(whole(volume)), volume.truth, whole(volume), reader)
        read.append(reader)
    assert len(read) >= 2


def test_sharded_or_not(cache):
    pytest.importorskip("tensorstore")
    names = {name: {path.name for path in build(name, "small").path.rglob("*")} for name in ("precomputed", "files")}
    assert any(name.endswith(".shard") for name in names["precomputed"])
    assert "64-128_0-64_128-150" in names["files"]
    assert (build("n5", "small").path / "2" / "0" / "1").is_file()


def test_repeated_shards(cache):
    base, volume = build("em", "small"), build("em_long", "small")
    assert volume.shape == (3 * 512 + base.shape[0], *base.shape[1:])
    assert all(path.is_symlink() for path in (volume.path / "c").rglob("*") if not path.is_dir())
    truth = volume.truth(whole(volume))
    assert np.array_equal(zarr.open_array(volume.path, mode="r")[...], truth)
    assert np.array_equal(truth[1024 : 1024 + base.shape[0]], base.truth(whole(base)))
    assert not truth[base.shape[0] : 512].any()
    # A part of one repetition is a view of the source; a part of several is put together.
    assert isinstance(volume.truth(Box((520, 3, 4), (7, 8, 9))), np.memmap)
    across = Box((100, 3, 4), (500, 8, 9))
    assert np.array_equal(volume.truth(across), truth[across.slices])


def test_only_shards_repeat(cache, tmp_path):
    with pytest.raises(ValueError, match="em64 has no shards"):
        linked("long", tmp_path, build("em64", "small"), (300, 140, 130))


@pytest.mark.parametrize("at", [(0, 0, 0), (1040, 20, 33), (1600, 139, 129)])
def test_one_wrong_voxel_is_found(cache, at):
    volume = build("em_long", "small")
    answer = np.array(volume.truth(whole(volume)))
    compare(answer, volume.truth, whole(volume), "full")
    answer[at] ^= 1
    with pytest.raises(WrongAnswerError, match="full: voxels differ"):
        compare(answer, volume.truth, whole(volume), "full")


def test_wrong_shape_or_type_is_found(cache):
    volume = build("em", "small")
    box = Box((1, 2, 3), (4, 5, 6))
    answer = volume.truth(box)
    for wrong in (answer[:3], answer.astype("u2")):
        with pytest.raises(WrongAnswerError):
            compare(wrong, volume.truth, box, "box")


# ---------------------------------------------------------------------------------------------------------- workloads


@pytest.mark.parametrize("part", [4, 16, 64])
@pytest.mark.parametrize(("shape", "axes"), [((4096, 1024, 1024), "zyx"), ((1, 512, 512, 2048), "cxyz")])
def test_parts(part, shape, axes):
    rounds = plan(WORKLOADS[f"part{part}"], shape, axes, rounds=3, seed="s")
    boxes = [box for boxes in rounds for box in boxes]
    assert len({box.start for box in boxes}) == 4
    for box in boxes:
        assert math.prod(box.shape) * part == math.prod(shape)
        assert all(s % 512 == 0 and s + n <= end for s, n, end in zip(box.start, box.shape, shape, strict=True))


def test_one_chunk():
    shape, chunk = (130, 200, 150, 1), (64, 64, 50, 1)
    boxes = [
        box
        for boxes in plan(WORKLOADS["one_chunk"], shape, "xyzc", rounds=2, seed="s", few=True, chunk=chunk)
        for box in boxes
    ]
    assert len(boxes) == 24
    assert all(box.is_aligned_to(chunk) for box in boxes)
    assert {box.start[0] for box in boxes} == {0, 64}
    with pytest.raises(ValueError, match="of which chunks"):
        plan(WORKLOADS["one_chunk"], shape, "xyzc", rounds=1, seed="s")


def test_groups_of_names():
    parser = argparse.ArgumentParser()
    add_names(parser, "--names", ("a", "b", "c"), default="few", groups={"few": ("c", "a")})
    assert parser.parse_args([]).names == ("a", "c")
    assert parser.parse_args(["--names", "b,few"]).names == parser.parse_args(["--names", "all"]).names
    with pytest.raises(SystemExit):
        parser.parse_args(["--names", "few,d"])


# ------------------------------------------------------------------------------------------------------------- floors


@pytest.mark.parametrize("name", ["em128", "slabs", "em", "webknossos"])
def test_floor_decodes_prefixes(cache, name):
    try:
        floor = load("floor-prefix")
    except ImportError as reason:
        pytest.skip(str(reason))
    volume = build(name, "small")
    handle = floor.open(volume)
    for workload in ("xy", "xz", "yz", "box", "chunk", "full"):
        for box, *_ in plan(WORKLOADS[workload], volume.shape, volume.axes, rounds=3, seed="s"):
            compare(handle.read(box), volume.truth, box, f"{name} {workload}")


# ----------------------------------------------------------------------------------------------------------- commands


@pytest.fixture
def bench(monkeypatch, tmp_path, capsys):
    """Runs a command; the JSON and the Markdown that it wrote."""
    monkeypatch.setattr("bench.document.RESULTS", tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["bench", *arguments, "--name", "of_test"])
        assert command.main() == 0
        text = (tmp_path / "of_test.md").read_text()
        assert capsys.readouterr().out == text
        return json.loads((tmp_path / "of_test.json").read_text()), text

    return call


def test_scale(cache, bench):
    document, text = bench("scale", "--size", "small", "--repeat", "1", "--engines", "voxfetch")
    assert list(document["volumes"]) == ["em_long, cores: 1", "em_long, cores: 2"]
    assert list(document["workloads"]) == ["part64", "part16", "part4", "full"]
    volume = build("em_long", "small")
    for result in document["results"]:
        assert not result["problem"]
        boxes = plan(WORKLOADS[result["workload"]], volume.shape, "zyx", rounds=1, seed="s")[0]
        assert result["output_bytes"] == math.prod(boxes[0].shape)
        assert (result["peak_over_output"] is None) == (result["workload"] == "part64")
    assert "| MiB read | 0.456 | 1.82 | 7.31 | 29.3 |" in text
    assert "| em_long, cores: 1 | full | 29.3 |" in text


def test_run_without_a_floor(cache, bench):
    document, text = bench(
        "run", "--size", "small", "--repeat", "1", "--engines", "voxfetch,zarr,floor-2t",
        "--volumes", "v2_blosc", "--workloads", "box",
    )  # fmt: skip
    assert [bool(result["problem"]) for result in document["results"]] == [False, False, True]
    assert "of zarr / -" in text
    assert "## Failures" not in text


def test_limits(bench):
    document, text = bench("limits", "--quick")
    figures = [figure for group in document["groups"].values() for figure in group]
    assert list(document["groups"]) == ["planning", "vast", "indexes", "epoch", "crowd", "gil", "start", "requests"]
    assert all(figure["samples"] for figure in figures)
    counts = [figure for figure in figures if figure["exact"] and figure["most"] is not None]
    assert len(counts) >= 10
    assert all(figure["samples"][0] <= figure["most"] for figure in counts)
    assert "| plan of 32,768 chunks, missing |" in text
    missed = limits.Figure("of chunks", "ns", [3.0, 1.0, 2.0], 1.5)
    assert not missed.holds
    assert "**missed**" in limits.markdown(document | {"groups": {"all": [missed.as_json()]}})


def test_start(cache, bench):
    document, text = bench("start", "--size", "small", "--repeat", "1", "--engines", "voxfetch")
    kinds = {(result["engine"], result["what"]) for result in document["results"]}
    assert kinds == {("python", "import"), ("numpy", "import"), ("voxfetch", "import"), ("voxfetch", "first")}
    assert all(len(result["seconds"]) == 1 for result in document["results"])
    assert "| voxfetch | " in text


@pytest.mark.parametrize("reader", planes.READERS)
def test_planes_are_right(cache, reader):
    planes.sample(build("em", "small"), reader, 1 << 20)


def test_start_finds_wrong_voxels(cache, monkeypatch):
    assert start.check(("voxfetch",)) == 0
    imports, read = start.READERS["voxfetch"]
    monkeypatch.setitem(start.READERS, "voxfetch", (imports, read, "out = out + 1"))
    assert start.check(("voxfetch", "webknossos")) == 1
    monkeypatch.setitem(start.READERS, "voxfetch", (imports, "out = no_such_name"))
    assert start.check(("voxfetch",)) == 1


def test_reports_of_old_documents(cache, bench):
    """Those without the size of the answer."""
    document, _ = bench(
        "run", "--size", "small", "--repeat", "1", "--engines", "voxfetch", "--volumes", "em", "--workloads", "full"
    )
    for result in document["results"]:
        del result["output_bytes"]
    assert "| MiB read |  |" in markdown(document)


# ------------------------------------------------------------------------------------------------------------- remote


@pytest.fixture(scope="module")
def range_server(cache):
    """Serves the volumes."""
    if shutil.which("cargo") is None:
        pytest.skip("the range server is built with cargo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.remote.volumes.SERVED", cache)
        with Server(cache) as server:
            yield server


def remote(name):
    return prepare([name], "small", repeat=1, crops=1, sustained_bytes=1, few=True)[name]


def touched(volume, box):
    """The files of the chunks that a box touches, in Zarr v2."""
    shape = zip(box.start, box.shape, volume.volume.object_shape, strict=True)
    cells = itertools.product(*(range(s // c, -(-(s + n) // c)) for s, n, c in shape))
    return [volume.volume.path / ".".join(map(str, cell)) for cell in cells]


def test_remote_volumes_without_shards(cache, range_server):
    volume = remote("cubes")
    assert volume.volume == volume.base == build("cubes", "small")
    assert volume.cells == [(z, y, x) for z in (0, 128) for y in (0, 128) for x in (0, 128)]
    assert (cache / volume.key((1, 0, 1))).is_file()
    assert remote("tiles").cells == [(z, 0, 0) for z in range(150)]
    sharded = RemoteVolume(*[build("em", "small")] * 2)
    assert (cache / sharded.key((0, 0, 0))).is_file()


@pytest.mark.parametrize("name", ["cubes", "cubes_50mb", "tiles", "tiles_50mb"])
def test_boxes_of_large_chunks(cache, name):
    workload, volume = REMOTE_WORKLOADS[name], RemoteVolume(*[build(name.removesuffix("_50mb"), "small")] * 2)
    boxes = [remote_plan(workload, volume, run, count=20, seed="s") for run in range(3)]
    assert len({box.start for run in boxes for box in run}) == 60
    for box in boxes[0]:
        assert box.shape == ((48, 48, 48) if volume.volume.name == "cubes" else (1, 105, 97))
        assert all(s + n <= end for s, n, end in zip(box.start, box.shape, volume.volume.shape, strict=True))
        assert 2 * len(touched(volume, box)) <= workload.requests_at_most


@pytest.mark.parametrize("bucket", [None, "small"])
@pytest.mark.parametrize("engine", ["voxfetch", "tensorstore", "zarr", "zarr-obstore", "zarrista", "obstore"])
@pytest.mark.parametrize("name", ["cubes", "tiles"])
def test_engines_read_large_chunks(range_server, name, engine, bucket):
    """Answers are compared by the worker; what is fetched is right as well: whole chunks, or blocks of them."""
    volume = remote(name)
    with closing(RemoteWorker()) as worker:
        try:
            worker.load(engine, range_server.port, bucket)
        except ImportError as reason:
            pytest.skip(str(reason))
        run = {"seed": "s", "count": 10, "limit_s": 60, "delayed": False}
        samples = worker.run(name, volume.as_json(), 1, **run)["samples"]
    assert len(samples) == 10
    fetched = sum(sample["bytes"] for sample in samples)
    boxes = remote_plan(REMOTE_WORKLOADS[name], volume, 1, count=10, seed="s")
    whole_chunks = [sum(path.stat().st_size for path in touched(volume, box)) for box in boxes]
    if engine == "obstore":
        assert [sample["bytes"] for sample in samples] == whole_chunks
    elif engine == "voxfetch" and name == "cubes":
        assert 0 < fetched < 0.8 * sum(whole_chunks)
    else:
        assert 0 < fetched <= sum(whole_chunks)


def test_the_floor_tolerates_missing_chunks(cache, range_server):
    pytest.importorskip("obstore")
    stored = build("cubes", "small")
    path = cache / "small" / "sparse"
    shutil.copytree(stored.path, path)
    (path / "1.1.1").unlink()
    volume = RemoteVolume(*[replace(stored, path=path)] * 2)
    floor = load_remote("obstore", range_server.control.url).open(volume)
    corner = Box((130, 129, 128), (4, 4, 2))
    assert floor.read(corner).tolist() == [0]
    assert floor.read(Box((100, 129, 128), (40, 4, 2))).tolist() == [(path / "0.1.1").stat().st_size]


class InProcess:
    """Instead of ``bench.runner.Process``: its volumes lie elsewhere than those of a process would."""

    dead = False

    def __init__(self, engine, worker, port, reply_timeout_s, bucket):
        self._worker = RemoteWorker()
        self.loaded = self._worker.load(engine, port, bucket)

    def call(self, do, **arguments):
        assert do == "run"
        return self._worker.run(**arguments)

    def close(self):
        self._worker.close()


@pytest.mark.parametrize("where", ["http", "s3"])
def test_remote(cache, range_server, bench, monkeypatch, where):
    pytest.importorskip("tensorstore")
    pytest.importorskip("obstore")
    monkeypatch.setattr("bench.remote.runner.SERVED", cache)
    monkeypatch.setattr("bench.remote.runner.Process", InProcess)
    monkeypatch.setattr("bench.remote.runner.Settings.count", lambda *_: 3)
    document, text = bench(
        "remote", "--size", "small", "--repeat", "1", "--engines", "voxfetch,tensorstore,obstore",
        "--workloads", "cubes,tiles_50mb", "--where", where,
    )  # fmt: skip
    assert set(document["volumes"]) == {"cubes", "tiles"}
    assert [len(result["runs"][0]) for result in document["results"]] == [3] * 6
    assert not any(result["problem"] for result in document["results"])
    assert "## cubes: one 48^3 box of chunks of 128^3" in text
    assert "tiles, 20 ms, 50 MB/s a connection, 3 a run." in text
    assert text.count("| **tensorstore** |") == 2
    assert text.startswith("# Remote reads through S3, " if where == "s3" else "# Remote reads, ")
    assert ("StoreOptions(anonymous=True" in text) == (where == "s3")


def test_urls_of_a_bucket():
    """The bucket is the first folder of the server; what reads over plain HTTP only refuses it."""
    http, bucket = Place("http://h:1"), Place("http://h:1", "small")
    assert (http.url("small/a"), bucket.url("small/a")) == ("http://h:1/small/a", "s3://small/a")
    assert (http.key("small/a"), bucket.key("small/a")) == ("small/a", "a")
    assert http.http() == "http://h:1"
    with pytest.raises(UnsupportedVolumeError, match="plain HTTP"):
        load_remote("webknossos", "http://h:1", "small")


class CropsInProcess:
    """The same for the workers of crops."""

    def __init__(self, engine, worker, port):
        self._worker = import_module(worker).CropsWorker()
        self.loaded = self._worker.load(engine, port)

    def call(self, do, **arguments):
        return getattr(self._worker, do)(**arguments)

    def close(self):
        self._worker.close()


def test_crops(cache, range_server, bench, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("tensorstore")
    monkeypatch.setattr("bench.crops.command.SERVED", cache)
    monkeypatch.setattr("bench.crops.command.Process", CropsInProcess)
    document, text = bench(
        "crops", "--size", "small", "--repeat", "1", "--engines", "voxfetch,voxfetch-0w,tensorstore-0w",
        "--extents", "32", "--crops", "20", "--batch", "8",
    )  # fmt: skip
    assert not any(result["problem"] for result in document["results"])
    assert [result["runs"][0]["crops"] for result in document["results"]] == [20] * 6
    assert all((result["runs"][0]["bytes"] > 0) == (result["where"] == "http") for result in document["results"])
    assert text.count("| **tensorstore-0w** |") == 2
    # A crop that is not what the source says.
    worker = import_module("bench.crops.worker").CropsWorker()
    with closing(worker):
        worker.load("voxfetch", range_server.port)
        worker.open(build("em", "small").as_json(), 32, 20, 8, 1, "s", remote=False)
        monkeypatch.setattr("voxfetch.torch.crops._Member.starts", lambda self, starts: starts * 0)
        with pytest.raises(WrongAnswerError, match="another sum"):
            worker.run(1, 0, 60)


@pytest.mark.parametrize(("name", "requests"), [("wkw", 2), ("n5", 1), ("precomputed", 3), ("files", 1), ("zip", 3)])
def test_a_cold_chunk(range_server, name, requests):
    """Every sample reads a copy that nobody has read; answers are compared by the worker."""
    pytest.importorskip("wkw" if name == "wkw" else "tensorstore")
    workload = REMOTE_WORKLOADS[f"{name}_cold"]
    assert workload.requests_at_most == requests
    volume = prepare([workload.name], "small", repeat=1, crops=1, sustained_bytes=1, few=True)[name]
    assert volume.copy(3).volume.path.resolve() == volume.volume.path.resolve()
    assert volume.copy(3).path != volume.path
    with closing(RemoteWorker()) as worker:
        worker.load("voxfetch", range_server.port)
        run = {"seed": "s", "count": 2, "limit_s": 60, "delayed": False}
        samples = worker.run(workload.name, volume.as_json(), 1, **run)["samples"]
    assert [sample["get"] for sample in samples] == [requests] * 2


@pytest.mark.parametrize(("name", "writer"), [("hdf5", "h5py"), ("references", "kerchunk"), ("b2nd", "blosc2")])
def test_opened_and_read(range_server, name, writer):
    """Opening belongs to the sample: its requests are among those counted."""
    pytest.importorskip(writer)
    workload = REMOTE_WORKLOADS[f"{name}_first"]
    assert f"{name}_cold" not in REMOTE_WORKLOADS
    volume = prepare([workload.name], "small", repeat=1, crops=1, sustained_bytes=1, few=True)[name]
    with closing(RemoteWorker()) as worker:
        worker.load("voxfetch", range_server.port)
        run = {"seed": "s", "count": 2, "limit_s": 60, "delayed": False}
        samples = worker.run(workload.name, volume.as_json(), 1, **run)["samples"]
    assert all(2 <= sample["get"] <= workload.requests_at_most for sample in samples)


def test_formats(cache, range_server, bench, monkeypatch):
    pytest.importorskip("tensorstore")
    monkeypatch.setattr("bench.remote.runner.SERVED", cache)
    monkeypatch.setattr("bench.remote.runner.Process", InProcess)
    readers = {"n5": (("voxfetch", "voxfetch-f", "tensorstore"), ("voxfetch", "tensorstore"))}
    monkeypatch.setattr("bench.formats.READERS", readers)
    document, text = bench("formats", "--size", "small", "--repeat", "1", "--volumes", "n5_labels")
    for where, reads in (("local", 3 * len(formats.LOCAL_READS)), ("http", 2 * 3)):
        results = document[where]["results"]
        assert len(results) == reads
        assert not any(result["problem"] for result in results)
    assert '| n5_labels, order="F" | ' in text
    assert "| **tensorstore** |" not in text
    assert "of tensorstore |" in text
    assert "## Failures" not in text
    assert formats.markdown(document) == text
    # Only one of the two places.
    _, text = bench("formats", "--size", "small", "--repeat", "1", "--volumes", "n5_labels", "--where", "http")
    assert "| volume | box128, http | xy, http | cold, http |" in text
