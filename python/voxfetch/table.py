"""Where the chunks of an array lie that no key names: in a file with a table of its own, or by references.

In: what a format module found. Out: what the core plans with, in place of keys and indexes; merging, caching and
decoding are those of every other array.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from voxfetch.errors import VoxfetchError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from voxfetch import _core

__all__ = ["MISSING", "ChunkTable", "FileVersion", "ObjectVersion"]

MISSING = 2**64 - 1
"""Offset of a chunk that is not stored."""


class FileVersion(NamedTuple):
    """A version of a local file, by what `os.fstat` says of it (`modified_ns` since 1970)."""

    device: int
    inode: int
    nbytes: int
    modified_ns: int


class ObjectVersion(NamedTuple):
    """A version of an object of a store, as a `Reply` tells it."""

    etag: str | None
    modified: str | None
    total: int | None


@dataclass(frozen=True, slots=True, eq=False)
class ChunkTable:
    """The place of each chunk of an array: one entry for each cell of its chunk grid, in C order.

    `files` are keys in the store of the array's node, from the root of the store; `offsets` and `nbytes` say which
    bytes of them are a chunk, with offset `MISSING` for one that is not stored (fill value); `numbers` say in which of
    `files` each lies (None: all in the first). Bit `i` of a mask says that the bytes -> bytes codec `i`, in encoding
    order, was left out of that chunk. `version` is that of the only file when the table was read: reads of any other
    raise `ObjectChangedError`. With `clipped` chunks at the end of the array hold the voxels inside it only, which
    must be the beginning of a whole chunk: at most the first axis along which chunks have more than one voxel is cut.
    """

    files: tuple[str, ...]
    offsets: NDArray[np.uint64]
    nbytes: NDArray[np.uint64]
    numbers: NDArray[np.uint32] | None = None
    masks: NDArray[np.uint32] | None = None
    version: FileVersion | ObjectVersion | None = None
    clipped: bool = False

    def meta(self, document: _core.ArrayMeta, key: str) -> _core.ArrayMeta:
        """Returns the array of the document at `key` with its chunks where this table says.

        Raises `MetadataError` where the two contradict each other, `UnsupportedError`, `LimitExceededError`.
        """
        try:
            return document.with_table(
                self.files,
                self.offsets,
                self.nbytes,
                numbers=self.numbers,
                masks=self.masks,
                version=self.version,
                clipped=self.clipped,
            )
        except VoxfetchError as error:
            error.in_object(key)
            raise
