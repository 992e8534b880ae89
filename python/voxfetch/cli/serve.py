"""`voxfetch serve`: shows sources over HTTP until it is interrupted or told to end.

Prints the URL of each source as Zarr v3 on stdout once it listens. SIGTERM ends it with code 0, Ctrl-C with 130.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from voxfetch.cli.text import UsageError, plain, without_secrets

if TYPE_CHECKING:
    import argparse

    from voxfetch.cli.console import Console
    from voxfetch.server import Server, ServerOptions

_NAMED = re.compile(r"([A-Za-z0-9_.-]+)=(.+)", re.DOTALL)


def serve(args: argparse.Namespace, console: Console) -> int:
    """Serves until the end; 0."""
    if importlib.util.find_spec("aiohttp") is None:
        raise UsageError("`voxfetch serve` needs aiohttp: pip install 'voxfetch[serve]'")
    from voxfetch import server
    from voxfetch.server.registry import named_sources

    if args.workers < 1:
        raise UsageError(f"--workers {args.workers}: at least 1 process serves")
    try:
        options = _options(args)
        sources = named_sources([source_of(text) for text in args.sources])
    except ValueError as error:
        raise UsageError(str(error)) from None

    def ready(running: Server) -> None:
        urls = {name: running.url_of(name) for name in sources}
        console.result({"url": running.url, "sources": urls})
        for url in urls.values():
            console.line(url)
        sys.stdout.flush()
        for name, source in sources.items():
            console.remark(f"{name}: {plain(without_secrets(source))}")
        console.remark("Ctrl-C ends it")

    server.serve(sources, options, lazy=args.lazy, workers=args.workers, ready=ready)
    return 0


def _options(args: argparse.Namespace) -> ServerOptions:
    """The options of the command line. Raises `UsageError`, `ValueError`."""
    from voxfetch.server import ServerOptions

    if args.no_auth and args.token is not None:
        raise UsageError("--token and --no-auth: either a token is needed or none")
    given: dict[str, Any] = {"host": args.host, "port": args.port, "token": args.token, "auth": not args.no_auth}
    if args.origin:
        given["origins"] = tuple(args.origin)
    if args.cache_bytes is not None:
        given["cache_bytes"] = args.cache_bytes
    hosts = tuple(args.allow_host or ())
    return ServerOptions(**given, allowed_hosts=hosts, immutable=args.immutable, follow_links=args.follow_links)


def source_of(text: str) -> str | tuple[str, str]:
    """`NAME=SOURCE` -> a pair; a path that has a `=` in it is a path."""
    match = _NAMED.fullmatch(text)
    return text if match is None or os.path.exists(text) else (match[1], match[2])  # noqa: PTH110 - str in
