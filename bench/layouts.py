"""How volumes are stored: layouts, and for each volume its source (``bench.volumes``) and its layout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.writers import Format, Writer


@dataclass(frozen=True)
class Layout:
    """How voxels are stored: shapes in the order of ``axes``, ``codecs`` inside a shard (or of a chunk).

    No chunk is larger than the array. ``codecs`` of format "zarr" is the compressor alone; of those beside Zarr it is
    one value, what their writer takes. Of a format of one file with a table of chunks ``shard`` is what the
    file holds. ``repeats`` is a volume: its shards, stored ``REPEATS`` times along the first axis.
    """

    what: str
    writer: Writer
    chunk: tuple[int, ...]
    shard: tuple[int, ...] | None = None
    codecs: tuple[dict[str, Any], ...] = ()
    format: Format = "zarr3"
    axes: str = "zyx"
    layer: str | None = None
    repeats: str | None = None

    @property
    def object_shape(self) -> tuple[int, ...]:
        """Voxels of one stored object: a shard, or a chunk where there are none."""
        return self.shard or self.chunk


REPEATS = 4

_BYTES: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
_ZSTD: dict[str, Any] = {"name": "zstd", "configuration": {"level": 3, "checksum": False}}
_ZSTD_CHECKED: dict[str, Any] = {"name": "zstd", "configuration": {"level": 5, "checksum": True}}
_BITSHUFFLED: dict[str, Any] = {
    "name": "blosc",
    "configuration": {"cname": "zstd", "clevel": 5, "shuffle": "bitshuffle", "typesize": 2, "blocksize": 0},
}
_LZ4_SHUFFLED: dict[str, Any] = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1}
_REVERSED: dict[str, Any] = {"name": "transpose", "configuration": {"order": [3, 2, 1, 0]}}
_GZIP: dict[str, Any] = {"type": "gzip", "level": 6}
_SEGMENTS: dict[str, Any] = {
    "encoding": "compressed_segmentation",
    "compressed_segmentation_block_size": [8, 8, 8],
}
_MINISHARDS: dict[str, Any] = {
    "sharding": {
        "@type": "neuroglancer_uint64_sharded_v1",
        "preshift_bits": 6,
        "hash": "identity",
        "minishard_bits": 2,
        "shard_bits": 1,
        "minishard_index_encoding": "gzip",
        "data_encoding": "gzip",
    }
}

SHARDED = Layout("Zarr v3, shard 512^3, chunk 32^3, zstd 3", "zarr", (32,) * 3, (512,) * 3, (_BYTES, _ZSTD))
RAW = Layout("Zarr v3, shard 512^3, chunk 32^3, uncompressed", "zarr", (32,) * 3, (512,) * 3, (_BYTES,))
ONE_SHARD = Layout("Zarr v3, shard 1024^3, chunk 32^3, zstd 3", "tensorstore", (32,) * 3, (1024,) * 3, (_BYTES, _ZSTD))
SLABS = Layout("Zarr v3, unsharded, chunk (1,1024,1024), zstd 3", "zarr", (1, 1024, 1024), None, (_BYTES, _ZSTD))
UNSHARDED_64 = Layout("Zarr v3, unsharded, chunk 64^3, zstd 3", "zarr", (64,) * 3, None, (_BYTES, _ZSTD))
UNSHARDED_128 = Layout("Zarr v3, unsharded, chunk 128^3, zstd 3", "zarr", (128,) * 3, None, (_BYTES, _ZSTD))
BLOSC = Layout(
    "Zarr v3, shard 512^3, chunk 64^3, blosc zstd bitshuffle", "zarr", (64,) * 3, (512,) * 3, (_BYTES, _BITSHUFFLED)
)
V2_BLOSC = Layout("Zarr v2, chunk 64^3, blosc lz4 shuffle", "zarr", (64,) * 3, None, (_LZ4_SHUFFLED,), "zarr")
V2_CUBES = Layout("Zarr v2, chunk 128^3, blosc lz4 shuffle", "zarr", (128,) * 3, None, (_LZ4_SHUFFLED,), "zarr")
V2_TILES = Layout(
    "Zarr v2, chunk (1,2048,2048), blosc lz4 shuffle", "zarr", (1, 2048, 2048), None, (_LZ4_SHUFFLED,), "zarr"
)
WEBKNOSSOS = Layout(
    "WEBKNOSSOS: (c,x,y,z), shard 1024^3, chunk 32^3, transposed, zstd 5 with checksum",
    "tensorstore", (1, 32, 32, 32), (1, 1024, 1024, 1024), (_REVERSED, _BYTES, _ZSTD_CHECKED),
    axes="cxyz", layer="color",
)  # fmt: skip
WEBKNOSSOS_64 = replace(WEBKNOSSOS, what=WEBKNOSSOS.what.replace("chunk 32^3", "chunk 64^3"), chunk=(1, 64, 64, 64))
WKW = Layout(
    "WKW, files of 1024^3, blocks of 32^3, lz4", "wkw", (1, 32, 32, 32), (1, 1024, 1024, 1024),
    ({"block_type": "lz4"},), "wkw", "cxyz", "color",
)  # fmt: skip
WKW_64 = replace(WKW, what="WKW, files of 1024^3, blocks of 64^3, lz4", chunk=(1, 64, 64, 64))
N5 = Layout("N5, blocks of 64^3, gzip", "tensorstore", (64,) * 3, None, (_GZIP,), "n5", "xyz")
PRECOMPUTED = Layout(
    "precomputed, shards of 512 chunks of 64^3 at most, raw, gzip", "tensorstore", (64, 64, 64, 1), (256, 256, 256, 1),
    ({"encoding": "raw", **_MINISHARDS},), "precomputed", "xyzc",
)  # fmt: skip
FILES = replace(
    PRECOMPUTED, what="precomputed, unsharded, chunks of 64^3, raw", shard=None, codecs=({"encoding": "raw"},)
)
ZIP = Layout("ZIP of a Zarr v3, shard 256^3, chunk 32^3, zstd 3", "zarr", (32,) * 3, (256,) * 3, (_BYTES, _ZSTD), "zip")

HDF5 = Layout(
    "HDF5, chunks of 64^3, gzip 4", "h5py", (64,) * 3, (1024,) * 3,
    ({"compression": "gzip", "compression_opts": 4},), "hdf5",
)  # fmt: skip
HDF5_SHUFFLED = replace(
    HDF5, what="HDF5, chunks of 64^3, shuffle, gzip 4", codecs=({**HDF5.codecs[0], "shuffle": True},)
)
REFERENCES = replace(
    HDF5, what="references of kerchunk to HDF5, chunks of 64^3, gzip 4", writer="kerchunk", format="references"
)
B2ND = Layout("Blosc2 NDim, chunks of 64^3, defaults: zstd 5, shuffle", "blosc2", (64,) * 3, (1024,) * 3, (), "b2nd")
BOSSDB = Layout("BossDB, cutouts of one resolution", "numpy", (16, 512, 512), None, (), "bossdb")
#: Format -> what the files are called where it needs a name of its own.
SUFFIXES: dict[Format, str] = {"zip": ".zip", "hdf5": ".h5", "references": ".json", "b2nd": ".b2nd", "bossdb": ".npy"}

#: volume -> (source, layout)
VOLUMES: dict[str, tuple[str, Layout]] = {
    "em": ("em", SHARDED),
    "labels": ("labels", SHARDED),
    "em_raw": ("em", RAW),
    "real_em": ("real_em", SHARDED),
    "real_labels": ("real_labels", SHARDED),
    "webknossos": ("em", WEBKNOSSOS),
    "webknossos64": ("em", WEBKNOSSOS_64),
    "slabs": ("em", SLABS),
    "em64": ("em", UNSHARDED_64),
    "em128": ("em", UNSHARDED_128),
    "lm_blosc": ("lm", BLOSC),
    "v2_blosc": ("lm", V2_BLOSC),
    "labels64": ("labels64", SHARDED),
    "em_one_shard": ("em", ONE_SHARD),
    "em_long": ("em", replace(SHARDED, repeats="em")),
    "cubes": ("lm", V2_CUBES),
    "tiles": ("lm", V2_TILES),
    "wkw": ("em", WKW),
    "wkw64": ("em", WKW_64),
    "wkw_labels": ("labels64", replace(WKW, layer="labels")),
    "n5": ("em", N5),
    "n5_labels": ("labels64", N5),
    "precomputed": ("em", PRECOMPUTED),
    "precomputed_labels": (
        "labels64",
        replace(
            PRECOMPUTED,
            what="precomputed, shards of 512 chunks of 64^3 at most, compressed_segmentation, gzip",
            codecs=({**_SEGMENTS, **_MINISHARDS},),
        ),
    ),
    "files": ("em", FILES),
    "files_labels": (
        "labels64",
        replace(FILES, what="precomputed, unsharded, chunks of 64^3, compressed_segmentation", codecs=({**_SEGMENTS},)),
    ),
    "zip": ("em", ZIP),
    "zip_labels": ("labels64", ZIP),
    "hdf5": ("em", HDF5),
    "hdf5_lm": ("lm", HDF5_SHUFFLED),
    "hdf5_labels": ("labels64", HDF5),
    "references": ("em", REFERENCES),
    "references_labels": ("labels64", REFERENCES),
    "b2nd": ("em", B2ND),
    "b2nd_labels": ("labels64", B2ND),
    "bossdb": ("em", BOSSDB),
}
#: Read by ``bench.serve`` alone.
SERVED = ("webknossos64", "wkw64")
#: Names that stand for several volumes. Of none: those on request or served, and cubes and tiles of ``bench.remote``.
VOLUME_GROUPS = {
    "shards": ("em", "labels", "em_raw", "real_em", "real_labels", "webknossos"),
    "layouts": ("slabs", "em64", "em128", "lm_blosc", "v2_blosc"),
    "formats": tuple(
        name for name, (_, layout) in VOLUMES.items() if layout.format not in ("zarr3", "zarr") and name not in SERVED
    ),
}
