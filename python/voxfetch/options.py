"""Knobs and reports: frozen dataclasses that are checked when they are made. Units are in the names.

What None means is said at each field; a value that cannot be meant raises `ValueError` or `TypeError` at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from voxfetch.errors import VoxfetchError

__all__ = ["EngineStats", "ReadOptions", "ReadReport", "RetryPolicy", "StoreOptions", "VerifyReport"]


def _check_count(name: str, value: object, *, minimum: int, optional: bool = False) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int{' or None' if optional else ''}, not {value!r}")
    if not minimum <= value < 1 << 63:
        raise ValueError(f"{name} must be at least {minimum}, not {value}")


def _check_seconds(name: str, value: object, *, zero: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise ValueError(f"{name} must be finite and {'at least' if zero else 'more than'} 0, not {value}")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")


def _check_flag(name: str, value: object, *, optional: bool = False) -> None:
    if not (isinstance(value, bool) or (optional and value is None)):
        raise TypeError(f"{name} must be True or False, not {value!r}")


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How an array is read.

    `max_gap_bytes`: two ranges this close are fetched as one; `max_request_bytes`: no merged request grows past it;
    None takes the profile of the store. `verify="full"` checks every checksum that is stored; `"cheap"` skips those
    of chunks. `on_missing="raise"` raises `NotFoundError` for chunks that are not stored instead of returning the fill
    value. `index_ttl_s`: how long cached indexes of a remote store are trusted (local files are compared at each
    read); `immutable=True` trusts them for ever. `missing_ttl_s`: how long it is trusted that a chunk or a shard of a
    remote store is not stored (None: as long as its index is); with 0 a chunk that another writer has added is found by
    the next read, which asks again for what is missing. `priority` orders reads that wait for the network.
    """

    max_gap_bytes: int | None = None
    max_request_bytes: int | None = None
    verify: Literal["full", "cheap"] = "full"
    on_missing: Literal["fill", "raise"] = "fill"
    index_ttl_s: float = 60
    immutable: bool = False
    priority: Literal["bulk", "interactive"] = "bulk"
    missing_ttl_s: float | None = None

    def __post_init__(self) -> None:
        _check_count("max_gap_bytes", self.max_gap_bytes, minimum=0, optional=True)
        _check_count("max_request_bytes", self.max_request_bytes, minimum=1, optional=True)
        _check_choice("verify", self.verify, ("full", "cheap"))
        _check_choice("on_missing", self.on_missing, ("fill", "raise"))
        _check_seconds("index_ttl_s", self.index_ttl_s, zero=True)
        if self.missing_ttl_s is not None:
            _check_seconds("missing_ttl_s", self.missing_ttl_s, zero=True)
        _check_flag("immutable", self.immutable)
        _check_choice("priority", self.priority, ("bulk", "interactive"))


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How a store is reached. Local folders have `follow_links` only: whether links may lead out of the folder.

    None means: found out by itself. `missing_status` says whether a 403 may mean "no such object". Of a BossDB
    server `credentials` are the token, as `{"token": ...}`. Headers and credentials are left out of `repr`.
    """

    anonymous: bool | None = None
    endpoint: str | None = None
    region: str | None = None
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    credentials: Any = field(default=None, repr=False)
    profile: str | None = None
    missing_status: Literal["auto"] | int | tuple[int, ...] = "auto"
    follow_links: bool = True

    def __post_init__(self) -> None:
        _check_flag("anonymous", self.anonymous, optional=True)
        _check_flag("follow_links", self.follow_links)
        for name in ("endpoint", "region", "profile"):
            value: object = getattr(self, name)
            if not (value is None or isinstance(value, str)):
                raise TypeError(f"{name} must be a str or None, not {type(value).__name__}")
        statuses = self.missing_status if isinstance(self.missing_status, tuple) else (self.missing_status,)
        for status in statuses:
            if status != "auto":
                _check_count("missing_status", status, minimum=400)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how fast a failed request of a remote store is tried again.

    `max_attempts` counts the first one too; the wait starts at `base_s` and grows to `cap_s`; a reply that stands
    still for `idle_timeout_s` has failed. A request without a whole reply after `hedge_s` is sent once more, one in ten
    at most, and the first reply counts: for stores that answer a few requests far later than most (None: never).
    What is fetched twice comes on top of the engine's `memory_limit_bytes`.
    """

    max_attempts: int = 8
    base_s: float = 0.1
    cap_s: float = 10
    idle_timeout_s: float = 10
    hedge_s: float | None = None

    def __post_init__(self) -> None:
        _check_count("max_attempts", self.max_attempts, minimum=1)
        _check_seconds("base_s", self.base_s)
        _check_seconds("cap_s", self.cap_s)
        _check_seconds("idle_timeout_s", self.idle_timeout_s)
        if self.hedge_s is not None:
            _check_seconds("hedge_s", self.hedge_s)
        if self.cap_s < self.base_s:
            raise ValueError(f"cap_s ({self.cap_s}) must not be less than base_s ({self.base_s})")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The resolved knobs of an `Engine`; see there."""

    memory_limit_bytes: int
    max_requests: int
    index_cache_bytes: int
    chunk_cache_bytes: int
    decode_threads: int
    retry: RetryPolicy

    def __post_init__(self) -> None:
        _check_count("memory_limit_bytes", self.memory_limit_bytes, minimum=1 << 20)
        _check_count("max_requests", self.max_requests, minimum=1)
        _check_count("index_cache_bytes", self.index_cache_bytes, minimum=0)
        _check_count("chunk_cache_bytes", self.chunk_cache_bytes, minimum=0)
        _check_count("decode_threads", self.decode_threads, minimum=1)
        if self.index_cache_bytes + self.chunk_cache_bytes > self.memory_limit_bytes:
            raise ValueError("index_cache_bytes + chunk_cache_bytes must fit into memory_limit_bytes")


@dataclass(frozen=True, slots=True)
class ReadReport:
    """What a read needs, without reading its data. `str()` prints a table.

    `bytes_needed` are the encoded bytes of the chunks, `bytes_fetched` what the merged requests fetch (gaps between
    chunks included), `bytes_from_cache` what no request is needed for: indexes, and chunks in the engine's chunk cache;
    `round_trips` counts requests that wait for one another. When `exact` is False some index was not known and the
    numbers are an upper bound, or the read needs more than half of the chunk cache, which may then lose some of these
    chunks before the read gets to them. `in_python` names the codecs that Python decodes, one chunk at a time.
    """

    shards: int
    shards_missing: int
    chunks: int
    chunks_missing: int
    requests: int
    bytes_needed: int
    bytes_fetched: int
    bytes_from_cache: int
    round_trips: int
    exact: bool
    in_python: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows = [
            ("shards", _amount(self.shards, self.shards_missing)),
            ("chunks", _amount(self.chunks, self.chunks_missing)),
            ("requests", f"{self.requests:,} in {self.round_trips} round trip{'' if self.round_trips == 1 else 's'}"),
            ("bytes needed", _nbytes(self.bytes_needed)),
            ("bytes fetched", _nbytes(self.bytes_fetched)),
            ("bytes from cache", _nbytes(self.bytes_from_cache)),
            ("exact", "yes" if self.exact else "no: some indexes or cached chunks are not certain yet"),
        ]
        if self.in_python:
            rows.append(("decoded through Python", ", ".join(self.in_python)))
        return _table(rows)


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Outcome of reading and decoding everything that is stored. `str()` prints a table and the first problems.

    `problems` holds at most 1,000 exceptions; `problem_count` counts all.
    """

    objects: int
    objects_missing: int
    chunks: int
    chunks_missing: int
    bytes: int
    problem_count: int
    problems: tuple[VoxfetchError, ...]

    @property
    def ok(self) -> bool:
        """True when nothing is wrong."""
        return self.problem_count == 0

    def __str__(self) -> str:
        rows = [
            ("objects", _amount(self.objects, self.objects_missing)),
            ("chunks", _amount(self.chunks, self.chunks_missing)),
            ("bytes read", _nbytes(self.bytes)),
            ("problems", f"{self.problem_count:,}"),
        ]
        shown = self.problems[:_PROBLEMS_SHOWN]
        lines = [_table(rows), *(f"- {problem.kind}: {problem}" for problem in shown)]
        if self.problem_count > len(shown):
            lines.append(f"- and {self.problem_count - len(shown):,} more")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters of an engine since its start in this process; bytes where the name says so. `str()` prints a table.

    `chunk_cache_hits` counts the chunks that were in the engine's chunk cache, `chunk_cache_misses` those that were
    decoded because they were not, `chunk_cache_bytes` what it holds now.
    """

    reads: int
    requests: int
    bytes_read: int
    chunks_decoded: int
    bytes_decoded: int
    chunks_missing: int
    index_hits: int
    index_misses: int
    index_cache_bytes: int
    open_files: int
    threads: int
    retries: int
    hedges: int
    chunk_cache_hits: int
    chunk_cache_misses: int
    chunk_cache_bytes: int

    def __str__(self) -> str:
        return _table([(name.replace("_", " "), f"{getattr(self, name):,}") for name in self.__slots__])


_PROBLEMS_SHOWN = 10


def _amount(count: int, missing: int) -> str:
    return f"{count:,}" + (f" ({missing:,} not stored)" if missing else "")


def _nbytes(nbytes: int) -> str:
    if nbytes < 1 << 10:
        return f"{nbytes:,}"
    power = min((nbytes.bit_length() - 1) // 10, 5)
    return f"{nbytes:,} ({nbytes / (1 << 10 * power):.1f} {' KMGTP'[power]}iB)"


def _table(rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
