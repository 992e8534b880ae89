"""Planes of a server without a server: questions as paths, answers as `Body`, over sources that are opened here."""

from __future__ import annotations

import tests.core_standin
import asyncio
import json
from typing import Any

import voxfetch as vf
from voxfetch.server.answers import Asked, Body
from voxfetch.server.options import ServerOptions
from voxfetch.server.precomputed import Precomputed
from voxfetch.server.zarr2 import Zarr2
from voxfetch.server.zarr3 import Zarr3

PLANES = {"z3": Zarr3, "z2": Zarr2, "pc": Precomputed}


class Sources:
    """What planes need of a registry."""

    def __init__(self, nodes):
        self.nodes = dict(nodes)
        self.opened = {}
        self.asked = 0

    async def find(self, source, segments):
        self.asked += 1
        try:
            node = self.nodes[source]
        except KeyError:
            raise vf.NotFoundError(f"no source {source!r}") from None
        done = 0
        while done < len(segments):
            rest = segments[done:]
            if isinstance(node, vf.Image) and rest[0] == "labels" and len(rest) > 1 and rest[1] in node.labels:
                step = 2
            elif isinstance(node, vf.Group) and rest[0] in node:
                step = 1
            else:
                break
            key = (source, segments[: done + step])
            if key not in self.opened:
                self.opened[key] = node.labels[rest[1]] if step == 2 else node[rest[0]]
            node, done = self.opened[key], done + step
        return node, segments[done:]


class Planes:
    """The planes over some sources, asked from tests, which are no coroutines."""

    def __init__(self, _options=None, _cache=None, **nodes):
        self.sources = Sources(nodes)
        options = _options or ServerOptions()
        self.planes = {name: plane(self.sources, options, _cache) for name, plane in PLANES.items()}

    async def ask(self, path):
        """`z3/[@preset/]source/...` -> Body or None."""
        plane, *parts = path.split("/")
        preset = parts.pop(0)[1:] if parts[0].startswith("@") else "native"
        return await self.planes[plane].answer(Asked("GET", tuple(parts[1:]), preset, parts[0], {}))

    def get(self, *paths) -> Any:
        """The answers, on one event loop."""

        async def all_of():
            return [await self.ask(path) for path in paths]

        found = asyncio.run(all_of())
        return found if len(paths) > 1 else found[0]

    def json(self, path):
        body: Body = self.get(path)
        assert body is not None, path
        assert body.content_type == "application/json"

        def refuse(word):
            raise AssertionError(word)

        return json.loads(bytes(body.content), parse_constant=refuse)
