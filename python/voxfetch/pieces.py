"""One box of an array whose server cuts out any box: an array of its own, of which nothing is fetched but that box."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from voxfetch import _core
from voxfetch.engine import default_engine
from voxfetch.handle import remote_array
from voxfetch.store import join_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxfetch.engine import Engine
    from voxfetch.options import ReadOptions
    from voxfetch.store import CuttingStore

__all__ = ["Alone"]


@dataclass(frozen=True, slots=True)
class Alone:
    """Makes the arrays of single boxes of the array `meta`, which lies at `path` in a store and is called `url`."""

    meta: _core.ArrayMeta
    store: CuttingStore
    path: str
    url: str
    options: ReadOptions
    engine: Engine | None

    def array(self, box: Sequence[tuple[int, int]]) -> tuple[_core.RemoteArray, tuple[int, ...]] | None:
        """Returns the array of a box, [start, end) along each stored axis, and where the box begins in it.

        None where decoded chunks are kept, which are whole ones.
        """
        if (self.engine or default_engine()).options.chunk_cache_bytes:
            return None
        pieces = self.store.pieces(self.path, box)
        document = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": pieces.shape,
            "data_type": self.meta.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": pieces.chunk_shape}},
            "chunk_key_encoding": {"name": "default"},
            "fill_value": 0,
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        }
        meta = _core.ArrayMeta.from_zarr3(json.dumps(document).encode())
        path, url = join_key(self.path, pieces.name), join_key(self.url, pieces.name)
        return remote_array(meta, self.store, path, url, self.options), pieces.start
