"""What the machine gives this process: processors, memory, open files; by the system and by its cgroup."""

from __future__ import annotations

import os
import resource

__all__ = ["available_memory_bytes", "max_open_files", "memory_bytes", "processors"]

_MAX_OPEN_FILES = 512
_UNKNOWN_MEMORY_BYTES = 1 << 30
"""Taken where the system does not say."""


def processors() -> int:
    """Returns how many processors this process may use, at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", "rb") as file:  # noqa: PTH123 - as below
            quota, period = map(int, file.read().split())
        count = min(count, -(-quota // period))
    except (OSError, ValueError, ZeroDivisionError):
        pass  # no quota, or no cgroup
    return max(count, 1)


def max_open_files() -> int:
    """Returns how many files an engine may keep open: a part of what this process may."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else max(min(_MAX_OPEN_FILES, soft // 4), 8)


def available_memory_bytes() -> int | None:
    """Returns how many bytes this process can still take, by the system and by its cgroup; None if neither says."""
    limits: list[int] = []
    try:
        with open("/proc/meminfo", "rb") as file:  # noqa: PTH123 - pathlib is not worth its import
            limits.extend(int(line.split()[1]) << 10 for line in file if line.startswith(b"MemAvailable:"))
    except (OSError, ValueError, IndexError):
        pass
    for limit_name, used_name in _CGROUP_FILES:
        limit, used = _number_in(limit_name), _number_in(used_name)
        if limit is not None and used is not None:
            limits.append(max(limit - used, 0))
    return min(limits, default=None)


_CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def memory_bytes() -> int:
    """Returns the memory of the machine, or of the cgroup where that is less."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        total = _UNKNOWN_MEMORY_BYTES
    limits = [limit for name, _ in _CGROUP_FILES if (limit := _number_in(name)) is not None]
    return min(total, *limits) if limits else total


def _number_in(name: str) -> int | None:
    # Bytes, here and above: a text file imports its codec, whose import lock a fork in another thread would keep held.
    try:
        with open(name, "rb") as file:  # noqa: PTH123 - as above
            return int(file.read())
    except (OSError, ValueError):
        return None
