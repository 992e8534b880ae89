"""The command ``python -m bench start``: from the start of an interpreter to the first voxels, and the time of imports.

Each sample is one process that runs a few lines of Python, without an adapter: what a user of the library would write.
Its wall time less that of a process that does nothing is what the library costs. Processes take turns.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.arguments import add_names
from bench.circumstances import Circumstances
from bench.document import best_peer, engines, head, publish, table
from bench.engines import OWN
from bench.runner import EngineFailedError, EngineUnsupportedError, Process, interpreter, say
from bench.volumes import SIZES, Size, Volume, build
from bench.workloads import WORKLOADS, Box, plan

if TYPE_CHECKING:
    import argparse

MS = 1e3
SEED = "voxfetch"
#: engine -> statements: its imports, then how it reads the voxels ``out``, knowing path, start, shape and box.
READERS = {
    OWN: ("import voxfetch as vf", "out = vf.open_array(path).read_box(start, shape)"),
    "tensorstore": (
        "import tensorstore as ts",
        "spec = {'driver': 'zarr3', 'kvstore': {'driver': 'file', 'path': path + '/'}}",
        "out = ts.open(spec, open=True, read=True).result()[box].read().result()",
    ),
    "zarr": ("import zarr", "out = zarr.open_array(path, mode='r')[box]"),
    "zarrs": (
        "import zarr, zarrs",
        "zarr.config.set({'codec_pipeline.path': 'zarrs.ZarrsCodecPipeline', 'codec_pipeline.strict': True})",
        "out = zarr.open_array(path, mode='r')[box]",
    ),
    "zarrista": (
        "import zarrista; from zarrista.store import FilesystemStore",
        "import numpy as np",
        "array = zarrista.Array.open(FilesystemStore(path))",
        "out = np.asarray(array.retrieve_subchunk([a // n for a, n in zip(start, shape)]))",
    ),
}
#: Beside the imports of the engines.
IMPORTS = {"python": "pass", "numpy": "import numpy"}
SHOW = "import sys\nsys.stdout.buffer.write(out.tobytes())"


@dataclass(frozen=True)
class Settings:
    """What to run."""

    size: Size
    engines: tuple[str, ...]
    repeat: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--size", choices=SIZES, default="medium", help="of the volume em")
    add_names(parser, "--engines", READERS)
    parser.add_argument("--repeat", type=int, default=15, help="processes of each kind")
    parser.add_argument("--name", default="start", help="of the files in bench/results")


def main(options: argparse.Namespace) -> None:
    """Runs, and writes JSON and Markdown."""
    settings = Settings(options.size, options.engines, options.repeat)
    document = run(settings, ["python", "-m", "bench", *sys.argv[1:]])
    publish(document, markdown(document), options.name)


def run(settings: Settings, command: list[str]) -> dict[str, Any]:
    """Everything, as JSON: ``results`` are wall seconds of processes, of imports and of first reads."""
    volume = build("em", settings.size)
    circumstances = Circumstances()
    loaded = {engine: _loaded(engine, volume) for engine in settings.engines}
    ready = [engine for engine in loaded if "problem" not in loaded[engine]]
    programs = {(name, "import"): (sys.executable, text) for name, text in IMPORTS.items()}
    for engine in ready:
        programs[engine, "import"] = interpreter(engine), READERS[engine][0]
        programs[engine, "first"] = interpreter(engine), _program(engine, volume)
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in programs}
    for number in range(settings.repeat + 1):
        for key, (python, text) in programs.items():
            began = time.perf_counter()
            ran(python, text)
            if number:  # the first one fills caches of bytecode and of pages
                seconds[key].append(time.perf_counter() - began)
    return {
        **circumstances.as_json(command, settings),
        "engines": loaded,
        "volume": volume.what,
        "results": [{"engine": name, "what": what, "seconds": s} for (name, what), s in seconds.items()],
    }


def check(names: tuple[str, ...]) -> int:
    """The first voxels of each of these engines, compared: the number of failures."""
    volume = build("em", "small")
    problems = {name: _loaded(name, volume) for name in READERS if name in names}
    failed = [name for name, loaded in problems.items() if loaded.get("failed")]
    say(f"first voxels: {len(problems) - len(failed)} right or skipped")
    return len(failed)


def _loaded(engine: str, volume: Volume) -> dict[str, Any]:
    """Versions of an engine whose first voxels are right, or its problem."""
    try:
        process = Process(engine)
        process.close()
        answer = ran(interpreter(engine), f"{_program(engine, volume)}\n{SHOW}")
        problem, failed = "first voxels differ", answer != volume.truth(_box(volume)).tobytes()
    except (EngineUnsupportedError, EngineFailedError) as reason:
        problem, failed = str(reason), isinstance(reason, EngineFailedError)
    else:
        if not failed:
            return process.loaded | {"configuration": "; ".join(READERS[engine])}
    say(f"{engine:17} {'FAILED' if failed else 'skipped'}: {problem}")
    return {"problem": problem, "failed": failed}


def _box(volume: Volume) -> Box:
    return plan(WORKLOADS["chunk"], volume.shape, volume.axes, rounds=1, seed=SEED)[0][0]


def _program(engine: str, volume: Volume) -> str:
    box = _box(volume)
    known = f"path, start, shape, box = {str(volume.path)!r}, {box.start}, {box.shape}, {box.slices}"
    imports, *reads = READERS[engine]
    return "\n".join((imports, known, *reads))


def ran(python: str, text: str) -> bytes:
    """What a program wrote to standard output; EngineFailedError when it failed."""
    done = subprocess.run([python, "-c", text], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        raise EngineFailedError(done.stderr.decode(errors="replace").strip()[-300:])
    return done.stdout


def markdown(document: dict[str, Any]) -> str:
    """The report: one table."""
    times = {(r["engine"], r["what"]): median(r["seconds"]) for r in document["results"]}
    nothing = times.pop(("python", "import"))
    imports = {engine: (seconds - nothing) * MS for (engine, what), seconds in times.items() if what == "import"}
    first = {engine: (seconds - nothing) * MS for (engine, what), seconds in times.items() if what == "first"}
    peer = best_peer(first, ())
    rows: list[list[str]] = []
    for engine, own in imports.items():
        cells = [f"{own:.1f} ({own / imports['numpy']:.2f})", ""]
        if engine in first:
            to_peer = f"{first[engine] / first[peer]:.2f}" if peer else "-"
            cells[1] = f"{first[engine]:.1f} ({to_peer} / {first[engine] / imports['numpy']:.2f})"
        rows.append([engine, cells[0], f"**{cells[1]}**" if engine == peer else cells[1]])
    load = [f"{document['load_average'][when][0]:.1f} {when}" for when in ("before", "after")]
    lines = [
        *head(document, "A new process"),
        f"Python {document['machine']['python']}. Load average {', '.join(load)}. Page cache warm.",
        f"Medians of {document['settings']['repeat']} processes of each kind, in turns: wall time from start to end,",
        f"less the {nothing * MS:.1f} ms of one that does nothing. First voxels: one 32^3 chunk.",
        f"{document['volume']}.",
        "",
        *engines(document),
        "",
        *table(["engine", "import, ms (x numpy)", "first voxels, ms (x best peer / x import of numpy)"], rows),
    ]
    return "\n".join(lines) + "\n"
