"""The JSON of a run as Markdown: how voxfetch stands, then one table a workload."""

from __future__ import annotations

from statistics import median
from typing import Any

from bench.document import best_peer, engines, head, one_line, table
from bench.engines import own
from bench.remote.engines import FLOORS

MS = 1e3
MB = 1e6
MIB = 2**20
DECIMALS_BELOW_MS = 100


def markdown(document: dict[str, Any]) -> str:
    """The whole report."""
    lines = [*_head(document), *_standing(document)]
    for name in document["workloads"]:
        lines += ["", *_table(document, name)]
    return "\n".join([*lines, *_problems(document)]) + "\n"


def _head(document: dict[str, Any]) -> list[str]:
    load = [f"{document['load_average'][when][0]:.1f} {when}" for when in ("before", "after")]
    return [
        *head(document, "Remote reads through S3" if document["settings"].get("where") == "s3" else "Remote reads"),
        f"Python {document['machine']['python']}. Load average {', '.join(load)}.",
        "Server and reader share the machine; the server's files are in the page cache.",
        f"Medians of {document['settings']['repeat']} alternating runs. Every answer was compared with the source.",
        "",
        *engines(document, lacks="what it lacks, what it does instead"),
    ]


def _samples(document: dict[str, Any], workload: str) -> dict[str, list[dict[str, Any]]]:
    """Engine -> all samples of all its runs, for the engines that answered."""
    return {
        r["engine"]: [sample for run in r["runs"] for sample in run]
        for r in document["results"]
        if r["workload"] == workload and r["runs"] and not r["problem"]
    }


def medians(document: dict[str, Any], workload: str) -> dict[str, float]:
    """Engine -> median seconds of a sample; of "sustained", seconds a decoded GiB."""
    return {
        engine: median(s["seconds"] * (2**30 / s["decoded_bytes"] if "decoded_bytes" in s else 1) for s in samples)
        for engine, samples in _samples(document, workload).items()
    }


def _standing(document: dict[str, Any]) -> list[str]:
    """How voxfetch stands against the best peer and the floor."""
    rows = []
    for workload in document["workloads"]:
        times = medians(document, workload)
        peer = best_peer(times, FLOORS)
        mine = own(times)
        if mine is None or peer is None:
            continue
        floors = [f"{times[mine] / times[f]:.2f}" if f in times else "-" for f in FLOORS]
        rows.append([workload, f"{times[mine] / times[peer]:.2f}", peer, *floors])
    if not rows:
        return []
    title = "## voxfetch: time as a multiple of the best peer's and of the floor's (below 1 = faster)"
    return ["", title, "", *table(["workload", "of best peer", "peer", *FLOORS], rows)]


def _table(document: dict[str, Any], workload: str) -> list[str]:
    """Rows of engines; all numbers are medians of samples, but the peak of memory, which is the largest."""
    described = document["workloads"][workload]
    bandwidth = described["bandwidth_mb_s"]
    limits = f"{described['latency_ms']:g} ms" + (f", {bandwidth:g} MB/s a connection" if bandwidth else "")
    times, samples = medians(document, workload), _samples(document, workload)
    peer = best_peer(times, FLOORS)
    sustained = any("decoded_bytes" in s for run in samples.values() for s in run)
    columns = ["engine", "ms a GiB" if sustained else "median ms", "x best", "requests", "HEAD", "MB", "in flight"]
    columns += ["new connections", "CPU ms", *(["peak MiB"] if described["memory"] else []), "n"]
    rows = []
    for engine, seconds in times.items():
        own = samples[engine]
        cells = [f"**{engine}**" if engine == peer else engine, _milliseconds(seconds)]
        cells.append(f"{seconds / times[peer]:.2f}" if peer else "-")
        cells += [f"{median(s['get'] + s['head'] for s in own):g}", f"{median(s['head'] for s in own):g}"]
        cells.append(f"{median(s['bytes'] for s in own) / MB:.4g}")
        cells += [f"{median(s[name] for s in own):g}" for name in ("max_in_flight", "new_connections")]
        cells.append(_milliseconds(median(s["cpu_s"] for s in own)))
        if described["memory"]:
            cells.append(f"{max(s['peak_bytes'] for s in own) / MIB:.0f}")
        rows.append([*cells, str(len(own))])
    lines = [
        f"## {workload}: {described['what']}",
        "",
        f"{described['volume']}, {limits}" + (f", {described['count']} a run." if described["count"] > 1 else "."),
        "",
        *table(columns, rows),
    ]
    if sustained:
        lines += ["", "Decoded GiB a sample: " + ", ".join(
            f"{engine} {median(s['decoded_bytes'] for s in own) / 2**30:.3g}" for engine, own in samples.items()
        ) + ". Requests, MB and CPU are those of the whole sample."]  # fmt: skip
    return lines


def _milliseconds(seconds: float) -> str:
    ms = seconds * MS
    return f"{ms:.1f}" if ms < DECIMALS_BELOW_MS else f"{ms:.0f}"


def _problems(document: dict[str, Any]) -> list[str]:
    """What failed; what an engine cannot do by design has no row."""
    failed = [r for r in document["results"] if r["failed"]]
    cut = [f"{r['engine']} in {r['workload']}" for r in document["results"] if r["cut_short"]]
    lines = ["", f"Out of time before all runs were done: {', '.join(cut)}."] if cut else []
    if failed:
        lines += ["", "## Failures", ""]
        lines += [f"- {r['engine']}, {r['workload']}: {one_line(r['problem'])}" for r in failed]
    return lines
