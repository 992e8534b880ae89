"""Damaged data, bombs, and files that are none: a typed error that says what and where, or the right voxels.

In bounded time and memory; never a panic, an abort, a hang, or the fill value for data that exists.
"""

from __future__ import annotations

import bz2
import gzip
import json
import os
import shutil
import struct
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import tensorstore

import voxfetch as vf

sys.path.insert(0, str(Path(__file__).parent))
import mutants
from mutants import BYTES, CRC32C, MISSING, codec, document_v3, put_chunk, put_document, refused, sharding

MIB = 1 << 20
ZSTD = codec("zstd", level=1, checksum=False)
ZSTD_CHECKED = codec("zstd", level=1, checksum=True)


LIMIT = vf.LimitExceededError


def _grid(*chunk: Any) -> dict[str, Any]:
    return {"name": "regular", "configuration": {"chunk_shape": list(chunk)}}


# --- damaged chunks and shards

CHAINS: dict[str, tuple[list[Any], Any]] = {
    "raw": ([BYTES], bytes),
    "raw, crc32c": ([BYTES, CRC32C], lambda b: b + mutants.crc32c(b)),
    "zstd": ([BYTES, ZSTD], numcodecs.Zstd(level=1).encode),
    "zstd with checksum": ([BYTES, ZSTD_CHECKED], numcodecs.Zstd(level=1, checksum=True).encode),
    "zstd, crc32c": ([BYTES, ZSTD, CRC32C], lambda b: (z := numcodecs.Zstd(level=1).encode(b)) + mutants.crc32c(z)),
    "gzip": ([BYTES, codec("gzip", level=1)], lambda b: gzip.compress(b, 1, mtime=0)),
    "blosc": (
        [BYTES, codec("blosc", cname="lz4", clevel=5, shuffle="shuffle", typesize=2, blocksize=0)],
        numcodecs.Blosc("lz4", 5, 1).encode,
    ),
    "blosc, crc32c": (
        [BYTES, codec("blosc", cname="zstd", clevel=5, shuffle="bitshuffle", typesize=2, blocksize=0), CRC32C],
        lambda b: (z := bytes(numcodecs.Blosc("zstd", 5, 2).encode(b))) + mutants.crc32c(z),
    ),
}
CHECKED = {"raw, crc32c", "zstd with checksum", "zstd, crc32c", "gzip", "blosc, crc32c"}


def _voxels() -> np.ndarray:
    # Something for the compressors to do: half of the rows are the same one again.
    voxels = mutants.ramp((16, 16))
    voxels[::2] = voxels[0]
    return voxels


def _sharded(root: Path, chain: str, location: str) -> tuple[Path, np.ndarray]:
    """One shard of four chunks; returns its path and the voxels."""
    codecs, encode = CHAINS[chain]
    codecs = [sharding([8, 8], codecs, index_location=location)]
    put_document(root, document_v3(shape=[16, 16], chunk_grid=_grid(16, 16), codecs=codecs, fill_value=9))
    voxels = _voxels()
    chunks = [bytes(encode(block)) for block in mutants.blocks(voxels, (8, 8))]
    return put_chunk(root, "c/0/0", mutants.shard_of(chunks, start=location == "start")), voxels


DAMAGED = (vf.ShardIndexError, vf.ChecksumError, vf.CodecError)


@pytest.mark.parametrize("location", ["end", "start"])
@pytest.mark.parametrize("chain", ["raw", "zstd", "zstd, crc32c", "blosc"])
def test_a_shard_of_any_length(tmp_path, chain, location):
    path, voxels = _sharded(tmp_path, chain, location)
    array = vf.open_array(tmp_path)
    np.testing.assert_array_equal(array[...], voxels)
    whole = path.read_bytes()
    for nbytes in range(len(whole)):
        path.write_bytes(whole[:nbytes])
        refused(lambda: array[...], DAMAGED, "c/0/0")
        if location == "end" or nbytes % 7 == 0:
            try:
                corner = array[:4, :4]
            except vf.DataError as error:
                assert isinstance(error, DAMAGED)
            else:
                assert location == "start"
                np.testing.assert_array_equal(corner, voxels[:4, :4])
    for more in (1, 16, 64):
        path.write_bytes(whole + b"\0" * more)
        if location == "start":
            np.testing.assert_array_equal(array[...], voxels)
        else:
            refused(lambda: array[...], DAMAGED, "c/0/0")


