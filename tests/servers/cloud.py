"""What the fakes of cloud services share: objects by bucket and key, a log, ranges, errors as XML."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import deque
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

EPOCH_S = 1_700_000_000


@dataclass
class Stored:
    """An object: its bytes as stored, and its Content-Encoding."""

    body: bytes
    encoding: str | None = None
    no_transform: bool = False

    @property
    def etag(self):
        return f'"{hashlib.md5(self.body).hexdigest()}"'


@dataclass
class Request:
    """One line of the log; names of headers are in lower case, `port` is the client's: one for each connection."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str] = field(repr=False)
    port: int

    @property
    def range(self):
        return self.headers.get("range")


class CloudServer:
    """Serves `objects`, "bucket/key" -> Stored. `answer(request)` returns (status, headers, body), body None: chunked.

    `faults` is consumed from the left: (status, code) answers one request, None lets it pass.
    """

    def __init__(self, objects=None):
        self.objects = dict(objects or {})
        self.requests = []
        self.faults = deque()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16
            disable_nagle_algorithm = True

            def log_message(self, *_):
                pass

            def do_GET(self):
                parts = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, unquote(parts.path), query, headers, self.client_address[1])
                fake.requests.append(request)
                fault = fake.faults.popleft() if fake.faults else None
                status, sent, body = error(*fault) if fault else fake.answer(request)
                self.send_response(status)
                chunked = isinstance(body, tuple)
                sent["transfer-encoding" if chunked else "content-length"] = "chunked" if chunked else str(len(body))
                for name, value in sent.items():
                    self.send_header(name, value)
                self.end_headers()
                if chunked:
                    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*body, b""))
                self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def ranges(self):
        return [request.range for request in self.requests]

    def answer(self, request):
        raise NotImplementedError


def error(status, code):
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>sent by Bearer hunter2</Message></Error>'
    return status, {"content-type": "application/xml"}, body.encode()


def stored_headers(stored):
    headers = {"etag": stored.etag, "last-modified": formatdate(EPOCH_S, usegmt=True)}
    if stored.encoding:
        headers["content-encoding"] = stored.encoding
    return headers


def part(request, stored, *, suffixes=True):
    """The reply with an object, or with the range of it that is asked for."""
    headers, body = stored_headers(stored), stored.body
    if request.headers.get("if-match", stored.etag) != stored.etag:
        return error(412, "PreconditionFailed")
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", request.range or "")
    if match is None or not (match[1] or (suffixes and match[2])):
        return 200, headers, body
    start = int(match[1]) if match[1] else max(len(body) - int(match[2]), 0)
    end = min(int(match[2]) + 1, len(body)) if match[1] and match[2] else len(body)
    if start >= len(body):
        status, _, document = error(416, "InvalidRange")
        return status, {"content-range": f"bytes */{len(body)}"}, document
    return 206, {**headers, "content-range": f"bytes {start}-{end - 1}/{len(body)}"}, body[start:end]


def children(objects, bucket, prefix):
    """Keys and prefixes directly under a prefix, which ends with a slash or is empty."""
    keys = [key.removeprefix(f"{bucket}/") for key in objects if key.startswith(f"{bucket}/{prefix}")]
    rests = [key.removeprefix(prefix) for key in keys]
    files = sorted(prefix + rest for rest in rests if "/" not in rest)
    folders = sorted({prefix + rest.partition("/")[0] + "/" for rest in rests if "/" in rest})
    return [escape(one) for one in files], [escape(one) for one in folders]
