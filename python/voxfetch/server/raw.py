"""`/raw/SOURCE/KEY`: the stored objects of a source, byte for byte, for clients that read the format themselves."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from voxfetch.encoding import fingerprint
from voxfetch.server.answers import MAX_ETAG, Asked, Parts

if TYPE_CHECKING:
    from voxfetch.server.options import ServerOptions
    from voxfetch.server.registry import Registry

__all__ = ["RawPlane"]

_DOCUMENTS = (".json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


class RawPlane:
    """Gives what a source's own store holds, read in the parts that are sent."""

    def __init__(self, registry: Registry, options: ServerOptions) -> None:
        del options  # nothing of any size is held
        self._registry = registry
        self._stored: dict[str, Any] = {}

    async def answer(self, asked: Asked) -> Parts | None:
        """Returns the object at a key, None when there is none; of a source in one file, that file without a key."""
        stored = self._stored.get(asked.source)
        if stored is None:
            stored = self._stored[asked.source] = (await self._registry.root(asked.source)).stored
        key = "/".join(asked.segments)
        version = await stored.version(key)
        if version is None:
            return None
        read = partial(stored.read, key, version=version)
        kind = "application/json" if key.endswith(_DOCUMENTS) or key == "info" else "application/octet-stream"
        etag = version.etag
        if etag is not None and len(etag) > MAX_ETAG:
            etag = fingerprint(etag.encode())
        return Parts(version.nbytes, read, etag, kind)
