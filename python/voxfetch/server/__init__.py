"""A server that shows sources over HTTP, for viewers and scripts."""

from __future__ import annotations

from voxfetch.server.options import ServerOptions

__all__ = ["ServerOptions"]
