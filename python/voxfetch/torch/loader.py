"""`CropLoader`: the batches of an epoch, read ahead by one engine while the caller works with those before."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections import deque
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch.utils.data import default_collate  # pyright: ignore[reportUnknownVariableType]

import voxfetch as vf
from voxfetch.torch.crops import CropDataset
from voxfetch.torch.sampler import BlockSampler

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from voxfetch.torch.order import Shuffle

__all__ = ["CropLoader"]

_MAX_AHEAD = 8


class CropLoader:
    """Iterates over the batches of a `CropDataset`, as torch's DataLoader does, without worker processes.

    A batch is a tensor (N, *shape), or a tuple or dict of them, as the items of the dataset are; it is read straight
    into its memory, as one plan. With a `transform` the items are transformed and collated by torch's
    `default_collate`. `prefetch` batches, never less than half of them, are in flight or ready while the caller works
    with another (None: up to 8, within a quarter of the engine's memory limit; 0: none). `shuffle`, `seed`, `window`,
    `shard_block` (the `block` there), `drop_last`, `rank` and `world_size` are those of `BlockSampler`; each iteration
    begins the next epoch.

    `pin_memory` reads into pinned memory, to be copied to a GPU while the next batch is read.

    Chunks that several samples of a batch need are decoded once; so are those that several batches in flight need,
    while their object waits for its turn. For more, open the arrays with an engine that has `chunk_cache_bytes`: about
    the encoded and decoded size of `window` blocks, or of what the samples in one need.

    One iterator may be used by several threads, each of which gets other batches. An iteration that is left early, by
    `break` or by an error, stops what is in flight. An error names the sample, and ends the iteration. It may not go on
    in a forked child.
    """

    def __init__(  # noqa: PLR0913 - as many as torch's own
        self,
        dataset: CropDataset,
        batch_size: int = 1,
        *,
        shuffle: Shuffle = "blocks",
        seed: int = 0,
        window: int = 16,
        shard_block: Sequence[int] | int | None = None,
        prefetch: int | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Raises `TypeError`, `ValueError`, and `UnsupportedError` for pinned memory without CUDA."""
        if not isinstance(cast("object", dataset), CropDataset):
            message = f"a CropLoader reads a CropDataset, not {type(dataset).__name__}"
            raise TypeError(f"{message}: of a part of one make another, with its starts")
        if prefetch is not None and prefetch < 0:
            raise ValueError(f"prefetch must be at least 0, not {prefetch}")
        if pin_memory and not torch.cuda.is_available():
            raise vf.UnsupportedError("pin_memory=True needs CUDA, which torch does not find here")
        if pin_memory and dataset.transform is not None:
            raise ValueError("a transform makes memory of its own, which is not pinned: transform batches instead")
        self._dataset = dataset
        self._sampler = BlockSampler(
            dataset, batch_size, shuffle=shuffle, seed=seed, window=window, block=shard_block, drop_last=drop_last,
            rank=rank, world_size=world_size,
        )  # fmt: skip
        if prefetch is None:
            budget = min(engine.options.memory_limit_bytes for engine in dataset.engines) // 4
            prefetch = max(1, min(_MAX_AHEAD, budget // max(batch_size * dataset.sample_nbytes, 1)))
        self._prefetch = prefetch
        self._pin = pin_memory
        self._thread: _Thread | None = None
        self._beginning = _Beginning()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_thread": None, "_beginning": _Beginning()}

    def __len__(self) -> int:
        """Number of batches an epoch."""
        return len(self._sampler)

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration begins; without it they are counted from 0."""
        self._sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        """Begins the next epoch."""
        if self._thread is None or self._thread.pid != os.getpid():
            # At the exit of the interpreter what was made last ends first: the thread, then the engines that it uses.
            _ = self._dataset.engines
            self._thread = _Thread()
        with self._beginning.lock:
            # The order and the places of one epoch, also when two threads begin one at a time.
            batches = list(self._sampler)
            starts = self._dataset.starts
        return _Batches(self._dataset, (batches, starts), self._thread, self._prefetch, pin=self._pin)


class _Beginning:
    """A lock of this process: that of a parent may be held by a thread that a forked child does not have."""

    def __init__(self) -> None:
        self._of = os.getpid(), threading.Lock()

    @property
    def lock(self) -> threading.Lock:
        """The lock."""
        if self._of[0] != os.getpid():
            self._of = os.getpid(), threading.Lock()
        return self._of[1]

    def __reduce__(self) -> tuple[type[_Beginning], tuple[()]]:
        return _Beginning, ()


class _Batches:
    """The batches of one epoch."""

    def __init__(
        self,
        dataset: CropDataset,
        epoch: tuple[list[list[int]], NDArray[np.int64]],
        thread: _Thread,
        prefetch: int,
        *,
        pin: bool,
    ) -> None:
        self._dataset = dataset
        batches, self._starts = epoch
        self._batches = iter(batches)
        self._thread = thread
        self._prefetch = prefetch
        self._pin = pin
        self._changed = threading.Condition()
        self._waiting = 0
        self._ahead: deque[Future[list[torch.Tensor]]] = deque()
        # When it is dropped, or at the exit of the interpreter if it never is: before the engine closes.
        self._stop = weakref.finalize(self, _cancel, self._ahead, os.getpid())

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if self._thread.pid != os.getpid():
            message = "this iteration was begun by the parent process"
            raise vf.ForkSafetyError(message, hint="iterate over the loader anew in the child")
        with self._changed:
            # Several at a time, once half of them are used up: what is begun together is planned together. No more for
            # many threads than for one: more of them than half of that wait until there is something for each.
            while self._stop.alive and not self._ahead and self._waiting > self._prefetch // 2 > 0:
                self._changed.wait()
            busy = len(self._ahead) + self._waiting
            room = self._prefetch + 1 - busy if busy <= self._prefetch // 2 else 0
            room = max(room, 0 if self._ahead else 1)
            while self._stop.alive and room > 0:
                room -= 1
                indices = next(self._batches, None)
                if indices is None:
                    break
                read = self._dataset.read_async(indices, self._starts[indices], pin=self._pin)
                self._ahead.append(self._thread.start(read))
            if not self._ahead:
                raise StopIteration
            future = self._ahead.popleft()
            self._waiting += 1
        try:
            read = future.result()
        except CancelledError:
            raise StopIteration from None  # another thread met an error
        except BaseException:
            future.cancel()
            self._stop()
            raise
        finally:
            with self._changed:
                self._waiting -= 1
                self._changed.notify_all()
        try:
            tensors = self._dataset.converted(read, pin=self._pin)
            if self._dataset.transform is not None:
                return default_collate(self._dataset.items(tensors))
            return self._dataset.like_arrays(tensors)
        except BaseException:
            self._stop()
            raise


def _cancel(ahead: deque[Future[Any]], pid: int) -> None:
    """Stops what is in flight; of the parent's, a forked child lets be."""
    while ahead and pid == os.getpid():
        with contextlib.suppress(IndexError):  # another thread is at it
            ahead.popleft().cancel()


class _Thread:
    """An event loop on a thread of its own, which ends when this is dropped."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=_run, args=(self._loop,), name="voxfetch-crops", daemon=True)
        thread.start()
        weakref.finalize(self, _end, self._loop, thread, self.pid)

    def start(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Starts a coroutine; cancelling the future stops it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
        loop.run_until_complete(_cancel_tasks())
    finally:
        loop.close()


async def _cancel_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread, pid: int) -> None:
    if pid == os.getpid():
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join()
