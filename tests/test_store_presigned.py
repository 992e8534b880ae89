"""Parts of objects in buckets by the client of the engine, at URLs that obstore signs or that are public."""

# Fixtures are imported, and are arguments.
# ruff: noqa: F811

from __future__ import annotations

import asyncio
import pickle
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from obstore.store import S3Store

import voxfetch as vf
from tests.conftest import values, write
from tests.servers import objects_in
from tests.servers.asking import RANGE, SUFFIX, WHOLE, get, is_right, outcome, run
from tests.servers.cloud import Stored
from tests.servers.faulty import Fault, FaultyServer, s3_error, status
from tests.servers.gcs import GcsServer
from tests.stores import (  # noqa: F401 - fixtures
    CREDENTIALS,
    DATA,
    KEY,
    SECRET,
    TOKEN,
    is_signed,
    nothing_is_found,
    s3,
    scripted,
    token_of,
)
from voxfetch.options import StoreOptions
from voxfetch.store import Answer, Ask, NoReply, TransientError, presigned
from voxfetch.store.answered import Answered
from voxfetch.store.object import ObjectStore

OTHER = Ask(RANGE.key, 300, 340)


def by_us(server):
    """Of each request whether the client of the engine sent it."""
    return [request.headers["user-agent"] == "voxfetch" for request in server.requests]


def test_an_object_is_signed_once_and_read_on_by_the_client(scripted):
    asks = (RANGE, OTHER, SUFFIX, WHOLE, Ask(RANGE.key, 5, 6))
    got = get(s3(scripted.url, credentials={**CREDENTIALS, "token": TOKEN}), *asks)
    assert all(map(is_right, got, asks))
    assert by_us(scripted) == [False, True, True, True, True]
    assert all(map(is_signed, scripted.requests))
    assert {token_of(request) for request in scripted.requests} == {TOKEN}
    assert len({request.target for request in scripted.requests[1:]}) == 1
    assert scripted.requests[1].range == "bytes=300-339"
    assert len({one.etag for one in got}) == 1


def test_whole_objects_are_not_signed(scripted):
    get(s3(scripted.url), WHOLE, WHOLE)
    assert by_us(scripted) == [False, False]


def test_a_public_bucket_is_read_by_the_client(scripted):
    asks = (WHOLE, RANGE, WHOLE, SUFFIX)
    got = get(s3(scripted.url, anonymous=True, credentials=None), *asks, Ask("a/zarr.json"), Ask("a/c/0/1"))
    assert all(map(is_right, got, asks))
    assert bytes(got[4].body) == b"{}"
    assert got[5] is None
    assert by_us(scripted) == [False, True, True, True, True, True]
    assert not any(map(is_signed, scripted.requests))


@pytest.mark.parametrize("anonymous", [True, False])
def test_keys_of_any_characters(anonymous):
    key = "a b/ü+c%20/(1)~*'&=?#"
    prefix = "p q/%ü"
    with FaultyServer({f"bucket/{prefix}/{key}": DATA}) as server:
        store = s3(server.url, prefix, anonymous=anonymous or None, credentials=None if anonymous else CREDENTIALS)
        first, second = get(store, Ask(key, 100, 300), Ask(key, 100, 300))
        assert bytes(first.body) == bytes(second.body) == DATA[100:300]
        assert {request.key for request in server.requests} == {f"bucket/{prefix}/{key}"}


def test_asks_are_direct_once_the_object_was_read(scripted):
    store = s3(scripted.url)
    assert store.direct(RANGE, None) is None
    get(store, RANGE)
    sent = store.direct(OTHER, None)
    assert sent.headers["range"] == "bytes=300-339"
    assert "X-Amz-Signature=" in sent.url
    assert store.direct(Ask("a/c/0/1", 1, 2), None) is None
    assert store.direct(Ask("../a", 1, 2), None) is None


