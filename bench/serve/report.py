"""The JSON of ``bench serve`` as Markdown."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from bench.document import head, one_line, table
from bench.engines import is_own
from bench.serve.servers import LIMIT
from bench.serve.view import DIRECT

if TYPE_CHECKING:
    from collections.abc import Sequence

MS = 1e3
MB = 1e6


def markdown(document: dict[str, Any]) -> str:
    """The report: how voxfetch stands, then a table for each volume and part."""
    load = [f"{document['load_average'][when][0]:.1f} {when}" for when in ("before", "after")]
    settings = document["settings"]
    lines = [
        *head(document, "Servers of chunks"),
        f"Python {document['machine']['python']}. Load average {', '.join(load)}. Page cache warm.",
        f"Medians of {settings['repeat']} runs in turns. Every body was compared with the voxels it should hold.",
        *_throughput(document["throughput"], settings),
        *_views(document["view"], settings),
        *_browser(document.get("browser", [])),
        *_problems([*document["throughput"], *document["view"]]),
    ]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------------------------------------- throughput


def _throughput(results: Sequence[dict[str, Any]], settings: dict[str, Any]) -> list[str]:
    if not results:
        return []
    most = max(settings["connections"])
    lines = [
        "",
        "## Throughput of one core",
        "",
        "One worker on a core of its own; wrk, one thread, on another. Random order. CPU time is that of all processes",
        f"of the server, a request, with {most} connections, as are x {LIMIT}, x best peer (above 1 = faster; best in",
        f"bold; neither voxfetch nor {LIMIT}) and the last four columns. MB are those of voxels; sent are those of",
        "bodies.",
    ]
    for volume in dict.fromkeys(r["volume"] for r in results):
        found = [r for r in results if r["volume"] == volume and r["runs"]]
        rates = {r["engine"]: _median(r, most, lambda run: run["requests"] / run["seconds"]) for r in found}
        peers = {engine: rate for engine, rate in rates.items() if not is_own(engine) and engine != LIMIT}
        best = max(peers, key=peers.__getitem__, default=None)
        rows = [_row(r, settings["connections"], rates, best) for r in found]
        columns = [
            "server", *(f"chunks/s, {count}" for count in settings["connections"]), f"x {LIMIT}", "x best peer",
            "CPU ms", "MB/s", "sent MB/s", "p50 ms", "p99 ms",
        ]  # fmt: skip
        chunk_bytes = next((r["chunk_bytes"] for r in found), 0)
        lines += ["", f"### {volume}: chunks of {chunk_bytes / 1024:.0f} KiB", "", *table(columns, rows)]
    described = {r["engine"]: r for r in results if r["configuration"]}
    rows = [
        [engine, ", ".join(f"{name} {number}" for name, number in r["versions"].items()), r["configuration"]]
        for engine, r in described.items()
    ]
    return [*lines, "", *table(["server", "versions", "configuration"], rows)]


def _row(result: dict[str, Any], counts: Sequence[int], rates: dict[str, float], best: str | None) -> list[str]:
    engine, most = result["engine"], max(counts)
    rate = rates[engine]
    ratios = [f"{rate / rates[other]:.2f}" if other in rates else "-" for other in (LIMIT, best)]
    return [
        f"**{engine}**" if engine == best else engine,
        *(f"{_median(result, count, lambda run: run['requests'] / run['seconds']):,.0f}" for count in counts),
        *ratios,
        f"{_median(result, most, lambda run: run['cpu_s'] / run['requests']) * MS:.3f}",
        f"{rate * result['chunk_bytes'] / MB:,.0f}",
        f"{rate * result['body_bytes'] / MB:,.0f}",
        f"{_median(result, most, lambda run: run['p50_s']) * MS:.2f}",
        f"{_median(result, most, lambda run: run['p99_s']) * MS:.2f}",
    ]


def _median(result: dict[str, Any], connections: int, value: Any) -> float:
    """Of the runs with so many connections."""
    return median(value(run) for run in result["runs"] if run["connections"] == connections)


# ---------------------------------------------------------------------------------------------------------------- view


def _views(results: Sequence[dict[str, Any]], settings: dict[str, Any]) -> list[str]:
    if not results:
        return []
    pixels = settings["pixels"]
    lines = [
        "",
        "## Cold view of a distant image",
        "",
        f"Three planes of {pixels} x {pixels} pixels through one point, a voxel a pixel, and the coarser levels that",
        "Neuroglancer shows first: until all chunks are there, over six connections. direct: from the shards;",
        "voxfetch: through its server, started anew each time. Replies of the store begin so many ms after their",
        f"request. Viewer, server and store share all cores. Size {settings['view_size']}.",
        "",
    ]
    rows: list[list[str]] = []
    for r in results:
        if not r["runs"]:
            continue
        middle = {name: median(run[name] for run in r["runs"]) for name in r["runs"][0]}
        direct = [
            o for o in results if (o["volume"], o["latency_ms"], o["engine"]) == (r["volume"], r["latency_ms"], DIRECT)
        ]
        ratio = "-"
        if r["engine"] != DIRECT and direct and direct[0]["runs"]:
            ratio = f"**{median(run['seconds'] for run in direct[0]['runs']) / middle['seconds']:.2f}**"
        rows.append(
            [
                r["volume"], f"{r['latency_ms']:g}", r["engine"], f"{r['chunks']:,}", f"{middle['first_s']:.2f}",
                f"{middle['half_s']:.2f}", f"{middle['seconds']:.2f}", ratio,
                f"{middle['get'] + middle['head']:,.0f}", f"{middle['bytes'] / MB:.1f}",
                f"{middle['max_in_flight']:.0f}", f"{middle['cpu_s']:.2f}",
            ]
        )  # fmt: skip
    columns = [
        "image", "store, ms", "way", "chunks", "first, s", "half, s", "all, s", "times as fast", "requests to store",
        "MB of store", "in flight", "CPU s of server",
    ]  # fmt: skip
    return [*lines, *table(columns, rows)]


def _browser(results: Sequence[dict[str, Any]]) -> list[str]:
    if not results:
        return []
    rows = [
        [
            r["volume"], f"{r['latency_ms']:g}", r["engine"], " ".join(map(str, r["panels"])), f"{r['model']:,}",
            f"{r['asked']:,}", f"{r['missing']}", f"{r['more']}", f"{r['ready_s']:.1f}",
        ]
        for r in results
    ]  # fmt: skip
    columns = [
        "image", "store, ms", "way", "panels", "chunks of the model", "asked for", "of the model, not asked for",
        "asked for beside it", "ready, s",
    ]  # fmt: skip
    return [
        "",
        "## The same in Chromium",
        "",
        "Neuroglancer itself, headless, drawn by software, until `viewer.isReady()`: how far it asks for what the",
        "model says. Its time has that of loading and drawing in it.",
        "",
        *table(columns, rows),
    ]


def _problems(results: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        f"- {r['engine']}, {r['volume']}: {'' if r['failed'] else 'skipped: '}{one_line(r['problem'])}"
        for r in results
        if r["problem"]
    ]
    return ["", "## Not measured", "", *lines] if lines else []
