"""The JSON of a run as Markdown: one table a volume, then how voxfetch stands, then memory."""

from __future__ import annotations

from statistics import median
from typing import Any

from bench.document import best_peer, engines, head, one_line, table
from bench.engines import FLOORS, own

MS = 1e3
MIB = 2**20
PERCENT_99 = 0.99
NEVER_BELOW_MS = 10  # below that, two decimals


def markdown(document: dict[str, Any]) -> str:
    """The whole report."""
    lines = [*_head(document), *_standing(document)]
    for name, volume in document["volumes"].items():
        lines += ["", f"## {name}", ""]
        if "skipped" in volume:
            lines += [f"Skipped: {volume['skipped']}."]
            continue
        megabytes = volume["nbytes"] / 1e6
        what = f"{volume['what']}; {volume['dtype']} {tuple(volume['shape'])} ({volume['axes']})"
        stored = f"{megabytes:.0f} MB, {volume['ratio']:.2f}x on disk, written by {volume['writer']}"
        lines += [f"{what}, {stored}.", "", *_times(document, name), *_cpu(document, name)]
    return "\n".join([*lines, *_memory(document), *_problems(document)]) + "\n"


def _head(document: dict[str, Any]) -> list[str]:
    machine, load = document["machine"], document["load_average"]
    return [
        *head(document, "Benchmark"),
        f"Python {machine['python']}, transparent huge pages {machine['transparent_hugepages']}.",
        f"Load average {load['before'][0]:.1f} before, {load['after'][0]:.1f} after. Page cache warm.",
        f"Medians of {document['settings']['repeat']} alternating runs.",
        "Every voxel of the first pass was compared with the source.",
        "",
        *engines(document),
    ]


def _flat(samples: dict[str, Any]) -> list[float]:
    return [seconds for run in samples["seconds"] for seconds in run]


def medians(document: dict[str, Any], volume: str, workload: str) -> dict[str, float]:
    """Engine -> median seconds, for the engines that answered."""
    return {
        r["engine"]: median(_flat(r))
        for r in document["results"]
        if r["volume"] == volume and r["workload"] == workload and r["seconds"] and not r["problem"]
    }


def best_floor(times: dict[str, float]) -> str | None:
    """The faster floor."""
    return min((engine for engine in FLOORS if engine in times), key=times.__getitem__, default=None)


def milliseconds(seconds: float) -> str:
    """With as many decimals as matter."""
    value = seconds * MS
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < NEVER_BELOW_MS else f"{value:.1f}"


def _times(document: dict[str, Any], volume: str) -> list[str]:
    """Rows of engines, columns of workloads: median ms (x best peer / x floor)."""
    workloads = list(document["workloads"])
    rows = []
    columns = {w: medians(document, volume, w) for w in workloads}
    by_key = {(r["engine"], r["workload"]): r for r in document["results"] if r["volume"] == volume}
    for engine in document["engines"]:
        if all(engine not in times for times in columns.values()):
            continue
        cells = []
        for workload, times in columns.items():
            if engine not in times:
                cells.append("")
                continue
            peer, floor = best_peer(times, FLOORS), best_floor(times)
            ratios = [f"{times[engine] / times[e]:.2f}" if e else "-" for e in (peer, floor)]
            text = f"{milliseconds(times[engine])} ({ratios[0]} / {ratios[1]})"
            samples = by_key[engine, workload]
            if len(samples["seconds"][0]) > 1:
                text = text.replace(" (", f", p99 {milliseconds(_p99(_flat(samples)))} (", 1)
            if samples["cut_short"]:
                text += f" n={len(samples['seconds'])}"
            cells.append(f"**{text}**" if engine == peer else text)
        rows.append([engine, *cells])
    rows.append(["MiB read", *(_mebibytes(_output_bytes(document, volume, w)) for w in workloads)])
    return ["Median ms (x best peer / x floor):", "", *table(["engine", *workloads], rows)]


def _output_bytes(document: dict[str, Any], volume: str, workload: str) -> int:
    """Bytes of the answer of one sample; 0 where nobody answered, and in documents that do not tell."""
    known = (r for r in document["results"] if (r["volume"], r["workload"]) == (volume, workload))
    return max((r.get("output_bytes", 0) for r in known), default=0)


def _mebibytes(size: int) -> str:
    return "" if size == 0 else f"{size / MIB:.3g}" if size < 1000 * MIB else f"{size / MIB:.0f}"


def _cpu(document: dict[str, Any], volume: str) -> list[str]:
    """Rows of engines, columns of workloads: median CPU ms of a sample, all threads together."""
    workloads = list(document["workloads"])
    medians_s: dict[str, dict[str, float]] = {}
    for r in document["results"]:
        if r["volume"] == volume and r["cpu_s"] and not r["problem"]:
            medians_s.setdefault(r["engine"], {})[r["workload"]] = median(r["cpu_s"]) / len(r["seconds"][0])
    rows = [
        [engine, *(milliseconds(times[w]) if w in times else "" for w in workloads)]
        for engine, times in medians_s.items()
    ]
    return ["", "Median CPU ms, all threads:", "", *table(["engine", *workloads], rows)]


def _p99(samples: list[float]) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * PERCENT_99))]


def _standing(document: dict[str, Any]) -> list[str]:
    """How voxfetch stands against the best peer of each cell, and the floor."""
    rows = []
    for volume in document["volumes"]:
        cells = []
        for workload in document["workloads"]:
            times = medians(document, volume, workload)
            peer, floor = best_peer(times, FLOORS), best_floor(times)
            mine = own(times)
            if mine is None or peer is None:
                cells.append("")
                continue
            to_floor = f"{times[mine] / times[floor]:.2f}" if floor else "-"
            cells.append(f"{times[mine] / times[peer]:.2f} of {peer} / {to_floor}")
        if any(cells):
            rows.append([volume, *cells])
    if not rows:
        return []
    title = "## voxfetch: time as a multiple of the best peer's / of the floor's (below 1 = faster)"
    return ["", title, "", *table(["volume", *document["workloads"]], rows)]


def _memory(document: dict[str, Any]) -> list[str]:
    """Peak resident memory above what was resident before, as a multiple of the output; the least of a peer is bold."""
    peaks = {
        (r["volume"], r["workload"], r["engine"]): r["peak_over_output"]
        for r in document["results"]
        if r["peak_over_output"] is not None
    }
    if not peaks:
        return []
    loaded = [engine for engine, answer in document["engines"].items() if "problem" not in answer]
    rows = []
    for volume, workload in dict.fromkeys((v, w) for v, w, _ in peaks):
        own = {e: peaks[volume, workload, e] for e in loaded if (volume, workload, e) in peaks}
        peer = best_peer(own, FLOORS)
        cells = [f"{own[e]:.2f}" if e in own else "" for e in loaded]
        cells = [f"**{cell}**" if e == peer else cell for e, cell in zip(loaded, cells, strict=True)]
        rows.append([volume, workload, _mebibytes(_output_bytes(document, volume, workload)), *cells])
    title = "## Peak RSS above baseline of the first read of a process, as a multiple of its output"
    return ["", title, "", *table(["volume", "workload", "output, MiB", *loaded], rows)]


def _problems(document: dict[str, Any]) -> list[str]:
    """What failed; what an engine cannot do by design is an empty cell."""
    failed = [r for r in document["results"] if r["failed"]]
    if not failed:
        return []
    lines = ["", "## Failures", ""]
    return lines + [f"- {r['engine']}, {r['workload']} on {r['volume']}: {one_line(r['problem'])}" for r in failed]
