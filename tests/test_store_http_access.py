"""`HttpStore`: where URLs, secrets and redirects lead, credentials that expire, and refusals that mean missing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import random
import traceback

import pytest

import voxfetch as vf
from tests.servers.asking import KEY, OBJECT, RANGE, WHOLE, get, is_right, outcome, run
from tests.servers.faulty import FAULTS, FaultyServer, redirect, s3_error, status
from voxfetch.store import Ask, Reply, TransientError
from voxfetch.store.http import HttpStore
from voxfetch.store.missing import may_be_chunk

SECRET = "hunter2"


@pytest.fixture
def server():
    with FaultyServer({KEY: OBJECT, "a/zarr.json": b"{}", "empty": b""}) as server:
        yield server


# --------------------------------------------------------------------------------------------------- URLs and secrets


@pytest.mark.parametrize(
    "url",
    [
        f"ftp://user:{SECRET}@host/a",
        f"http://?sig={SECRET}",
        f"/path/{SECRET}",
        f"http://host:port{SECRET}/a",
        f"http://ho st{SECRET}/a",
        f"http://host/a\n{SECRET}",
        f"http://[::1/{SECRET}",
        f"https:///{SECRET}",
        "",
    ],
)
def test_urls_that_are_none(url):
    with pytest.raises(vf.StoreError) as caught:
        HttpStore(url)
    assert SECRET not in str(caught.value) + repr(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host", "http://host"),
        ("http://host/", "http://host"),
        ("HTTP://Host:80/a/", "http://host/a"),
        ("https://host:443/a//", "https://host/a"),
        ("https://host:8443/a?x=1", "https://host:8443/a"),
        ("https://u:p@host/a#part", "https://host/a"),
        ("https://host/my data/\u00fc", "https://host/my%20data/%C3%BC"),
        ("https://host/a%20b/50%", "https://host/a%20b/50%25"),
        ("http://[::1]:8080/a", "http://[::1]:8080/a"),
        ("http://m\u00fcnchen.example/a", "http://xn--mnchen-3ya.example/a"),
    ],
)
def test_shown_urls(url, shown):
    store = HttpStore(url)
    assert store.url == shown
    assert repr(store) == f"HttpStore('{shown}')"


KEYS = ["a b", "a+b", "100%", "a%20b", "\u00fc/\u4e2d", "q?x=1", "h#1", "c/0.0", "a:b@c", "(1,2)*'!$&;=~", '"<>^`{|}']


@pytest.mark.parametrize("key", KEYS)
def test_keys_arrive_as_they_are(key):
    with FaultyServer({f"root/{key}": OBJECT}) as server:
        assert is_right(get(HttpStore(server.url + "/root?x=%2F"), Ask(key, 100, 300)), Ask(key, 100, 300))
        (request,) = server.requests
        assert request.target.endswith("?x=%2F"), "a query is not quoted again"
        assert request.target.isascii()


@pytest.mark.parametrize("key", ["../x", "/x", "a//b", "a/../b", "http://host/x", "a\0b"])
def test_keys_stay_inside(server, key):
    assert isinstance(get(HttpStore(server.url + "/a"), Ask(key)), vf.MetadataError)
    assert not server.requests


def test_the_root_itself(server):
    assert is_right(get(HttpStore(f"{server.url}/{KEY}"), Ask("")), WHOLE)
    server.put("", OBJECT)
    for url in (server.url, server.url + "/", server.url + "?x=1"):
        assert is_right(get(HttpStore(url), Ask("")), WHOLE)


def test_where_secrets_go(server):
    url = server.url.replace("//", "//user:p%40ss@") + "/a?sig=s%2Fg&x=1"
    store = HttpStore(url, headers={"X-Token": SECRET, "Range": "bytes=0-1", "Accept-Encoding": "gzip"})
    assert is_right(get(store, Ask("c/0/0", 100, 300)), RANGE)
    (request,) = server.requests
    assert request.target == "/a/c/0/0?sig=s%2Fg&x=1"
    assert request.headers["authorization"] == "Basic dXNlcjpwQHNz"
    assert request.headers["x-token"] == SECRET
    assert request.headers["accept-encoding"] == "identity"
    assert request.range == "bytes=100-299"
    own = HttpStore(url, headers={"authorization": "Bearer x"})
    get(own, Ask("c/0/0"))
    assert server.requests[-1].headers["authorization"] == "Bearer x", "what is said in so many words holds"


@pytest.mark.parametrize("name", FAULTS)
def test_secrets_stay_secret(server, name, caplog):
    caplog.set_level(logging.DEBUG)
    logging.getLogger("asyncio").setLevel(logging.DEBUG)
    url = server.url.replace("//", f"//user:{SECRET}1@") + f"/a?sig={SECRET}2"
    fault = FAULTS[name]
    server.rule = lambda _: fault

    async def work(clients):
        store = HttpStore(url, headers=lambda: {"Authorization": f"Bearer {SECRET}3", "x-token": f"{SECRET}4"})
        errors = [await outcome(store, Ask("c/0/0", 100, 300), clients)]
        errors += [await outcome(store, Ask("c/0/0", suffix=10), clients)]
        return store, errors

    store, errors = run(work, idle_timeout_s=0.2)
    seen = [repr(store), str(store), store.url, *(record.getMessage() for record in caplog.records)]
    for error in errors:
        seen += everything(error)
    for text in seen:
        assert SECRET not in text


def everything(error):
    """All texts of an exception and of those that it came from."""
    if not isinstance(error, BaseException):
        return [repr(error)]
    inner = error.error if isinstance(error, TransientError) else error
    texts = [repr(error), str(error), repr(error.__dict__), str(inner), repr(inner), repr(inner.__dict__)]
    texts += [str(pickle.dumps(inner)), *traceback.format_exception(error)]
    assert error.__context__ is None or isinstance(error.__context__, vf.VoxfetchError)
    return texts


def test_secrets_of_a_connection_that_fails():
    with FaultyServer({}) as server:
        port = server.port
    for url in (
        f"http://user:{SECRET}@127.0.0.1:{port}/a?sig={SECRET}",
        f"http://user:{SECRET}@voxfetch.invalid/a?sig={SECRET}",
    ):
        for text in everything(get(HttpStore(url), RANGE)):
            assert SECRET not in text


def test_pickles(server):
    store = HttpStore(server.url + f"/a?sig={SECRET}")
    assert is_right(get(store, Ask("c/0/0", 100, 300)), RANGE)
    copy = pickle.loads(pickle.dumps(store))
    assert copy == store
    assert hash(copy) == hash(store)
    assert is_right(get(copy, Ask("c/0/0", 100, 300)), RANGE)
    assert len(pickle.dumps(store)) < 250

    called = HttpStore(server.url, headers=headers_of_a_module)
    assert is_right(get(called, RANGE), RANGE)
    text = pickle.dumps(called)
    assert SECRET.encode() not in text, "what a callable returns is not kept"
    copy = pickle.loads(text)
    assert copy == called
    assert is_right(get(copy, RANGE), RANGE)
    assert server.requests[-1].headers["x-token"] == SECRET


def headers_of_a_module():
    return {"x-token": SECRET}


def test_identity():
    def headers():
        return {}

    base = HttpStore("http://host/a", headers={"B": "1", "A": "2"})
    assert base == HttpStore("http://host:80/a/", headers={"a": "2", "b": "1"})
    others = [
        HttpStore("http://host/a"),
        HttpStore("http://host/a?x=1"),
        HttpStore("http://u:p@host/a"),
        HttpStore("http://host/b"),
        HttpStore("https://host/a"),
        HttpStore("http://host/a", headers={"a": "2"}),
        HttpStore("http://host/a", missing_status=403),
        HttpStore("http://host/a", headers=headers),
        HttpStore("http://host/a", headers=headers),
    ]
    assert len({base, *others}) == 1 + len(others)
    assert len({store.identity for store in others}) == len(others)
    assert base != "http://host/a"


@pytest.mark.parametrize(
    "headers", [{"a": 1}, {1: "a"}, {"a b": "c"}, {"": "c"}, {"a": f"{SECRET}\r\nb: c"}, {"a": f"{SECRET}\0"}]
)
def test_headers_that_are_none(headers):
    with pytest.raises((TypeError, ValueError)) as caught:
        HttpStore("http://host/a", headers=headers)
    assert SECRET not in str(caught.value)


def test_listing(server):
    with pytest.raises(vf.UnsupportedError):
        run(lambda clients: HttpStore(server.url).list("a", clients))


# ---------------------------------------------------------------------------------------------------------- redirects


def test_redirects_are_followed(server):
    store = HttpStore(server.url + "/moved?sig=1", headers={"X-Token": "t"})
    server.rule = lambda request: {
        "moved/c": redirect(f"/again/{KEY}?a=%2F", 301),
        f"again/{KEY}": redirect(f"../../../../{KEY}", 308),
    }.get(request.key)
    assert is_right(get(store, Ask("c", 100, 300)), RANGE)
    assert [request.target for request in server.requests] == ["/moved/c?sig=1", f"/again/{KEY}?a=%2F", f"/{KEY}"]
    assert all(request.headers["x-token"] == "t" for request in server.requests), "the same server"
    assert all(request.range == "bytes=100-299" for request in server.requests)
    assert server.connections == 1


def test_secrets_do_not_go_to_another_host(server):
    with FaultyServer({KEY: OBJECT}) as other:
        url = server.url.replace("//", f"//user:{SECRET}@") + f"?sig={SECRET}"
        store = HttpStore(url, headers={"X-Token": SECRET, "User-Agent": SECRET, "Cookie": SECRET})
        etag = get(HttpStore(server.url), RANGE).etag
        server.faults.append(redirect(f"{other.url}/{KEY}?there".replace("//", f"//x:{SECRET}@")))
        other.faults.append(redirect(f"{server.url}/{KEY}"))
        assert is_right(get(store, Ask(KEY, 100, 300, if_match=etag)), RANGE)
        (request,) = other.requests
        assert SECRET not in repr(request)
        assert request.range == "bytes=100-299"
        assert request.if_match == etag
        assert SECRET in repr(server.requests[-2])
        assert SECRET not in repr(server.requests[-1]), "nor back on a later hop"


def test_redirect_loops_end(server):
    server.rule = lambda request: redirect(f"/{KEY}")
    got = get(HttpStore(server.url), RANGE)
    assert type(got) is vf.StoreError
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    "fault",
    [
        redirect("ftp://host/x"),
        redirect("file:///etc/passwd"),
        redirect("http://"),
        redirect("http://[::1/"),
        redirect("http://169.254.169.254/latest/meta-data/iam"),
        redirect("http://2852039166/"),
        redirect("http://0xa9.0xfe.43518/"),
        redirect("http://[::ffff:169.254.169.254]/"),
        redirect("http://[fe80::1%25eth0]/"),
        redirect("http://[fd00:ec2::254]/"),
        redirect("http://metadata.google.internal/computeMetadata/v1/"),
        status(302),
    ],
)
def test_redirects_to_nowhere(server, fault):
    server.rule = lambda _: fault
    got = get(HttpStore(server.url), RANGE)
    assert type(got) is vf.StoreError
    assert got.status == 302


# -------------------------------------------------------------------------------------------------------- credentials


class Tokens:
    """Headers from a callable: another token at each call."""

    def __init__(self, *, is_async=False, fails=None):
        self.calls = 0
        self.is_async = is_async
        self.fails = fails

    def __call__(self):
        self.calls += 1
        if self.fails is not None:
            raise self.fails
        headers = {"Authorization": f"Bearer {self.calls}"}
        return self._later(headers) if self.is_async else headers

    async def _later(self, headers):
        await asyncio.sleep(0)
        return headers


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("fault", [status(401), s3_error(403, "ExpiredToken"), s3_error(400, "TokenRefreshRequired")])
def test_credentials_that_expire_are_renewed(server, is_async, fault):
    tokens = Tokens(is_async=is_async)
    store = HttpStore(server.url, headers=tokens)
    server.rule = lambda request: fault if request.headers["authorization"] < "Bearer 3" else None
    first, second = get(store, RANGE, RANGE)
    assert isinstance(first, vf.CredentialsError), "after the second refusal"
    assert is_right(second, RANGE)
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer 1", "Bearer 2", "Bearer 3"]


def test_fixed_credentials_are_refused_once(server):
    server.rule = lambda _: status(401)
    assert isinstance(get(HttpStore(server.url, headers={"Authorization": "x"}), RANGE), vf.CredentialsError)
    assert len(server.requests) == 1


@pytest.mark.parametrize("answer", [{"a b": "c"}, None, ValueError("no token")])
def test_callables_that_fail(server, answer):
    tokens = Tokens(fails=answer) if isinstance(answer, Exception) else lambda: answer
    got = get(HttpStore(server.url, headers=tokens), RANGE)
    assert isinstance(got, vf.CredentialsError)
    assert not server.requests


# ----------------------------------------------------------------------------------------- refusals that mean missing


def hides(server, *, allowed=lambda request: True):
    """403 for all that does not exist, as from a bucket that may not be listed, and for what is not allowed."""
    server.rule = lambda request: (
        None if allowed(request) and server.read(request.key) is not None else status(403, b"<Code>AccessDenied</Code>")
    )


DOCUMENT = Ask("a/zarr.json")
HOLE = Ask("a/c/9/9", 0, 10)


def test_refused_is_not_missing_without_proof(server):
    hides(server)
    store = HttpStore(server.url)
    first, _, second, third = get(store, HOLE, DOCUMENT, HOLE, HOLE)
    assert isinstance(first, vf.PermissionDeniedError), "nothing was ever read"
    assert second is None
    assert third is None
    # Four names that cannot exist, for all times, and after each refusal what could be read.
    others = [request.key for request in server.requests if request.key != HOLE.key]
    assert len(others) == 7
    assert all(key.startswith("voxfetch-") for key in others[1:5])
    assert others[0] == others[5] == others[6] == DOCUMENT.key
    assert isinstance(get(store, Ask("a/b/zarr.json")), vf.PermissionDeniedError), "a document is never missing so"
    assert get(store, Ask("a/c/8/8", suffix=16)) is None


def test_a_refusal_among_others_that_are_missing_is_a_refusal(server):
    """The server answers 404 for what does not exist: its 403 means what it says."""
    server.rule = lambda request: status(403) if request.key == HOLE.key else None
    store = HttpStore(server.url)
    _, first, second = get(store, DOCUMENT, HOLE, HOLE)
    assert isinstance(first, vf.PermissionDeniedError)
    assert isinstance(second, vf.PermissionDeniedError)
    assert len(server.requests) == 4


def test_refusals_that_come_and_go_are_not_missing():
    """As a server may answer that is asked too much, or one behind a firewall that guesses."""
    with FaultyServer({"zarr.json": b"{}", **{f"c/{number}": OBJECT for number in range(40)}}) as server:
        for seed in range(10):
            dice = random.Random(seed)
            server.rule = lambda _, dice=dice: status(403) if dice.random() < 0.3 else None
            results = get(HttpStore(server.url), Ask("zarr.json"), *(Ask(f"c/{number}", 0, 9) for number in range(40)))
            assert None not in results


@pytest.mark.parametrize("known", [False, True])
def test_a_time_of_refusals_is_not_missing(server, known):
    """For a while everything is refused, to whoever asks: neither then nor later is a refusal taken for missing."""
    store = HttpStore(server.url)
    assert isinstance(get(store, DOCUMENT), Reply)
    if known:
        hides(server)
        assert get(store, HOLE) is None
    server.rule = lambda _: status(403)
    got = get(store, RANGE)
    assert isinstance(got, vf.CredentialsError)
    server.rule = lambda request: status(403) if request.key == KEY else None
    if not known:
        assert isinstance(get(store, RANGE), vf.PermissionDeniedError), "a file that may not be read"


def test_a_store_that_says_404_does_not_hide(server):
    store = HttpStore(server.url)
    assert get(store, DOCUMENT, HOLE)[1] is None
    hides(server, allowed=lambda request: request.key != KEY)
    assert isinstance(get(store, RANGE), vf.PermissionDeniedError)
    assert len(server.requests) == 3


def test_expired_access_is_not_missing(server):
    """Also where the server does not say that it has expired."""
    valid = True
    hides(server, allowed=lambda _: valid)
    store = HttpStore(server.url + "?sig=1")
    _, hole = get(store, DOCUMENT, HOLE)
    assert hole is None
    copy = pickle.loads(pickle.dumps(store))
    assert get(copy, HOLE) is None, "a copy knows what was readable"
    valid = False
    for one in (store, copy, pickle.loads(pickle.dumps(store))):
        got = get(one, HOLE)
        assert isinstance(got, (vf.CredentialsError, vf.PermissionDeniedError)), got


def test_one_question_for_many_refusals(server):
    hides(server)
    server.latency_s = 0.05

    async def work(clients):
        store = HttpStore(server.url + "?sig=1")
        await store.get(DOCUMENT, clients)
        holes = [store.get(Ask(f"a/c/9/{n}", 0, 10), clients) for n in range(40)]
        first = asyncio.ensure_future(holes.pop())
        rest = asyncio.gather(*holes)
        await asyncio.sleep(0.08)
        first.cancel()
        assert await rest == [None] * 39
        with contextlib.suppress(asyncio.CancelledError):
            await first

    run(work)
    asked = [request for request in server.requests if "/9/" not in request.key]
    assert len(asked) <= 8, [request.key for request in asked]


def test_questions_that_fail_are_asked_again(server):
    hides(server)
    store = HttpStore(server.url)
    rule = server.rule
    server.rule = lambda request: status(503) if request.key.startswith("voxfetch-") else rule(request)
    _, first = get(store, DOCUMENT, HOLE)
    assert isinstance(first, TransientError)
    server.rule = rule
    assert get(store, HOLE) is None


@pytest.mark.parametrize("statuses", [403, (403,), (401, 403, 500)])
def test_statuses_that_the_user_calls_missing(server, statuses):
    store = HttpStore(server.url, missing_status=statuses)
    for number in (403,) if isinstance(statuses, int) else statuses:
        server.rule = lambda _, number=number: status(number)
        assert get(store, DOCUMENT) is None
        assert get(store, HOLE) is None
    server.rule = lambda _: s3_error(403, "ExpiredToken")
    assert isinstance(get(store, HOLE), vf.CredentialsError)
    server.rule = lambda _: status(502)
    assert isinstance(get(store, HOLE), TransientError)
    server.rule = lambda _: None
    assert get(store, HOLE) is None, "404 is always missing"


def test_no_refusal_is_missing_when_none_is_listed(server):
    hides(server)
    store = HttpStore(server.url, missing_status=404)
    _, got = get(store, DOCUMENT, HOLE)
    assert isinstance(got, vf.PermissionDeniedError)


@pytest.mark.parametrize(
    ("key", "chunk"),
    [
        ("a/c/0/0", True),
        ("a/0.0", True),
        ("s0/0-64_0-64_0-64", True),
        ("s0/0f.shard", True),
        ("color/1/z0/y0/x0.wkw", True),
        ("a/information", True),
        ("zarr.json", False),
        ("a/.zarray", False),
        ("a/.zgroup", False),
        ("a/.zattrs", False),
        (".zmetadata", False),
        ("n5/attributes.json", False),
        ("p/info", False),
        ("info", False),
        ("w/header.wkw", False),
        ("w/datasource-properties.json", False),
        ("", False),
    ],
)
def test_what_may_be_a_chunk(key, chunk):
    assert may_be_chunk(key) == chunk
