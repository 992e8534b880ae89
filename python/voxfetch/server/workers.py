"""Several processes that serve the same sources on one port; the system gives each connection to one of them.

The parent holds the port, without listening, and waits. Each worker is spawned, not forked: it starts an engine, and
opens the sources, itself.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, cast

import voxfetch as vf
from voxfetch.server.app import Server, bound_socket, new_token, run_until_stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from voxfetch.server.options import ServerOptions

__all__ = ["serve_in_workers"]

_END_S = 10.0


class _Terminated(BaseException):
    """SIGTERM came."""


def serve_in_workers(
    sources: Any, options: ServerOptions, count: int, *, lazy: bool, ready: Callable[[Server], None]
) -> None:
    """Serves with `count` processes until SIGTERM or Ctrl-C; calls `ready` once all of them listen.

    Sources must pickle. Encoded chunks that are kept are `cache_bytes` in all. Raises `KeyboardInterrupt` after Ctrl-C,
    `InternalError` when a worker ends by itself, and what starting a server raises.
    """
    context = multiprocessing.get_context("spawn")
    workers: list[tuple[SpawnProcess, Connection]] = []
    with bound_socket(options.host, options.port, share_port=True) as held:
        options = replace(
            options,
            port=held.getsockname()[1],
            token=(options.token or new_token()) if options.auth else None,
            cache_bytes=options.cache_bytes // count,
        )
        try:
            with _terminable():
                for _ in range(count):
                    ours, theirs = context.Pipe(duplex=False)
                    worker = context.Process(target=_work, args=(sources, options, lazy, theirs), daemon=True)
                    worker.start()
                    theirs.close()
                    workers.append((worker, ours))
                for worker, ours in workers:
                    _check_started(worker, ours)
                ready(Server(sources, options))
                wait([worker.sentinel for worker, _ in workers])
                raise vf.InternalError("a process of the server has ended")
        except _Terminated:
            pass
        finally:
            _end([worker for worker, _ in workers])


def _check_started(worker: SpawnProcess, ours: Connection) -> None:
    try:
        failure = ours.recv()
    except EOFError:
        worker.join(_END_S)
        raise vf.InternalError(f"a process of the server ended with code {worker.exitcode}") from None
    if failure is not None:
        raise failure


def _end(workers: list[SpawnProcess]) -> None:
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(_END_S)
        if worker.is_alive():
            worker.kill()
            worker.join()


def _work(sources: Any, options: ServerOptions, lazy: bool, started: Connection) -> None:  # noqa: FBT001 - of a process
    """One worker: says when it listens, or why it does not."""
    # Ctrl-C goes to all processes of a terminal; the parent ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = Server(sources, options, lazy=lazy)
    parent = multiprocessing.parent_process()

    def orphaned() -> None:
        cast("Any", parent).join()
        server.stop()

    threading.Thread(target=orphaned, name="voxfetch-parent", daemon=True).start()
    try:
        run_until_stopped(server, lambda: started.send(None), share_port=True)
    except Exception as error:  # noqa: BLE001 - the parent raises it
        started.send(error)


@contextmanager
def _terminable() -> Generator[None]:
    """Raises `_Terminated` at SIGTERM, once; elsewhere than in the main thread signals are not ours."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
