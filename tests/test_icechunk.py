"""Repositories of icechunk: by their folder, by the store of a session, and what happens without icechunk."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sys
from pathlib import Path

import h5py
import icechunk
import numpy as np
import pytest
import zarr

import voxfetch as vf
from voxfetch.cli import main
from voxfetch.formats.icechunk import is_repository

OLD = Path(__file__).parent / "data/neuroglancer/icechunk/single_array.icechunk"


class Made:
    """A repository of two snapshots, in which `a[0, 0]` differs, and a file beside it that `virtual` refers to."""

    def __init__(self, folder, make_values):
        self.folder = folder / "repository"
        self.beside = folder / "beside"
        self.beside.mkdir()
        self.expected = {
            "a": make_values((20, 30), "uint16", 1),
            "deep/sharded": make_values((16, 24), "float32", 2),
            "virtual": make_values((24, 10), "int64", 3),
        }
        prefix = f"file://{self.beside}/"
        config = icechunk.RepositoryConfig.default()
        config.inline_chunk_threshold_bytes = 10
        container = icechunk.VirtualChunkContainer(prefix, icechunk.local_filesystem_store(str(self.beside)))
        config.set_virtual_chunk_container(container)
        self.repository = icechunk.Repository.create(
            icechunk.local_filesystem_storage(str(self.folder)),
            config=config,
            authorize_virtual_chunk_access={prefix: None},
        )
        self.repository.save_config()
        session = self.repository.writable_session("main")
        group = zarr.create_group(session.store)
        group.attrs["what"] = "a test"
        for name, layout in (
            ("a", {"chunks": (5, 10)}),
            ("deep/sharded", {"chunks": (4, 4), "shards": (8, 8)}),
            ("virtual", {"chunks": (5, 5), "compressors": None}),
        ):
            values = self.expected[name]
            array = group.create_array(name, shape=values.shape, dtype=values.dtype, **layout)
            if name != "virtual":
                array[...] = values
        self._refer(session.store)
        self.first = session.commit("one")
        self.repository.create_tag("v1", self.first)
        session = self.repository.writable_session("main")
        zarr.open_array(session.store, path="a")[0, 0] = 7
        self.second = session.commit("two")
        self.repository.create_branch("old", self.first)

    def _refer(self, store):
        path = self.beside / "a.h5"
        with h5py.File(path, "w") as file:
            dataset = file.create_dataset("x", data=self.expected["virtual"], chunks=(5, 5)).id
            for i in range(dataset.get_num_chunks()):
                one = dataset.get_chunk_info(i)
                key = "/".join(str(at // 5) for at in one.chunk_offset)
                store.set_virtual_ref(f"virtual/c/{key}", f"file://{path}", offset=one.byte_offset, length=one.size)


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_values):
    return Made(tmp_path_factory.mktemp("icechunk"), make_values)


@pytest.fixture
def engine():
    with vf.Engine(decode_threads=2) as engine:
        yield engine


def test_a_folder(made, engine):
    group = vf.open(made.folder, engine=engine)
    assert group.url == f"file://{made.folder}|icechunk:"
    assert group.attrs["what"] == "a test"
    assert list(group.keys()) == ["a", "deep", "virtual"]
    assert group["a"][0, 0] == 7
    np.testing.assert_array_equal(group["a"][1:], made.expected["a"][1:])
    sharded = group["deep/sharded"]
    assert sharded.shards == (8, 8)
    np.testing.assert_array_equal(sharded[...], made.expected["deep/sharded"])
    np.testing.assert_array_equal(sharded[3:7, 5:19], made.expected["deep/sharded"][3:7, 5:19])
    assert sharded.verify().problem_count == 0
    np.testing.assert_array_equal(vf.open(sharded.url, engine=engine)[...], sharded[...])


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [("branch", "main", 7), ("branch", "old", None), ("tag", "v1", None), ("snapshot", "first", None)],
)
def test_revisions(kind, name, value, made, engine):
    options = {kind: getattr(made, name) if kind == "snapshot" else name}
    value = made.expected["a"][0, 0] if value is None else value
    for source in (made.folder, f"{made.folder}|icechunk:", f"icechunk://{made.folder}"):
        assert vf.open_array(source, "a", engine=engine, format_options=options)[0, 0] == value
    # What is open stays as it was.
    copy = pickle.loads(pickle.dumps(vf.open_array(made.folder, "a", engine=engine, format_options=options)))
    assert copy[0, 0] == value


@pytest.mark.parametrize("kind", ["branch", "tag", "snapshot"])
def test_revisions_that_are_not_there(kind, made, engine):
    with pytest.raises(vf.NotFoundError, match=f"no {kind} 'none'") as caught:
        vf.open(made.folder, engine=engine, format_options={kind: "none"})
    assert "branches main, old and the tags v1" in str(caught.value)
    assert "icechunk/src" not in str(caught.value)


def test_one_revision_at_a_time(made):
    for options in ({"branch": "main", "tag": "v1"}, {"branch": ""}, {"tag": 5}):
        with pytest.raises(ValueError, match="branch"):
            vf.open(made.folder, format_options=options)


def test_stores_of_sessions(made, engine):
    session = made.repository.readonly_session("main")
    group = vf.open(session.store, engine=engine)
    # Its repository was opened with leave to read what lies beside it.
    np.testing.assert_array_equal(group["virtual"][...], made.expected["virtual"])
    reader = zarr.open_group(session.store, mode="r")
    for source in (reader, reader["deep"].store_path):
        opened = vf.open(source, engine=engine)
        array = opened["sharded" if source is not reader else "deep/sharded"]
        np.testing.assert_array_equal(array[...], made.expected["deep/sharded"])
    np.testing.assert_array_equal(vf.open(reader["a"], engine=engine)[...], reader["a"][...])
    copy = pickle.loads(pickle.dumps(group["virtual"]))
    np.testing.assert_array_equal(copy[3:9], made.expected["virtual"][3:9])


def test_what_was_not_committed(made, engine):
    session = made.repository.writable_session("main")
    zarr.open_array(session.store, path="a")[0, 1] = 8
    array = vf.open(session.store, engine=engine)["a"]
    assert list(array[0, :2]) == [7, 8]
    assert vf.open_array(made.folder, "a", engine=engine)[0, 1] == made.expected["a"][0, 1]


def test_references_that_icechunk_may_not_follow(made, engine):
    with pytest.raises(vf.StoreError, match="authorize"):
        vf.open_array(made.folder, "virtual", engine=engine)[...]


def test_an_older_version(engine):
    assert is_repository(str(OLD))
    with pytest.raises(vf.UnsupportedError, match="does not open this repository") as caught:
        vf.open(OLD, engine=engine)
    assert "another version" in str(caught.value)


def test_without_icechunk(made, monkeypatch, engine):
    monkeypatch.setitem(sys.modules, "icechunk", None)
    with pytest.raises(vf.UnsupportedError, match="pip install icechunk"):
        vf.open(made.folder, engine=engine)


def test_what_is_no_repository(tmp_path, made, engine):
    (tmp_path / "refs").mkdir()
    with pytest.raises(vf.NotFoundError):
        vf.open(tmp_path, engine=engine)
    (tmp_path / "snapshots").mkdir()
    for source in (tmp_path, f"{tmp_path}|icechunk:"):
        with pytest.raises(vf.UnsupportedError, match="does not open"):
            vf.open(source, engine=engine)
    with pytest.raises(vf.UnsupportedError, match="session"):
        vf.open("s3://bucket/repository|icechunk:", engine=engine)
    with pytest.raises(vf.NotFoundError):
        vf.open(made.folder, format="icechunk", engine=engine)["none"]
    # A hierarchy of Zarr in a folder with such names is one.
    zarr.create_group(tmp_path)
    assert vf.open(tmp_path, engine=engine).format == "zarr3"


def test_a_broken_repository(tmp_path, made, engine):
    shutil.copytree(made.folder, tmp_path / "broken")
    for path in (tmp_path / "broken/snapshots").iterdir():
        path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(vf.VoxfetchError):
        vf.open(tmp_path / "broken", engine=engine)


def test_a_forked_child_does_not_hang(made, engine):
    array = vf.open_array(made.folder, "a", engine=engine)
    assert array[0, 0] == 7
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        code = 1
        try:
            array[1, 0]
        except vf.ForkSafetyError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert array[1, 0] == made.expected["a"][1, 0]


def test_info(made, capsys):
    assert main(["info", str(made.folder)]) == 0
    assert main(["info", f"{made.folder}|icechunk:a"]) == 0
    shown = capsys.readouterr().out
    assert "|icechunk:: group, zarr3 (icechunk)" in shown
    assert "/a: array, zarr3 (icechunk)" in shown
