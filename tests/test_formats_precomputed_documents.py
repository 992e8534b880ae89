"""The `info` of precomputed volumes: which image it makes, where the chunks of its levels lie, and what is refused."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

import voxfetch as vf
from voxfetch import ngff
from voxfetch.documents import RemoteDocuments
from voxfetch.formats import precomputed
from voxfetch.hierarchy import child, child_names
from voxfetch.node import Settings
from voxfetch.store import MAX_DOCUMENT_NBYTES
from voxfetch.store.local import LocalStore
from voxfetch.store.memory import MemoryStore

DATA = Path(__file__).parent / "data" / "precomputed"


def scale(key="8_8_40", **changes):
    """A scale; a change to None takes the member out."""
    document = {
        "key": key,
        "size": [64, 64, 32],
        "voxel_offset": [-2, 0, 100],
        "chunk_sizes": [[32, 32, 16]],
        "resolution": [8, 8, 40.5],
        "encoding": "raw",
        **changes,
    }
    return {name: value for name, value in document.items() if value is not None}


def info(*scales, **changes):
    """A volume of these scales, or of one."""
    document = {
        "@type": "neuroglancer_multiscale_volume",
        "type": "image",
        "data_type": "uint16",
        "num_channels": 1,
        "scales": list(scales) or [scale()],
        **changes,
    }
    return {name: value for name, value in document.items() if value is not None}


@pytest.fixture
def put(tmp_path):
    """`put({path: document})` -> the store; a document is an object or bytes."""

    def write(documents):
        for path, document in documents.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
        return LocalStore(str(tmp_path))

    return write


def find(store, path=""):
    return precomputed.find(store, path, Settings())


def refused(store, error, part, path=""):
    with pytest.raises(error) as caught:
        find(store, path)
    assert part in caught.value.message, caught.value
    assert len(str(caught.value)) < 1000
    return caught.value


def parsed(node):
    """What the document of a level says, for the compiled core."""
    document = json.loads(node.document)
    (only,) = document.pop("scales")
    return document, only


# ---------------------------------------------------------------------------------------------------------- what it is


def test_a_volume_is_an_image(put):
    coarse = scale("16_16_40", resolution=[16, 16, 40.5], size=[32, 32, 32], voxel_offset=None)
    document = info(scale(), coarse, mesh="mesh")
    node = find(put({"info": document}))
    assert (node.format, node.kind, node.path) == ("precomputed", "group", "")
    assert json.loads(node.document) == document
    assert node.attributes == {name: value for name, value in document.items() if name != "scales"}
    image = node.multiscale
    assert image.axes == (
        ngff.Axis("x", "space", "nanometer"),
        ngff.Axis("y", "space", "nanometer"),
        ngff.Axis("z", "space", "nanometer"),
        ngff.Axis("channel", "channel", None),
    )
    assert image.datasets == (
        ngff.Dataset("8_8_40", (8, 8, 40.5, 1), (-16, 0, 4050, 0)),
        ngff.Dataset("16_16_40", (16, 16, 40.5, 1), (4, 4, 0, 0)),
    )
    assert not image.is_label
    assert child_names(node) == ["16_16_40", "8_8_40"]


def test_levels_need_no_further_request(put):
    node = find(put({"a/b/info": info(scale("s0"), scale("deep/er/s1/", encoding="png"), type="segmentation")}), "a/b")
    assert node.multiscale.is_label
    assert [dataset.path for dataset in node.multiscale.datasets] == ["s0", "deep/er/s1"]
    for name, encoding in (("s0", "raw"), ("deep/er/s1", "png")):
        level = child(node, name)
        assert (level.format, level.kind, level.path) == ("precomputed", "array", f"a/b/{name}")
        document, only = parsed(level)
        assert document == {name: value for name, value in info(type="segmentation").items() if name != "scales"}
        assert only == scale("", encoding=encoding)
        assert level.attributes["encoding"] == encoding
    assert pickle.loads(pickle.dumps(node)).multiscale == node.multiscale


def test_members_that_say_nothing_of_voxels_stay_with_the_image(put):
    node = find(put({"info": info(scale(), mesh="m", skeletons="s", extra=[1] * 1000)}))
    assert set(parsed(child(node, "8_8_40"))[0]) == {"@type", "type", "data_type", "num_channels"}


def test_a_volume_need_not_say_that_it_is_one(put):
    assert find(put({"info": info(**{"@type": None})})).kind == "group"
    assert find(put({"info": info(**{"@type": "neuroglancer_skeletons"})})).kind == "group"


@pytest.mark.parametrize("name", ["info", "info.gz"])
def test_compressed_documents(put, name):
    store = put({name: gzip.compress(json.dumps(info()).encode())})
    assert json.loads(find(store).document) == info()
    # Concatenated members are one stream.
    text = json.dumps(info()).encode()
    store = put({name: gzip.compress(text[:50]) + gzip.compress(text[50:])})
    assert find(store).multiscale.datasets[0].path == "8_8_40"


def test_a_plain_document_is_preferred(put):
    store = put({"info": info(scale("plain")), "info.gz": gzip.compress(json.dumps(info(scale("zipped"))).encode())})
    assert find(store).multiscale.datasets[0].path == "plain"


def test_from_afar_with_one_request():
    store = MemoryStore({"v/info": gzip.compress(json.dumps(info()).encode()), "w/info.gz": b"{}"})
    documents = RemoteDocuments(store)
    asked = []
    get_many = RemoteDocuments.get_many

    class Counting(RemoteDocuments):
        def get_many(self, keys):
            asked.append(list(keys))
            return get_many(self, keys)

    node = find(Counting(store), "v")
    assert child(node, "8_8_40").path == "v/8_8_40"
    assert asked == [["v/info"]]
    # The suffix is how files on disk are named.
    assert find(documents, "w") is None


def test_forbidden():
    class Forbidding(LocalStore):
        def get_many(self, keys):
            return [vf.PermissionDeniedError("forbidden", key=key) for key in keys]

    refused(Forbidding("/nowhere"), vf.PermissionDeniedError, "forbidden")


# ------------------------------------------------------------------------------------------------- where the chunks are


def test_scales_beside_the_volume(put):
    store = put({"a/seg/info": info(scale("../other/8_8_40"), scale("../../far"), scale("./s2"), scale("x/../s3"))})
    node = find(store, "a/seg")
    names = [dataset.path for dataset in node.multiscale.datasets]
    assert names == ["other/8_8_40", "far", "s2", "s3"]
    assert [child(node, name).path for name in names] == ["a/other/8_8_40", "far", "a/seg/s2", "a/seg/s3"]
    assert all(parsed(child(node, name))[1]["key"] == "" for name in names)


def test_a_scale_in_the_folder_of_the_volume(put):
    node = find(put({"a/info": info(scale("."))}), "a")
    assert child(node, node.multiscale.datasets[0].path).path == "a"


@pytest.mark.parametrize("key", ["../x", "a/../../x", ".."])
def test_scales_out_of_the_store(put, key):
    error = refused(put({"info": info(scale(key))}), vf.UnsupportedError, "scales[0].key")
    assert "leads out of what was opened" in error.message
    assert error.key.endswith("/info")


@pytest.mark.parametrize(
    "key", ["/etc", "a//b", "a\\b", "a\0b", "gs://bucket/x", "file:///x", "", ".", "a/..", 5, None]
)
def test_scales_without_a_usable_key(put, key):
    refused(put({"info": info(scale(key))}), vf.MetadataError, "scales[0].key")


def test_two_scales_of_one_folder(put):
    refused(put({"info": info(scale("a"), scale("b/../a"))}), vf.MetadataError, "scales[1].key")


# ---------------------------------------------------------------------------------------------------------- redirects


def test_redirects_in_the_store(put, tmp_path):
    root = LocalStore(str(tmp_path)).url
    store = put(
        {
            "info": {"redirect": f"precomputed://{root}/moved/"},
            "moved/info": info(redirect=f"{root}/final"),
            "final/info": info(),
        }
    )
    node = find(store)
    assert node.path == "final"
    assert child(node, "8_8_40").path == "final/8_8_40"


@pytest.mark.parametrize("target", ["https://user:hunter2@host/x?token=hunter2", "precomputed://gs://bucket/x", "x"])
def test_redirects_out_of_the_store(put, target):
    error = refused(put({"info": info(redirect=target)}), vf.UnsupportedError, "another store")
    assert "hunter2" not in str(error)
    assert "open that URL" in error.hint


def test_redirects_that_lead_nowhere(put, tmp_path):
    root = LocalStore(str(tmp_path)).url
    refused(put({"info": {"redirect": f"{root}/gone"}}), vf.NotFoundError, "redirects")
    refused(put({"info": {"redirect": root}}), vf.LimitExceededError, "redirect")
    refused(put({"info": {"redirect": f"{root}/../x"}}), vf.UnsupportedError, "redirect")
    refused(put({"info": {"redirect": 5}}), vf.MetadataError, "redirect")
    refused(put({"info": {"redirect": f"{root}-other/x"}}), vf.UnsupportedError, "another store")


def test_ten_redirects_and_no_more(put, tmp_path):
    root = LocalStore(str(tmp_path)).url
    chain = {f"{i}/info": {"redirect": f"{root}/{i + 1}"} for i in range(11)}
    store = put({**chain, "11/info": info()})
    assert find(store, "1").path == "11"
    refused(store, vf.LimitExceededError, "more than 10", "0")


# --------------------------------------------------------------------------------------------------- what else there is


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("neuroglancer_multilod_draco", "multi-resolution meshes"),
        ("neuroglancer_legacy_mesh", "meshes"),
        ("neuroglancer_skeletons", "skeletons"),
        ("neuroglancer_annotations_v1", "annotations"),
        ("neuroglancer_segment_properties", "properties of segments"),
        ("neuroglancer_invention", "neuroglancer_invention"),
    ],
)
def test_other_things_of_neuroglancer(put, kind, name):
    error = refused(put({"info": {"@type": kind}}), vf.UnsupportedError, name)
    assert "volume" in error.hint


def test_graphene(put):
    document = info(graph={"chunk_size": [256, 256, 512]}, data_dir="gs://bucket/ws")
    refused(put({"info": document}), vf.UnsupportedError, "graphene volume, whose chunks lie at 'gs://bucket/ws'")


@pytest.mark.parametrize("document", [{}, {"@type": "other"}, {"@type": 5}, {"type": "image"}])
def test_files_of_that_name_of_others(put, document):
    assert find(put({"info": document})) is None


def test_nothing_there(put):
    assert find(put({"info/info": info()})) is None
    assert find(put({}), "gone") is None


@pytest.mark.parametrize(
    ("document", "error", "part"),
    [
        (b"", vf.MetadataError, "not a JSON document"),
        (b"<html>", vf.MetadataError, "not a JSON document"),
        (b"[]", vf.MetadataError, "a JSON object"),
        (b"\x1f\x8b", vf.MetadataError, "gzip"),
        (gzip.compress(json.dumps(info()).encode())[:-9], vf.MetadataError, "gzip"),
        (gzip.compress(b" " * (MAX_DOCUMENT_NBYTES + 1)), vf.LimitExceededError, "metadata document"),
        (b'{"a":' * 100 + b"1" + b"}" * 100, vf.LimitExceededError, "nested"),
        (info(scales=None), vf.MetadataError, "scales: is missing"),
        (info(scales=[]), vf.MetadataError, "scales"),
        (info(scales={}), vf.MetadataError, "scales"),
        (info(scales=5), vf.MetadataError, "scales"),
        (info(scales=[scale()] * 1001), vf.LimitExceededError, "1001 scales"),
        (info(scale(), 5), vf.MetadataError, "scales[1]"),
        (info(scale(resolution=None)), vf.MetadataError, "scales[0].resolution"),
        (info(scale(resolution=[8, 8])), vf.MetadataError, "scales[0].resolution"),
        (info(scale(resolution=[8, 8, 8, 8])), vf.MetadataError, "scales[0].resolution"),
        (info(scale(resolution=[8, 8, 0])), vf.MetadataError, "scales[0].resolution"),
        (info(scale(resolution=[8, 8, -8])), vf.MetadataError, "scales[0].resolution"),
        (info(scale(resolution=[8, 8, True])), vf.MetadataError, "scales[0].resolution"),
        (info(scale(resolution=[8, 8, float("nan")])), vf.MetadataError, "scales[0].resolution"),
        (info(scale(resolution=[8, 8, "8"])), vf.MetadataError, "scales[0].resolution"),
        (info(scale(resolution="8 8 8")), vf.MetadataError, "scales[0].resolution"),
        (info(scale(voxel_offset=[0, 0])), vf.MetadataError, "scales[0].voxel_offset"),
        (info(scale(voxel_offset=[0, 0, 10**400])), vf.MetadataError, "scales[0].voxel_offset"),
        (info(scale(voxel_offset={})), vf.MetadataError, "scales[0].voxel_offset"),
    ],
)
def test_broken_documents(put, document, error, part):
    assert refused(put({"info": document}), error, part).key.endswith("/info")


@pytest.mark.parametrize("end", [-1, 4])
def test_a_broken_document_in_brotli(tmp_path, end):
    (tmp_path / "info.br").write_bytes(brotli.compress(json.dumps(info(scale())).encode())[:end])
    with pytest.raises(vf.MetadataError, match="brotli") as caught:
        vf.open(tmp_path)
    assert caught.value.key.endswith("/info.br")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["..", "a/b", "../x"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(
    name=st.sampled_from(["scales", "@type", "redirect", "type"]), inside=st.sampled_from([*scale(), None]), value=JSON
)
def test_any_value_anywhere(name, inside, value):
    document = info(scale(), scale("b"))
    if inside is None:
        document[name] = value
    else:
        document["scales"][1][inside] = value

    class Memory(LocalStore):
        def get_many(self, keys):
            return [json.dumps(document).encode() if key.endswith("info") else None for key in keys]

    try:
        node = find(Memory("/nowhere"), "a")
    except vf.VoxfetchError:
        return
    for dataset in () if node is None else node.multiscale.datasets:
        try:
            level = child(node, dataset.path)
        except vf.MetadataError:  # a number that JSON does not have
            continue
        assert ".." not in level.path.split("/")


# ------------------------------------------------------------------------------------------------------- real documents


def test_the_volume_of_cloud_volume():
    node = find(LocalStore(str(DATA / "cloud-volume" / "pinky40")))
    assert node.multiscale.is_label
    assert [dataset.scale[:3] for dataset in node.multiscale.datasets] == [(8, 8, 40), (16, 16, 40), (32, 32, 40)]
    assert node.attributes["mesh"] == "mesh_mip_2_err_40"
    assert parsed(child(node, "16_16_40"))[1]["encoding"] == "compresso"


def test_the_volumes_of_tensorstore():
    folders = sorted((DATA / "tensorstore-0.1.86").iterdir())
    assert len(folders) == 5
    for folder in folders:
        node = find(LocalStore(str(folder)))
        (dataset,) = node.multiscale.datasets
        assert dataset == ngff.Dataset("4_4_40", (4, 4, 40, 1), (-16, 0, 40_000, 0))
