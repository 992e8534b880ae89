"""What is looked at before a request is carried out: host, token, path. Pure: texts in, a `Target` or `Refused` out.

The Host header names this server and no other, so that a page cannot reach it under a name of its own (DNS rebinding).
The token is a part of the path, `Authorization: Bearer T` or `Basic base64(any:T)`, or `?token=T`. A path is decoded
once and then a list of names, none of which leads anywhere but down.
"""

from __future__ import annotations

import binascii
import re
from hmac import compare_digest
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

from voxfetch.server.answers import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["MAX_HEAD_NBYTES", "MAX_PATH_NBYTES", "Guard", "Target", "is_loopback", "is_name", "names_of"]

MAX_HEAD_NBYTES = 8 << 10
"""Bytes of all headers of a request."""
MAX_PATH_NBYTES = 4 << 10
"""Bytes of path and query."""
_MAX_SEGMENTS = 64
_MAX_SEGMENT_NBYTES = 255
_MAX_QUERY_FIELDS = 64
_MAX_KNOWN_HOSTS = 64

# A path that needs no second look: most do not.
_PLAIN = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._@~-]{1,128}){0,64}/?")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\\/]")
_DRIVE = re.compile(r"[A-Za-z]:.*", re.DOTALL)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::\d{1,5})?")
_CHALLENGE = 'WWW-Authenticate: Bearer realm="voxfetch"\r\nWWW-Authenticate: Basic realm="voxfetch"\r\n'


class Target(NamedTuple):
    """A path without its token: its names; whether it ends in `/`; the query; `/t/TOKEN`, or "" without one."""

    segments: tuple[str, ...]
    folder: bool
    query: Mapping[str, str]
    prefix: str


class Guard:
    """Decides what is answered at all. `token` None: everyone is; `hosts`: names beside those of this machine."""

    def __init__(self, token: str | None, hosts: Iterable[str]) -> None:
        self._token = None if token is None else token.encode()
        self._hosts = {host.lower().strip("[]") for host in hosts}
        self._known: set[str] = set()

    def check_host(self, header: str | None, arrived_at: str | None = None) -> None:
        """Raises `Refused` (421) for a Host header of another server, or for none.

        `arrived_at` is the address of this machine at which the connection came in; it may be named too.
        """
        if header in self._known:
            return
        match = None if header is None else _HOST.fullmatch(header)
        if header is None or match is None or not self._is_ours(match[1].lower().strip("[]"), arrived_at):
            raise Refused(421, "wrong_host")
        if len(self._known) < _MAX_KNOWN_HOSTS:
            self._known.add(header)

    def target(self, raw: str, authorization: str | None) -> Target:
        """Returns what a request line asks for, as it was sent. Raises `Refused` (400, 401, 404, 414)."""
        if len(raw) > MAX_PATH_NBYTES:
            raise Refused(414, "too_long")
        path, mark, text = raw.partition("?")
        segments, folder = names_of(path)
        query: Mapping[str, str] = _query(text) if mark else {}
        if self._token is None:
            return Target(segments, folder, query, "")
        if len(segments) >= 2 and segments[0] == "t":
            if not compare_digest(segments[1].encode(), self._token):
                raise Refused(401, "unauthorized", _CHALLENGE)
            return Target(segments[2:], folder, query, f"/t/{segments[1]}")
        given = query.get("token") if authorization is None else _token_of(authorization)
        if given is None or not compare_digest(given.encode(errors="replace"), self._token):
            raise Refused(401, "unauthorized", _CHALLENGE)
        return Target(segments, folder, query, "")

    def _is_ours(self, host: str, arrived_at: str | None) -> bool:
        if host == "localhost" or host in self._hosts:
            return True
        try:
            address = ip_address(host)
            return is_loopback(host) or (arrived_at is not None and address == ip_address(arrived_at))
        except ValueError:
            return False


def is_loopback(host: str) -> bool:
    """Returns whether a name or an address is that of this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def names_of(path: str) -> tuple[tuple[str, ...], bool]:
    """Returns the names in a path, decoded, and whether it ends in `/`. Raises `Refused` for any that is none."""
    if path and _PLAIN.fullmatch(path):
        folder = path.endswith("/")
        return tuple(path[1 : -1 if folder else None].split("/")) if len(path) > 1 else (), folder
    if not path.startswith("/") or not path.isascii() or _STRAY_PERCENT.search(path):
        raise Refused(400, "bad_path")
    folder = path.endswith("/")
    parts = path[1 : -1 if folder else None].split("/")
    if len(parts) > _MAX_SEGMENTS:
        raise Refused(404, "not_found")
    return tuple(map(_name, parts)), folder


def _name(part: str) -> str:
    encoded = unquote_to_bytes(part)
    try:
        name = encoded.decode()
    except UnicodeDecodeError:
        raise Refused(400, "bad_path") from None
    if not is_name(name):
        raise Refused(400, "bad_path")
    if len(encoded) > _MAX_SEGMENT_NBYTES:
        raise Refused(404, "not_found")
    return name


def is_name(text: str) -> bool:
    """Returns whether a text may stand between two slashes of a path: a file may be called otherwise."""
    if text in {"", ".", ".."} or _CONTROL.search(text) or _DRIVE.fullmatch(text):
        return False
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _query(text: str) -> Mapping[str, str]:
    try:
        text.encode("ascii")
        found = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MAX_QUERY_FIELDS)
    except ValueError:
        raise Refused(400, "bad_query") from None
    query: dict[str, str] = {}
    for name, value in found:
        query.setdefault(name, value)
    return query


def _token_of(authorization: str) -> str | None:
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return binascii.a2b_base64(rest.strip(" "), strict_mode=True).decode().partition(":")[2]
    except ValueError:
        return None
