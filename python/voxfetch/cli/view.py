"""`voxfetch view`: a server on this machine, and a browser that shows its page or Neuroglancer."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from voxfetch.cli import text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from voxfetch.cli.console import Console
    from voxfetch.server import Server

_NAMED = re.compile(r"([A-Za-z0-9_.-]{1,128})=(.+)", re.DOTALL)


def view(args: argparse.Namespace, console: Console) -> int:
    """Serves the sources on loopback until SIGTERM (0) or Ctrl-C; prints the URL and opens it in the browser."""
    for library, extra in (
        ("aiohttp", "serve"),
        *([("neuroglancer", "view")] if args.viewer == "neuroglancer" else []),
    ):
        if importlib.util.find_spec(library) is None:
            raise text.UsageError(f"this needs {library}: pip install 'voxfetch[{extra}]'")
    from voxfetch.server import ServerOptions, serve
    from voxfetch.server.registry import named_sources

    try:
        options = ServerOptions(port=args.port)
        sources = named_sources(named(args.sources))
    except ValueError as error:
        raise text.UsageError(str(error)) from None

    def ready(server: Server) -> None:
        place = server.url
        if args.viewer == "neuroglancer":
            query = urlencode({"source": ",".join(server.registry.names), "redirect": 1})
            place = f"{server.url}api/state/neuroglancer?{query}"
        console.result({"url": place, "sources": list(server.registry.names)})
        console.line(place)
        sys.stdout.flush()
        console.remark("whoever has this address can read the sources; Ctrl-C ends it")
        if not args.no_browser:
            _show(place, console)

    serve(sources, options, ready=ready)
    return 0


def named(sources: Sequence[str]) -> list[str | tuple[str, str]]:
    """`NAME=SOURCE` as a pair, anything else as it is; so is a path that has a `=` in it."""
    found: list[str | tuple[str, str]] = []
    for source in sources:
        match = _NAMED.fullmatch(source)
        found.append(source if match is None or Path(source).exists() else (match[1], match[2]))
    return found


def _show(place: str, console: Console) -> None:
    """Opens the browser; a machine without one is no reason to stop."""
    import threading
    import webbrowser

    def open_it() -> None:
        if not webbrowser.open(place):
            console.remark("no browser was found; open the address above")

    # It may wait for the browser.
    threading.Thread(target=open_it, name="voxfetch-browser", daemon=True).start()
