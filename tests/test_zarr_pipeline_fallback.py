"""`voxfetch.ZarrPipeline`: what it cannot read is read by zarr and counted, what is broken or missing is an error."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import zarr
from zarr.core.buffer import NDBuffer, default_buffer_prototype

import voxfetch as vf
from tests.zarr_arrays import NEWER, PIPELINE, all_accelerated, same, stored
from voxfetch.zarr import report

pytestmark = pytest.mark.filterwarnings(
    "ignore::zarr.errors.UnstableSpecificationWarning", "ignore::zarr.errors.ZarrUserWarning"
)


@pytest.fixture(params=["memory", "local"])
def store(request, tmp_path):
    return zarr.storage.MemoryStore() if request.param == "memory" else zarr.storage.LocalStore(tmp_path)


# ---------------------------------------------------------------------------------------------- what it does not read


def strings():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = zarr.create_array({}, name="a", shape=(5,), chunks=(2,), dtype=str)
    array[...] = np.array(["a", "bc", "", "def", "g"])
    return array


def test_what_is_not_accelerated_is_read_by_zarr_and_counted():
    array = strings()
    with pytest.raises(vf.UnsupportedError, match="elements of no fixed size"):
        vf.accelerate(array)
    whole = report()
    whole.reset()
    assert str(report()) == "0 of 0 reads accelerated"
    with zarr.config.set(PIPELINE):
        slow = zarr.open_array(array.store, path="a")
        fast = stored(shape=(5,), chunks=(2,))
    assert slow[...].tolist() == ["a", "bc", "", "def", "g"]
    assert fast[...].shape == (5,)
    assert str(report()) == "1 of 2 reads accelerated; 1 not: elements of no fixed size (1)"
    assert str(report(slow)) == (
        "0 of 1 reads accelerated; 1 not: elements of no fixed size (1); never accelerated: elements of no fixed size"
    )
    assert str(report(fast)).startswith("1 of 1 reads accelerated; the store shows no ETag: ")
    with zarr.config.set({"codec_pipeline.strict": True}), pytest.raises(vf.UnsupportedError, match="no fixed size"):
        slow[...]
    counts = report(slow)
    assert (counts.accelerated, counts.not_accelerated, dict(counts.reasons)) == (
        0,
        1,
        {"elements of no fixed size": 1},
    )
    counts.reset()
    assert report(slow).not_accelerated == 0
    assert report().not_accelerated == 1


def test_codec_classes_of_others_are_used():
    """A class of the user under the name of a codec that the core knows."""
    from zarr.codecs import GzipCodec
    from zarr.registry import register_codec

    array = stored(shape=(9,), chunks=(4,), dtype="u1", compressors=GzipCodec())

    class Mine(GzipCodec):
        used = 0

        async def _decode_single(self, *arguments):
            type(self).used += 1
            return await super()._decode_single(*arguments)

        def _decode_sync(self, *arguments):
            type(self).used += 1
            return super()._decode_sync(*arguments)

    register_codec("gzip", Mine)
    name = f"{Mine.__module__}.{Mine.__qualname__}"
    try:
        with zarr.config.set({**PIPELINE, "codecs.gzip": name}):
            slow = zarr.open_array(array.store, path="a")
            same(slow[...], array[...])
    finally:
        names = vars(zarr.registry)
        names.get("__codec_registries", names.get("_codec_registries"))["gzip"].pop(name)
    assert Mine.used
    assert list(report(slow).reasons) == [f"codec class {name}"]


def test_metadata_that_is_not_understood(monkeypatch):
    array = stored(shape=(9,), chunks=(4,))
    monkeypatch.setattr(type(array.metadata), "to_buffer_dict", lambda *_: {})
    with pytest.raises(vf.UnsupportedError, match="metadata that is not understood"):
        vf.accelerate(array)
    with zarr.config.set(PIPELINE):
        slow = zarr.open_array(array.store, path="a")
    same(slow[...], array[...])
    assert report(slow).reasons == {"metadata that is not understood": 1}


def test_fields_whose_byte_order_only_their_maker_knows():
    """zarr 3.1 writes them as they are in memory, and a document that does not tell how that was."""
    dtype = np.dtype([("x", "<i2"), ("y", ">f4")])
    with zarr.config.set(PIPELINE):
        array = zarr.create_array({}, name="a", shape=(9,), chunks=(4,), dtype=dtype)
    voxels = np.array([(number, number / 2) for number in range(9)], dtype)
    array[...] = voxels
    np.testing.assert_array_equal(array[...], voxels)
    reasons = {} if NEWER else {"fields in an order of bytes that the metadata does not tell": 1}
    assert report(array).reasons == reasons
    again = zarr.open_array(array.store, path="a")
    same(vf.accelerate(again)[...], again[...])


class OtherMemory(NDBuffer):
    """An output whose memory is not numpy's, as that of a GPU."""

    def as_ndarray_like(self):
        return Opaque(self._data)

    def as_numpy_array(self):
        return self._data

    def __getitem__(self, key):
        return type(self)(self._data[key])

    def __setitem__(self, key, value):
        self._data[key] = value._data if isinstance(value, NDBuffer) else value