@pytest.mark.parametrize("chain", CHAINS)
def test_a_chunk_of_any_length(tmp_path, chain):
    codecs, encode = CHAINS[chain]
    put_document(tmp_path, document_v3(shape=[16, 16], chunk_grid=_grid(16, 16), codecs=codecs))
    voxels = _voxels()
    whole = bytes(encode(np.ascontiguousarray(voxels).tobytes()))
    path = put_chunk(tmp_path, "c/0/0", whole)
    array = vf.open_array(tmp_path)
    np.testing.assert_array_equal(array[...], voxels)
    for nbytes in range(len(whole)):
        path.write_bytes(whole[:nbytes])
        error = refused(lambda: array[...], DAMAGED, "c/0/0")
        assert error.chunk == (0, 0)


@pytest.mark.parametrize("chain", CHAINS)
def test_one_bit_of_every_byte(tmp_path, chain, record_property):
    path, voxels = _sharded(tmp_path, chain, "end")
    array = vf.open_array(tmp_path)
    whole = path.read_bytes()
    silent: list[bytes] = []
    benign = 0
    for _, mutant in mutants.flips(whole):
        path.write_bytes(mutant)
        try:
            got = array[...]
        except vf.DataError as error:
            assert isinstance(error, DAMAGED), error
            assert "c/0/0" in str(error)
            continue
        if np.array_equal(got, voxels):
            benign += 1
        else:
            silent.append(mutant)
    record_property("silent", len(silent))
    record_property("benign", benign)
    if chain in CHECKED:
        assert not silent, f"{len(silent)} of {len(whole)} silently wrong"
        return
    # Without a checksum nothing can be noticed that the codec itself does not: no more gets through than elsewhere.
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(tmp_path)}}
    theirs = tensorstore.open(spec, recheck_cached_data=True, recheck_cached_metadata=False).result()
    only_ours = 0
    for mutant in silent:
        path.write_bytes(mutant)
        # The time of a file has a granularity, by which tensorstore would not see the change.
        os.utime(path, ns=(only_ours, hash(mutant) & (2**60 - 1)))
        try:
            theirs.read().result()
        except ValueError:
            only_ours += 1
    assert only_ours <= len(whole) // 100, f"{only_ours} of {len(silent)} pass here and not in tensorstore"


def test_arrays_made_here_notice_every_flip(tmp_path):
    array = vf.create(tmp_path, shape=(16, 16), dtype="u2", chunks=(8, 8), shards=(16, 16))
    array[...] = _voxels()
    path = tmp_path / "c/0/0"
    for at, mutant in mutants.flips(path.read_bytes()):
        path.write_bytes(mutant)
        refused(lambda: array[...], DAMAGED, "c/0/0")
        if at % 50 == 0:
            assert array.verify().problem_count >= 1
    cheap = array.with_options(vf.ReadOptions(verify="cheap"))
    path.write_bytes(b"\xff" * len(mutant))
    refused(lambda: cheap[...], DAMAGED, "c/0/0")


# (offset, size) of the first of four entries; the object has 4 * 32 bytes of data and then the index.
ENTRIES = {
    "past the end": (10_000, 32),
    "over the end": (128 + 60, 32),
    "at the end": (128 + 68, 1),
    "wraps": (MISSING - 1, 32),
    "wraps to zero": (2**64 - 32, 32),
    "wraps inside": (2**64 - 16, 32),
    "largest size": (1, MISSING - 1),
    "half missing offset": (MISSING, 32),
    "half missing size": (0, MISSING),
    "half missing and empty": (MISSING, 0),
    "empty": (0, 0),
    "empty at the end": (196, 0),
    "into the index": (112, 32),
    "the index": (128, 68),
    "2^63": (2**63, 2**63),
    "huge": (0, 2**40),
}


