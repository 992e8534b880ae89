"""`HttpStore` against a server that misbehaves: each fault has the outcome it must have."""

from __future__ import annotations

import asyncio
import gc
import gzip
import time
import tracemalloc

import pytest

import voxfetch as vf
from tests.servers.asking import KEY, OBJECT, RANGE, SUFFIX, WHOLE, get, is_right, outcome, run
from tests.servers.faulty import FAULTS, Fault, FaultyServer, redirect, status
from tests.servers.proxy import Proxy
from tests.servers.tls import certificate, trusting
from voxfetch.connections import Connections
from voxfetch.store import Ask, TransientError
from voxfetch.store.http import HttpStore

MIB = 1 << 20


@pytest.fixture
def server():
    with FaultyServer({KEY: OBJECT, "a/zarr.json": b"{}", "empty": b""}) as server:
        yield server


def test_good_replies(server):
    store = HttpStore(server.url)
    asks = [RANGE, SUFFIX, WHOLE, Ask(KEY, 0, 1), Ask(KEY, 0, 1024), Ask(KEY, suffix=5000), Ask("nothing/here")]
    *replies, nothing = get(store, *asks)
    assert nothing is None
    for ask, reply in zip(asks, replies, strict=False):
        assert is_right(reply, ask)
        assert reply.total == 1024
        assert reply.etag.startswith('"')
        assert reply.modified == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert server.ranges == ["bytes=100-299", "bytes=-100", None, "bytes=0-0", "bytes=0-1023", "bytes=-5000", None]
    assert server.connections == 1, "also after a 404 the connection is kept"
    assert server.count(method="HEAD") == 0
    for request in server.requests:
        assert request.headers["accept-encoding"] == "identity"
        assert request.headers["user-agent"] == "voxfetch"


def test_a_folder_is_served(tmp_path):
    path = tmp_path / KEY
    path.parent.mkdir(parents=True)
    path.write_bytes(OBJECT)
    with FaultyServer(tmp_path) as server:
        first, nothing, folder = get(HttpStore(server.url), RANGE, Ask("a/c/0/1"), Ask("a/c"))
        assert is_right(first, RANGE)
        assert nothing is None
        assert folder is None
        path.write_bytes(OBJECT[:-1])
        assert isinstance(get(HttpStore(server.url), Ask(KEY, 100, 300, if_match=first.etag)), vf.ObjectChangedError)


def test_the_empty_object(server):
    store = HttpStore(server.url)
    *nothing, part = get(store, Ask("empty"), Ask("empty", suffix=10), Ask("empty", 0, 1), Ask("empty", 1, 2))
    for reply in nothing:
        assert (bytes(reply.body), reply.start, reply.total) == (b"", 0, 0)
    assert isinstance(part, vf.ObjectChangedError)


# ------------------------------------------------------------------------------------------------------------- faults

RIGHT = "right"
NOT_HONOURED = vf.RangeNotHonouredError
FAILED = (vf.StoreError, "transient")
TIMEOUT = (vf.StoreTimeoutError, "transient")
THROTTLED = (vf.StoreError, "throttled")
# Outcome for a range, for a suffix, for the whole object; None where nothing in the reply tells that it is wrong.
OUTCOMES = {
    "200 for a range": (RIGHT, RIGHT, RIGHT),
    "length unmet": (FAILED, FAILED, FAILED),
    "close-delimited, whole": (RIGHT, RIGHT, RIGHT),
    "close-delimited, cut": (FAILED, FAILED, None),
    "chunked, whole": (RIGHT, RIGHT, RIGHT),
    "chunked, cut": (FAILED, FAILED, FAILED),
    "chunked, broken": (FAILED, FAILED, FAILED),
    "length consistent": (FAILED, FAILED, RIGHT),
    "too long": (NOT_HONOURED, NOT_HONOURED, None),
    "too long, close-delimited": (NOT_HONOURED, NOT_HONOURED, None),
    "shifted": (NOT_HONOURED, NOT_HONOURED, RIGHT),
    "no Content-Range": (NOT_HONOURED, NOT_HONOURED, RIGHT),
    "no total": (RIGHT, NOT_HONOURED, RIGHT),
    "unsatisfied Content-Range": (NOT_HONOURED, NOT_HONOURED, RIGHT),
    "senseless Content-Range": (NOT_HONOURED, NOT_HONOURED, RIGHT),
    "gzip on a part": (NOT_HONOURED, NOT_HONOURED, vf.StoreError),
    "suffix from the head": (RIGHT, RIGHT, RIGHT),
    "stall before the headers": (TIMEOUT, TIMEOUT, TIMEOUT),
    "stall in the body": (TIMEOUT, TIMEOUT, TIMEOUT),
    "trickle": (TIMEOUT, TIMEOUT, TIMEOUT),
    "reset before the headers": (FAILED, FAILED, FAILED),
    "reset in the body": (FAILED, FAILED, FAILED),
    "closed before the headers": (FAILED, FAILED, FAILED),
    "unauthorized": (vf.CredentialsError,) * 3,
    "forbidden": (vf.PermissionDeniedError,) * 3,
    "expired token": (vf.CredentialsError,) * 3,
    "skewed clock": (vf.CredentialsError,) * 3,
    "slow down": (THROTTLED,) * 3,
    "too many requests": (THROTTLED,) * 3,
    "server error": (FAILED,) * 3,
    "bad gateway": (FAILED,) * 3,
    "unavailable": (THROTTLED,) * 3,
    "gateway timeout": (FAILED,) * 3,
    "request timeout": (FAILED,) * 3,
    "another version": (RIGHT, RIGHT, RIGHT),
    "not HTTP": (FAILED,) * 3,
    # A page of 200 with a length is taken for the object, cut to the range: only If-Match, checksums, codecs tell.
    "200 of a login page": (None, None, None),
}


