"""Asks of a store, each with its outcome, on a loop that is made for them."""

from __future__ import annotations

import asyncio

import voxfetch as vf
from voxfetch.connections import Connections
from voxfetch.store import Ask, Reply, TransientError

KEY = "a/c/0/0"
OBJECT = bytes(range(256)) * 4
RANGE = Ask(KEY, 100, 300)
SUFFIX = Ask(KEY, suffix=100)
WHOLE = Ask(KEY)


def run(work, *, idle_timeout_s=2):
    """Runs `work(clients)` and closes the clients."""

    async def main():
        clients = Connections(idle_timeout_s=idle_timeout_s)
        try:
            return await work(clients)
        finally:
            await clients.close()

    return asyncio.run(main())


def get(store, *asks, **keywords):
    """Outcome of each ask, one after the other: a Reply, None or an exception; one ask gives one outcome."""

    async def work(clients):
        return [await outcome(store, ask, clients) for ask in asks]

    outcomes = run(work, **keywords)
    return outcomes[0] if len(asks) == 1 else outcomes


async def outcome(store, ask, clients):
    try:
        return await store.get(ask, clients)
    except (vf.VoxfetchError, TransientError) as error:
        return error


def is_right(got, ask):
    """Whether a reply holds the bytes of OBJECT that were asked for."""
    if not isinstance(got, Reply):
        return False
    start = ask.start or (0 if ask.suffix is None else max(len(OBJECT) - ask.suffix, 0))
    return bytes(got.body) == OBJECT[start : ask.end] and got.start == start and got.total in {None, len(OBJECT)}
