"""Rows of objects that are replaced while they are read, and of what a reader has kept of them."""

from __future__ import annotations

import asyncio
import itertools

import numpy as np

import voxfetch as vf
from tests.faults import CHUNK, Row, counted, described, document, line, plain, reading, shard_of, voxels
from tests.servers.faulty import Fault, FaultyServer

ONE = "one version"
NVOXELS = 8 * CHUNK
OLD, NEW = 1, 10**8
REVERSED = tuple(reversed(range(8)))


def version(first, **layout):
    """The shard of a line that counts from `first`."""
    return shard_of(voxels(NVOXELS, first), CHUNK, **layout)


def seen(got, start=0):
    """Which version an answer is of."""
    for name, first in (("old", OLD), ("new", NEW)):
        if np.array_equal(got, voxels(len(got), first + start)):
            return name
    return "WRONG" if np.any(got) else "fill value"


def replaced(new, *, known=True, read_options=None, **server):
    """Two chunks are read; the shard is replaced before the first request for their data, or after the index if that
    is not known before."""

    def run():
        with FaultyServer(line(), **server) as running:
            options = vf.ReadOptions(max_request_bytes=1, **(read_options or {}))
            with reading(running, read_options=options) as array:
                if known:
                    array[0]
                left = [new]
                running.requests.clear()

                def rule(request):
                    if left and request.key == "c/0" and not (request.range or "").startswith("bytes=-"):
                        running._objects["c/0"] = left.pop()
                        running._versions["c/0"] = 1

                running.rule = rule
                try:
                    text = seen(array[CHUNK - 500 : CHUNK + 500], CHUNK - 500)
                except vf.VoxfetchError as error:
                    text = described(error)
                return f"{text}; {counted(len(running.requests), 'request')}"

    return run


def between_two(**server):
    """The shard is replaced by one of the same layout after the first of two requests for its data."""

    def run():
        with (
            FaultyServer(line(), **server) as running,
            reading(running, read_options=vf.ReadOptions(max_request_bytes=1), engine={"max_requests": 1}) as array,
        ):
            array[0]
            ranges = itertools.count()

            def rule(request):
                if request.key == "c/0" and next(ranges) == 1:
                    running._objects["c/0"] = version(NEW)
                    running._versions["c/0"] = 1

            running.rule = rule
            try:
                return seen(array[CHUNK - 500 : CHUNK + 500], CHUNK - 500)
            except vf.VoxfetchError as error:
                return described(error)

    return run


def reset_and_replaced():
    """A connection is reset amid the data; by the next attempt the shard is another one."""
    with FaultyServer(line()) as server, reading(server) as array:
        array[0]
        left = [version(NEW, order=REVERSED)]

        def rule(request):
            if left and request.key == "c/0":
                # The reply to this request is still the old one: it is read before the swap.
                asyncio.get_running_loop().call_later(0.005, swap, left.pop())
                return Fault(reset=100)
            return None

        def swap(shard):
            server._objects["c/0"] = shard
            server._versions["c/0"] = 1

        server.rule = rule
        return seen(array[:1000])


def always_another():
    """Every reply is of another version."""
    with FaultyServer(line()) as server, reading(server) as array:

        def rule(request):
            if request.key == "c/0":
                server._versions["c/0"] = request.number

        server.rule = rule
        try:
            text = seen(array[:1000])
        except vf.VoxfetchError as error:
            text = described(error)
        return f"{text}; {counted(len(server.requests), 'request')}"


def replicas():
    """The same object from two servers behind one name, each with an ETag of its own."""
    with FaultyServer(line()) as server:
        server.rule = lambda request: Fault(ignore_if_match=True, headers={"ETag": f'"replica-{request.number % 2}"'})
        with reading(server) as array:
            try:
                text = seen(array[:1000])
            except vf.VoxfetchError as error:
                text = described(error)
            return f"{text}; {counted(len(server.requests), 'request')}"


def kept(**read_options):
    """A shard is replaced that was read before; what does the next read of another chunk say?"""

    def run():
        with FaultyServer(line()) as server, reading(server, read_options=vf.ReadOptions(**read_options)) as array:
            array[0]
            server.put("c/0", version(NEW, order=REVERSED))
            server.requests.clear()
            text = seen(array[3 * CHUNK : 3 * CHUNK + 100], 3 * CHUNK)
            return f"{text}; {counted(len(server.requests), 'request')}"

    return run


