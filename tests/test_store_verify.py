"""Every rule by which a reply is judged, as a table: ask, reply, outcome. No network."""

from __future__ import annotations

import gzip
import pickle
import re
import zlib

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

import voxfetch as vf
from voxfetch.store import Ask, Reply, TransientError, verify
from voxfetch.store.verify import ContentRange

MIB = 1 << 20
OBJECT = bytes(range(256)) * 4
TAG = '"v1"'
RANGE = Ask("a/c/0", 100, 300)
SUFFIX = Ask("a/c/0", suffix=100)
WHOLE = Ask("a/zarr.json", max_nbytes=2000)


def outcome(ask, status, headers, body):
    """What a transport gets: a Reply, None, or an exception."""
    try:
        if not 200 <= status < 300:
            return verify.refuse(ask, status, headers, body)
        return verify.finish(ask, verify.judge(ask, status, headers), body)
    except (vf.VoxfetchError, TransientError) as error:
        return error


def part(start, end, total=1024, **more):
    """Headers of a 206."""
    return {"content-range": f"bytes {start}-{end - 1}/{total}"} | {k.replace("_", "-"): v for k, v in more.items()}


def transient(kind=vf.StoreError):
    return ("transient", kind)


ACCEPTED = {
    "range": (RANGE, 206, part(100, 300, content_length="200"), OBJECT[100:300], (100, 1024)),
    "range, no length": (RANGE, 206, part(100, 300), OBJECT[100:300], (100, 1024)),
    "range, no total": (RANGE, 206, part(100, 300, "*"), OBJECT[100:300], (100, None)),
    "range, identity": (RANGE, 206, part(100, 300, content_encoding="identity"), OBJECT[100:300], (100, 1024)),
    "unit in capitals": (RANGE, 206, {"content-range": "Bytes  100-299/1024"}, OBJECT[100:300], (100, 1024)),
    "suffix": (SUFFIX, 206, part(924, 1024), OBJECT[924:], (924, 1024)),
    "suffix longer than the object": (Ask("k", suffix=5000), 206, part(0, 1024), OBJECT, (0, 1024)),
    "suffix of all": (Ask("k", suffix=1024), 206, part(0, 1024), OBJECT, (0, 1024)),
    "200 for a range": (RANGE, 200, {"content-length": "1024"}, OBJECT, (100, 1024)),
    "200 for a range to the end": (Ask("k", 1000, 1024), 200, {"content-length": "1024"}, OBJECT, (1000, 1024)),
    "200 for a suffix": (SUFFIX, 200, {"content-length": "1024"}, OBJECT, (924, 1024)),
    "200 for a long suffix": (Ask("k", suffix=5000), 200, {"content-length": "1024"}, OBJECT, (0, 1024)),
    "200 of nothing for a suffix": (SUFFIX, 200, {"content-length": "0"}, b"", (0, 0)),
    "whole": (WHOLE, 200, {"content-length": "1024"}, OBJECT, (0, 1024)),
    "whole, no length": (WHOLE, 200, {}, OBJECT, (0, 1024)),
    "whole, empty": (WHOLE, 200, {"content-length": "0"}, b"", (0, 0)),
    "whole, as large as allowed": (Ask("k", max_nbytes=1024), 200, {}, OBJECT, (0, 1024)),
    "whole, gzip": (WHOLE, 200, {"content-encoding": "gzip"}, gzip.compress(OBJECT), (0, 1024)),
    "whole, x-gzip": (WHOLE, 200, {"content-encoding": " X-GZIP "}, gzip.compress(OBJECT), (0, 1024)),
    "whole, brotli": (WHOLE, 200, {"content-encoding": "br"}, brotli.compress(OBJECT), (0, 1024)),
    "brotli of just as much": (
        Ask("k", max_nbytes=1024),
        200,
        {"content-encoding": "BR", "content-length": str(len(brotli.compress(OBJECT)))},
        brotli.compress(OBJECT),
        (0, 1024),
    ),
    "gzip in members": (
        WHOLE,
        200,
        {"content-encoding": "gzip"},
        gzip.compress(OBJECT[:9]) + gzip.compress(b"") + gzip.compress(OBJECT[9:]),
        (0, 1024),
    ),
    "gzip of just as much": (
        Ask("k", max_nbytes=1024),
        200,
        {"content-encoding": "gzip"},
        gzip.compress(OBJECT),
        (0, 1024),
    ),
    "version": (
        Ask("k", 0, 4, if_match=TAG),
        206,
        part(0, 4, etag=TAG),
        OBJECT[:4],
        (0, 1024),
    ),
    "version, made weak on its way": (
        Ask("k", 0, 4, if_match=TAG),
        206,
        part(0, 4, etag="W/" + TAG),
        OBJECT[:4],
        (0, 1024),
    ),
    "empty object": (SUFFIX, 416, {"content-range": "bytes */0"}, b"", (0, 0)),
    "beginning of an empty object": (Ask("k", 0, 16), 416, {"content-range": "bytes */0"}, b"", (0, 0)),
    "beginning of an empty object of S3": (
        Ask("k", 0, 16),
        416,
        {},
        b"<Error><Code>InvalidRange</Code><ActualObjectSize>0</ActualObjectSize></Error>",
        (0, 0),
    ),
    "beginning of an empty object, 200": (Ask("k", 0, 16), 200, {"content-length": "0"}, b"", (0, 0)),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name):
    ask, status, headers, body, (start, total) = ACCEPTED[name]
    reply = outcome(ask, status, headers, body)
    assert isinstance(reply, Reply), reply
    assert (reply.start, reply.total) == (start, total)
    if total == 0:
        assert bytes(reply.body) == b""
    elif ask.start is not None:
        assert bytes(reply.body) == OBJECT[ask.start : ask.end]
    else:
        assert bytes(reply.body) == (OBJECT if ask.suffix is None else OBJECT[-ask.suffix :])


