"""Replies as values: ranges, validators, caching, CORS; against RFC 9110 and the standard library's gzip."""

from __future__ import annotations

import gzip
import json
from email import message_from_string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxfetch.server.answers import Answers, Body, Conditions, Parts, Refused, span_of
from voxfetch.server.options import ServerOptions

DATA = bytes(range(200))
BODY = Body(DATA, etag="v1")


def fields(reply):
    return message_from_string(reply.fields)


def reply(found=BODY, options=None, lasting=True, **asking):
    return Answers(options or ServerOptions()).reply(found, Conditions(**asking), lasting=lasting)


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=190-", 190, 200),
        ("bytes=190-999999", 190, 200),
        ("bytes=-5", 195, 200),
        ("bytes=-1000", 0, 200),
        ("Bytes= 3-4 ", 3, 5),
    ],
)
def test_ranges(header, start, end):
    got = reply(range=header)
    assert got.status == 206
    assert bytes(got.content) == DATA[start:end]
    assert got.nbytes == end - start
    assert fields(got)["Content-Range"] == f"bytes {start}-{end - 1}/200"
    assert fields(got)["ETag"] == '"v1"'


@pytest.mark.parametrize("header", ["bytes=200-", "bytes=200-300", "bytes=-0", "bytes=9999999999999999999-"])
def test_ranges_outside(header):
    got = reply(range=header)
    assert (got.status, got.nbytes, fields(got)["Content-Range"]) == (416, 0, "bytes */200")


@pytest.mark.parametrize(
    "header",
    ["bytes=0-1,5-6", "bytes=5-2", "bytes=-", "bytes=a-b", "rows=0-1", "bytes", "", "bytes=0-1 x", "bytes=1-2-3"],
)
def test_several_ranges_and_junk_give_all(header):
    got = reply(range=header)
    assert (got.status, bytes(got.content), fields(got)["Content-Range"]) == (200, DATA, None)


def test_a_range_of_nothing():
    got = reply(Body(b"", etag="e"), range="bytes=0-0")
    assert (got.status, fields(got)["Content-Range"]) == (416, "bytes */0")
    assert reply(Body(b"", etag="e"), range="bytes=-5").status == 416
    assert reply(Body(b"", etag="e")).nbytes == 0


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))
def test_spans_are_those_of_slices(first, last, nbytes):
    data = bytes(index % 256 for index in range(nbytes))
    found = span_of(f"bytes={first}-{last}", nbytes)
    if last < first:
        assert found is None
    elif first >= nbytes:
        assert found == "none"
    else:
        assert data[slice(*found)] == data[first : last + 1]
    found = span_of(f"bytes=-{first}", nbytes)
    assert found == "none" if min(first, nbytes) == 0 else data[slice(*found)] == data[-first:]


def test_head_is_get_without_a_body():
    got, head = reply(), reply(method="HEAD")
    assert head.fields == got.fields
    assert (head.status, head.nbytes, head.content) == (200, 200, b"")
    # Ranges are for GET alone.
    assert reply(method="HEAD", range="bytes=0-1").status == 200


