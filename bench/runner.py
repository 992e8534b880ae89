"""Runs engines in turns: A B C A B C, one process each, and collects samples, versions, and what failed."""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.circumstances import Circumstances
from bench.volumes import ROOT, MissingSourceError, Size, Volume, build
from bench.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

REPLY_TIMEOUT_S = 900.0
STDERR_TAIL_CHARS = 600
#: Reads large enough for their memory to matter.
MEMORY_WORKLOADS = ("full", "box", "many", "part16", "part4")


@dataclass(frozen=True)
class Settings:
    """What to run. ``budget_s``: an engine slower than that in all rounds of one workload skips those left.

    ``cores``: of how many a process may use; a volume is read once for each entry, None is all of them. ``memory``:
    whether peaks are measured too. ``reply_timeout_s``: after which an engine has failed.
    """

    size: Size
    engines: tuple[str, ...]
    workloads: tuple[str, ...]
    volumes: tuple[str, ...]
    repeat: int
    seed: str
    budget_s: float
    few: bool = False
    cores: tuple[int | None, ...] = (None,)
    memory: bool = True
    reply_timeout_s: float = REPLY_TIMEOUT_S


class EngineFailedError(Exception):
    """An engine raised, died or did not answer in time."""


class EngineUnsupportedError(Exception):
    """An engine cannot do this by design, or is not installed."""


def interpreter(engine: str) -> str:
    """The Python of an engine: bench/.venv-<engine> where there is one (its requirements may clash), or our own.

    What follows a hyphen is a variant: "zarr-x" is at home where "zarr" is.
    """
    own = ROOT / "bench" / f".venv-{engine.split('-', 1)[0]}" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


