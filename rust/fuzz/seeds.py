"""Seed corpora for the fuzz targets.

In: tests/data and rust/core/tests/data. Out: rust/fuzz/corpus/<target>/seed-*, and rust/fuzz/corpus/json.dict, the
words of the metadata documents in libFuzzer's dictionary form.

A target that takes (number, bytes) reads the number, little-endian, in front of the bytes. Standard library only.

usage: python3 rust/fuzz/seeds.py
"""

import gzip
import hashlib
import json
import lzma
import math
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
CORPUS = ROOT / "rust" / "fuzz" / "corpus"
# Bytes of one seed. Larger inputs cost speed and reach no code that smaller ones do not.
MAX_NBYTES = 4096
MISSING = b"\xff" * 16


def save(target: str, seed: bytes) -> None:
    """Keeps a seed under a name made of its bytes, so that running this again adds nothing."""
    if len(seed) <= MAX_NBYTES:
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"seed-{hashlib.sha256(seed).hexdigest()[:16]}").write_bytes(seed)


def strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


def metadata() -> None:
    words: set[str] = set()
    names = (("zarr.json", "metadata_v3"), (".zarray", "metadata_v2"), ("attributes.json", "metadata_n5"))
    for name, target in names:
        for path in DATA.rglob(name):
            text = path.read_bytes()
            # Java writers may leave a comment before the object.
            document = json.loads(text[text.index(b"{") :])
            if document.get("node_type", "array") == "array":
                save(target, text)
                save(target, json.dumps(document, separators=(",", ":")).encode())
                document.pop("attributes", None)
                words.update(word for word in strings(document) if len(word) <= 24 and word.isascii())
    for path in (DATA / "precomputed").rglob("info"):
        document = json.loads(path.read_bytes())
        for scale in document.pop("scales"):
            save("metadata_precomputed", json.dumps({**document, "scales": [scale]}).encode())
            words.update(strings(scale))
    lines = (json.dumps(word).replace('"', '\\"') for word in sorted(words))
    (CORPUS / "json.dict").write_text("".join(f'"{line}"\n' for line in lines if line.count("\\") == 2))


def codec(name: str, nbytes: int, encoded: bytes) -> None:
    """A chunk of `nbytes` decoded bytes; the target takes that number less one as u16."""
    if 1 <= nbytes <= 1 << 16:
        save(f"codec_{name}", struct.pack("<H", nbytes - 1) + encoded)


def npy_nbytes(path: Path) -> int:
    """Bytes of the elements of a .npy file."""
    head = path.read_bytes()[:12]
    start = 10 + int.from_bytes(head[8:10], "little") if head[6] == 1 else 12 + int.from_bytes(head[8:12], "little")
    return path.stat().st_size - start


def codecs() -> None:
    for name in ("blosc", "gzip", "lz4", "zstd"):
        for path in (DATA / "numcodecs" / name).rglob("encoded*.dat"):
            array = path.parents[1] / path.name.replace("encoded", "array").replace(".dat", ".npy")
            codec(name, npy_nbytes(array), path.read_bytes())
    with (ROOT / "rust" / "core" / "tests" / "data" / "encoded.jsonl").open() as lines:
        next(lines)  # versions of the encoders
        for record in map(json.loads, lines):
            codec(record["codec"], record["nbytes"], bytes.fromhex(record["hex"]))


def checksums_and_hdf5() -> None:
    """(kind and end u8, initial value u32, size u16, bytes); (filter, elementsize, blocksize u8, size u16, bytes)."""
    decoded = bytes(range(1, 17))
    for kind, checksum in ((0, zlib.crc32), (2, zlib.adler32)):
        stored = struct.pack("<I", checksum(decoded))
        for at_start, encoded in ((0, decoded + stored), (1, stored + decoded)):
            save("codec_checksum", struct.pack("<BIH", kind << 1 | at_start, 0, len(decoded) - 1) + encoded)
    header = struct.pack(">QI", 16, 16)
    block = struct.pack(">I", 18) + b"\xf0\x01" + decoded
    for number, encoded in enumerate((b"\x0f" + decoded, header + block, decoded, header + block)):
        save("codec_hdf5", struct.pack("<BBBH", number, 2, 8, len(decoded) - 1) + encoded)


