"""`/z3/`: any source as Zarr v3 without shards, images as OME-Zarr 0.5.

| path below a source | what |
|-|-|
| `zarr.json` | a group, an array, or an image: with the documents of all below it, for clients that open it at once |
| `0/zarr.json`, `0/c/0/1/2` | levels of an image are called 0, 1, 2 |
| `labels/zarr.json`, `labels/NAME/...` | its label images, images themselves |
| `c/0/1/2` | chunks of an array; 404 for one that is nothing but fill value |

`NAME/...` below a group are its members. There is no document of Zarr v2 anywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from voxfetch.server.chunks import Chunks, position_of
from voxfetch.server.layout import array_attributes, zarr3_array
from voxfetch.server.ome import group_attributes, image_attributes, labels_attributes, plain_json
from voxfetch.server.views import ChunkPlane

if TYPE_CHECKING:
    from voxfetch.server.answers import Asked, Body
    from voxfetch.server.views import View

__all__ = ["Zarr3Plane"]


class Zarr3Plane(ChunkPlane):
    """The plane of Zarr v3."""

    async def answer(self, asked: Asked) -> Body | None:
        """Returns a document or a chunk, None when there is no such thing. Raises errors of voxfetch."""
        view, rest = await self._views.find(asked)
        shown = view.shown
        if rest == ("zarr.json",):
            return await view.document("zarr.json", lambda: self._root(view))
        if shown.kind == "image" and rest == ("labels", "zarr.json") and shown.labels:
            return await view.document("labels", lambda: self._labels(view))
        number, rest = level_of(view, rest)
        if number is None:
            return None
        if rest == ("zarr.json",):
            return await view.document(f"{number}/zarr.json", lambda: self._array(view, number))
        if rest[:1] == ("c",) and (position := position_of(rest[1:])) is not None:
            return await self._level(view, number)[1].chunk(position)
        return None

    def _level(self, view: View, number: int) -> tuple[dict[str, Any], Chunks]:
        if number not in view.levels:
            level = view.shown.levels[number]
            document, source = zarr3_array(level, array_attributes(level))
            tag = f"z3.{view.shown.preset}.1"
            view.levels[number] = document, Chunks(source, self.cache, tag=tag, immutable=self._immutable)
        return view.levels[number]

    async def _array(self, view: View, number: int) -> dict[str, Any]:
        return self._level(view, number)[0]

    async def _root(self, view: View) -> dict[str, Any]:
        shown = view.shown
        if shown.kind == "array":
            return await self._array(view, 0)
        if shown.kind == "group":
            return _group(group_attributes(shown, "0.5"))
        document = await self._image(view)
        below = {str(number): await self._array(view, number) for number in range(len(shown.levels))}
        labels = await self._views.labels(view)
        if shown.labels:
            below["labels"] = await self._labels(view)
        for name, label in labels.items():
            below[f"labels/{name}"] = await self._image(label)
            for number in range(len(label.shown.levels)):
                below[f"labels/{name}/{number}"] = await self._array(label, number)
        document["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": below}
        return document

    async def _labels(self, view: View) -> dict[str, Any]:
        return _group(labels_attributes(await self._views.label_names(view), "0.5"))

    async def _image(self, view: View) -> dict[str, Any]:
        channels = await view.channels()
        return _group(image_attributes(view.shown, channels, "0.5", is_in_labels=view.is_in_labels))


def level_of(view: View, rest: tuple[str, ...]) -> tuple[int | None, tuple[str, ...]]:
    """The number of the level that a path names, and what is left; None when there is no such level."""
    if view.shown.kind == "array":
        return 0, rest
    place = position_of(rest[:1]) if view.shown.kind == "image" else None
    return (place[0], rest[1:]) if place and place[0] < len(view.shown.levels) else (None, rest)


def _group(attributes: dict[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": plain_json(attributes)}
