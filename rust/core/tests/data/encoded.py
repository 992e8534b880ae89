"""Writes encoded.jsonl: bytes of foreign encoders, one JSON object a line: codec, what, nbytes, hex.

Needs numcodecs with C-Blosc 1 and Brotli (written with the versions named in the first line). The decoded bytes are a
formula of `nbytes` and `typesize`, repeated in codec_fixtures.rs, and are not stored.
"""

import bz2
import gzip
import io
import itertools
import json
import zlib
from pathlib import Path

import brotli
import numcodecs
import numpy as np
from numcodecs import blosc, zstd

SHUFFLES = ("none", "byte", "bit")


def elements(nbytes: int, typesize: int) -> bytes:
    """Little-endian numbers that grow, with repeats: compressible, and different in every byte plane."""
    count = nbytes // typesize + 1
    out = bytearray()
    for e in range(count):
        step = e // 9
        number = (step * step // 5 + (step % 3 << 20) + (e % 9 == 4)) % 2**32
        out += (number.to_bytes(4, "little") * (typesize // 4 + 1))[:typesize]
    return bytes(out[:nbytes])


def blosc_chunks():
    for cname, shuffle, typesize in itertools.product(
        ("blosclz", "lz4", "lz4hc", "zlib", "zstd"), (0, 1, 2), (1, 2, 3, 4, 8, 16, 17)
    ):
        # (elements, blocksize): one block; several with a short last one; a number of elements no multiple of 8.
        for count, blocksize in ((640, 0), (700, 256 * typesize), (333, 0)):
            if cname == "lz4hc" and typesize > 2:
                continue
            raw = np.frombuffer(elements(count * typesize, typesize), dtype=f"V{typesize}")
            encoded = blosc.compress(raw, cname.encode(), 5, shuffle, blocksize)
            what = f"{cname} shuffle {SHUFFLES[shuffle]} {count} elements blocksize {blocksize}"
            yield "blosc", what, typesize, count * typesize, encoded
    for count in (1, 7, 15, 16, 17, 127, 128, 129):
        raw = np.frombuffer(elements(count * 8, 8), dtype="u8")
        yield "blosc", f"{count} elements of 8", 8, count * 8, blosc.compress(raw, b"lz4", 5, 1, 0)
    raw = np.frombuffer(elements(400, 4), dtype="u4")
    yield "blosc", "clevel 0", 4, 400, blosc.compress(raw, b"zstd", 0, 2, 0)


def others():
    for nbytes in (1, 2000):
        raw = elements(nbytes, 2)
        half = nbytes // 2
        for level in (1, 6, 9):
            yield "zlib", f"level {level}", 2, nbytes, zlib.compress(raw, level)
            yield "bz2", f"level {level}", 2, nbytes, bz2.compress(raw, level)
        yield "zlib", "stored", 2, nbytes, zlib.compress(raw, 0)
        small_window = zlib.compressobj(9, zlib.DEFLATED, 9)
        yield "zlib", "window of 512 bytes", 2, nbytes, small_window.compress(raw) + small_window.flush()
        yield "bz2", "two streams", 2, nbytes, bz2.compress(raw[:half]) + bz2.compress(raw[half:])
        yield "gzip", "two members", 2, nbytes, gzip.compress(raw[:half]) + gzip.compress(raw[half:])
        yield "gzip", "an empty member last", 2, nbytes, gzip.compress(raw) + gzip.compress(b"")
        named = io.BytesIO()
        with gzip.GzipFile("name", "wb", fileobj=named) as file:
            file.write(raw)
        yield "gzip", "with a file name", 2, nbytes, named.getvalue()
        frames = zstd.compress(raw[:half], 3) + zstd.compress(raw[half:], 3, True)
        skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc"
        yield "zstd", "two frames", 2, nbytes, frames
        yield "zstd", "skippable frames around", 2, nbytes, skippable + frames + skippable


def brotli_streams():
    for nbytes in (1, 2000):
        raw = elements(nbytes, 2)
        for quality in (0, 1, 5, 9, 11):
            yield "brotli", f"quality {quality}", 2, nbytes, brotli.compress(raw, quality=quality)
        for window in (10, 24):
            yield "brotli", f"window of {window} bits", 2, nbytes, brotli.compress(raw, lgwin=window)
        pieces = brotli.Compressor()
        parts = [
            pieces.process(raw[: nbytes // 2]),
            pieces.flush(),
            pieces.process(raw[nbytes // 2 :]),
            pieces.finish(),
        ]
        yield "brotli", "flushed between", 2, nbytes, b"".join(parts)


def main() -> None:
    versions = {"numcodecs": numcodecs.__version__, "c-blosc": blosc.VERSION_STRING, "brotli": brotli.__version__}
    lines = [json.dumps(versions)]
    for codec, what, typesize, nbytes, encoded in itertools.chain(blosc_chunks(), others(), brotli_streams()):
        record = {"codec": codec, "what": what, "typesize": typesize, "nbytes": nbytes, "hex": bytes(encoded).hex()}
        lines.append(json.dumps(record))
    Path(__file__).with_suffix(".jsonl").write_text("\n".join(lines) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
