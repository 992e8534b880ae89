"""Planes of a server without a server: questions as paths, answers as `Body`, over sources that are opened here."""

from __future__ import annotations

import asyncio
import json
import warnings
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import Store, SuffixByteRequest

from voxfetch.server.answers import Asked, Body
from voxfetch.server.options import ServerOptions
from voxfetch.server.precomputed import PrecomputedPlane
from voxfetch.server.registry import Registry
from voxfetch.server.zarr2 import Zarr2Plane
from voxfetch.server.zarr3 import Zarr3Plane

PLANES = {"z3": Zarr3Plane, "z2": Zarr2Plane, "pc": PrecomputedPlane}


class Planes:
    """The planes over some sources, asked from tests, which are no coroutines."""

    def __init__(self, _options=None, _cache=None, **nodes):
        self.registry = Registry(nodes)
        options = _options or ServerOptions()
        self.planes = {name: plane(self.registry, options, _cache) for name, plane in PLANES.items()}

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


class PlaneStore(Store):
    """A plane as a store of zarr-python; `requests` are the keys asked for, in order."""

    supports_writes = supports_deletes = supports_listing = False

    def __init__(self, planes, root):
        super().__init__(read_only=True)
        self.planes = planes
        self.root = root
        self.requests = []

    async def get(self, key, prototype, byte_range=None):
        self.requests.append(key)
        body = await self.planes.ask(f"{self.root}/{key}")
        if body is None:
            return None
        content = bytes(body.content)
        if isinstance(byte_range, SuffixByteRequest):
            content = content[-byte_range.suffix :]
        else:
            assert byte_range is None
        return prototype.buffer.from_bytes(content)

    async def get_partial_values(self, prototype, key_ranges):
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key):
        return await self.planes.ask(f"{self.root}/{key}") is not None

    def __eq__(self, other):
        return self is other

    __hash__ = object.__hash__

    async def set(self, key, value):
        raise NotImplementedError

    async def delete(self, key):
        raise NotImplementedError

    def list(self):
        raise NotImplementedError

    def list_prefix(self, prefix):
        raise NotImplementedError

    def list_dir(self, prefix):
        raise NotImplementedError


def by_zarr(planes, path):
    """All voxels of the array at `z3/...` or `z2/...` as zarr-python reads them, in native byte order."""
    with warnings.catch_warnings():
        # zarr-python calls its own dates unstable.
        warnings.simplefilter("ignore", zarr.errors.UnstableSpecificationWarning)
        version = {"z3": 3, "z2": 2}[path[:2]]
        voxels = zarr.open_array(PlaneStore(planes, path), mode="r", zarr_format=version)[...]
    return voxels.astype(voxels.dtype.newbyteorder("="))


def same(got, expected):
    """Equal in shape, type and every voxel."""
    np.testing.assert_array_equal(got, expected, strict=True)
