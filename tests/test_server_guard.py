"""Who is answered: hosts, tokens, paths."""

from __future__ import annotations

from base64 import b64encode

import pytest

from voxfetch.server.answers import Refused
from voxfetch.server.guard import Guard, names_of
from voxfetch.server.options import ServerOptions

TOKEN = "0123456789abcdef"


def status(call, *arguments):
    try:
        call(*arguments)
    except Refused as refused:
        return refused.status
    return 200


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:80", "127.0.0.1", "127.8.9.10:8080", "[::1]", "[::1]:99", "em.example", "em.example:443"],
)
def test_hosts_of_this_server(host):
    guard = Guard(None, ["em.example"])
    assert status(guard.check_host, host) == 200
    assert status(guard.check_host, host) == 200


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "em.example.evil",
        "2130706433",
        "127.1",
        "0.0.0.0",
        "10.0.0.7",
        "[::ffff:10.0.0.7]",
        "localhost:80:80",
        "localhost,evil.example",
        "user@localhost",
        "localhost/",
        " localhost",
        "[::1",
        "localhost:port",
        "x" * 300,
    ],
)
def test_hosts_of_others(host):
    guard = Guard(None, ["em.example"])
    for _ in range(2):
        assert status(guard.check_host, host) == 421


def test_the_address_at_which_a_connection_came_in():
    guard = Guard(None, ["0.0.0.0"])
    assert status(guard.check_host, "10.0.0.7:80", "10.0.0.7") == 200
    assert status(guard.check_host, "10.0.0.8:80", "10.0.0.7") == 421
    assert status(guard.check_host, "evil.example", "10.0.0.7") == 421


def test_what_is_known_of_hosts_is_bounded():
    guard = Guard(None, [])
    for port in range(2000):
        guard.check_host(f"127.0.0.1:{port}")
    assert len(guard._known) <= 64


def basic(text):
    return "Basic " + b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("path", "authorization", "prefix"),
    [
        (f"/t/{TOKEN}/z3/a", None, f"/t/{TOKEN}"),
        (f"/t/{TOKEN}/z3/a?token=wrong", "Bearer wrong", f"/t/{TOKEN}"),
        ("/z3/a", f"Bearer {TOKEN}", ""),
        ("/z3/a", f"bearer {TOKEN}", ""),
        ("/z3/a", basic(f"anybody:{TOKEN}"), ""),
        (f"/z3/a?x=1&token={TOKEN}&token=b", None, ""),
    ],
)
def test_tokens(path, authorization, prefix):
    target = Guard(TOKEN, []).target(path, authorization)
    assert (target.segments, target.prefix) == (("z3", "a"), prefix)


@pytest.mark.parametrize(
    ("path", "authorization"),
    [
        ("/z3/a", None),
        ("/", None),
        ("/t/", None),
        ("/t", None),
        ("/t//z3/a", None),
        (f"/t/{TOKEN[:-1]}/z3/a", None),
        (f"/t/{TOKEN}x/z3/a", f"Bearer {TOKEN}"),
        (f"/T/{TOKEN}/z3/a", None),
        ("/t/%C3%A9/z3/a", None),
        (f"/z3/t/{TOKEN}", None),
        ("/z3/a", "Bearer"),
        ("/z3/a", "Bearer "),
        ("/z3/a", f"Token {TOKEN}"),
        ("/z3/a", basic(TOKEN)),
        ("/z3/a", basic(f"{TOKEN}:")),
        ("/z3/a", "Basic ####"),
        ("/z3/a", "Basic /w=="),
        ("/z3/a", "Bearer \xe9"),
        (f"/z3/a?token={TOKEN}", "Bearer wrong"),
        (f"/z3/a?token=b&token={TOKEN}", None),
        ("/z3/a?token=", None),
        (f"/z3/a?Token={TOKEN}", None),
    ],
)
def test_wrong_tokens(path, authorization):
    with pytest.raises(Refused) as refused:
        Guard(TOKEN, []).target(path, authorization)
    # An empty name is no path.
    assert refused.value.status == (400 if "//" in path else 401)
    if refused.value.status == 401:
        assert "WWW-Authenticate: Bearer" in refused.value.fields


def test_without_a_token_the_prefix_is_a_path_like_any():
    target = Guard(None, []).target("/t/x/z3?b=1&b=2&c=", None)
    assert (target.segments, target.query, target.prefix) == (("t", "x", "z3"), {"b": "1", "c": ""}, "")


@pytest.mark.parametrize(
    ("path", "names", "folder"),
    [
        ("/", (), True),
        ("/a", ("a",), False),
        ("/a/", ("a",), True),
        ("/a.zarr/0/c/0/1/2", ("a.zarr", "0", "c", "0", "1", "2"), False),
        ("/.zattrs", (".zattrs",), False),
        ("/...", ("...",), False),
        ("/..a/a..", ("..a", "a.."), False),
        ("/a%20b/%C3%A9", ("a b", "\xe9"), False),
        # Decoded once.
        ("/%252e%252e/%252f", ("%2e%2e", "%2f"), False),
        ("/0-64_0-64_0-64", ("0-64_0-64_0-64",), False),
    ],
)
def test_paths(path, names, folder):
    assert names_of(path) == (names, folder)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a",
        "//",
        "//a",
        "/a//b",
        "/a//",
        "/.",
        "/..",
        "/../a",
        "/a/./b",
        "/a/../b",
        "/a/..",
        "/%2e%2e/a",
        "/.%2E/a",
        "/%2e/a",
        "/a%2fb",
        "/%2Fetc%2Fpasswd",
        "/a%5c..%5cb",
        "/a\\b",
        "/a%00",
        "/a%0d%0ab",
        "/a%7f",
        "/a%c2%85",
        "/C:",
        "/c:%5cwindows",
        "/C%3A/x",
        "/a%",
        "/a%2",
        "/a%zz",
        "/%c0%ae%c0%ae/a",
        "/%c0%af",
        "/%ff",
        "/%ed%a0%80",
        "/\xe9",
        "http://evil.example/a",
        "*",
    ],
)
def test_paths_that_lead_elsewhere(path):
    assert status(names_of, path) == 400


def test_long_paths():
    assert status(names_of, "/" + "%61" * 255) == 200
    assert status(names_of, "/" + "%61" * 256) == 404
    assert status(names_of, "/a" * 64) == 200
    assert status(names_of, "/a" * 65) == 404
    assert status(Guard(None, []).target, "/" + "a" * 5000, None) == 414
    assert status(Guard(None, []).target, "/a?" + "&".join(f"{i}=" for i in range(100)), None) == 400
    assert status(Guard(None, []).target, "/a?b=%ff", None) == 400


@pytest.mark.parametrize(
    "options",
    [
        {"token": "short"},
        {"token": ""},
        {"token": "0123456789abcde/"},
        {"token": "0123456789abcdef\n"},
        {"token": "x" * 129},
        {"port": -1},
        {"port": 65536},
        {"max_requests": 0},
        {"max_queue": -1},
        {"timeout_s": 0},
        {"cache_bytes": -1},
    ],
)
def test_options_out_of_range(options):
    with pytest.raises(ValueError):
        ServerOptions(**options)
