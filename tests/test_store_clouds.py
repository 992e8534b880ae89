"""`ObjectStore` against fakes of GCS and Azure: what these services do otherwise than S3."""

from __future__ import annotations

import datetime as dt
import gzip
import json

import obstore.store
import pytest

import voxfetch as vf
from tests.servers.asking import get
from tests.servers.azure import AzureServer
from tests.servers.cloud import Stored
from tests.servers.gcs import GcsServer
from tests.stores import DATA, TOKEN, is_reply, listed, nothing_is_found  # noqa: F401 - a fixture
from voxfetch.options import StoreOptions
from voxfetch.store import Ask, TransientError
from voxfetch.store.object import ObjectStore

# ---------------------------------------------------------------------------------------------------------------- GCS


def gcs(server, **options):
    return ObjectStore("gs://bucket/root", StoreOptions(endpoint=server.url, **options))


def gcs_objects():
    return {
        "bucket/root/x": Stored(DATA),
        "bucket/root/z": Stored(gzip.compress(DATA), "gzip"),
        "bucket/root/kept": Stored(gzip.compress(DATA), "gzip", no_transform=True),
        "bucket/root/bomb": Stored(gzip.compress(bytes(30 << 20)), "gzip"),
    }


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize("key", ["x", "z", "kept"])
def test_objects_of_gcs_however_they_are_stored(key, token):
    with GcsServer(gcs_objects(), token=token) as server:
        store = gcs(server, credentials={"token": token} if token else None)
        whole, part, end, over, missing = get(
            store, Ask(key), Ask(key, 100, 300), Ask(key, suffix=24), Ask(key, 1000, 1100), Ask("nothing")
        )
        assert is_reply(whole, DATA, 0, 1024)
        assert is_reply(part, DATA[100:300], 100, 1024)
        assert is_reply(end, DATA[1000:], 1000, 1024)
        assert isinstance(over, vf.ObjectChangedError)
        assert missing is None
        assert part.etag == whole.etag == server.objects[f"bucket/root/{key}"].etag
        changed = get(store, Ask(key, 1, 2, if_match='"other"'))
        assert isinstance(changed, vf.ObjectChangedError)
        assert is_reply(get(store, Ask(key, 1, 2, if_match=whole.etag)), DATA[1:2], 1, 1024)


def test_decompression_has_a_limit():
    with GcsServer(gcs_objects()) as server:
        assert isinstance(get(gcs(server), Ask("bomb")), vf.LimitExceededError)
        assert isinstance(get(gcs(server), Ask("bomb", 1, 2)), vf.LimitExceededError)


def test_listings_and_refusals_of_gcs():
    with GcsServer(gcs_objects(), token=TOKEN) as server:
        assert listed(gcs(server, credentials={"token": TOKEN})) == ["bomb", "kept", "x", "z"]
        assert isinstance(get(gcs(server), Ask("x")), vf.PermissionDeniedError)
        assert isinstance(get(gcs(server, credentials={"token": "wrong"}), Ask("x")), vf.CredentialsError)
        assert isinstance(get(gcs(server, credentials={"token": "wrong"}), Ask("z")), vf.CredentialsError)


def test_a_service_account_signs_what_obstore_cannot_read():
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    account = {"type": "service_account", "client_email": "a@b", "private_key_id": "x", "disable_oauth": False}
    with GcsServer(gcs_objects(), token=None) as server:
        account |= {"private_key": key.private_bytes(*form).decode(), "gcs_base_url": server.url}
        store = gcs(server, credentials=account)
        assert is_reply(get(store, Ask("z", 100, 300)), DATA[100:300], 100, 1024)
        assert "X-Goog-Signature" in server.requests[-1].query
        assert get(store, Ask("nothing")) is None
        own = obstore.store.GCSStore(
            "bucket",
            prefix="root",
            base_url=server.url,
            service_account_key=json.dumps(account),
            client_options={"allow_http": True},
        )
        assert is_reply(get(ObjectStore(own, StoreOptions()), Ask("z", 100, 300)), DATA[100:300], 100, 1024)
        server.faults.extend([None, (500, "Oops")])
        error = get(store, Ask("z"))
        assert isinstance(error, TransientError)
        assert error.error.key == "z"
        assert "Signature" not in str(error)


def test_tokens_are_asked_for_when_they_run_out():

    calls = []

    async def provider():
        calls.append(1)
        soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=30 if len(calls) < 3 else 3600)
        return {"token": TOKEN, "expires_at": soon}

    with GcsServer(gcs_objects(), token=TOKEN) as server:
        store = gcs(server, credentials=provider)
        for reply in get(store, *[Ask("z")] * 4):
            assert is_reply(reply, DATA, 0, 1024)
    assert 3 <= len(calls) <= 6


# -------------------------------------------------------------------------------------------------------------- Azure


def azure(server, **options):
    credentials = {"account": "account", **options.pop("credentials", {})}
    return ObjectStore("az://container/root", StoreOptions(endpoint=server.url, credentials=credentials, **options))


AZURE_OBJECTS = {"container/root/x": Stored(DATA), "container/root/a/empty": Stored(b"")}


@pytest.mark.parametrize("credentials", [{}, {"key": "aHVudGVyMg=="}, {"sas": "sv=1&sig=c2ln"}])
def test_objects_of_azure(credentials):
    with AzureServer(AZURE_OBJECTS, public=not credentials) as server:
        store = azure(server, credentials=credentials)
        whole, part, missing, empty = get(store, Ask("x"), Ask("x", 100, 300), Ask("nothing"), Ask("a/empty", suffix=5))
        assert is_reply(whole, DATA, 0, 1024)
        assert is_reply(part, DATA[100:300], 100, 1024)
        assert missing is None
        assert is_reply(empty, b"", 0, 0)
        assert listed(store) == ["a", "x"]


def test_the_end_of_an_object_of_azure():
    with AzureServer(AZURE_OBJECTS, public=True) as server:
        store = azure(server)
        end, longer = get(store, Ask("x", suffix=24), Ask("x", suffix=5000))
        assert is_reply(end, DATA[1000:], 1000, 1024)
        assert is_reply(longer, DATA, 0, 1024)
        assert server.ranges == ["bytes=0-0", "bytes=1000-1023", "bytes=0-0", "bytes=0-1023"]
        assert server.requests[1].headers["if-match"] == end.etag
        server.faults.extend([None, (412, "ConditionNotMet")])
        assert isinstance(get(store, Ask("x", suffix=24)), TransientError)
        server.faults.extend([None, (412, "ConditionNotMet")])
        assert isinstance(get(store, Ask("x", suffix=24, if_match=end.etag)), vf.ObjectChangedError)


def test_what_is_private_on_azure_is_not_missing():
    with AzureServer(AZURE_OBJECTS) as server:
        assert isinstance(get(azure(server), Ask("x")), vf.PermissionDeniedError)
        refused = get(azure(server, credentials={"sas": "sv=1&sig=aHVudGVyMg"}), Ask("x"))
        assert isinstance(refused, vf.CredentialsError)
        server.faults.append((409, "PublicAccessNotPermitted"))
        assert isinstance(get(azure(server), Ask("x")), vf.CredentialsError)


def test_connection_strings_and_accounts(monkeypatch):
    with AzureServer(AZURE_OBJECTS) as server:
        text = f"AccountName=account;AccountKey=aHVudGVyMg==;BlobEndpoint={server.url}"
        store = ObjectStore("az://container/root", StoreOptions(credentials={"connection_string": text}))
        assert is_reply(get(store, Ask("x", 1, 2)), DATA[1:2], 1, 1024)
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
        assert is_reply(get(ObjectStore("az://container/root", StoreOptions()), Ask("x", 1, 2)), DATA[1:2], 1, 1024)
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    error = get(ObjectStore("az://container/root", StoreOptions()), Ask("x"))
    assert "the storage account is not known" in str(error)
