"""`voxfetch view`: a server on this machine, and a browser that shows its page or Neuroglancer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from voxfetch.cli import text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from voxfetch.cli.console import Console

_NAMED = re.compile(r"([A-Za-z0-9_.-]{1,128})=(.+)", re.DOTALL)


def view(args: argparse.Namespace, console: Console) -> int:
    """Serves the sources on loopback until Ctrl-C; prints the URL and opens it in the browser."""
    from voxfetch.server import Server, ServerOptions, serve
    from voxfetch.view.client import neuroglancer_folder

    if args.viewer == "neuroglancer" and neuroglancer_folder() is None:
        raise text.UsageError(
            "Neuroglancer's client is not installed: pip install 'voxfetch[view]', or leave --viewer out"
        )
    if not 0 <= args.port < 1 << 16:
        raise text.UsageError(f"{args.port} is not a port, 0..65535")

    def ready(server: Server) -> None:
        place = server.url
        if args.viewer == "neuroglancer":
            query = urlencode({"source": ",".join(server.registry.names), "redirect": 1})
            place = f"{server.url}api/state/neuroglancer?{query}"
        console.result({"url": place, "sources": list(server.registry.names)})
        console.line(place)
        console.remark("whoever has this address can read the sources; Ctrl-C ends it")
        if not args.no_browser:
            _show(place, console)

    try:
        serve(named(args.source), ServerOptions(port=args.port), ready=ready)
    except KeyboardInterrupt:
        # The way to end it.
        return 0
    return 0


def named(sources: Sequence[str]) -> list[str | tuple[str, str]]:
    """`NAME=SOURCE` as a pair, anything else as it is."""
    found: list[str | tuple[str, str]] = []
    for source in sources:
        match = _NAMED.fullmatch(source)
        found.append(source if match is None else (match[1], match[2]))
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
