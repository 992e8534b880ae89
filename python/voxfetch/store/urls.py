"""URLs of http(s) in their parts: what is shown, what is kept secret, and how a key becomes a part of a URL."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes, urlsplit

__all__ = ["Address", "is_metadata_service", "parse"]

# What a URL may hold as it is; `+` is a blank to some servers, `%` stands for itself in a key and not in a URL.
_KEY_SAFE = "/:@!$&'()*,;=~"
_PLAIN = re.compile(r"[A-Za-z0-9/._-]*")
_PATH_SAFE = _KEY_SAFE + "+%"
_QUERY_SAFE = _PATH_SAFE + "?"
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HOST = re.compile(r"[A-Za-z0-9._~-]+|[0-9A-Fa-f:.]+(%25[A-Za-z0-9._~-]+)?")
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Besides all link-local addresses, of which 169.254.169.254 is the best known.
_METADATA_SERVICES = {"metadata.google.internal", "fd00:ec2::254", "100.100.100.200"}


class Address(NamedTuple):
    """A URL in its parts, percent-encoded. `basic` is the Authorization that `user:password@` stands for."""

    origin: str
    path: str
    query: str
    basic: str | None

    @property
    def shown(self) -> str:
        """The URL without its secrets."""
        return self.origin + self.path

    def of(self, key: str) -> str:
        """URL of a key, or of the address itself for an empty one; its query included, `basic` not."""
        url = f"{self.shown}/{key if _PLAIN.fullmatch(key) else quote(key, safe=_KEY_SAFE)}" if key else self.shown
        return f"{url}?{self.query}" if self.query else url


def parse(url: str) -> Address | None:
    """Returns the parts of an http(s) URL, None for anything else. A fragment is left out."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
        host = host if host.isascii() else host.encode("idna").decode()
    except ValueError:
        return None
    if _CONTROL.search(url) or parts.scheme not in _DEFAULT_PORTS or not _HOST.fullmatch(host):
        return None
    origin = f"{parts.scheme}://[{host}]" if ":" in host else f"{parts.scheme}://{host}"
    if port not in {None, _DEFAULT_PORTS[parts.scheme]}:
        origin += f":{port}"
    user, at, _ = parts.netloc.rpartition("@")
    path, query = _quoted(parts.path, _PATH_SAFE), _quoted(parts.query, _QUERY_SAFE)
    return Address(origin, path, query, _basic(user) if at else None)


def is_metadata_service(address: Address) -> bool:
    """Returns whether an address is that of a service that tells a machine in a cloud its secrets.

    Names are not looked up; the ways to write an IPv4 address as one number are known.
    """
    import ipaddress
    import socket

    host = (urlsplit(address.origin).hostname or "").partition("%")[0].rstrip(".")
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        try:
            found = ipaddress.ip_address(socket.inet_aton(host))
        except OSError:
            return host in _METADATA_SERVICES
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return found.is_link_local or str(found) in _METADATA_SERVICES


def _quoted(text: str, safe: str) -> str:
    return quote(_STRAY_PERCENT.sub("%25", text), safe=safe, errors="surrogateescape")


def _basic(user_and_password: str) -> str:
    from base64 import b64encode

    user, _, password = user_and_password.partition(":")
    return "Basic " + b64encode(unquote_to_bytes(user) + b":" + unquote_to_bytes(password)).decode()