class Process:
    """A worker process with one engine loaded; ``call`` sends a command and waits for its answer.

    ``worker`` is the module that it runs, ``load`` goes to its command of that name. Who does not answer within
    ``reply_timeout_s`` is ended.
    """

    def __init__(
        self, engine: str, worker: str = "bench.worker", *, reply_timeout_s: float = REPLY_TIMEOUT_S, **load: Any
    ) -> None:
        self.engine = engine
        self._reply_timeout_s = reply_timeout_s
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115  lives as long as the process
        self._process = subprocess.Popen(
            [interpreter(engine), "-m", worker],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, text=True,
        )  # fmt: skip
        try:
            self.loaded = self.call("load", engine=engine, **load)
        except BaseException:
            self.close()
            raise

    def call(self, action: str, **arguments: Any) -> dict[str, Any]:
        """The "ok" of the answer; EngineFailedError or EngineUnsupportedError otherwise."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise EngineFailedError("no pipe to the worker")
        try:
            stdin.write(json.dumps({"do": action, **arguments}) + "\n")
            stdin.flush()
        except BrokenPipeError:
            pass  # its death is told below
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            if not selector.select(self._reply_timeout_s):
                self._process.kill()
                raise EngineFailedError(f"no answer to {action!r} within {self._reply_timeout_s:.0f} s")
        line = stdout.readline()
        if not line:
            raise EngineFailedError(f"died with exit code {self._process.wait()} in {action!r}: {self._stderr_tail()}")
        reply: dict[str, Any] = json.loads(line)
        if "unsupported" in reply:
            raise EngineUnsupportedError(reply["unsupported"])
        if "error" in reply:
            raise EngineFailedError(reply["error"])
        answer: dict[str, Any] = reply["ok"]
        return answer

    @property
    def dead(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def close(self) -> None:
        """Ends the process, politely first."""
        if self._process.stdin is not None:
            try:
                self._process.stdin.write('{"do": "quit"}\n')
                self._process.stdin.close()
            except OSError:
                pass
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._stderr.close()

    def _stderr_tail(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read()[-STDERR_TAIL_CHARS:].strip()


@dataclass
class Samples:
    """What one engine did with one workload on one volume."""

    engine: str
    workload: str
    volume: str
    seconds: list[list[float]] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    output_bytes: int = 0
    peak_over_output: float | None = None
    problem: str | None = None
    failed: bool = False
    cut_short: bool = False

    def add(self, reply: dict[str, Any]) -> None:
        """One run."""
        self.seconds.append(reply["seconds"])
        self.cpu_s.append(reply["cpu_s"])

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return dict(vars(self))


def say(text: str) -> None:
    """Progress, on standard error: standard output is for results."""
    print(text, file=sys.stderr, flush=True)


def run(settings: Settings, command: list[str]) -> dict[str, Any]:
    """Everything, as the JSON document described in README.md."""
    engines: dict[str, Any] = {}
    volumes: dict[str, Any] = {}
    results: list[Samples] = []
    circumstances = Circumstances()
    for name in settings.volumes:
        try:
            volume = build(name, settings.size)
        except MissingSourceError as reason:
            volumes[name] = {"skipped": str(reason)}
            say(f"{name}: skipped, {reason}")
            continue
        described = {k: v for k, v in volume.as_json().items() if k not in ("path", "source", "name")}
        described |= {"nbytes": volume.nbytes, "ratio": volume.nbytes / volume.stored_bytes}
        for cores in settings.cores:
            label = name if cores is None else f"{name}, cores: {cores}"
            volumes[label] = described
            say(f"{label}: {volume.what}, {volume.dtype} {volume.shape}, {volume.nbytes / volume.stored_bytes:.2f}x")
            results += _run_volume(settings, volume, label, cores, engines)
    return {
        **circumstances.as_json(command, settings),
        "engines": engines,
        "volumes": volumes,
        "workloads": {name: WORKLOADS[name].what for name in settings.workloads},
        "results": [samples.as_json() for samples in results],
    }


def _run_volume(
    settings: Settings, volume: Volume, label: str, cores: int | None, engines: dict[str, Any]
) -> list[Samples]:
    """All workloads of all engines on one volume, with processes of their own. ``engines`` gets what was loaded."""
    processes: dict[str, Process] = {}
    results = {(w, e): Samples(e, w, label) for w in settings.workloads for e in settings.engines}

    def guarded(engine: str, workloads: tuple[str, ...], *calls: tuple[str, dict[str, Any]]) -> dict[str, Any] | None:
        """The last answer; None after a problem, which is noted in the results of ``workloads``."""
        reply = None
        try:
            for action, arguments in calls:
                reply = processes[engine].call(action, **arguments)
        except (EngineUnsupportedError, EngineFailedError) as reason:
            _note(reason, engine, workloads)
            return None
        return reply

    def _note(reason: Exception, engine: str, workloads: tuple[str, ...]) -> None:
        failed = isinstance(reason, EngineFailedError)
        for workload in workloads:
            results[workload, engine].problem = str(reason)
            results[workload, engine].failed = failed
        say(f"  {engine:17}{','.join(workloads)}: {'FAILED' if failed else 'skipped'}: {reason}")

    try:
        opened: list[str] = []
        for engine in settings.engines:
            try:
                processes[engine] = Process(engine, reply_timeout_s=settings.reply_timeout_s, cores=cores)
            except (EngineUnsupportedError, EngineFailedError) as reason:
                engines.setdefault(engine, {"problem": str(reason)})
                _note(reason, engine, settings.workloads)
                continue
            engines[engine] = processes[engine].loaded
            if guarded(engine, settings.workloads, ("open", {"volume": volume.as_json()})):
                opened.append(engine)
        for workload in settings.workloads:
            command = ("check", _plan(settings, workload))
            ready: list[str] = []
            for engine in opened:
                if checked := guarded(engine, (workload,), command):
                    results[workload, engine].output_bytes = checked["output_bytes"]
                    ready.append(engine)
            _alternate(settings, workload, ready, results, guarded)
            for engine in ready:
                samples = results[workload, engine]
                if samples.seconds:
                    flat = sorted(s for run in samples.seconds for s in run)
                    say(f"  {workload:12}{engine:17}{flat[len(flat) // 2] * 1e3:12.3f} ms")
    finally:
        for process in processes.values():
            process.close()
    for workload in MEMORY_WORKLOADS if settings.memory else ():
        for engine in settings.engines:
            measured = results.get((workload, engine))
            if measured is not None and measured.seconds and not measured.problem:
                measured.peak_over_output = _memory(settings, measured, volume, cores)
    return list(results.values())


def _memory(settings: Settings, samples: Samples, volume: Volume, cores: int | None) -> float | None:
    """Peak memory of one read over its output, in a process that has read nothing before; None where it failed."""
    try:
        process = Process(samples.engine, cores=cores)
        try:
            process.call("open", volume=volume.as_json())
            reply = process.call("memory", workload=samples.workload, seed=settings.seed, few=settings.few)
        finally:
            process.close()
    except (EngineFailedError, EngineUnsupportedError) as reason:
        say(f"  {samples.workload:12}{samples.engine:17}memory: {reason}")
        return None
    peak: float | None = reply["peak_over_output"]
    return peak


def _alternate(settings: Settings, workload: str, ready: list[str], results: dict[Any, Samples], guarded: Any) -> None:
    """All runs of one workload, in turns."""
    for number, samples in turns(settings.repeat, [results[workload, engine] for engine in ready]):
        reply = guarded(samples.engine, (workload,), ("run", {"workload": workload, "number": number}))
        if reply is not None:
            samples.add(reply)
            spent_s = sum(sum(run) for run in samples.seconds)
            samples.cut_short = spent_s > settings.budget_s and number < settings.repeat


def turns(repeat: int, results: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    """(number of the run, samples of the engine whose turn it is): A B C A B C.

    Who has a ``problem`` or was ``cut_short`` is passed over from then on.
    """
    for number in range(1, repeat + 1):
        for samples in results:
            if not samples.problem and not samples.cut_short:
                yield number, samples


def _plan(settings: Settings, workload: str) -> dict[str, Any]:
    """The arguments of the worker's "check"."""
    return {"workload": workload, "rounds": settings.repeat, "seed": settings.seed, "few": settings.few}


