"""The files of the landing page and of Neuroglancer's client, as a plane of the server.

`/` and `page/...` are files of this package; `v/ng/...` are those of the wheel `neuroglancer` (the extra `view`), of
which nothing is run here. Only files that were found when they were first looked for can be asked for: no path is made
from a request.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from voxfetch.server.answers import Body

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.resources.abc import Traversable

    from voxfetch.server.answers import Asked
    from voxfetch.server.options import ServerOptions
    from voxfetch.server.registry import Registry

__all__ = ["ClientPlane", "neuroglancer_folder"]

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
}
_ALL = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_PAGE_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; " + _ALL
)
# Neuroglancer reads sources that people name wherever they are, and makes workers and styles of its own.
_CLIENT_CSP = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; connect-src 'self' http: https: blob: data:; " + _ALL
)
#: Names that change with their content.
_HASHED = re.compile(r"(?:^|\.)[0-9a-f]{16}\.")
_IMMUTABLE = "public, max-age=31536000, immutable"

_MISSING = """<!doctype html><meta charset="utf-8"><title>Neuroglancer is not installed</title>
<body style="font: 16px/1.5 system-ui, sans-serif; margin: 3rem; max-width: 40rem; color-scheme: light dark">
<h1>Neuroglancer is not installed</h1>
<p>Its client comes with the extra <code>view</code>. Install it where the server runs, then start the server again:</p>
<pre>pip install 'voxfetch[view]'</pre>
<p><a href="../../">Back to the page</a>, which works without it.</p>
"""


@dataclass(frozen=True, slots=True)
class _File:
    place: Traversable
    content_type: str
    headers: Mapping[str, str]


class ClientPlane:
    """Serves the pages. Sources and options are nothing to it."""

    def __init__(self, registry: Registry, options: ServerOptions) -> None:
        del registry, options
        page = files("voxfetch.view") / "page"
        self._files: dict[tuple[str, ...], _File] = {
            ("page", one.name): _file(one, {}) for one in page.iterdir() if one.name.endswith((".js", ".css"))
        }
        self._files[()] = _file(page / "index.html", {"Content-Security-Policy": _PAGE_CSP})
        folder = neuroglancer_folder()
        self._has_client = folder is not None
        for one in folder.iterdir() if folder is not None else ():
            if PurePosixPath(one.name).suffix in _TYPES:
                policy = {"Content-Security-Policy": _CLIENT_CSP} if one.name == "index.html" else {}
                self._files["v", "ng", one.name] = _file(one, policy)
        if folder is not None and ("v", "ng", "index.html") in self._files:
            self._files["v", "ng"] = self._files["v", "ng", "index.html"]
        self._etags: dict[tuple[str, ...], str] = {}

    async def answer(self, asked: Asked) -> Body | None:
        """Returns a file, None when there is no such one."""
        found = self._files.get(asked.segments)
        if found is None:
            if asked.segments[:2] != ("v", "ng") or self._has_client:
                return None
            headers = {"Content-Security-Policy": f"default-src 'none'; style-src 'unsafe-inline'; {_ALL}"}
            return Body(_MISSING.encode(), "text/html; charset=utf-8", headers=headers, status=404)
        content = found.place.read_bytes()
        etag = self._etags.get(asked.segments)
        if etag is None:
            etag = self._etags[asked.segments] = hashlib.blake2b(content, digest_size=12).hexdigest()
        return Body(content, found.content_type, etag=etag, headers=found.headers)


def _file(place: Traversable, headers: Mapping[str, str]) -> _File:
    content_type = _TYPES[PurePosixPath(place.name).suffix]
    cache = _IMMUTABLE if _HASHED.search(place.name) else "no-cache"
    return _File(place, content_type, {"Cache-Control": cache, "X-Content-Type-Options": "nosniff", **headers})


def neuroglancer_folder() -> Traversable | None:
    """Returns the folder with Neuroglancer's client, None where the wheel is not installed. Imports nothing of it."""
    try:
        # The package itself would import what its server needs.
        found = importlib.util.find_spec("neuroglancer")
    except (ImportError, ValueError):
        return None
    for place in found.submodule_search_locations or () if found is not None else ():
        folder = Path(place, "static", "client")
        if folder.joinpath("index.html").is_file():
            return folder
    return None
