"""The main job on real data: open a volume, cut boxes out of it, say what was read, leave a slice to look at.

usage: python tools/demo.py VOLUME_FOLDER OUTPUT_FOLDER

VOLUME_FOLDER holds `fib25.ome.zarr` and `oracle.json`, which has the SHA-256 of boxes (C order, little endian) as
foreign readers see them. Ends with exit code 1 if anything read here differs.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.servers.faulty import FaultyServer

import voxfetch as vf
from voxfetch.cli import main as command


def main(volume: Path, output: Path) -> int:
    """Runs the demo; returns the exit code."""
    source = volume / "fib25.ome.zarr"
    oracle = json.loads((volume / "oracle.json").read_text())
    wrong = 0

    heading("What is there: voxfetch info")
    command(["info", str(source)])

    image = vf.open_image(source)
    heading("Boxes, each compared with what zarr-python and tensorstore read")
    for i, level in enumerate(image.levels):
        wrong += check(f"level {i}", level, oracle["image"][i])
    for name, label in image.labels.items():
        wrong += check(f"labels/{name}", label.level(0), oracle[f"labels/{name}"][0])

    finest = image.level(0)
    box = finest[10:20, 0:64, 0:64]
    heading(f"image.level(0)[10:20, 0:64, 0:64].mean() = {box.mean()}")
    print("image.level(0).explain(np.s_[10:20, 0:64, 0:64])")
    print(indented(str(finest.explain(np.s_[10:20, 0:64, 0:64]))))

    heading("What the engine did in all")
    print(indented(str(finest.engine.stats())))

    heading("The same over HTTP, from a server of its own")
    wrong += over_http(source, finest)

    output.mkdir(parents=True, exist_ok=True)
    heading("A slice as PNG: voxfetch read")
    arguments = ["read", str(source), "--region", "z=125", "-o", str(output / "fib25_z125.png")]
    print("  voxfetch", " ".join(arguments))
    wrong += command(arguments) != 0

    print()
    print("all equal to the oracle" if not wrong else f"{wrong} results DIFFER from the oracle")
    return 1 if wrong else 0


def over_http(source: Path, finest: vf.Array) -> int:
    """Serves the volume, reads the finest level by its URL, prints what that takes; returns how many reads differ."""
    wrong = 0
    with FaultyServer(source) as server, vf.Engine() as engine:
        remote = vf.open_image(server.url, engine=engine).level(0)
        print(f"  vf.open_image({server.url!r}): {len(server.requests)} requests in 2 round trips")
        for selection in ("[10:20, 0:64, 0:64]", "[100:164, 100:164, 100:164]", "[125]", "[...]"):
            index = eval(f"np.s_{selection}")  # noqa: S307 - one of the four above
            before, started = engine.stats(), time.perf_counter()
            # Fetches the indexes, which the read then has: both together are what a read alone takes.
            report = remote.explain(index)
            data = remote[index]
            seconds = time.perf_counter() - started
            after = engine.stats()
            equal = np.array_equal(data, finest[index])
            wrong += not equal
            requests = counted(after.requests - before.requests, "request")
            print(
                f"  {selection:<28} {requests:<11} {after.bytes_read - before.bytes_read:>11,} bytes fetched "
                f"{report.bytes_needed:>11,} needed {counted(report.round_trips, 'round trip'):<13} "
                f"{data.nbytes / max(seconds, 1e-9) / 1e6:>5,.0f} MB/s  {'equal' if equal else 'DIFFERS'}"
            )
        heads = server.count(method="HEAD")
        print(f"  the server saw {len(server.requests)} requests, {heads} of them HEAD")
    return wrong


def check(name: str, array: vf.Array, expected: dict[str, Any]) -> int:
    """Reads the whole array and the oracle's boxes, prints a line for each; returns how many differ."""
    whole = {"start": [0] * array.ndim, "shape": expected["shape"], "sha256": expected["sha256"]}
    wrong = 0
    for wanted in (whole, *expected["boxes"]):
        start, shape = wanted["start"], wanted["shape"]
        selection = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
        report = array.explain(selection)
        started = time.perf_counter()
        data = array.read_box(start, shape)
        seconds = time.perf_counter() - started
        digest = hashlib.sha256(data.astype(data.dtype.newbyteorder("<"), copy=False).tobytes()).hexdigest()
        equal = digest == wanted["sha256"]
        wrong += not equal
        print(
            f"  {name:<18} {'x'.join(map(str, shape)):>11} at {','.join(map(str, start)):<11} "
            f"{report.shards:>2} shards {report.chunks:>4} chunks {report.bytes_fetched:>11,} bytes fetched "
            f"{data.nbytes / max(seconds, 1e-9) / 1e6:>7,.0f} MB/s  {'equal' if equal else 'DIFFERS'}"
        )
    return wrong


def heading(text: str) -> None:
    """An empty line and a title."""
    print(f"\n{text}")


def counted(number: int, what: str) -> str:
    """`counted(2, "request")` is "2 requests"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def indented(text: str) -> str:
    """Every line two columns to the right."""
    return "\n".join(f"  {line}" for line in text.splitlines())


if __name__ == "__main__":
    # Remarks of the command line go to stderr: keep the two in order.
    sys.stdout.reconfigure(line_buffering=True)
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
