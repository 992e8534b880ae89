"""One process an engine: opens, reads, compares and counts when told to.

Speaks the protocol of ``bench.worker``. Each sample stands alone: the counters of the server are reset before it and
read after it, and every answer is compared with the source once the clock has stopped.
"""

from __future__ import annotations

import gc
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.engines import UnsupportedVolumeError
from bench.remote.engines import Engine, Handle, load
from bench.remote.server import Control, allow_many_connections
from bench.remote.volumes import RemoteVolume, level_shape
from bench.remote.workloads import LEVELS, READING_THREADS, WORKLOADS, Remote, plan
from bench.worker import WrongAnswerError, compare, reset_peak_rss, rss, serve
from bench.workloads import Box

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

COMPARED_PLANES = 64
COUNTED = ("get", "head", "bytes", "max_in_flight", "new_connections")


class RemoteWorker:
    """State between commands: an engine, a server, open handles."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._server: Control | None = None
        self._handles: dict[str, Handle] = {}
        self._threads = ThreadPoolExecutor(READING_THREADS)
        allow_many_connections()

    def load(self, engine: str, port: int, bucket: str | None = None) -> dict[str, Any]:
        """Imports the library; its versions and configuration. ``bucket``: it reads this folder through S3."""
        self._server = Control(port)
        self._engine = load(engine, self._server.url, bucket)
        versions = self._engine.versions | {"numpy": np.__version__}
        return {"versions": versions, "configuration": self._engine.configuration, "lacks": self._engine.lacks}

    def run(
        self, workload: str, volume: Any, run: int, seed: str, count: int, limit_s: float, *, delayed: bool
    ) -> dict[str, Any]:
        """The samples of one run. Run 0 warms up: connections, threads, lazy imports; it is not delayed.

        volume: a RemoteVolume as JSON, or for images the path of their folder below the root of the server.
        ``limit_s`` ends "sustained" early. ``delayed``: whether the server keeps the delays of the workload.
        """
        spec = WORKLOADS[workload]
        if self._loaded()[0].prepare is not None and spec.kind != "first":
            raise UnsupportedVolumeError("what it keeps is of use when a volume is opened")
        if spec.kind in ("array", "image"):
            return {"samples": self._open(spec, volume, run, count, delayed=delayed)}
        remote = RemoteVolume.from_json(volume)
        if spec.kind in ("cold", "first"):
            return {"samples": self._cold(spec, remote, run, count, seed, delayed=delayed)}
        handle = self._handle(remote)
        boxes = plan(spec, remote, min(run, 1) if spec.fresh else run, count=count, seed=seed)
        if run == 0 and spec.fresh:
            boxes = boxes[:1]
        if spec.prime:
            self._loaded()[1].reset()
            for cell in remote.cells:
                handle.read(Box(cell, (1,) * len(cell)))
        if spec.kind == "sustained":
            return {"samples": [self._sustained(spec, handle, remote, boxes, limit_s, delayed=delayed)]}
        calls: list[tuple[list[Box], Callable[[], Sequence[Any]]]]
        if spec.kind == "each":
            calls = [([box], lambda box=box: [handle.read(box)]) for box in boxes]
        elif spec.kind == "threads":
            calls = [(boxes, lambda: self._from_threads(handle, boxes))]
        else:
            calls = [(boxes, lambda: handle.read_many(boxes))]
        samples = []
        for asked, call in calls:
            answers, sample = self._sample(spec, call, delayed=delayed)
            samples.append(sample)
            self._check(answers, asked, remote, workload)
        return {"samples": samples}

    def close(self) -> None:
        """Ends its threads and its connection for control; a process of its own does without."""
        self._threads.shutdown()
        if self._server is not None:
            self._server.close()

    def _loaded(self) -> tuple[Engine, Control]:
        if self._engine is None or self._server is None:
            raise RuntimeError("load comes first")
        return self._engine, self._server

    def _handle(self, volume: RemoteVolume) -> Handle:
        engine, server = self._loaded()
        handle = self._handles.get(volume.path)
        if handle is None:
            server.reset()
            handle = self._handles[volume.path] = engine.open(volume)
        return handle

    def _from_threads(self, handle: Handle, boxes: list[Box]) -> list[Any]:
        """Thread i reads every eighth box, one after the other."""
        shares = [boxes[i::READING_THREADS] for i in range(READING_THREADS)]
        read = list(self._threads.map(lambda share: [handle.read(box) for box in share], shares))
        return [read[i % READING_THREADS][i // READING_THREADS] for i in range(len(boxes))]

    def _sample(self, spec: Remote, call: Callable[[], Any], *, delayed: bool) -> tuple[Any, dict[str, Any]]:
        """The answer, and what it cost: the call alone."""
        _, server = self._loaded()
        gc.collect()
        resident = reset_peak_rss() if spec.measures_memory else None
        if delayed:
            server.reset(latency_ms=spec.latency_ms, bandwidth_mb_s=spec.bandwidth_mb_s)
        else:
            server.reset()
        cpu, start = time.process_time(), time.perf_counter()
        answer = call()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        stats = server.stats()
        sample = {"seconds": round(seconds, 8), "cpu_s": round(cpu, 6)} | {name: stats[name] for name in COUNTED}
        if resident is not None:
            sample["peak_bytes"] = max(0, (rss("VmHWM") or 0) - resident)
        return answer, sample

    def _open(self, spec: Remote, folder: str, run: int, count: int, *, delayed: bool) -> list[dict[str, Any]]:
        """Images of even number are opened as images, arrays of odd ones as arrays; none twice."""
        engine, _ = self._loaded()
        if spec.kind == "image" and engine.open_image is None:
            raise UnsupportedVolumeError("it knows no images")
        samples = []
        for i in range(count * run, count * (run + 1)):
            call: Callable[[], Any]
            if spec.kind == "image":
                path, truth = f"{folder}/{2 * i}", [level_shape(level) for level in range(LEVELS)]
                call = lambda path=path: engine.open_image(path)  # noqa: E731
            else:
                path, truth = f"{folder}/{2 * i + 1}/0", [level_shape(0)]
                call = lambda path=path: [engine.open_array(path)]  # noqa: E731
            answer, sample = self._sample(spec, call, delayed=delayed)
            if [list(shape) for shape in answer] != truth:
                raise WrongAnswerError(f"{path}: {answer}, not {truth}")
            samples.append(sample)
        return samples

    def _cold(
        self, spec: Remote, volume: RemoteVolume, run: int, count: int, seed: str, *, delayed: bool
    ) -> list[dict[str, Any]]:
        engine, server = self._loaded()
        samples = []
        for number, box in enumerate(plan(spec, volume, run, count=count, seed=seed), count * run):
            copy = volume.copy(number)
            if engine.prepare is not None:
                server.reset()
                engine.prepare(copy)
            call: Callable[[], Sequence[Any]]
            if spec.kind == "first":
                call = lambda copy=copy, box=box: [engine.open(copy).read(box)]  # noqa: E731
            else:
                handle = self._handle(copy)
                call = lambda handle=handle, box=box: [handle.read(box)]  # noqa: E731
            answers, sample = self._sample(spec, call, delayed=delayed)
            samples.append(sample)
            self._check(answers, [box], copy, spec.name)
        return samples

    def _sustained(
        self, spec: Remote, handle: Handle, volume: RemoteVolume, boxes: list[Box], limit_s: float, *, delayed: bool
    ) -> dict[str, Any]:
        """One block after the other, until the limit; planes of each are compared. The sample has ``decoded_bytes``."""
        total: dict[str, Any] = {"decoded_bytes": 0}
        for number, box in enumerate(boxes):
            answers, sample = self._sample(spec, lambda box=box: [handle.read(box)], delayed=delayed)
            for name, value in sample.items():
                most = name in ("max_in_flight", "peak_bytes")
                total[name] = max(total.get(name, 0), value) if most else total.get(name, 0) + value
            total["decoded_bytes"] += volume.period_bytes
            first = COMPARED_PLANES * number % box.shape[0]
            planes = min(COMPARED_PLANES, box.shape[0] - first)
            part = Box((box.start[0] + first, *box.start[1:]), (planes, *box.shape[1:]))
            self._check([a[first : first + planes] for a in answers], [part], volume, spec.name)
            if total["seconds"] > limit_s:
                break
        return total

    def _check(self, answers: Sequence[Any], boxes: list[Box], volume: RemoteVolume, what: str) -> None:
        engine, _ = self._loaded()
        if engine.decodes:
            for answer, box in zip(answers, boxes, strict=True):
                compare(answer, volume.volume.truth, box, f"{what} {box}")


if __name__ == "__main__":
    serve(RemoteWorker())
