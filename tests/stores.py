"""Tools of the tests of stores: asks and their outcomes, an S3 that misbehaves, nothing to be found around."""

from __future__ import annotations

import asyncio
import os

from tests.servers.faulty import FaultyServer

import voxfetch as vf
from voxfetch.options import StoreOptions
from voxfetch.store import Ask, Reply, TransientError
from voxfetch.store.http import HttpClients
from voxfetch.store.object import ObjectStore

DATA = bytes(range(256)) * 4
KEY, SECRET, TOKEN = "AKIAHUNTER2HUNTER2", "hunter2+secret/hunter2", "hunter2-session-token"
CREDENTIALS = {"access_key_id": KEY, "secret_access_key": SECRET}
RANGE = Ask("a/c/0/0", 100, 300)


def find_nothing(monkeypatch, tmp_path):
    """No credentials and no cloud around: neither those of the developer nor those of the machine."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_", "CLOUDSDK_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("voxfetch.store.access._FIRMWARE", tmp_path / "none")


def run(work, *, clients=None):
    async def main():
        own = clients or HttpClients(idle_timeout_s=2)
        try:
            return await work(own)
        finally:
            await own.close()

    return asyncio.run(main())


async def outcome(store, ask, clients):
    try:
        return await store.get(ask, clients)
    except (vf.VoxfetchError, TransientError) as error:
        return error


def get(store, *asks):
    """Outcome of each ask in turn: a Reply, None or an exception; one ask gives one outcome."""

    async def work(clients):
        return [await outcome(store, ask, clients) for ask in asks]

    outcomes = run(work)
    return outcomes[0] if len(asks) == 1 else outcomes


def listed(store, prefix=""):
    return run(lambda clients: store.list(prefix, clients))


def is_reply(reply, body, start, total):
    return isinstance(reply, Reply) and (bytes(reply.body), reply.start, reply.total) == (body, start, total)


def s3(url, prefix="root", **options):
    return ObjectStore(f"s3://bucket/{prefix}", StoreOptions(endpoint=url, **{"credentials": CREDENTIALS, **options}))


def scripted_s3():
    """An S3 with the bucket `bucket` that misbehaves on demand."""
    return FaultyServer({"bucket/root/a/c/0/0": DATA, "bucket/root/a/zarr.json": b"{}"})
