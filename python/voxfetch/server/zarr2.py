"""`/z2/`: any source as Zarr v2, images as OME-Zarr 0.4.

| path below a source | what |
|-|-|
| `.zgroup`, `.zattrs`, `.zmetadata` | a group; the last one of images only: all documents below it |
| `0/.zarray`, `0/.zattrs`, `0/0/1/2` | levels of an image are called 0, 1, 2; chunk coordinates are separated by `/` |
| `labels/.zgroup`, `labels/.zattrs`, `labels/NAME/...` | its label images, images themselves |
| `.zarray`, `.zattrs`, `0/1/2` | an array; 404 for a chunk that is nothing but fill value |

`NAME/...` below a group are its members. There is no document of Zarr v3 anywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from voxfetch.server.chunks import Chunks, position_of
from voxfetch.server.layout import array_attributes, given_names, zarr2_array
from voxfetch.server.ome import group_attributes, image_attributes, labels_attributes, plain_json
from voxfetch.server.views import ChunkPlane
from voxfetch.server.zarr3 import level_of

if TYPE_CHECKING:
    from voxfetch.server.answers import Asked, Body
    from voxfetch.server.views import View

__all__ = ["Zarr2Plane"]

_GROUP = {"zarr_format": 2}


class Zarr2Plane(ChunkPlane):
    """The plane of Zarr v2."""

    async def answer(self, asked: Asked) -> Body | None:
        """Returns a document or a chunk, None when there is no such thing. Raises errors of voxfetch."""
        view, rest = await self._views.find(asked)
        if len(rest) == 1 and rest[0] in (".zgroup", ".zattrs", ".zmetadata"):
            return await self._of_node(view, rest[0])
        if view.shown.kind == "image" and view.shown.labels and len(rest) == 2 and rest[0] == "labels":
            listed = await self._views.label_names(view)
            names = {".zgroup": _GROUP, ".zattrs": labels_attributes(listed, "0.4")}
            return await _given(view, f"labels/{rest[1]}", names.get(rest[1]))
        number, rest = level_of(view, rest)
        if number is None:
            return None
        if len(rest) == 1 and rest[0] in (".zarray", ".zattrs"):
            return await _given(view, f"{number}/{rest[0]}", self._array(view, number)[rest[0]])
        position = position_of(rest)
        if position is None or not rest:
            return None
        chunks = self._level(view, number)[1]
        # An array without axes has one chunk, which is called 0.
        return await chunks.chunk(() if not chunks.grid and position == (0,) else position)

    async def _of_node(self, view: View, name: str) -> Body | None:
        if view.shown.kind == "array":
            return await _given(view, name, self._array(view, 0).get(name))
        if name == ".zgroup":
            return await _given(view, name, _GROUP)
        if name == ".zattrs":
            return await view.document(name, lambda: self._attributes(view))
        if view.shown.kind == "image":
            return await view.document(name, lambda: self._consolidated(view))
        return None

    async def _attributes(self, view: View) -> dict[str, Any]:
        if view.shown.kind == "group":
            return plain_json(group_attributes(view.shown, "0.4"))
        channels = await view.channels()
        return plain_json(image_attributes(view.shown, channels, "0.4", is_in_labels=view.is_in_labels))

    async def _consolidated(self, view: View) -> dict[str, Any]:
        found = await self._documents(view)
        if view.shown.labels:
            found |= {
                "labels/.zgroup": _GROUP,
                "labels/.zattrs": labels_attributes(await self._views.label_names(view), "0.4"),
            }
        for name, label in (await self._views.labels(view)).items():
            below = await self._documents(label)
            found |= {f"labels/{name}/{key}": document for key, document in below.items()}
        return {"zarr_consolidated_format": 1, "metadata": found}

    async def _documents(self, view: View) -> dict[str, Any]:
        """The documents of an image and its levels, by key."""
        found: dict[str, Any] = {".zgroup": _GROUP, ".zattrs": await self._attributes(view)}
        for number in range(len(view.shown.levels)):
            found |= {f"{number}/{name}": document for name, document in self._array(view, number).items()}
        return found

    def _array(self, view: View, number: int) -> dict[str, dict[str, Any]]:
        """The documents of an array, by name."""
        return self._level(view, number)[0]

    def _level(self, view: View, number: int) -> tuple[dict[str, dict[str, Any]], Chunks]:
        if number not in view.levels:
            level = view.shown.levels[number]
            array, source = zarr2_array(level)
            attributes = plain_json(array_attributes(level))
            if (names := given_names(level)) is not None:
                attributes["_ARRAY_DIMENSIONS"] = names
            chunks = Chunks(source, self.cache, tag=f"z2.{view.shown.preset}.1", immutable=self._immutable)
            view.levels[number] = {".zarray": array, ".zattrs": attributes}, chunks
        return view.levels[number]


async def _given(view: View, name: str, document: dict[str, Any] | None) -> Body | None:
    if document is None:
        return None

    async def made() -> dict[str, Any]:
        return document

    return await view.document(name, made)
