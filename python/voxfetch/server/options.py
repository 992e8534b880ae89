"""The knobs of a server, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ServerOptions"]


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How a server listens, whom it answers, and what it spends.

    `port` 0 takes a free one; `token` None makes one; `auth=False` answers without a token. `allowed_hosts` are names
    that may stand in the Host header besides loopback and `host`; `origins` the web pages that may read answers, `*`
    for all of them (None: all where there is a token, for they do not know it, else none).
    `immutable` tells clients to keep what they have got for good. `cache_bytes` bounds encoded chunks
    kept, `max_requests` those at work, `max_queue` those waiting (more get 503), `timeout_s` the work on one,
    `max_voxels` and `max_response_bytes` (bytes) what one may ask for. Links out of a folder that is shown lead nowhere
    unless `follow_links` says so.

    Raises `ValueError` for a number out of range, or a token that cannot stand in a URL.
    """

    host: str = "127.0.0.1"
    port: int = 0
    token: str | None = None
    auth: bool = True
    allowed_hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] | None = None
    immutable: bool = False
    follow_links: bool = False
    cache_bytes: int = 256 << 20
    max_requests: int = 64
    max_queue: int = 256
    timeout_s: float = 30.0
    max_voxels: int = 64 << 20
    max_response_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        if not 0 <= self.port < 1 << 16:
            raise ValueError(f"port {self.port} is not one of 0..65535")
        if self.token is not None and not is_token(self.token):
            raise ValueError("a token has 16 to 128 letters, digits, - and _")
        for name in ("max_requests", "timeout_s", "max_voxels", "max_response_bytes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0")
        for name in ("cache_bytes", "max_queue"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be below 0")


def is_token(text: str) -> bool:
    """Returns whether a text may be a token: long enough not to be guessed, and the same in every URL."""
    return 16 <= len(text) <= 128 and text.isascii() and text.replace("-", "").replace("_", "").isalnum()
