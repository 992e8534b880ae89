"""`voxfetch view`: a server on this machine, and a browser that shows its page or Neuroglancer."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from voxfetch.cli.serve import source_of
from voxfetch.cli.text import UsageError

if TYPE_CHECKING:
    import argparse

    from voxfetch.cli.console import Console
    from voxfetch.server import Server


def view(args: argparse.Namespace, console: Console) -> int:
    """Serves the sources on loopback until SIGTERM (0) or Ctrl-C; prints the URL and opens it in the browser."""
    for library, extra in (
        ("aiohttp", "serve"),
        *([("neuroglancer", "view")] if args.viewer == "neuroglancer" else []),
    ):
        if importlib.util.find_spec(library) is None:
            raise UsageError(f"this needs {library}: pip install 'voxfetch[{extra}]'")
    from voxfetch.server import ServerOptions, serve
    from voxfetch.server.registry import named_sources

    try:
        options = ServerOptions(port=args.port)
        sources = named_sources([source_of(one) for one in args.sources])
    except ValueError as error:
        raise UsageError(str(error)) from None

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


def _show(place: str, console: Console) -> None:
    """Opens the browser; a machine without one is no reason to stop."""
    import threading
    import webbrowser

    def open_it() -> None:
        if not webbrowser.open(place):
            console.remark("no browser was found; open the address above")

    # It may wait for the browser.
    threading.Thread(target=open_it, name="voxfetch-browser", daemon=True).start()