def assert_outcome(got, ask, wanted):
    if wanted == RIGHT:
        assert is_right(got, ask), got
        return
    if isinstance(wanted, tuple):
        assert isinstance(got, TransientError), got
        assert got.throttled == (wanted[1] == "throttled")
        got, wanted = got.error, wanted[0]
    assert type(got) is wanted, got
    assert got.key == ask.key
    # Of a suffix that is not known, the request for the size may be what failed.
    assert got.byte_range in ({(ask.start, ask.end)} if ask.start is not None else {None, (0, 1)})


CASES = {
    f"{name}, {kind}": (fault, ask, OUTCOMES[name][number])
    for name, fault in FAULTS.items()
    for number, (kind, ask) in enumerate({"range": RANGE, "suffix": SUFFIX, "whole": WHOLE}.items())
    if OUTCOMES[name][number] is not None
}


@pytest.mark.parametrize("name", CASES)
def test_faults(server, name):
    fault, ask, wanted = CASES[name]
    server.rule = lambda _: fault
    began = time.monotonic()
    got = get(HttpStore(server.url), ask, idle_timeout_s=0.25 if wanted == TIMEOUT else 10)
    assert time.monotonic() - began < 2.5
    assert_outcome(got, ask, wanted)
    fallback = ask.suffix is not None and wanted == NOT_HONOURED
    silent = -1 in (fault.reset, fault.cut)
    most = 1 + (fallback or silent) + fault.head * 2
    assert len(server.requests) <= most, "one attempt; and one more for a connection that died in silence"


@pytest.mark.parametrize("name", FAULTS)
def test_after_a_fault_the_next_request_is_good(server, name):
    server.faults.append(FAULTS[name])
    _, got = get(HttpStore(server.url), RANGE, RANGE, idle_timeout_s=0.25)
    assert is_right(got, RANGE)


@pytest.mark.parametrize("ask", [RANGE, SUFFIX, WHOLE])
def test_reset_at_every_byte(server, ask):
    """Whatever has arrived before, the outcome is the right bytes or an error that calls for another attempt."""

    async def work(clients):
        store = HttpStore(server.url)
        for kind in ("reset", "cut"):
            for at in (*range(-1, 6), 50, 99, 100, 199, 200, 1023, 1024):
                server.faults.append(Fault(**{kind: at}))
                if at == -1:
                    server.faults.append(Fault(**{kind: at}))
                got = await outcome(store, ask, clients)
                assert is_right(got, ask) or (isinstance(got, TransientError) and type(got.error) is vf.StoreError)
                server.faults.clear()

    run(work)


def test_a_login_page_is_no_version_of_the_object(server):
    etag = get(HttpStore(server.url), RANGE).etag
    server.rule = lambda _: FAULTS["200 of a login page"]
    assert isinstance(get(HttpStore(server.url), Ask(KEY, 100, 300, if_match=etag)), vf.ObjectChangedError)
    server.rule = lambda _: FAULTS["another version"]
    assert isinstance(get(HttpStore(server.url), Ask(KEY, 100, 300, if_match=etag)), vf.ObjectChangedError)


def test_versions(server):
    store = HttpStore(server.url)
    etag = get(store, SUFFIX).etag
    same = Ask(KEY, 100, 300, if_match=etag)
    assert is_right(get(store, same), same)
    assert server.requests[-1].if_match == etag
    server.put(KEY, OBJECT)
    assert isinstance(get(store, same), vf.ObjectChangedError)
    server.put(KEY, OBJECT[:250])
    assert isinstance(get(store, RANGE), vf.ObjectChangedError)
    assert isinstance(get(store, Ask(KEY, 500, 600)), vf.ObjectChangedError)