@pytest.mark.parametrize("fault", [status(403), s3_error(400, "ExpiredToken"), status(500), status(301)])
def test_what_only_obstore_understands_is_left_to_it(scripted, fault):
    store = s3(scripted.url)
    scripted.rule = lambda request: fault if request.headers["user-agent"] == "voxfetch" else None
    for number in range(12):
        first, second = get(store, RANGE, OTHER)
        assert is_right(first, RANGE), number
        assert is_right(second, OTHER), number
    assert sum(by_us(scripted)) == presigned._MAX_FAILURES + 1, "given up"


def test_refusals_are_those_of_obstore(scripted):
    store = s3(scripted.url)
    get(store, RANGE)
    scripted.rule = lambda _: s3_error(403, "AccessDenied")
    error = get(store, OTHER)
    assert isinstance(error, vf.CredentialsError), "what could be read before is refused"
    shown = f"{error} {error!r} {error.hint} {store!r} {store.url}"
    assert not [word for word in (KEY, SECRET, "X-Amz") if word in shown]


def test_a_public_bucket_that_may_not_be_listed_is_asked_once(scripted):
    store = s3(scripted.url, credentials=None)
    get(store, WHOLE)
    scripted.rule = lambda _: s3_error(403, "AccessDenied")
    for _ in range(20):
        error = get(store, Ask("a/zarr.json"))
        assert isinstance(error, vf.PermissionDeniedError)
        assert "no credentials were found" in error.hint
    assert by_us(scripted) == [False] + [True] * 20


def test_a_public_bucket_that_fails_is_asked_once_an_attempt_and_later_again(scripted):
    store = s3(scripted.url, credentials=None)
    get(store, WHOLE)
    scripted.rule = lambda _: status(500)
    assert all(isinstance(get(store, OTHER), TransientError) for _ in range(12))
    scripted.rule = lambda _: None
    assert is_right(get(store, OTHER), OTHER)
    assert by_us(scripted) == [False] + [True] * 13


@pytest.mark.parametrize("answer", [status(404), s3_error(404, "NoSuchKey"), status(410)])
def test_what_was_there_is_not_absent_because_a_server_knows_no_signed_urls(scripted, answer):
    store = s3(scripted.url)
    get(store, RANGE)
    scripted.rule = lambda request: answer if "?" in request.target else None
    assert is_right(get(store, OTHER), OTHER)


def test_what_is_gone_is_absent_and_a_bucket_that_is_gone_is_an_error(scripted):
    store = s3(scripted.url)
    get(store, RANGE)
    scripted.rule = lambda _: s3_error(404, "NoSuchKey")
    assert get(store, OTHER) is None
    scripted.rule = lambda _: s3_error(404, "NoSuchBucket")
    assert isinstance(get(store, OTHER), vf.StoreError)


def test_changed_objects_and_patience(scripted):
    store = s3(scripted.url)
    get(store, RANGE)
    assert isinstance(get(store, Ask(RANGE.key, 1, 2, if_match='"other"')), vf.ObjectChangedError)
    scripted.rule = lambda _: status(503)
    failure = get(store, OTHER)
    assert isinstance(failure, TransientError)
    assert failure.throttled
    scripted.rule = lambda _: Fault("cut", at=10)
    assert isinstance(get(store, OTHER), TransientError)
    scripted.rule = lambda _: None
    assert is_right(get(store, OTHER), OTHER)
    assert is_right(get(store, OTHER), OTHER)
    assert by_us(scripted) == [False, True, True, True, False, True]


@pytest.mark.parametrize("fault", [Fault(cut=-1), Fault(stall=-1), Fault(reset=5)])
def test_after_an_interruption_it_is_the_turn_of_obstore(scripted, fault):
    store = s3(scripted.url)
    get(store, RANGE)
    scripted.rule = lambda request: fault if "?" in request.target else None
    assert isinstance(get(store, OTHER, idle_timeout_s=0.3), TransientError)
    assert is_right(get(store, OTHER), OTHER)


@pytest.mark.parametrize("anonymous", [True, False])
def test_the_part_is_cut_out_of_a_whole_object(scripted, anonymous):
    store = s3(scripted.url, anonymous=anonymous or None, credentials=None if anonymous else CREDENTIALS)
    get(store, RANGE)
    scripted.rule = lambda _: Fault(ignore_range=True)
    asks = (OTHER, SUFFIX, Ask(RANGE.key, 5, 6))
    assert all(map(is_right, get(store, *asks), asks))
    assert by_us(scripted) == [False, True, True, True]


