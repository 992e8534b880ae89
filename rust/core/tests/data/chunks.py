"""Writes chunks.jsonl: chunks by foreign encoders that know what they encode, one JSON object a line.

    python rust/core/tests/data/chunks.py LZ4_JAVA_JAR

Needs tensorstore, Pillow, compresso, Java and lz4-java (written with the versions named in the first line).

A record has codec, what, extent (x, y, z, channel in voxels), item_size in bytes, kind, hex, and block (x, y, z in
voxels) where the codec must be told. The voxels are a formula of their kind, repeated in
rust/core/src/codec/tests/chunks.rs, and are not stored, but for JPEG: there `decoded` is what libjpeg-turbo makes of
it. Voxels are x fastest, channel slowest, little-endian.
"""

import io
import itertools
import json
import lzma
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import compresso
import numpy as np
import tensorstore as ts
from PIL import Image

Extent = tuple[int, int, int, int]


def voxels(kind: str, extent: Extent, item_size: int) -> np.ndarray:
    """The voxels of a kind, axes x, y, z, channel, in Fortran order."""
    x, y, z, c = np.indices(extent, dtype=np.uint64)
    match kind:
        case "bodies":  # neighbours alike, large numbers
            number = ((x + y // 2) // 6 + 10 * ((y + 2 * z) // 7) + 100 * c) * 0x1_0001_0101 + 3
        case "noise":  # nearly all different
            number = ((x * 7 + y * 1300 + z * 31_000 + c) * 2_654_435_761) % 2**32 >> 8
        case "one":
            number = 0 * x + 7
        case "top":  # the largest, of 1 byte
            number = 255 - ((x * 7 + y * 1300 + z * 31_000 + c) * 2_654_435_761) % 2**32 // 256 % 8
        case "image":  # neighbours similar
            slope = (3 * x + 5 * y + 2 * z + 60 * c) % 510
            number = np.minimum(slope, 510 - slope) * (1 if item_size == 1 else 257)
    number = number.astype(np.uint64) % 2 ** (8 * item_size) if item_size < 8 else number
    return np.asfortranarray(number.astype(f"<u{item_size}"))


def precomputed(array: np.ndarray, **scale: object) -> bytes:
    """The one chunk of an array, as tensorstore writes it."""
    with tempfile.TemporaryDirectory() as folder:
        extent = list(array.shape[:3])
        spec = {
            "driver": "neuroglancer_precomputed",
            "kvstore": f"file://{folder}/",
            "multiscale_metadata": {"data_type": array.dtype.name, "num_channels": array.shape[3], "type": "image"},
            "scale_metadata": {"size": extent, "chunk_size": extent, "resolution": [1, 1, 1], **scale},
        }
        ts.open(spec, create=True).result().write(array).result()
        (chunk,) = (path for path in Path(folder).rglob("*_*_*") if path.is_file())
        return chunk.read_bytes()


def record(codec: str, what: str, kind: str, array: np.ndarray, encoded: bytes, **more: object) -> dict[str, object]:
    extent, item_size = list(array.shape), array.dtype.itemsize
    about = {"codec": codec, "what": what, "kind": kind, "extent": extent, "item_size": item_size}
    return about | more | {"hex": encoded.hex()}


def compressed_segmentation() -> Iterator[dict[str, object]]:
    shapes = [
        ((16, 16, 16, 1), (8, 8, 8)),
        ((17, 9, 5, 2), (8, 8, 8)),
        ((17, 9, 5, 1), (4, 8, 2)),
        ((10, 11, 4, 1), (3, 5, 7)),
        ((3, 2, 1, 1), (8, 8, 8)),
        ((5, 3, 2, 3), (1, 1, 1)),
    ]
    for (extent, block), item_size, kind in itertools.product(shapes, (4, 8), ("bodies", "noise", "one")):
        if kind == "noise" and extent[0] == 16:
            continue
        array = voxels(kind, extent, item_size)
        encoded = precomputed(array, encoding="compressed_segmentation", compressed_segmentation_block_size=list(block))
        yield record("compressed_segmentation", "tensorstore", kind, array, encoded, block=list(block))


def compresso_streams() -> Iterator[dict[str, object]]:
    forms = [(4, True), (4, False), (6, False)]
    steps = [(4, 4, 1), (8, 8, 1), (4, 4, 2), (5, 5, 2), (3, 1, 1), (1, 64, 1), (64, 1, 1)]
    for step, (connectivity, index), extent in itertools.product(steps, forms, [(17, 9, 5, 1), (70, 6, 3, 1)]):
        for item_size, kind in ((1, "bodies"), (2, "noise"), (4, "bodies"), (8, "bodies"), (8, "one")):
            if (item_size, kind) != (4, "bodies") and step not in {(4, 4, 1), (5, 5, 2)}:
                continue
            array = voxels(kind, extent, item_size)
            encoded = compresso.compress(
                array[..., 0], steps=step, connectivity=connectivity, random_access_z_index=index
            )
            assert np.array_equal(compresso.decompress(encoded), array[..., 0])
            what = f"steps {step} connectivity {connectivity} version {encoded[4]}"
            yield record("compresso", what, kind, array, encoded)
    # Labels that must be escaped where outlines touch.
    array = voxels("top", (9, 8, 2, 1), 1)
    yield record("compresso", "labels near the largest", "top", array, compresso.compress(array[..., 0]))


def images() -> Iterator[dict[str, object]]:
    def pixels(array: np.ndarray, width: int) -> np.ndarray:
        """Rows of `width` pixels, axes y, x, and sample if there are several."""
        rows = array.reshape(-1, array.shape[3], order="F").reshape(-1, width, array.shape[3])
        return rows[..., 0] if array.shape[3] == 1 else rows

    for channels, item_size, kind in itertools.product((1, 2, 3, 4), (1, 2), ("image", "noise")):
        array = voxels(kind, (7, 5, 3, channels), item_size)
        yield record("png", "tensorstore", kind, array, precomputed(array, encoding="png"))
    for channels, width in itertools.product((1, 2, 3, 4), (105, 1, 15)):
        array = voxels("noise", (7, 5, 3, channels), 1)
        encoded = io.BytesIO()
        Image.fromarray(pixels(array, width)).save(encoded, "png")
        yield record("png", f"Pillow, {width} wide", "noise", array, encoded.getvalue())
    array = voxels("image", (7, 5, 3, 1), 2)
    encoded = io.BytesIO()
    Image.fromarray(pixels(array, 21)).save(encoded, "png")
    yield record("png", "Pillow, 21 wide", "image", array, encoded.getvalue())

    def jpeg(what: str, array: np.ndarray, encoded: bytes) -> dict[str, object]:
        image = np.asarray(Image.open(io.BytesIO(encoded))).reshape(-1, array.shape[3])
        return record("jpeg", what, "image", array, encoded, decoded=image.tobytes(order="F").hex())

    for channels, extent in itertools.product((1, 3), [(16, 16, 2), (19, 13, 3), (3, 1, 1)]):
        array = voxels("image", (*extent, channels), 1)
        yield jpeg("tensorstore", array, precomputed(array, encoding="jpeg", jpeg_quality=90))
        for options in (
            {"quality": 75},
            {"quality": 95, "subsampling": 0},
            {"quality": 85, "subsampling": 1},
            {"quality": 80, "progressive": True},
            {"quality": 80, "restart_marker_blocks": 2},
        ):
            width = extent[0] * extent[2] if "restart_marker_blocks" in options else extent[0]
            encoded = io.BytesIO()
            Image.fromarray(pixels(array, width)).save(encoded, "jpeg", **options)
            yield jpeg(f"Pillow, {width} wide, {options}", array, encoded.getvalue())


def xz() -> Iterator[dict[str, object]]:
    for nbytes in (1, 3000):
        array = voxels("image", (nbytes, 1, 1, 1), 1)
        raw = array.tobytes()
        for preset in (0, 6, 9 | lzma.PRESET_EXTREME):
            yield record("xz", f"preset {preset}", "image", array, lzma.compress(raw, preset=preset))
        for check in (lzma.CHECK_NONE, lzma.CHECK_CRC32):
            yield record("xz", f"check {check}", "image", array, lzma.compress(raw, check=check))
        half = nbytes // 2
        streams = lzma.compress(raw[:half]), lzma.compress(raw[half:])
        yield record("xz", "two streams", "image", array, b"".join(streams))
        yield record("xz", "streams with padding", "image", array, bytes(8).join(streams))
        blocks = subprocess.run(["xz", "--block-size=700", "-T1"], input=raw, capture_output=True, check=True).stdout
        yield record("xz", "blocks", "image", array, blocks)
    # Not read.
    array = voxels("image", (300, 1, 1, 1), 1)
    raw = array.tobytes()
    delta = [{"id": lzma.FILTER_DELTA, "dist": 3}, {"id": lzma.FILTER_LZMA2, "preset": 6}]
    yield record("xz_unsupported", "delta", "image", array, lzma.compress(raw, filters=delta))
    yield record("xz_unsupported", "SHA-256", "image", array, lzma.compress(raw, check=lzma.CHECK_SHA256))
    array = voxels("noise", (3000, 1, 1, 1), 1)
    yield record("xz", "noise", "noise", array, lzma.compress(array.tobytes()))


def lz4_java(jar: str) -> Iterator[dict[str, object]]:
    cases = [
        (block_size, kind, voxels(kind, (nbytes, 1, 1, 1), 1))
        for block_size, nbytes in (
            (65_536, 1),
            (65_536, 3000),
            (64, 3000),
            (1025, 3000),
            (1000, 3000),
            (32 << 20, 3000),
        )
        for kind in ("image", "noise")
    ]
    lines = "\n".join(f"{block_size} {array.tobytes().hex()}" for block_size, _, array in cases)
    program = Path(__file__).with_name("Lz4Blocks.java")
    command = ["java", "-cp", jar, str(program)]
    encoded = subprocess.run(command, input=lines, capture_output=True, check=True, text=True).stdout.split()
    for (block_size, kind, array), stream in zip(cases, encoded, strict=True):
        yield record("lz4_java", f"blocks of {block_size}", kind, array, bytes.fromhex(stream))


def main(jar: str) -> None:
    versions = {name: version(name) for name in ("tensorstore", "pillow", "compresso", "numpy")}
    versions |= {"lz4-java": Path(jar).stem.removeprefix("lz4-java-"), "liblzma": "Python " + sys.version.split()[0]}
    records = itertools.chain(compressed_segmentation(), compresso_streams(), images(), xz(), lz4_java(jar))
    with Path(__file__).with_name("chunks.jsonl").open("w") as lines:
        for each in itertools.chain([versions], records):
            lines.write(json.dumps(each) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
