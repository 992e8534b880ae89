"""10,000 hostile paths against a server with real folders and a secret beside them: nothing outside, nothing breaks."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
import zarr

from tests.servers.plain import TOKEN, Client, serving
from voxfetch.server import Server
from voxfetch.server.answers import Body

SECRET = b"hunter2-is-not-for-you"
COUNT = 10_000
PARTS = [
    "..", ".", "", "...", "....", "%2e%2e", "%2e.", ".%2E", "%252e%252e", "%c0%ae%c0%ae", "%c0%af", "..%2f",
    "%2f", "%5c", "..%5c..", "\\", "..\\..", "%00", "zarr.json%00.txt", "%0d%0aX-Evil:%20yes", "%0a", "%ff%fe",
    "%ed%a0%80", "%", "%zz", "C:", "c:%5cwindows", "etc", "passwd", "proc", "self", "environ", "secret",
    "secret.txt", "root", "v", "g", "a", "b", "zarr.json", "c", "0", "1", "0.0", "-1", "99999999999999999999",
    ".zattrs", ".zgroup", "labels", "@viv", "@wk", "@", "@..", "raw", "z3", "api", "img", "t", TOKEN, "out",
    "up", "file:", "file:%2f%2f%2fetc%2fpasswd", "http:", "http:%2f%2f169.254.169.254%2f", "~", "~root",
    "0.0", "info", "thumb.png", "slice.png?axes=..&level=-1", "tree?source=g&path=..", "tree?source=g&path=up", "node",
    "neuroglancer?source=g%2F..%2F..", "neuroglancer?source=g%2Fup&redirect=1", "00", "%D9%A0",
    "$HOME", "{}", "{0.__class__}", "<script>", "'%20or%201=1--", "a" * 255, "a" * 300, "%61" * 300, "%u2215",
    "\u2215".encode().decode("latin-1"), "con", "nul", "a%20", "a.", "*", "?", "#", ";", ";x=..", "%3f", "%23",
    "+", "&",
]  # fmt: skip

STARTS = [
    "raw", "raw/v", "raw/g", "z3/g", "z3/@viv/g", "z3/v", "z2/v/0", "z2/g", "pc/g", "img/v", "img/g/a", "api",
    "api/node/g", "api/state", "v/ng", "page",
]  # fmt: skip
THERE = ["out", "up", "zarr.json", ".zattrs", ".zarray", "a", "b", "raw", "0", "c", "thumb.png", "tree", "v", "g"]


def paths(seed):
    """Random paths of hostile parts, most of which begin where something is."""
    random_ = random.Random(seed)
    starts = ["/", f"/t/{TOKEN}", *(f"/t/{TOKEN}/{path}" for path in STARTS)]
    for _ in range(COUNT):
        parts = random_.choices(THERE, k=random_.choice((0, 1, 1, 2))) + random_.choices(
            PARTS, k=random_.choice((0, 0, 1, 3, 7))
        )
        path = random_.choice(starts) + "".join(f"/{part}" for part in parts)
        if random_.random() < 0.2:
            at = random_.randrange(len(path))
            path = path[:at] + chr(random_.randrange(33, 256)) + path[at + 1 :]
        yield path.encode("latin-1").replace(b" ", b"%20") or b"/"


class Shown:
    """A plane that walks down like a real one, and says what it was asked."""

    def __init__(self):
        self.registry = None

    async def answer(self, asked):
        for name in asked.segments:
            assert name not in ("", ".", "..")
            assert not re.search(r"[\x00-\x1f/\\]", name)
        node, rest = await self.registry.find(asked.source, asked.segments)
        return None if rest else Body(repr(type(node)).encode())


@pytest.fixture(params=["a plane that looks", "the planes"])
def server(tmp_path, request):
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "secret.txt").write_bytes(SECRET)
    root = tmp_path / "root"
    zarr.create_array(root / "v", shape=(8, 8), chunks=(4, 4), dtype="u1")[...] = np.eye(8)
    group = zarr.open_group(root / "g", mode="w")
    for name in ("a", "b/0", "raw/c"):
        group.create_array(name, shape=(8, 8), chunks=(4, 4), dtype="u1")[...] = 1
    (root / "secret").write_bytes(SECRET)
    for place in (root / "v", root / "g", root / "g" / "a"):
        (place / "out").symlink_to(tmp_path / "secret")
        (place / "up").symlink_to(tmp_path)
    shown = Shown()
    planes = {"z3": shown, "z2": shown, "pc": shown, "img": shown, "api": Nothing(), "": Nothing()}
    planes = planes if request.param == "a plane that looks" else None
    with serving({"v": str(root / "v"), "g": str(root / "g")}, planes) as server:
        shown.registry = server.registry
        yield server


class Nothing:
    async def answer(self, asked):
        return None


@pytest.mark.parametrize("seed", [20261129])
def test_hostile_paths(server, seed):
    counts = {}
    client = Client(server.port)
    for path in paths(seed):
        client.send(path)
        try:
            got = client.receive()
        except Exception as error:
            raise AssertionError(path) from error
        assert SECRET not in got.body, path
        assert b"root:" not in got.body, path
        # The link out of the folder is refused, which a reader must not take for a chunk that is not stored.
        links = (b"out", b"up")
        is_refused = b"PermissionDeniedError" in got.body and any(link in path for link in links)
        assert got.status < 500 or (got.status == 503 and is_refused), path
        assert got["Access-Control-Allow-Origin"] == "*", path
        assert got["X-Evil"] is None, path
        counts[got.status] = counts.get(got.status, 0) + 1
        if got["Connection"] == "close":
            client.socket.close()
            client = Client(server.port)
    client.socket.close()
    assert sum(counts.values()) == COUNT
    # They reach all the answers there are.
    assert {200, 400, 401, 404} <= set(counts)
    assert counts[200] > 100


def test_the_secret_is_found_where_it_may_be_asked_for(tmp_path):
    """The test above would see it: of a server of the folder above, it is an object as any other."""
    zarr.open_group(tmp_path / "root", mode="w")
    (tmp_path / "root" / "secret").write_bytes(SECRET)
    with serving({"all": str(tmp_path / "root")}) as server, Client(server.port) as client:
        assert client.ask(f"/t/{TOKEN}/raw/all/secret").body == SECRET


def test_no_url_is_opened(server):
    """Sources are those of the registry, whatever a query says."""
    with Client(server.port) as client:
        for query in ("url=file:///etc/passwd", "source=/etc", "path=../secret"):
            assert client.ask(f"/t/{TOKEN}/raw/other?{query}").status == 404
            got = client.ask(f"/t/{TOKEN}/raw/v/zarr.json?{query}")
            assert got.body.startswith(b"{")
    assert isinstance(server, Server)