NOT_HONOURED = vf.RangeNotHonouredError
CHANGED = vf.ObjectChangedError
LARGE = str(8 * MIB + 1)
REFUSED = {
    # 206 that is not what was asked for
    "shifted": (RANGE, 206, part(101, 301), b"", NOT_HONOURED),
    "shifted, same end": (RANGE, 206, part(99, 300), b"", NOT_HONOURED),
    "too much": (RANGE, 206, part(100, 301), b"", NOT_HONOURED),
    "too little": (RANGE, 206, part(100, 299), b"", NOT_HONOURED),
    "too little, no total": (RANGE, 206, part(100, 299, "*"), b"", NOT_HONOURED),
    "object ends within": (RANGE, 206, part(100, 200, 200), b"", CHANGED),
    "no Content-Range": (RANGE, 206, {"content-length": "200"}, b"", NOT_HONOURED),
    "several parts": (RANGE, 206, {"content-type": "multipart/byteranges; boundary=x"}, b"", NOT_HONOURED),
    "unsatisfied in a 206": (RANGE, 206, {"content-range": "bytes */1024"}, b"", NOT_HONOURED),
    "senseless": (RANGE, 206, {"content-range": "bytes 299-100/1024"}, b"", NOT_HONOURED),
    "past its own total": (RANGE, 206, {"content-range": "bytes 100-299/299"}, b"", NOT_HONOURED),
    "suffix from the head": (SUFFIX, 206, part(0, 101), b"", NOT_HONOURED),
    "suffix from the head, right length": (SUFFIX, 206, part(0, 100), b"", NOT_HONOURED),
    "suffix, one byte short": (SUFFIX, 206, part(925, 1024), b"", NOT_HONOURED),
    "suffix, one byte long": (SUFFIX, 206, part(923, 1024), b"", NOT_HONOURED),
    "suffix, no total": (SUFFIX, 206, part(924, 1024, "*"), b"", NOT_HONOURED),
    "206 for the whole": (WHOLE, 206, part(0, 1024), b"", NOT_HONOURED),
    "gzip on a part": (RANGE, 206, part(100, 300, content_encoding="gzip"), b"", NOT_HONOURED),
    "announces too much": (RANGE, 206, part(100, 300, content_length="201"), b"", NOT_HONOURED),
    "announces too little": (RANGE, 206, part(100, 300, content_length="199"), b"", transient()),
    "length that is none": (RANGE, 206, part(100, 300, content_length="-1"), b"", vf.StoreError),
    "body too short": (RANGE, 206, part(100, 300), OBJECT[:199], transient()),
    "body empty": (RANGE, 206, part(100, 300, content_length="200"), b"", transient()),
    "body too long": (RANGE, 206, part(100, 300), OBJECT[:201], NOT_HONOURED),
    # 200
    "200 for a range, no length": (RANGE, 200, {}, OBJECT, NOT_HONOURED),
    "200 for a range, too large": (RANGE, 200, {"content-length": LARGE}, b"", NOT_HONOURED),
    "200 for a suffix, too large": (SUFFIX, 200, {"content-length": LARGE}, b"", NOT_HONOURED),
    "200 for a range, gzip": (RANGE, 200, {"content-length": "99", "content-encoding": "gzip"}, b"", NOT_HONOURED),
    "200 for a range, object too short": (RANGE, 200, {"content-length": "299"}, OBJECT[:299], CHANGED),
    "200 for a range, cut": (RANGE, 200, {"content-length": "1024"}, OBJECT[:1023], transient()),
    "200 for a range, too long": (RANGE, 200, {"content-length": "1023"}, OBJECT, NOT_HONOURED),
    "whole, too large": (WHOLE, 200, {"content-length": "2001"}, b"", vf.LimitExceededError),
    "whole, too large, no length": (WHOLE, 200, {}, bytes(2001), vf.LimitExceededError),
    "whole, cut": (WHOLE, 200, {"content-length": "1024"}, OBJECT[:-1], transient()),
    "whole, compress": (WHOLE, 200, {"content-encoding": "compress"}, b"", vf.StoreError),
    "brotli on a part": (RANGE, 206, part(100, 300, content_encoding="br"), b"", NOT_HONOURED),
    "200 for a range, brotli": (RANGE, 200, {"content-length": "99", "content-encoding": "br"}, b"", NOT_HONOURED),
    "brotli that is none": (WHOLE, 200, {"content-encoding": "br", "content-length": "1024"}, OBJECT, vf.StoreError),
    "brotli and more": (
        WHOLE,
        200,
        {"content-encoding": "br", "content-length": str(len(brotli.compress(OBJECT)) + 1)},
        brotli.compress(OBJECT) + b"m",
        vf.StoreError,
    ),
    "brotli, cut": (WHOLE, 200, {"content-encoding": "br"}, brotli.compress(OBJECT)[:-1], transient()),
    "brotli of nothing": (WHOLE, 200, {"content-encoding": "br"}, b"", transient()),
    "brotli bomb": (
        WHOLE,
        200,
        {"content-encoding": "br", "content-length": str(len(brotli.compress(bytes(1 << 26))))},
        brotli.compress(bytes(1 << 26)),
        vf.StoreError,
    ),
    "brotli, encoded too large": (
        WHOLE,
        200,
        {"content-encoding": "br", "content-length": "9000"},
        b"",
        vf.LimitExceededError,
    ),
    "whole, gzip twice": (WHOLE, 200, {"content-encoding": "gzip, gzip"}, b"", vf.StoreError),
    "gzip that is none": (WHOLE, 200, {"content-encoding": "gzip"}, OBJECT, vf.StoreError),
    "gzip and more": (WHOLE, 200, {"content-encoding": "gzip"}, gzip.compress(OBJECT) + b"more", vf.StoreError),
    "gzip, damaged": (WHOLE, 200, {"content-encoding": "gzip"}, gzip.compress(OBJECT)[:-1] + b"x", vf.StoreError),
    "gzip, cut": (WHOLE, 200, {"content-encoding": "gzip"}, gzip.compress(OBJECT)[:-1], transient()),
    "gzip of nothing": (WHOLE, 200, {"content-encoding": "gzip"}, b"", transient()),
    "gzip bomb": (WHOLE, 200, {"content-encoding": "gzip"}, gzip.compress(bytes(2001)), vf.LimitExceededError),
    "gzip, encoded too large": (
        WHOLE,
        200,
        {"content-encoding": "gzip", "content-length": "9000"},
        b"",
        vf.LimitExceededError,
    ),
    "other success": (WHOLE, 204, {}, b"", vf.StoreError),
    "transformed": (RANGE, 203, {"content-length": "1024"}, b"", vf.StoreError),
    # versions
    "another version": (Ask("k", 0, 4, if_match=TAG), 206, part(0, 4, etag='"v2"'), OBJECT[:4], CHANGED),
    "no version": (Ask("k", 0, 4, if_match=TAG), 206, part(0, 4), OBJECT[:4], CHANGED),
    "another version, 200": (
        Ask("k", 0, 4, if_match=TAG),
        200,
        {"content-length": "1024", "etag": '"v2"'},
        OBJECT,
        CHANGED,
    ),
    "precondition failed": (Ask("k", 0, 4, if_match=TAG), 412, {}, b"", CHANGED),
    "precondition failed unasked": (RANGE, 412, {}, b"", vf.StoreError),
    # refusals
    "unauthorized": (RANGE, 401, {}, b"", vf.CredentialsError),
    "forbidden": (RANGE, 403, {}, b"", vf.PermissionDeniedError),
    "expired link": (RANGE, 403, {}, b"<Code>AccessDenied</Code> Request has expired", vf.CredentialsError),
    "Azure": (RANGE, 403, {"x-ms-error-code": "AuthenticationFailed"}, b"", vf.CredentialsError),
    "no bucket": (RANGE, 404, {}, b"<Error><Code>NoSuchBucket</Code></Error>", vf.StoreError),
    "range outside": (RANGE, 416, {"content-range": "bytes */50"}, b"", CHANGED),
    "range of an empty object": (RANGE, 416, {"content-range": "bytes */0"}, b"", CHANGED),
    "beginning outside": (Ask("k", 0, 16), 416, {"content-range": "bytes */9"}, b"", CHANGED),
    "beginning outside, no reason": (Ask("k", 0, 16), 416, {}, b"", CHANGED),
    "suffix refused": (SUFFIX, 416, {"content-range": "bytes */1024"}, b"", NOT_HONOURED),
    "suffix refused, no reason": (SUFFIX, 416, {}, b"", NOT_HONOURED),
    "416 for the whole": (WHOLE, 416, {}, b"", vf.StoreError),
    "redirect": (RANGE, 302, {"location": "https://x"}, b"", vf.StoreError),
    "not modified": (RANGE, 304, {}, b"", vf.StoreError),
    "bad request": (RANGE, 400, {}, b"", vf.StoreError),
    "not implemented": (RANGE, 501, {}, b"", vf.StoreError),
    "S3 timeout": (RANGE, 400, {}, b"<Code>RequestTimeout</Code>", transient()),
    **{
        f"{code} {status}": (RANGE, status, {}, f"<Error><Code>{code}</Code></Error>".encode(), vf.CredentialsError)
        for status in (400, 403)
        for code in ("ExpiredToken", "RequestTimeTooSkewed", "TokenRefreshRequired", "SignatureDoesNotMatch")
    },
    **{str(status): (RANGE, status, {}, b"", transient()) for status in (408, 425, 429, 500, 502, 503, 504)},
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    ask, status, headers, body, wanted = REFUSED[name]
    error = outcome(ask, status, headers, body)
    if isinstance(wanted, tuple):
        assert isinstance(error, TransientError), error
        error, wanted = error.error, wanted[1]
    assert type(error) is wanted, error
    assert (error.key, error.status) == (ask.key, status)
    assert error.byte_range == (None if ask.start is None else (ask.start, ask.end))


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("ask", [RANGE, SUFFIX, WHOLE])
def test_missing(ask, status):
    assert outcome(ask, status, {}, b"<Error><Code>NoSuchKey</Code></Error>") is None


def test_only_two_statuses_are_missing():
    missing = [status for status in range(300, 600) if outcome(RANGE, status, {}, b"") is None]
    assert missing == [404, 410]


@pytest.mark.parametrize("asked", [1, 100, 2 * MIB, 3 * MIB])
def test_how_large_an_object_may_replace_a_range(asked):
    most = max(4 * asked, 8 * MIB)
    for ask in (Ask("k", 7, 7 + asked), Ask("k", suffix=asked)):
        assert verify.judge(ask, 200, {"content-length": str(most)}).nbytes == most
        with pytest.raises(NOT_HONOURED):
            verify.judge(ask, 200, {"content-length": str(most + 1)})


def test_what_is_read_before_it_is_too_much():
    assert verify.judge(RANGE, 206, part(100, 300)).limit == 200
    assert verify.judge(WHOLE, 200, {}).limit == 2000
    assert verify.judge(WHOLE, 200, {"content-length": "3"}).limit == 3


def test_a_slice_does_not_keep_the_whole():
    body = outcome(RANGE, 200, {"content-length": "1024"}, OBJECT).body
    assert type(body) is bytes
    assert len(body) == 200


def test_versions_are_told():
    headers = part(100, 300, etag=TAG, last_modified="Tue, 14 Nov 2023 22:13:20 GMT")
    reply = outcome(RANGE, 206, headers, OBJECT[100:300])
    assert (reply.etag, reply.modified) == (TAG, "Tue, 14 Nov 2023 22:13:20 GMT")
    assert outcome(RANGE, 206, headers | {"etag": "W/" + TAG}, OBJECT[100:300]).etag is None


@pytest.mark.parametrize(
    ("value", "strong"),
    [
        ('"a"', True),
        ('""', True),
        ('"a-b:c/d=="', True),
        ('W/"a"', False),
        ("a", False),
        ('"a', False),
        ('"a"b"', False),
        ('"a b"', False),
        ('"a\r\nx: y"', False),
        ("", False),
        (None, False),
        ('"' + "a" * 2000 + '"', False),
    ],
)
def test_strong_etags(value, strong):
    assert verify.strong_etag(value) == (value if strong else None)


# ----------------------------------------------------------------------------------------------------------- parsers


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("bytes 0-0/1", (0, 1, 1)),
        ("bytes 5-9/10", (5, 10, 10)),
        ("bytes 5-9/*", (5, 10, None)),
        ("bytes */10", (None, None, 10)),
        ("bytes */0", (None, None, 0)),
        (" bytes\t5-9/10 ", (5, 10, 10)),
        ("bytes */*", None),
        ("bytes 9-5/10", None),
        ("bytes 5-10/10", None),
        ("bytes=5-9/10", None),
        ("bytes 5-9", None),
        ("bytes -5/10", None),
        ("bytes 5-/10", None),
        ("bytes 0--1/0", None),
        ("bytes 5-9/10, 11-12/20", None),
        ("items 5-9/10", None),
        ("5-9/10", None),
        ("bytes 5 - 9/10", None),
        ("bytes \u0665-\u0669/10", None),
        ("bytes 1-2/" + "9" * 30, None),
        ("", None),
    ],
)
def test_content_range(text, meaning):
    assert verify.parse_content_range(text) == (None if meaning is None else ContentRange(*meaning))


