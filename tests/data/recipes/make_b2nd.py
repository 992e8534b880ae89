"""tests/data/b2nd/blosc2-4.14.1: one array of Blosc2 NDim for each codec, with filters, and one without stored chunks.

Each holds `volume()`, uint16 (13, 14, 15), but for `zeros.b2nd`. Chunks and blocks are no multiples of each other.

usage: python tests/data/recipes/make_b2nd.py (needs blosc2 4.14.1)
"""

from pathlib import Path

import blosc2
import numpy as np

FOLDER = Path(__file__).resolve().parents[1] / "b2nd" / "blosc2-4.14.1"
CHUNKS, BLOCKS = (9, 10, 11), (4, 5, 6)
SHUFFLE, BITS, DELTA = blosc2.Filter.SHUFFLE, blosc2.Filter.BITSHUFFLE, blosc2.Filter.DELTA
MADE = {
    "blosclz-shuffle": (blosc2.Codec.BLOSCLZ, [SHUFFLE]),
    "lz4-bitshuffle": (blosc2.Codec.LZ4, [BITS]),
    "lz4hc": (blosc2.Codec.LZ4HC, []),
    "zlib-delta": (blosc2.Codec.ZLIB, [DELTA]),
    "zstd-delta-shuffle": (blosc2.Codec.ZSTD, [DELTA, SHUFFLE]),
}


def volume() -> np.ndarray:
    z, y, x = np.indices((13, 14, 15))
    return (z * 7 + y // 3 + (x > 9) * 300).astype("<u2")


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, (codec, filters) in MADE.items():
        cparams = {"codec": codec, "filters": filters, "filters_meta": [0] * len(filters), "nthreads": 1}
        where = {"urlpath": str(FOLDER / f"{name}.b2nd"), "mode": "w"}
        array = blosc2.asarray(volume(), chunks=CHUNKS, blocks=BLOCKS, cparams=cparams, **where)
        array.schunk.vlmeta["name"] = name
    where = {"urlpath": str(FOLDER / "zeros.b2nd"), "mode": "w"}
    blosc2.zeros((13, 14, 15), dtype="<u2", chunks=CHUNKS, blocks=BLOCKS, **where)


if __name__ == "__main__":
    main()
