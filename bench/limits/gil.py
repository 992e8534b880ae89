"""How long reads keep other Python threads waiting: a second thread does nothing but take the GIL again and again.

A turn of that thread takes microseconds unless somebody else has the GIL, or the system runs something else on a core
that one of us needs. The second is in ``schedstat`` of the threads and is taken off: of the watching thread, and of the
others that run Python, as one of them may have been stopped while it had the GIL. On a busy machine that takes off too
much (delays overlap), or too little (a lock of ours in the hands of a thread that was stopped): only a run on a quiet
one tells whether the limit holds, and ``while nothing is read`` tells whether it was. Python's collector of cyclic
garbage is off: it has the GIL for as long as it looks at all objects of the program.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import voxfetch as vf
from bench.limits.arrays import ENTRIES, FOLDER, SIDE, document, make, morton, shard
from bench.limits.figures import Figure
from bench.remote.server import Server

MS = 1e3
MOST_MS = 1.0
SWITCH_INTERVAL_S = 1e-4
FRAMES = 3
#: Delays of other threads are read after so many turns, and after a wait of this length.
OTHERS_EVERY = 32
NOTED_S = 0.3e-3


@dataclass
class Watch:
    """What the second thread saw. ``places``: lines of Python that other threads were at after long waits."""

    longest_s: float = 0
    turns: int = 0
    places: Counter[str] = field(default_factory=Counter)


class Watching:
    """Watches for the length of a ``with`` block."""

    def __init__(self) -> None:
        self.seen = Watch()
        self._stop = False
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._turns, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        gc.collect()
        gc.disable()
        self._before_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._thread.start()
        self._ready.wait()
        return self.seen

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join()
        sys.setswitchinterval(self._before_s)
        gc.enable()

    def _turns(self) -> None:
        seen, own = self.seen, threading.get_ident()
        others = [Delay(thread.native_id) for thread in threading.enumerate() if thread is not self._thread]
        mine = Delay(threading.get_native_id())
        clock = time.perf_counter
        self._ready.set()
        # A wait lies between two times; the delays taken off it were read before the first and after the second.
        delay, first = mine.total_s(), clock()
        second_delay, second = mine.total_s(), clock()
        for turn in itertools.count():
            third_delay, third = mine.total_s(), clock()  # gives the GIL up
            wait_s = second - first - (third_delay - delay)
            if wait_s > NOTED_S or turn % OTHERS_EVERY == 0:
                wait_s -= sum(other.since_s() for other in others)
            if wait_s > seen.longest_s:
                seen.longest_s = wait_s
            if wait_s > MOST_MS / MS:
                frames = ((t, f) for t, f in sys._current_frames().items() if t != own)
                seen.places.update(_place(frame) for _, frame in frames)
            if self._stop:
                seen.turns = turn
                return
            (delay, first), (second_delay, second) = (second_delay, second), (third_delay, third)


class Delay:
    """Time for which a thread could have run and did not."""

    def __init__(self, native_id: int | None) -> None:
        self._file = Path(f"/proc/self/task/{native_id}/schedstat").open("rb", buffering=0)  # noqa: SIM115 - for long
        self._last_s = self.total_s()

    def total_s(self) -> float:
        """Since the start of the thread."""
        return int(os.pread(self._file.fileno(), 64, 0).split()[1]) / 1e9

    def since_s(self) -> float:
        """Since it was last asked."""
        before_s, self._last_s = self._last_s, self.total_s()
        return self._last_s - before_s


def _place(frame: Any) -> str:
    lines = []
    while frame is not None and len(lines) < FRAMES:
        lines.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return " < ".join(lines)


def gil(repeat: int, *, few: bool) -> list[Figure]:
    """Big reads, reads of 10,000 boxes, 10,000 asynchronous reads; from disk and over HTTP."""
    body = shard(4 if few else 16, morton())
    chunk = 4 if few else 16
    side = SIDE * chunk
    boxes = 500 if few else 10_000
    make("gil", document((side,) * 3, chunk, zstd=False), [((0, 0, 0), body)])
    dice = np.random.default_rng(0)
    starts = dice.integers(0, side - 8, (boxes, 3))
    figures = []
    with Server(FOLDER) as server:
        for medium, url in (("disk", str(FOLDER / "gil")), ("HTTP", f"{server.control.url}/gil")):
            with vf.Engine() as engine:
                array = vf.open_array(url, engine=engine)
                for what, read in _reads(array, starts).items():
                    read()
                    samples, places, turns = [], Counter[str](), 0
                    for _ in range(repeat):
                        with Watching() as seen:
                            read()
                        samples.append(round(seen.longest_s * MS, 3))
                        places.update(seen.places)
                        turns += seen.turns
                    figure = Figure(f"longest wait for the GIL, {what}, {medium}", "ms", samples, MOST_MS)
                    figure.more = {"turns": turns, "places": places.most_common(5)}
                    figures.append(figure)
    with Watching() as seen:
        time.sleep(1)
    figures.append(Figure("longest wait for the GIL, while nothing is read", "ms", [seen.longest_s * MS]))
    return figures


def _reads(array: vf.Array, starts: Any) -> dict[str, Callable[[], object]]:
    whole = np.empty(array.shape, "u1")

    def one_by_one() -> None:
        for start in starts.tolist():
            array.read_box(start, 8)

    async def asynchronous() -> None:
        # Lets each answer go when it is there: to free 10,000 arrays at once takes Python milliseconds.
        async with asyncio.TaskGroup() as group:
            for start in starts.tolist():
                group.create_task(array.read_box_async(start, (8, 8, 8)))

    return {
        f"the whole array of {array.nbytes >> 20} MiB": lambda: array.read(out=whole),
        f"{len(starts):,} boxes of 8^3 as one read": lambda: array.read_many(starts, 8),
        f"{len(starts):,} boxes one by one": one_by_one,
        f"{len(starts):,} asynchronous reads at once": lambda: asyncio.run(asynchronous()),
        f"plan of {ENTRIES:,} chunks": array.explain,
    }
