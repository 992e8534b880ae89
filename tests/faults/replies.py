"""Rows of replies that are wrong: ranges, lengths, encodings, statuses, pages of something else."""

from __future__ import annotations

import gzip
import itertools
import random
import time
from email.utils import formatdate

import voxfetch as vf
from tests.faults import CHUNK, Row, always, described, document, happened, line, met, plain, reading, shard_of, voxels
from tests.servers.faulty import EPOCH_S, FAULTS, LOGIN_PAGE, Fault, FaultyServer, s3_error, status

MIB = 1 << 20
ONE_CHUNK = slice(0, 50)

RECOVERS = "right after another attempt"
RIGHT = "right"
TYPED = "typed error"
GIVES_UP = "typed error with status and attempts"
NO_REPEAT = "typed error, not tried again: the server would lie again"
NEVER_FILL = "typed error, never fill value"


def large():
    """Objects of an array of one shard of 16 MiB, more than is read where a range is ignored."""
    values = voxels(4 * MIB)
    return {"zarr.json": document(len(values), chunk=CHUNK, shard=len(values)), "c/0": shard_of(values, CHUNK)}


def ignored_range_of_a_large_object():
    with FaultyServer(large()) as server:
        server.rule = lambda request: Fault(ignore_range=True) if request.range else None
        with reading(server) as array:
            server.sent_nbytes = 0
            text = happened(server, array, slice(0, 100))
            # A part is in the buffers of the system before the connection is closed.
            return f"{text}; {'at most 8 MiB' if server.sent_nbytes <= 8 * MIB else 'MORE THAN 8 MiB'} sent"


def ignored_ranges_chunk_by_chunk():
    with FaultyServer(line()) as server, reading(server) as array:
        server.rule = lambda _: Fault(ignore_range=True)
        said = [happened(server, array, slice(at, at + CHUNK)) for at in range(0, array.shape[0], CHUNK)]
        return said[-1] if all(text.startswith("right") for text in said) else "; ".join(said)


def zipped_document(body):
    fault = Fault(status=200, body=gzip.compress(body), headers={"Content-Encoding": "gzip"})
    return always(fault, where="document")


def what_is_asked():
    with FaultyServer(line()) as server, reading(server) as array:
        array[...]
        asked = {request.headers["accept-encoding"] for request in server.requests}
        return f"all requests say Accept-Encoding: {', '.join(sorted(asked))}"


def waits(fault, at_least_s):
    """A read of a chunk whose first reply asks to wait."""

    def run():
        with FaultyServer(line()) as server, reading(server) as array:
            array[0]
            server.requests.clear()
            server.faults.append(fault)
            began = time.monotonic()
            text = happened(server, array, slice(0, 100))
            waited = time.monotonic() - began
            return f"{text}; {'waited' if at_least_s <= waited < at_least_s + 2 else f'WAITED {waited:.1f} s'}"

    return run


DATED = Fault(
    status=429,
    body=b"",
    headers={name: formatdate(EPOCH_S + later_s, usegmt=True) for name, later_s in (("Date", 0), ("Retry-After", 1))},
)


def one_for_all():
    """While one request was told to wait, no other one of the store is sent."""
    with FaultyServer(plain(40), latency_s=0.02) as server, reading(server, engine={"max_requests": 4}) as array:
        server.faults.append(status(503, retry_after="1"))
        text = happened(server, array, slice(None))
        times = [request.time_s for request in server.requests]
        quiet = max(later - one for one, later in itertools.pairwise(times))
        return f"{text}; {'all wait' if quiet > 0.8 else 'OTHERS DO NOT WAIT'}"


def fewer_at_once():
    """How many requests are in flight before and after the server asks for fewer."""
    with FaultyServer(plain(200), latency_s=0.03) as server, reading(server, engine={"max_requests": 32}) as array:
        array[...]
        before = server.most_in_flight
        server.faults.extend([status(503)] * 4)
        array[: 64 * 60]
        server.most_in_flight = 0
        array[: 64 * 60]
        after = server.most_in_flight
        return f"{before} in flight, then {'fewer than 24' if after < 24 else after}"


def hidden(request):
    """Everything that does not exist is refused."""
    return None if request.key in {"zarr.json", "c/0"} else status(403)


