"""What a plane is asked and what it gives, and what HTTP makes of it: validators, ranges, caching, CORS.

Values in, values out; nothing of a connection. RFC 9110 (13 conditional requests, 14 ranges), RFC 9111 and the Fetch
standard's CORS. A plane's `Body` becomes a `Reply` by `reply`, a failure by `trouble`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Asked", "Body", "Plane"]


def _no_headers() -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Body:
    """What a plane gives: bytes, their type, and a validator.

    `etag` is opaque, without quotes; None: made from the content.
    """

    content: bytes | memoryview
    content_type: str = "application/octet-stream"
    etag: str | None = None
    headers: Mapping[str, str] = field(default_factory=_no_headers)
    status: int = 200


@dataclass(frozen=True, slots=True)
class Asked:
    """What a plane may look at: nothing of the connection.

    `segments` come after plane, preset and source, canonical: never "", "." or "..". `query` has the first value of
    each name; `body` is bounded, of POST only; `range` is the Range header, for `raw` only. URLs are made of `origin`
    (`http://127.0.0.1:PORT`) and `prefix` (`/t/TOKEN` or "").
    """

    method: str
    segments: tuple[str, ...]
    preset: str
    source: str
    query: Mapping[str, str]
    body: bytes = b""
    range: str | None = None
    prefix: str = ""
    origin: str = ""


class Plane(Protocol):
    """One way to show sources."""

    async def answer(self, asked: Asked) -> Body | None:
        """Returns what is there, None when there is no such thing. Raises errors of voxfetch, and ValueError."""
        ...
