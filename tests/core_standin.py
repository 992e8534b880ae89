import asyncio, hashlib, json, struct, sys, types
from pathlib import Path
import numcodecs, numpy as np
import voxfetch as vf
from voxfetch.array import Array

enc = types.ModuleType("voxfetch.encoding")
enc.fingerprint = lambda d: hashlib.blake2b(d, digest_size=8).hexdigest()


class Encoder:
    def __init__(self, document):
        d = json.loads(document)
        self.d = d
        self.shape = d["chunk_grid"]["configuration"]["chunk_shape"]
        import zarr

        self.dtype = np.dtype(d["data_type"]) if isinstance(d["data_type"], str) else np.dtype("M8[ns]")
        f = d["fill_value"]
        self.fill = np.array(complex(*f) if isinstance(f, list) else float(f) if isinstance(f, str) else f).astype(
            self.dtype
        )

    def encode(self, position, voxels):
        assert voxels.dtype == self.dtype, (voxels.dtype, self.dtype)
        whole = np.full(self.shape, self.fill, self.dtype)
        whole[tuple(slice(0, n) for n in voxels.shape)] = voxels
        if (whole.view(f"V{self.dtype.itemsize}") == self.fill.view(f"V{self.dtype.itemsize}")).all():
            return None
        return numcodecs.Zstd(level=1).encode(whole.tobytes())


enc.Encoder = Encoder


def standin():
    if "voxfetch.encoding" in sys.modules:
        return
    try:
        import voxfetch.encoding
    except ImportError:
        sys.modules["voxfetch.encoding"] = enc
        Array.document = property(lambda self: self._document)
        Array.read_encoded_async = read


async def read(self, position):
    assert self._order is None
    doc = json.loads(self._document)
    root = Path(self._root)

    def key(pos):
        if self._format == "zarr2":
            sep = self._separator or doc.get("dimension_separator", ".")
            return sep.join(map(str, pos)) or "0"
        e = doc["chunk_key_encoding"]
        c = e.get("configuration", {})
        if e["name"] == "default":
            sep = c.get("separator", "/")
            return sep.join(["c", *map(str, pos)])
        return c.get("separator", ".").join(map(str, pos)) or "0"

    if self.shards is None:
        p = root / key(position)
        return p.read_bytes() if p.exists() else None
    per = [s // c for s, c in zip(self.shards, self.chunks)]
    p = root / key([a // n for a, n in zip(position, per)])
    if not p.exists():
        return None
    data = p.read_bytes()
    n = int(np.prod(per))
    sh = next(c for c in doc["codecs"] if c["name"] == "sharding_indexed")["configuration"]
    size = 16 * n + (4 if len(sh["index_codecs"]) > 1 else 0)
    idx = data[:size] if sh.get("index_location") == "start" else data[-size:]
    index = np.frombuffer(idx[: 16 * n], "<u8").reshape(*per, 2)
    o, l = (int(v) for v in index[tuple(a % m for a, m in zip(position, per))])
    return None if o == 2**64 - 1 else data[o : o + l]


standin()