def test_a_bucket_is_not_public_because_one_object_is():
    names = ("public", "refused", "private")
    with FaultyServer({f"bucket/root/{name}/c/0": DATA for name in names}) as server:

        def rule(request):
            name = request.key.split("/")[-3]
            if is_signed(request):
                return None if name == "private" else s3_error(403, "AccessDenied")
            return Fault(delay_s=0.3) if name == "public" else s3_error(403, "AccessDenied")

        server.rule = rule
        store = s3(server.url)
        public, refused, private = (Ask(f"{name}/c/0", 100, 300) for name in names)

        async def work(clients):
            # The second shows that the credentials are not to blame while the first is asked for without them.
            together = await asyncio.gather(outcome(store, public, clients), outcome(store, refused, clients))
            return [*together, await outcome(store, private, clients)]

        first, second, third = run(work)
        assert is_right(first, RANGE)
        assert isinstance(second, vf.PermissionDeniedError)
        assert is_right(third, RANGE)


def test_tokens_run_out_together(scripted, monkeypatch):
    asks = [Ask(f"{number}", 0, 9) for number in range(30)]
    tokens = ["old", "new"]

    def credentials():
        token = tokens.pop(0)
        # What is left of 5 minutes is replaced.
        lasts = timedelta(seconds=301 if token == "old" else 3600)
        return {**CREDENTIALS, "token": token, "expires_at": datetime.now(UTC) + lasts}

    with FaultyServer({f"bucket/root/{ask.key}": DATA for ask in asks}) as server:
        store = s3(server.url, credentials=credentials)
        get(store, *asks)
        assert token_of(server.requests[0]) == "old"
        time.sleep(1.1)
        monkeypatch.setattr(presigned, "_NEW_S", 1.0)
        server.rule = lambda request: s3_error(400, "ExpiredToken") if token_of(request) == "old" else None
        for expected in ([True, False] * 30, [True] * 30):
            server.requests.clear()
            assert not [one for one in get(store, *asks) if isinstance(one, Exception)]
            assert by_us(server) == expected


@pytest.mark.parametrize("first", [Answer(403, {}, b""), NoReply("timeout")])
def test_what_was_sent_before_a_url_was_given_up_counts(scripted, first):
    store = s3(scripted.url)
    get(store, RANGE)
    sent = store.direct(OTHER, None), store.direct(SUFFIX, None)
    scripted.rule = lambda _: s3_error(403, "AccessDenied")

    async def work(clients):
        await outcome(store, OTHER, Answered(clients, sent[0], first))
        scripted.requests.clear()
        return await outcome(store, SUFFIX, Answered(clients, sent[1], Answer(503, {"retry-after": "3"}, b"")))

    failure = run(work)
    assert isinstance(failure, TransientError)
    assert (failure.throttled, failure.retry_after_s) == (True, 3)
    assert not scripted.requests


def test_urls_run_out(scripted, monkeypatch):
    monkeypatch.setattr(presigned, "_FRESH_S", -1.0)
    get(s3(scripted.url), RANGE, OTHER)
    assert by_us(scripted) == [False, False]


def test_urls_are_bounded(monkeypatch):
    monkeypatch.setattr(presigned, "_MAX_URLS", 2)
    with FaultyServer({f"bucket/root/{name}": DATA for name in "abc"}) as server:
        store = s3(server.url)
        get(store, *(Ask(name, 1, 2) for name in "abc"))
        assert [store.direct(Ask(name, 1, 2), None) is None for name in "abc"] == [True, False, False]


def test_a_list_of_hosts_without_a_proxy_is_no_proxy(scripted, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "localhost")
    get(s3(scripted.url), RANGE, OTHER)
    assert by_us(scripted) == [False, True]