@given(st.text() | st.from_regex(r"bytes [0-9*]{1,4}(-[0-9]{1,4})?/[0-9*]{1,4}", fullmatch=True))
def test_content_range_is_right_or_refused(text):
    got = verify.parse_content_range(text)
    if got is not None and got.start is not None:
        assert 0 <= got.start < got.end
        assert got.total is None or got.end <= got.total


DATE = "Tue, 14 Nov 2023 22:13:20 GMT"


@pytest.mark.parametrize(
    ("value", "date", "wait_s"),
    [
        ("0", None, 0),
        ("1", DATE, 1),
        ("30", None, 30),
        ("3600", None, 30),
        ("9" * 19, None, 30),
        ("Tue, 14 Nov 2023 22:13:27 GMT", DATE, 7),
        ("Tue, 14 Nov 2023 22:13:20 GMT", DATE, 0),
        ("Tue, 14 Nov 2023 20:00:00 GMT", DATE, 0),
        ("Wed, 15 Nov 2023 22:13:27 GMT", DATE, 30),
        ("Tuesday, 14-Nov-23 22:13:27 GMT", DATE, 7),
        ("Tue Nov 14 22:13:27 2023", DATE, None),
        ("Tue, 14 Nov 2023 22:13:27 GMT", None, None),
        ("Tue, 14 Nov 2023 22:13:27 GMT", "soon", None),
        ("-1", DATE, None),
        ("1.5", DATE, None),
        ("soon", DATE, None),
        ("", DATE, None),
        (None, DATE, None),
    ],
)
def test_retry_after(value, date, wait_s):
    assert verify.parse_retry_after(value, date) == wait_s


