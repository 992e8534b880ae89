"""A client of HTTP/1.1 that sends what it is told, byte for byte, and a server of ours with planes that stand in."""

from __future__ import annotations

import http.client
import socket
from contextlib import contextmanager
from dataclasses import dataclass

from voxfetch.server import Server, ServerOptions

TOKEN = "0123456789abcdef"


@dataclass
class Got:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def __getitem__(self, name):
        return self.headers.get(name)


class Client:
    """One connection. `ask` sends a request and waits for its answer."""

    def __init__(self, port, timeout_s=20):
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, path, method="GET", body=None, host="127.0.0.1", **headers):
        lines = [method.encode() + b" " + (path if isinstance(path, bytes) else path.encode()) + b" HTTP/1.1"]
        if host is not None:
            lines.append(b"Host: " + host.encode())
        lines += [f"{name.replace('_', '-')}: {value}".encode("latin-1") for name, value in headers.items()]
        if body is not None:
            lines.append(b"Content-Length: %d" % len(body))
        self.socket.sendall(b"\r\n".join([*lines, b"", b""]) + (body or b""))

    def receive(self, method="GET"):
        response = http.client.HTTPResponse(self.socket, method=method)
        response.begin()
        return Got(response.status, response.headers, response.read())

    def ask(self, path, method="GET", body=None, host="127.0.0.1", **headers):
        self.send(path, method, body, host, **headers)
        return self.receive(method)


def ask(server, path, method="GET", body=None, host="127.0.0.1", token=True, **headers):
    """One request on a connection of its own; `path` comes after the token."""
    prefix = f"/t/{server.token}" if token and server.token else ""
    with Client(server.port) as client:
        return client.ask(prefix + path, method, body, host, **headers)


@contextmanager
def serving(sources, planes=None, lazy=False, **options):
    """A server in a thread, with a known token."""
    options = {"token": TOKEN if options.get("auth", True) else None, **options}
    server = Server(sources, ServerOptions(**options), lazy=lazy, planes=planes).start_in_thread()
    try:
        yield server
    finally:
        server.stop()