@pytest.mark.parametrize("what", ENTRIES)
@pytest.mark.parametrize("others", ["stored", "missing"])
def test_index_entries(tmp_path, what, others):
    put_document(tmp_path, document_v3(chunk_grid=_grid(8, 8), codecs=[sharding([4, 4], [BYTES])], fill_value=9))
    voxels = mutants.ramp()
    stored = [(32 * number, 32) if others == "stored" else (MISSING, MISSING) for number in range(4)]
    data = b"".join(mutants.blocks(voxels, (4, 4)))
    put_chunk(tmp_path, "c/0/0", data + mutants.encode_index([*stored[:1], ENTRIES[what], *stored[2:]]))
    array = vf.open_array(tmp_path)
    error = refused(lambda: array[...], vf.ShardIndexError, "c/0/0")
    assert error.chunk == (0, 1)
    refused(lambda: array[0, 7], vf.ShardIndexError, "c/0/0")
    refused(array.explain, vf.ShardIndexError, "c/0/0")
    # One bad entry does not hide the others.
    expected = voxels[4:] if others == "stored" else np.full((4, 8), 9, "u2")
    np.testing.assert_array_equal(array[4:], expected)
    report = array.verify()
    assert report.problem_count == 1
    assert isinstance(report.problems[0], vf.ShardIndexError)


def test_entries_that_overlap_are_read_and_reported(tmp_path):
    put_document(tmp_path, document_v3(chunk_grid=_grid(8, 8), codecs=[sharding([4, 4], [BYTES])]))
    data = b"".join(mutants.blocks(mutants.ramp(), (4, 4)))
    put_chunk(tmp_path, "c/0/0", data + mutants.encode_index([(0, 32)] * 4))
    array = vf.open_array(tmp_path)
    np.testing.assert_array_equal(array[4:, 4:], array[:4, :4])
    assert array.verify().problem_count == 3


@pytest.mark.parametrize("location", ["start", "end"])
def test_checksum_of_an_index(tmp_path, location):
    path, _ = _sharded(tmp_path, "raw", location)
    whole = bytearray(path.read_bytes())
    whole[-1 if location == "end" else 67] ^= 1
    path.write_bytes(whole)
    refused(lambda: vf.open_array(tmp_path)[...], vf.ChecksumError, "c/0/0", "crc32c")


# --- encoded bytes that grow


def _zstd_of_zeros(nbytes: int) -> bytes:
    """One zstd frame without its size: blocks of 128 KiB zeros, 4 bytes each."""
    blocks = nbytes >> 17
    headers = (struct.pack("<I", (block == blocks - 1) | 1 << 1 | 1 << 20)[:3] + b"\0" for block in range(blocks))
    return b"\x28\xb5\x2f\xfd\x00\x50" + b"".join(headers)


def _blosc(nbytes: int, content: bytes) -> bytes:
    """A Blosc chunk of one zstd block that says it holds `nbytes` bytes."""
    block = struct.pack("<II", 20, len(content)) + content
    return struct.pack("<BBBBIII", 2, 1, 0x90, 1, nbytes, nbytes, 16 + len(block)) + block


GIBIBYTE = _zstd_of_zeros(1 << 30)
V3_ONLY = "numcodecs."


def _bombs() -> dict[str, tuple[Any, bytes]]:
    blosc = codec("blosc", cname="zstd", clevel=1, shuffle="noshuffle", typesize=1, blocksize=0)
    gz = codec("gzip", level=1)
    zeros = bytes(16 * MIB)
    members = gzip.compress(zeros, 9, mtime=0) * 3
    streams = bz2.compress(zeros) * 64
    lz4 = codec("numcodecs.lz4", acceleration=1)
    match = b"\x1f\x01\0" + b"\xff" * 60_000  # one literal, then as many bytes again as the length can say
    return {
        "zstd": (ZSTD, GIBIBYTE),
        "zstd, 8 frames": (ZSTD, _zstd_of_zeros(1 << 27) * 8),
        "zstd that says its size": (ZSTD, bytes(numcodecs.Zstd(1).encode(zeros)) * 10),
        "gzip": (gz, members),
        "zlib": (codec("numcodecs.zlib", level=1), zlib.compress(bytes(48 * MIB), 9)),
        "bz2": (codec("numcodecs.bz2", level=9), streams),
        "lz4": (lz4, b"\xff\xff\xff\x7f" + match),
        "lz4 that says 512": (lz4, b"\x00\x02\0\0" + match),
        "blosc that says 2 GiB": (blosc, _blosc(2**31 - 17, GIBIBYTE)),
        "blosc that says 512": (blosc, _blosc(512, GIBIBYTE)),
        "crc32c around": ([ZSTD, CRC32C], GIBIBYTE + mutants.crc32c(GIBIBYTE)),
        "gzip around": ([ZSTD, gz], gzip.compress(GIBIBYTE, 9, mtime=0)),
    }