class Opaque:
    def __init__(self, array):
        self.array = array


def test_outputs_of_other_memory():
    array = stored(shape=(9, 8), chunks=(4, 4))
    fast = vf.accelerate(array)
    out = np.zeros((9, 8), "u2")
    fast.get_basic_selection(..., out=OtherMemory(out))
    same(out, array[...])
    assert report(fast).reasons == {"an output that is no array of numpy": 1}


def test_broken_data_is_an_error_and_no_fallback(store):
    array = stored(store, shape=(9, 8), chunks=(4, 4), shards=(8, 8))
    fast = vf.accelerate(array)
    whole = zarr.core.sync.sync(store.get("a/c/0/0", default_buffer_prototype())).to_bytes()
    broken = default_buffer_prototype().buffer.from_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    zarr.core.sync.sync(store.set("a/c/0/0", broken))
    with pytest.raises(vf.DataError):
        fast[...]
    assert report(fast).not_accelerated == 0


@pytest.mark.skipif(not NEWER, reason="zarr 3.3 and later")
@pytest.mark.parametrize("shards", [None, (8, 8)])
def test_missing_objects_as_errors(store, shards):
    array = stored(
        store, shape=(20, 20), chunks=(4, 4), shards=shards, fill_value=9, holes=[np.s_[:4, :4], np.s_[16:, 16:]]
    )
    array = zarr.open_array(store, path="a", config={"read_missing_chunks": False})
    fast = vf.accelerate(array)
    for selection in (..., np.s_[0, 0], np.s_[:4, 4:8], np.s_[:8, :8], np.s_[17:, 17:], np.s_[::9, ::9]):
        try:
            expected = array[selection]
        except Exception as error:  # noqa: BLE001 - zarr's class has changed its place
            with pytest.raises(type(error)) as caught:
                fast[selection]
            assert str(caught.value) == str(error)
        else:
            out = np.full(expected.shape, 77, "u2")
            fast.get_basic_selection(selection, out=default_buffer_prototype().nd_buffer(out))
            same(out, np.asarray(expected))
    all_accelerated(fast)


# ------------------------------------------------------------------------------------- batches that zarr does not make

