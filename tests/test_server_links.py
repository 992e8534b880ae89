"""Links in a folder that is shown: those that lead out of it lead nowhere, on every plane."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import zarr

import voxfetch as vf
from tests.servers.plain import ask, serving

VOXELS = np.arange(64 * 64, dtype="u1").reshape(64, 64)
SECRET = bytes(range(7, 255)) * 5


def written(path, **layout):
    array = zarr.create_array(str(path), shape=VOXELS.shape, dtype="u1", compressors=None, **layout)
    array[...] = VOXELS
    return path


@pytest.fixture
def tree(tmp_path):
    """A folder with links to what lies outside of it, and to what lies inside."""
    outside, folder = tmp_path / "outside", tmp_path / "shown"
    outside.mkdir()
    (outside / "key").write_bytes(SECRET[: 32 * 32])
    written(outside / "elsewhere.zarr", chunks=(32, 32))
    zarr.create_group(str(folder))
    for name, layout in (("plain", {"chunks": (32, 32)}), ("shards", {"chunks": (16, 16), "shards": (32, 32)})):
        written(folder / name, **layout)
        chunk = folder / name / "c" / "0" / "1"
        chunk.unlink()
        chunk.symlink_to(outside / "key")
    (folder / "linked").symlink_to(outside / "elsewhere.zarr")
    (folder / "near").symlink_to(folder / "plain")
    written(folder / "folder", chunks=(32, 32))
    os.rename(folder / "folder" / "c", outside / "c")
    (folder / "folder" / "c").symlink_to(outside / "c")
    return folder


@pytest.fixture
def server(tree):
    with serving({"t": str(tree)}) as server:
        yield server


@pytest.mark.parametrize("path", ["z3/t/plain/c/0/1", "z3/t/shards/c/0/2", "z3/t/folder/c/0/0", "z2/t/plain/0/1"])
def test_a_link_in_place_of_a_chunk_is_trouble_and_not_its_bytes(server, path):
    got = ask(server, f"/{path}")
    assert got.status == 503
    assert SECRET[:16] not in got.body


@pytest.mark.parametrize("plane", ["z3", "z2", "pc", "raw", "img", "api/node"])
def test_a_link_in_place_of_a_member_is_not_served(server, plane):
    for name in ("zarr.json", ".zarray", "info", "thumb.png", "c/0/0", ""):
        got = ask(server, f"/{plane}/t/linked/{name}".rstrip("/"))
        assert got.status in {404, 503}, (name, got.body)


def test_what_lies_inside_is_served_by_whatever_name(server):
    for name in ("plain", "near"):
        got = ask(server, f"/z3/t/{name}/c/1/0")
        assert (got.status, got.body) == (200, VOXELS[32:, :32].tobytes())


def test_a_folder_that_is_a_link_itself_is_what_was_asked_for(tree, tmp_path):
    (tmp_path / "alias").symlink_to(tree)
    with serving({"t": str(tmp_path / "alias")}) as server:
        assert ask(server, "/z3/t/plain/c/1/0").body == VOXELS[32:, :32].tobytes()
        assert ask(server, "/z3/t/plain/c/0/1").status == 503


def test_links_are_followed_where_that_is_said(tree):
    with serving({"t": str(tree)}, follow_links=True) as server:
        assert ask(server, "/z3/t/plain/c/0/1").body == SECRET[: 32 * 32]
        assert ask(server, "/z3/t/linked/c/0/0").body == VOXELS[:32, :32].tobytes()


def test_the_same_in_the_library(tree):
    inside = vf.StoreOptions(follow_links=False)
    followed = vf.open_array(tree / "plain")
    np.testing.assert_array_equal(followed[:32, 32:].ravel(), np.frombuffer(SECRET[: 32 * 32], "u1"))
    # Files that another array keeps open are no way round.
    array = vf.open_array(tree / "plain", options=inside)
    for one in (array, pickle.loads(pickle.dumps(array)), array.with_axes(array.axes[::-1])):
        with pytest.raises(vf.PermissionDeniedError):
            one[...]
    np.testing.assert_array_equal(array[32:], VOXELS[32:])
    with pytest.raises(vf.PermissionDeniedError):
        vf.open(tree, options=inside)["linked"]
    sharded = vf.open_array(tree / "shards", options=inside)
    with pytest.raises(vf.PermissionDeniedError):
        sharded[0, 40]
    report = array.verify()
    assert [problem.kind for problem in report.problems] == ["PermissionDeniedError"]
