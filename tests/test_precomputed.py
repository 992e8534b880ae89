"""Neuroglancer precomputed volumes: the voxels that tensorstore and cloud-volume wrote, from disk and over HTTP."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import pickle
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import brotli
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import voxfetch as vf
from tests.precomputed import labels, picture, sharding, with_holes, write_scale, zip_chunks
from tests.servers import objects_in
from tests.servers.faulty import Fault, FaultyServer

DATA = Path(__file__).parent / "data" / "precomputed"
MURMUR = "murmurhash3_x86_128"
CSEG = "compressed_segmentation"


@dataclass(frozen=True)
class Volume:
    """A volume of one scale on disk. `tolerance` is how far two decoders of its JPEGs may be apart."""

    path: Path
    expected: np.ndarray
    offset: tuple[int, ...]
    chunk_size: tuple[int, ...]
    tolerance: int

    def check(self, found: np.ndarray, selection: Any = ...) -> None:
        expected = self.expected[selection]
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        if not self.tolerance:
            np.testing.assert_array_equal(found, expected)
        elif found.size:
            assert np.abs(found.astype(int) - expected).max() <= self.tolerance


def _volumes() -> dict[str, tuple[tuple[int, ...], str, dict[str, Any]]]:
    plain = {"chunk_size": (16, 8, 5)}
    moved = {"chunk_size": (7, 8, 9), "voxel_offset": (-13, 5, 1_000_000)}
    cseg = {"encoding": CSEG, "compressed_segmentation_block_size": (8, 8, 8), "kind": "segmentation"}
    large = {"chunk_size": (4, 4, 4), "voxel_offset": (-5, 300, 0)}
    volumes: dict[str, tuple[tuple[int, ...], str, dict[str, Any]]] = {
        "raw u1": ((37, 25, 19, 1), "uint8", plain),
        "raw i1, two channels": ((20, 21, 22, 2), "int8", moved),
        "raw u2, three channels": ((20, 21, 22, 3), "uint16", moved),
        "raw i2": ((20, 21, 22, 1), "int16", moved),
        "raw u4": ((20, 21, 22, 1), "uint32", moved),
        "raw i4": ((20, 21, 22, 1), "int32", plain),
        "raw u8": ((20, 21, 22, 1), "uint64", {"chunk_size": (5, 100, 1), "voxel_offset": (0, -21, -11)}),
        "raw f4": ((20, 21, 22, 2), "float32", moved),
        "one chunk": ((5, 6, 7, 1), "uint16", {"chunk_size": (64, 64, 64)}),
        "a voxel": ((1, 1, 1, 1), "uint8", {"chunk_size": (1, 1, 1), "voxel_offset": (-1, -1, -1)}),
        "png u1": ((37, 25, 19, 1), "uint8", {"encoding": "png", **plain}),
        "png u1, two channels": ((20, 21, 22, 2), "uint8", {"encoding": "png", **moved}),
        "png u1, four channels": ((20, 21, 22, 4), "uint8", {"encoding": "png", **plain}),
        "png u2": ((20, 21, 22, 1), "uint16", {"encoding": "png", **moved}),
        "png u2, three channels": ((20, 21, 22, 3), "uint16", {"encoding": "png", **plain}),
        "jpeg": ((37, 45, 19, 1), "uint8", {"encoding": "jpeg", "chunk_size": (16, 16, 8), "jpeg_quality": 95}),
        # Where colours are few pixels wide, decoders do not agree how they lie between pixels.
        "jpeg, three channels": (
            (37, 45, 19, 3),
            "uint8",
            {"encoding": "jpeg", **moved, "chunk_size": (8, 8, 9), "jpeg_quality": 95},
        ),
        "cseg u4": ((37, 25, 19, 1), "uint32", {**cseg, **plain}),
        "cseg u8": ((40, 41, 42, 1), "uint64", {**cseg, "chunk_size": (32, 32, 32)}),
        "cseg u8, two channels": (
            (20, 21, 22, 2),
            "uint64",
            {**cseg, **moved, "compressed_segmentation_block_size": (4, 5, 3), "kind": "image"},
        ),
        "sharded cseg": (
            (40, 41, 42, 1),
            "uint64",
            {
                **cseg,
                "chunk_size": (16, 16, 16),
                "sharding": sharding(preshift=3, minishard=2, shard=4, index="gzip", data="gzip"),
            },
        ),
        "sharded jpeg": (
            (37, 45, 19, 1),
            "uint8",
            {
                "encoding": "jpeg",
                "chunk_size": (16, 16, 8),
                "jpeg_quality": 95,
                "sharding": sharding(preshift=1, minishard=1, shard=2, index="gzip"),
            },
        ),
        "sharded, three channels": ((20, 21, 22, 3), "uint16", {**moved, "sharding": sharding(minishard=2, shard=2)}),
        "sharded, a flat grid": (
            (30, 4, 22, 1),
            "uint16",
            {**large, "sharding": sharding(preshift=2, minishard=1, shard=2)},
        ),
        "sharded, one shard": ((30, 9, 22, 1), "uint16", {**large, "sharding": sharding(minishard=0, shard=0)}),
        "sharded, no minishards": ((30, 9, 22, 1), "uint16", {**large, "sharding": sharding(minishard=0, shard=5)}),
        "sharded, all shifted out": ((30, 9, 22, 1), "uint16", {**large, "sharding": sharding(preshift=64)}),
        "sharded, a chunk a shard": (
            (30, 9, 22, 1),
            "uint16",
            {**large, "sharding": sharding(MURMUR, minishard=3, shard=12)},
        ),
    }
    for hash_ in ("identity", MURMUR):
        for index in ("raw", "gzip"):
            for data in ("raw", "gzip"):
                spec = sharding(hash_, preshift=2, minishard=2, shard=3, index=index, data=data)
                volumes[f"sharded {hash_} {index} {data}"] = (30, 9, 22, 1), "uint16", {**large, "sharding": spec}
    return volumes


VOLUMES = tuple(_volumes())
UNSHARDED = tuple(name for name in VOLUMES if not name.startswith("sharded"))


@pytest.fixture(scope="session")
def volumes(tmp_path_factory, make_values):
    """`volumes(name)` -> a Volume, written once; about every third chunk is not stored."""
    root = tmp_path_factory.mktemp("precomputed")

    @functools.cache
    def written(name):
        shape, dtype, scale = _volumes()[name]
        seed = VOLUMES.index(name)
        encoding, chunk_size = scale.get("encoding"), scale["chunk_size"]
        if encoding == CSEG:
            voxels = labels(shape, dtype, seed)
        else:
            voxels = picture(shape, seed) if encoding == "jpeg" else make_values(shape, dtype, seed)
        path = root / name.replace(" ", "_").replace(",", "")
        expected = write_scale(path, with_holes(voxels, chunk_size), **scale)
        # JPEG decoders differ by rounding, more where colours are mixed.
        tolerance = 0 if encoding != "jpeg" else 1 if shape[3] == 1 else 4
        return Volume(path, expected, scale.get("voxel_offset", (0, 0, 0)), chunk_size, tolerance)

    return written


@pytest.fixture(params=VOLUMES)
def volume(request, volumes):
    """Each volume in turn."""
    return volumes(request.param)


@pytest.fixture
def engine():
    retry = vf.RetryPolicy(max_attempts=3, base_s=0.01, cap_s=0.05)
    with vf.Engine(decode_threads=2, retry=retry) as engine:
        yield engine


def level(volume, **keywords):
    return vf.open_image(volume.path, **keywords).level(0)


# ------------------------------------------------------------------------------------------------------- what is read


def test_every_volume(volume):
    image = vf.open(volume.path)
    assert isinstance(image, vf.Image)
    assert image.axes == ("x", "y", "z", "channel")
    array = image.level(0)
    assert array.format == "precomputed"
    assert array.shape == volume.expected.shape
    assert array.dtype == volume.expected.dtype
    assert array.axes == ("x", "y", "z", "channel")
    assert array.origin == (*volume.offset, 0)
    # A chunk larger than the volume ends where it does.
    extents = zip(volume.chunk_size, volume.expected.shape, strict=False)
    assert array.chunks == (*(min(extent) for extent in extents), volume.expected.shape[3])
    assert array.fill_value == 0
    assert array.unit == ("nanometer", "nanometer", "nanometer", None)
    assert array.scale == (4, 4, 40, 1)
    assert array.translation == (volume.offset[0] * 4, volume.offset[1] * 4, volume.offset[2] * 40, 0)
    volume.check(array[...])
    volume.check(array.read(order="F"))
    volume.check(pickle.loads(pickle.dumps(array))[...])
    for box, block in array.blocks((13, 9, 6, array.shape[3])):
        volume.check(block, box.slices)


@given(name=st.sampled_from(VOLUMES), data=st.data())
def test_any_selection_is_that_of_numpy(volumes, name, data):
    volume = volumes(name)
    axes = [
        data.draw(
            st.one_of(
                st.integers(-extent, extent - 1),
                st.builds(slice, st.integers(-50, 50), st.integers(-50, 50), st.integers(1, 7)),
            )
        )
        for extent in volume.expected.shape
    ]
    selection = tuple(axes)
    found = level(volume)[selection]
    if volume.expected[selection].shape:
        volume.check(found, selection)
    else:
        assert abs(int(found) - int(volume.expected[selection])) <= volume.tolerance


@given(
    name=st.sampled_from(VOLUMES),
    start=st.tuples(*[st.integers(-9, 45)] * 3),
    shape=st.tuples(*[st.integers(1, 20)] * 3),
)
def test_boxes_in_coordinates_of_the_world(volumes, name, start, shape):
    volume = volumes(name)
    array, channels = level(volume), volume.expected.shape[3]
    world = [at + offset for at, offset in zip(start, volume.offset, strict=True)]
    found = array.read_box((*world, 0), (*shape, channels), absolute=True, bounds="fill")
    padded = np.pad(volume.expected, [(9, 70)] * 3 + [(0, 0)])
    expected = padded[tuple(slice(at + 9, at + 9 + n) for at, n in zip(start, shape, strict=True))]
    assert found.shape == expected.shape
    if volume.tolerance:
        assert np.abs(found.astype(int) - expected).max() <= volume.tolerance
    else:
        np.testing.assert_array_equal(found, expected)


def test_other_orders_of_axes(volumes):
    volume = volumes("raw u2, three channels")
    array = vf.open(volume.path, axes=("channel", "z", "y", "x")).level(0)
    np.testing.assert_array_equal(array[...], volume.expected.T)
    assert array.origin == (0, 1_000_000, 5, -13)


def test_many_boxes_at_once(volume):
    array = level(volume)
    shape = (*(min(6, extent) for extent in array.shape[:3]), array.shape[3])
    generator = random.Random(0)
    starts = [[generator.randint(0, n - m) for n, m in zip(array.shape, shape, strict=True)] for _ in range(20)]
    for start, found in zip(starts, array.read_many(starts, shape), strict=True):
        volume.check(found, tuple(slice(at, at + n) for at, n in zip(start, shape, strict=True)))


def test_scales(tmp_path, make_values):
    expected = []
    for factor in (1, 2, 4):
        voxels = make_values((40 // factor, 36 // factor, 20, 1), "uint16", factor)
        scale = {"resolution": (8 * factor, 8 * factor, 40), "voxel_offset": (-16 // factor, 8 // factor, 3)}
        spec = sharding(minishard=1, shard=1) if factor == 2 else None
        extra = {} if spec is None else {"sharding": spec}
        expected.append(write_scale(tmp_path, voxels, chunk_size=(16, 16, 16), **scale, **extra))
    image = vf.open(tmp_path)
    assert len(image.levels) == 3
    assert [one.scale for one in image.levels] == [(8, 8, 40, 1), (16, 16, 40, 1), (32, 32, 40, 1)]
    # Centres: a coarse voxel's lies between those of the fine ones.
    assert [one.translation for one in image.levels] == [(-128, 64, 120, 0), (-124, 68, 120, 0), (-116, 76, 120, 0)]
    for one, voxels in zip(image.levels, expected, strict=True):
        np.testing.assert_array_equal(one[...], voxels)
    assert image.level(mag="2-2-1") == image.level(1)
    assert image.level(resolution=(32, 32, 40), unit="nm") == image.level(2)
    assert image.attrs["data_type"] == "uint16"
    assert "scales" not in image.attrs


def test_a_level_by_its_path(volumes):
    volume = volumes("sharded cseg")
    np.testing.assert_array_equal(vf.open_array(volume.path, "4_4_40")[...], volume.expected)
    for source in (f"precomputed://file://{volume.path}", f"file://{volume.path}|neuroglancer-precomputed:"):
        np.testing.assert_array_equal(vf.open(source).level(0)[...], volume.expected)
    np.testing.assert_array_equal(vf.open(volume.path, format="precomputed").level(0)[...], volume.expected)


@pytest.mark.parametrize("name", ["raw u1", "sharded cseg", f"sharded {MURMUR} gzip raw"])
def test_sound_volumes_are_verified(volumes, name):
    report = level(volumes(name)).verify()
    assert report.problem_count == 0
    assert report.chunks > report.chunks_missing


# --------------------------------------------------------------------------------------------------- what is not there


def test_a_shard_that_is_not_there(volumes, tmp_path):
    volume = volumes("sharded identity gzip gzip")
    copy = tmp_path / "volume"
    shutil.copytree(volume.path, copy)
    shards = sorted(copy.rglob("*.shard"))
    assert len(shards) > 2
    shards[1].unlink()
    found = vf.open(copy).level(0)[...]
    differs = found != volume.expected
    assert differs.any()
    assert not found[differs].any(), "what is not stored is 0, all else is as it was"


def test_nothing_is_stored(tmp_path):
    for name, extra in (("a", {}), ("b", {"sharding": sharding()})):
        voxels = np.zeros((9, 9, 9, 1), "u2")
        write_scale(tmp_path / name, voxels, chunk_size=(4, 4, 4), **extra)
        np.testing.assert_array_equal(vf.open(tmp_path / name).level(0)[...], voxels)


# ------------------------------------------------------------------------------------------------------- what is broken


@pytest.mark.parametrize("name", ["sharded identity raw raw", f"sharded {MURMUR} gzip gzip"])
def test_broken_shards_are_errors_and_never_other_voxels_in_silence(volumes, tmp_path, name):
    volume = volumes(name)
    index_nbytes = 16 << 2
    copy = tmp_path / "volume"
    shutil.copytree(volume.path, copy)
    shard = max(copy.rglob("*.shard"), key=lambda path: path.stat().st_size)
    whole = shard.read_bytes()
    broken = {
        "a byte": whole[:1],
        "half of the index": whole[: index_nbytes // 2],
        "the index alone": whole[:index_nbytes],
        "without its end": whole[:-1],
        "other offsets": b"\xff" * 8 + whole[8:],
        "ends before starts": (9).to_bytes(8, "little") + (5).to_bytes(8, "little") + whole[16:],
    }
    for what, body in broken.items():
        shard.write_bytes(body)
        with pytest.raises(vf.DataError, match="shard") as caught:
            vf.open(copy).level(0)[...]
        assert shard.name in caught.value.key, what


def test_broken_chunks(volumes, tmp_path):
    volume = volumes("raw u2, three channels")
    copy = tmp_path / "volume"
    shutil.copytree(volume.path, copy)
    chunk = next(path for path in sorted(copy.rglob("*_*_*")) if path.is_file())
    whole = chunk.read_bytes()
    for body in (b"", whole[:-1], whole + b"\0"):
        chunk.write_bytes(body)
        with pytest.raises(vf.DataError) as caught:
            vf.open(copy).level(0)[...]
        assert chunk.name in caught.value.key


@pytest.mark.parametrize(
    ("document", "error", "part"),
    [
        ({"@type": "neuroglancer_skeletons"}, vf.UnsupportedError, "skeletons"),
        ({"scales": [{"encoding": "jxl"}]}, vf.UnsupportedError, "jxl"),
        ({"scales": [{"encoding": "fpzip"}]}, vf.UnsupportedError, "fpzip"),
        ({"scales": [{"size": [1, 2]}]}, vf.MetadataError, "size"),
        ({"data_type": "float64"}, vf.UnsupportedError, "float64"),
        ({"scales": [{"key": "../x"}]}, vf.UnsupportedError, "leads out"),
    ],
)
def test_what_is_refused(volumes, tmp_path, document, error, part):
    info = json.loads((volumes("raw u1").path / "info").read_bytes())
    scales = document.pop("scales", None)
    if "@type" in document:
        info = {}
    elif scales is not None:
        info["scales"][0].update(scales[0])
    info.update(document)
    (tmp_path / "info").write_text(json.dumps(info))
    with pytest.raises(error, match=part):
        vf.open(tmp_path)


# ------------------------------------------------------------------------------------------------------------ over HTTP


def test_every_volume_over_http(volume, engine):
    with FaultyServer(volume.path) as server:
        array = vf.open(server.url, engine=engine).level(0)
        volume.check(array[...])
        corner = tuple(slice(extent // 3, extent // 3 + 7) for extent in array.shape[:3])
        volume.check(array[corner], corner)
        assert server.count(method="HEAD") == 0


def test_requests_of_a_shard(volumes, engine):
    """The shard index, the index of the minishard, the chunk: and no more of a shard that is not small."""
    volume = volumes("sharded cseg")
    with FaultyServer(volume.path) as server:
        array = vf.open(server.url, engine=engine).level(0)
        del server.requests[:]
        volume.check(array[:16, :16, :16], np.s_[:16, :16, :16])
        keys = {request.key for request in server.requests}
        assert len(keys) == 1
        assert 1 <= len(server.requests) <= 3
        del server.requests[:]
        array[:16, :16, :16]
        assert len(server.requests) <= 1, "indexes are kept"


@pytest.mark.parametrize("name", UNSHARDED)
def test_files_that_cloud_volume_compressed(volumes, tmp_path, name):
    volume = volumes(name)
    copy = tmp_path / "volume"
    shutil.copytree(volume.path, copy)
    zip_chunks(copy)
    volume.check(vf.open(copy).level(0)[...])
    info = (copy / "info").read_bytes()
    (copy / "info").unlink()
    for name, compress in (("info.gz", gzip.compress), ("info.br", brotli.compress)):
        (copy / name).write_bytes(compress(info))
        volume.check(vf.open(copy).level(0)[...])
        (copy / name).unlink()


@pytest.mark.parametrize("encoding", ["gzip", "br"])
@pytest.mark.parametrize("name", ["raw u2, three channels", "jpeg", "cseg u8"])
def test_objects_with_a_content_encoding(volumes, engine, name, encoding):
    volume = volumes(name)
    compress = {"gzip": gzip.compress, "br": brotli.compress}[encoding]
    objects = {key: compress(body) for key, body in objects_in(volume.path).items()}
    with FaultyServer(objects) as server:
        server.rule = lambda request: Fault(headers={"Content-Encoding": encoding}) if request.key in objects else None
        volume.check(vf.open(server.url, engine=engine).level(0)[...])


# -------------------------------------------------------------------------------------------------------- real volumes


def test_the_volume_of_cloud_volume():
    """Labels in compresso, of which a few chunks are here; the sums are of what the compresso package decodes."""
    folder = DATA / "cloud-volume"
    image = vf.open(folder / "pinky40")
    assert [one.shape for one in image.levels] == [(1024, 1024, 512, 1), (512, 512, 512, 1), (256, 256, 512, 1)]
    sums = json.loads((folder / "pinky40.json").read_text())
    assert len(sums) == 4
    for key, expected in sums.items():
        number = [one.path for one in image._multiscale.datasets].index(key.partition("/")[0])
        spans = [span.split("-") for span in key.partition("/")[2].split("_")]
        voxels = image.level(number)[tuple(slice(int(start), int(end)) for start, end in spans)]
        assert voxels.dtype == np.uint32
        assert hashlib.sha256(voxels.tobytes("F")).hexdigest() == expected
    assert not image.level(0)[:256, :256, :64].any(), "level 0 was left out"


@pytest.mark.parametrize("name", ["identity", "identity_gzip", "murmur", "murmur_gzip"])
def test_shards_of_tensorstore_as_they_are_kept(name):
    folder = DATA / "tensorstore-0.1.86"
    expected = vf.open(folder / "unsharded").level(0)[...]
    assert expected.any()
    np.testing.assert_array_equal(vf.open(folder / name).level(0)[...], expected)
