"""Tables of chunks of HDF5 files that are kept in a folder, and HDF5 files at the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

import voxfetch as vf
from tests.hdf5_files import voxels, write_layouts


@pytest.fixture
def engine():
    with vf.Engine(decode_threads=2) as engine:
        yield engine


# -------------------------------------------------------------------------------------------------------------- tables


def test_tables_are_kept_and_fit_their_file(tmp_path, monkeypatch, engine):
    path, folder = tmp_path / "a.h5", tmp_path / "new/tables"
    names = write_layouts(path, "latest")
    keywords = {"format_options": {"chunk_tables": folder}, "engine": engine}
    expected = vf.open_array(path, "second tree")[...]
    np.testing.assert_array_equal(vf.open_array(path, "second tree", **keywords)[...], expected)
    kept = list(folder.iterdir())
    assert [file.suffix for file in kept] == [".npz"]
    with np.load(kept[0], allow_pickle=False) as members:
        assert set(members) == {"about", "rest", "offsets", "nbytes"}
    # The second time the library is not asked.
    with monkeypatch.context() as patched:
        patched.setattr("voxfetch.formats.hdf5.table._collect", None)
        np.testing.assert_array_equal(vf.open_array(path, "second tree", **keywords)[...], expected)
        with pytest.raises(vf.DataError):
            vf.open_array(path, "sparse", **keywords)
    for name in names:
        np.testing.assert_array_equal(vf.open(path, **keywords)[name][...], vf.open(path)[name][...])
    # Another version, and a broken table, are made again.
    write_layouts(path, "earliest", 512)
    np.testing.assert_array_equal(vf.open_array(path, "second tree", **keywords)[...], expected)
    kept[0].write_bytes(b"PK")
    np.testing.assert_array_equal(vf.open_array(path, "second tree", **keywords)[...], expected)
    assert not list(folder.glob("*.tmp"))


def test_masks_are_kept(tmp_path, engine):
    path = tmp_path / "a.h5"
    expected = voxels((12, 8), "<u2")
    with h5py.File(path, "w") as file:
        made = file.create_dataset("a", data=expected, chunks=(4, 8), shuffle=True)
        made.id.write_direct_chunk((4, 0), expected[4:8].tobytes(), filter_mask=1)
    for _ in range(2):
        array = vf.open_array(path, "a", format_options={"chunk_tables": str(tmp_path / "t")}, engine=engine)
        np.testing.assert_array_equal(array[...], expected)


def test_a_folder_for_tables_that_cannot_be_written_to(tmp_path):
    path = tmp_path / "a.h5"
    write_layouts(path, "latest")
    with pytest.raises(vf.StoreError):
        vf.open_array(path, "sparse", format_options={"chunk_tables": path / "x"})


# -------------------------------------------------------------------------------------------------------- command line


def test_the_command_line(tmp_path):
    path = tmp_path / "a.h5"
    write_layouts(path, "latest")
    environment = {**os.environ, "NO_COLOR": "1"}

    def run(*arguments):
        command = [sys.executable, "-m", "voxfetch.cli", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout

    assert "group, hdf5" in run("info", str(path))
    shown = run("info", f"{path}|hdf5:/second tree")
    assert "array, hdf5" in shown
    assert "13 x 17 x 11" in shown
    assert "second tree" in run("ls", str(path))
    described = json.loads(run("info", "--json", f"{path}/sparse"))
    assert described["format"] == "hdf5"
    assert described["fill_value"] == 7
