"""Arrays that voxfetch writes: what others read, what lies on disk, and what is left when a write is refused, fails or
is killed. A stored object is the old one or the new one, never a part of either."""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import voxfetch as vf

TEMPORARY = re.compile(r"\..+\.tmp")


def files(root: Path, *, leftovers: bool = False) -> dict[str, tuple[bytes, int, int]]:
    """Relative path -> (bytes, time of the last change, inode) of all files, or of the temporary ones."""
    found = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        if bool(TEMPORARY.fullmatch(path.name)) == leftovers:
            status = path.stat()
            found[str(path.relative_to(root))] = (path.read_bytes(), status.st_mtime_ns, status.st_ino)
    return found


def index_of(shard: bytes, grid: tuple[int, ...]) -> np.ndarray:
    """(offset, nbytes) of each chunk: the default layout, an index at the end with a checksum."""
    entries = math.prod(grid)
    return np.frombuffer(shard[-16 * entries - 4 : -4], "<u8").reshape(*grid, 2)


# ---------------------------------------------------------------------------------------------------- read by others

ZARRS = """
import sys, warnings
import numpy as np, zarr
warnings.simplefilter("error")
zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "codec_pipeline.strict": True})
for line in sys.stdin:
    array = zarr.open_array(line.strip(), mode="r")
    assert "Zarrs" in type(array.async_array.codec_pipeline).__name__
    np.save(line.strip() + "/read.npy", np.asarray(array[...]))
    print("read", flush=True)
"""


