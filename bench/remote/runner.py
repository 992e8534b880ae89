"""Runs engines in turns against one range server, or one of BossDB: A B C A B C, one process each; collects samples and
what failed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from bench.circumstances import Circumstances
from bench.engines import OWN
from bench.remote.engines import FLOORS
from bench.remote.selftest import check_server
from bench.remote.server import Server
from bench.remote.volumes import SERVED, RemoteVolume, prepare, stored_files
from bench.remote.workloads import WORKLOADS, Remote, samples_per_run
from bench.runner import REPLY_TIMEOUT_S, EngineFailedError, EngineUnsupportedError, Process, say, turns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.volumes import Size

WORKER = "bench.remote.worker"
BOSS = (sys.executable, "-m", "bench.remote.boss")
READ_BYTES = 1 << 20
PROBLEM_CHARS = 400


@dataclass(frozen=True)
class Settings:
    """What to run. ``budget_s``: an engine slower than that in all runs of one workload skips those left.

    ``reply_timeout_s``: after which an engine has failed. ``where``: how the server is asked.
    """

    size: Size
    engines: tuple[str, ...]
    workloads: tuple[str, ...]
    repeat: int
    seed: str
    budget_s: float
    crops: int
    sustained_gib: float
    few: bool = False
    reply_timeout_s: float = REPLY_TIMEOUT_S
    where: Literal["http", "s3"] = "http"

    @property
    def bucket(self) -> str | None:
        """Of S3: the folder of the size, in which all volumes are."""
        return self.size if self.where == "s3" else None

    def count(self, workload: Remote) -> int:
        """Boxes of one run."""
        if workload.name == "crops" and not self.few:
            return self.crops
        return samples_per_run(workload, few=self.few)

    def volumes(self) -> dict[str, RemoteVolume | Path]:
        """Built where they are missing, by name."""
        return prepare(
            self.workloads, self.size, repeat=self.repeat, crops=self.count(WORKLOADS["crops"]),
            sustained_bytes=int(self.sustained_gib * 2**30), few=self.few,
        )  # fmt: skip


@dataclass
class Samples:
    """What one engine did in one workload: a list of samples for each run, as ``bench.remote.worker`` makes them."""

    engine: str
    workload: str
    runs: list[list[dict[str, Any]]] = field(default_factory=list)
    problem: str | None = None
    failed: bool = False
    cut_short: bool = False

    def note(self, reason: Exception) -> None:
        """Why there is nothing more to come."""
        first_line = str(reason).split("\n", 1)[0]  # obstore tells its life
        self.problem, self.failed = first_line[:PROBLEM_CHARS], isinstance(reason, EngineFailedError)
        say(f"  {self.engine:17}{self.workload}: {'FAILED' if self.failed else 'skipped'}: {self.problem}")


class _Workers:
    """The processes, started when they are first needed, and again when they died."""

    def __init__(self, settings: Settings, server: Server, volumes: dict[str, RemoteVolume | Path]) -> None:
        self._settings = settings
        self._server = server
        self._volumes = {
            name: v.as_json() if isinstance(v, RemoteVolume) else v.relative_to(SERVED).as_posix()
            for name, v in volumes.items()
        }
        self._processes: dict[str, Process] = {}
        self._absent: dict[str, EngineUnsupportedError] = {}
        self.loaded: dict[str, dict[str, Any]] = {}

    def run(self, engine: str, workload: Remote, run: int, *, delayed: bool) -> list[dict[str, Any]]:
        """The samples of one run. Raises EngineFailedError and EngineUnsupportedError."""
        reply = self._process(engine).call(
            "run", workload=workload.name, volume=self._volumes[workload.volume], run=run, seed=self._settings.seed,
            count=self._settings.count(workload), limit_s=self._settings.budget_s, delayed=delayed,
        )  # fmt: skip
        samples: list[dict[str, Any]] = reply["samples"]
        return samples

    def end(self, engine: str) -> None:
        """Ends the process of one engine."""
        process = self._processes.pop(engine, None)
        if process is not None:
            process.close()

    def close(self) -> None:
        """Ends all."""
        for engine in list(self._processes):
            self.end(engine)

    def _process(self, engine: str) -> Process:
        if engine in self._absent:
            raise self._absent[engine]
        process = self._processes.get(engine)
        if process is None or process.dead:
            self.end(engine)
            try:
                process = Process(
                    engine, WORKER, reply_timeout_s=self._settings.reply_timeout_s,
                    port=self._server.port, bucket=self._settings.bucket,
                )  # fmt: skip
            except EngineUnsupportedError as reason:
                self._absent[engine] = reason
                self.loaded.setdefault(engine, {"problem": str(reason)})
                raise
            except EngineFailedError as reason:
                self.loaded.setdefault(engine, {"problem": str(reason)})
                raise
            self._processes[engine] = process
            self.loaded[engine] = process.loaded
        return process


def run(settings: Settings, command: list[str]) -> dict[str, Any]:
    """Everything, as the JSON document described in README.md."""
    volumes = settings.volumes()
    _fill_page_cache(volumes)
    circumstances = Circumstances()
    results: list[Samples] = []
    engines: dict[str, dict[str, Any]] = {}
    for server, names in _servers(settings, volumes):
        with server:
            workers = _Workers(settings, server, volumes)
            try:
                for name in names:
                    results += _alternate(settings, workers, WORKLOADS[name])
            finally:
                workers.close()
        engines |= workers.loaded
    return {
        **circumstances.as_json(command, settings),
        "engines": engines,
        "volumes": {
            name: {"what": v.volume.what, "shape": v.volume.shape, "axes": v.volume.axes, "base": v.base.what}
            for name, v in volumes.items()
            if isinstance(v, RemoteVolume)
        },
        "workloads": {
            name: {
                "what": w.what,
                "volume": w.volume,
                "count": settings.count(w),
                "latency_ms": w.latency_ms,
                "bandwidth_mb_s": w.bandwidth_mb_s,
                "memory": w.measures_memory,
            }
            for name in settings.workloads
            for w in (WORKLOADS[name],)
        },
        "results": [vars(samples) for samples in results],
    }


def _servers(settings: Settings, volumes: dict[str, RemoteVolume | Path]) -> Iterator[tuple[Server, tuple[str, ...]]]:
    """Starts the servers that are needed, one after the other, and gives each with the workloads that read from it."""
    own = {name: v for name, v in volumes.items() if isinstance(v, RemoteVolume) and v.volume.format == "bossdb"}
    of_files = tuple(name for name in settings.workloads if WORKLOADS[name].volume not in own)
    if of_files:
        yield Server(SERVED), of_files
    for volume_name, volume in own.items():
        names = tuple(name for name in settings.workloads if WORKLOADS[name].volume == volume_name)
        yield Server(volume.volume.path, BOSS), names


def _alternate(settings: Settings, workers: _Workers, workload: Remote) -> list[Samples]:
    """All runs of one workload, in turns."""
    results = {engine: Samples(engine, workload.name) for engine in settings.engines}
    for number, samples in turns(settings.repeat, results.values()):
        engine = samples.engine
        try:
            if workload.fresh:
                workers.end(engine)
            if number == 1 or workload.fresh:
                workers.run(engine, workload, 0, delayed=False)
            samples.runs.append(workers.run(engine, workload, number, delayed=True))
        except (EngineUnsupportedError, EngineFailedError) as reason:
            samples.note(reason)
            continue
        spent = sum(sample["seconds"] for run in samples.runs for sample in run)
        samples.cut_short = spent > settings.budget_s and number < settings.repeat
    for samples in results.values():
        flat = sorted(sample["seconds"] for run in samples.runs for sample in run)
        if flat:
            requests = samples.runs[-1][-1]["get"] + samples.runs[-1][-1]["head"]
            say(f"  {workload.name:12}{samples.engine:17}{flat[len(flat) // 2] * 1e3:12.1f} ms {requests:7} requests")
    return list(results.values())


def check(settings: Settings) -> int:
    """Answers and requests on tiny volumes, without delays and times; the answers of the server before that.

    Returns the number of failures. For voxfetch, more requests than a workload allows, and any HEAD, are failures.
    """
    failures = check_range_server()
    volumes = settings.volumes()
    for server, names in _servers(settings, volumes):
        with server:
            workers = _Workers(settings, server, volumes)
            try:
                for engine in settings.engines:
                    failures += _check_engine(workers, engine, names)
            finally:
                workers.close()
    return failures


def check_range_server() -> int:
    """Whether the instrument is right: the number of wrong answers of the server."""
    problems = check_server()
    for problem in problems:
        say(f"range server: WRONG: {problem}")
    if not problems:
        say("range server: right")
    return len(problems)


def _check_engine(workers: _Workers, engine: str, names: tuple[str, ...]) -> int:
    """Prints the requests of every workload, as gets+heads where there are heads; the number of failures."""
    counts, failures = [], 0
    for workload in (WORKLOADS[name] for name in names):
        samples = Samples(engine, workload.name)
        try:
            workers.run(engine, workload, 0, delayed=False)
            run = workers.run(engine, workload, 1, delayed=False)
        except (EngineUnsupportedError, EngineFailedError) as reason:
            samples.note(reason)
            failures += samples.failed
            if engine in workers.loaded and "problem" in workers.loaded[engine]:
                break
            continue
        gets, heads = (max(sample[name] for sample in run) for name in ("get", "head"))
        counts.append(f"{workload.name} {gets}{f'+{heads}' if heads else ''}")
        if engine == OWN and (heads or gets > (workload.requests_at_most or gets)):
            say(f"  {engine:17}{workload.name}: FAILED: {gets} GET, {heads} HEAD; at most {workload.requests_at_most}")
            failures += 1
    workers.end(engine)
    if counts:
        what = "fetched" if engine in FLOORS else "right"
        say(f"{engine:17} {workers.loaded[engine]['versions']}: {what}; requests: {', '.join(counts)}")
    return failures


def _fill_page_cache(volumes: dict[str, RemoteVolume | Path]) -> None:
    for path in stored_files(volumes.values()):
        with path.open("rb", buffering=0) as file:
            while file.read(READ_BYTES):
                pass
