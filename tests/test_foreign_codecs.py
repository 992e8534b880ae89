"""Codecs that only Python has: decoded through numcodecs, by workers that take the GIL for it."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings

import numcodecs
import numpy as np
import pytest
import zarr
from numcodecs.abc import Codec

import voxfetch as vf
from tests.servers.faulty import FaultyServer

THROUGH = f"(through numcodecs {numcodecs.__version__})"


class Turned(Codec):
    """Bytes turned around; `does` says what else happens when they are decoded."""

    codec_id = "voxfetch_turned"
    kept: list[bytes] = []  # noqa: RUF012 - shared on purpose

    def __init__(self, does=""):
        if does == "no such thing":
            raise ValueError("no such thing")
        self.does = does

    def encode(self, buf):
        return np.asarray(buf).tobytes(order="A")[::-1]

    def decode(self, buf, out=None):
        data = bytes(buf)[::-1]
        match self.does:
            case "raise":
                raise ValueError("the bytes are blue\nand so am I")
            case "raise nothing":
                raise RuntimeError
            case "raise what has no text":
                raise _Mute
            case "long":
                return data + b"?"
            case "very long":
                return data * 50
            case "short":
                return data[:-1]
            case "empty":
                return b""
            case "text":
                return data.decode("latin-1")
            case "nothing":
                return None
            case "objects":
                return np.array([None] * len(data), object)
            case "keep":
                self.kept.append(buf)
            case "array":
                return np.frombuffer(data, np.uint8).reshape(4, -1)
            case "first axis fastest":
                return np.frombuffer(data, np.uint8).reshape(4, -1, order="F")
            case "first axis fastest in memory":
                return np.asfortranarray(np.frombuffer(data, np.uint8).reshape(4, -1))
            case "every second":
                return np.frombuffer(data, np.uint8).repeat(2)[::2]
            case "wide":
                return memoryview(np.frombuffer(data, "<u4"))
            case "slow":
                time.sleep(0.01)
        return data

    def get_config(self):
        return {"id": self.codec_id, "does": self.does}


class _Mute(Exception):  # noqa: N818 - it is what the test is about
    def __str__(self):
        raise ValueError("nothing to say")


@pytest.fixture(autouse=True)
def _registered():
    numcodecs.register_codec(Turned)
    yield
    numcodecs.registry.codec_registry.pop(Turned.codec_id, None)


def volume(shape=(20, 30), dtype="<u4", seed=0):
    return np.random.default_rng(seed).integers(0, 1 << 30, shape).astype(dtype)


def written(path, expected, does="", *, chunks=(8, 16), as_filter=False, **layout):
    """By zarr-python, version 2, with the codec above as its compressor or filter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        part = {"filters": [Turned()], **layout} if as_filter else {"compressors": Turned(), **layout}
        array = zarr.create_array(
            str(path), shape=expected.shape, dtype=expected.dtype, chunks=chunks, zarr_format=2, **part
        )
        array[...] = expected
    document = (path / ".zarray").read_text()
    (path / ".zarray").write_text(document.replace('"does": ""', f'"does": "{does}"'))
    return path


