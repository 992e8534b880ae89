"""How object stores are reached when the user says little: credentials, public buckets, regions."""

# Fixtures are imported, and are arguments.
# ruff: noqa: F811

from __future__ import annotations

import asyncio

import pytest

import voxfetch as vf
from tests.servers.asking import RANGE, get
from tests.servers.faulty import s3_error
from tests.stores import (  # noqa: F401 - fixtures
    CREDENTIALS,
    DATA,
    KEY,
    SECRET,
    TOKEN,
    is_reply,
    is_signed,
    nothing_is_found,
    s3,
    scripted,
    token_of,
)
from voxfetch.options import StoreOptions
from voxfetch.store import Answer, Ask, NoReply, TransientError
from voxfetch.store.faults import Fault, fault_of, shown
from voxfetch.store.faults import outcome as outcome_of
from voxfetch.store.object import ObjectStore
from voxfetch.store.reach import bucket_region

# ------------------------------------------------------------------------------------------------------------- access


def refuse_signed(request):
    return s3_error(403, "InvalidAccessKeyId") if is_signed(request) else None


def refuse_unsigned(request):
    return None if is_signed(request) else s3_error(403, "AccessDenied")


def test_without_credentials_requests_are_not_signed(scripted):
    store = s3(scripted.url, credentials=None)
    assert is_reply(get(store, RANGE), DATA[100:300], 100, 1024)
    assert "authorization" not in scripted.requests[0].headers
    scripted.rule = refuse_unsigned
    error = get(s3(scripted.url, credentials=None), RANGE)
    assert isinstance(error, vf.PermissionDeniedError)
    assert "no credentials were found" in error.hint
    assert isinstance(get(s3(scripted.url, credentials=None, anonymous=True), RANGE), vf.PermissionDeniedError)


def test_a_public_bucket_is_read_whatever_the_credentials(scripted):
    scripted.rule = refuse_signed
    store = s3(scripted.url)
    one, two, three = get(store, RANGE, RANGE, Ask("a/c/0/1"))
    assert is_reply(one, DATA[100:300], 100, 1024)
    assert is_reply(two, DATA[100:300], 100, 1024)
    assert three is None
    signed = ["authorization" in request.headers for request in scripted.requests]
    assert signed == [True, False, False, False], "tried once"


def test_credentials_that_are_refused_twice(scripted):
    scripted.rule = lambda request: refuse_signed(request) or refuse_unsigned(request)
    store = s3(scripted.url)
    one, two = get(store, RANGE, RANGE)
    assert isinstance(one, vf.CredentialsError)
    assert isinstance(two, vf.CredentialsError)
    assert ["authorization" in request.headers for request in scripted.requests] == [True, False, True]


def test_a_signed_answer_ends_the_search(scripted):
    store = s3(scripted.url)
    assert is_reply(get(store, RANGE), DATA[100:300], 100, 1024)
    scripted.rule = refuse_signed
    assert isinstance(get(store, RANGE), vf.CredentialsError)
    # At the URL that was signed, which is given up, and once as it was signed before.
    assert [is_signed(request) for request in scripted.requests] == [True, True, True]


@pytest.mark.parametrize("where", ["environment", "profile", "default profile", "named profile", "provider"])
def test_where_credentials_are_found(scripted, where, monkeypatch, tmp_path):
    scripted.rule = refuse_unsigned
    keys = f"aws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\naws_session_token = {TOKEN}\n"
    options = {"credentials": None}
    if where == "environment":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    elif where == "provider":
        options["credentials"] = lambda: {**CREDENTIALS, "token": TOKEN, "expires_at": None}
    else:
        name = {"profile": "mine", "named profile": "mine"}.get(where, "default")
        (tmp_path / ".aws").mkdir()
        (tmp_path / ".aws" / "credentials").write_text(f"[{name}]\n{keys}")
        if where == "profile":
            options["profile"] = "mine"
        elif where == "named profile":
            monkeypatch.setenv("AWS_PROFILE", "mine")
    assert is_reply(get(s3(scripted.url, **options), RANGE), DATA[100:300], 100, 1024)
    headers = scripted.requests[0].headers
    assert KEY in headers["authorization"]
    assert headers["x-amz-security-token"] == TOKEN