@pytest.mark.parametrize("why", ["headers", "proxy"])
def test_what_only_obstore_knows_stays_with_it(scripted, why, monkeypatch):
    options = {"headers": {"x-amz-request-payer": "requester"}} if why == "headers" else {}
    if why == "proxy":
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    get(s3(scripted.url, **options), RANGE, OTHER)
    assert by_us(scripted) == [False, False]


def test_copies_begin_anew(scripted):
    store = s3(scripted.url)
    get(store, RANGE)
    assert b"X-Amz" not in pickle.dumps(store)
    assert is_right(get(pickle.loads(pickle.dumps(store)), OTHER), OTHER)
    assert by_us(scripted) == [False, False]


FOREIGN = {
    "signed": ({**CREDENTIALS, "session_token": TOKEN}, [False, True, True]),
    "public": ({"skip_signature": True}, [False, True, True]),
    "with headers": ({**CREDENTIALS, "client_options": {"default_headers": {"x-a": "b"}}}, [False, False, False]),
    "a setting": ({**CREDENTIALS, "unsigned_payload": True}, [False, False, False]),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_stores_of_obstore(scripted, kind):
    given, expected = FOREIGN[kind]
    client = {"allow_http": True, **given.get("client_options", {})}
    arguments = {"region": "us-east-1", "endpoint": scripted.url, **given, "client_options": client}
    store = ObjectStore(S3Store("bucket", prefix="root", **arguments), StoreOptions())
    asks = (RANGE, OTHER, SUFFIX)
    assert all(map(is_right, get(store, *asks), asks))
    assert by_us(scripted) == expected
    assert all(is_signed(request) == (kind != "public") for request in scripted.requests)


@pytest.mark.parametrize("given", [None, False])
def test_a_store_of_obstore_that_a_variable_keeps_from_signing(scripted, monkeypatch, given):
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    with FaultyServer({}) as machine:
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", machine.url)
        credentials = {} if given is None else {**CREDENTIALS, "skip_signature": given}
        client = {"allow_http": True}
        arguments = {"region": "us-east-1", "endpoint": scripted.url, "client_options": client, **credentials}
        store = ObjectStore(S3Store("bucket", prefix="root", **arguments), StoreOptions())
        assert all(map(is_right, get(store, RANGE, OTHER), (RANGE, OTHER)))
        assert by_us(scripted) == [False, True]
        assert list(map(is_signed, scripted.requests)) == [given is False] * 2
        assert not machine.requests, "there is nothing to sign"


@pytest.mark.parametrize("token", [None, "hunter2"])
def test_gcs_by_the_client_where_it_is_public(token):
    with GcsServer({"bucket/root/a/c/0/0": Stored(DATA)}, token=token) as server:
        credentials = None if token is None else {"token": token}
        options = StoreOptions(endpoint=server.url, credentials=credentials, anonymous=token is None)
        asks = (RANGE, OTHER, WHOLE)
        assert all(map(is_right, get(ObjectStore("gs://bucket/root", options), *asks), asks))
        assert by_us(server) == [False, token is None, token is None]


@pytest.mark.parametrize("anonymous", [True, False])
def test_an_array_is_read_by_the_client_but_for_one_request_an_object(tmp_path, anonymous):
    case = write(tmp_path / "a", values((1024, 1536), "u2"), chunks=(64, 64), shards=(512, 512))
    with FaultyServer(objects_in(case.path, "bucket/a/")) as server, vf.Engine() as engine:
        credentials = None if anonymous else CREDENTIALS
        options = StoreOptions(endpoint=server.url, anonymous=anonymous, credentials=credentials)
        array = vf.open_array("s3://bucket/a", options=options, engine=engine)
        for start in (0, 192, 384):
            box = np.s_[start : start + 100, start : start + 1100]
            np.testing.assert_array_equal(array[box], case.expected[box])
        shards = [request for request in server.requests if "/c/" in request.key]
        by_obstore = [request for request in shards if request.headers["user-agent"] != "voxfetch"]
        assert len(by_obstore) == (0 if anonymous else 3), "the index of each shard"
        assert len(shards) - len(by_obstore) >= 9
        assert any(map(is_signed, shards)) == (not anonymous)