@given(st.text(), st.text())
def test_retry_after_of_anything(value, date):
    wait_s = verify.parse_retry_after(value, date)
    assert wait_s is None or 0 <= wait_s <= verify.MAX_RETRY_AFTER_S


@pytest.mark.parametrize(
    ("status", "body", "throttled"),
    [
        (503, b"", True),
        (429, b"", True),
        (500, b"", False),
        (504, b"", False),
        (500, b"<Error><Code>SlowDown</Code></Error>", True),
        (403, b"<Error><Code> RequestLimitExceeded </Code></Error>", True),
    ],
)
def test_throttling(status, body, throttled):
    error = outcome(RANGE, status, {"retry-after": "2"}, body)
    assert isinstance(error, TransientError)
    assert (error.throttled, error.retry_after_s) == (throttled, 2)


def test_range_headers():
    assert verify.range_header(WHOLE) is None
    assert verify.range_header(RANGE) == "bytes=100-299"
    assert verify.range_header(Ask("k", 0, 1)) == "bytes=0-0"
    assert verify.range_header(SUFFIX) == "bytes=-100"
    for ask in (
        Ask("k", 5, 5),
        Ask("k", 6, 5),
        Ask("k", -1, 5),
        Ask("k", 5),
        Ask("k", None, 5),
        Ask("k", suffix=0),
        Ask("k", 1, 2, suffix=3),
    ):
        with pytest.raises(vf.InternalError):
            verify.range_header(ask)