def _around(bomb: bytes, codecs: list[Any]) -> dict[str, tuple[dict[str, Any], bytes]]:
    """The bomb as a part of a shard, as a chunk on its own, and as a whole shard."""
    whole = {"shape": [16, 16], "chunk_grid": _grid(16, 16)}
    return {
        "part": (
            document_v3(**whole, codecs=[sharding([8, 8], [BYTES, *codecs])]),
            mutants.shard_of([bomb, None, None, None]),
        ),
        "chunk": (document_v3(**whole, codecs=[BYTES, *codecs]), bomb),
        "shard": (document_v3(**whole, codecs=[sharding([8, 8], [BYTES]), *codecs]), bomb),
    }


def test_bombs(tmp_path):
    for what, (codecs, bomb) in _bombs().items():
        assert len(bomb) < 70_000
        for where, (document, content) in _around(bomb, codecs if isinstance(codecs, list) else [codecs]).items():
            put_chunk(put_document(tmp_path / f"{what} as {where}", document), "c/0/0", content)
    # One process for all: what one of them takes stays in the peak.
    code = """
def each():
    from pathlib import Path
    ended = {}
    for folder in sorted(Path(path).iterdir()):
        a, started = vf.open(folder), time.perf_counter()
        try:
            ended[folder.name] = ("ok", str(a[:8, :8]), 0, 0)
        except vf.VoxfetchError as error:
            seconds = time.perf_counter() - started
            ended[folder.name] = (type(error).__name__, str(error), seconds, resident() - before)
    raise vf.VoxfetchError(json.dumps(ended))
before = resident()
grown(each)
"""
    ended = mutants.in_child(code, tmp_path)
    each = json.loads(ended.text)
    assert len(each) == 36
    for what, (kind, text, seconds, grown_nbytes) in each.items():
        assert kind == "CodecError", (what, kind, text)
        assert f"{what}/c/0/0" in text
        assert seconds < 5, what
        # Contexts of the codecs and the threads; the bombs are from 48 MiB to 1 GiB.
        assert grown_nbytes < 32 * MIB, f"{grown_nbytes >> 20} MiB up to {what}"


def test_entries_of_a_sparse_file_are_not_read(tmp_path):
    put_document(tmp_path, document_v3(chunk_grid=_grid(8, 8), codecs=[sharding([4, 4], [BYTES, ZSTD])]))
    entries = [(0, 16 << 30), (1, 8 << 30), (MISSING, MISSING), (0, 100)]
    path = put_chunk(tmp_path, "c/0/0", b"")
    with path.open("r+b") as file:
        file.seek(1 << 40)
        file.write(mutants.encode_index(entries))
    ended = mutants.in_child("a = vf.open(path)\ngrown(lambda: a[...])", tmp_path)
    assert (ended.kind, ended.seconds < 5, ended.grown_nbytes < 24 * MIB) == ("ShardIndexError", True, True), ended


@pytest.mark.parametrize("codecs", [[BYTES], [BYTES, ZSTD], [sharding([4, 4], [BYTES]), ZSTD]], ids=str)
def test_objects_far_too_large_are_not_read(tmp_path, codecs):
    put_document(tmp_path, document_v3(chunk_grid=_grid(8, 8), codecs=codecs))
    path = put_chunk(tmp_path, "c/0/0", b"")
    os.truncate(path, 2 << 30)
    ended = mutants.in_child("a = vf.open(path)\ngrown(lambda: a[...])", tmp_path)
    assert (ended.kind, ended.seconds < 5, ended.grown_nbytes < 24 * MIB) == ("CodecError", True, True), ended


