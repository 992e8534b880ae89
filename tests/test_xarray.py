"""The engine "voxfetch" of xarray: truth is numpy, and xarray's engine "zarr" on what xarray wrote."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

import voxfetch as vf
from tests.servers import objects_in
from tests.servers.faulty import FaultyServer, status
from voxfetch.xarray import VoxfetchBackend
from voxfetch.xarray.lazy import LazyArray

FIB25 = Path(__file__).parent / "data/fib25/fib25.ome.zarr"
FEW = vf.RetryPolicy(max_attempts=2, base_s=0.01, cap_s=0.02)


def opened(source, **keywords):
    return xr.open_dataset(source, engine=VoxfetchBackend, **keywords)


def variable_of(case, **keywords):
    """The only variable of an array, not kept in memory once it was read, and the same in memory."""
    ds = opened(case.path, cache=False, **keywords)
    (lazy,) = ds.data_vars.values()
    return lazy, xr.DataArray(case.expected, dims=lazy.dims, name=lazy.name, attrs=lazy.attrs)


# --------------------------------------------------------------------------------------------------------------- arrays


def test_equals_numpy(case):
    lazy, expected = variable_of(case, mask_and_scale=False, decode_times=False)
    assert lazy.dtype == expected.dtype
    assert not lazy.variable._in_memory
    assert lazy.dims == vf.open_array(case.path).axes
    np.testing.assert_array_equal(lazy.values, expected.values)
    assert case.path.name == lazy.name


@pytest.mark.parametrize("loaded", ["load", "load_async"])
@given(data=st.data())
def test_indexing_equals_numpy(volume, data, loaded):
    """Two steps, each by ints, slices, index arrays, masks, or arrays that broadcast together; then another order."""
    lazy, expected = variable_of(volume)
    for _ in range(data.draw(st.integers(1, 2))):
        key = data.draw(keys(dict(expected.sizes)))
        lazy, expected = lazy.isel(key), expected.isel(key)
    order = data.draw(st.permutations(expected.dims))
    lazy, expected = lazy.transpose(*order), expected.transpose(*order)
    got = lazy.load() if loaded == "load" else asyncio.run(lazy.load_async())
    xr.testing.assert_identical(got, expected)


@st.composite
def keys(draw, sizes):
    points = st.tuples(st.integers(0, 3), st.integers(1, 3))
    shape = draw(points)
    key = {}
    for name, extent in sizes.items():
        index = st.integers(-extent, extent - 1) if extent else None
        kinds = [st.none(), st.slices(extent)]
        if index is not None:
            several = st.lists(index, max_size=6).map(lambda one: np.array(one, np.int64))
            mask = st.lists(st.booleans(), min_size=extent, max_size=extent).map(lambda one: np.array(one, bool))
            one = st.lists(index, min_size=shape[0], max_size=shape[0])
            two = st.lists(one, min_size=shape[1], max_size=shape[1])
            kinds += [index, several, mask]
            kinds += [one.map(lambda one: xr.DataArray(np.array(one, np.int64), dims="p"))]
            kinds += [two.map(lambda two: xr.DataArray(np.array(two, np.int64).reshape(shape[::-1]), dims=("q", "p")))]
        one = draw(st.one_of(kinds))
        if one is not None and not {"p", "q"} & set(sizes):
            key[name] = one
    return key


@pytest.mark.parametrize(
    "key",
    [
        (slice(None, None, -1), 3, slice(-5, None)),
        (slice(None), np.array([3, 1, 1]), slice(None, None, -2)),
        (-1, -1, -1),
        (slice(3, 3), slice(None), np.array([], int)),
        (slice(3, 9, -1), slice(9, 3), slice(None)),
    ],
)
def test_numpy_keys(volume, key):
    lazy, expected = variable_of(volume)
    xr.testing.assert_identical(lazy[key].load(), expected[key])


def test_a_transposed_array_is_read_as_a_box(volume, monkeypatch):
    """xarray gives every voxel's place as index arrays."""
    monkeypatch.setattr(vf.Array, "vindex", property(lambda _: pytest.fail("read point by point")))
    lazy, expected = variable_of(volume)
    order = lazy.dims[1:] + lazy.dims[:1]
    xr.testing.assert_identical(lazy.transpose(*order).load(), expected.transpose(*order))
    xr.testing.assert_identical(lazy[3:9, ::2, -1].T.load(), expected[3:9, ::2, -1].T)


