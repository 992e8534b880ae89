"""Images and arrays as precomputed volumes: `info`, names of chunks, their voxels by the rules of the format."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

import voxfetch as vf
from tests.conftest import values
from tests.images import make_image
from tests.planes import Planes, same
from voxfetch.server.casts import cast_voxels


@pytest.fixture(scope="module")
def root(request):
    return request.config.rootpath


def volume(planes, path):
    """All voxels of a volume, level by level, by the rules of the format; (channel, z, y, x)."""
    info = planes.json(f"{path}/info")
    levels = []
    for scale in info["scales"]:
        size, offset, (extent,) = scale["size"], scale["voxel_offset"], scale["chunk_sizes"]
        voxels = np.zeros((info["num_channels"], *size[::-1]), info["data_type"])
        for place in np.ndindex(*(-(-n // m) for n, m in zip(size, extent, strict=True))):
            low = [p * m for p, m in zip(place, extent, strict=True)]
            high = [min(a + m, n) for a, m, n in zip(low, extent, size, strict=True)]
            name = "_".join(f"{a + o}-{b + o}" for a, b, o in zip(low, high, offset, strict=True))
            body = planes.get(f"{path}/{scale['key']}/{name}")
            if body is not None:
                shape = [info["num_channels"], *(b - a for a, b in zip(low[::-1], high[::-1], strict=True))]
                part = tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))
                voxels[(slice(None), *part)] = np.frombuffer(body.content, info["data_type"]).reshape(shape)
        levels.append(voxels)
    return info, levels


@pytest.mark.parametrize("axes", ["zyx", "cxyz", "xyzc", "yxcz"])
def test_images_are_precomputed_volumes_whatever_their_axes(tmp_path, axes):
    voxels = values([dict(zip("czyx", (3, 9, 17, 12), strict=True))[name] for name in axes], "uint16")
    image = make_image(
        tmp_path / "a", [voxels], axes, [[1.0 if n == "c" else 5.0 for n in axes]], units=[None] * len(axes)
    )
    info, (got,) = volume(Planes(a=image), "pc/a")
    full = voxels if "c" in axes else voxels[None]
    same(got, full.transpose([("c" * ("c" not in axes) + axes).index(name) for name in "czyx"]))
    assert info["num_channels"] == (3 if "c" in axes else 1)
    assert (info["@type"], info["type"]) == ("neuroglancer_multiscale_volume", "image")
    assert info["scales"][0]["encoding"] == "raw"


def test_sizes_are_nanometres_and_corners_whole_voxels(tmp_path):
    levels = [values((8, 16, 16), "u1"), values((8, 8, 8), "u1"), values((8, 4, 4), "u1")]
    scales = [(0.04, 0.008, 0.008), (0.04, 0.016, 0.016), (0.04, 0.032, 0.032)]
    binned = [(0.4, 0.0, 0.8), (0.4, 0.004, 0.804), (0.4, 0.012, 0.812)]
    silent = [(0.4, 0.0, 0.8)] * 3
    for name, translations in (("a", binned), ("b", silent)):
        image = make_image(tmp_path / name, levels, scales=scales, units=["micrometer"] * 3, translations=translations)
        scale = Planes(a=image).json("pc/a/info")["scales"]
        assert [one["resolution"] for one in scale] == [
            pytest.approx([8, 8, 40]),
            pytest.approx([16, 16, 40]),
            pytest.approx([32, 32, 40]),
        ]
        assert [one["voxel_offset"] for one in scale] == [[100, 0, 10], [50, 0, 10], [25, 0, 10]]


def test_a_level_between_voxels_is_moved_to_the_nearest_corner(tmp_path):
    levels = [values((8, 8, 8), "u1"), values((4, 4, 4), "u1")]
    translations = [(0, 0, 0), (1.3, 1.7, 0.5)]
    image = make_image(tmp_path / "a", levels, scales=[(1, 1, 1), (2, 2, 2)], translations=translations)
    # The first voxels of the second level begin 0.8, 1.2 and 0 after those of the first.
    assert Planes(a=image).json("pc/a/info")["scales"][1]["voxel_offset"] == [0, 1, 0]


@pytest.mark.parametrize("kind", ["unsharded", "identity_gzip"])
def test_volumes_that_begin_elsewhere_are_the_same_volumes(root, kind):
    source = root / "tests/data/precomputed/tensorstore-0.1.86" / kind
    stored = json.loads((source / "info").read_bytes())["scales"][0]
    info, (got,) = volume(Planes(a=vf.open(source)), "pc/a")
    (scale,) = info["scales"]
    assert [scale[name] for name in ("size", "resolution", "voxel_offset")] == [
        stored[name] for name in ("size", "resolution", "voxel_offset")
    ]
    same(got, vf.open(source).level(0)[...].transpose(3, 2, 1, 0))


@pytest.mark.parametrize(
    "name",
    [
        "0-8_0-8_0-9",
        "0-8_0-8_1-9",
        "1-9_0-8_0-8",
        "4-12_0-8_0-8",
        "00-8_0-8_0-8",
        "0-08_0-8_0-8",
        "+0-8_0-8_0-8",
        "8-8_0-8_0-8",
        "16-24_0-8_0-8",
        "-8-0_0-8_0-8",
        "-0-8_0-8_0-8",
        "0-8_0-8",
        "0-8_0-8_0-8_0-8",
        "0-8_0-8_0-\u0668",
        "0-99999999999999999999999_0-8_0-8",
        "0-8_0-8_0-8.gz",
        "zarr.json",
    ],
)
def test_a_name_of_no_chunk_is_not_there_and_not_looked_for(tmp_path, name):
    planes = Planes(a=make_image(tmp_path / "a", [values((8, 8, 12), "u1")]))
    assert len(planes.get("pc/a/0/0-8_0-8_0-8", "pc/a/0/8-12_0-8_0-8")[1].content) == 4 * 8 * 8
    before = vf.default_engine().stats().reads
    assert planes.get(f"pc/a/0/{name}") is None
    assert vf.default_engine().stats().reads == before
    for path in ("pc/a/1/0-8_0-8_0-8", "pc/a/00/0-8_0-8_0-8", "pc/a/0-8_0-8_0-8", "pc/a", "pc/a/0", "pc/a/zarr.json"):
        assert planes.get(path) is None


def test_zeros_are_not_there_and_other_fill_values_are(tmp_path):
    for fill, is_there in ((0, False), (3, True)):
        array = zarr.create_array(
            tmp_path / f"a{fill}",
            shape=(8, 8, 8),
            chunks=(8, 8, 8),
            dtype="u1",
            fill_value=fill,
            dimension_names=list("zyx"),
        )
        assert array.nchunks_initialized == 0
        body = Planes(a=vf.open(tmp_path / f"a{fill}")).get("pc/a/0/0-8_0-8_0-8")
        assert (body is not None) is is_there
        assert body is None or set(bytes(body.content)) == {fill}


@pytest.mark.parametrize(
    ("dtype", "shown_type", "kind", "is_label"),
    [
        ("uint64", "uint64", "segmentation", False),
        ("uint64", "uint64", "segmentation", True),
        ("uint16", "uint16", "segmentation", True),
        ("int64", "uint64", "segmentation", True),
        ("int64", "int32", "image", False),
        ("bool", "uint8", "image", False),
        ("float64", "float32", "image", False),
        ("int8", "int8", "image", False),
    ],
)
def test_types_are_those_of_the_format(tmp_path, dtype, shown_type, kind, is_label):
    voxels = values((4, 8, 8), dtype)
    more = {"image-label": {}} if is_label else {}
    info, (got,) = volume(Planes(a=make_image(tmp_path / "a", [voxels], **more)), "pc/a")
    assert (info["data_type"], info["type"]) == (shown_type, kind)
    same(got[0], cast_voxels(voxels, np.dtype(shown_type), is_label=is_label))


@pytest.mark.parametrize(("axes", "dtype"), [("tzyx", "u1"), ("yx", "u1"), ("zyx", "c8")])
def test_what_the_format_cannot_hold_is_not_there_and_says_why(tmp_path, axes, dtype):
    image = make_image(tmp_path / "a", [values((4, 4, 4, 4)[: len(axes)], dtype)], axes)
    with pytest.raises(vf.NotFoundError, match=r"a precomputed volume has .*/z3/ and /z2/ have it"):
        Planes(a=image).get("pc/a/info")


@pytest.mark.parametrize("channels", [0, 1 << 31])
def test_chunks_hold_all_channels_and_so_there_are_not_any_number_of_them(tmp_path, channels):
    zarr.create_array(str(tmp_path / "a"), shape=(channels, 4, 4, 4), dtype="u2", dimension_names=list("czyx"))
    planes = Planes(a=vf.open(tmp_path / "a"))
    for name in ("info", "0/0-1_0-1_0-1"):
        with pytest.raises(vf.NotFoundError, match=f"this has {channels:,}") as caught:
            planes.get(f"pc/a/{name}")
        assert caught.value.key is None


@pytest.mark.parametrize(("scale", "unit"), [(1e308, "meter"), (1e-300, None)])
def test_sizes_and_places_that_no_number_holds_are_not_there(tmp_path, scale, unit):
    voxels, where = values((4, 4, 4), "u1"), [(1e300, 0.0, 0.0)]
    image = make_image(tmp_path / "a", [voxels], "zyx", [(scale, 1.0, 1.0)], units=[unit] * 3, translations=where)
    with pytest.raises(vf.NotFoundError, match="too large") as caught:
        Planes(a=image).get("pc/a/info")
    assert caught.value.key is None