def test_memory_that_cannot_be_had(tmp_path):
    # Chunks of 1 GiB in a process that may not have as much: refused, alive, and able to go on.
    extent = 1 << 14
    codecs = [BYTES, ZSTD]
    put_document(
        tmp_path, document_v3(shape=[extent] * 2, data_type="uint32", chunk_grid=_grid(extent, extent), codecs=codecs)
    )
    put_chunk(tmp_path, "c/0/0", GIBIBYTE)
    code = """
a = vf.open(path)
vf.default_engine().stats()
with open("/proc/self/status") as status:
    now = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (now + (600 << 20),) * 2)
def twice():
    for _ in range(2):
        try:
            a[:2, :2]
        except vf.LimitExceededError as error:
            caught = error
    raise caught
grown(twice)
"""
    ended = mutants.in_child(code, tmp_path)
    assert ended.kind == "LimitExceededError", ended
    assert "c/0/0" in ended.text


# --- huge arrays of next to nothing


def test_a_huge_array_costs_nothing(tmp_path):
    extent = 1 << 60
    put_document(tmp_path, document_v3(shape=[extent], data_type="uint8", chunk_grid=_grid(1), codecs=["bytes"]))
    array = vf.open_array(tmp_path)
    assert array[extent - 5 : extent : 2].tolist() == [0, 0, 0]
    refused(lambda: array[...], LIMIT)
    refused(lambda: array[::2], LIMIT)
    refused(lambda: np.asarray(array), LIMIT)


@pytest.mark.parametrize("method", ["explain", "verify"])
def test_endless_work_can_be_interrupted(tmp_path, method):
    extent = 1 << 60
    put_document(tmp_path, document_v3(shape=[extent], data_type="uint8", chunk_grid=_grid(1), codecs=["bytes"]))
    code = f"""
import signal
def stop(*_):
    raise vf.ReadOnlyError("stopped")
signal.signal(signal.SIGALRM, stop)
signal.setitimer(signal.ITIMER_REAL, 0.3)
a = vf.open(path)
grown(lambda: a.{method}({"np.s_[::2]" if method == "explain" else ""}))
"""
    ended = mutants.in_child(code, tmp_path, timeout=20)
    assert ended.kind == "ReadOnlyError"
    assert ended.seconds < 5
    assert ended.grown_nbytes < 50 * MIB


@pytest.mark.parametrize("method", ["explain", "verify"])
def test_a_shard_of_a_trillion_chunks_is_refused(tmp_path, method):
    inner = sharding([1], ["bytes"])
    codecs = [sharding([1 << 20], [inner])]
    put_document(tmp_path, document_v3(shape=[1 << 40], data_type="uint8", chunk_grid=_grid(1 << 40), codecs=codecs))
    ended = mutants.in_child(f"a = vf.open(path)\ngrown(lambda: a.{method}())", tmp_path)
    if method == "explain":
        assert ended.kind == "LimitExceededError", ended
    else:
        assert "problem" in ended.text, ended
    assert ended.grown_nbytes < 50 * MIB


# --- files


@pytest.fixture(params=["shard", "chunk"])
def stored(request, tmp_path):
    """(folder, path of its one object, voxels)."""
    voxels = mutants.ramp()
    codecs = [sharding([4, 4], [BYTES])] if request.param == "shard" else [BYTES]
    put_document(tmp_path, document_v3(chunk_grid=_grid(8, 8), codecs=codecs, fill_value=9))
    chunks = mutants.blocks(voxels, (4, 4))
    content = mutants.shard_of(chunks) if request.param == "shard" else voxels.tobytes()
    path = put_chunk(tmp_path, "c/0/0", content)
    np.testing.assert_array_equal(vf.open_array(tmp_path)[...], voxels)
    return tmp_path, path, voxels


def test_an_object_without_bytes_is_not_a_missing_one(stored):
    root, path, _ = stored
    path.write_bytes(b"")
    refused(lambda: vf.open_array(root)[...], DAMAGED, "c/0/0")
    path.unlink()
    assert (vf.open_array(root)[...] == 9).all()


def test_a_folder_instead_of_an_object(stored):
    root, path, _ = stored
    path.unlink()
    path.mkdir()
    refused(lambda: vf.open_array(root)[...], vf.StoreError, "c/0/0")


