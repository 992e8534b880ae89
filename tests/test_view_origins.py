"""Pages of other servers in headless Chromium: what they may read of ours, and what they may not."""

from __future__ import annotations

import json

import pytest

from tests.servers.plain import serving
from tests.viewing import Pages, browser, needs_browser, origin_of, tab
from tests.volumes import write_volume

__all__ = ["browser", "tab"]

pytestmark = [needs_browser, pytest.mark.timeout(120)]

CHUNK = "z3/em/0/c/0/0/0"
REFUSED = "TypeError"


class Other(Pages):
    def do_GET(self):
        self.say("text/html", b"<!doctype html><title>another</title>")


@pytest.fixture(scope="module")
def other():
    """The origin of a page that is none of ours."""
    with origin_of(Other) as origin:
        yield origin


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    folder = tmp_path_factory.mktemp("origins") / "em"
    write_volume(folder, lambda z, y, x: x + 1, shape=(4, 32, 64))
    (folder / "0" / "c" / "0" / "0" / "1").write_bytes(b"damaged")
    return folder


@pytest.fixture
def page(other, tab):
    """Calls `fetch` on the page of another server; gives the status and a header, or the name of the error."""
    one = tab(f"{other}/")
    one.wait("document.title === 'another'")

    def fetch(url, header="Content-Type", **options):
        call = f"fetch({json.dumps(url)}, {json.dumps(options)})"
        return one.evaluate(f"{call}.then((r) => [r.status, r.headers.get('{header}')], (e) => [e.name, null])")

    return fetch


def test_who_knows_the_token_reads_all_answers_and_their_headers(volume, page):
    """Errors too, of which a page could not tell what they are otherwise; also those after a preflight."""
    with serving({"em": str(volume)}) as server:
        status, etag = page(server.url + CHUNK, "ETag")
        assert (status, etag[0]) == (200, '"')
        assert page(server.url + CHUNK, headers={"If-None-Match": etag}) == [304, None]
        last = {"headers": {"Range": "bytes=-5"}}
        status, content_range = page(server.url + CHUNK, "Content-Range", **last)
        assert status == 206
        nbytes = int(content_range.rpartition("/")[2])
        assert content_range == f"bytes {nbytes - 5}-{nbytes - 1}/{nbytes}"
        assert page(server.url + CHUNK, "Content-Length")[1] == str(nbytes)
        # Of a place that the browser has nothing of: it answers for those itself.
        past = page(f"{server.url}z2/em/0/0/0/0", "Content-Range", headers={"Range": "bytes=999999-"})
        assert past == [416, f"bytes */{nbytes}"]
        assert page(f"{server.url}z3/em/0/c/7/7/7")[0] == 404
        assert page(f"{server.url}z3/em/0/zarr.json", headers={"Range": "bytes=0-9"})[0] == 206
        assert page(f"{server.url}z3/nothing/zarr.json")[0] == 404
        assert page(f"{server.url}z2/em/0/0/0/1")[0] == 200, "passes, and is for its reader to find out"
        assert page(f"{server.url}pc/em/0/32-64_0-32_0-4", "Retry-After") == [503, "1"]
        assert page(server.url + CHUNK, method="PUT") == [REFUSED, None], "no method that a preflight allows"
        assert page(f"{server.url}api/cutouts", method="POST", body="?")[0] == 400
        assert page(server.url.replace("/t/", "/t/x") + CHUNK, "WWW-Authenticate")[0] == 401
        plain = server.url.partition("/t/")[0]
        assert page(f"{plain}/{CHUNK}", headers={"Authorization": f"Bearer {server.token}"})[0] == 200
        assert page(f"{plain}/{CHUNK}?token={server.token}")[0] == 200


def test_without_a_token_nobody_reads_who_is_not_named(volume, page):
    with serving({"em": str(volume)}, auth=False) as server:
        for path in (CHUNK, "z3/em/zarr.json", "api/tree", "z3/nothing/zarr.json"):
            assert page(server.url + path) == [REFUSED, None], path


def test_without_a_token_who_is_named_reads(volume, page, other):
    with serving({"em": str(volume)}, auth=False, origins=(other,)) as server:
        assert page(server.url + CHUNK)[0] == 200
        assert page(f"{server.url}z3/nothing/zarr.json")[0] == 404
    with serving({"em": str(volume)}, auth=False, origins=("http://127.0.0.1:1",)) as server:
        assert page(server.url + CHUNK) == [REFUSED, None]