@pytest.mark.parametrize("etags", ["weak", None])
def test_no_strong_version(etags):
    with FaultyServer({KEY: OBJECT}, etags=etags, modified=False) as server:
        reply = get(HttpStore(server.url), RANGE)
        assert is_right(reply, RANGE)
        assert (reply.etag, reply.modified) == (None, None)


@pytest.mark.parametrize("suffixes", [416, 501, 400, "head"])
def test_server_without_suffixes(suffixes):
    with FaultyServer({KEY: OBJECT, "empty": b""}, suffixes=suffixes) as server:
        store = HttpStore(server.url)
        first, second, nothing = get(store, SUFFIX, Ask(KEY, suffix=5000), Ask("none", suffix=5))
        assert is_right(first, SUFFIX)
        assert is_right(second, Ask(KEY, suffix=5000))
        assert nothing is None
        # What was learnt holds for the next suffix.
        assert server.ranges == [
            "bytes=-100",
            "bytes=0-0",
            "bytes=924-1023",
            "bytes=0-0",
            "bytes=0-1023",
            "bytes=0-0",
        ]
        assert server.requests[2].if_match == first.etag, "size and bytes are of one version"
        assert get(store, Ask("empty", suffix=5)).total == 0


def test_server_without_ranges():
    large = bytes(8 * MIB + 1)
    with FaultyServer({KEY: OBJECT, "large": large}, suffixes=200) as server:
        server.rule = lambda _: Fault(ignore_range=True)
        store = HttpStore(server.url)
        assert is_right(get(store, SUFFIX), SUFFIX)
        tracemalloc.start()
        for ask in (Ask("large", 5, 10), Ask("large", suffix=10)):
            assert isinstance(get(store, ask), vf.RangeNotHonouredError)
        assert isinstance(get(store, Ask("large", max_nbytes=8 * MIB)), vf.LimitExceededError)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # The server holds the object, and copies what it sends piece by piece.
        assert peak < 6 * MIB, "refused before the body is read"


@pytest.mark.parametrize("etags", ["strong", None])
def test_replaced_between_size_and_end(etags):
    def rule(request):
        if request.range == "bytes=924-1023":
            server._objects[KEY] = OBJECT + b"more"

    with FaultyServer({KEY: OBJECT}, suffixes=416, etags=etags) as server:
        server.rule = rule
        got = get(HttpStore(server.url), SUFFIX)
        assert isinstance(got, TransientError)
        assert isinstance(got.error, vf.ObjectChangedError)


def test_gzip_of_a_whole_object(server):
    encoded = gzip.compress(OBJECT)
    server.put("zipped", encoded)
    server.rule = lambda _: Fault(headers={"Content-Encoding": "gzip"}, ignore_range=True)
    store = HttpStore(server.url)
    whole = get(store, Ask("zipped"))
    assert (bytes(whole.body), whole.total) == (OBJECT, len(OBJECT))
    assert isinstance(get(store, Ask("zipped", 0, 10)), vf.RangeNotHonouredError)
    assert isinstance(get(store, Ask("zipped", max_nbytes=1000)), vf.LimitExceededError)


def test_whole_objects_end_at_their_limit(server):
    server.put("large", bytes(3 * MIB))
    for framing in ("length", "chunked", "close"):
        server.rule = lambda _, framing=framing: Fault(framing=framing)
        store = HttpStore(server.url)
        assert isinstance(get(store, Ask("large", max_nbytes=MIB)), vf.LimitExceededError)
        assert len(get(store, Ask("large", max_nbytes=3 * MIB)).body) == 3 * MIB


def test_retry_after(server):
    server.faults += [status(503, retry_after="7"), status(429, retry_after="Fri, 01 Jan 2100 00:00:00 GMT")]
    first, second = get(HttpStore(server.url), RANGE, RANGE)
    assert (first.retry_after_s, second.retry_after_s) == (7, 30)