def test_a_pipe_instead_of_an_object(stored):
    root, path, _ = stored
    path.unlink()
    os.mkfifo(path)
    refused(lambda: vf.open_array(root)[...], vf.StoreError, "c/0/0")
    refused(lambda: vf.open_array(root).explain(), vf.StoreError, "c/0/0")
    assert vf.open_array(root).verify().problem_count == 1


def test_a_device_instead_of_an_object(stored):
    root, path, _ = stored
    path.unlink()
    path.symlink_to("/dev/zero")
    refused(lambda: vf.open_array(root)[...], vf.StoreError, "c/0/0")


def test_a_link_to_nowhere_is_not_the_fill_value(stored):
    root, path, _ = stored
    path.unlink()
    path.symlink_to(root / "nowhere")
    refused(lambda: vf.open_array(root)[...], (vf.NotFoundError, vf.StoreError), "c/0/0")
    path.unlink()
    path.symlink_to(path)
    refused(lambda: vf.open_array(root)[...], vf.StoreError, "c/0/0")


def test_a_folder_that_went_away_is_not_the_fill_value(stored):
    root, _, voxels = stored
    array = vf.open_array(root)
    moved = root.with_name("moved")
    root.rename(moved)
    refused(lambda: array[...], vf.NotFoundError, "zarr.json")
    refused(array.explain, vf.NotFoundError, "zarr.json")
    moved.rename(root)
    np.testing.assert_array_equal(array[...], voxels)


@pytest.mark.parametrize("name", ["zarr.json", ".zarray", ".zattrs"])
def test_a_document_that_is_no_file(tmp_path, name):
    root = tmp_path / "a"
    root.mkdir()
    os.mkfifo(root / name)
    refused(lambda: vf.open(root), vf.NotFoundError, str(root))
    (root / name).unlink()
    (root / name).mkdir()
    refused(lambda: vf.open(root), vf.NotFoundError, str(root))
    (root / name).rmdir()
    (root / name).symlink_to(root / name)
    if name != ".zattrs":
        refused(lambda: vf.open(root), vf.StoreError, name)


@pytest.mark.parametrize("what", ["c/0/0", "c/0", "zarr.json", "."])
def test_no_permission(stored, what):
    # A folder that others may enter; pytest's own is for one user.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root = Path(shutil.copytree(stored[0], Path(folder) / "array"))
        target = root / what
        mode = target.stat().st_mode
        target.chmod(0)
        # Root may read everything: the child becomes somebody else once all it needs is imported.
        code = """
import os
try:
    vf.open(path)[...]
except vf.PermissionDeniedError:
    pass
if os.geteuid() == 0:
    os.setgroups([])
    os.setuid(65534)
grown(lambda: vf.open(path)[...])
"""
        try:
            ended = mutants.in_child(code, root)
        finally:
            target.chmod(mode)
    assert ended.kind == "PermissionDeniedError", ended
    assert str(root) in ended.text


def test_few_file_descriptors(tmp_path):
    array = vf.create(tmp_path, shape=(64, 64), dtype="u1", chunks=(2, 2), shards=(4, 4))
    array[...] = np.arange(4096).reshape(64, 64) % 251
    code = """
a = vf.open(path)
vf.default_engine().stats()
resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
def some():
    for _ in range(3):
        assert a[...].sum() == (np.arange(4096) % 251).sum()
    return a[:2]
grown(some)
"""
    ended = mutants.in_child(code, tmp_path)
    assert ended.kind == "ok", ended


def test_errors_of_many_chunks_are_one_and_in_order(tmp_path):
    array = vf.create(tmp_path, shape=(16, 16), dtype="u1", chunks=(4, 4), shards=False)
    array[...] = np.arange(1, 257).reshape(16, 16) % 255 + 1
    for path in sorted((tmp_path / "c").rglob("*")):
        if path.is_file() and path != tmp_path / "c/0/0":
            path.write_bytes(path.read_bytes()[:-1])
    for _ in range(20):
        error = refused(lambda: array[...], DAMAGED, "c/0/1")
        assert error.chunk == (0, 1)
    report = array.verify()
    assert report.problem_count == 15
    assert [problem.chunk for problem in report.problems] == sorted(problem.chunk for problem in report.problems)
