"""Images in HDF5 files: Imaris and BigDataViewer, their levels, scales and types."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

import voxfetch as vf
from tests.hdf5_files import voxels
from tests.servers.faulty import FaultyServer

BDV = Path(__file__).parent / "data/hdf5/mobie-c199c3f/xyc-fluo-cells-bdv-hdf5.h5"


@pytest.fixture
def engine():
    with vf.Engine(decode_threads=2) as engine:
        yield engine


def letters(value):
    """As Imaris writes its attributes."""
    return np.array(list(str(value)), "S1")


def write_imaris(path, times=1, channels=1, levels=((5, 20, 30), (5, 10, 15)), edges=True):
    """Datasets are padded to whole chunks."""
    values = {}
    with h5py.File(path, "w") as file:
        about = file.create_group("DataSetInfo/Image")
        for name, value in zip("XYZ", levels[0][::-1], strict=True):
            about.attrs[name] = letters(value)
        if edges:
            for axis, (low, high) in enumerate(((10, 25), (-3, 7), (0, 5))):
                about.attrs[f"ExtMin{axis}"], about.attrs[f"ExtMax{axis}"] = letters(float(low)), letters(float(high))
            about.attrs["Unit"] = letters("um")
            about.attrs["Name"] = letters("cells")
        for channel in range(channels):
            shown = file.create_group(f"DataSetInfo/Channel {channel}")
            shown.attrs["Name"], shown.attrs["Color"] = letters(f"c{channel}"), letters("1.000 0.500 0.000")
        for level, shape in enumerate(levels):
            for time in range(times):
                for channel in range(channels):
                    place = f"DataSet/ResolutionLevel {level}/TimePoint {time}/Channel {channel}"
                    group = file.create_group(place)
                    for name, value in zip("XYZ", shape[::-1], strict=True):
                        group.attrs[f"ImageSize{name}"] = letters(value)
                    padded = tuple(-(-extent // 8) * 8 for extent in shape)
                    stored = voxels(padded, "u1", seed=len(values))
                    group.create_dataset("Data", data=stored, chunks=(8, 8, 8), compression="gzip", shuffle=True)
                    values[level, time, channel] = stored[tuple(map(slice, shape))]
        file.create_dataset("Thumbnail/Data", data=np.zeros((4, 16), "u1"))
    return values


def test_imaris(tmp_path, engine):
    path = tmp_path / "a.ims"
    values = write_imaris(path)
    image = vf.open(path, engine=engine)
    assert isinstance(image, vf.Image)
    assert (image.format, image.name, image.axes) == ("Imaris", "cells", ("z", "y", "x"))
    assert [level.shape for level in image.levels] == [(5, 20, 30), (5, 10, 15)]
    for i, level in enumerate(image.levels):
        np.testing.assert_array_equal(level[...], values[i, 0, 0])
    # The edges are those of the voxels, a translation is the centre of the first.
    assert image.level(0).scale == (1.0, 0.5, 0.5)
    assert image.level(1).scale == (1.0, 1.0, 1.0)
    assert image.level(0).translation == (0.5, -2.75, 10.25)
    assert image.level(1).translation == (0.5, -2.5, 10.5)
    assert image.level(0).unit == ("micrometer",) * 3
    assert image.level(resolution=1000, unit="nanometer") == image.level(1)
    assert [(channel.label, channel.color) for channel in image.channels] == [("c0", "FF8000")]
    again = pickle.loads(pickle.dumps(image))
    np.testing.assert_array_equal(again.level(1)[...], values[1, 0, 0])
    # What is stored lies at its own path too, and is not padded there either.
    data = vf.open_array(path, "DataSet/ResolutionLevel 1/TimePoint 0/Channel 0/Data", engine=engine)
    np.testing.assert_array_equal(data[...], values[1, 0, 0])


def test_imaris_with_several_channels_and_times(tmp_path, engine):
    path = tmp_path / "a.ims"
    values = write_imaris(path, times=2, channels=2)
    opened = vf.open(path, engine=engine)
    assert type(opened) is vf.Group
    assert opened.keys() == ("DataSet", "DataSetInfo", "Thumbnail")
    for time in range(2):
        for channel in range(2):
            image = opened[f"DataSet/ResolutionLevel 0/TimePoint {time}/Channel {channel}"]
            assert isinstance(image, vf.Image)
            assert image.channels[0].label == f"c{channel}"
            for i, level in enumerate(image.levels):
                np.testing.assert_array_equal(level[...], values[i, time, channel])
    assert isinstance(opened["DataSet/ResolutionLevel 1/TimePoint 0/Channel 0"], vf.Group)
    image = vf.open_image(f"{path}|hdf5:DataSet/ResolutionLevel 0/TimePoint 1/Channel 1", engine=engine)
    np.testing.assert_array_equal(image.level(0)[...], values[0, 1, 1])


def test_imaris_without_edges(tmp_path, engine):
    path = tmp_path / "a.ims"
    write_imaris(path, edges=False)
    level = vf.open_image(path, engine=engine).level(0)
    assert (level.scale, level.translation, level.unit) == ((1.0,) * 3, (0.0,) * 3, (None,) * 3)


def test_imaris_whose_size_is_missing(tmp_path):
    path = tmp_path / "a.ims"
    write_imaris(path)
    with h5py.File(path, "r+") as file:
        del file["DataSet/ResolutionLevel 0/TimePoint 0/Channel 0"].attrs["ImageSizeX"]
    with pytest.raises(vf.MetadataError, match="ImageSizeX"):
        vf.open(path)


XML = """<?xml version="1.0"?><SpimData><!-- by hand --><SequenceDescription><ViewSetups>
<ViewSetup><id>1</id><name>other</name><voxelSize><unit>um</unit><size>9 9 9</size></voxelSize></ViewSetup>
<ViewSetup><id>0</id><name>green</name><voxelSize><unit>µm</unit><size>0.5 0.5 2.0</size></voxelSize></ViewSetup>
</ViewSetups></SequenceDescription></SpimData>"""


def write_bdv(path, setups=1, times=1, dtype="i2", data_type=None):
    values = {}
    with h5py.File(path, "w") as file:
        for setup in range(setups):
            file[f"s{setup:02}/resolutions"] = np.array([[1, 1, 1], [2, 2, 1.0]])
            file[f"s{setup:02}/subdivisions"] = np.array([[8, 8, 4], [8, 8, 4]], "i4")
            if data_type:
                file[f"s{setup:02}"].attrs["dataType"] = data_type
            for time in range(times):
                for level, shape in enumerate(((6, 20, 30), (6, 10, 15))):
                    stored = voxels(shape, "u2", seed=len(values)) * 261
                    name = f"t{time:05}/s{setup:02}/{level}/cells"
                    file.create_dataset(name, data=stored.astype(dtype), chunks=(4, 8, 8), compression="gzip")
                    values[setup, time, level] = stored
    return values


def test_bigdataviewer(tmp_path, engine):
    path = tmp_path / "a.h5"
    values = write_bdv(path)
    (tmp_path / "a.xml").write_text(XML, encoding="utf-8")
    image = vf.open(path, engine=engine)
    assert isinstance(image, vf.Image)
    assert (image.format, image.name, image.axes) == ("BigDataViewer HDF5", "green", ("z", "y", "x"))
    assert [level.scale for level in image.levels] == [(2.0, 0.5, 0.5), (2.0, 1.0, 1.0)]
    assert [level.translation for level in image.levels] == [(0.0, 0.0, 0.0), (0.0, 0.25, 0.25)]
    assert image.level(0).unit == ("micrometer",) * 3
    # Java has no unsigned types.
    assert values[0, 0, 0].max() > 40_000
    for i, level in enumerate(image.levels):
        assert level.dtype == "u2"
        np.testing.assert_array_equal(level[...], values[0, 0, i])
    assert image.level(mag="2-2-1").shape == (6, 10, 15)


def test_bigdataviewer_with_several_setups_and_times(tmp_path, engine):
    path = tmp_path / "a.h5"
    values = write_bdv(path, 2, 2)
    opened = vf.open(path, engine=engine)
    assert opened.keys() == ("s00", "s01", "t00000", "t00001")
    for setup, time in ((0, 0), (1, 1)):
        image = opened[f"t{time:05}"][f"s{setup:02}"]
        assert isinstance(image, vf.Image)
        np.testing.assert_array_equal(image.level(1)[...], values[setup, time, 1])
        assert image.level(0).unit == (None,) * 3
    assert opened["t00000"].keys() == ("s00", "s01")
    assert "(image, 2 levels)" in opened.tree()


def test_bigdataviewer_as_java_writes_it(engine):
    opened = vf.open(BDV, engine=engine)
    with h5py.File(BDV) as file:
        for setup in range(3):
            image = opened[f"t00000/s{setup:02}"]
            assert image.name == f"channel {setup + 1}"
            assert "hdf5_scaleoffset" in image.level(0).codecs
            for i, level in enumerate(image.levels):
                np.testing.assert_array_equal(level[...], file[f"t00000/s{setup:02}/{i}/cells"][...])


def test_bigdataviewer_whose_type_is_told(tmp_path, engine):
    path = tmp_path / "a.h5"
    write_bdv(path, dtype="i2", data_type="int16")
    assert vf.open_image(path, engine=engine).level(0).dtype == "i2"
    write_bdv(path, dtype="i1", data_type="uint8")
    assert vf.open_image(path, engine=engine).level(0).dtype == "u1"
    write_bdv(path, dtype="f4", data_type="float32")
    assert vf.open_image(path, engine=engine).level(0).dtype == "f4"


@pytest.mark.parametrize(
    "document",
    [
        "<SpimData",
        XML.replace("0.5 0.5 2.0", "0 1 1"),
        XML.replace("<SpimData>", '<!DOCTYPE a [<!ENTITY e "0">]><SpimData>', 1),
        XML.replace("<id>0</id>", "<id>7</id>"),
    ],
)
def test_bigdataviewer_without_a_document_of_use(document, tmp_path, engine):
    path = tmp_path / "a.h5"
    write_bdv(path)
    (tmp_path / "a.xml").write_text(document, encoding="utf-8")
    level = vf.open_image(path, engine=engine).level(0)
    assert (level.scale, level.unit) == ((1.0,) * 3, (None,) * 3)


def test_other_files_with_such_names(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["t0/s0/0/cells"] = voxels((2, 2, 2), "i2")
        file["s0/resolutions"] = [[1.0, 2.0]]
        file["DataSet/ResolutionLevel 0/TimePoint 0/Channel 0/x"] = 1
    opened = vf.open(path)
    assert type(opened) is vf.Group
    assert type(opened["t0/s0"]) is vf.Group
    assert opened["t0/s0/0/cells"].dtype == "i2"


FACTORS = np.array([[1, 1, 1], [2, 2, 1.0]])


def link_to_another_file(group, folder):
    group["resolutions"] = h5py.ExternalLink(str(folder / "other.h5"), "a")


def link_within_the_file(group, folder):
    group.file["factors"] = FACTORS
    group["resolutions"] = h5py.SoftLink("/factors")


def bytes_of_another_file(group, folder):
    (folder / "secret").write_bytes(FACTORS.tobytes())
    group.create_dataset("resolutions", FACTORS.shape, "f8", external=[(str(folder / "secret"), 0, FACTORS.nbytes)])


def data_of_another_dataset(group, folder):
    group.file["factors"] = FACTORS
    layout = h5py.VirtualLayout(FACTORS.shape, "f8")
    layout[:] = h5py.VirtualSource(".", "factors", FACTORS.shape)
    group.create_virtual_dataset("resolutions", layout)


def a_chunk_of_any_size(group, folder):
    made = group.create_dataset("resolutions", FACTORS.shape, "f8", maxshape=(None, 3), chunks=(1 << 20, 3))
    made.id.write_direct_chunk((0, 0), np.ones(3 << 20).tobytes())


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize(
    "kind",
    [
        link_to_another_file,
        link_within_the_file,
        bytes_of_another_file,
        data_of_another_dataset,
        a_chunk_of_any_size,
    ],
)
def test_factors_that_are_elsewhere_are_not_read(kind, remote, tmp_path, engine):
    path = tmp_path / "a.h5"
    write_bdv(path)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"] = FACTORS
    with h5py.File(path, "r+") as file:
        del file["s00/resolutions"]
        kind(file["s00"], tmp_path)
    with FaultyServer({"a.h5": path.read_bytes()}) as server:
        opened = vf.open(f"{server.url}/a.h5" if remote else path, engine=engine)
        assert type(opened) is vf.Group
        assert type(opened["t00000/s00"]) is vf.Group
        assert opened["t00000/s00/0/cells"].dtype == "i2"


@pytest.mark.parametrize(
    "how", [{}, {"chunks": (1, 3)}, {"chunks": (2, 3), "compression": "gzip", "maxshape": (None, 3)}]
)
def test_factors_that_are_in_the_file(how, tmp_path, engine):
    path = tmp_path / "a.h5"
    write_bdv(path)
    with h5py.File(path, "r+") as file:
        del file["s00/resolutions"]
        file.create_dataset("s00/resolutions", data=FACTORS, **how)
    assert [level.scale for level in vf.open_image(path, engine=engine).levels] == [(1.0, 1.0, 1.0), (1.0, 2.0, 2.0)]


@pytest.mark.parametrize("bits", [None, 0])
@pytest.mark.parametrize(
    ("dtype", "data_type", "fill", "meant"),
    [
        ("<i2", None, -1, 65535),
        (">i2", None, -32768, 32768),
        ("<i2", None, 7, 7),
        ("i1", "uint8", -2, 254),
        ("<i4", "uint32", -1, 2**32 - 1),
        ("<i8", "uint64", -1, 2**64 - 1),
        ("<i4", None, -1, -1),
        ("<i2", "int16", -1, -1),
    ],
)
def test_a_fill_value_of_a_type_that_java_has_not(dtype, data_type, fill, meant, bits, tmp_path, engine):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["s00/resolutions"] = FACTORS[:1]
        if data_type:
            file["s00"].attrs["dataType"] = data_type
        keywords = {"chunks": (2, 2, 2), "fillvalue": fill, "scaleoffset": bits}
        cells = file.create_dataset("t00000/s00/0/cells", (4, 4, 4), dtype, **keywords)
        cells[0], cells[1] = 1, fill
    level = vf.open_image(path, engine=engine).level(0)
    assert level[0, 0, 0] == 1
    assert int(level[1, 0, 0]) == meant
    assert int(level[3, 3, 3]) == meant
    assert int(vf.open_array(path, "t00000/s00/0/cells", engine=engine).fill_value) == meant
