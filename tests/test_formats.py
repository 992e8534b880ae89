"""What lies at a source is found without naming its format, in two round trips, and what was tried is told."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import zarr

import voxfetch as vf
from tests.servers import objects_in
from tests.servers.faulty import FaultyServer, status
from tests.servers.moto_s3 import moto_s3
from tests.stores import CREDENTIALS
from tests.wkw_data import layer, write_mag, write_properties

DATA = Path(__file__).parent / "data"
LATENCY_S = 0.15


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """Format -> a folder, with the axes, origin and kind of what lies there."""
    root = tmp_path_factory.mktemp("formats")
    write_mag(root / "wkw" / "color" / "1", np.ones((1, 20, 20, 20), "uint8"), block_type="lz4", at=(3, 4, 5))
    write_properties(root / "wkw", [layer("color", (3, 4, 5), (20, 20, 20), ["1"])])
    shutil.copytree(DATA / "precomputed" / "tensorstore-0.1.86" / "identity", root / "precomputed")
    shutil.copytree(DATA / "n5" / "tensorstore-bc4fbc1" / "gzip", root / "n5")
    for version in (2, 3):
        array = zarr.create_array(root / f"zarr{version}", shape=(4, 5), chunks=(2, 5), dtype="u2", zarr_format=version)
        array[...] = 7
    return root


FORMATS = {
    "wkw": (vf.Group, None, None),
    "precomputed": (vf.Image, ("x", "y", "z", "channel"), (-4, 0, 1000, 0)),
    "n5": (vf.Array, ("dim_0", "dim_1"), (0, 0)),
    "zarr2": (vf.Array, ("dim_0", "dim_1"), (0, 0)),
    "zarr3": (vf.Array, ("dim_0", "dim_1"), (0, 0)),
}


def finest(found):
    return found.level(0) if isinstance(found, vf.Image) else found


@pytest.mark.parametrize("name", FORMATS)
def test_each_is_found_for_what_it_is(sources, name):
    kind, axes, origin = FORMATS[name]
    found = vf.open(sources / name)
    assert type(found) is kind
    if axes is not None:
        assert (finest(found).axes, finest(found).origin, finest(found).format) == (axes, origin, name)
    named = vf.open(sources / name, format=name)
    assert type(named) is kind
    assert vf.open(f"{name}://{sources / name}").url == named.url
    assert vf.open(f"{sources / name}|{name}:").url == named.url
    others = [other for other in FORMATS if other != name]
    for other in others:
        with pytest.raises(vf.NotFoundError):
            vf.open(sources / name, format=other)


@pytest.mark.parametrize("name", FORMATS)
def test_two_round_trips_find_it(sources, name):
    with FaultyServer(sources / name) as server, vf.Engine() as engine:
        server.latency_s = LATENCY_S
        vf.open(server.url, engine=engine)
        times = [request.time_s for request in server.requests]
        keys = [request.key for request in server.requests]
        trips = 1 + sum(b - a > LATENCY_S / 2 for a, b in itertools.pairwise(times))
        assert trips == {"zarr3": 1}.get(name, 2)
        assert len(keys) == len(set(keys))
        assert not any(request.method == "HEAD" for request in server.requests)


@pytest.mark.parametrize(("name", "path"), [("wkw", "color/1"), ("wkw", "color"), ("precomputed", None)])
def test_two_round_trips_find_what_a_folder_above_describes(sources, name, path):
    """The levels of an image take another."""
    path = path or next(one.name for one in (sources / name).iterdir() if one.is_dir())
    with FaultyServer(sources / name) as server, vf.Engine() as engine:
        server.latency_s = LATENCY_S
        found = vf.open(f"{server.url}|zarr:{path}", engine=engine)
        times = [request.time_s for request in server.requests]
        trips = 1 + sum(b - a > LATENCY_S / 2 for a, b in itertools.pairwise(times))
        assert trips == 2 + isinstance(found, vf.Image)
        assert len(server.requests) == len({request.key for request in server.requests}) < 20


TRIED = (
    "zarr3 (zarr.json), zarr2 (.zarray, .zgroup, .zattrs, .zmetadata), precomputed (info), "
    "wkw (header.wkw, datasource-properties.json), n5 (attributes.json, s0/attributes.json)"
)


@contextmanager
def empty_at(place, folder):
    """(source, options, log of requests or None) of a place where nothing is that is read."""
    (folder / "a" / "b" / "c").mkdir(parents=True)
    (folder / "a" / "b" / "c" / "notes.txt").write_text("nothing of ours")
    match place:
        case "disk":
            yield folder, None, None
        case "http" | "http that hides":
            with FaultyServer(folder) as server:
                server.latency_s = LATENCY_S
                if place == "http that hides":
                    server.rule = lambda _: status(403)
                yield server.url, None, server.requests
        case "s3":
            with moto_s3(objects_in(folder)) as endpoint:
                options = vf.StoreOptions(endpoint=endpoint, credentials=CREDENTIALS, region="us-east-1")
                yield "s3://bucket", options, None


@pytest.mark.parametrize("path", ["", "a/b/c"])
@pytest.mark.parametrize("place", ["disk", "http", "http that hides", "s3"])
def test_nothing_is_told_with_what_was_tried(tmp_path, place, path):
    error = vf.PermissionDeniedError if place == "http that hides" else vf.NotFoundError
    with empty_at(place, tmp_path) as (source, options, requests), vf.Engine() as engine:
        with pytest.raises(error) as caught:
            vf.open(f"{source}|zarr:{path}" if path else source, options=options, engine=engine)
        assert TRIED in str(caught.value)
        if requests is not None:
            times = [request.time_s for request in requests]
            assert sum(b - a > LATENCY_S / 2 for a, b in itertools.pairwise(times)) == 1
            assert len({request.key for request in requests}) == len(requests)
        with pytest.raises(error) as caught:
            vf.open_array(source, path, format="n5", options=options, engine=engine)
        assert "n5 (attributes.json, s0/attributes.json)" in str(caught.value)
        assert "zarr.json" not in str(caught.value)


def test_zarr_goes_before_documents_of_others(sources, tmp_path):
    """Converters leave the documents of one format beside those of another."""
    folder = tmp_path / "both"
    shutil.copytree(sources / "zarr3", folder)
    for document in ("info", "attributes.json", "header.wkw", "datasource-properties.json"):
        (folder / document).write_text("not one of ours")
    np.testing.assert_array_equal(vf.open(folder)[...], np.full((4, 5), 7))
    shutil.copytree(sources / "zarr2", tmp_path / "two")
    (tmp_path / "two" / "info").write_text("{}")
    np.testing.assert_array_equal(vf.open(tmp_path / "two")[...], np.full((4, 5), 7))


@pytest.mark.parametrize("document", ["info", "attributes.json"])
def test_a_document_of_another_use_is_nothing(tmp_path, document):
    (tmp_path / document).write_text(json.dumps({"name": "mine"}))
    if document == "info":
        with pytest.raises(vf.NotFoundError):
            vf.open(tmp_path)
    else:
        # Any folder with such a document is a group of N5.
        assert isinstance(vf.open(tmp_path), vf.Group)


@pytest.mark.parametrize(("name", "line"), [("precomputed", "origin     -4, 0, 1000, 0"), ("n5", "chunks     3 x 2")])
def test_info_prints_a_page(sources, name, line):
    printed = subprocess.run(
        [sys.executable, "-m", "voxfetch.cli", "info", str(sources / name)], capture_output=True, text=True, check=True
    ).stdout
    assert line in printed
    as_json = subprocess.run(
        [sys.executable, "-m", "voxfetch.cli", "info", "--json", str(sources / name)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert json.loads(as_json)["format"]


@pytest.mark.parametrize("name", FORMATS)
def test_servers_that_forbid_what_is_not_there(sources, name):
    """S3 without the right to list answers so; while looking for a format it means "not this one"."""
    with FaultyServer(sources / name) as server:
        server.rule = lambda request: None if (sources / name / request.key).is_file() else status(403)
        assert type(vf.open(server.url)) is FORMATS[name][0]
        empty = f"{server.url}/nothing/here"
        with pytest.raises(vf.PermissionDeniedError):
            vf.open(empty)


def test_documents_above_are_not_what_was_asked_for(sources, tmp_path):
    (tmp_path / "a" / "empty").mkdir(parents=True)
    shutil.copytree(sources / "zarr3", tmp_path / "a" / "array")
    for text in ("not a document", '{"@type": "neuroglancer_skeletons"}', '{"redirect": "https://host/x"}'):
        for name in ("info", "datasource-properties.json"):
            (tmp_path / name).write_text(text)
        with pytest.raises(vf.NotFoundError):
            vf.open(tmp_path / "a" / "empty")
        with pytest.raises(vf.NotFoundError):
            vf.open_array(tmp_path / "a" / "array", "no")


def test_a_volume_with_attributes_beside_it_is_a_volume(sources, tmp_path):
    for text in ('{"owner": "me"}', "[1]"):
        folder = tmp_path / str(len(text))
        shutil.copytree(sources / "precomputed", folder)
        (folder / "attributes.json").write_text(text)
        assert isinstance(vf.open(folder), vf.Image)
    container = tmp_path / "container"
    shutil.copytree(sources / "precomputed", container / "volume")
    (container / "attributes.json").write_text('{"n5": "2.0.0"}')
    assert isinstance(vf.open(container)["volume"], vf.Image)


@pytest.mark.parametrize("name", ["n5", "precomputed", "wkw"])
def test_nothing_of_another_format_is_overwritten(sources, tmp_path, name):
    folder = tmp_path / name
    shutil.copytree(sources / name, folder)
    before = objects_in(folder)
    with pytest.raises(vf.ConflictError):
        vf.create(folder, shape=(4, 4), dtype="u1", overwrite=True)
    assert objects_in(folder) == before


def test_a_broken_document_counts_if_nothing_else_fits(sources, tmp_path):
    shutil.copytree(sources / "n5", tmp_path / "n5")
    (tmp_path / "n5" / "info").write_text("not one of Neuroglancer's")
    assert vf.open(tmp_path / "n5").format == "n5"
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "info").write_text('{"scales": 3}')
    with pytest.raises(vf.MetadataError, match="scales"):
        vf.open(tmp_path / "broken")