def check(settings: Settings) -> int:
    """Every answer of every installed engine on small volumes, without timing. Returns the number of failures.

    One process an engine, not one an engine and volume: starting them would be most of the time.
    """
    volumes: list[Volume] = []
    for name in settings.volumes:
        try:
            volumes.append(build(name, settings.size))
        except MissingSourceError as reason:
            say(f"{name}: skipped, {reason}")
    failures = 0
    for engine in settings.engines:
        try:
            process = Process(engine, reply_timeout_s=settings.reply_timeout_s)
        except EngineUnsupportedError as reason:
            say(f"{engine:17} skipped: {reason}")
            continue
        except EngineFailedError as reason:
            say(f"{engine:17} FAILED: {reason}")
            failures += 1
            continue
        checked, problems = 0, []
        for volume in volumes:
            what = volume.name
            for workload in (None, *settings.workloads):
                try:
                    if workload is None:
                        process.call("open", volume=volume.as_json())
                        continue
                    what = f"{volume.name} {workload}"
                    process.call("check", **_plan(settings, workload))
                    process.call("run", workload=workload, number=1)
                    checked += 1
                except EngineUnsupportedError as reason:
                    problems.append(f"{what}: skipped: {reason}")
                except EngineFailedError as reason:
                    problems.append(f"{what}: FAILED: {reason}")
                    failures += 1
                if what == volume.name or process.dead:
                    break
            if process.dead:
                break
        process.close()
        say(f"{engine:17} {process.loaded['versions']}: {checked} right")
        for problem in _grouped(problems):
            say(f"    {problem}")
    return failures


def _grouped(problems: list[str]) -> list[str]:
    """One line a reason."""
    reasons: dict[str, list[str]] = {}
    for problem in problems:
        what, reason = problem.split(": ", 1)
        reasons.setdefault(reason, []).append(what)
    return [f"{reason} ({', '.join(what[:3])}{', ...' if len(what) > 3 else ''})" for reason, what in reasons.items()]