def test_profiles_are_read_as_boxes(volume, monkeypatch):
    starts = []
    read = vf.Array.vindex.fget

    class Seen:
        def __init__(self, array):
            self.array = array

        def __getitem__(self, key):
            starts.append(key)
            return read(self.array)[key]

    monkeypatch.setattr(vf.Array, "vindex", property(Seen))
    lazy, expected = variable_of(volume)
    _, y, x = lazy.dims
    key = {y: xr.DataArray([3, 5, 1, 9], dims="p"), x: xr.DataArray([8, 0, 8, 40], dims="p")}
    xr.testing.assert_identical(lazy.isel(key).load(), expected.isel(key))
    ((along, *points),) = starts
    assert along == slice(0, 37)
    assert [one.tolist() for one in points] == [[3, 5, 1, 9], [8, 0, 8, 40]]


def test_slices_beside_index_arrays_come_last(volume):
    """As `VectorizedIndexer` has them; xarray itself makes index arrays of them before."""
    from xarray.core.indexing import VectorizedIndexer

    array = volume.open()
    points = np.array([[3, -1], [0, 7]])
    for steps in (slice(None), slice(30, 2, -3), slice(1, 30, 4)):
        got = LazyArray(array)[VectorizedIndexer((points, steps, points + 1))]
        np.testing.assert_array_equal(got, volume.expected[points, :, points + 1][..., steps])


def test_index_arrays_from_the_end(volume):
    from xarray.core.indexing import VectorizedIndexer

    last = np.ix_([-3, -2, -1], [-1, -2], [-5, -4])
    np.testing.assert_array_equal(LazyArray(volume.open())[VectorizedIndexer(last)], volume.expected[last])


@given(data=st.data())
def test_scalars_dates_and_words(cases, data):
    for name in ("v2 dates", "v2 words", "v2 bytes", "point", "empty", "five"):
        lazy, expected = variable_of(cases(name), mask_and_scale=False)
        key = {
            axis: data.draw(st.integers(0, extent - 1) | st.slices(extent))
            for axis, extent in expected.sizes.items()
            if extent
        }
        xr.testing.assert_identical(lazy.isel(key).load(), expected.isel(key))


def test_pickles_and_threads(volume):
    lazy, expected = variable_of(volume)
    again = pickle.loads(pickle.dumps(lazy))
    assert not again.variable._in_memory
    assert len(pickle.dumps(lazy)) < 6_000
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda z: again[z].to_numpy(), range(37)))
    np.testing.assert_array_equal(parts, expected.values)


def test_chunks_are_shards_and_chunks(volume, cases):
    lazy, expected = variable_of(volume, chunks={})
    assert lazy.data.chunksize == volume.open().shards
    xr.testing.assert_identical(lazy.compute(), expected)
    plain, _ = variable_of(cases("plain"), chunks={}, mask_and_scale=False)
    assert plain.data.chunksize == cases("plain").open().chunks
    assert lazy.data.name == variable_of(volume, chunks={})[0].data.name


def test_an_open_array_is_a_source(volume):
    array = volume.open().with_axes(volume.open().axes[::-1])
    ds = opened(array)
    np.testing.assert_array_equal(ds["sharded"].values, volume.expected.T)
    assert ds["sharded"].dims == array.axes
    np.testing.assert_array_equal(opened(volume.path, axes=array.axes)["sharded"].values, volume.expected.T)


# ------------------------------------------------------------------------------------------- datasets that xarray wrote


@pytest.fixture(scope="module")
def dataset():
    generator = np.random.default_rng(0)
    time = pd.date_range("2020-01-01", periods=5, freq="6h")
    variables = {
        "temperature": (("time", "lat", "lon"), generator.normal(size=(5, 4, 6)).astype("f4"), {"units": "K"}),
        "packed": (("lat", "lon"), np.linspace(0, 10, 24).reshape(4, 6)),
        "mask": (("lat", "lon"), np.arange(24).reshape(4, 6) % 2 == 0),
        "count": (("time",), np.arange(5, dtype="i4")),
        "scalar": ((), 3.5),
        "words": (("lat",), np.array(["ab", "c", "", "d\u00e9f"])),
        "objects": (("lat",), np.array(["ab", "c", "", "d\u00e9f"], object)),
        "bytes": (("lat",), np.array([b"ab", b"c", b"", b"def"])),
        "delta": (("time",), (time - time[0]).to_numpy()),
        "holes": (("lat",), np.array([1.0, np.nan, 3.0, 4.0])),
        "complex": (("lat",), np.array([1 + 1j, 2, 3, 4])),
        "unnamed": (("dim_0",), np.arange(3)),
        "empty": (("none", "lat"), np.zeros((0, 4))),
    }
    places = {"time": time, "lat": np.arange(4.0) * 10, "lon": np.arange(6), "area": (("lat", "lon"), np.ones((4, 6)))}
    return xr.Dataset(variables, coords=places, attrs={"title": "x", "n": 3})


