"""What numbers depend on: the machine, its load, the commit."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.volumes import ROOT


class Circumstances:
    """When, where and of which commit; made before the first measurement."""

    def __init__(self) -> None:
        self._load_before, self._commit, self._started = os.getloadavg(), commit(), time.monotonic()

    def as_json(self, command: list[str], settings: Any) -> dict[str, Any]:
        """The first fields of a document, after the last measurement. ``settings`` is a dataclass of plain values."""
        return {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command,
            "commit": self._commit,
            "machine": machine(),
            "load_average": {"before": self._load_before, "after": os.getloadavg()},
            "duration_s": time.monotonic() - self._started,
            "settings": vars(settings),
        }


def commit() -> str:
    """The commit measured, with "+" when the working tree differs from it."""
    try:
        git = ["git", "-C", str(ROOT)]
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "transparent_hugepages": pages.read_text().strip() if pages.exists() else None,
    }
