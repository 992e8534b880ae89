"""Pictures of sources: what Pillow decodes is compared with numpy's voxels; what was read is asserted too."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import zarr
from PIL import Image as Picture

import voxfetch as vf
from tests.volumes import asked, write_labels, write_volume
from voxfetch.png import write_png
from voxfetch.server.options import ServerOptions
from voxfetch.server.pictures import PicturesPlane, label_color
from voxfetch.server.registry import Registry


def ask(sources, *segments, options=None, **query):
    """The answer of the plane: (pixels, what was read), or the body of an answer that is no picture."""

    async def answer():
        registry = Registry(sources)
        try:
            plane = PicturesPlane(registry, options or ServerOptions())
            return await plane.answer(asked(*segments, source=next(iter(sources)), **query))
        finally:
            registry.close()

    body = asyncio.run(answer())
    if body is None or body.status != 200:
        return body
    assert body.content_type == "image/png"
    return np.asarray(Picture.open(BytesIO(body.content))), json.loads(body.headers.get("X-Voxfetch-Slice", "null"))


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """An image of two levels, and its voxels; no two axes are alike."""
    folder = tmp_path_factory.mktemp("pictures") / "em.zarr"
    return folder, write_volume(folder, lambda z, y, x: z * 7 + y + x // 2, levels=2)


def test_a_slice_is_the_plane(volume):
    folder, voxels = volume
    pixels, told = ask({"em": folder}, "slice.png", at="z=5", window="0,255")
    np.testing.assert_array_equal(pixels, voxels[5])
    assert told == {"level": 0, "axes": ["y", "x"], "start": [5, 0, 0], "shape": [1, 96, 128], "step": 1}


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ({"axes": "yx", "at": "z=31"}, lambda v: v[31]),
        ({"axes": "xy", "at": "z=31"}, lambda v: v[31].T),
        ({"axes": "zx", "at": "y=95"}, lambda v: v[:, 95]),
        ({"axes": "z,y", "at": "x=127"}, lambda v: v[:, :, 127]),
        ({"axes": "yz", "at": "x=0"}, lambda v: v[:, :, 0].T),
        ({}, lambda v: v[16]),
        ({"at": "z=3", "box": "10:20,100:128"}, lambda v: v[3, 10:20, 100:128]),
        ({"at": "z=3", "box": "x=100:128"}, lambda v: v[3, :, 100:128]),
        ({"at": "z=3", "level": "1"}, lambda v: v[3, ::2, ::2]),
        ({"at": "z=3", "level": "1", "box": "4:48,7:9"}, lambda v: v[3, ::2, ::2][4:48, 7:9]),
        ({"at": "z=3", "size": "32", "level": "0"}, lambda v: v[3, ::4, ::4]),
    ],
)
def test_any_plane_and_part(volume, query, part):
    folder, voxels = volume
    pixels, _ = ask({"em": folder}, "slice.png", window="0,255", **query)
    np.testing.assert_array_equal(pixels, part(voxels))


@pytest.mark.parametrize(
    ("size", "box", "level", "start", "shape"),
    [
        ("128", "", 0, [5, 0, 0], [1, 96, 128]),
        ("64", "", 1, [5, 0, 0], [1, 48, 64]),
        ("60", "", 1, [5, 0, 0], [1, 48, 64]),
        ("65", "", 0, [5, 0, 0], [1, 96, 128]),
        ("10", "10:31,20:41", 1, [5, 5, 10], [1, 11, 11]),
        ("20", "10:31,20:41", 0, [5, 10, 20], [1, 21, 21]),
    ],
)
def test_the_coarsest_level_that_has_as_many_pixels(volume, size, box, level, start, shape):
    folder, _ = volume
    pixels, told = ask({"em": folder}, "slice.png", at="z=5", size=size, **({"box": box} if box else {}))
    assert (told["level"], told["start"], told["shape"]) == (level, start, shape)
    assert max(pixels.shape) <= int(size)


def test_window_and_colour(volume):
    folder, voxels = volume
    pixels, _ = ask({"em": folder}, "slice.png", at="z=5", window="50,100")
    expected = np.clip((voxels[5].astype(float) - 50) * 255 / 50, 0, 255).round()
    np.testing.assert_array_equal(pixels, expected)
    inverted, _ = ask({"em": folder}, "slice.png", at="z=5", window="100,50")
    np.testing.assert_array_equal(inverted, np.clip((voxels[5].astype(float) - 100) * 255 / -50, 0, 255).round())
    colored, _ = ask({"em": folder}, "slice.png", at="z=5", window="0,255", color="ff8000")
    assert colored.shape == (96, 128, 3)
    np.testing.assert_array_equal(colored[..., 0], voxels[5])
    np.testing.assert_array_equal(colored[..., 1], (voxels[5] * (128 / 255)).round())
    assert not colored[..., 2].any()


@pytest.mark.parametrize("dtype", ["i1", "u2", "i2", "i4", "f2", "f4", "f8", "?"])
def test_types(tmp_path, dtype):
    values = np.random.default_rng(0).integers(-100 if dtype[0] in "if" else 0, 100, (20, 30)).astype(dtype)
    if dtype[0] == "f":
        values[3, 4], values[5, 6] = np.nan, np.inf
    write_volume(tmp_path / "a.zarr", lambda _, y, x: values[y, x], shape=(1, 20, 30), dtype=dtype)
    pixels, _ = ask({"a": tmp_path / "a.zarr"}, "slice.png", window="-50,60")
    with np.errstate(invalid="ignore"):
        expected = np.nan_to_num(np.clip((values.astype(float) + 50) * 255 / 110, 0, 255).round(), nan=0)
    np.testing.assert_array_equal(pixels, expected)


def test_the_window_of_the_file_or_of_the_voxels(tmp_path):
    window = {"min": 0, "max": 255, "start": 100, "end": 200}
    omero = {"channels": [{"color": "FFFFFF", "window": window}]}
    write_volume(tmp_path / "told.zarr", lambda z, y, x: x * 2, omero=omero)
    pixels, _ = ask({"told": tmp_path / "told.zarr"}, "slice.png")
    assert (pixels[0, 50], pixels[0, 100], pixels[0, 75]) == (0, 255, 128)
    # 1st and 99.8th percentile of 0..127 along x, each as often.
    write_volume(tmp_path / "plain.zarr", lambda z, y, x: x)
    pixels, _ = ask({"plain": tmp_path / "plain.zarr"}, "slice.png")
    assert pixels[0, 0] == 0
    assert pixels[0, 127] == 255
    assert abs(int(pixels[0, 64]) - 128) <= 2


def test_wide_integers_of_which_the_file_says_nothing_are_labels(tmp_path):
    ids = np.arange(600).reshape(20, 30) % 7
    window = {"min": 0, "max": 6, "start": 0, "end": 6}
    looks = {"omero": {"channels": [{"color": "FFFFFF", "window": window}]}}
    for name, more in (("plain", {}), ("told", looks)):
        write_volume(tmp_path / name, lambda _, y, x: ids[y, x], shape=(1, 20, 30), dtype="u8", **more)
    shades, _ = ask({"a": tmp_path / "told"}, "slice.png")
    np.testing.assert_array_equal(shades, (ids * 255 / 6).round())
    colors, _ = ask({"a": tmp_path / "plain"}, "slice.png")
    np.testing.assert_array_equal(colors, label_color(ids.astype("u8"), {}))


def test_labels_have_fixed_colours(tmp_path):
    write_volume(tmp_path / "em.zarr", lambda z, y, x: x)
    colors = [{"label-value": 5, "rgba": [1, 2, 3, 255]}]
    write_labels(
        tmp_path / "em.zarr",
        "cells",
        lambda z, y, x: x // 16 + z,
        shape=(2, 16, 128),
        **{"image-label": {"colors": colors}},
    )
    first, _ = ask({"em": tmp_path / "em.zarr"}, "labels", "cells", "slice.png", at="z=0")
    second, _ = ask({"em": tmp_path / "em.zarr"}, "labels", "cells", "slice.png", at="z=1")
    assert first.shape == (16, 128, 4)
    assert not first[:, :16].any(), "0 is transparent"
    assert (first[:, 16:, 3] == 255).all()
    np.testing.assert_array_equal(first[:, 16:], second[:, : 128 - 16])
    assert {tuple(shade) for shade in first[0, 80:96]} == {(1, 2, 3, 255)}, "the colour of the file"
    assert len({tuple(shade) for shade in first[0]}) == 8, "neighbours differ"


def test_colours_of_ids_of_64_bits():
    ids = np.array([[0, 1, 2**40 + 1, 2**63 + 5]], np.uint64)
    pixels = label_color(ids, {2**63 + 5: "0A0B0C"})
    assert pixels.shape == (1, 4, 4)
    assert tuple(pixels[0, 3]) == (10, 11, 12, 255)
    assert not np.array_equal(pixels[0, 1], pixels[0, 2]), "the high bits count"
    np.testing.assert_array_equal(pixels, label_color(ids.astype(np.int64), {2**63 + 5: "0A0B0C"}))


def test_channels_lie_on_top_of_each_other(tmp_path):
    looks = [
        {"color": color, "active": active, "window": {"min": 0, "max": 255, "start": 0, "end": 255}}
        for color, active in (("FF0000", True), ("00FF00", True), ("0000FF", False))
    ]
    write_volume(
        tmp_path / "c.zarr",
        lambda c, z, y, x: np.choose(c, (x, y, 200 + 0 * x)),
        shape=(3, 2, 64, 64),
        scale=(1, 1, 1, 1),
        translation=(0, 0, 0, 0),
        axes="czyx",
        omero={"channels": looks},
    )
    pixels, _ = ask({"c": tmp_path / "c.zarr"}, "thumb.png", size="64")
    y, x = np.mgrid[:64, :64]
    np.testing.assert_array_equal(pixels, np.stack([x, y, 0 * x], axis=2))
    blue, told = ask({"c": tmp_path / "c.zarr"}, "slice.png", channel="2")
    assert told["start"][0] == 2
    assert {tuple(shade) for shade in blue.reshape(-1, 3)} == {(0, 0, 200)}
    green, _ = ask({"c": tmp_path / "c.zarr"}, "slice.png", at="c=1,z=0")
    np.testing.assert_array_equal(green[..., 1], y)


def test_thumbnails_are_small(volume):
    folder, voxels = volume
    pixels, _ = ask({"em": folder}, "thumb.png", size="64")
    assert pixels.shape == (48, 64)
    assert pixels.ndim == 2
    order = np.argsort(voxels[16, ::2, ::2], axis=None, kind="stable")
    assert (np.diff(pixels.reshape(-1)[order].astype(int)) >= 0).all(), "brighter where there is more"


def test_arrays_that_stand_alone_and_levels(tmp_path):
    values = np.random.default_rng(1).integers(0, 4000, (9, 10, 11), np.uint16)
    zarr.create_array(str(tmp_path / "a.zarr"), shape=values.shape, chunks=(4, 4, 4), dtype="u2")[...] = values
    pixels, told = ask({"a": tmp_path / "a.zarr"}, "slice.png", window="0,4080")
    np.testing.assert_array_equal(pixels, (values[4] / 16).round())
    assert told["axes"] == ["dim_1", "dim_2"]
    pixels, _ = ask({"a": tmp_path / "a.zarr"}, "slice.png", axes="dim_0,dim_2", at="dim_1=3", window="0,4080")
    np.testing.assert_array_equal(pixels, (values[:, 3] / 16).round())
    write_volume(tmp_path / "em.zarr", lambda z, y, x: y, levels=2)
    pixels, _ = ask({"em": tmp_path / "em.zarr"}, "1", "slice.png", window="0,255")
    np.testing.assert_array_equal(pixels[:, 0], np.arange(0, 96, 2))


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("axes", {"axes": "yq"}),
        ("axes", {"axes": "yy"}),
        ("axes", {"axes": "zyx"}),
        ("at", {"at": "z=32"}),
        ("at", {"at": "z=-1"}),
        ("at", {"at": "z"}),
        ("at", {"at": "y=3"}),
        ("at", {"at": "z=1,z=2"}),
        ("at", {"at": "z=\u0663"}),
        ("at", {"at": "z=" + "9" * 40}),
        ("level", {"level": "2"}),
        ("level", {"level": "x"}),
        ("box", {"box": "0:97,0:128"}),
        ("box", {"box": "5:5,0:128"}),
        ("box", {"box": "-1:5,0:128"}),
        ("box", {"box": "z=0:5"}),
        ("box", {"box": "0:5"}),
        ("size", {"size": "0"}),
        ("size", {"size": "9000"}),
        ("window", {"window": "1"}),
        ("window", {"window": "1,1"}),
        ("window", {"window": "nan,1"}),
        ("window", {"window": "0,1e999"}),
        ("color", {"color": "red"}),
        ("channel", {"channel": "1"}),
        ("bogus", {"bogus": "1"}),
    ],
)
def test_parameters_that_do_not_fit_are_named(volume, name, query):
    body = ask({"em": volume[0]}, "slice.png", **query)
    assert body.status == 400
    assert json.loads(body.content)["message"].startswith(f"{name}:")


def test_what_is_not_there(volume, tmp_path):
    zarr.create_group(str(tmp_path / "g"))
    assert ask({"em": volume[0]}, "slice.jpg") is None
    assert ask({"em": volume[0]}) is None
    for level in ("7", "00", "\u0660", "-1", "1" * 30):
        assert ask({"em": volume[0]}, level, "slice.png") is None
    assert ask({"g": tmp_path / "g"}, "thumb.png") is None
    with pytest.raises(vf.NotFoundError):
        ask({"em": tmp_path / "missing"}, "thumb.png")


def test_no_more_is_read_than_allowed(tmp_path):
    zarr.create_array(str(tmp_path / "wide.zarr"), shape=(1, 20_000, 20_000), chunks=(1, 500, 500), dtype="u1")
    source = {"wide": tmp_path / "wide.zarr"}
    with pytest.raises(vf.LimitExceededError, match="400,000,000 voxels"):
        ask(source, "slice.png", size="512", window="0,1", color="ffffff")
    body = ask(source, "slice.png", box="0:20,0:9000", window="0,1", color="ffffff")
    assert body.status == 400
    assert b"size:" in body.content
    pixels, _ = ask(source, "slice.png", box="0:20,0:9000", size="500", window="0,1", color="ffffff")
    assert pixels.shape == (2, 500)
    with pytest.raises(vf.LimitExceededError):
        ask(source, "slice.png", box="0:20,0:20", options=ServerOptions(max_voxels=399))


def test_what_is_no_picture(tmp_path):
    shapes = {"line": ((9,), None), "empty": ((0, 5), None), "twins": ((4, 4), ("y", "y")), "spectrum": ((3, 9), "cx")}
    for name, (shape, names) in shapes.items():
        chunks = [max(1, extent) for extent in shape]
        zarr.create_array(str(tmp_path / name), shape=shape, chunks=chunks, dtype="u1", dimension_names=names)
        with pytest.raises(vf.UnsupportedError, match="no picture"):
            ask({name: tmp_path / name}, "thumb.png")


def test_a_window_of_damaged_voxels(tmp_path):
    array = zarr.create_array(str(tmp_path / "a"), shape=(4, 8), chunks=(4, 4), dtype="u1")
    array[...] = 1
    (tmp_path / "a" / "c" / "0" / "1").write_bytes(b"damaged")
    pixels, _ = ask({"a": tmp_path / "a"}, "slice.png", box="0:4,0:4")
    assert pixels.min() == 255, "what is not damaged is shown"
    with pytest.raises(vf.DataError):
        ask({"a": tmp_path / "a"}, "slice.png")


def test_pictures_that_are_made_at_once_hold_little(tmp_path):
    zarr.create_array(str(tmp_path / "a"), shape=(8, 100, 100), chunks=(1, 100, 100), dtype="u1")[...] = 7
    array = vf.open(tmp_path / "a")
    at_once = []

    class Counting:
        """The array, which counts the reads that are under way."""

        def __init__(self):
            self.running = 0

        def __getattr__(self, name):
            return getattr(array, name)

        async def read_box_async(self, start, shape):
            self.running += 1
            at_once.append(self.running)
            await asyncio.sleep(0.01)
            self.running -= 1
            return await array.read_box_async(start, shape)

    async def many():
        registry = Registry({"a": array})
        plane = PicturesPlane(registry, ServerOptions(max_response_bytes=25_000))
        scene = await plane._scenes.find("a", ())
        level = replace(scene.levels[0], shown=replace(scene.finest, view=Counting()))
        plane._scenes._scenes["a",] = (array, replace(scene, levels=(level,)))
        try:
            return await asyncio.gather(
                *(plane.answer(asked("slice.png", source="a", at=f"dim_0={i}", window="0,255")) for i in range(8))
            )
        finally:
            registry.close()

    assert all(body.status == 200 for body in asyncio.run(many()))
    assert max(at_once) == 2, "two of 10,000 bytes are all that 25,000 have room for"


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 3), (3, 5, 4), (1, 1, 3)])
def test_png_of_grey_and_colours(shape, monkeypatch):
    monkeypatch.setattr("voxfetch.png._STRIP_BYTES", 16)
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    file = BytesIO()
    write_png(file, pixels, effort=1)
    np.testing.assert_array_equal(np.asarray(Picture.open(file)), pixels)
    for bad in (np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 3), np.uint16), np.zeros((2, 2, 3, 1), np.uint8)):
        with pytest.raises(ValueError, match="a PNG here"):
            write_png(BytesIO(), bad)


def test_pictures_whose_readers_leave_hold_nothing(volume):
    async def leave():
        registry = Registry({"em": volume[0]})
        plane = PicturesPlane(registry, ServerOptions(max_response_bytes=20_000))
        for after in (0, 0.001, 0.003):
            pictures = [asyncio.ensure_future(plane.answer(asked("thumb.png", source="em"))) for _ in range(8)]
            await asyncio.sleep(after)
            for one in pictures[::2]:
                one.cancel()
            found = await asyncio.wait_for(asyncio.gather(*pictures, return_exceptions=True), 20)
            assert all(body.status == 200 for body in found[1::2])
        assert plane._room._taken == 0
        assert not plane._room._waiting
        registry.close()

    asyncio.run(leave())