WHOLE = (slice(0, 4), slice(0, 5))
LEFT, RIGHT = (slice(0, 4), slice(0, 5)), (slice(0, 4), slice(5, 10))
LOWER = (slice(4, 8), slice(5, 10))
# Of each: the shape of the output; key, selection and place of each object; whether it is one read all the same.
ODD = {
    "places exchanged": ((4, 10), [("c/0/0", WHOLE, RIGHT), ("c/0/1", WHOLE, LEFT)], True),
    "steps that differ": ((4, 8), [("c/0/0", WHOLE, LEFT), ("c/0/1", (WHOLE[0], slice(0, 5, 2)),
                                                             (slice(0, 4), slice(5, 8)))], True),
    "kinds that differ": ((4, 10), [("c/0/0", WHOLE, LEFT), ("c/0/1", (WHOLE[0], np.array([3, 2, 1, 0, 2])), RIGHT)],
                          False),
    "backwards": ((4, 10), [("c/0/0", (slice(3, None, -1), slice(5)), LEFT)], False),
    "rows that differ": ((2, 10), [("c/0/0", (slice(0, 2), slice(5)), (slice(0, 2), slice(0, 5))),
                                   ("c/0/1", (slice(2, 4), slice(5)), (slice(0, 2), slice(5, 10)))], False),
    "places that differ": ((2, 10), [("c/0/0", (slice(0, 2), slice(5)), (slice(0, 2), slice(0, 5))),
                                     ("c/0/1", (slice(0, 2), slice(5)), np.ix_([1, 0], range(5, 10)))], False),
    "one twice": ((4, 10), [("c/0/0", WHOLE, LEFT), ("c/0/0", WHOLE, RIGHT)], False),
    "a part of the output": ((4, 10), [("c/0/0", WHOLE, LEFT)], False),
    "places that overlap": ((4, 9), [("c/0/0", WHOLE, LEFT),
                                     ("c/0/1", (WHOLE[0], slice(0, 4)), (slice(0, 4), slice(4, 8)))], False),
    "a diagonal": ((8, 10), [("c/0/0", WHOLE, LEFT), ("c/1/1", WHOLE, LOWER)], False),
    "arrays across": ((2, 2), [("c/0/0", (np.array([[0, 1]]), np.array([[2], [3]])), (slice(0, 2),) * 2)], False),
    "lists": ((4, 10), [("c/0/0", ([0, 1], [2, 3]), ([0, 1], [0, 1]))], False),
    "points for one place": ((2,), [("c/0/0", (np.array([0, 1]), np.array([2, 3])), [0, 0])], False),
    "points beside their object": ((2,), [("c/0/0", (np.array([0, 1]), np.array([2, 5])), slice(0, 2))], False),
    "indices beside their object": ((4, 2), [("c/0/0", (slice(0, 4), np.array([1, 5])), (slice(4), slice(2)))], False),
    "another array": ((4, 10), [("c/0/0", WHOLE, LEFT), ("../b/c/0/1", WHOLE, RIGHT)], False),
    "no coordinates": ((4, 10), [("c/x/0", WHOLE, LEFT)], False),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_batches(name):
    """Whatever is handed over, it is read as zarr reads it, or both fail."""
    shape, parts, is_understood = ODD[name]
    array = stored(shape=(10, 10), chunks=(4, 5))
    stored(array.store, shape=(10, 10), chunks=(4, 5), name="b")
    if name == "places that overlap":
        array[...] = 1  # zarr says nothing of which comes last
    fast = vf.accelerate(array)._async_array
    prototype = default_buffer_prototype()

    def carried_out(pipeline):
        out = prototype.nd_buffer(np.zeros(shape, "u2"))
        batch = []
        for key, selection, to in parts:
            path = zarr.storage.StorePath(array.store, key.replace("../", "") if ".." in key else f"a/{key}")
            batch.append((path, spec_of(array, prototype), selection, to, False))
        try:
            zarr.core.sync.sync(pipeline.read(batch, out))
        except Exception as error:  # noqa: BLE001 - the same from both
            return type(error)
        return out.as_numpy_array().tolist()

    assert carried_out(fast.codec_pipeline) == carried_out(array._async_array.codec_pipeline)
    counts = report(fast)
    assert (counts.accelerated, counts.not_accelerated) == ((1, 0) if is_understood else (0, 1)), counts.reasons


def spec_of(array, prototype):
    from zarr.core.array_spec import ArraySpec

    inner = array._async_array
    kind = getattr(inner.metadata, "data_type", None) or inner.metadata.dtype
    return ArraySpec(array.chunks, kind, inner.metadata.fill_value, inner.config, prototype)


def test_what_the_engine_refuses_is_read_by_zarr(monkeypatch):
    """A codec may turn out not to be read only when its data is seen."""
    array = stored(shape=(9, 9), chunks=(4, 4))
    fast = vf.accelerate(array)

    async def refuse(self, reads):
        raise vf.UnsupportedError("a dictionary")

    monkeypatch.setattr(vf.Engine, "run", refuse)
    same(fast[...], array[...])
    assert report(fast).reasons == {"a dictionary": 1}