ENCODING = {
    "packed": {"dtype": "i2", "scale_factor": 0.01, "add_offset": 1.0, "_FillValue": -9999},
    "holes": {"dtype": "i4", "_FillValue": -1},
    "temperature": {"chunks": (2, 4, 3)},
}


@pytest.fixture(scope="module", params=[(2, True), (2, False), (3, True), (3, False)], ids=str)
def written(request, dataset, tmp_path_factory):
    """The folder of the dataset: version of Zarr, and whether its metadata are consolidated."""
    path = tmp_path_factory.mktemp("written") / "a.zarr"
    zarr_format, consolidated = request.param
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # types that zarr-python calls unstable
        dataset.to_zarr(path, zarr_format=zarr_format, consolidated=consolidated, encoding=ENCODING)
    return path


def by_zarr(path, **keywords):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return xr.open_dataset(path, engine="zarr", **keywords).load()


@pytest.mark.parametrize(
    "keywords",
    [
        {},
        {"decode_cf": False},
        {"mask_and_scale": False},
        {"decode_times": False},
        {"decode_coords": False},
        {"drop_variables": ["temperature", "area"]},
        {"drop_variables": "packed"},
        {"chunks": {}},
        {"chunks": "auto"},
    ],
    ids=str,
)
def test_a_dataset_is_read_as_by_xarray(written, keywords):
    if keywords.get("chunks") == "auto":
        keywords = {**keywords, "drop_variables": ["objects", "words"]}  # dask does not know how large objects are
    got, expected = opened(written, **keywords), by_zarr(written, **keywords)
    xr.testing.assert_identical(got.load(), expected)
    for name, one in expected.variables.items():
        if one.dtype.kind != "T":  # strings of any length are objects here
            assert got[name].dtype == one.dtype, name


def test_a_dataset_comes_back(written, dataset):
    got = opened(written).load()
    kept = [name for name in dataset.data_vars if name != "packed"]
    xr.testing.assert_equal(got[kept], dataset[kept])
    np.testing.assert_allclose(got["packed"], dataset["packed"], atol=0.005)
    assert got["temperature"].encoding["preferred_chunks"] == {"time": 2, "lat": 4, "lon": 3}


