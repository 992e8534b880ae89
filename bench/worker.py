"""One process per engine and volume: opens, reads and times when told to, so that engines share no allocator, no
thread pool and no crash.

Speaks JSON, one object a line. In: {"do": "load" | "open" | "check" | "run" | "quit", ...}; out: {"ok": ...} or
{"error": ...} or {"unsupported": ...}. The protocol owns the first standard output; a library that prints goes to
standard error.
"""

from __future__ import annotations

import gc
import itertools
import json
import math
import os
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.engines import Engine, Handle, ReadsInto, UnsupportedVolumeError, load
from bench.volumes import Volume
from bench.workloads import WORKLOADS, Box, Workload, plan

if TYPE_CHECKING:
    from collections.abc import Callable

COMPARE_BYTES = 1 << 20
RESET_PEAK_RSS = "5"  # proc(5), clear_refs


class WrongAnswerError(Exception):
    """A read returned something else than the source volume."""


class Worker:
    """State between commands: an engine, a volume, an open handle."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._volume: Volume | None = None
        self._handle: Handle | None = None
        self._plans: dict[str, list[list[Box]]] = {}
        self._reused: np.ndarray[Any, Any] | None = None

    def load(self, engine: str, cores: int | None = None) -> dict[str, Any]:
        """Imports the library; its versions and configuration. ``cores``: how many the process may use, if not all."""
        if cores is not None:
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
        self._engine = load(engine)
        versions = self._engine.versions | {"numpy": np.__version__}
        return {"versions": versions, "configuration": self._engine.configuration}

    def open(self, volume: dict[str, Any]) -> dict[str, Any]:
        """A new handle on a volume."""
        if self._engine is None:
            raise RuntimeError("load comes first")
        self._volume = Volume.from_json(volume)
        self._handle = None
        self._reused = None
        gc.collect()
        start = time.perf_counter()
        self._handle = self._engine.open(self._volume)
        return {"open_s": time.perf_counter() - start}

    def check(self, workload: str, rounds: int, seed: str, *, few: bool) -> dict[str, Any]:
        """Reads every box of every round once and compares it with the source: files are in the page cache then.

        Where rounds read different boxes, a new handle follows, which has read an index of every shard and the boxes
        of the unmeasured round, but none of the boxes to be measured. Returns the bytes of the answer of one sample.
        """
        volume, handle = self._opened()
        spec = WORKLOADS[workload]
        plans = plan(spec, volume.shape, volume.axes, rounds=rounds, seed=seed, few=few, chunk=volume.chunk)
        same = plans[0] == plans[-1]
        for boxes in plans[:1] if same else plans:
            for box, answer in zip(boxes, self._read(handle, spec, boxes)[0], strict=True):
                compare(answer, volume.truth, box, f"{workload} {box}")
        if not same:
            self.open(volume.as_json())
            _, handle = self._opened()
            for box in _one_voxel_a_shard(volume):
                handle.read(box)
            self._read(handle, spec, plans[0])
        self._plans[workload] = plans
        boxes = plans[0] if spec.mode == "many" else plans[0][:1]
        return {"output_bytes": sum(math.prod(box.shape) for box in boxes) * np.dtype(volume.dtype).itemsize}

    def run(self, workload: str, number: int) -> dict[str, Any]:
        """The boxes of round ``number`` (from 1): wall seconds of each sample, CPU seconds of the process."""
        _, handle = self._opened()
        spec = WORKLOADS[workload]
        boxes = self._plans[workload][number]
        gc.collect()
        cpu = time.process_time()
        _, seconds = self._read(handle, spec, boxes, keep=False)
        cpu = time.process_time() - cpu
        return {"seconds": [round(s, 8) for s in seconds], "cpu_s": round(cpu, 6)}

    def memory(self, workload: str, seed: str, *, few: bool) -> dict[str, Any]:
        """Peak resident memory of one read above what was resident before it, as a multiple of its output.

        For a process that has read nothing yet: one voxel of every shard first, so that indexes, threads and lazy
        imports are in the baseline, then the boxes of the unmeasured round. None where the system cannot tell.
        """
        volume, handle = self._opened()
        spec = WORKLOADS[workload]
        boxes = plan(spec, volume.shape, volume.axes, rounds=1, seed=seed, few=few, chunk=volume.chunk)[0]
        for box in _one_voxel_a_shard(volume):
            handle.read(box)
        gc.collect()
        before = reset_peak_rss()
        answers, _ = self._read(handle, spec, boxes)
        peak = rss("VmHWM")
        if before is None or peak is None:
            return {"peak_over_output": None}
        return {"peak_over_output": max(0, peak - before) / sum(answer.nbytes for answer in answers)}

    def _opened(self) -> tuple[Volume, Handle]:
        if self._volume is None or self._handle is None:
            raise RuntimeError("open comes first")
        return self._volume, self._handle

    def _read(
        self, handle: Handle, spec: Workload, boxes: list[Box], *, keep: bool = True
    ) -> tuple[list[np.ndarray[Any, Any]], list[float]]:
        """The answers, and the seconds of each sample: the call alone, nothing around it.

        Without ``keep`` an answer is dropped before the next box is read, as by somebody who works through boxes.
        """
        clock = time.perf_counter
        if spec.mode == "many":
            start = clock()
            many = handle.read_many(boxes)
            seconds = [clock() - start]
            return [many[i] for i in range(len(boxes))], seconds
        if spec.reuse_output:
            volume = self._opened()[0]
            if not isinstance(handle, ReadsInto):
                raise UnsupportedVolumeError("no public way to read into a given array")
            if self._reused is None:
                self._reused = np.ones(boxes[0].shape, volume.dtype)
            start = clock()
            handle.read_into(boxes[0], self._reused)
            return [self._reused], [clock() - start]
        answers, seconds = [], []
        for box in boxes:
            start = clock()
            answer = handle.read(box)
            seconds.append(clock() - start)
            if keep:
                answers.append(answer)
            del answer
        return answers, seconds


def _one_voxel_a_shard(volume: Volume) -> list[Box]:
    """Without shards: one voxel."""
    shard = volume.shard or volume.shape
    grid = itertools.product(*(range(0, n, s) for n, s in zip(volume.shape, shard, strict=True)))
    return [Box(start, (1,) * len(start)) for start in grid]


def compare(answer: np.ndarray[Any, Any], truth: Callable[[Box], np.ndarray[Any, Any]], box: Box, what: str) -> None:
    """Every voxel, shape and type; in blocks, so that no large temporary teaches the allocator new habits."""
    voxel = truth(Box(box.start, (1,) * len(box.shape)))
    if answer.shape != box.shape or answer.dtype != voxel.dtype:
        raise WrongAnswerError(f"{what}: {answer.dtype} {answer.shape}, not {voxel.dtype} {box.shape}")
    # Along the axis on which the truth moves furthest, so that a block is one stretch of its file.
    axis = int(np.argmax([abs(s) if n > 1 else 0 for s, n in zip(voxel.strides, box.shape, strict=True)]))
    step = max(1, COMPARE_BYTES * answer.shape[axis] // max(1, answer.nbytes))
    for first in range(0, answer.shape[axis], step):
        block = answer[(slice(None),) * axis + (slice(first, first + step),)]
        start = (*box.start[:axis], box.start[axis] + first, *box.start[axis + 1 :])
        if not np.array_equal(block, truth(Box(start, block.shape))):
            raise WrongAnswerError(f"{what}: voxels differ in {first} <= axis {axis} < {first + step}")


def rss(field: str) -> int | None:
    """A line of /proc/self/status in bytes: VmRSS (now) or VmHWM (peak since the last reset)."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    line = next((line for line in status.splitlines() if line.startswith(f"{field}:")), None)
    return None if line is None else int(line.split()[1]) * 1024


def reset_peak_rss() -> int | None:
    """Sets the peak to what is resident now, and returns that."""
    try:
        Path("/proc/self/clear_refs").write_text(RESET_PEAK_RSS)
    except OSError:
        return None
    return rss("VmRSS")


def serve(worker: Any) -> None:
    """Answers commands until "quit" or the end of input: "do" names a method of ``worker``, the rest its arguments."""
    protocol = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        command = json.loads(line)
        action = command.pop("do")
        if action == "quit":
            break
        try:
            reply = {"ok": getattr(worker, action)(**command)}
        except UnsupportedVolumeError as reason:
            reply = {"unsupported": str(reason)}
        except ImportError as reason:
            reply = {"unsupported" if action == "load" else "error": f"not installed: {reason}"}
        except Exception as error:  # noqa: BLE001  whatever a library raises belongs in the report
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        protocol.write(json.dumps(reply) + "\n")
        protocol.flush()


if __name__ == "__main__":
    serve(Worker())
