"""The server as clients meet it: on the wire, with planes that stand in, and with stores that fail."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import logging
import os
import socket
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
import zarr

import voxfetch as vf
from tests.servers.plain import TOKEN, Client, ask, serving
from voxfetch.server import Server, ServerOptions, exchange
from voxfetch.server.answers import Body, Parts
from voxfetch.server.deadlines import Deadlines
from voxfetch.server.log import redacted

BIG = np.random.default_rng(0).integers(0, 256, (3 << 20) + 17, np.uint8).tobytes()


class Stand:
    """A plane: what it does is the first name behind the source."""

    def __init__(self):
        self.asked = []
        self.started = threading.Event()
        self.cancelled = threading.Event()
        self.working = 0
        self.most = 0
        self.go = threading.Event()

    async def answer(self, asked):
        self.asked.append(asked)
        what = asked.segments[0] if asked.segments else ""
        if what == "chunk":
            return Body(f"{asked.source} {asked.preset} {asked.segments}".encode(), etag="c")
        if what == "big":
            return Body(BIG, etag="big")
        if what == "unnamed":
            return Body(BIG)
        if what == "json":
            return Body(json.dumps(["voxel"] * 1000).encode(), "application/json")
        if what == "url":
            return Body(f"{asked.origin}{asked.prefix}".encode())
        if what == "echo":
            return Body(asked.body)
        if what == "cutouts" and asked.body != b"wait":
            return Body(asked.body[::-1])
        if what == "raise":
            raise ERRORS[asked.segments[1]]
        if what == "wait" or asked.body == b"wait":
            self.working += 1
            self.most = max(self.most, self.working)
            self.started.set()
            try:
                while not self.go.is_set():  # noqa: ASYNC110 - an event of threads
                    await asyncio.sleep(0.005)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
            finally:
                self.working -= 1
            return Body(asked.segments[-1].encode())
        if what == "torn":

            async def read(start, end):
                if start:
                    raise vf.StoreError("gone")
                return bytes(end - start)

            return Parts(5 << 20, read, "torn")
        if what == "stalled":

            async def first(start, end):
                if start:
                    await asyncio.Event().wait()
                return bytes(end - start)

            return Parts(5 << 20, first, "stalled")
        return None


SECRET = "hunter2"
URL = f"https://user:{SECRET}@em.example/a.zarr?X-Amz-Signature={SECRET}"
ERRORS = {
    "asked": vf.NotFoundError("no such level"),
    "lost": vf.NotFoundError("gone", key=URL),
    "store": vf.StoreError("refused", key=URL),
    "denied": vf.PermissionDeniedError("refused", key=URL),
    "late": vf.StoreTimeoutError("late", key=URL),
    "data": vf.ChecksumError("damaged", key=URL),
    "document": vf.MetadataError("no JSON", key=URL),
    "unread": vf.UnsupportedError("not read", key=URL),
    "selection": vf.SelectionError("outside"),
    "value": ValueError(f"not a number at {URL}"),
    "limit": vf.LimitExceededError("too many voxels"),
    "bug": KeyError(URL),
    "system": OSError(24, "Too many open files"),
    "internal": vf.InternalError("a bug", key=URL),
}


@pytest.fixture
def volume(tmp_path):
    array = zarr.create_array(tmp_path / "v.zarr", shape=(64, 64), chunks=(16, 16), shards=(64, 64), dtype="u2")
    array[...] = np.arange(4096).reshape(64, 64)
    return tmp_path / "v.zarr"


@pytest.fixture
def stand():
    return Stand()


@pytest.fixture
def server(volume, stand):
    with serving({"v": str(volume)}, {"z3": stand, "z2": stand, "api": stand, "img": stand, "": stand}) as server:
        yield server
        stand.go.set()


# --- what is answered


def test_what_a_plane_is_asked(server, stand):
    got = ask(server, "/z3/@viv/v/chunk/0/1?a=1&b=2&a=3", range="bytes=0-3")
    assert (got.status, got.body) == (206, b"v vi")
    (asked,) = stand.asked
    assert (asked.method, asked.segments, asked.preset, asked.source) == ("GET", ("chunk", "0", "1"), "viv", "v")
    assert (asked.query, asked.body, asked.range) == ({"a": "1", "b": "2"}, b"", "bytes=0-3")
    assert asked.prefix == f"/t/{TOKEN}"
    assert ask(server, "/z2/v/chunk/a%20b").body == b"v native ('chunk', 'a b')"
    host = f"localhost:{server.port}"
    assert ask(server, "/z3/v/url", host=host).body == f"http://{host}/t/{TOKEN}".encode()
    assert server.url_of("v", preset="wk") == f"http://127.0.0.1:{server.port}/t/{TOKEN}/z3/@wk/v"
    assert server.url == f"http://127.0.0.1:{server.port}/t/{TOKEN}/"


def test_a_request_as_a_proxy_gets_it(server):
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        target = f"http://127.0.0.1:{server.port}/t/{TOKEN}/z3/v/chunk"
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n".encode())
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 "), "the host that counts is in the target"


def test_behind_a_proxy_that_speaks_tls(server):
    host = f"localhost:{server.port}"
    for proto, expected in (("https", "https"), ("http", "http"), ("javascript", "http")):
        got = ask(server, "/z3/v/url", host=host, x_forwarded_proto=proto).body.decode()
        assert got == f"{expected}://{host}/t/{TOKEN}"


@pytest.mark.parametrize("path", ["/z3", "/z3/", "/z3/@viv", "/z3/@other/v/chunk", "/z3/@/v/chunk", "/z3/v/other"])
def test_what_is_not_there(server, path):
    got = ask(server, path)
    assert (got.status, got.body, got["Content-Type"]) == (404, b'{"error": "not_found"}', "application/json")
    assert got["Access-Control-Allow-Origin"] == "*"


def test_calls_of_the_api(server, stand):
    assert ask(server, "/api/tree").status == 404
    assert ask(server, "/api/node/v/labels/x").status == 404
    assert ask(server, "/api/state/neuroglancer?source=v").status == 404
    assert [(asked.source, asked.segments) for asked in stand.asked] == [
        ("", ("tree",)),
        ("v", ("node", "labels", "x")),
        ("", ("state", "neuroglancer")),
    ]


def test_the_page_gets_whole_paths(server, stand):
    assert ask(server, "/page/main.js").status == 404
    assert ask(server, "/v/ng/index.html").status == 404
    assert ask(server, "/").status == 404
    assert [asked.segments for asked in stand.asked] == [("page", "main.js"), ("v", "ng", "index.html"), ()]
    # Links on a page without a slash at its end would begin in the folder above.
    for path, place in (("", f"./{TOKEN}/"), ("/v/ng", "./ng/"), ("/v/ng?a=b", "./ng/?a=b")):
        got = ask(server, path)
        assert (got.status, got["Location"]) == (308, place)


def test_get_and_head_on_one_connection(server):
    with Client(server.port) as client:
        path = f"/t/{TOKEN}/z3/v/chunk"
        got, head = client.ask(path), client.ask(path, "HEAD")
        assert got.status == head.status == 200
        assert head.body == b""
        assert {name: value for name, value in head.headers.items() if name != "Date"} == {
            name: value for name, value in got.headers.items() if name != "Date"
        }
        assert int(got["Content-Length"]) == len(got.body)
        assert client.ask(path, If_None_Match='W/"c"').status == 304
        assert client.ask(path, Range="bytes=-2").body == got.body[-2:]
        assert client.ask(path, Range="bytes=900-").status == 416
        assert client.ask(path, If_Match='"d"').status == 412
        assert client.ask("/z3/v/chunk").status == 401
        assert client.ask(path).body == got.body


def test_requests_one_behind_the_other(server):
    with Client(server.port) as client:
        for _ in range(50):
            client.send(f"/t/{TOKEN}/z3/v/chunk")
        data = b""
        while data.count(b"HTTP/1.1 200 OK") < 50 or not data.endswith(b"('chunk',)"):
            data += client.socket.recv(1 << 16)
        assert data.count(b"v native ('chunk',)") == 50


def test_large_bodies(server):
    got = ask(server, "/z3/v/big")
    assert (got.status, got.body == BIG) == (200, True)
    got = ask(server, "/z3/v/unnamed")
    assert (got.status, got.body == BIG) == (200, True)
    assert ask(server, "/z3/v/unnamed", If_None_Match=got["ETag"]).status == 304
    got = ask(server, "/z3/v/big", Range="bytes=1000-2500000")
    assert (got.status, got.body == BIG[1000:2500001]) == (206, True)


def test_documents_are_compressed_and_chunks_are_not(server):
    got = ask(server, "/z3/v/json", Accept_Encoding="gzip, br")
    assert json.loads(gzip.decompress(got.body)) == ["voxel"] * 1000
    assert (got["Content-Encoding"], got["Vary"]) == ("gzip", "Accept-Encoding")
    assert ask(server, "/z3/v/json").headers.get("Content-Encoding") is None
    assert ask(server, "/z3/v/big", Accept_Encoding="gzip").headers.get("Content-Encoding") is None


def test_a_post_is_for_cutouts_only(server):
    body = os.urandom(1 << 20)
    got = ask(server, "/api/cutouts", "POST", body, Expect="100-continue", Range="bytes=0-1", If_None_Match="*")
    assert (got.status, got["ETag"]) == (200, None)
    assert got.body == body[::-1]
    assert ask(server, "/api/cutouts", "POST", bytes((1 << 20) + 1)).status == 413
    assert ask(server, "/api/cutouts", "POST", b"x", Content_Encoding="gzip").status == 415
    got = ask(server, "/api/cutouts")
    assert (got.status, got["Allow"]) == (405, "POST, OPTIONS")
    for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"):
        got = ask(server, "/z3/v/chunk", method, b"x" if method in ("POST", "PUT") else None)
        assert (got.status, got["Allow"]) == (405, "GET, HEAD, OPTIONS")
        assert got["Access-Control-Allow-Origin"] == "*"
    got = ask(server, "/z3/v/chunk", "GET", b"body")
    assert (got.status, got["Connection"]) == (413, "close")


def test_a_body_in_pieces_is_bounded_too(server, stand):
    with Client(server.port) as client:
        client.send(f"/t/{TOKEN}/api/cutouts", "POST", Transfer_Encoding="chunked")
        piece = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        with suppress(OSError):
            for _ in range(40):
                client.socket.sendall(piece)
        assert client.receive("POST").status == 413
    assert not stand.asked


def test_a_preflight_needs_no_token(server, stand):
    for path in ("/z3/v/chunk", "/", "*", "/api/cutouts"):
        got = ask(server, path, "OPTIONS", token=False, Origin="https://a.example", Access_Control_Request_Method="GET")
        assert (got.status, got.body) == (204, b"")
        assert "Range" in got["Access-Control-Allow-Headers"]
        assert got["Content-Length"] is None
    assert ask(server, "/", "OPTIONS", host="evil.example").status == 421
    assert not stand.asked


def test_who_is_answered(server, stand):
    assert ask(server, "/z3/v/chunk", host="evil.example").status == 421
    assert ask(server, "/z3/v/chunk", host=None).status == 421
    got = ask(server, "/z3/v/chunk", token=False)
    assert got.status == 401
    assert got["WWW-Authenticate"]
    assert got["Access-Control-Allow-Origin"] == "*"
    assert not stand.asked
    assert ask(server, "/z3/v/chunk", token=False, Authorization=f"Bearer {TOKEN}").status == 200
    assert ask(server, f"/z3/v/chunk?token={TOKEN}", token=False).status == 200


def test_without_a_token(volume, stand):
    with serving({"v": str(volume)}, {"z3": stand}, auth=False) as server:
        assert server.url_of("v") == f"http://127.0.0.1:{server.port}/z3/v"
        assert ask(server, "/z3/v/chunk").status == 200
        assert ask(server, f"/t/{TOKEN}/z3/v/chunk", host="evil.example").status == 421


def test_other_hosts_need_the_token_too(volume, stand):
    with serving({"v": str(volume)}, {"z3": stand}, host="0.0.0.0", allowed_hosts=("em.example",)) as server:
        assert server.url.startswith(f"http://127.0.0.1:{server.port}/t/")
        assert ask(server, "/z3/v/chunk", token=False).status == 401
        assert ask(server, "/z3/v/chunk", host="em.example:80").status == 200
        assert ask(server, "/z3/v/chunk", host="10.9.8.7").status == 421


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + (b"X: " + b"a" * 3000 + b"\r\n") * 3 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n\r\n", 421),
        (b"GET / HTTP/1.0\r\n\r\n", 421),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX\x00: a\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 421),
        (b"GET http://localhost/%2e%2e/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ],
)  # fmt: skip
def test_requests_that_are_none(server, request_, expected, caplog):
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        client.sendall(request_)
        data = b""
        with suppress(ConnectionResetError):
            while b"\r\n\r\n" not in data and (piece := client.recv(1 << 16)):
                data += piece
    assert data.startswith(b"HTTP/1.1 %d " % expected)
    for header in (b"Access-Control-Allow-Origin: *", b"X-Content-Type-Options: nosniff", b"Content-Length: "):
        assert header in data
    assert "Traceback" not in caplog.text


def test_the_next_client_is_answered_after_all_that(server):
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port), 10) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: loc")
    assert ask(server, "/z3/v/chunk").status == 200


# --- what fails


@pytest.mark.parametrize(
    ("name", "expected", "code"),
    [
        ("asked", 404, "not_found"),
        ("lost", 503, "NotFoundError"),
        ("store", 503, "StoreError"),
        ("denied", 503, "PermissionDeniedError"),
        ("late", 503, "StoreTimeoutError"),
        ("data", 503, "ChecksumError"),
        ("document", 503, "MetadataError"),
        ("unread", 501, "UnsupportedError"),
        ("selection", 400, "bad_request"),
        ("value", 500, "internal"),
        ("limit", 413, "LimitExceededError"),
        ("bug", 500, "internal"),
        ("system", 503, "system"),
        ("internal", 500, "internal"),
    ],
)
def test_trouble_is_not_absence(server, caplog, name, expected, code):
    caplog.set_level(logging.INFO, "voxfetch.server")
    got = ask(server, f"/z3/v/raise/{name}?secret={SECRET}")
    found = json.loads(got.body)
    assert (got.status, found["error"]) == (expected, code)
    assert got["Access-Control-Allow-Origin"] == "*"
    assert got["Retry-After"] == ("1" if expected == 503 else None)
    assert b"example" not in got.body
    assert len(got.body) < 100
    if expected != 404:
        assert found["id"] in caplog.text
        assert got["Cache-Control"] == "no-store"
    for secret in (SECRET, TOKEN, "user:", "Signature"):
        assert secret not in caplog.text


def test_a_plane_that_stalls(volume, stand, caplog):
    with serving({"v": str(volume)}, {"z3": stand}, timeout_s=0.3) as server:
        got = ask(server, "/z3/v/wait/1")
        assert (got.status, json.loads(got.body)["error"], got["Retry-After"]) == (503, "timeout", "1")
        assert stand.cancelled.is_set()
        assert ask(server, "/z3/v/chunk").status == 200


def test_a_body_that_cannot_be_finished_ends_too_early(server):
    with Client(server.port) as client:
        client.send(f"/t/{TOKEN}/z3/v/torn")
        data = b""
        with suppress(ConnectionResetError):
            while piece := client.socket.recv(1 << 20):
                data += piece
    assert b"Content-Length: %d\r\n" % (5 << 20) in data
    assert len(data) < 5 << 20
    assert ask(server, "/z3/v/chunk").status == 200


def test_a_store_that_stalls_while_an_object_is_sent_does_not_keep_the_place(volume, stand, caplog):
    options = {"max_requests": 1, "max_queue": 0, "timeout_s": 0.3}
    with serving({"v": str(volume)}, {"raw": stand}, **options) as server:
        with Client(server.port, timeout_s=5) as client:
            client.send(f"/t/{TOKEN}/raw/v/stalled")
            nbytes = 0
            with suppress(ConnectionResetError):
                while piece := client.socket.recv(1 << 20):
                    nbytes += len(piece)
        assert 1 << 20 < nbytes < 5 << 20
        assert ask(server, "/raw/v/chunk").status == 200
    assert "while it was sent" in caplog.text


def test_answers_are_bounded(volume, stand):
    with serving({"v": str(volume)}, {"z3": stand}, max_response_bytes=1 << 20) as server:
        assert ask(server, "/z3/v/big").status == 413
        assert ask(server, "/z3/v/big", "HEAD").status == 200
        assert ask(server, "/z3/v/big", Range="bytes=0-9").status == 206


# --- many at once


def test_a_client_that_goes_away_stops_its_work(server, stand):
    with Client(server.port) as client:
        client.send(f"/t/{TOKEN}/z3/v/wait/1")
        assert stand.started.wait(10)
    assert stand.cancelled.wait(10)
    assert ask(server, "/z3/v/chunk").status == 200


def test_so_many_work_so_many_wait_and_the_rest_is_sent_away(volume, stand):
    with serving({"v": str(volume)}, {"z3": stand}, max_requests=2, max_queue=3) as server:
        clients = [Client(server.port) for _ in range(9)]
        try:
            for number, client in enumerate(clients):
                client.send(f"/t/{TOKEN}/z3/v/wait/{number}")
                if number < 2:
                    stand.started.wait(10)
                    stand.started.clear()
                else:
                    time.sleep(0.05)
            busy = [client.receive() for client in clients[5:]]
            assert [got.status for got in busy] == [503] * 4
            assert [json.loads(got.body)["error"] for got in busy] == ["busy"] * 4
            assert all(got["Retry-After"] and got["Access-Control-Allow-Origin"] == "*" for got in busy)
            # One that waits and goes away gives its place up.
            clients[4].socket.close()
            time.sleep(0.1)
            clients[5].send(f"/t/{TOKEN}/z3/v/wait/5")
            time.sleep(0.1)
            stand.go.set()
            answered = [clients[number].receive() for number in (0, 1, 2, 3, 5)]
            assert [(got.status, got.body) for got in answered] == [(200, b"%d" % i) for i in (0, 1, 2, 3, 5)]
            assert stand.most == 2
        finally:
            for client in clients:
                client.socket.close()


def test_few_answers_with_many_boxes_are_at_work_and_hold_up_no_others(volume, stand):
    with serving({"v": str(volume)}, {"z3": stand, "api": stand}, max_requests=64, max_queue=3) as server:
        clients = [Client(server.port) for _ in range(8)]
        try:
            for client in clients:
                client.send(f"/t/{TOKEN}/api/cutouts", method="POST", body=b"wait")
                time.sleep(0.05)
            assert clients[7].receive().status == 503
            assert stand.most == 4
            assert ask(server, "/z3/v/chunk").status == 200
            stand.go.set()
            assert [client.receive().status for client in clients[:7]] == [200] * 7
        finally:
            for client in clients:
                client.socket.close()


def test_who_posts_slowly_holds_none_of_the_few_places(volume, stand):
    with serving({"v": str(volume)}, {"api": stand}) as server:
        clients = [Client(server.port) for _ in range(8)]
        try:
            for client in clients:
                client.send(f"/t/{TOKEN}/api/cutouts", method="POST", Content_Length=3)
                client.socket.sendall(b"a")
            time.sleep(0.2)
            assert ask(server, "/api/cutouts", "POST", b"abc").body == b"cba"
            for client in clients:
                client.socket.sendall(b"bc")
                assert client.receive().body == b"cba"
        finally:
            for client in clients:
                client.socket.close()


def test_the_page_of_a_token_in_the_query_is_where_its_links_lead(server):
    got = ask(server, f"/?token={TOKEN}", token=False)
    assert (got.status, got["Location"]) == (308, f"./t/{TOKEN}/")
    assert ask(server, "/?token=wrong", token=False).status == 401


def test_a_thousand_clients_at_once(volume, stand):
    stand.go.set()

    async def one(port, number):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            path = f"/t/{TOKEN}/z3/v/{'wait' if number % 2 else 'chunk'}/{number}"
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            expected = b"%d" % number if number % 2 else f"v native ('chunk', '{number}')".encode()
            return head.split(b" ")[1] == b"200" and body == expected
        finally:
            writer.close()

    async def main(port):
        return await asyncio.wait_for(asyncio.gather(*(one(port, number) for number in range(1000))), 40)

    with serving({"v": str(volume)}, {"z3": stand}, max_queue=1000) as server:
        assert all(asyncio.run(main(server.port)))
    assert len(stand.asked) == 1000
    assert stand.most <= 64


def test_a_client_that_takes_nothing_does_not_keep_its_place(volume, stand):
    options = {"max_requests": 1, "max_queue": 0, "timeout_s": 0.5}
    with serving({"v": str(volume)}, {"z3": stand}, **options) as server, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", server.port))
        for _ in range(3):
            slow.sendall(f"GET /t/{TOKEN}/z3/v/big HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        time.sleep(0.2)
        assert ask(server, "/z3/v/chunk").status == 503
        time.sleep(0.8)
        assert ask(server, "/z3/v/chunk").status == 200


# --- event streams, start and stop


def test_an_event_stream_is_idle_and_ends_with_the_server(volume, stand, monkeypatch):
    monkeypatch.setattr(exchange, "EVENTS_S", 0.05)
    with serving({"v": str(volume)}, {"": stand}, max_requests=1, max_queue=0) as server:
        clients = [Client(server.port) for _ in range(3)]
        for client in clients:
            client.send(f"/t/{TOKEN}/events/ng?c=1")
            data = b""
            while data.count(b": \n\n") < 3:
                data += client.socket.recv(4096)
            assert data.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"Content-Type: text/event-stream\r\n" in data
            assert b"Access-Control-Allow-Origin: *\r\n" in data
        # They take no place of those at work.
        assert ask(server, "/page/x").status == 404
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 3
        for client in clients:
            while client.socket.recv(4096):
                pass
            client.socket.close()
    assert ask_fails(server)


def ask_fails(server):
    try:
        ask(server, "/")
    except OSError:
        return True
    return False


def test_what_is_under_way_ends_when_the_server_stops(volume, stand):
    with serving({"v": str(volume)}, {"z3": stand}) as server, Client(server.port) as client:
        client.send(f"/t/{TOKEN}/z3/v/wait/9")
        assert stand.started.wait(10)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        time.sleep(0.2)
        stand.go.set()
        assert client.receive().body == b"9"
        stopping.join(10)
        assert not stopping.is_alive()


def test_no_connection_is_left_when_the_server_stops(volume, stand):
    """Neither one that was accepted at that moment, nor one whose client takes nothing: pytest sees what is left."""
    for _ in range(30):
        with serving({"v": str(volume)}, {"z3": stand}) as server:
            clients = [Client(server.port) for _ in range(3)]
            clients[0].send(f"/t/{TOKEN}/z3/v/big")
            server.stop()
            for client in clients:
                client.socket.close()
    gc.collect()


def test_on_the_running_loop(volume, stand):
    async def main():
        async with Server(str(volume), planes={"z3": stand}) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            path = server.url_of("v.zarr").partition(str(server.port))[2]
            writer.write(f"GET {path}/chunk HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            data = await reader.read()
            writer.close()
            return server, data

    server, data = asyncio.run(main())
    assert data.endswith(b"v.zarr native ('chunk',)")
    assert len(server.token) >= 32
    assert server.token not in repr(server)


def test_sources_that_cannot_be_opened(tmp_path, volume):
    with pytest.raises(vf.NotFoundError):
        Server([str(volume), str(tmp_path / "none")]).start_in_thread()
    with serving([str(volume), str(tmp_path / "none"), ("empty", "")], lazy=True) as server:
        assert ask(server, "/raw/v.zarr/zarr.json").status == 200
        # It is in the registry: that it is not there is trouble.
        assert ask(server, "/raw/none/zarr.json").status == 503
        assert ask(server, "/raw/empty/zarr.json").status == 503
        assert ask(server, "/raw/other/zarr.json").status == 404


def test_a_port_that_is_taken(volume):
    with serving({"v": str(volume)}) as server, pytest.raises(OSError):
        Server(str(volume), ServerOptions(port=server.port)).start_in_thread()


# --- logs


def test_logs_keep_secrets():
    assert redacted(f"a {URL} b") == "a https://em.example/a.zarr b"
    assert redacted("s3://key:secret@bucket/x?sig=1|zarr3: y") == "s3://bucket/x|zarr3: y"
    assert redacted(f"GET /t/{TOKEN}/z3") == "GET /t/.../z3"
    assert redacted("line\nnext\x1b[0m") == "line\\nnext\\x1b[0m"


def test_the_log_of_requests(server, caplog):
    caplog.set_level(logging.INFO, "voxfetch.server.access")
    ask(server, f"/z3/v/chunk?secret={SECRET}")
    deadline = time.monotonic() + 5
    while not caplog.records and time.monotonic() < deadline:
        time.sleep(0.01)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("GET /z3/v/chunk 200 19 ")


def test_a_name_cannot_pass_for_fields_of_the_log(server, caplog):
    caplog.set_level(logging.INFO, "voxfetch.server.access")
    ask(server, "/z3/v/chunk/a%20200%20<x>")
    deadline = time.monotonic() + 5
    while not caplog.records and time.monotonic() < deadline:
        time.sleep(0.01)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.split(" ")[1:3] == ["/z3/v/chunk/a%20200%20%3Cx%3E", "200"]


# ---------------------------------------------------------------------------------------------------------- time-outs


def deadlines(work, limit_s=0.2):
    async def main():
        return await work(Deadlines(limit_s))

    return asyncio.run(main())


def test_what_takes_too_long_ends_by_a_time_out_and_nothing_else_does():
    async def within(limit, seconds):
        with limit:
            await asyncio.sleep(seconds)
        return seconds

    async def work(limit):
        began = time.monotonic()
        found = await asyncio.gather(*(within(limit, s) for s in (5, 0, 0.1, 5)), return_exceptions=True)
        return found, time.monotonic() - began

    found, took_s = deadlines(work)
    assert [type(one) for one in found] == [TimeoutError, int, float, TimeoutError]
    assert 0.2 <= took_s < 1


def test_who_is_cancelled_in_time_is_cancelled():
    async def within(limit):
        with limit:
            await asyncio.sleep(5)

    async def work(limit):
        task = asyncio.ensure_future(within(limit))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # Nothing is left that would end what comes later.
        with limit:
            await asyncio.sleep(0.15)
        await asyncio.sleep(0.2)
        assert asyncio.current_task().cancelling() == 0

    deadlines(work)


def test_who_does_not_read_a_small_answer_holds_up_nobody(volume):
    class Chunk:
        async def answer(self, asked):
            return Body(bytes(240 << 10), etag="c")

    with serving({"v": str(volume)}, {"z3": Chunk()}, max_requests=1, max_queue=0) as server:
        idle = [Client(server.port) for _ in range(3)]
        try:
            for client in idle:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
                # More than the system takes for a client, so that the last answers wait to be read.
                for _ in range(40):
                    client.send(f"/t/{TOKEN}/z3/v/chunk")
                time.sleep(0.3)
                assert ask(server, "/z3/v/chunk").status == 200
        finally:
            for client in idle:
                client.socket.close()