def chunks() -> None:
    """Chunks of codecs that know what they encode."""
    with (ROOT / "rust" / "core" / "tests" / "data" / "chunks.jsonl").open() as lines:
        next(lines)  # versions of the encoders
        for record in map(json.loads, lines):
            name, encoded = record["codec"], bytes.fromhex(record["hex"])
            extent, item_size = record["extent"], record["item_size"]
            match name:
                case "compressed_segmentation":
                    block = [n - 1 for n in record["block"]]
                    save(f"codec_{name}", bytes([*extent, *block, item_size == 8]) + encoded)
                case "compresso":
                    save(f"codec_{name}", encoded)
                case "png":
                    save(f"codec_{name}", bytes([extent[3] - 1, item_size == 2]) + encoded)
                case "jpeg":
                    save(f"codec_{name}", bytes([extent[3] == 3]) + encoded)
                case _:
                    codec(name.removesuffix("_unsupported"), math.prod(extent), encoded)


def sharded() -> Iterator[tuple[bytes, int, int, bool]]:
    """Stored shards with the entries and checksums of their index, and whether it stands at the start."""
    for path in DATA.rglob("zarr.json"):
        document = json.loads(path.read_bytes())
        for spec in document.get("codecs", []):
            if isinstance(spec, dict) and spec.get("name") == "sharding_indexed":
                settings = spec["configuration"]
                shard_shape = document["chunk_grid"]["configuration"].get("chunk_shape")
                if shard_shape is None:
                    # Shards of several extents.
                    continue
                pairs = zip(shard_shape, settings["chunk_shape"], strict=True)
                entries = math.prod(whole // part for whole, part in pairs)
                checksums = sum(
                    "crc32c" in (c, c["name"] if isinstance(c, dict) else c) for c in settings.get("index_codecs", [])
                )
                for shard in path.parent.rglob("*"):
                    if shard.is_file() and not shard.name.endswith(".json"):
                        yield shard.read_bytes(), entries, checksums, settings.get("index_location") == "start"


def shard_index() -> None:
    """(kind u8, bytes of the shard beside the index u64, index words)."""
    for stored, entries, checksums, at_start in sharded():
        nbytes = 16 * entries
        first = 0 if at_start else len(stored) - nbytes - 4 * checksums
        if first >= 0:
            save("shard_index", struct.pack("<BQ", at_start, len(stored) - nbytes) + stored[first : first + nbytes])
    for sizes in ([5] * 8, [3, 900, 1, 70_000]):
        at, pairs = 0, []
        for size in sizes:
            pairs.append((at, size))
            at += size
        words = [struct.pack("<QQ", *pair) for pair in pairs]
        for order in (words, [words[0], *words[2:], words[1]], [MISSING, *words[1:]], words[::-1]):
            save("shard_index", struct.pack("<BQ", 0, at) + b"".join(order))


def wkw() -> None:
    """(entry u64, bytes behind the jump table u64, document or slice of the table)."""
    header = "574b5701230202020000000000000000"
    document = json.dumps({"header": header, "start": [0, 0, 0], "shape": [32, 32, 32]})
    save("wkw", struct.pack("<QQ", 0, 0) + document.encode())
    ends = [16 + 8 * 64 + 9 * (block + 1) for block in range(64)]
    save("wkw", struct.pack("<QQ", 0, 9 * 64) + struct.pack("<64Q", *ends))


def b2nd() -> None:
    """(extent of a chunk and of a block less 1, first and last of its bytes out of 255, chunk)."""
    for path in (DATA / "b2nd").rglob("*.b2nd"):
        frame = path.read_bytes()
        start = int.from_bytes(frame[11:15], "big")
        nbytes = int.from_bytes(frame[start + 12 : start + 16], "little")
        save("codec_b2nd", bytes([8, 9, 10, 3, 4, 5, 20, 200]) + frame[start : start + nbytes])


def n5_block() -> None:
    """(nominal extent of three axes less 1, kind u8: log2 of the bytes of an item and 4 times the rank, block)."""
    for extent in ((2, 2), (1, 2), (3, 1), (2, 2, 2), (1, 2, 3)):
        for item in range(3):
            elements = bytes(range(1, 1 + (math.prod(extent) << item)))
            axes = struct.pack(f">{len(extent)}I", *extent)
            for mode, count in ((0, b""), (1, struct.pack(">I", math.prod(extent)))):
                block = struct.pack(">HH", mode, len(extent)) + axes + count + elements
                save("n5_block", bytes([1, 1, 1, item | len(extent) << 2]) + block)


def precomputed_index() -> None:
    """(kind u8, bytes of the shard beside its index u64, index): bit 0 of the kind is that of a minishard."""
    for path in (DATA / "precomputed").rglob("*.shard"):
        shard = path.read_bytes()
        settings = json.loads((path.parents[1] / "info").read_bytes())["scales"][0]["sharding"]
        nbytes = 16 << settings["minishard_bits"]
        save("precomputed_index", struct.pack("<BQ", 0, len(shard) - nbytes) + shard[:nbytes])
        for at in range(0, nbytes, 16):
            start, end = struct.unpack_from("<QQ", shard, at)
            index = shard[nbytes + start : nbytes + end]
            if settings["minishard_index_encoding"] == "gzip" and index:
                index = gzip.decompress(index)
            kind = nbytes // 16 << 1 | 1
            save("precomputed_index", struct.pack("<BQ", kind, len(shard) - nbytes) + index)


def lz4(decoded: bytes) -> bytes:
    """numcodecs lz4 of at most 14 bytes: literals only."""
    return struct.pack("<I", len(decoded)) + bytes([len(decoded) << 4]) + decoded


def zstd(decoded: bytes) -> bytes:
    """One frame of one raw block, with content size."""
    size = struct.pack("<I", len(decoded))
    return b"\x28\xb5\x2f\xfd\xa0" + size + (len(decoded) << 3 | 1).to_bytes(3, "little") + decoded


def blosc(decoded: bytes) -> bytes:
    """Blosc with its bytes as they are (flag "memcpyed")."""
    return struct.pack("<BBBBIII", 2, 1, 2, 1, len(decoded), len(decoded), 16 + len(decoded)) + decoded


def crc32c(decoded: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in decoded:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return decoded + struct.pack("<I", crc ^ 0xFFFFFFFF)


def shard(chunks: list[bytes | None], *, index_at_start: bool) -> bytes:
    """Chunks end to end and their index, without checksum."""
    at = 16 * len(chunks) if index_at_start else 0
    index = b""
    for chunk in chunks:
        index += MISSING if chunk is None else struct.pack("<QQ", at, len(chunk))
        at += len(chunk or b"")
    data = b"".join(chunk or b"" for chunk in chunks)
    return index + data if index_at_start else data + index


def read_shard() -> None:
    """(kind u8, object) for the arrays of `OBJECTS` in rust/core/tests/support/mod.rs, all of uint16."""
    raw = bytes(range(128))

    def cut(nbytes: int) -> list[bytes]:
        return [raw[at : at + nbytes] for at in range(0, 128, nbytes)]

    inner = [shard([lz4(c) for c in cut(8)[k * 4 : k * 4 + 4]], index_at_start=True) for k in range(4)]
    objects = [
        raw[:32],
        zstd(blosc(raw[:32])),
        shard([*cut(8)], index_at_start=False),
        shard([gzip.compress(c, mtime=0) for c in cut(16)], index_at_start=True),
        shard([*inner], index_at_start=False),
        zstd(shard([crc32c(c) for c in cut(8)], index_at_start=False)),
    ]
    for kind, stored in enumerate(objects):
        save("read_shard", bytes([kind]) + stored)
    save("read_shard", b"\x02" + shard([None, *cut(8)[1:]], index_at_start=False))
    save("read_shard", b"\x04" + shard([None, inner[1], None, inner[3]], index_at_start=False))


def planner() -> None:
    choices = random.Random(0)
    for nbytes in (0, 10, 30, 60, 100, 200, 400, 600):
        for _ in range(8):
            save("planner", choices.randbytes(nbytes))


def main() -> None:
    CORPUS.mkdir(parents=True, exist_ok=True)
    metadata()
    codecs()
    chunks()
    for level in (0, 1, 9):
        decoded = b"one chunk of a few bytes" * 5
        codec("zlib", len(decoded), zlib.compress(decoded, level))
        codec("lzma", len(decoded), lzma.compress(decoded, lzma.FORMAT_ALONE))
    checksums_and_hdf5()
    shard_index()
    wkw()
    b2nd()
    n5_block()
    precomputed_index()
    read_shard()
    planner()
    for folder in sorted(path for path in CORPUS.iterdir() if path.is_dir()):
        print(f"{folder.name}: {len(list(folder.glob('seed-*')))} seeds")


if __name__ == "__main__":
    main()
