"""The command ``python -m bench formats``: formats beside Zarr, each read by voxfetch and by what reads it today.

Local reads are those of ``bench.runner``, those over HTTP of ``bench.remote``; here is who reads what, and one report.
A volume is written by another library (``bench/volumes.py``), and every answer of the first pass is compared with its
source; over HTTP every answer is.
"""

from __future__ import annotations

import sys
from statistics import median
from typing import TYPE_CHECKING, Any

from bench import report, runner
from bench.arguments import add_names, add_timing
from bench.document import best_peer, engines, head, one_line, publish, table
from bench.engines import OWN
from bench.layouts import VOLUME_GROUPS, VOLUMES
from bench.remote import report as remote_report
from bench.remote import runner as remote_runner
from bench.remote.workloads import FORMAT_READS, ON_FORMATS
from bench.volumes import SIZES
from bench.workloads import WORKLOAD_GROUPS

if TYPE_CHECKING:
    import argparse

    from bench.writers import Format

_TENSORSTORES = ("tensorstore", "tensorstore-best")
_X_FIRST = (OWN, f"{OWN}-f")
#: By its defaults, which keep no chunks, and with as much memory for them as tensorstore-best has.
_REMOTE = (OWN, f"{OWN}-cache")
#: Format -> who reads it from disk, who over HTTP.
READERS: dict[Format, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "wkw": ((*_X_FIRST, "wkw", "webknossos"), (OWN, "webknossos")),
    "n5": ((*_X_FIRST, *_TENSORSTORES, "tensorstore-f", "z5py"), (*_REMOTE, *_TENSORSTORES)),
    "precomputed": (
        (*_X_FIRST, *_TENSORSTORES, "tensorstore-f", "cloudvolume"),
        (*_REMOTE, *_TENSORSTORES, "cloudvolume"),
    ),
    "zip": ((OWN, "tensorstore", "zarr"), (OWN, "tensorstore")),
    "hdf5": ((OWN, "h5py", "zarr-kerchunk"), (OWN, f"{OWN}-tables", "h5py", "remfile", "zarr-kerchunk")),
    "references": ((OWN, "h5py", "zarr-kerchunk"), (OWN, "h5py", "remfile", "zarr-kerchunk")),
    "b2nd": ((OWN, "blosc2", "blosc2-mmap"), (OWN,)),
    "bossdb": ((), (OWN, "intern")),
}
#: Who knows, before the clock of "first" of HDF5 runs, where chunks lie. The others find that out from the file alone.
PREPARED = (f"{OWN}-tables", "zarr-kerchunk")
LOCAL, REMOTE = "local", "http"
#: Some readers wait for ever (bench/README.md).
REPLY_TIMEOUT_S = 60.0
LOCAL_READS = WORKLOAD_GROUPS["formats"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--quick", action="store_true", help="answers and request counts only, tiny volumes; for CI")
    parser.add_argument("--size", choices=SIZES, default="medium", help="of the volumes")
    add_names(parser, "--volumes", VOLUME_GROUPS["formats"])
    add_names(parser, "--where", (LOCAL, REMOTE))
    add_timing(parser, budget_s=20)
    parser.add_argument("--seed", default="voxfetch")
    parser.add_argument("--name", default="formats", help="of the files in bench/results")


def main(options: argparse.Namespace) -> int:
    """The exit code: 1 when --quick found something wrong."""
    if options.quick:
        options.size, options.repeat = "small", 1
    failures, parts = 0, []
    command = ["python", "-m", "bench", *sys.argv[1:]]
    for volume_format, (local, remote) in READERS.items():
        volumes = tuple(name for name in options.volumes if VOLUMES[name][1].format == volume_format)
        here, there = _settings(options, volumes, local), _remote_settings(options, volumes, remote)
        if not volumes:
            continue
        if options.quick:
            failures += runner.check(here) if LOCAL in options.where else 0
            failures += remote_runner.check(there) if REMOTE in options.where else 0
            continue
        if LOCAL in options.where:
            parts.append((LOCAL, runner.run(here, command)))
        if REMOTE in options.where:
            parts.append((REMOTE, remote_runner.run(there, command)))
    if options.quick:
        return 1 if failures else 0
    document = _together(parts)
    publish(document, markdown(document), options.name)
    return 0


def _settings(options: argparse.Namespace, volumes: tuple[str, ...], readers: tuple[str, ...]) -> runner.Settings:
    return runner.Settings(
        options.size, readers, LOCAL_READS, volumes,
        repeat=options.repeat, seed=options.seed, budget_s=options.budget, few=options.size == "small", memory=False,
        reply_timeout_s=REPLY_TIMEOUT_S,
    )  # fmt: skip


def _remote_settings(
    options: argparse.Namespace, volumes: tuple[str, ...], readers: tuple[str, ...]
) -> remote_runner.Settings:
    return remote_runner.Settings(
        options.size, readers, tuple(name for name, workload in ON_FORMATS.items() if workload.volume in volumes),
        repeat=options.repeat, seed=options.seed, budget_s=options.budget, crops=1, sustained_gib=1,
        few=options.size == "small", reply_timeout_s=REPLY_TIMEOUT_S,
    )  # fmt: skip


def _together(parts: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """One document: what belongs to all, and one of local, one of remote results, of all formats."""
    (_, first), (_, last) = parts[0], parts[-1]
    document = {name: first[name] for name in ("created", "command", "commit", "machine", "settings")}
    document["load_average"] = {"before": first["load_average"]["before"], "after": last["load_average"]["after"]}
    for where in (LOCAL, REMOTE):
        results: dict[str, Any] = {"engines": {}, "volumes": {}, "workloads": {}, "results": []}
        for _, part in (p for p in parts if p[0] == where):
            for name in ("engines", "volumes", "workloads"):
                results[name] |= part[name]
            results["results"] += part["results"]
        document[where] = results
    return document


# ------------------------------------------------------------------------------------------------------------ Markdown

_PREPARED = (
    f"In first of HDF5 {' and '.join(PREPARED)} have tables or references that were made beforehand, the others begin "
    "with the file alone: each is compared with its like."
)


def markdown(document: dict[str, Any]) -> str:
    """How voxfetch stands, then one table a volume."""
    load = [f"{document['load_average'][when][0]:.1f} {when}" for when in ("before", "after")]
    volumes = document[LOCAL]["volumes"] or document[REMOTE]["volumes"]
    lines = [
        *head(document, "Formats beside Zarr"),
        f"Python {document['machine']['python']}. Load average {', '.join(load)}. Page cache warm.",
        f"Medians of {document['settings']['repeat']} alternating runs. Answers were compared with the source.",
        "Over HTTP each reply begins 20 ms after its request; server and reader share the machine.",
        *([_PREPARED] if any(VOLUMES[name][1].format == "hdf5" for name in volumes) else []),
        "",
        *_standing(document, volumes),
    ]
    for name, volume in volumes.items():
        lines += ["", f"## {name}: {volume['what']}", "", *_size(document, name), *_times(document, name)]
    for where, more in ((LOCAL, {}), (REMOTE, {"lacks": "what it lacks, what it does instead"})):
        lines += ["", f"## Who reads, {where}", "", *engines(document[where], **more)]
    return "\n".join([*lines, *_problems(document)]) + "\n"


def _columns(document: dict[str, Any], volume: str) -> dict[str, dict[str, float]]:
    """Heading -> engine -> median seconds."""
    found = {read: report.medians(document[LOCAL], volume, read) for read in LOCAL_READS}
    found |= {
        f"{read}, {REMOTE}": remote_report.medians(document[REMOTE], f"{volume}_{read}")
        for read in _remote_reads(document)
    }
    return {heading: times for heading, times in found.items() if times or document[LOCAL]["workloads"]}


def _headings(document: dict[str, Any]) -> list[str]:
    local = list(LOCAL_READS) if document[LOCAL]["workloads"] else []
    return local + [f"{read}, {REMOTE}" for read in _remote_reads(document)]


def _remote_reads(document: dict[str, Any]) -> list[str]:
    """Those that any volume of the document has, as not all have the same."""
    found = {name.rpartition("_")[2] for name in document[REMOTE]["workloads"]}
    return [read for read in FORMAT_READS if read in found]


def _standing(document: dict[str, Any], volumes: dict[str, Any]) -> list[str]:
    rows = []
    for name in volumes:
        columns = _columns(document, name)
        variants = {
            OWN: name,
            f"{OWN}-f": f'{name}, order="F"',
            f"{OWN}-tables": f"{name}, table made beforehand",
            f"{OWN}-cache": f"{name}, cache of 32 MiB",
        }
        for own, what in variants.items():
            cells = []
            for heading in _headings(document):
                times = columns.get(heading, {})
                peer = _best_peer(name, heading, own, times)
                cells.append(f"{times[own] / times[peer]:.2f} of {peer}" if own in times and peer else "")
            if any(cells):
                rows.append([what, *cells])
    title = "## voxfetch: time as a multiple of the best peer's, whichever order its results have (below 1 = faster)"
    return [title, "", *table(["volume", *_headings(document)], rows)]


def _best_peer(volume: str, heading: str, engine: str, times: dict[str, float]) -> str | None:
    """The fastest peer that an engine is compared with."""
    if (VOLUMES[volume][1].format, heading) == ("hdf5", f"first, {REMOTE}"):
        times = {name: time_s for name, time_s in times.items() if (name in PREPARED) == (engine in PREPARED)}
    return best_peer(times, ())


def _size(document: dict[str, Any], name: str) -> list[str]:
    volume = document[LOCAL]["volumes"].get(name)
    if volume is None:
        return []
    stored = f"{volume['nbytes'] / 1e6:.0f} MB, {volume['ratio']:.2f}x on disk, written by {volume['writer']}"
    return [f"{volume['dtype']} {tuple(volume['shape'])} ({volume['axes']}), {stored}.", ""]


def _times(document: dict[str, Any], name: str) -> list[str]:
    """Rows of engines, columns of reads: median ms (x best peer), over HTTP with requests."""
    columns = _columns(document, name)
    requests = _requests(document, name)
    rows = []
    for engine in dict.fromkeys(engine for times in columns.values() for engine in times):
        cells = []
        for heading in _headings(document):
            times = columns.get(heading, {})
            if engine not in times:
                cells.append("")
                continue
            peer = _best_peer(name, heading, engine, times)
            ratio = f" ({times[engine] / times[peer]:.2f})" if peer else ""
            text = f"{report.milliseconds(times[engine])}{ratio}{requests.get((engine, heading), '')}"
            cells.append(f"**{text}**" if engine == peer else text)
        rows.append([engine, *cells])
    return ["Median ms (x best peer), requests:", "", *table(["engine", *_headings(document)], rows)]


def _requests(document: dict[str, Any], name: str) -> dict[tuple[str, str], str]:
    """(engine, heading) -> how many, and how many MB."""
    workloads = {f"{name}_{read}": f"{read}, {REMOTE}" for read in FORMAT_READS}
    found = {}
    for result in document[REMOTE]["results"]:
        samples = [sample for run in result["runs"] for sample in run]
        if result["workload"] in workloads and samples:
            count = median(s["get"] + s["head"] for s in samples)
            megabytes = median(s["bytes"] for s in samples) / 1e6
            found[result["engine"], workloads[result["workload"]]] = f", {count:g} of {megabytes:.3g} MB"
    return found


def _problems(document: dict[str, Any]) -> list[str]:
    """What failed, and who was too slow for all runs."""
    results = [(where, r) for where in (LOCAL, REMOTE) for r in document[where]["results"]]
    lines = []
    for where, r in results:
        what = f"{r['engine']}, {r['workload']}{' on ' + r['volume'] if 'volume' in r else ''}, {where}"
        if r["failed"]:
            lines.append(f"- {what}: {one_line(r['problem'])}")
        elif r["cut_short"]:
            lines.append(f"- {what}: out of time before all runs were done")
    return ["", "## Failures", "", *lines] if lines else []