def refused_where_missing(rule, **options):
    """A read of four chunks of which one is stored."""

    def run():
        objects = {name: body for name, body in plain().items() if name in {"zarr.json", "c/0"}}
        with FaultyServer(objects) as server, reading(server, options=vf.StoreOptions(**options)) as array:
            server.rule = rule
            try:
                got = array[...]
            except vf.VoxfetchError as error:
                return described(error)
            good = (got[:64] == voxels(64)).all() and not got[64:].any()
            return "fill value where nothing is stored" if good else "WRONG"

    return run


def missing(number, **read_options):
    """A read of a chunk of which the server says that it is not there."""

    def run():
        with FaultyServer(plain()) as server:
            server.rule = lambda request: status(number, b"gone") if request.key == "c/1" else None
            with reading(server, read_options=vf.ReadOptions(**read_options)) as array:
                try:
                    got = array[64:128]
                except vf.VoxfetchError as error:
                    return described(error)
                return "WRONG" if got.any() else "fill value"

    return run


def refuses_at_random():
    """Refusals of a part of all requests, to whatever is asked, are errors: nothing stored becomes fill value."""
    filled = errors = 0
    for seed in range(8):
        dice = random.Random(seed)
        with FaultyServer(plain(64)) as server, reading(server) as array:
            server.rule = lambda _, dice=dice: status(403) if dice.random() < 0.3 else None
            for start in range(0, 64 * 64, 64):
                try:
                    filled += not array[start : start + 64].all()
                except vf.StoreError:
                    errors += 1
    return f"{filled} fill values, errors for {'some' if 64 < errors < 256 else errors}"


def page(content_type, body, where):
    fault = Fault(status=200, body=body, headers={"Content-Type": content_type})
    return always(fault, where=where, **({"objects": plain(), "select": ONE_CHUNK} if where == "data" else {}))


def page_for_people():
    """What opening says of a login page."""
    with FaultyServer(line()) as server, vf.Engine() as engine:
        server.rule = lambda _: Fault(status=200, body=LOGIN_PAGE, headers={"Content-Type": "text/html"})
        try:
            vf.open_array(server.url, engine=engine)
        except vf.MetadataError as error:
            return f"{error.kind}{' that quotes it' if '<!DOCTYPE html>' in str(error) else ''}"
    return "OPENED"