def test_given_credentials_do_not_mix_with_those_of_the_environment(scripted, monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of somebody else")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    assert is_reply(get(s3(scripted.url), RANGE), DATA[100:300], 100, 1024)
    assert "x-amz-security-token" not in scripted.requests[0].headers


def test_profiles_say_region_and_endpoint(scripted, tmp_path):
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text(
        f"[profile mine]\nregion = eu-north-1\nendpoint_url = {scripted.url}\ns3 =\n  max_concurrent_requests = 20\n"
        f"aws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    )
    store = ObjectStore("s3://bucket/root", StoreOptions(profile="mine"))
    assert is_reply(get(store, RANGE), DATA[100:300], 100, 1024)
    assert "/eu-north-1/s3/" in scripted.requests[0].headers["authorization"]


def test_profiles_that_say_too_little(tmp_path):
    store = ObjectStore("s3://bucket/root", StoreOptions(profile="mine"))
    assert "there is no profile 'mine'" in str(get(store, RANGE))
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text("[profile mine]\nregion = eu-north-1\n")
    assert isinstance(get(store, RANGE), vf.CredentialsError)
    (tmp_path / ".aws" / "config").write_text(f"[profile mine\n{SECRET}")
    error = get(store, RANGE)
    assert isinstance(error, vf.CredentialsError)
    assert SECRET not in str(error)


def test_newer_credentials_are_looked_for_once(scripted, tmp_path):
    folder = tmp_path / ".aws"
    folder.mkdir()
    keys = f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\naws_session_token = "
    (folder / "credentials").write_text(keys + "old")
    store = s3(scripted.url, credentials=None)
    assert is_reply(get(store, RANGE), DATA[100:300], 100, 1024)

    def rule(request):
        return s3_error(400, "ExpiredToken") if token_of(request) == "old" else None

    scripted.rule = rule
    (folder / "credentials").write_text(keys + "new")
    assert is_reply(get(store, RANGE), DATA[100:300], 100, 1024)
    scripted.rule = lambda request: s3_error(400, "ExpiredToken")
    before = len(scripted.requests)
    assert isinstance(get(store, RANGE), vf.CredentialsError)
    assert len(scripted.requests) == before + 2, "at the URL that was signed, and through obstore"


def test_a_function_for_credentials_that_fails(scripted):
    def broken():
        raise RuntimeError(SECRET)

    error = get(s3(scripted.url, credentials=broken, anonymous=False), RANGE)
    assert isinstance(error, vf.CredentialsError)
    assert SECRET not in repr(error) + str(error)


def test_credentials_of_an_unknown_form():
    with pytest.raises(ValueError, match=r"'password'") as caught:
        s3("http://x", credentials={"password": SECRET})
    assert SECRET not in str(caught.value)
    with pytest.raises(ValueError, match=r"secret_access_key"):
        s3("http://x", credentials={"key": KEY})
    with pytest.raises(TypeError, match=r"mapping"):
        s3("http://x", credentials=[KEY])


class Answering:
    """Clients that answer every request with the same headers, or not at all."""

    idle_timeout_s = 2

    def __init__(self, headers, failure=None):
        self.outcome = failure or Answer(200, headers, b"")
        self.urls = []

    async def get(self, get):
        self.urls.append(get.url)
        return self.outcome


def test_the_region_of_a_bucket():
    clients = Answering({"x-amz-bucket-region": "eu-west-1"})
    assert asyncio.run(bucket_region("my-bucket", clients)) == "eu-west-1"
    assert asyncio.run(bucket_region("my.bucket", clients)) == "eu-west-1"
    assert [url.partition("?")[0] for url in clients.urls] == [
        "https://my-bucket.s3.amazonaws.com/",
        "https://s3.amazonaws.com/my.bucket",
    ]
    with pytest.raises(TransientError):
        asyncio.run(bucket_region("my-bucket", Answering({}, NoReply("connect"))))


def test_the_region_is_asked_for_once_and_only_when_nobody_says_it(monkeypatch):
    clients = Answering({"x-amz-bucket-region": "eu-west-1"})

    async def session_of(store):
        one = await asyncio.gather(*(store._reach.session(clients) for _ in range(3)))
        return {session.region for session in one}

    assert asyncio.run(session_of(ObjectStore("s3://bucket", StoreOptions()))) == {"eu-west-1"}
    assert len(clients.urls) == 1
    assert asyncio.run(session_of(ObjectStore("s3://bucket", StoreOptions(region="us-west-2")))) == {"us-west-2"}
    assert asyncio.run(session_of(s3("http://127.0.0.1:9"))) == {"us-east-1"}
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-1")
    assert asyncio.run(session_of(ObjectStore("s3://bucket", StoreOptions()))) == {"us-west-1"}
    assert len(clients.urls) == 1


def test_a_bucket_in_another_region_than_the_environment_says(monkeypatch):
    clients = Answering({"x-amz-bucket-region": "eu-west-1"})
    wrong = Fault("status", 400, "<Error><Code>AuthorizationHeaderMalformed</Code></Error>")

    async def after(**options):
        reach = ObjectStore("s3://bucket", StoreOptions(**options))._reach
        first = await reach.session(clients)
        second = await reach.after(first, wrong, clients)
        return first.region, second and second.region, (await reach.session(clients)).region

    monkeypatch.setenv("AWS_REGION", "us-west-1")
    assert asyncio.run(after()) == ("us-west-1", "eu-west-1", "eu-west-1")
    assert asyncio.run(after(region="us-west-2")) == ("us-west-2", None, "us-west-2")
    assert asyncio.run(after(endpoint="http://127.0.0.1:9")) == ("us-west-1", None, "us-west-1")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert asyncio.run(after()) == ("eu-west-1", None, "eu-west-1")


def test_credentials_of_the_machine(scripted, monkeypatch, tmp_path):
    """A machine of the cloud has a metadata service; without an answer from it requests are not signed."""
    firmware = tmp_path / "firmware"
    firmware.mkdir()
    (firmware / "sys_vendor").write_text("Amazon EC2\n")
    monkeypatch.setattr("voxfetch.store.access._FIRMWARE", firmware)
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", scripted.url)
    refuse = s3_error(404, "NotFound")
    scripted.rule = lambda request: refuse if "latest" in request.key or request.method == "PUT" else None
    store = s3(scripted.url, credentials=None)
    assert is_reply(get(store, RANGE), DATA[100:300], 100, 1024)
    assert "latest/api/token" in scripted.requests[0].target
    assert isinstance(get(s3(scripted.url, credentials=None, anonymous=False), RANGE), vf.CredentialsError)


STS = "Generic S3 error: Error performing POST https://sts.amazonaws.com/"


class GenericError(Exception):
    """What obstore raises for most."""


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (
            "Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token in 1s - HTTP error: x",
            "sign-in",
        ),
        (
            "Generic GCS error: Error performing token request: Error performing GET http://metadata.google.internal/x",
            "sign-in",
        ),
        (
            f"{STS} in 1s - Server returned non-2xx status code: 403 Forbidden: <Code>AccessDenied</Code>",
            "sign-in",
        ),
        (
            f"{STS} in 1s - Server returned non-2xx status code: 503 Service Unavailable: x",
            "connection",
        ),
        (f"{STS} in 1s - HTTP error: error", "connection"),
        ("Generic S3 error: Received redirect without LOCATION, this normally indicates", "region"),
        ("Generic S3 error: HTTP error: x\n\nDebug source:\n InvalidCertificate(UnknownIssuer)", "tls"),
        ("Generic S3 error: HTTP error: x\n\nDebug source:\n kind: Timeout,", "timeout"),
        ("Generic S3 error: something new at https://user:hunter2@host/?sig=hunter2", "other"),
    ],
)
def test_texts_of_obstore(text, kind):
    fault = fault_of(GenericError(text))
    assert fault.kind == kind
    assert "hunter2" not in fault.text
    with pytest.raises((vf.VoxfetchError, TransientError)) as caught:
        outcome_of(fault, RANGE)
    assert isinstance(caught.value, TransientError) is (kind in {"connection", "timeout"})


def test_what_is_cut_out_of_texts():
    text = f"at https://user:pw@host/x?sig=s with key={KEY} and ?X-Amz-Signature=0123 and {'a1' * 30} or {SECRET}: no"
    assert shown(text, [SECRET, KEY]) == "at <url> with key=*** and and *** or ***: no"
