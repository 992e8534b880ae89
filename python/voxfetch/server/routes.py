"""From the names in a path to the plane that answers.

`/PLANE/[@PRESET/]SOURCE/PATH` for z3, z2, pc, raw and img; `/api/...`; all else (`/`, `page/...`, `v/ng/...`) is the
page's. Planes are made when they are first asked. A folder is listed where a reader asks for a page of it.
"""

from __future__ import annotations

import importlib
from html import escape
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlencode

import voxfetch as vf
from voxfetch.server.answers import Asked, Body, Refused
from voxfetch.server.guard import is_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from voxfetch.server.answers import Parts, Plane
    from voxfetch.server.cache import ChunkCache
    from voxfetch.server.guard import Target
    from voxfetch.server.options import ServerOptions
    from voxfetch.server.registry import Node, Registry

__all__ = ["PRESETS", "Route", "Routes", "check_method"]

PRESETS = ("native", "viv", "wk")
"""What `@` names in a path: how an image is shown."""

_PLANES = {
    "z3": ("voxfetch.server.zarr3", "Zarr3Plane"),
    "z2": ("voxfetch.server.zarr2", "Zarr2Plane"),
    "pc": ("voxfetch.server.precomputed", "PrecomputedPlane"),
    "raw": ("voxfetch.server.raw", "RawPlane"),
    "img": ("voxfetch.server.pictures", "PicturesPlane"),
    "api": ("voxfetch.server.api", "ApiPlane"),
    "": ("voxfetch.view.client", "ClientPlane"),
}
_LASTING = frozenset({"z3", "z2", "pc", "raw", "img"})
_CHUNKED = frozenset({"z3", "z2", "pc"})
_LISTED = frozenset({"z3", "raw"})
# Of these calls of the API the next name is that of a source.
_ABOUT_SOURCES = frozenset({"node"})
_CSP = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


class Route(NamedTuple):
    """What a path names: `plane` ("" is the page), the rest as in `Asked`."""

    plane: str
    preset: str
    source: str
    segments: tuple[str, ...]

    @property
    def lasting(self) -> bool:
        """Whether it may be kept for good, if the options say so."""
        return self.plane in _LASTING


class Routes:
    """Finds the plane of a path, and lists folders."""

    def __init__(self, registry: Registry, options: ServerOptions, planes: Mapping[str, Plane] | None = None) -> None:
        """`planes` stand in for those of the package, by the names in paths; "" is the page."""
        self._registry = registry
        self._options = options
        self._planes: dict[str, Plane] = dict(planes or {})
        self._cache: ChunkCache | None = None

    def route(self, segments: tuple[str, ...]) -> Route | None:
        """Returns what the names in a path say, None for a plane, a preset or a call without what belongs to it."""
        plane = segments[0] if segments else ""
        if plane not in _PLANES or not plane:
            return Route("", "native", "", segments)
        rest, preset = segments[1:], "native"
        if rest and rest[0].startswith("@"):
            preset, rest = rest[0][1:], rest[1:]
        if preset not in PRESETS or not rest:
            return None
        if plane == "api":
            if rest[0] in _ABOUT_SOURCES and len(rest) > 1:
                return Route(plane, preset, rest[1], (rest[0], *rest[2:]))
            return Route(plane, preset, "", rest)
        return Route(plane, preset, rest[0], rest[1:])

    async def answer(self, route: Route, asked: Asked, target: Target, accept: str | None) -> Body | Parts | None:
        """Returns what the plane of a route gives, or the list of a folder. Raises what the plane raises."""
        if not route.plane and not target.folder and route.segments in {(), ("v", "ng")}:
            return _with_slash(target)
        if not route.plane and not route.segments and not target.prefix and "token" in target.query:
            # The links of the page begin where it is.
            return Body(b"", "text/plain", headers={"Location": f"./t/{quote(target.query['token'])}/"}, status=308)
        if route.plane in _LISTED and (target.folder or "text/html" in (accept or "")):
            node, rest = await self._registry.find(route.source, route.segments)
            if not rest and not isinstance(node, vf.Array):
                as_stored = route.plane == "raw"
                return await self._listing(node, as_stored=as_stored) if target.folder else _with_slash(target)
        if target.folder and route.plane:
            return None
        try:
            return await self._plane(route.plane).answer(asked)
        except vf.ObjectChangedError:
            # A file that is replaced by one of the same description is read again only when it is opened again.
            self._registry.forget(route.source)
            raise

    def _plane(self, name: str) -> Plane:
        plane = self._planes.get(name)
        if plane is None:
            module, cls = _PLANES[name]
            made = getattr(importlib.import_module(module), cls)
            shared = {"cache": self._chunk_cache()} if name in _CHUNKED else {}
            plane = self._planes[name] = made(self._registry, self._options, **shared)
        return plane

    def _chunk_cache(self) -> ChunkCache:
        """What the planes of chunks share: one bound for all of them."""
        if self._cache is None:
            from voxfetch.server.cache import ChunkCache

            self._cache = ChunkCache(self._options.cache_bytes)
        return self._cache

    async def aclose(self) -> None:
        """Ends what planes have begun for nobody yet."""
        if self._cache is not None:
            await self._cache.aclose()

    async def _listing(self, node: Node, *, as_stored: bool) -> Body:
        """A page with the names of groups and arrays, never of chunks."""
        names = await self._registry.run(lambda: _names(node, as_stored=as_stored))
        links = "\n".join(f'<li><a href="./{quote(name)}/">{escape(name)}/</a></li>' for name in names)
        page = f'<!doctype html><meta charset="utf-8"><title>voxfetch</title>\n<ul>\n{links}\n</ul>\n'
        return Body(page.encode(), "text/html; charset=utf-8", headers={"Content-Security-Policy": _CSP})


def _with_slash(target: Target) -> Body:
    """Sends to the same place with a slash at its end: links on a page without one begin in the folder above."""
    query = f"?{urlencode(target.query)}" if target.query else ""
    last = target.segments[-1] if target.segments else target.prefix.rpartition("/")[2]
    return Body(b"", "text/plain", headers={"Location": f"./{quote(last)}/{query}"}, status=308)


def check_method(method: str, route: Route | None) -> None:
    """Raises `Refused` (405) for a method that a route does not have."""
    posts = route is not None and route.plane == "api" and route.segments == ("cutouts",)
    allowed = "POST, OPTIONS" if posts else "GET, HEAD, OPTIONS"
    if method not in allowed.split(", "):
        raise Refused(405, "method_not_allowed", f"Allow: {allowed}\r\n")


def _names(node: Node, *, as_stored: bool) -> list[str]:
    if isinstance(node, vf.Image):
        levels = [str(i) for i in range(len(node.levels))]
        if as_stored:
            levels = [level.url.removeprefix(node.url).strip("/") for level in node.levels]
        return [*levels, *(f"labels/{name}" for name in node.labels)]
    return list(filter(is_name, node.keys())) if isinstance(node, vf.Group) else []
