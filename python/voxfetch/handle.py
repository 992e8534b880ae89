"""What the core keeps of an array: documents, place and options in, a `_core.LocalArray` or `_core.RemoteArray` out.

How requests are merged where the caller does not say is here: it differs between a disk and a network.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from voxfetch import _core
from voxfetch.errors import VoxfetchError
from voxfetch.objects import finder

if TYPE_CHECKING:
    from voxfetch.objects import Objects
    from voxfetch.options import ReadOptions
    from voxfetch.store import RemoteStore

__all__ = ["array_meta", "local_array", "remote_array"]

# The profile of local files: a gap costs a copy from the page cache, a request a system call.
_LOCAL_MAX_GAP_BYTES = 16 << 10
_LOCAL_MAX_REQUEST_BYTES = 1 << 20
# That of remote stores: a request costs a round trip, and parts of a region come faster over several connections.
_REMOTE_MAX_GAP_BYTES = 64 << 10
_REMOTE_MAX_REQUEST_BYTES = 1 << 20
# A larger gap is no use, and would reach from one object into the next where several are one address space.
_MOST_GAP_BYTES = 1 << 38


def array_meta(
    document: bytes,
    format: str,  # noqa: A002 - the word of the public names
    separator: str | None,
    key: str,
    objects: Objects,
) -> _core.ArrayMeta:
    """Returns what the document at `key` says of an array. Elements of no fixed size go to `objects` when decoded.

    Raises `MetadataError`, `UnsupportedError` or `LimitExceededError` for documents that cannot be read.
    """
    try:
        if format == "zarr3":
            return _core.ArrayMeta.from_zarr3(document, finder("zarr3", objects))
        if format in {"zarr2", "b2nd", "hdf5"}:
            return _core.ArrayMeta.from_zarr2(document, separator, finder("zarr2", objects))
        return _core.ArrayMeta.from_document(document, format)
    except VoxfetchError as error:
        error.in_object(key)
        raise


def local_array(
    meta: _core.ArrayMeta, root: str, document: str, options: ReadOptions, inside: str | None = None
) -> _core.LocalArray:
    """Returns the handle of an array in the folder `root`, described by `document` there.

    `inside` is a folder, without links in its path, out of which no link may lead; None: they are followed.
    """
    gap, cut = options.max_gap_bytes, options.max_request_bytes
    return _core.LocalArray(
        meta,
        root,
        document=document,
        max_gap_bytes=_LOCAL_MAX_GAP_BYTES if gap is None else gap,
        max_request_bytes=_LOCAL_MAX_REQUEST_BYTES if cut is None else cut,
        verify_checksums=options.verify == "full",
        missing_is_error=options.on_missing == "raise",
        immutable=options.immutable,
        inside=inside,
    )


def remote_array(
    meta: _core.ArrayMeta, store: RemoteStore, path: str, url: str, options: ReadOptions
) -> _core.RemoteArray:
    """Returns the handle of an array at `path` in a store; `url` is what errors call it."""
    gap, cut = options.max_gap_bytes, options.max_request_bytes
    return _core.RemoteArray(
        meta,
        store,
        path,
        identity=store.identity,
        url=url,
        max_gap_bytes=_REMOTE_MAX_GAP_BYTES if gap is None else min(gap, _MOST_GAP_BYTES),
        max_request_bytes=_REMOTE_MAX_REQUEST_BYTES if cut is None else cut,
        verify_checksums=options.verify == "full",
        missing_is_error=options.on_missing == "raise",
        trust_s=math.inf if options.immutable else options.index_ttl_s,
        trust_missing_s=math.inf if options.immutable or options.missing_ttl_s is None else options.missing_ttl_s,
        interactive=options.priority == "interactive",
    )