@pytest.mark.parametrize("header", ['"v1"', 'W/"v1"', '"a", "v1"', '"a",W/"v1" , "b"', "*", ' "v1" '])
def test_not_modified(header):
    got = reply(if_none_match=header, range="bytes=0-1")
    assert (got.status, got.nbytes, got.content) == (304, None, b"")
    assert fields(got)["ETag"] == '"v1"'
    assert fields(got)["Access-Control-Allow-Origin"] == "*"
    assert fields(got)["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("header", ['"v2"', "v1", '"v1', '"xv1"', "", '"*"'])
def test_modified(header):
    assert reply(if_none_match=header).status == 200


def test_if_match():
    assert reply(if_match='"v0", "v1"').status == 200
    assert reply(if_match="*").status == 200
    for header in ('W/"v1"', '"v2"', ""):
        got = reply(if_match=header)
        assert (got.status, got.nbytes, fields(got)["Access-Control-Allow-Origin"]) == (412, 0, "*")
    # It comes before If-None-Match.
    assert reply(if_match='"v2"', if_none_match='"v1"').status == 412


def test_if_range():
    assert reply(range="bytes=0-1", if_range='"v1"').status == 206
    for header in ('"v2"', 'W/"v1"', "Sun, 29 Nov 2026 05:39:55 GMT"):
        got = reply(range="bytes=0-1", if_range=header)
        assert (got.status, bytes(got.content)) == (200, DATA)


def test_an_etag_is_made_of_the_content():
    tags = [fields(reply(Body(content)))["ETag"] for content in (b"a", b"b", b"a")]
    assert tags[0] == tags[2] != tags[1]
    assert reply(Body(b"a"), if_none_match=tags[0]).status == 304


def test_voxels_of_any_shape_are_bytes():
    voxels = np.arange(24, dtype="u2").reshape(2, 3, 4)
    got = reply(Body(memoryview(voxels), etag="v"))
    assert (got.nbytes, bytes(got.content)) == (48, voxels.tobytes())
    assert bytes(reply(Body(memoryview(voxels), etag="v"), range="bytes=-4").content) == voxels.tobytes()[-4:]


def test_caching():
    kept = ServerOptions(immutable=True)
    assert fields(reply())["Cache-Control"] == "no-cache"
    assert fields(reply(options=kept))["Cache-Control"] == "public, max-age=31536000, immutable"
    assert fields(reply(options=kept, if_none_match="*"))["Cache-Control"] == "public, max-age=31536000, immutable"
    assert fields(reply(options=kept, lasting=False))["Cache-Control"] == "no-cache"
    own = Body(b"x", headers={"cache-control": "no-store"})
    assert fields(reply(own, options=kept)).get_all("Cache-Control") == ["no-store"]
    for options, said in ((ServerOptions(), "no-cache"), (kept, "max-age=60")):
        got = Answers(options).absent(Conditions())
        assert (got.status, fields(got)["Cache-Control"]) == (404, said)


def test_json_is_compressed_for_those_who_take_it():
    text = json.dumps({"a": ["b"] * 500}).encode()
    document = Body(text, "application/json", "d")
    plain = reply(document)
    assert (bytes(plain.content), fields(plain)["Content-Encoding"]) == (text, None)
    assert fields(plain)["Vary"] == "Accept-Encoding"
    for header in ("gzip", "deflate, gzip;q=0.5, br", "GZIP"):
        got = reply(document, accept_encoding=header)
        assert gzip.decompress(got.content) == text
        assert got.nbytes == len(got.content) < len(text)
        assert fields(got)["Content-Encoding"] == "gzip"
        assert fields(got)["Vary"] == "Accept-Encoding"
        assert fields(got)["ETag"] != fields(plain)["ETag"]
        assert reply(document, accept_encoding=header, if_none_match=fields(got)["ETag"]).status == 304
        assert reply(document, accept_encoding=header, if_none_match=fields(plain)["ETag"]).status == 200
    for header in ("gzip;q=0", "gzip; q=0.0", "br", "xgzip", ""):
        assert fields(reply(document, accept_encoding=header))["Content-Encoding"] is None
    # Neither short documents, nor parts, nor chunks.
    assert fields(reply(Body(text[:900], "application/json"), accept_encoding="gzip"))["Content-Encoding"] is None
    assert fields(reply(document, accept_encoding="gzip", range="bytes=0-9"))["Content-Encoding"] is None
    assert fields(reply(Body(bytes(5000)), accept_encoding="gzip"))["Content-Encoding"] is None


def test_pages_of_listed_origins_only():
    page = "https://viewer.example"
    answers = Answers(ServerOptions(origins=(page,)))
    for got in (
        answers.reply(BODY, Conditions(origin=page), lasting=True),
        answers.absent(Conditions(origin=page)),
        answers.refused(Refused(401, "unauthorized"), Conditions(origin=page)),
        answers.trouble(503, "timeout", "1", Conditions(origin=page)),
        answers.preflight(page),
    ):
        assert fields(got)["Access-Control-Allow-Origin"] == page
        assert "Origin" in fields(got).get_all("Vary")
    for origin in (None, "https://other.example", "null", f"{page}.evil.example"):
        got = answers.reply(BODY, Conditions(origin=origin), lasting=True)
        assert fields(got)["Access-Control-Allow-Origin"] is None
        assert "Origin" in fields(got).get_all("Vary")


def test_a_preflight():
    got = fields(Answers(ServerOptions()).preflight("https://any.example"))
    assert got["Access-Control-Allow-Origin"] == "*"
    assert {"Range", "If-None-Match", "Authorization"} <= set(got["Access-Control-Allow-Headers"].split(", "))
    assert {"GET", "HEAD", "OPTIONS"} <= set(got["Access-Control-Allow-Methods"].split(", "))
    assert got["Access-Control-Max-Age"] == "86400"


def test_every_reply_says_how_it_may_be_used():
    answers = Answers(ServerOptions())
    for got in (
        reply(),
        reply(range="bytes=0-1"),
        reply(range="bytes=900-"),
        reply(if_none_match="*"),
        reply(if_match='"other"'),
        reply(Body(b"", headers={"Location": "/x"}, status=302)),
        answers.absent(Conditions()),
        answers.preflight(None),
        *(answers.refused(Refused(status, "code"), Conditions()) for status in (400, 401, 405, 413, 414, 421, 431)),
        *(answers.trouble(status, "code", "1", Conditions()) for status in (500, 503)),
    ):
        found = fields(got)
        assert found["Access-Control-Allow-Origin"] == "*"
        assert found["Access-Control-Expose-Headers"] == "*"
        assert found["Cross-Origin-Resource-Policy"] == "cross-origin"
        assert found["X-Content-Type-Options"] == "nosniff"
        assert found["Referrer-Policy"] == "no-referrer"


def test_a_redirect_has_its_own_status():
    got = reply(Body(b"", headers={"Location": "/x#!a"}, status=302), if_none_match="*", range="bytes=0-1")
    assert (got.status, fields(got)["Location"], fields(got)["ETag"]) == (302, "/x#!a", None)


@pytest.mark.parametrize(
    "body",
    [
        Body(b"", headers={"Location": "a\r\nSet-Cookie: b"}, status=302),
        Body(b"", headers={"X\nY": "a"}),
        Body(b"", content_type="a\r\nb"),
        Body(b"", etag='a"\r\n'),
        Body(b"", etag='"quoted"'),
        Body(b"", headers={"Location": "snow\u2603"}, status=302),
    ],
)
def test_nothing_ends_a_header(body):
    with pytest.raises(ValueError):
        reply(body)


def test_parts_are_not_read_for_a_reply():
    async def read(start, end):
        raise AssertionError

    parts = Parts(10**12, read, "p")
    got = reply(parts, range="bytes=-7")
    assert (got.status, got.span, got.nbytes, got.parts) == (206, (10**12 - 7, 10**12), 7, parts)
    assert reply(parts, if_none_match='"p"').parts is None
    assert reply(parts, method="HEAD").parts is None
    assert reply(parts, method="HEAD").nbytes == 10**12
    assert fields(reply(Parts(5, read)))["ETag"] is None
    assert reply(Parts(5, read), range="bytes=0-1", if_range='""').status == 200


def test_pages_may_read_answers_without_a_token_only_where_that_is_said():
    page = "https://any.example"
    told = {
        "token": ServerOptions(),
        "none": ServerOptions(auth=False),
        "all": ServerOptions(auth=False, origins=("*",)),
        "some": ServerOptions(origins=(page,)),
    }
    allowed = {name: fields(Answers(options).absent(Conditions(origin=page))) for name, options in told.items()}
    found = {name: got.get("Access-Control-Allow-Origin") for name, got in allowed.items()}
    assert found == {"token": "*", "none": None, "all": "*", "some": page}
