"""One process an engine: loads batches when told to. Speaks the protocol of ``bench.worker``."""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np
import torch

from bench.crops.loaders import Loader, configuration
from bench.remote.server import Control, allow_many_connections
from bench.volumes import Volume
from bench.worker import WrongAnswerError, compare, serve
from bench.workloads import Box

COUNTED = ("get", "head", "bytes", "max_in_flight")
WARM_BATCHES = 4


class CropsWorker:
    """State between commands: an engine, a loader."""

    def __init__(self) -> None:
        self._engine = ""
        self._server: Control | None = None
        allow_many_connections()
        torch.set_num_threads(1)  # threads that wait for the next copy by spinning would be in everybody's way

    def load(self, engine: str, port: int) -> dict[str, Any]:
        """Imports the library; its versions and configuration."""
        self._engine, self._server = engine, Control(port)
        versions, how = configuration(engine)
        return {"versions": versions, "configuration": how}

    def open(
        self, volume: dict[str, Any], extent: int, count: int, batch: int, runs: int, seed: str, *, remote: bool
    ) -> dict[str, Any]:
        """A new loader; its first batches are compared voxel by voxel, without delay."""
        self._volume, self._extent, self._count, self._batch = Volume.from_json(volume), extent, count, batch
        self._remote = remote
        dice = random.Random(f"{seed} {extent}")
        places = [[dice.randrange(n - extent + 1) for n in self._volume.shape] for _ in range(count * (runs + 1))]
        self._starts = np.array(places)
        self._control().reset()
        url = self._control().url if remote else None
        self._loader = Loader(self._engine, self._volume, url, self._starts, extent=extent, count=count, batch=batch)
        boxes = self._boxes(0)
        for number, got in enumerate(self._loader.batches(0)):
            for crop, box in zip(got.numpy(), boxes[number * batch :], strict=False):
                compare(crop, self._volume.truth, box, f"{box}")
            if number + 1 == WARM_BATCHES:
                break
        return {}

    def run(self, number: int, latency_ms: float, limit_s: float) -> dict[str, Any]:
        """One epoch, from 1: seconds, crops and what the server counted. It ends at the first batch after the limit."""
        control = self._control()
        control.reset(latency_ms=latency_ms)
        sums: list[torch.Tensor] = []
        cpu, start = time.process_time(), time.perf_counter()
        for got in self._loader.batches(number):
            # Reads every voxel, as whoever uses them does.
            sums.append(_sums(got))
            seconds = time.perf_counter() - start
            if seconds > limit_s:
                break
        cpu = time.process_time() - cpu
        stats = control.stats()
        crops = sum(map(len, sums))
        wanted = [self._volume.truth(box) for box in self._boxes(number)[:crops]]
        for box, crop, found in zip(self._boxes(number), wanted, torch.cat(sums), strict=False):
            if _sums(torch.from_numpy(np.array(crop)[np.newaxis])) != found:
                raise WrongAnswerError(f"another sum of the crop {box}")
        if not self._remote:
            stats = dict.fromkeys(COUNTED, 0)
        return {"seconds": seconds, "cpu_s": cpu, "crops": crops} | {name: stats[name] for name in COUNTED}

    def close(self) -> None:
        """Ends its connection for control; a process of its own does without."""
        self._control().close()

    def _boxes(self, run: int) -> list[Box]:
        shape = (self._extent,) * len(self._volume.shape)
        starts = self._starts[run * self._count : (run + 1) * self._count]
        return [Box(tuple(map(int, start)), shape) for start in starts]

    def _control(self) -> Control:
        if self._server is None:
            raise RuntimeError("load comes first")
        return self._server


def _sums(batch: torch.Tensor) -> torch.Tensor:
    """Of each crop, its bytes taken for 64-bit numbers; an extent is a multiple of 8."""
    return batch.contiguous().view(len(batch), -1).view(torch.int64).sum(1)


if __name__ == "__main__":
    serve(CropsWorker())