def kept_absence(**read_options):
    """A chunk that was not there is written."""

    def run():
        objects = dict(plain())
        body = objects.pop("c/1")
        with FaultyServer(objects) as server, reading(server, read_options=vf.ReadOptions(**read_options)) as array:
            assert not array[64:128].any()
            server.put("c/1", body)
            return "its voxels" if array[64:128].all() else "fill value"

    return run


def two_shards():
    """Two shards are replaced between the requests for them: each is of one version, the answer of two."""
    half = voxels(NVOXELS)
    objects = {"zarr.json": document(2 * NVOXELS, chunk=CHUNK, shard=NVOXELS), "c/0": shard_of(half, CHUNK)}
    objects["c/1"] = shard_of(half + NVOXELS, CHUNK)
    with FaultyServer(objects) as server, reading(server, engine={"max_requests": 1}) as array:
        array[NVOXELS - 1 : NVOXELS + 1]

        def rule(request):
            if request.key == "c/1":
                server._objects["c/0"] = version(NEW)
                server._objects["c/1"] = shard_of(voxels(NVOXELS, NEW + NVOXELS), CHUNK)
                server._versions |= {"c/0": 1, "c/1": 1}

        server.rule = rule
        got = array[NVOXELS - 500 : NVOXELS + 500]
        first, second = seen(got[:500], NVOXELS - 500), seen(got[500:], NVOXELS)
        return f"{first} and {second}"


def no_listing():
    """What a listing or consolidated metadata say of chunks decides nothing: each is asked for."""
    with FaultyServer(plain(8)) as server, reading(server) as array:
        array[...]
        return (
            f"{server.count(method='GET')} GETs of 8 chunks, {len(server.requests) - server.count(method='GET')} others"
        )


ROWS = [
    Row(
        "C1.1",
        "replaced after the index by another order of chunks",
        ONE,
        "new; 6 requests",
        replaced(version(NEW, order=REVERSED), known=False),
    ),
    Row(
        "C1.2", "the same, the index known from before", ONE, "new; 5 requests", replaced(version(NEW, order=REVERSED))
    ),
    Row("C1.3", "replaced by a longer one", ONE, "new; 5 requests", replaced(version(NEW, gap=1000))),
    Row(
        "C1.4",
        "replaced by a shorter one",
        ONE,
        "new; 5 requests",
        replaced(shard_of(voxels(NVOXELS, NEW), CHUNK, order=(0, 1))),
    ),
    Row("C1.5", "replaced between two requests for data", ONE, "new", between_two()),
    Row("C1.6", "removed after the index", "fill value", "fill value; 3 requests", replaced(None)),
    Row("C1.7", "another version in every reply", "typed error", "ObjectChangedError; 8 requests", always_another),
    Row("C1.8", "reset amid the data, replaced before the next attempt", ONE, "new", reset_and_replaced),
    Row("C2.1", "weak ETag: longer", ONE, "new; 5 requests", replaced(version(NEW, gap=1000), etags="weak")),
    Row("C2.2", "no ETag: longer", ONE, "new; 5 requests", replaced(version(NEW, gap=1000), etags=None)),
    Row(
        "C2.3",
        "no ETag: same length, later Last-Modified",
        ONE,
        "new; 5 requests",
        replaced(version(NEW, order=REVERSED), etags=None),
    ),
    Row(
        "C2.4",
        "no ETag, no Last-Modified: longer",
        ONE,
        "new; 5 requests",
        replaced(version(NEW, gap=1000), etags=None, modified=False),
    ),
    Row(
        "C2.5",
        "no ETag, no Last-Modified: same length",
        "nothing tells",
        "WRONG; 2 requests",
        replaced(version(NEW, order=REVERSED), etags=None, modified=False),
    ),
    Row("C2.6", "no ETag: replaced between two requests", ONE, "new", between_two(etags=None)),
    Row("C2.7", "replicas with an ETag each", "typed error", "ObjectChangedError; 8 requests", replicas),
    Row("C3.1", "an index that is kept and old", "new", "new; 3 requests", kept()),
    Row("C3.2", "the same, immutable=True", "new", "new; 3 requests", kept(immutable=True)),
    Row("C3.3", "an absence that is kept", "fill value for index_ttl_s", "fill value", kept_absence()),
    Row("C3.4", "the same, index_ttl_s=0", "its voxels", "its voxels", kept_absence(index_ttl_s=0)),
    Row("C4.1", "two shards, replaced between their requests", "each of one version", "old and new", two_shards),
    Row("C5.1", "-", "chunks are asked for, not listed", "8 GETs of 8 chunks, 0 others", no_listing),
]
