"""The time of ``import voxfetch`` over that of ``import numpy``, and the size of what is installed."""

from __future__ import annotations

import sys
import time
import zlib
from pathlib import Path

import voxfetch
from bench.limits.figures import Figure, count
from bench.start import IMPORTS, ran

MS = 1e3
MOST_MS = 20
MIB = 2**20


def start(repeat: int, *, few: bool) -> list[Figure]:
    """Processes in turns, as those of ``bench.start``."""
    # voxfetch imports numpy when an array is opened.
    programs = {
        **IMPORTS,
        "voxfetch": "import voxfetch",
        "both": "import numpy, voxfetch",
        "all": "from voxfetch import *",
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for number in range((3 if few else 5) * repeat + 1):
        for name, text in programs.items():
            began = time.perf_counter()
            ran(sys.executable, text)
            if number:  # the first one fills caches
                seconds[name].append(time.perf_counter() - began)
    limits = {"voxfetch": MOST_MS, "both": MOST_MS, "all": None}
    figures = []
    for name, most in limits.items():
        more = [(own - numpy) * MS for own, numpy in zip(seconds[name], seconds["numpy"], strict=True)]
        figures.append(Figure(f"`{programs[name]}` less `import numpy`", "ms", more, most))
    figures += [
        Figure(f"process: `{programs[name]}`", "ms", [s * MS for s in taken]) for name, taken in seconds.items()
    ]
    folder = Path(voxfetch.__file__).parent
    files = [path for path in folder.rglob("*") if path.suffix in (".py", ".pyi", ".so", ".typed")]
    sizes = {path.name: path.stat().st_size for path in files if path.suffix == ".so"}
    packed = sum(len(zlib.compress(path.read_bytes(), 9)) for path in files)
    figures.append(count("what a wheel holds, compressed as wheels are", packed / MIB, unit="MiB", more=sizes))
    return figures
