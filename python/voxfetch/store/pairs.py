"""Shards in two objects, `.index` and `.data`: an older form of precomputed volumes, which is not read.

Its shards seem absent, and must not pass for zeros. The first `.shard` of a folder that is absent is looked for in that
form, once; what was found to be sound is not looked at again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from voxfetch.errors import (
    ObjectChangedError,
    PermissionDeniedError,
    RangeNotHonouredError,
    UnsupportedError,
    VoxfetchError,
)
from voxfetch.store import Ask

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from voxfetch.store import RemoteStore, Reply

    Get = Callable[[Ask], Awaitable[Reply | None]]

__all__ = ["Pairs"]

_SHARD = ".shard"


class Pairs:
    """What was found in the folders of stores; called on one loop only."""

    __slots__ = ("_looked",)

    def __init__(self) -> None:
        # Identity of a store -> folder -> the look at it, under way or done.
        self._looked: dict[str, dict[str, asyncio.Task[bool | VoxfetchError]]] = {}

    async def check(self, store: RemoteStore, key: str, get: Get) -> None:
        """Raises `UnsupportedError` when `key`, which is absent, is a shard in two objects; and what `get` raises."""
        if not key.endswith(_SHARD):
            return
        import asyncio

        folder, index = key.rpartition("/")[0], f"{key.removesuffix(_SHARD)}.index"
        folders = self._looked.setdefault(store.identity, {})
        look = folders.get(folder)
        if look is None:
            look = folders[folder] = asyncio.get_running_loop().create_task(_exists(index, get))
        # Shielded: it is for all, and one of them may be cancelled.
        found = await asyncio.shield(look)
        if found is False:
            return
        if folders.get(folder) is look:
            del folders[folder]
        if found is not True:
            raise found
        message = "a precomputed shard in two files, `.index` and `.data`"
        raise UnsupportedError(message, key=index, hint="append the second to the first, and call that `.shard`")

    def forget(self, identity: str) -> None:
        """Drops what is known of a store."""
        self._looked.pop(identity, None)


async def _exists(key: str, get: Get) -> bool | VoxfetchError:
    """Returns an exception instead of raising it: those who wait may be gone."""
    try:
        return await get(Ask(key, 0, 1)) is not None
    except (ObjectChangedError, RangeNotHonouredError):
        return True
    except PermissionDeniedError:
        return False
    except VoxfetchError as error:
        return error
