"""The benchmarks: volumes are what they say, wrong answers are found, and reports say what was measured.

That every engine reads every layout right is the business of ``python -m bench check``.
"""

from __future__ import annotations

import argparse
import json
import math
import sys

import numpy as np
import pytest
import zarr

pytest.importorskip("bench", reason="no benchmarks next to the tests")

from bench import __main__ as command
from bench import start
from bench.arguments import add_names
from bench.engines import load
from bench.report import markdown
from bench.volumes import VOLUMES, build, linked
from bench.worker import WrongAnswerError, compare
from bench.workloads import WORKLOADS, Box, plan


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where volumes are built."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setattr("bench.volumes.CACHE", folder)
        yield folder


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


def test_start(cache, bench):
    document, text = bench("start", "--size", "small", "--repeat", "1", "--engines", "voxfetch")
    kinds = {(result["engine"], result["what"]) for result in document["results"]}
    assert kinds == {("python", "import"), ("numpy", "import"), ("voxfetch", "import"), ("voxfetch", "first")}
    assert all(len(result["seconds"]) == 1 for result in document["results"])
    assert "| voxfetch | " in text


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