def test_a_dataset_is_written_again(written, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened(written).to_zarr(tmp_path / "b.zarr", zarr_format=3)
    xr.testing.assert_identical(by_zarr(tmp_path / "b.zarr"), by_zarr(written))


@pytest.mark.parametrize("written", [(2, True), (3, True)], ids=str, indirect=True)
def test_a_dataset_over_http(written):
    """Documents are read when it is opened, values of what is used only."""
    with FaultyServer(objects_in(written, "a/")) as server:
        got = opened(f"{server.url}/a")
        open_for = len(server.requests)
        kept = [name for name in got.variables if name != "temperature"]
        xr.testing.assert_identical(got[kept].load(), by_zarr(written)[kept])
        keys = [request.key for request in server.requests[open_for:]]
        assert keys
        assert not [key for key in keys if key.endswith(("zarr.json", ".zarray", ".zattrs", ".zmetadata"))]
        assert not [key for key in keys if "temperature" in key]


@pytest.mark.parametrize("written", [(2, False), (3, False)], ids=str, indirect=True)
def test_what_cannot_be_listed_is_no_empty_dataset(written):
    with FaultyServer(objects_in(written, "a/")) as server, pytest.raises(vf.UnsupportedError, match="list"):
        opened(f"{server.url}/a")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_trees_are_read_as_by_xarray(dataset, tmp_path, zarr_format):
    path = tmp_path / "a.zarr"
    parts = {"/": dataset[["count"]], "/a": dataset[["temperature"]], "/a/b": dataset[["mask"]]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        xr.DataTree.from_dict(parts).to_zarr(path, zarr_format=zarr_format)
        expected = xr.open_datatree(path, engine="zarr").load()
    got = xr.open_datatree(path, engine=VoxfetchBackend)
    assert list(got.groups) == ["/", "/a", "/a/b"]
    xr.testing.assert_identical(got.load(), expected)
    xr.testing.assert_identical(opened(path, path="a/b").load(), by_zarr(path, group="a/b"))
    groups = xr.open_groups(path, engine=VoxfetchBackend)
    assert list(groups) == ["/", "/a", "/a/b"]


def test_fill_values_of_version_2_are_missing_values_only_where_xarray_wrote_them(write_array, tmp_path):
    """Black voxels of an image are no missing values."""
    voxels = np.arange(12, dtype="u1").reshape(3, 4)
    write_array(tmp_path / "a", voxels, chunks=(2, 2), zarr_format=2, fill_value=0)
    assert opened(tmp_path / "a")["a"].dtype == np.uint8
    (tmp_path / "a/.zattrs").write_text('{"_ARRAY_DIMENSIONS": ["y", "x"]}')
    ds = opened(tmp_path / "a")
    assert ds["a"].dims == ("y", "x")
    assert np.isnan(ds["a"].values).sum() == 1
    assert opened(tmp_path / "a", axes=("x", "y"))["a"].dims == ("x", "y")


def test_dimensions_without_names_are_told_apart(tmp_path):
    root = zarr.create_group(tmp_path / "a")
    for name, shape in {"one": (3, 4), "two": (3, 5), "three": (3,)}.items():
        root.create_array(name, shape=shape, dtype="u1")
    ds = opened(tmp_path / "a")
    assert {name: one.dims for name, one in ds.data_vars.items()} == {
        "one": ("dim_0", "one_dim_1"),
        "three": ("dim_0",),
        "two": ("dim_0", "two_dim_1"),
    }


# --------------------------------------------------------------------------------------------------------------- images


def ome_image(path, levels, *, axes, channels=None, name=None, labels=None, version="0.4"):
    """An OME-Zarr image of version 0.4: `levels` are (path, voxels, scale, translation)."""
    root = zarr.create_group(path, zarr_format=2, overwrite=True)
    for place, voxels, _, _ in levels:
        root.create_array(place, data=voxels, chunks=tuple(min(n, 4) for n in voxels.shape))
    types = {"c": "channel", "t": "time"}
    described = [
        {"name": axis, "type": types.get(axis, "space"), **({} if axis == "c" else {"unit": "micrometer"})}
        for axis in axes
    ]
    datasets = [
        {
            "path": place,
            "coordinateTransformations": [
                {"type": "scale", "scale": list(scale)},
                {"type": "translation", "translation": list(translation)},
            ],
        }
        for place, _, scale, translation in levels
    ]
    multiscale = {"version": version, "axes": described, "datasets": datasets}
    root.attrs["multiscales"] = [multiscale if name is None else {**multiscale, "name": name}]
    if channels:
        root.attrs["omero"] = {"channels": [{"label": label, "color": "FFFFFF"} for label in channels]}
    if labels:
        group = root.create_group("labels")
        group.attrs["labels"] = list(labels)
    return path


def cells(shape):
    return np.arange(np.prod(shape), dtype="u2").reshape(shape)


@pytest.fixture
def image(tmp_path):
    """Two levels (c, y, x) with channels; labels at the places of the first, and others that lie apart."""
    path = ome_image(
        tmp_path / "i.zarr",
        [
            ("s0", cells((2, 6, 8)), (1, 0.5, 0.25), (0, 10, 20)),
            ("s1", cells((2, 3, 4)), (1, 1, 0.5), (0, 10.25, 20.125)),
        ],
        axes="cyx",
        channels=["DAPI", "GFP"],
        name="cells",
        labels=["nuclei", "apart"],
    )
    ome_image(path / "labels/nuclei", [("0", cells((6, 8)), (0.5, 0.25), (10, 20))], axes="yx")
    ome_image(path / "labels/apart", [("0", cells((6, 8)), (0.5, 0.25), (10, 21))], axes="yx")
    return path


def test_a_level_has_the_coordinates_of_its_voxels(image):
    ds = opened(image)
    assert ds["cells"].dims == ("c", "y", "x")
    assert ds["c"].to_numpy().tolist() == ["DAPI", "GFP"]
    np.testing.assert_array_equal(ds["y"], [10, 10.5, 11, 11.5, 12, 12.5])
    np.testing.assert_array_equal(ds["x"], 20 + 0.25 * np.arange(8))
    assert ds["x"].attrs == {"units": "micrometer"}
    np.testing.assert_array_equal(ds["cells"].sel(c="GFP", y=11, x=slice(20.5, 21)), cells((2, 6, 8))[1, 2, 2:5])
    assert ds.attrs["multiscales"][0]["name"] == "cells"
    coarse = opened(image, level=1)
    np.testing.assert_array_equal(coarse["y"], [10.25, 11.25, 12.25])
    np.testing.assert_array_equal(coarse["cells"], cells((2, 3, 4)))
    xr.testing.assert_identical(opened(image, level=-1), coarse)
    assert ds.xindexes.keys() == {"c", "y", "x"}


def test_labels_at_the_same_places_are_beside_the_image(image):
    ds = opened(image)
    assert set(ds.data_vars) == {"cells", "nuclei"}
    assert ds["nuclei"].dims == ("y", "x")
    np.testing.assert_array_equal(ds["nuclei"], cells((6, 8)))
    assert set(opened(image, level=1).data_vars) == {"cells"}
    assert set(opened(image, labels=False).data_vars) == {"cells"}
    assert set(opened(image, drop_variables="nuclei").data_vars) == {"cells"}
    labels = opened(image, path="labels/apart")
    assert (list(labels.data_vars), labels["x"].item(0)) == (["apart"], 21)


def test_a_tree_has_a_node_for_each_level(image):
    tree = xr.open_datatree(image, engine=VoxfetchBackend)
    assert list(tree.groups) == ["/", "/s0", "/s1", "/labels", "/labels/apart", "/labels/apart/0"]
    assert tree.attrs["multiscales"][0]["name"] == "cells"
    for name, level in (("s0", 0), ("s1", 1)):
        xr.testing.assert_identical(tree[name].to_dataset(), opened(image, level=level).drop_attrs(deep=False))
        xr.testing.assert_identical(tree[name]["cells"].drop_vars("c"), opened(image, path=name)[name].rename("cells"))
    assert tree["labels/apart/0"]["x"].item(0) == 21


def test_real_levels(tmp_path):
    """The truth is in the documents, and read by zarr-python."""
    group = zarr.open_group(FIB25, mode="r")
    tree = xr.open_datatree(FIB25, engine=VoxfetchBackend)
    assert list(tree.children) == ["0", "1", "2"]
    for one in group.attrs["ome"]["multiscales"][0]["datasets"][1:]:
        scale, translation = one["coordinateTransformations"]
        level = tree[one["path"]]
        np.testing.assert_array_equal(level["fib25"], group[one["path"]][...])
        np.testing.assert_array_equal(level["groundtruth"], group[f"labels/groundtruth/{one['path']}"][...])
        for number, axis in enumerate("zyx"):
            step, first = scale["scale"][number], translation["translation"][number]
            np.testing.assert_array_equal(level[axis], first + step * np.arange(level.sizes[axis]))
            assert level[axis].attrs == {"units": "nanometer"}


def test_a_level_is_written_by_xarray(tmp_path, image):
    """With the chunks and shards that it has; the attribute of xarray's own in version 2 is not in the way."""
    (image / "s1/.zattrs").write_text('{"_ARRAY_DIMENSIONS": ["c", "y", "x"]}')
    for source, level in ((FIB25, 2), (image, 1)):
        ds = opened(source, level=level)
        ds.attrs.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # words as channels
            ds.to_zarr(tmp_path / "b.zarr", zarr_format=3, mode="w")
        again = by_zarr(tmp_path / "b.zarr")
        xr.testing.assert_equal(again, ds.load())
        for name, one in ds.data_vars.items():
            assert again[name].encoding["shards"] == one.encoding["shards"]
            assert again[name].attrs == {}


@pytest.mark.parametrize("name", [None, "", "y", "a/b"])
def test_names_that_do_not_serve(tmp_path, name):
    path = ome_image(tmp_path / "i.zarr", [("0", cells((4, 4)), (1, 1), (0, 0))], axes="yx", name=name)
    assert list(opened(path).data_vars) == ["image" if name in {"y", "a/b"} else "i.zarr"]


def test_labels_called_as_the_image_or_an_axis(tmp_path):
    level = [("0", cells((4, 4)), (1, 1), (0, 0))]
    path = ome_image(tmp_path / "i.zarr", level, axes="yx", name="cells", labels=["cells", "x"])
    for label in ("cells", "x"):
        ome_image(path / "labels" / label, level, axes="yx")
    assert set(opened(path).data_vars) == {"cells", "labels_cells", "labels_x"}


def test_axes_of_an_image_in_another_order(image):
    ds = opened(image, axes="xcy")
    assert ds["cells"].dims == ("x", "c", "y")
    np.testing.assert_array_equal(ds["cells"], cells((2, 6, 8)).transpose(2, 0, 1))
    np.testing.assert_array_equal(ds["nuclei"], opened(image)["nuclei"].transpose(*ds["nuclei"].dims))


def test_open_images_levels_and_paths_with_blanks(image):
    expected = opened(image)
    xr.testing.assert_identical(opened(vf.open(image)), expected)
    assert opened(vf.open(image).level(1))["s1"].shape == (2, 3, 4)
    there = image.rename(image.parent / "a b %.zarr")
    assert list(xr.open_groups(there, engine=VoxfetchBackend))[1:3] == ["/s0", "/s1"]


def test_groups_of_images_are_trees(image, tmp_path):
    zarr.create_group(tmp_path / "all.zarr", zarr_format=2)
    image.rename(tmp_path / "all.zarr/i")
    with pytest.raises(vf.MetadataError, match="group of images: i"):
        opened(tmp_path / "all.zarr")
    zarr.open_group(tmp_path / "all.zarr").create_array("a", data=cells((3,)))
    tree = xr.open_datatree(tmp_path / "all.zarr", engine=VoxfetchBackend)
    assert list(tree.groups)[:4] == ["/", "/i", "/i/s0", "/i/s1"]
    np.testing.assert_array_equal(tree["a"], cells((3,)))
    assert list(opened(tmp_path / "all.zarr").data_vars) == ["a"]
    assert "cells" in opened(tmp_path / "all.zarr", path="i")
    assert opened(tmp_path / "all.zarr", path="i/s1")["s1"].shape == (2, 3, 4)


def test_a_collection_is_a_tree(image, tmp_path):
    root = zarr.create_group(tmp_path / "all.zarr", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    image.rename(tmp_path / "all.zarr/0")
    with pytest.raises(vf.MetadataError, match=r"group of images: 0.*path="):
        opened(tmp_path / "all.zarr")
    assert "cells" in opened(tmp_path / "all.zarr", path="0")
    assert "/0/s1" in xr.open_groups(tmp_path / "all.zarr", engine=VoxfetchBackend)


def test_long_axes_have_no_coordinates(tmp_path, monkeypatch):
    monkeypatch.setattr("voxfetch.xarray.datasets._MAX_COORDINATES", 5)
    path = ome_image(tmp_path / "i.zarr", [("0", cells((4, 9)), (1, 1), (0, 0))], axes="yx")
    assert set(opened(path).coords) == {"y"}


# -------------------------------------------------------------------------------------------- on the loop of the caller


def test_loaded_on_a_running_loop(volume):
    """Ten reads wait for the server at once."""

    async def main():
        lazy, expected = variable_of(volume)
        ds = xr.Dataset({f"v{z}": lazy.isel({lazy.dims[0]: z}) for z in range(10)})
        loaded = await ds.load_async()
        for z in range(10):
            np.testing.assert_array_equal(loaded[f"v{z}"], expected[z])

    asyncio.run(main())


def test_many_at_once_over_http(volume):
    async def main():
        ds = opened(f"{server.url}/a", cache=False)
        lazy = ds["a"]
        blocks = await asyncio.gather(*(lazy[z].load_async() for z in range(37)))
        np.testing.assert_array_equal(np.stack(blocks), volume.expected)

    with FaultyServer(objects_in(volume.path, "a/"), latency_s=0.05) as server:
        asyncio.run(main())
        assert server.most_in_flight > 3


# -------------------------------------------------------------------------------------------------------- found by name

INSTALLED = """
import sys, warnings
sys.path.insert(0, sys.argv[1])
import xarray as xr
assert "voxfetch" in xr.backends.list_engines()
ds = xr.open_dataset(sys.argv[2], engine="voxfetch", level=1)
assert ds["fib25"].shape == (125, 125, 125), ds
assert xr.open_datatree(sys.argv[2], engine="voxfetch")["2"]["fib25"].shape == (63, 63, 63)
warnings.simplefilter("ignore")
assert xr.backends.plugins.guess_engine(sys.argv[2]) == "zarr"
assert xr.backends.plugins.guess_engine("precomputed://https://host.example/a") == "voxfetch"
by_itself = xr.open_dataset(sys.argv[3])
assert by_itself["a.n5"].shape == (5, 4), by_itself
print("done")
"""


def test_the_engine_is_found_by_its_name(tmp_path):
    """With what an installed wheel has, read from pyproject.toml."""
    import tomllib

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    points = project["entry-points"]["xarray.backends"]
    folder = tmp_path / "voxfetch_fake-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: voxfetch-fake\nVersion: 1\n")
    lines = [f"{name} = {target}\n" for name, target in points.items()]
    (folder / "entry_points.txt").write_text("[xarray.backends]\n" + "".join(lines))
    array = Path(__file__).parent / "data/n5/tensorstore-bc4fbc1/gzip"
    (tmp_path / "a.n5").symlink_to(array)
    command = [sys.executable, "-W", "error", "-c", INSTALLED, str(tmp_path), str(FIB25), str(tmp_path / "a.n5")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


@pytest.mark.parametrize(
    ("source", "ours"),
    [
        ("a.zarr", False),
        ("a.ome.zarr/", False),
        ("https://host/a.zarr", False),
        ("s3://bucket/a", False),
        ("a.nc", False),
        ("https://host/a.nc?x=.n5", False),
        ("a.h5", False),
        ("a", False),
        ("a.json", False),
        ("kerchunk://a.json", False),
        ("a|b:c.nc", False),
        (Path("a.N5"), True),
        ("a.n5/", True),
        ("a.ozx", True),
        ("a.ims", True),
        ("a.b2nd", True),
        ("precomputed://gs://bucket/a", True),
        ("zarr3://a", True),
        ("https://host/a|zarr3:", True),
        ("https://host/a.zip|zip:a/b", True),
        ("gs://bucket/a|neuroglancer-precomputed:", True),
        (b"CDF\x01", False),
        (None, False),
    ],
)
def test_what_is_claimed(source, ours):
    assert VoxfetchBackend().guess_can_open(source) is ours


def test_open_things_are_claimed(image):
    opened_image = vf.open(image)
    for one in (opened_image, opened_image.level(0), vf.open(image.parent / "i.zarr/labels")):
        assert VoxfetchBackend().guess_can_open(one) is True


# ------------------------------------------------------------------------------------------------------------- failures


def test_wrong_use_is_an_error_that_says_so(image, volume):
    with pytest.raises(vf.SelectionError, match="no level 9, there are 2"):
        opened(image, level=9)
    with pytest.raises(ValueError, match="no levels"):
        opened(volume.path, level=1)
    with pytest.raises(ValueError, match="all levels"):
        xr.open_datatree(image, engine=VoxfetchBackend, level=1)
    with pytest.raises(vf.NotFoundError, match="no member 's7'"):
        opened(image, path="s7")
    with pytest.raises(vf.NotFoundError, match="no label image 'nothing'"):
        opened(image, path="labels/nothing")
    with pytest.raises(TypeError, match="the engine voxfetch has no keyword grop; it has drop_variables, path, level"):
        opened(image, grop="a")
    with pytest.raises(TypeError, match=r"no keyword group \(a member of the source is opened by path=...\)"):
        opened(image, group="a")
    with pytest.raises(TypeError, match="format"):
        opened(vf.open(image), format="zarr2")
    with pytest.raises(TypeError, match="axes"):
        opened(vf.open(image / "labels"), axes="yx")
    with pytest.raises(vf.NotFoundError):
        opened(image / "nothing")


def test_a_member_that_cannot_be_read_can_be_left_out(tmp_path):
    root = zarr.create_group(tmp_path / "a")
    root.create_array("good", data=cells((3,)))
    root.create_array("bad", data=cells((3,)))
    document = json.loads((tmp_path / "a/bad/zarr.json").read_text())
    document["codecs"] = [{"name": "unheard of"}]
    (tmp_path / "a/bad/zarr.json").write_text(json.dumps(document))
    with pytest.raises(vf.UnsupportedError, match="unheard of") as caught:
        opened(tmp_path / "a")
    assert caught.value.__notes__ == ["drop_variables=['bad'] leaves it out"]
    assert list(opened(tmp_path / "a", drop_variables="bad").data_vars) == ["good"]


@pytest.mark.parametrize("value", ["!", [1], {"a": 1}, None])
def test_a_senseless_missing_value_is_an_error(tmp_path, value):
    array = zarr.create_array(tmp_path / "a", data=np.zeros(3))
    array.attrs["_FillValue"] = value
    with pytest.raises(vf.MetadataError, match="_FillValue"):
        opened(tmp_path / "a")
    array.attrs["_FillValue"] = 0
    assert np.isnan(opened(tmp_path / "a")["a"]).all()


@pytest.mark.parametrize("names", [3, "yx", [1, 2], ["y"], ["y", "x", "x"], None])
def test_senseless_names_of_dimensions(write_array, tmp_path, names):
    write_array(tmp_path / "a", np.ones((3, 4), "u1"), chunks=(2, 2), zarr_format=2)
    (tmp_path / "a/.zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": names}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # xarray warns of dimensions with one name
        assert opened(tmp_path / "a", mask_and_scale=False)["a"].shape == (3, 4)


def test_a_broken_chunk_is_an_error_of_load(write_array, make_values, tmp_path):
    case = write_array(tmp_path / "a", make_values((16, 16), "u2"), chunks=(8, 8))
    chunk = case.path / "c/1/0"
    chunk.write_bytes(chunk.read_bytes()[:-5])
    for chunks in (None, {}):
        lazy = opened(case.path, chunks=chunks)["a"]
        np.testing.assert_array_equal(lazy[:8].values, case.expected[:8])
        with pytest.raises(vf.DataError, match="c/1/0"):
            lazy.compute()
        with pytest.raises(vf.DataError, match="c/1/0"):
            asyncio.run(lazy.load_async())


def test_a_broken_hdf5_file(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", data=cells((64, 64)), chunks=(16, 16), compression="gzip")
    np.testing.assert_array_equal(opened(tmp_path / "a.h5")["d"], cells((64, 64)))
    whole = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(vf.VoxfetchError, match=r"cut\.h5"):
        opened(tmp_path / "cut.h5").load()


@pytest.mark.parametrize("fault", [status(500), status(401)], ids=["500", "401"])
def test_a_store_that_dies_half_way(volume, fault):
    with FaultyServer(objects_in(volume.path, "a/")) as server, vf.Engine(retry=FEW) as engine:
        lazy = opened(f"{server.url}/a", reader=engine, cache=False)["a"]
        np.testing.assert_array_equal(lazy[:9].values, volume.expected[:9])
        server.rule = lambda _: fault
        with pytest.raises(vf.StoreError, match="/a/c/") as caught:
            lazy.load()
        assert caught.value.attempts == (2 if fault.status == 500 else 1), "as the engine given says"
        with pytest.raises(vf.StoreError, match="/a/c/"):
            asyncio.run(lazy.load_async())
        server.rule = lambda _: None
        np.testing.assert_array_equal(lazy.values, volume.expected)


def test_a_tree_without_end_is_refused(tmp_path):
    zarr.create_group(tmp_path / "a")
    (tmp_path / "a/up").symlink_to(tmp_path / "a")
    (tmp_path / "a/also").symlink_to(tmp_path / "a")
    with pytest.raises(vf.LimitExceededError, match="32 of them deep"):
        xr.open_groups(tmp_path / "a", engine=VoxfetchBackend)


# ------------------------------------------------------------------------------------------------------------- examples


@pytest.mark.parametrize("script", ["dask_mean", "xarray_levels"])
def test_examples(script):
    path = Path(__file__).parents[1] / "examples" / f"{script}.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path), str(FIB25)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ},
    )
    assert done.returncode == 0, done.stderr
    group = zarr.open_group(FIB25, mode="r")
    if script == "dask_mean":
        voxels = group["0"][...]
        assert (
            f"mean of {voxels.size:,} voxels: {voxels.mean():.4f}, of the first plane: {voxels[0].mean():.4f}"
            in done.stdout
        )
    else:
        for name, middle in {"0": slice(63, 187), "1": slice(31, 94), "2": slice(16, 47)}.items():
            cube = group[name][middle, middle, middle]
            assert f"level {name}: {cube.shape}, mean {cube.mean():.4f}" in done.stdout