def zarr3(path, expected, *, chunks, codecs, shards=None):
    """A document of version 3 whose codecs are `codecs`; chunks are turned bytes, one after the other in a shard."""
    path.mkdir()
    if shards:
        index = [{"name": "bytes", "configuration": {"endian": "little"}}]
        sharding = {"chunk_shape": chunks, "codecs": codecs, "index_codecs": index}
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    stored = shards or chunks
    document = {
        "zarr_format": 3, "node_type": "array", "shape": expected.shape, "data_type": expected.dtype.name,
        "fill_value": 0, "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": stored}},
        "chunk_key_encoding": {"name": "v2"}, "codecs": codecs,
    }  # fmt: skip
    (path / "zarr.json").write_text(json.dumps(document))
    for place in np.ndindex(*(n // s for n, s in zip(expected.shape, stored, strict=True))):
        corner = tuple(slice(p * s, (p + 1) * s) for p, s in zip(place, stored, strict=True))
        shard = expected[corner]
        parts, entries = [], []
        for inner in np.ndindex(*(s // c for s, c in zip(stored, chunks, strict=True))):
            box = tuple(slice(i * c, (i + 1) * c) for i, c in zip(inner, chunks, strict=True))
            parts.append(Turned().encode(shard[box]))
            entries.append((sum(map(len, parts[:-1])), len(parts[-1])))
        tail = np.array(entries, "<u8").tobytes() if shards else b""
        (path / ".".join(map(str, place))).write_bytes(b"".join(parts) + tail)
    return path


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
TURNED = {"name": "numcodecs.voxfetch_turned", "configuration": {}}


@pytest.mark.parametrize("as_filter", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<u4", ">u4", "|u1", "<f8"])
def test_zarr2_arrays(as_filter, order, dtype, tmp_path):
    expected = volume(dtype=dtype)
    compressors = {"compressors": numcodecs.Zlib()} if as_filter else {}
    path = written(tmp_path / "a", expected, as_filter=as_filter, order=order, **compressors)
    array = vf.open_array(path)
    np.testing.assert_array_equal(array[...], expected)
    np.testing.assert_array_equal(array[3:17:3, 29:], expected[3:17:3, 29:])
    assert f"voxfetch_turned {THROUGH}" in array.codecs
    assert array.verify().problem_count == 0
    assert array.explain().in_python == ("voxfetch_turned",)
    assert "decoded through Python  voxfetch_turned" in str(array.explain())


@pytest.mark.parametrize("codecs", [[BYTES, TURNED], [TURNED]], ids=["after bytes", "instead of bytes"])
@pytest.mark.parametrize("shards", [None, (8, 16)])
def test_zarr3_arrays(codecs, shards, tmp_path):
    expected = volume((16, 32))
    array = vf.open_array(zarr3(tmp_path / "a", expected, chunks=(4, 8), codecs=codecs, shards=shards))
    np.testing.assert_array_equal(array[...], expected)
    np.testing.assert_array_equal(array[5:9, 1::7], expected[5:9, 1::7])
    assert f"numcodecs.voxfetch_turned {THROUGH}" in array.codecs
    with pytest.raises(vf.UnsupportedError, match=r"writing the numcodecs\.voxfetch_turned codec"):
        vf.open_array(tmp_path / "a", mode="r+")[:8, :16] = 1


def test_what_a_decoder_may_return(tmp_path):
    expected = volume()
    for does in ("array", "first axis fastest", "every second", "wide", "keep", "slow"):
        path = written(tmp_path / does.replace(" ", "_"), expected, does)
        np.testing.assert_array_equal(vf.open_array(path)[...], expected)
    # In version 3 the elements count, in version 2 the memory.
    codecs = [{**TURNED, "configuration": {"does": "first axis fastest in memory"}}]
    path = zarr3(tmp_path / "v3", expected[:16, :16], chunks=(8, 8), codecs=codecs)
    np.testing.assert_array_equal(vf.open_array(path)[...], expected[:16, :16])
    # What a decoder keeps stays as it was.
    assert Turned(does="keep").decode(Turned.kept[0]) == expected[:8, :16].tobytes()


WRONG = {
    "raise": "voxfetch_turned: ValueError: the bytes are blue",
    "raise nothing": "voxfetch_turned: RuntimeError",
    "raise what has no text": "voxfetch_turned: _Mute",
    "long": "voxfetch_turned: decodes to more than 512 bytes",
    "very long": "voxfetch_turned: decodes to more than 512 bytes",
    "short": "voxfetch_turned: decodes to 511 bytes, expected 512",
    "empty": "voxfetch_turned: decodes to 0 bytes, expected 512",
    "text": "voxfetch_turned: TypeError: memoryview: a bytes-like object is required, not 'str'",
    "nothing": "voxfetch_turned: TypeError: memoryview: a bytes-like object is required, not 'NoneType'",
    "objects": "voxfetch_turned: decodes to objects where bytes are expected",
}


@pytest.mark.parametrize("does", WRONG)
@pytest.mark.parametrize("where", ["disk", "network"])
def test_decoders_that_go_wrong(does, where, tmp_path):
    path = written(tmp_path / "a", volume(), does)
    with FaultyServer(path) as server:
        array = vf.open_array(path if where == "disk" else server.url)
        with pytest.raises(vf.CodecError) as caught:
            array[...]
        assert WRONG[does] in str(caught.value)
        assert "so am I" not in str(caught.value)
        assert caught.value.chunk == (0, 0)
        with pytest.raises(vf.CodecError):
            asyncio.run(array.read_async())
        assert array.verify().problem_count == 6


def test_too_much_between_two_codecs(tmp_path):
    # Twice the size and 64 KiB is what a codec may make of a chunk.
    chunk = np.ones((128, 512), np.uint8)
    path = written(tmp_path / "a", chunk, "very long", chunks=(128, 512), as_filter=True, compressors=Turned())
    document = json.loads((path / ".zarray").read_text())
    document["filters"][0]["does"] = ""
    document["compressor"]["does"] = "very long"
    (path / ".zarray").write_text(json.dumps(document))
    with pytest.raises(vf.CodecError, match="more than 196608 bytes"):
        vf.open_array(path)[...]


def test_remote_arrays(tmp_path):
    expected = volume((64, 64))
    path = written(tmp_path / "a", expected, "slow", chunks=(8, 8))
    with FaultyServer(path) as server, vf.Engine(decode_threads=4) as engine:
        array = vf.open_array(server.url, engine=engine)
        np.testing.assert_array_equal(array[...], expected)
        for box, block in array.blocks((20, 64)):
            np.testing.assert_array_equal(block, expected[box.slices])

        async def read():
            return await asyncio.gather(*(array.read_async(np.s_[k::3]) for k in range(3)))

        for k, block in enumerate(asyncio.run(read())):
            np.testing.assert_array_equal(block, expected[k::3])


def test_decoded_chunks_are_kept(tmp_path):
    expected = volume()
    path = written(tmp_path / "a", expected)
    for name in [path / "0.0", path / "0.1", path / "1.0"]:
        os.utime(name, (time.time() - 60,) * 2)
    with vf.Engine(decode_threads=1, chunk_cache_bytes=1 << 20) as engine:
        array = vf.open_array(path, engine=engine)
        for _ in range(2):
            np.testing.assert_array_equal(array[:8, :16], expected[:8, :16])
        assert engine.stats().chunk_cache_hits == 1


def test_many_threads_read_many_chunks(tmp_path):
    # Whoever waits for a worker with the GIL held would wait for ever.
    expected = volume((96, 96), "|u1")
    path = written(tmp_path / "a", expected, chunks=(4, 4))
    with FaultyServer(path) as server, vf.Engine(decode_threads=8) as engine:
        arrays = [vf.open_array(path, engine=engine), vf.open_array(server.url, engine=engine)]
        failures = []

        def read(seed):
            try:
                for k in range(3):
                    array = arrays[(seed + k) % 2]
                    np.testing.assert_array_equal(array[seed + k :, k:], expected[seed + k :, k:])
                    engine.stats()
                    array.explain()
            except BaseException as error:  # noqa: BLE001 - looked at below
                failures.append(error)

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        engine.close()  # while they read; they start workers again
        for thread in threads:
            thread.join(50)
            assert not thread.is_alive()
        assert [error for error in failures if "stopped" not in str(error) and "closed" not in str(error)] == []


def test_pickled_arrays_find_their_codecs_again(tmp_path):
    expected = volume()
    array = vf.open_array(written(tmp_path / "a", expected))
    again = pickle.loads(pickle.dumps(array))
    np.testing.assert_array_equal(again[...], expected)
    assert again == array


def test_info_says_what_decodes(tmp_path, capsys):
    from voxfetch.cli import main

    assert main(["info", str(written(tmp_path / "a", volume()))]) == 0
    assert f"codecs     bytes, voxfetch_turned {THROUGH}" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------- which are read


def test_codecs_that_nobody_has_are_refused(tmp_path):
    path = written(tmp_path / "a", volume())
    numcodecs.registry.codec_registry.pop(Turned.codec_id)
    with pytest.raises(vf.UnsupportedError, match=f"numcodecs {numcodecs.__version__} has none of this name") as caught:
        vf.open_array(path)
    assert "`voxfetch_turned`" in str(caught.value)
    assert "registers it" in str(caught.value.hint)


def test_wrong_settings_are_refused(tmp_path):
    with pytest.raises(vf.MetadataError, match="codec `voxfetch_turned`: ValueError: no such thing"):
        vf.open_array(written(tmp_path / "a", volume(), "no such thing"))


@pytest.mark.parametrize("name", ["magic", "voxfetch_turned", "numcodecs"])
def test_other_names_of_zarr3_are_not_looked_for(name, tmp_path):
    path = zarr3(tmp_path / "a", volume((8, 8)), chunks=(8, 8), codecs=[BYTES, {"name": name}])
    with pytest.raises(vf.UnsupportedError, match=rf"codecs\[1\]: codec `{name}`"):
        vf.open_array(path)


def test_codecs_of_arrays_are_not_read_before_bytes(tmp_path):
    path = zarr3(tmp_path / "a", volume((8, 8)), chunks=(8, 8), codecs=[TURNED, BYTES])
    with pytest.raises(vf.UnsupportedError, match=r"codec `numcodecs\.voxfetch_turned` before `bytes`"):
        vf.open_array(path)


@pytest.mark.parametrize("version", [2, 3])
def test_without_numcodecs_they_are_refused(version, tmp_path, monkeypatch):
    expected = volume((8, 16))
    path = tmp_path / "a"
    if version == 2:
        written(path, expected)
    else:
        zarr3(path, expected, chunks=(8, 16), codecs=[BYTES, TURNED])
    monkeypatch.setitem(sys.modules, "numcodecs", None)
    with pytest.raises(vf.UnsupportedError, match="is read through numcodecs, which is not installed") as caught:
        vf.open_array(path)
    assert "`voxfetch_turned`" in str(caught.value)
    assert caught.value.hint == "pip install numcodecs"


@pytest.mark.parametrize(
    ("codec", "version", "order"), [("zfpy", 2, "C"), ("zfpy", 3, "C"), ("pcodec", 2, "F"), ("pcodec", 3, "C")]
)
def test_codecs_of_packages(codec, version, order, tmp_path):
    pytest.importorskip(codec)
    expected = np.random.default_rng(0).normal(size=(20, 30)).astype("<f4")
    path = tmp_path / "a"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if version == 2:
            one = numcodecs.ZFPY() if codec == "zfpy" else numcodecs.PCodec()
            array = zarr.create_array(
                str(path),
                shape=expected.shape,
                chunks=(8, 16),
                dtype="<f4",
                zarr_format=2,
                compressors=one,
                order=order,
            )
        else:
            one = zarr.codecs.numcodecs.ZFPY() if codec == "zfpy" else zarr.codecs.numcodecs.PCodec()
            array = zarr.create_array(
                str(path), shape=expected.shape, chunks=(8, 16), shards=(24, 32), dtype="<f4", serializer=one,
                compressors=None,
            )  # fmt: skip
        array[...] = expected
        np.testing.assert_array_equal(array[...], expected)
    found = vf.open_array(path)
    np.testing.assert_array_equal(found[...], expected)
    assert f"{codec} {THROUGH}" in found.codecs


def test_the_package_that_is_missing_is_named(tmp_path):
    path = written(tmp_path / "a", volume())
    document = (path / ".zarray").read_text().replace("voxfetch_turned", "zfpy")
    (path / ".zarray").write_text(document)
    known = numcodecs.registry.codec_registry.pop("zfpy", None)
    try:
        with pytest.raises(vf.UnsupportedError, match="`zfpy`: numcodecs") as caught:
            vf.open_array(path)
        assert caught.value.hint == 'pip install "numcodecs[zfpy]"'
    finally:
        if known:
            numcodecs.register_codec(known)


# ------------------------------------------------------------------------------------------ processes, signals, the end

PRELUDE = """
import asyncio, faulthandler, os, signal, sys, threading, time, warnings
import numcodecs, numpy as np, numpy.testing
from numcodecs.abc import Codec
import voxfetch as vf

warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of fork with threads
faulthandler.register(signal.SIGALRM, chain=True)
signal.alarm(40)

class Turned(Codec):
    codec_id = "voxfetch_turned"
    before = staticmethod(lambda: None)

    def __init__(self, does=""):
        pass

    def encode(self, buf):
        raise NotImplementedError

    def decode(self, buf, out=None):
        self.before()
        end = time.perf_counter() + 0.002
        while time.perf_counter() < end:
            pass  # in Python: the GIL is handed over meanwhile
        return bytes(buf)[::-1]

numcodecs.register_codec(Turned)
path, expected = sys.argv[1], np.load(sys.argv[2])
array = vf.open_array(path, engine=vf.Engine(decode_threads=4))

def check():
    numpy.testing.assert_array_equal(array[...], expected)
"""


def run(code, tmp_path, *, status=0):
    expected = volume((64, 64), "|u1")
    path = written(tmp_path / "a", expected, chunks=(8, 8))
    np.save(tmp_path / "expected.npy", expected)
    arguments = [sys.executable, "-c", PRELUDE + code, str(path), str(tmp_path / "expected.npy")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=55, check=False)
    assert done.returncode == status, (done.returncode, done.stderr)
    return done


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_children_decode_while_the_parent_does(tmp_path):
    done = run(
        """
check()
over = threading.Event()
def parent():
    while not over.is_set():
        check()
threads = [threading.Thread(target=parent) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range(5):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(20)
            check()
            asyncio.run(array.read_async())
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
over.set()
for thread in threads:
    thread.join()
check()
print("done")
""",
        tmp_path,
    )
    assert done.stdout == "done\n"
    assert done.stderr == ""


ENDS = {
    "an async read": """
async def main():
    asyncio.ensure_future(array.read_async())
    await asyncio.sleep(0.01)
asyncio.run(main())
""",
    "blocks": "iterator = iter(array.blocks(8, prefetch=20)); next(iterator)",
    "daemon threads": """
def read():
    while True:
        array[...]
for _ in range(4):
    threading.Thread(target=read, daemon=True).start()
time.sleep(0.1)
""",
    "threads": """
threads = [threading.Thread(target=check) for _ in range(4)]
for thread in threads:
    thread.start()
""",
    "sys.exit": """
threading.Thread(target=check, daemon=True).start()
time.sleep(0.01)
sys.exit(0)
""",
}


@pytest.mark.parametrize("code", ENDS.values(), ids=ENDS)
def test_the_interpreter_ends_while_chunks_are_decoded(code, tmp_path):
    done = run(f"print('begun', flush=True){chr(10)}{code}", tmp_path)
    assert done.stdout == "begun\n"
    assert done.stderr == ""


def test_an_interrupted_decoder_is_an_interrupted_read(tmp_path):
    done = run(
        """
# A process in the background ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)
raised, begun = [], threading.Event()
def before():
    if threading.current_thread() is not threading.main_thread():
        # Leaves a chunk to the main thread.
        begun.wait(20)
    elif not raised:
        raised.append(1)
        begun.set()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
Turned.before = staticmethod(before)
try:
    array[...]
except KeyboardInterrupt:
    print("interrupted", raised)
check()
""",
        tmp_path,
    )
    assert done.stdout == "interrupted [1]\n"
