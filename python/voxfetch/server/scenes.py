"""`Scenes`: the scenes of a registry's nodes, and their channels, kept: what a window is was read from voxels."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

import voxfetch as vf
from voxfetch.server.chunks import position_of
from voxfetch.server.scene import Scene, channels_of, scene_of
from voxfetch.server.shown import show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxfetch.server.contrast import ShownChannel
    from voxfetch.server.registry import Registry

__all__ = ["Scenes"]

_MAX_KEPT = 256
_Place = tuple[str, ...]


class Scenes:
    """Finds scenes; the last few hundred are kept. Used by one event loop."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._scenes: OrderedDict[_Place, tuple[object, Scene]] = OrderedDict()
        self._at_work: dict[_Place, asyncio.Task[tuple[ShownChannel, ...]]] = {}

    async def node(self, source: str, path: Sequence[str]) -> vf.Array | vf.Image | vf.Group | None:
        """Returns what lies there, a level of an image (by its number) too; None where nothing lies there."""
        node, rest = await self._registry.find(source, tuple(path))
        place = position_of(rest) if isinstance(node, vf.Image) and len(rest) == 1 else None
        if isinstance(node, vf.Image) and place and place[0] < len(node.levels):
            return node.levels[place[0]]
        return None if rest else node

    async def find(self, source: str, path: Sequence[str], *, channels: bool = True) -> Scene | None:
        """Returns the scene of what lies there; None where nothing lies there, or a group.

        With its `channels`, or without them, for which voxels may have to be read, if they are not known yet. Raises
        `UnsupportedError` for what is no picture, and what opening and reading it raise.
        """
        node = await self.node(source, path)
        if not isinstance(node, vf.Array | vf.Image):
            return None
        place = (source, *path)
        kept = self._scenes.get(place)
        if kept is not None and kept[0] is node:
            self._scenes.move_to_end(place)
            scene = kept[1]
        else:
            scene = self._keep(place, node, scene_of(await self._registry.run(lambda: show(node))))
        if not channels or scene.channels or scene.is_label:
            return scene
        return self._keep(place, node, replace(scene, channels=await self._channels(place, scene)))

    def _keep(self, place: _Place, node: object, scene: Scene) -> Scene:
        self._scenes[place] = (node, scene)
        self._scenes.move_to_end(place)
        while len(self._scenes) > _MAX_KEPT:
            self._scenes.popitem(last=False)
        return scene

    async def _channels(self, place: _Place, scene: Scene) -> tuple[ShownChannel, ...]:
        """The channels, read once for all that wait; who leaves takes nothing from the others."""
        task = self._at_work.get(place)
        if task is None:
            task = self._at_work[place] = asyncio.ensure_future(channels_of(scene))
            task.add_done_callback(lambda done: self._ended(place, done))
        return await asyncio.shield(task)

    def _ended(self, place: _Place, task: asyncio.Task[tuple[ShownChannel, ...]]) -> None:
        self._at_work.pop(place, None)
        if not task.cancelled():
            task.exception()  # whoever waits gets it; nobody may be left