def test_large_bodies_arrive(server):
    """In many pieces, of every framing."""
    large = bytes(range(256)) * (5 * MIB // 256)
    server.put("large", large)
    for framing in ("length", "chunked", "close"):
        server.rule = lambda _, framing=framing: Fault(framing=framing)
        reply = get(HttpStore(server.url), Ask("large", 3, 5 * MIB - 3))
        assert bytes(reply.body) == large[3:-3]


# -------------------------------------------------------------------------------------------------------- connections


def test_nobody_listens():
    with FaultyServer({}) as server:
        url = server.url
    got = get(HttpStore(url), RANGE)
    assert_outcome(got, RANGE, FAILED)
    assert "refused" in str(got)


def test_unknown_host():
    got = get(HttpStore("http://voxfetch.invalid/a"), RANGE)
    assert_outcome(got, RANGE, FAILED)


def test_tls():
    server_side, trusted = certificate()
    with FaultyServer({KEY: OBJECT}, ssl=server_side) as server, FaultyServer({KEY: OBJECT}) as plain:
        refused = get(HttpStore(server.url), RANGE)
        assert type(refused) is vf.StoreError, "no attempt makes a certificate valid"
        assert "certificate" in str(refused)
        wrong = get(HttpStore(plain.url.replace("http:", "https:")), RANGE)
        assert type(wrong) is vf.StoreError
        assert "TLS" in str(wrong)

        with trusting(trusted):
            assert is_right(get(HttpStore(server.url), RANGE), RANGE)
            server.rule = lambda _: redirect(f"{plain.url}/{KEY}")
            refused = get(HttpStore(server.url), RANGE)
            assert type(refused) is vf.StoreError
            assert "https to http" in str(refused)
            assert plain.count(key=KEY) == 0
    gc.collect()


def test_a_kept_connection_that_the_server_has_left(server):
    """Found out only by the next request: one more try, unseen."""
    server.faults.append(Fault(close=True))
    assert all(is_right(got, RANGE) for got in get(HttpStore(server.url), RANGE, RANGE, RANGE))
    server.faults += [None, Fault(cut=-1)]
    assert all(is_right(got, RANGE) for got in get(HttpStore(server.url), RANGE, RANGE))


def test_proxy(server):
    with Proxy(server.port) as proxy:
        store = HttpStore(proxy.url)
        assert is_right(get(store, RANGE), RANGE)
        proxy.latency_s = 0.1
        began = time.monotonic()
        assert is_right(get(store, RANGE), RANGE)
        assert time.monotonic() - began >= 0.1
        proxy.latency_s = 0
        for name in ("limit_data", "reset_after"):
            for limit in (0, 10, 300):
                setattr(proxy, name, limit)
                assert_outcome(get(store, RANGE), RANGE, FAILED)
            setattr(proxy, name, None)
        proxy.refuse = True
        assert_outcome(get(store, RANGE), RANGE, FAILED)
        proxy.refuse, proxy.blackhole = False, True
        assert_outcome(get(store, RANGE, idle_timeout_s=0.2), RANGE, TIMEOUT)
        proxy.blackhole = False
        server.put("large", bytes(MIB))
        proxy.bandwidth = 4 * MIB
        began = time.monotonic()
        assert get(store, Ask("large")).total == MIB
        assert time.monotonic() - began > 0.2


def test_kept_connections_are_reset(server):
    async def work(clients):
        store = HttpStore(proxy.url)
        for _ in range(3):
            await asyncio.gather(*(store.get(RANGE, clients) for _ in range(8)))
            await asyncio.to_thread(proxy.reset_all)
        return await asyncio.gather(*(outcome(store, RANGE, clients) for _ in range(8)))

    with Proxy(server.port) as proxy:
        assert all(is_right(got, RANGE) for got in run(work))


def test_slow_but_steady_is_no_stall(server):
    """The limit is for silence, not for the whole reply."""
    server.put("large", bytes(MIB))
    with Proxy(server.port, bandwidth=2 * MIB) as proxy:
        assert get(HttpStore(proxy.url), Ask("large"), idle_timeout_s=0.35).total == MIB


def test_many_at_once(server):
    """Nothing but the scheduler limits how many."""
    server.latency_s = 0.2

    async def work(clients):
        return await asyncio.gather(*(HttpStore(server.url).get(RANGE, clients) for _ in range(150)))

    assert all(is_right(got, RANGE) for got in run(work))
    assert server.most_in_flight > 100


def test_cancelled_requests_leave_nothing(server):
    async def work(clients):
        store = HttpStore(server.url)
        for fault in (Fault(stall=-1), Fault(stall=50), Fault(delay_s=0.2), None):
            server.rule = lambda _, fault=fault: fault
            tasks = [asyncio.ensure_future(store.get(RANGE, clients)) for _ in range(8)]
            for step, task in enumerate(tasks):
                await asyncio.sleep(0.002 * step)
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        server.rule = lambda _: None
        assert is_right(await store.get(RANGE, clients), RANGE)
        assert clients.in_flight == 0
        return len(asyncio.all_tasks())

    assert run(work) == 1


def test_connections(server):
    async def main():
        clients = Connections(idle_timeout_s=3)
        assert clients.idle_timeout_s == 3
        await clients.close()
        clients = Connections()
        assert is_right(await HttpStore(server.url).get(RANGE, clients), RANGE)
        waiting = asyncio.ensure_future(HttpStore(server.url).get(RANGE, clients))
        server.rule = lambda _: Fault(stall=-1)
        await asyncio.sleep(0.05)
        assert clients.in_flight == 1
        await clients.close()
        await clients.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(vf.StoreError):
            await HttpStore(server.url).get(RANGE, clients)

    asyncio.run(main())
    gc.collect()