# ------------------------------------------------------------------------------------------------------------- safety


def test_gzip_in_very_many_members_is_quick():
    """Each member costs the rest of its piece, not the rest of the body."""
    member = gzip.compress(b"", mtime=0)
    body = member * (2 * MIB // len(member))
    assert bytes(outcome(Ask("k"), 200, {"content-encoding": "gzip"}, body).body) == b""


@given(st.binary(max_size=200), st.integers(0, 300), st.integers(0, 255))
def test_damaged_gzip_is_refused_or_right(data, at, value):
    body = bytearray(gzip.compress(data, mtime=0))
    body[at % len(body)] = value
    got = outcome(Ask("k", max_nbytes=1000), 200, {"content-encoding": "gzip"}, bytes(body))
    if isinstance(got, Reply):
        # Some bits of the header (time, system) do not matter.
        assert got.body == data == zlib.decompress(bytes(body), 31)


@given(
    st.sampled_from([RANGE, SUFFIX, WHOLE, Ask("k", 1, 4, if_match=TAG)]),
    st.integers(100, 599) | st.sampled_from([200, 206, 416]),
    st.dictionaries(
        st.sampled_from(["content-range", "content-length", "content-encoding", "etag", "retry-after", "date"]),
        st.text() | st.sampled_from(["200", "100", "gzip", TAG, "bytes 100-299/1024", "bytes 924-1023/1024"]),
    ),
    st.binary() | st.sampled_from([OBJECT, OBJECT[100:300], OBJECT[924:]]),
)
def test_any_reply_has_a_typed_outcome(ask, status, headers, body):
    got = outcome(ask, status, headers, body)
    if isinstance(got, Reply):
        nbytes = len(got.body)
        assert got.total is None or got.start + nbytes <= got.total
        if ask.start is not None:
            assert (got.start, nbytes) == (ask.start, ask.end - ask.start)
        elif ask.suffix is not None:
            assert nbytes == min(ask.suffix, got.total) == got.total - got.start
        else:
            assert nbytes <= ask.max_nbytes
    elif not isinstance(got, TransientError):
        assert got is None or got.kind != "InternalError"


def test_errors_quote_nothing_of_the_server():
    secret = "hunter2"
    names = ("content-range", "content-encoding", "etag", "last-modified", "retry-after", "location", "date")
    headers = dict.fromkeys(names, f"{secret}, {secret}")
    asks = [RANGE, SUFFIX, WHOLE, Ask("k", 1, 4, if_match=f'"{secret}"')]
    body = f"<Error><Code>{secret}</Code></Error>".encode()
    seen = 0
    for ask in asks:
        for status in range(200, 600):
            error = outcome(ask, status, headers, body)
            error = error.error if isinstance(error, TransientError) else error
            if isinstance(error, vf.VoxfetchError):
                seen += 1
                text = str(error) + repr(error) + repr(error.__dict__) + repr(pickle.dumps(error))
                assert not re.search(secret, text)
    assert seen > 1000