@pytest.fixture(scope="module")
def read_by_zarrs():
    """`read_by_zarrs(path)` -> voxels. In a process of its own: its pipeline is a setting of the whole process."""
    command = [sys.executable, "-c", ZARRS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def read(path: Path) -> np.ndarray:
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "read\n"
            return np.load(path / "read.npy")

        yield read


def read_by_tensorstore(path: Path) -> np.ndarray:
    return tensorstore.open({"driver": "zarr3", "kvstore": f"file://{path}/"}, open=True).result().read().result()


LITTLE, BIG = ({"name": "bytes", "configuration": {"endian": endian}} for endian in ("little", "big"))
CRC32C = {"name": "crc32c"}
CHAINS = [
    "auto",
    [LITTLE],
    [BIG, CRC32C],
    [LITTLE, {"name": "gzip", "configuration": {"level": 6}}],
    [LITTLE, {"name": "zstd", "configuration": {"level": 1, "checksum": True}}, CRC32C],
]


@st.composite
def creations(draw):
    """Keywords of `vf.create`, and the extents of a stored object."""
    ndim = draw(st.integers(1, 4))
    most = (300, 20, 8, 5)[ndim - 1]
    chunks = tuple(draw(st.integers(1, most)) for _ in range(ndim))
    stored = tuple(chunk * draw(st.integers(1, 3)) for chunk in chunks) if draw(st.booleans()) else None
    shape = tuple(draw(st.integers(1, 3 * extent)) for extent in stored or chunks)
    dtype = np.dtype(draw(st.sampled_from(["?", "i1", "u2", "i4", "u8", "f2", "f4", "f8", "c8", "c16"])))
    codecs = draw(st.sampled_from(CHAINS))
    if codecs != "auto" and draw(st.booleans()):
        turn = {"name": "transpose", "configuration": {"order": draw(st.permutations(range(ndim)))}}
        codecs = [turn, *codecs]
    fill = draw(st.sampled_from([0, 1] if dtype.kind in "biu" else [0, -0.0, 2.5, float("nan"), float("-inf")]))
    keywords = {"chunks": chunks, "shards": stored or False, "codecs": codecs, "fill_value": fill}
    return {"shape": shape, "dtype": dtype, **keywords}, stored or chunks


def assert_same_bits(got: np.ndarray, expected: np.ndarray) -> None:
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(got, expected)
    if expected.dtype.kind in "fc":
        for one, other in ((got.real, expected.real), (got.imag, expected.imag)):
            np.testing.assert_array_equal(np.signbit(one[one == 0]), np.signbit(other[other == 0]))


@st.composite
def boxes(draw, shape, stored):
    """Half-open ranges, often along the stored objects."""
    ranges = []
    for extent, one in zip(shape, stored, strict=True):
        step = one if draw(st.integers(0, 7)) else 1
        start = draw(st.integers(0, (extent - 1) // step)) * step
        ranges.append((start, min(start + step * draw(st.integers(1, 3 if step > 1 else extent)), extent)))
    return ranges


def voxels_to_write(draw, dtype, fill, extents):
    """Random bits, with and without repetition, or less: in various memory orders, or to be broadcast."""
    kind = draw(st.sampled_from(["C", "F", "reversed", "fill", "one"]))
    if kind == "fill":
        return fill
    if kind == "one":
        return np.ones((), dtype)
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    voxels = rng.integers(0, 2 if dtype.kind == "b" else draw(st.sampled_from([2, 100])), extents).astype(dtype)
    return {"C": voxels, "F": np.asfortranarray(voxels), "reversed": voxels[::-1]}[kind]


@pytest.mark.timeout(300)  # to shrink a failure
@settings(derandomize=True, max_examples=100)
@given(creation=creations(), data=st.data())
def test_boxes_of_whole_objects_and_others(tmp_path_factory, read_by_zarrs, creation, data):
    """Boxes of whole objects are written as into numpy; any other is refused and changes nothing."""
    keywords, stored = creation
    path = tmp_path_factory.mktemp("a") / "a"
    array = vf.create(path, **keywords)
    shape, dtype = array.shape, array.dtype
    expected = np.full(shape, array.fill_value, dtype)
    for _ in range(data.draw(st.integers(1, 5))):
        ranges = data.draw(boxes(shape, stored))
        box = tuple(slice(*one) for one in ranges)
        voxels = voxels_to_write(data.draw, dtype, array.fill_value, expected[box].shape)
        sides = zip(ranges, stored, shape, strict=True)
        if all(start % one == 0 and (end % one == 0 or end == extent) for (start, end), one, extent in sides):
            array[box] = voxels
            expected[box] = voxels
        else:
            before = files(path)
            with pytest.raises(vf.UnsupportedError, match="whole"):
                array[box] = voxels
            assert files(path) == before
    assert not files(path, leftovers=True)
    assert_same_bits(array[...], expected)
    assert vf.open_array(path).verify().ok
    assert_same_bits(read_by_tensorstore(path), expected)
    assert_same_bits(np.asarray(zarr.open_array(path, mode="r")[...]), expected)
    # zarrs 0.2.3 swaps real and imaginary parts of big-endian chunks that it reads in part, whoever wrote them.
    if not (dtype.kind == "c" and BIG in list(keywords["codecs"])):
        assert_same_bits(read_by_zarrs(path), expected)


# --------------------------------------------------------------------------------------------------- what lies on disk


def morton(place: tuple[int, ...], grid: tuple[int, ...]) -> int:
    """Interleaved bits, those of axis 0 lowest; an axis gives as many as its extent needs."""
    code = at = 0
    for bit in range(max(n - 1 for n in grid).bit_length()):
        for axis, n in enumerate(grid):
            if (n - 1) >> bit:
                code |= (place[axis] >> bit & 1) << at
                at += 1
    return code


@pytest.mark.parametrize("grid", [(5,), (4, 4), (3, 5), (1, 7), (4, 2, 8), (3, 1, 5), (2, 3, 2, 3)])
def test_chunks_lie_end_to_end_in_morton_order(tmp_path, grid):
    """A shard in full, and one at the end of the array of which only some chunks hold a voxel."""
    chunks = (2,) * len(grid)
    shards = tuple(2 * n for n in grid)
    inside = tuple(max(n // 2, 1) for n in grid)  # chunks of the shard at the end
    shape = tuple(2 * n + 2 * m - 1 for n, m in zip(grid, inside, strict=True))
    array = vf.create(tmp_path / "a", shape=shape, dtype="u4", chunks=chunks, shards=shards)
    array[...] = np.arange(1, math.prod(shape) + 1, dtype="u4").reshape(shape)
    for name, stored in (("0", grid), ("1", inside)):
        shard = (tmp_path / "a" / "c" / "/".join([name] * len(grid))).read_bytes()
        index = index_of(shard, grid)
        places = sorted(np.ndindex(*stored), key=lambda place: morton(place, grid))
        at = 0
        for place in places:
            assert index[place][0] == at, place
            at += int(index[place][1])
        assert at + 16 * math.prod(grid) + 4 == len(shard)
        missing = [place for place in np.ndindex(*grid) if place not in set(places)]
        assert all((index[place] == 2**64 - 1).all() for place in missing)


@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize("shape", [(16, 8, 8), (13, 21, 6)])
def test_shards_are_byte_by_byte_those_of_zarr_python(tmp_path, make_values, shape, location):
    """Without compression nothing is left to choose: order, offsets, padding and checksums agree."""
    codecs = [LITTLE, CRC32C]
    expected = make_values(shape, "u2")
    expected[4:8, :4, 2:6] = 7  # one chunk of the fill value
    expected[8:, :8, :] = 7  # and one shard of it
    sharding = zarr.codecs.ShardingCodec(
        chunk_shape=(4, 4, 2), codecs=codecs, index_codecs=[LITTLE, CRC32C], index_location=location
    )
    theirs = zarr.create_array(
        tmp_path / "theirs",
        shape=shape,
        dtype="u2",
        chunks=(8, 8, 4),
        serializer=sharding,
        compressors=None,
        fill_value=7,
    )
    theirs[...] = expected
    chain = [{"name": "sharding_indexed", "configuration": sharding.to_dict()["configuration"]}]
    ours = vf.create(
        tmp_path / "ours", shape=shape, dtype="u2", chunks=(8, 8, 4), shards=False, codecs=chain, fill_value=7
    )
    ours[...] = expected
    ours_files, their_files = files(tmp_path / "ours"), files(tmp_path / "theirs")
    assert set(ours_files) == set(their_files)
    for name in set(ours_files) - {"zarr.json"}:
        assert ours_files[name][0] == their_files[name][0], name


def test_the_default_checksums_are_there(tmp_path, make_values):
    """One bit flipped in any byte of a shard is noticed, by us and by zarr-python."""
    array = vf.create(tmp_path / "a", shape=(16, 16), dtype="u2", chunks=(8, 8), shards=(16, 16))
    array[...] = make_values((16, 16), "u2") % 5
    document = json.loads((tmp_path / "a" / "zarr.json").read_text())
    sharding = document["codecs"][0]["configuration"]
    assert sharding["codecs"][-1] == sharding["index_codecs"][-1] == CRC32C
    path = tmp_path / "a" / "c" / "0" / "0"
    sound = path.read_bytes()
    other = zarr.open_array(tmp_path / "a", mode="r")
    for at in range(len(sound)):
        damaged = bytearray(sound)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        with pytest.raises(vf.DataError):
            vf.open_array(tmp_path / "a")[...]
        with pytest.raises(Exception, match="checksum"):
            other[...]
    path.write_bytes(sound)
    np.testing.assert_array_equal(array[...], other[...])


def test_objects_of_the_fill_value_are_deleted(tmp_path):
    array = vf.create(tmp_path / "a", shape=(20,), dtype="f4", chunks=4, shards=(8,), fill_value=0.0)
    keys = [tmp_path / "a" / "c" / str(number) for number in range(3)]
    array[...] = np.arange(1, 21, dtype="f4")
    assert all(key.exists() for key in keys)
    array[8:16] = 0
    assert [key.exists() for key in keys] == [True, False, True]
    array[8:16] = 0  # not there any more: no error
    array[0:8] = [0, 0, 0, 0, 1, 0, 0, 0]
    assert index_of(keys[0].read_bytes(), (2,)).tolist()[0] == [2**64 - 1] * 2
    array[...] = 0
    assert not any(key.exists() for key in keys)
    array[0:8] = -0.0  # equal to the fill value, but not the same bits
    assert np.signbit(array[0:8]).all()
    assert keys[0].exists()


# ---------------------------------------------------------------------------------------------------- refused, failed


def test_read_only_arrays_refuse_writes(tmp_path):
    vf.create(tmp_path / "a", shape=(8, 8), dtype="u1")
    before = files(tmp_path)
    with pytest.raises(vf.ReadOnlyError):
        vf.open_array(tmp_path / "a")[...] = np.ones((8, 8), "u1")
    assert files(tmp_path) == before


def test_a_codec_that_is_only_read_changes_nothing(tmp_path):
    """Also no object of the fill value, which would go away without being encoded."""
    blosc = {"name": "blosc", "configuration": {"cname": "lz4", "clevel": 5, "shuffle": "noshuffle", "blocksize": 0}}
    theirs = zarr.create_array(
        tmp_path / "a", shape=(8,), dtype="u1", chunks=(4,), compressors=zarr.codecs.BloscCodec.from_dict(blosc)
    )
    theirs[...] = 1
    before = files(tmp_path)
    assert len(before) == 3
    array = vf.open_array(tmp_path / "a", mode="r+")
    for value in (0, [0, 0, 0, 0, 1, 1, 1, 1]):
        with pytest.raises(vf.UnsupportedError, match="blosc"):
            array[...] = value
    with pytest.raises(vf.UnsupportedError, match="blosc"):
        vf.create(tmp_path / "a", shape=(8,), dtype="u1", codecs=["bytes", blosc], overwrite=True)
    assert files(tmp_path) == before


# Three objects, of 1-D shards of 4,096 voxels: the first is replaced, the second is new, the third is deleted.
SHARD = 4096


def before_and_after() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    old, new = (rng.integers(1, 1 << 16, 3 * SHARD, "u2") for _ in range(2))
    old[SHARD : 2 * SHARD] = 0
    new[2 * SHARD :] = 0
    return old, new


def prepared(folder: Path, engine: vf.Engine | None = None) -> Path:
    """An array that holds the old voxels, and both of them beside it."""
    old, new = before_and_after()
    array = vf.create(folder / "a", shape=old.shape, dtype="u2", chunks=(SHARD // 4,), shards=(SHARD,))
    # Each object in a folder of its own, so that folders are made too.
    document = json.loads((folder / "a" / "zarr.json").read_text())
    document["shape"] = [3 * SHARD, 1]
    document["chunk_grid"]["configuration"]["chunk_shape"] = [SHARD, 1]
    document["codecs"][0]["configuration"]["chunk_shape"] = [SHARD // 4, 1]
    (folder / "a" / "zarr.json").write_text(json.dumps(document))
    array = vf.open_array(folder / "a", mode="r+")
    array[...] = old[:, None]
    np.save(folder / "new.npy", new[:, None])
    return folder / "a"


def states(path: Path) -> list[str]:
    """Of each of the three objects, whether it is "old" or "new"; anything else fails."""
    old, new = before_and_after()
    array = vf.open_array(path)
    assert array.verify().ok
    voxels = array[:, 0]
    found = []
    for number in range(3):
        box = slice(number * SHARD, (number + 1) * SHARD)
        matches = [name for name, one in (("old", old), ("new", new)) if np.array_equal(voxels[box], one[box])]
        assert len(matches) == 1, f"object {number} is neither the old nor the new one"
        found += matches
    return found


FAILING = """
import os, resource, sys
import numpy as np
import voxfetch as vf
path, new, limit = sys.argv[1], np.load(sys.argv[2]), int(sys.argv[3])
array = vf.open_array(path, mode="r+")
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    array[...] = new
except vf.StoreError as error:
    print(type(error).__name__, str(error))
"""


def run(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=55, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("limit", [1, 1000, SHARD])
def test_a_file_that_may_not_grow(tmp_path, limit):
    path = prepared(tmp_path)
    text = run(FAILING, path, tmp_path / "new.npy", limit)
    assert text.startswith("StoreError")
    assert "too large" in text
    assert "c/0/0" in text
    assert states(path) == ["old", "old", "new"]  # what needs no space is done
    assert not files(path, leftovers=True)


def mounted_tmpfs(folder: Path, size: str) -> bool:
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount, "-t", "tmpfs", "-o", f"size={size}", "voxfetch-test", folder]
    return mount is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 128 KiB."""
    folder = tmp_path / "disk"
    if not mounted_tmpfs(folder, "128k"):
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk(small_disk):
    path = prepared(small_disk)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
        file.writelines(b"x" * 4096 for _ in range(100))
    array = vf.open_array(path, mode="r+")
    _, new = before_and_after()
    for box in (slice(0, SHARD), slice(SHARD, 2 * SHARD)):
        with pytest.raises(vf.StoreError, match="space") as caught:
            array[box] = new[box, None]
        assert isinstance(caught.value, OSError)
        assert states(path) == ["old", "old", "old"]
        assert not files(small_disk, leftovers=True)
    with pytest.raises(vf.StoreError, match="space"):
        vf.create(small_disk / "b", shape=(8,), dtype="u1", attrs={"long": "x" * 9000})
    assert not files(small_disk / "b", leftovers=True)
    filler.unlink()
    array[...] = new[:, None]
    assert states(path) == ["new", "new", "new"]


# ------------------------------------------------------------------------------------------------------------- killed

# Forks a writer for each line on stdin and says its status. `write` and `create` say their process id before and wait
# for a line, so that a tracer comes in time; `fill VALUE SECONDS` is killed after so many seconds.
SERVER = """
import ctypes, os, signal, sys, time
import numpy as np
import voxfetch as vf
path, new, threads = sys.argv[1], np.load(sys.argv[2]), int(sys.argv[3])
array = vf.open_array(path, mode="r+", engine=vf.Engine(decode_threads=threads))
libc = ctypes.CDLL(None)

def line():
    text = b""
    while not text.endswith(b"\\n"):
        byte = os.read(0, 1)
        if not byte:
            os._exit(0)
        text += byte
    return text.split()

while True:
    words = line()
    if not words:
        continue  # meant for a writer that was killed before it came
    command, *arguments = words
    pid = os.fork()
    if pid == 0:
        try:
            if command != b"fill":
                if hasattr(libc, "prctl"):
                    libc.prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # any process of this user may trace it
                os.write(1, b"%d\\n" % os.getpid())
                os.read(0, 1)
            if command == b"write":
                array[...] = new
            elif command == b"fill":
                array[...] = int(arguments[0])
            else:
                vf.create(path, shape=(5,), dtype="u1", attrs={"new": True}, overwrite=True)
        except vf.StoreError as error:
            os._exit(3)
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
        os._exit(0)
    if command == b"fill":
        time.sleep(float(arguments[1]))
        os.kill(pid, signal.SIGKILL)  # it has not been waited for, so the id is still its own
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(1, b"%d\\n" % status)
"""


class Server:
    def __init__(self, path: Path, new: Path, threads: int) -> None:
        command = [sys.executable, "-c", SERVER, str(path), str(new), str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def say(self, text: str) -> None:
        self.process.stdin.write(text.encode() + b"\n")

    def number(self) -> int:
        return int(self.process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(10)

    def calls(self, command: str, log: Path) -> list[tuple[str, int]]:
        """Runs a command and returns its system calls in order, each with how many there were of its name."""
        assert self.traced(command, log=log) == 0
        names = re.findall(r"^\d+ +(\w+)\(", log.read_text(), re.MULTILINE)
        assert {"openat", "write", "rename"} <= set(names)
        return [(name, names[: at + 1].count(name)) for at, name in enumerate(names)]

    def traced(self, command: str, inject: str = "", log: Path | str = os.devnull) -> int:
        """Runs a command in a writer with failures injected into its system calls, and returns its status."""
        self.say(command)
        pid = self.number()
        strace = ["strace", "-f", "-o", str(log), *(["-e", f"inject={inject}"] * bool(inject)), "-p", str(pid)]
        with subprocess.Popen(strace, stderr=subprocess.PIPE, text=True) as tracer:
            said = tracer.stderr.readline()
            self.say("")
            status = self.number()
            tracer.wait(10)
        if "not permitted" in said:
            pytest.skip(said)
        assert "attached" in said
        return status


def restored(path: Path, backup: Path) -> None:
    shutil.rmtree(path)
    shutil.copytree(backup, path)


# System calls that leave the disk as it is; they are many.
READING = {"read", "lseek", "fstat", "newfstatat", "getdents64", "fcntl", "ioctl", "mmap", "brk", "futex"}

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@needs_strace
@pytest.mark.timeout(300)
def test_killed_at_every_system_call(tmp_path):
    path = prepared(tmp_path)
    shutil.copytree(path, tmp_path / "backup")
    seen, leftovers = [], 0
    with Server(path, tmp_path / "new.npy", 1) as server:
        for name, number in server.calls("write", tmp_path / "log"):
            restored(path, tmp_path / "backup")
            if server.traced("write", f"{name}:signal=SIGKILL:when={number}") == 0:
                continue  # the call in which the writer waited for the tracer
            seen.append(states(path))
            left = files(path, leftovers=True)
            assert all(re.fullmatch(r"c/[01]/\.0\.\d+\.\d+\.tmp", name) for name in left)
            if left:
                # What a killed writer left is in nobody's way.
                leftovers += 1
                vf.open_array(path, mode="r+")[...] = np.load(tmp_path / "new.npy")
                assert states(path) == ["new"] * 3
    print(f"killed at {len(seen)} system calls, {leftovers} times a temporary file left")
    assert [state for at, state in enumerate(seen) if seen[at - 1 : at] != [state]] == [
        ["old", "old", "old"],
        ["new", "old", "old"],
        ["new", "new", "old"],
        ["new", "new", "new"],
    ], "objects are written one after the other"
    assert leftovers >= 4  # killed in write and in rename, of two objects


@needs_strace
@pytest.mark.timeout(300)
def test_a_creation_killed_at_every_change(tmp_path):
    """The old array, none, or the new one, empty; never the new document with old voxels."""
    path = prepared(tmp_path)
    shutil.copytree(path, tmp_path / "backup")
    seen = []
    with Server(path, tmp_path / "new.npy", 1) as server:
        for name, number in server.calls("create", tmp_path / "log"):
            if name in READING:
                continue
            restored(path, tmp_path / "backup")
            if server.traced("create", f"{name}:signal=SIGKILL:when={number}") == 0:
                continue
            try:
                array = vf.open_array(path)
            except vf.NotFoundError:
                seen.append("none")
            else:
                seen.append("new" if array.attrs else "old")
                if seen[-1] == "new":
                    assert not array[...].any()
                else:
                    assert states(path) == ["old"] * 3
            assert all(re.fullmatch(r"\.zarr\.json\..*\.tmp", name) for name in files(path, leftovers=True))
    print(f"killed at {len(seen)} system calls")
    assert [state for at, state in enumerate(seen) if seen[at - 1 : at] != [state]] == ["old", "none", "new"]


def test_what_a_killed_creation_left_is_stepped_over(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".zarr.json.0123456789abcdef.tmp").write_text("{")
    array = vf.create(tmp_path / "a", shape=(4,), dtype="u1")
    array[...] = 1
    assert vf.open_array(tmp_path / "a")[...].tolist() == [1] * 4


@needs_strace
@pytest.mark.timeout(300)
@pytest.mark.parametrize("call", ["openat", "write", "rename", "mkdir"])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EDQUOT"])
def test_a_system_call_that_fails(tmp_path, call, error):
    path = prepared(tmp_path)
    with Server(path, tmp_path / "new.npy", 1) as server:
        assert server.traced("write", f"{call}:error={error}:when=1") == 3
    assert not files(path, leftovers=True)
    failed = states(path).count("old")
    assert failed == 1, "the other objects are written all the same"
    array = vf.open_array(path, mode="r+")
    array[...] = np.load(tmp_path / "new.npy")
    assert states(path) == ["new"] * 3


@pytest.mark.timeout(120)
def test_killed_at_random_moments(tmp_path):
    """Fifty writers of 32 objects on two threads, each killed after a while: every object holds one writer's value."""
    extent = 1 << 16
    array = vf.create(tmp_path / "a", shape=(32 * extent,), dtype="u2", chunks=(extent // 8,), shards=(extent,))
    np.save(tmp_path / "new.npy", np.zeros(0))
    rng = random.Random(0)
    values, unfinished = np.zeros(32, int), 0
    with Server(tmp_path / "a", tmp_path / "new.npy", 2) as server:
        # As long as a write takes, at least.
        start = time.perf_counter()
        array[...] = 1
        duration = time.perf_counter() - start
        values[:] = 1
        for value in range(2, 52):
            server.say(f"fill {value} {rng.uniform(0, duration)}")
            assert server.number() in (0, -signal.SIGKILL)
            found = vf.open_array(tmp_path / "a")[...].reshape(32, extent)
            assert (found == found[:, :1]).all(), "an object of two writers"
            changed = found[:, 0] != values
            assert (found[changed, 0] == value).all()
            unfinished += 0 < changed.sum() < 32
            values = found[:, 0].astype(int)
    left = files(tmp_path / "a", leftovers=True)
    assert all(re.fullmatch(r"c/\.\d+\.\d+\.\d+\.tmp", name) for name in left)
    assert array.verify().ok
    print(f"{unfinished} of 50 writers killed between two objects, {len(left)} temporary files left")
    array[...] = 99
    assert (array[...] == 99).all()


# ------------------------------------------------------------------------------------------------- several at a time

DISJOINT = """
import sys
import numpy as np
import voxfetch as vf
path, mine = sys.argv[1], int(sys.argv[2])
array = vf.open_array(path, mode="r+")
print("ready", flush=True)
sys.stdin.readline()
for value in range(1, 6):
    for shard in range(mine, 64, 2):
        array[shard * 64 : (shard + 1) * 64] = np.arange(64) + 100 * shard + value
"""


def test_two_processes_write_disjoint_shards(tmp_path):
    array = vf.create(tmp_path / "a", shape=(64 * 64,), dtype="u2", chunks=(8,), shards=(64,))
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", DISJOINT, str(tmp_path / "a"), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for number in range(2)
    ]
    for writer in writers:
        assert writer.stdout.readline() == b"ready\n"
    for writer in writers:
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=50)
        assert writer.returncode == 0
    expected = np.arange(64) + 100 * np.arange(64)[:, None] + 5
    np.testing.assert_array_equal(array[...].reshape(64, 64), expected)
    assert not files(tmp_path, leftovers=True)


REPLACING = """
import sys
import voxfetch as vf
array = vf.open_array(sys.argv[1], mode="r+")
print("ready", flush=True)
for value in range(1, 1 << 15):
    array[...] = value % 251 + 1
"""


def test_a_reader_beside_a_writer(tmp_path):
    """A shard of one value, replaced again and again by another process: each read finds one value."""
    array = vf.create(tmp_path / "a", shape=(64, 64), dtype="u2", chunks=(8, 8), shards=(64, 64))
    array[...] = 1
    code = [sys.executable, "-c", REPLACING, str(tmp_path / "a")]
    with subprocess.Popen(code, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"ready\n"
        seen = set()
        until = time.monotonic() + 2
        while time.monotonic() < until:
            for voxels in (array[...], array[3:60, 5:9], array.read_many([[0, 0], [40, 40]], 20)):
                assert (voxels == voxels.flat[0]).all()
                seen.add(int(voxels.flat[0]))
        writer.kill()
    assert len(seen) > 2
