"""What the planes share: the nodes of a registry under a preset, each made once, and the answers that are documents.

A plane asks for segments of a path; what comes back is the view of a node and what is left of the path below it. A view
lives for as long as the registry gives the same node, and few enough are kept.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import voxfetch as vf
from voxfetch.encoding import fingerprint
from voxfetch.server.answers import Body
from voxfetch.server.cache import ChunkCache
from voxfetch.server.contrast import shown_channels
from voxfetch.server.shown import show

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from voxfetch.server.answers import Asked
    from voxfetch.server.contrast import ShownChannel
    from voxfetch.server.options import ServerOptions
    from voxfetch.server.registry import Registry
    from voxfetch.server.shown import Shown

__all__ = ["ChunkPlane", "Once", "View", "Views", "document_body"]

_T = TypeVar("_T")

_MAX_VIEWS = 512
_MAX_LABELS = 64


@dataclass(slots=True)
class _Making(Generic[_T]):
    task: asyncio.Task[_T]
    waiting: int = 0


class Once(Generic[_T]):
    """A value that is made when it is first asked for; makers that fail, or whose callers all left, are tried again."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, _T]]) -> None:
        """`make` is called on the event loop of the first caller."""
        self._make = make
        self._making: _Making[_T] | None = None

    async def __call__(self) -> _T:
        """The value. Raises what making it raises, to all who wait for it."""
        making = self._making
        if making is None:
            making = self._making = _Making(asyncio.create_task(self._make()))
        making.waiting += 1
        try:
            return await asyncio.shield(making.task)
        except BaseException:
            is_over = making.task.done() or making.waiting == 1
            if is_over and self._making is making:
                self._making = None
            if is_over:
                making.task.cancel()
            raise
        finally:
            making.waiting -= 1


class View:
    """A node under a preset, with what a plane has made of it."""

    def __init__(self, shown: Shown, source: str, path: tuple[str, ...]) -> None:
        """`path` leads from the source to the node."""
        self.shown = shown
        self.source = source
        self.path = path
        self.channels: Once[tuple[ShownChannel, ...]] = Once(lambda: shown_channels(shown))
        #: Documents by name, and what is made for a level by its number.
        self.documents: dict[str, Once[Body]] = {}
        self.levels: dict[int, Any] = {}

    @property
    def is_in_labels(self) -> bool:
        """Whether it is shown at `labels/NAME` of an image."""
        return len(self.path) >= 2 and self.path[-2] == "labels"

    async def document(self, name: str, make: Callable[[], Coroutine[Any, Any, dict[str, Any]]]) -> Body:
        """A document of the node, made once."""

        async def body() -> Body:
            return document_body(await make())

        return await self.documents.setdefault(name, Once(body))()


class Views:
    """The views of one plane."""

    def __init__(self, registry: Registry, cache: ChunkCache) -> None:
        """Opens nothing."""
        self.registry = registry
        self.cache = cache
        self._views: OrderedDict[tuple[str, str, tuple[str, ...]], View] = OrderedDict()

    async def find(self, asked: Asked) -> tuple[View, tuple[str, ...]]:
        """The view of the node that the path leads to, and the segments below it. Raises what opening it does."""
        return await self.at(asked.source, asked.segments, asked.preset)

    async def at(self, source: str, segments: tuple[str, ...], preset: str) -> tuple[View, tuple[str, ...]]:
        """The same, by its parts."""
        node, rest = await self.registry.find(source, segments)
        rest = tuple(rest)
        path = segments[: len(segments) - len(rest)]
        key = (source, preset, path)
        view = self._views.get(key)
        if view is None or view.shown.node is not node:
            shown = await self.cache.in_thread(lambda: show(node, preset))
            view = self._views.get(key)
            # Unless another has made it meanwhile.
            if view is None or view.shown.node is not node:
                view = self._views[key] = View(shown, source, path)
            while len(self._views) > _MAX_VIEWS:
                self._views.popitem(last=False)
        self._views.move_to_end(key)
        return view, rest

    async def labels(self, view: View) -> dict[str, View]:
        """Views of the label images of an image, by name; without those that cannot be opened.

        None of more than 64: to open them all would take longer than who asks waits.
        """
        names = view.shown.labels if len(view.shown.labels) <= _MAX_LABELS else ()
        found = await asyncio.gather(*(self._label(view, name) for name in names))
        return {name: label for name, label in zip(names, found, strict=True) if label is not None}

    async def label_names(self, view: View) -> tuple[str, ...]:
        """Names to list: of label images that can be opened, for who finds one that cannot may take none."""
        names = view.shown.labels
        return tuple(await self.labels(view)) if len(names) <= _MAX_LABELS else names

    async def _label(self, view: View, name: str) -> View | None:
        path = (*view.path, "labels", *name.split("/"))
        try:
            label, rest = await self.at(view.source, path, view.shown.preset)
        except (vf.NotFoundError, vf.MetadataError, vf.UnsupportedError):
            return None
        return label if not rest and label.shown.kind == "image" else None


class ChunkPlane:
    """What the planes have in common that hand chunks out."""

    def __init__(self, registry: Registry, options: ServerOptions, cache: ChunkCache | None = None) -> None:
        """`cache` is shared with other planes; without one the plane has its own of `options.cache_bytes`."""
        self.cache = ChunkCache(options.cache_bytes) if cache is None else cache
        self._views = Views(registry, self.cache)
        self._immutable = options.immutable

    async def aclose(self) -> None:
        """Ends all work. Closes the cache, shared or not."""
        await self.cache.aclose()


def document_body(document: dict[str, Any]) -> Body:
    """A JSON document as it is sent."""
    text = json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    content = text.encode("utf-8", "replace")
    return Body(content, "application/json", fingerprint(content))
