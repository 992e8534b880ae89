"""`Server`: sources shown on a port, on the running loop, in a thread, or for as long as the process lives."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import secrets
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any, Self, cast

from voxfetch.server.answers import Answers
from voxfetch.server.guard import Guard
from voxfetch.server.options import ServerOptions
from voxfetch.server.registry import Registry, named_sources
from voxfetch.server.routes import PRESETS, Routes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from voxfetch.server.answers import Plane
    from voxfetch.server.exchange import Exchange

__all__ = ["Server", "bound_socket", "new_token", "run_until_stopped", "serve"]

_BACKLOG = 1024
_OPEN_FILES = 1 << 16
"""Files and connections that a process of ours wants to have open at a time, if it may."""
_GARBAGE = 50_000
"""New objects between two looks for cycles; 700 as Python begins: a look every few requests."""
_STOP_S = 5.0
"""How long answers that are under way may take when the server stops."""
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - what is shown instead


class Server:
    """Shows sources over HTTP.

        async with Server(["em.zarr"]) as server:
            print(server.url_of("em.zarr"))

    `sources`: a source as `voxfetch.open` takes it or an object that it returned; a list of these and of pairs
    (name, source); or a mapping from names. They are opened when the server starts, with `lazy` when one is first
    asked for. A server starts once.

    Raises `ValueError` for names that cannot stand in a URL, and when it starts `OSError` for a port that is taken and
    what opening a source raises. Needs aiohttp (`ImportError`).
    """

    def __init__(
        self,
        sources: Any,
        options: ServerOptions | None = None,
        *,
        lazy: bool = False,
        planes: Mapping[str, Plane] | None = None,
    ) -> None:
        """`planes` stand in for those of the package, by the names in paths."""
        self._options = options or ServerOptions()
        self._token = (self._options.token or new_token()) if self._options.auth else None
        self._registry = Registry(
            named_sources(sources), immutable=self._options.immutable, follow_links=self._options.follow_links
        )
        self._lazy = lazy
        self._planes = planes
        self._port = self._options.port
        self._runner: Any = None
        self._routes: Routes | None = None
        self._listening: socket.socket | None = None
        self._exchange: Exchange | None = None
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<voxfetch.server.Server of {', '.join(self._registry.names)}>"

    @property
    def options(self) -> ServerOptions:
        """The options, as they were given."""
        return self._options

    @property
    def token(self) -> str | None:
        """The token, None where none is needed."""
        return self._token

    @property
    def port(self) -> int:
        """The port; of a free one that is taken when the server starts, 0 before."""
        return self._port

    @property
    def registry(self) -> Registry:
        """The sources."""
        return self._registry

    @property
    def url(self) -> str:
        """URL of the page, with a slash at its end. Of a port that is taken when the server starts, from then on."""
        return f"{self._root}/"

    def url_of(self, name: str, plane: str = "z3", preset: str = "native") -> str:
        """Returns the URL of a source in a plane, without a slash at its end.

        Raises `KeyError` for an unknown source, `ValueError` for an unknown preset.
        """
        if name not in self._registry.names:
            raise KeyError(name)
        if preset not in PRESETS:
            raise ValueError(f"preset {preset!r} is not one of {', '.join(PRESETS)}")
        return "/".join((self._root, plane, *([] if preset == "native" else [f"@{preset}"]), name))

    async def start(self, *, share_port: bool = False) -> None:
        """Opens the sources and listens. `share_port`: other processes listen on the port too."""
        from aiohttp import web

        from voxfetch.server.exchange import Exchange, Listener

        options = self._options
        guard = Guard(self._token, (options.host, *options.allowed_hosts))
        routes = self._routes = Routes(self._registry, options, self._planes)
        if not self._lazy:
            await self._registry.open_all()
        listening = bound_socket(options.host, options.port, share_port=share_port)
        self._port = listening.getsockname()[1]
        self._listening = listening
        try:
            self._exchange = Exchange(guard, Answers(options), routes, options)
            self._runner = web.ServerRunner(Listener(self._exchange), shutdown_timeout=_STOP_S)
            await self._runner.setup()
            await web.SockSite(self._runner, listening, backlog=_BACKLOG).start()
        except BaseException:
            listening.close()
            raise

    async def aclose(self) -> None:
        """Stops listening, lets answers that are under way end, for a few seconds, and closes all connections."""
        if self._exchange is not None:
            self._exchange.stop()
        if self._runner is not None:
            # What was accepted at this moment is let begin, for only then does it end with the others: a server of
            # asyncio that is closed has no place for it, and leaves it open.
            with contextlib.suppress(NotImplementedError, ValueError):
                asyncio.get_running_loop().remove_reader(cast("socket.socket", self._listening).fileno())
            for _ in range(10):
                await asyncio.sleep(0)
            await self._runner.cleanup()
            self._runner = None
        if self._routes is not None:
            await self._routes.aclose()
        self._registry.close()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def run(self, ready: Callable[[], None] = lambda: None, *, share_port: bool = False) -> None:
        """Serves until `stop` is called, from any thread; calls `ready` once it listens."""
        loop, over = asyncio.get_running_loop(), asyncio.Event()

        def stop() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(over.set)

        self._stop = stop
        waiting = asyncio.create_task(over.wait())
        starting = asyncio.create_task(self.start(share_port=share_port))
        try:
            # A store may keep the start waiting for longer than who stops the server would.
            await asyncio.wait([starting, waiting], return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                ready()
                await waiting
        finally:
            waiting.cancel()
            starting.cancel()
            await asyncio.wait([starting])
            await self.aclose()

    def start_in_thread(self) -> Self:
        """Starts the server in a thread of its own and returns it when it listens. See `stop`."""
        listens, failed = threading.Event(), list[BaseException]()

        def main() -> None:
            try:
                asyncio.run(self.run(listens.set))
            except BaseException as error:  # noqa: BLE001 - handed to the caller
                failed.append(error)
            finally:
                listens.set()

        self._thread = threading.Thread(target=main, name="voxfetch-server", daemon=True)
        self._thread.start()
        listens.wait()
        if failed:
            self._thread.join()
            raise failed[0]
        return self

    def stop(self) -> None:
        """Ends a server that `run` or `start_in_thread` began, and waits for its thread."""
        self._stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    @property
    def _root(self) -> str:
        host = _ANY.get(self._options.host, self._options.host)
        prefix = "" if self._token is None else f"/t/{self._token}"
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}{prefix}"


def serve(
    sources: Any,
    options: ServerOptions | None = None,
    *,
    lazy: bool = False,
    workers: int = 1,
    ready: Callable[[Server], None] = lambda _: None,
) -> None:
    """Serves sources (see `Server`) until SIGTERM or Ctrl-C; calls `ready` once it listens.

    `ready` gets the server, for its URLs. `workers` processes share the port; sources must pickle then. Raises
    `KeyboardInterrupt` after Ctrl-C, and what starting a server raises.
    """
    options = options or ServerOptions()
    if workers > 1:
        from voxfetch.server.workers import serve_in_workers

        serve_in_workers(sources, options, workers, lazy=lazy, ready=ready)
        return
    server = Server(sources, options, lazy=lazy)
    run_until_stopped(server, lambda: ready(server))


def run_until_stopped(server: Server, ready: Callable[[], None], *, share_port: bool = False) -> None:
    """Runs a server until SIGTERM. Raises `KeyboardInterrupt` after Ctrl-C."""

    async def main() -> None:
        # The process is ours. A request leaves some dozen objects behind, none of them in a cycle.
        _allow_open_files()
        gc.freeze()
        gc.set_threshold(_GARBAGE, 20, 20)
        # Elsewhere than in the main thread, or on Windows, signals are not ours.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.stop)
        await server.run(ready, share_port=share_port)

    asyncio.run(main())


def _allow_open_files() -> None:
    """Lets this process have as many files open as it may: the limit that it begins with is often a thousand."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):  # macOS has a lower one that it does not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def new_token() -> str:
    """Returns a token that nobody guesses."""
    return secrets.token_urlsafe(24)


def bound_socket(host: str, port: int, *, share_port: bool) -> socket.socket:
    """Returns a socket that is bound and does not listen yet. Raises `OSError`."""
    if share_port and not hasattr(socket, "SO_REUSEPORT"):
        raise OSError("processes cannot share a port on this system")
    # One address for one name: `localhost` may have two, and a free port of the one may be taken on the other.
    host = "127.0.0.1" if host == "localhost" else host
    family, kind, protocol, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share_port:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound
