"""Tools of the tests of object stores; `nothing_is_found`, for every test, and `scripted` are fixtures to import."""

from __future__ import annotations

import os
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.servers.asking import OBJECT, run
from tests.servers.faulty import FaultyServer
from voxfetch.options import StoreOptions
from voxfetch.store import Reply
from voxfetch.store.object import ObjectStore

DATA = OBJECT
KEY, SECRET, TOKEN = "AKIAHUNTER2HUNTER2", "hunter2+secret/hunter2", "hunter2-session-token"
CREDENTIALS = {"access_key_id": KEY, "secret_access_key": SECRET}


@pytest.fixture(autouse=True)
def nothing_is_found(monkeypatch, tmp_path):
    """No credentials and no cloud around: neither those of the developer nor those of the machine."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_", "CLOUDSDK_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("voxfetch.store.access._FIRMWARE", tmp_path / "none")


def listed(store, prefix=""):
    return run(lambda clients: store.list(prefix, clients))


def is_reply(reply, body, start, total):
    return isinstance(reply, Reply) and (bytes(reply.body), reply.start, reply.total) == (body, start, total)


def is_signed(request):
    """Whether a request to S3 carries credentials, in a header or in its URL."""
    return "authorization" in request.headers or "X-Amz-Signature=" in request.target


def token_of(request):
    """The session token of a request to S3, None where it has none."""
    query = parse_qs(urlsplit(request.target).query)
    return request.headers.get("x-amz-security-token") or query.get("X-Amz-Security-Token", [None])[0]


def s3(url, prefix="root", **options):
    return ObjectStore(f"s3://bucket/{prefix}", StoreOptions(endpoint=url, **{"credentials": CREDENTIALS, **options}))


@pytest.fixture
def scripted():
    """An S3 with the bucket `bucket` that misbehaves on demand."""
    with FaultyServer({"bucket/root/a/c/0/0": DATA, "bucket/root/a/zarr.json": b"{}"}) as server:
        yield server