ROWS = [
    Row(
        "T1.1",
        "200 with all of 1 MiB for each range of data",
        RIGHT,
        "right; 2 requests",
        always(FAULTS["200 for a range"]),
    ),
    Row("T1.2", "the same for the index", RIGHT, "right; 1 request", always(FAULTS["200 for a range"], where="index")),
    Row(
        "T1.3",
        "200 with all of 16 MiB",
        "typed error before the body",
        "RangeNotHonouredError, status 200, 1 attempt; 2 requests; at most 8 MiB sent",
        ignored_range_of_a_large_object,
    ),
    Row(
        "T1.4",
        "200 without a length",
        TYPED,
        "RangeNotHonouredError, status 200, 1 attempt; 2 requests",
        always(Fault(ignore_range=True, framing="chunked")),
    ),
    Row(
        "T1.5",
        "200 with all of 1 MiB for each range, read chunk by chunk",
        "right, fetched once",
        "right; 1 request",
        ignored_ranges_chunk_by_chunk,
    ),
    Row("T2.1", "Content-Length not met, once", RECOVERS, "right; 3 requests", met(Fault(cut=5))),
    Row(
        "T2.2",
        "the same, always",
        GIVES_UP,
        "RetriesExhaustedError, status 206, 4 attempts; 5 requests",
        always(Fault(cut=5)),
    ),
    Row(
        "T2.3", "Content-Length short, Content-Range claims all, once", RECOVERS, "right; 3 requests", met(Fault(lie=5))
    ),
    Row(
        "T2.4",
        "the same, always",
        GIVES_UP,
        "RetriesExhaustedError, status 206, 4 attempts; 5 requests",
        always(Fault(lie=5)),
    ),
    Row("T2.5", "no length, closed early, once", RECOVERS, "right; 3 requests", met(Fault(framing="close", cut=5))),
    Row(
        "T2.6",
        "the same, always",
        GIVES_UP,
        "RetriesExhaustedError, status 206, 4 attempts; 5 requests",
        always(Fault(framing="close", cut=5)),
    ),
    Row("T2.7", "chunked, closed early, once", RECOVERS, "right; 3 requests", met(Fault(framing="chunked", cut=5))),
    Row(
        "T2.8",
        "the same, always",
        GIVES_UP,
        "RetriesExhaustedError, status 206, 4 attempts; 5 requests",
        always(Fault(framing="chunked", cut=5)),
    ),
    Row("T2.9", "chunked, with an end that is none, once", RECOVERS, "right; 3 requests", met(Fault(framing="broken"))),
    Row("T2.10", "the index cut, once", RECOVERS, "right; 3 requests", met(Fault(cut=5), where="index")),
    Row("T2.11", "the document cut, once", RECOVERS, "right; 2 requests", met(Fault(cut=5), where="document")),
    Row(
        "T2.12",
        "the document cut without a length",
        TYPED,
        "MetadataError; 1 request",
        always(Fault(framing="close", cut=5), where="document"),
    ),
    Row("T2.13", "no length, all there", RIGHT, "right; 2 requests", always(Fault(framing="close"))),
    Row("T2.14", "chunked, all there", RIGHT, "right; 2 requests", always(Fault(framing="chunked"))),
    Row(
        "T3.1",
        "a byte too much, announced",
        NO_REPEAT,
        "RangeNotHonouredError, status 206, 1 attempt; 2 requests",
        always(Fault(extra=b"x")),
    ),
    Row(
        "T3.2",
        "a byte too much, without a length",
        NO_REPEAT,
        "RangeNotHonouredError, status 206, 1 attempt; 2 requests",
        always(Fault(extra=b"x", framing="close")),
    ),
    Row(
        "T3.3",
        "another range than asked for",
        NO_REPEAT,
        "RangeNotHonouredError, status 206, 1 attempt; 2 requests",
        always(Fault(shift=3)),
    ),
    Row(
        "T3.4",
        "no Content-Range",
        NO_REPEAT,
        "RangeNotHonouredError, status 206, 1 attempt; 2 requests",
        always(FAULTS["no Content-Range"]),
    ),
    Row("T3.5", "Content-Range a-b/*", RIGHT, "right; 2 requests", always(Fault(no_total=True))),
    Row(
        "T3.6",
        "Content-Range */n",
        NO_REPEAT,
        "RangeNotHonouredError, status 206, 1 attempt; 2 requests",
        always(FAULTS["unsatisfied Content-Range"]),
    ),
    Row(
        "T3.7",
        "Content-Range 9-3/2",
        NO_REPEAT,
        "RangeNotHonouredError, status 206, 1 attempt; 2 requests",
        always(FAULTS["senseless Content-Range"]),
    ),
    Row(
        "T3.8",
        "a suffix answered from the start",
        "right, asked for otherwise",
        "right; 4 requests",
        always(Fault(head=True), where="index"),
    ),
    Row(
        "T3.9",
        "suffixes refused with 416",
        "right, asked for otherwise",
        "right; 4 requests",
        met(server={"suffixes": 416}),
    ),
    Row("T3.10", "suffixes answered with 200 and all", RIGHT, "right; 1 request", met(server={"suffixes": 200})),
    Row(
        "T4.1",
        "Content-Encoding: gzip on a part",
        NO_REPEAT,
        "RangeNotHonouredError, status 206, 1 attempt; 2 requests",
        always(FAULTS["gzip on a part"]),
    ),
    Row("T4.2", "a gzipped document", RIGHT, "right; 1 request", zipped_document(line()["zarr.json"])),
    Row(
        "T4.3",
        "a document of 64 KiB that inflates to 64 MiB",
        "typed error past 16 MiB",
        "LimitExceededError, status 200, 1 attempt; 1 request",
        zipped_document(bytes(64 * MIB)),
    ),
    Row(
        "T4.4", "-", "the server is asked not to compress", "all requests say Accept-Encoding: identity", what_is_asked
    ),
    *[
        Row(f"T5.{number}", f"{code}, once", RECOVERS, "right; 3 requests", met(status(code)))
        for number, code in enumerate((408, 425, 429, 500, 502, 503, 504), 1)
    ],
    *[
        Row(
            f"T5.{number}",
            f"{code}, always",
            GIVES_UP,
            f"RetriesExhaustedError, status {code}, 4 attempts; 5 requests",
            always(status(code)),
        )
        for number, code in enumerate((429, 500, 503), 8)
    ],
    Row("T5.11", "503, three times, then none", RECOVERS, "right; 5 requests", met(*[status(503)] * 3)),
    Row("T5.12", "503 for the document, once", RECOVERS, "right; 2 requests", met(status(503), where="document")),
    Row(
        "T5.13",
        "200 with an error document of S3, once",
        RECOVERS,
        "right; 4 requests",
        met(Fault(status=200, body=s3_error(200, "SlowDown").body)),
    ),
    Row(
        "T5.14",
        "503 with Retry-After: 1",
        "waits as long",
        "right; 2 requests; waited",
        waits(status(503, retry_after="1"), 1),
    ),
    Row(
        "T5.15",
        "429 with Retry-After, a date 1 s after that of the reply",
        "waits as long",
        "right; 2 requests; waited",
        waits(DATED, 1),
    ),
    Row(
        "T5.16",
        "503 with Retry-After for one of many",
        "the others wait too",
        "right; 41 requests; all wait",
        one_for_all,
    ),
    Row("T5.17", "503 for some of many", "fewer in flight", "32 in flight, then fewer than 24", fewer_at_once),
    Row("T6.1", "401", NEVER_FILL, "CredentialsError, status 401, 1 attempt; 2 requests", always(status(401))),
    Row("T6.2", "403", NEVER_FILL, "PermissionDeniedError, status 403, 1 attempt; 3 requests", always(status(403))),
    Row(
        "T6.3",
        "403 for the index",
        NEVER_FILL,
        "PermissionDeniedError, status 403, 1 attempt; 2 requests",
        always(status(403), where="index"),
    ),
    Row(
        "T6.4",
        "403 for what does not exist, of a store that answers so",
        "fill value",
        "fill value where nothing is stored",
        refused_where_missing(hidden),
    ),
    Row(
        "T6.5",
        "the same, missing_status=()",
        NEVER_FILL,
        "PermissionDeniedError, status 403, 1 attempt",
        refused_where_missing(hidden, missing_status=()),
    ),
    Row(
        "T6.6",
        "403 for a chunk, missing_status=403",
        "fill value",
        "fill value where nothing is stored",
        refused_where_missing(hidden, missing_status=403),
    ),
    Row(
        "T6.7",
        "403 for three requests of ten, at random",
        NEVER_FILL,
        "0 fill values, errors for some",
        refuses_at_random,
    ),
    Row("T7.1", "404 for a chunk", "fill value", "fill value", missing(404)),
    Row("T7.2", "410 for a chunk", "fill value", "fill value", missing(410)),
    Row("T7.3", 'the same, on_missing="raise"', TYPED, "NotFoundError", missing(404, on_missing="raise")),
    Row(
        "T7.4",
        "404 that says there is no such bucket",
        NEVER_FILL,
        "StoreError, status 404, 1 attempt; 1 request",
        always(s3_error(404, "NoSuchBucket"), objects=plain(), select=ONE_CHUNK),
    ),
    Row(
        "T13.1",
        "a login page with 200 for the document",
        "typed error that quotes it",
        "MetadataError that quotes it",
        page_for_people,
    ),
    Row(
        "T13.2",
        "JSON of something else",
        TYPED,
        "MetadataError; 1 request",
        page("application/json", b'{"error": "sign in"}', "document"),
    ),
    Row(
        "T13.3",
        "a login page with 200 for a chunk",
        TYPED,
        "LimitExceededError, status 200, 1 attempt; 2 requests",
        page("text/html", LOGIN_PAGE, "data"),
    ),
    Row(
        "T13.4",
        "a login page with 200 for a range, once",
        RECOVERS,
        "right; 4 requests",
        met(FAULTS["200 of a login page"]),
    ),
    Row("T13.5", "the same, always", TYPED, "ObjectChangedError; 8 requests", always(FAULTS["200 of a login page"])),
    Row(
        "T13.6",
        "a login page with 200 for the index",
        TYPED,
        "ChecksumError; 1 request",
        always(FAULTS["200 of a login page"], where="index"),
    ),
]
