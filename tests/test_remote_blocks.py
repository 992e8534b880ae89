"""Large Blosc chunks over a network: small parts of them take the blocks they lie in, not the chunk."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr
from numcodecs import Blosc, Zstd

import voxfetch as vf
from tests.servers import objects_in
from tests.servers.faulty import Fault, FaultyServer

HEAD = "bytes=0-4095"
RNG = np.random.default_rng(7)
SHAPE = (128, 256, 256)
NOISE = (RNG.normal(1000, 40, SHAPE) + np.arange(256) * 3).astype("uint16")
COMPRESSORS = {
    "lz4 shuffle": Blosc("lz4", 5, Blosc.SHUFFLE, blocksize=1 << 17),
    "zstd bitshuffle": Blosc("zstd", 3, Blosc.BITSHUFFLE),
    "blosclz": Blosc("blosclz", 9, Blosc.NOSHUFFLE),
    "zlib": Blosc("zlib", 1, Blosc.SHUFFLE, blocksize=1 << 16),
}


def written(folder, data, *, chunks=(128, 128, 128), compressor=COMPRESSORS["lz4 shuffle"], zarr_format=2, order="C"):
    if zarr_format == 2:
        kind = {"compressors": compressor, "order": order}
    else:
        kind = {"compressors": zarr.codecs.BloscCodec(typesize=2, cname="lz4", shuffle="shuffle")}
    array = zarr.create_array(
        folder, shape=data.shape, chunks=chunks, dtype=data.dtype, fill_value=3, zarr_format=zarr_format, **kind
    )
    array[...] = data
    return folder


def ranges(server):
    return [request.range for request in server.requests if request.key.removeprefix("c/")[:1].isdigit()]


@pytest.fixture
def engine():
    with vf.Engine(decode_threads=2, retry=vf.RetryPolicy(max_attempts=4, base_s=0.01, cap_s=0.05)) as engine:
        yield engine


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_random_boxes(tmp_path, engine, compressor):
    with FaultyServer(written(tmp_path / "v", NOISE, compressor=COMPRESSORS[compressor])) as server:
        array = vf.open_array(server.url, engine=engine)
        for _ in range(30):
            start = [int(RNG.integers(0, n - 40)) for n in SHAPE]
            shape = [int(RNG.integers(1, 40)) for _ in SHAPE]
            box = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
            np.testing.assert_array_equal(array[box], NOISE[box])
        np.testing.assert_array_equal(array[::50, 7, ::3], NOISE[::50, 7, ::3])
        np.testing.assert_array_equal(array[...], NOISE)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_requests_and_their_bytes(tmp_path, engine, zarr_format):
    """A beginning and a range at first, a range from then on, and no more than half of the chunk."""
    folder = written(tmp_path / "v", NOISE, zarr_format=zarr_format)
    chunk = max(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    with FaultyServer(folder) as server:
        array = vf.open_array(server.url, engine=engine)
        np.testing.assert_array_equal(array[40:60, 3:20, 5:9], NOISE[40:60, 3:20, 5:9])
        first, second = ranges(server)
        assert first == HEAD
        low, high = (int(number) for number in second.removeprefix("bytes=").split("-"))
        assert high - low < chunk // 3
        np.testing.assert_array_equal(array[100:101, :20, 5:9], NOISE[100:101, :20, 5:9])
        assert len(ranges(server)) == 3, "the table is kept"
        assert engine.stats().bytes_read < chunk // 2
        # Another chunk, of which nearly all is wanted.
        np.testing.assert_array_equal(array[1:, 128:, 1:100], NOISE[1:, 128:, 1:100])
        assert ranges(server)[3:] == [None]


def test_boxes_of_one_plan_share_their_bytes(tmp_path, engine):
    with FaultyServer(written(tmp_path / "v", NOISE)) as server:
        array = vf.open_array(server.url, engine=engine)
        starts = [(z, 8, 8) for z in range(0, 40, 4)]
        expected = np.stack([NOISE[z : z + 8, 8:16, 8:16] for z in range(0, 40, 4)])
        np.testing.assert_array_equal(array.read_many(starts, (8, 8, 8)), expected)
        assert len(ranges(server)) == 2


def test_small_chunks_and_other_codecs_are_fetched_whole(tmp_path, engine):
    for name, options in {"small": {"chunks": (64, 64, 64)}, "zstd": {"compressor": Zstd()}}.items():
        with FaultyServer(written(tmp_path / name, NOISE, **options)) as server:
            array = vf.open_array(server.url, engine=engine)
            np.testing.assert_array_equal(array[3, 4, 5], NOISE[3, 4, 5])
            assert ranges(server) == [None]


def test_fortran_order(tmp_path, engine):
    with FaultyServer(written(tmp_path / "v", NOISE, order="F")) as server:
        array = vf.open_array(server.url, engine=engine)
        np.testing.assert_array_equal(array[5:90, 7:30, 100:110], NOISE[5:90, 7:30, 100:110])
        assert ranges(server)[0] == HEAD
        assert len(ranges(server)) == 2


def test_a_chunk_shorter_than_a_beginning(tmp_path, engine):
    flat = np.full((128, 128, 128), 9, "uint16")
    with FaultyServer(written(tmp_path / "v", flat, compressor=Blosc("zstd"))) as server:
        array = vf.open_array(server.url, engine=engine)
        np.testing.assert_array_equal(array[5:9, 5:9, 5:9], flat[5:9, 5:9, 5:9])
        assert ranges(server) == [HEAD, None]


def test_a_chunk_that_is_not_stored(tmp_path, engine):
    folder = written(tmp_path / "v", NOISE)
    (folder / "0.0.0").unlink()
    with FaultyServer(folder) as server:
        array = vf.open_array(server.url, engine=engine)
        assert (array[5:9, 5:9, 5:9] == 3).all()
        assert ranges(server) == [HEAD]


def test_a_chunk_that_is_replaced_between_its_beginning_and_its_blocks(tmp_path, engine):
    objects = objects_in(written(tmp_path / "v", NOISE))
    other = objects_in(written(tmp_path / "w", NOISE[::-1].copy()))["0.0.0"]
    with FaultyServer(objects) as server:
        array = vf.open_array(server.url, engine=engine)

        def replace(request):
            if request.key == "0.0.0" and request.range != HEAD:
                server.rule = lambda _: None
                server._objects["0.0.0"] = other
                server._versions["0.0.0"] = 1

        server.rule = replace
        np.testing.assert_array_equal(array[5:9, 5:9, 5:9], NOISE[::-1][5:9, 5:9, 5:9])
        assert len(ranges(server)) == 4


@pytest.mark.parametrize("at", [0, 4, 8, 12, 16])
def test_damage_is_an_error_or_has_no_part_in_it(tmp_path, engine, at):
    objects = objects_in(written(tmp_path / "v", NOISE))
    broken = bytearray(objects["0.0.0"])
    broken[at : at + 64] = bytes(255 - byte for byte in broken[at : at + 64])
    objects["0.0.0"] = bytes(broken)
    with FaultyServer(objects) as server:
        array = vf.open_array(server.url, engine=engine)
        for z in range(0, 128, 8):
            try:
                got = array[z : z + 2, :4, :4]
            except vf.VoxfetchError as error:
                assert error.chunk == (0, 0, 0)
                assert "0.0.0" in (error.key or "")
            else:
                np.testing.assert_array_equal(got, NOISE[z : z + 2, :4, :4])
        with pytest.raises(vf.VoxfetchError):
            array[:128, :128, :128]


def test_what_is_asked_of_a_server_that_ignores_ranges(tmp_path, engine):
    with FaultyServer(written(tmp_path / "v", NOISE)) as server:
        server.rule = lambda _: Fault(ignore_range=True)
        array = vf.open_array(server.url, engine=engine)
        np.testing.assert_array_equal(array[5:9, 5:9, 5:9], NOISE[5:9, 5:9, 5:9])


def test_verify_decodes_all_of_it(tmp_path, engine):
    objects = objects_in(written(tmp_path / "v", NOISE))
    broken = bytearray(objects["0.1.1"])
    broken[-40:] = bytes(40)
    objects["0.1.1"] = bytes(broken)
    with FaultyServer(objects) as server:
        array = vf.open_array(server.url, engine=engine)
        assert (array[3, 130, 130:133] == NOISE[3, 130, 130:133]).all(), "far from the damage"
        report = array.verify()
        assert (report.chunks, report.problem_count) == (4, 1)


def test_the_layout_is_what_the_document_says(tmp_path, engine):
    """A document that says less than the chunk holds."""
    objects = objects_in(written(tmp_path / "v", NOISE))
    document = json.loads(objects[".zarray"])
    objects[".zarray"] = json.dumps(document | {"chunks": [128, 128, 127]}).encode()
    with FaultyServer(objects) as server:
        array = vf.open_array(server.url, engine=engine)
        with pytest.raises(vf.CodecError):
            array[5:9, 5:9, 5:9]


# ---------------------------------------------------------------------------- what cannot be had in blocks is had whole


@pytest.mark.filterwarnings("ignore:Combining")
def test_a_shard_with_a_codec_around_it_is_no_chunk(tmp_path, engine):
    """Its beginning looks like that of its first chunk."""
    blosc = zarr.codecs.BloscCodec(typesize=2, cname="lz4", shuffle="shuffle")
    shard = zarr.codecs.ShardingCodec(chunk_shape=(128, 128, 128), codecs=[zarr.codecs.BytesCodec(), blosc])
    array = zarr.create_array(
        tmp_path / "v", shape=(256, 128, 128), chunks=(256, 128, 128), dtype="uint16", serializer=shard,
        compressors=[zarr.codecs.Crc32cCodec()], fill_value=3,
    )  # fmt: skip
    data = np.concatenate([NOISE[:, :128, :128], NOISE[:, 128:, 128:]])
    array[...] = data
    with FaultyServer(tmp_path / "v") as server:
        server.rule = lambda request: Fault(no_total=True) if request.range else None
        opened = vf.open_array(server.url, engine=engine)
        np.testing.assert_array_equal(opened[168:170, :9, :9], data[168:170, :9, :9])
        assert ranges(server) == [None]


@pytest.mark.parametrize("etags", ["weak", None])
def test_without_a_version_a_table_counts_for_nothing(tmp_path, engine, etags):
    objects = objects_in(written(tmp_path / "v", NOISE))
    other = objects_in(written(tmp_path / "w", NOISE[::-1].copy(), compressor=Blosc("lz4", 0)))
    with FaultyServer(objects, etags=etags, modified=False) as server:
        server.rule = lambda request: Fault(no_total=True) if request.range else None
        array = vf.open_array(server.url, engine=engine)
        np.testing.assert_array_equal(array[5:9, 5:9, 5:9], NOISE[5:9, 5:9, 5:9])
        assert ranges(server) == [HEAD, None]
        server.put("0.0.0", other["0.0.0"])
        np.testing.assert_array_equal(array[5:9, 5:9, 5:9], NOISE[::-1][5:9, 5:9, 5:9])
        assert ranges(server) == [HEAD, None, None], "which is remembered"


@pytest.mark.parametrize(
    "fault",
    [
        Fault(ignore_range=True, framing="chunked"),
        Fault(ignore_range=True, framing="close"),
        Fault(headers={"Content-Encoding": "br"}),
    ],
    ids=["chunked", "close", "compressed"],
)
def test_a_server_that_gives_no_parts(tmp_path, engine, fault):
    with FaultyServer(written(tmp_path / "v", NOISE)) as server:
        array = vf.open_array(server.url, engine=engine)
        server.rule = lambda request: fault if request.range else None
        np.testing.assert_array_equal(array[5:9, 5:9, 5:9], NOISE[5:9, 5:9, 5:9])
        asked = len(ranges(server))
        np.testing.assert_array_equal(array[9:12, 5:9, 5:9], NOISE[9:12, 5:9, 5:9])
        assert ranges(server)[asked:] == [None], "known from then on"


def test_a_short_chunk_of_unknown_size(tmp_path, engine):
    flat = np.full((128, 128, 128), 9, "uint16")
    with FaultyServer(written(tmp_path / "v", flat, compressor=Blosc("zstd"))) as server:
        server.rule = lambda request: Fault(no_total=True) if request.range else None
        array = vf.open_array(server.url, engine=engine)
        for _ in range(3):
            np.testing.assert_array_equal(array[5:9, 5:9, 5:9], flat[5:9, 5:9, 5:9])
        assert ranges(server) == [HEAD, None, None, None]


def test_an_array_that_is_made_again_with_larger_chunks(tmp_path, engine):
    objects = objects_in(written(tmp_path / "v", NOISE))
    large = np.concatenate([NOISE, NOISE[::-1]])
    again = objects_in(written(tmp_path / "w", large, chunks=(256, 128, 128)))
    with FaultyServer(objects) as server:
        array = vf.open_array(server.url, engine=engine)
        np.testing.assert_array_equal(array[5:9, 5:9, 5:9], NOISE[5:9, 5:9, 5:9])
        for key, value in again.items():
            server.put(key, value)
        array = vf.open_array(server.url, engine=engine)
        np.testing.assert_array_equal(array[200:205, 5:9, 5:9], large[200:205, 5:9, 5:9])


def test_a_table_with_a_bad_entry_is_left_to_the_decoder(tmp_path, engine):
    objects = objects_in(written(tmp_path / "v", NOISE))
    good = objects["0.0.0"]
    objects["0.0.0"] = good[:16] + bytes(4) + good[20:]
    with FaultyServer(objects) as server:
        array = vf.open_array(server.url, engine=engine)
        with pytest.raises(vf.CodecError):
            array[0, 5:9, 5:9]
        np.testing.assert_array_equal(array[100:102, 5:9, 5:9], NOISE[100:102, 5:9, 5:9])
        server.put("0.0.0", good)
        np.testing.assert_array_equal(array[0, 5:9, 5:9], NOISE[0, 5:9, 5:9])


def test_a_chunk_larger_than_it_can_be_is_not_fetched(tmp_path, engine):
    objects = objects_in(written(tmp_path / "v", NOISE))
    nbytes = 64 << 20
    chunk = bytearray(objects["0.0.0"]) + bytes(nbytes - len(objects["0.0.0"]))
    chunk[12:16] = nbytes.to_bytes(4, "little")
    objects["0.0.0"] = bytes(chunk)
    with FaultyServer(objects) as server:
        array = vf.open_array(server.url, engine=engine)
        with pytest.raises(vf.LimitExceededError):
            array[5:9, 5:9, 5:9]
        assert engine.stats().bytes_read < 1 << 20


def test_explain_is_an_upper_bound(tmp_path, engine):
    with FaultyServer(written(tmp_path / "v", NOISE)) as server:
        array = vf.open_array(server.url, engine=engine)
        box = np.s_[5:9, 5:9, 5:9]
        report = array.explain(box)
        assert (report.requests, report.round_trips, report.exact) == (2, 2, False)
        before = engine.stats()
        array[box]
        after = engine.stats()
        assert after.requests - before.requests == 2
        assert after.bytes_read - before.bytes_read <= report.bytes_fetched
        report = array.explain(box)
        assert (report.requests, report.round_trips, report.exact) == (1, 1, True)
        array[box]
        assert engine.stats().bytes_read - after.bytes_read == report.bytes_fetched
