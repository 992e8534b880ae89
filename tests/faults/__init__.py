"""What goes wrong between a reader and a server, as rows: a fault, what is required, what happens.

A row goes through the public functions only: it opens an array by its URL and reads it. `Row.run` gives what happened
in words, `Row.outcome` says what must happen, in the same words. Arrays are lines of uint32, 1, 2, 3, ...: no voxel is
the fill value, 0, and none is like another.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass

import google_crc32c
import numpy as np

import voxfetch as vf
from tests.servers.faulty import FaultyServer

FAST = vf.RetryPolicy(max_attempts=4, base_s=0.01, cap_s=0.05, idle_timeout_s=1)
ALWAYS = 1 << 30
FILL = 0
CHUNK = 1 << 15
"""Voxels of a chunk of `LINE`; 128 KiB."""


@dataclass(frozen=True)
class Row:
    """One fault. `outcome` is what `run()` must return; both are the text of a cell."""

    name: str
    fault: str
    required: str
    outcome: str
    run: Callable[[], str]


@dataclass(frozen=True)
class Figure(Row):
    """A row whose `run()` returns the outcome and numbers of this run, which are shown and not compared."""

    run: Callable[[], tuple[str, str]]


# ------------------------------------------------------------------------------------------------------------- arrays


def document(nvoxels, *, chunk, shard=None, checksum=False, attributes=None):
    """The zarr.json of a line of uint32; `chunk` and `shard` are voxels, `checksum` puts a crc32c on chunks."""
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}]
    codecs += [{"name": "crc32c"}] if checksum else []
    if shard is not None:
        inner = {
            "chunk_shape": [chunk],
            "codecs": codecs,
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
            "index_location": "end",
        }
        codecs = [{"name": "sharding_indexed", "configuration": inner}]
    value = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [nvoxels],
        "data_type": "uint32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [shard or chunk]}},
        "chunk_key_encoding": {"name": "default"},
        "fill_value": FILL,
        "codecs": codecs,
        "attributes": attributes or {},
    }
    return json.dumps(value).encode()


def shard_of(voxels, chunk, *, order=None, gap=0):
    """The stored object of a shard: chunks in `order`, `gap` bytes of waste before each, the index at the end."""
    parts = np.asarray(voxels, "<u4").reshape(-1, chunk)
    body = bytearray()
    index = np.zeros((len(parts), 2), "<u8")
    for number in range(len(parts)) if order is None else order:
        body += b"\xee" * gap
        index[number] = len(body), parts[number].nbytes
        body += parts[number].tobytes()
    end = index.tobytes()
    return bytes(body) + end + google_crc32c.value(end).to_bytes(4, "little")


def voxels(nvoxels, first=1):
    return np.arange(first, first + nvoxels, dtype="<u4")


@functools.cache
def line(nchunks=8):
    """Objects of an array of one shard; 8 chunks make 1 MiB, which is not read whole on suspicion."""
    values = voxels(nchunks * CHUNK)
    whole = document(len(values), chunk=CHUNK, shard=len(values), attributes={"note": "a line"})
    return {"zarr.json": whole, "c/0": shard_of(values, CHUNK)}


@functools.cache
def plain(nchunks=4, chunk=64):
    """Objects of an array without shards."""
    values = voxels(nchunks * chunk).reshape(nchunks, chunk)
    chunks = {f"c/{number}": part.tobytes() for number, part in enumerate(values)}
    return {"zarr.json": document(nchunks * chunk, chunk=chunk), **chunks}


# -------------------------------------------------------------------------------------------------------------- scenes


@contextlib.contextmanager
def reading(server, *, retry=FAST, engine=None, url=None, **keywords):
    """Opens the array of a server with an engine of its own. Afterwards the log is that of what follows."""
    with vf.Engine(decode_threads=1, retry=retry, **(engine or {})) as made:
        array = vf.open_array(url or server.url, engine=made, **keywords)
        server.requests.clear()
        yield array


def is_document(request):
    return request.key.endswith(".json")


def is_index(request):
    """Whether a request is for the end of a shard."""
    return request.key.startswith("c/") and (request.range or "").startswith("bytes=-")


def is_data(request):
    """Whether a request is for bytes of chunks."""
    return request.key.startswith("c/") and not is_index(request)


WHERE = {"document": is_document, "index": is_index, "data": is_data}


def scripted(*faults, where, times=1):
    """A rule of a server: the requests of a kind meet the faults, one after the other, `times` over; others none."""
    left = [*faults] * times if times != ALWAYS else None

    def rule(request):
        if not WHERE[where](request):
            return None
        if left is None:
            return faults[0]
        return left.pop(0) if left else None

    return rule


def met(*faults, where="data", times=1, objects=None, server=None, select=slice(0, 100), **keywords):
    """A `run`: the start of a line is read while requests of a kind meet faults."""

    def run():
        with FaultyServer(objects or line(), **(server or {})) as running:
            running.rule = scripted(*faults, where=where, times=times)
            if where == "document":
                return happened_at_opening(running)
            with reading(running, **keywords) as array:
                return happened(running, array, select)

    return run


def always(fault, **keywords):
    """A `run` in which all requests of a kind meet the fault."""
    return met(fault, times=ALWAYS, **keywords)


def happened(server, array, selection, first=1):
    """What a read did, in words: right, or not, or which error; and how many requests were sent since the opening."""
    try:
        text = verdict(array[selection], selection, array.shape[0], first)
    except vf.VoxfetchError as error:
        text = described(error)
    return f"{text}; {counted(len(server.requests), 'request')}"


def happened_at_opening(server):
    """The same for opening an array."""
    with vf.Engine(decode_threads=1, retry=FAST) as engine:
        try:
            text = "right" if vf.open_array(server.url, engine=engine).attrs["note"] == "a line" else "WRONG"
        except vf.VoxfetchError as error:
            text = described(error)
    return f"{text}; {counted(len(server.requests), 'request')}"


def verdict(got, selection, nvoxels, first=1):
    """Of an answer: right, fill value where there is data, or wrong in another way."""
    if np.array_equal(got, voxels(nvoxels, first)[selection]):
        return "right"
    return "FILL VALUE" if np.all(np.asarray(got) == FILL) else "WRONG"


def described(error):
    """Kind, status and attempts of an error, which must say where it happened."""
    assert error.key, error
    text = error.kind
    if error.status is not None:
        text += f", status {error.status}"
    if error.attempts is not None:
        text += f", {counted(error.attempts, 'attempt')}"
    return text


def counted(number, what):
    return f"{number} {what}{'' if number == 1 else 's'}"
