"""`BlockSampler`: batches of sample numbers, in an order that keeps samples of one block together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.utils.data import Sampler

from voxfetch.torch.order import batch_ends, epoch_order

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from voxfetch.torch.crops import CropDataset
    from voxfetch.torch.order import Shuffle

__all__ = ["BlockSampler"]


class BlockSampler(Sampler[list[int]]):
    """Batches for `DataLoader(dataset, batch_sampler=BlockSampler(dataset, 16, workers=n), num_workers=n)`.

    Each sample comes exactly once an epoch, in an order that `seed` and the epoch decide. `shuffle`: False (as they
    are numbered), True (all mixed), or "blocks": samples belong to the block of the array that holds their middle;
    blocks come in random order and the samples of `window` blocks at a time are mixed. So a sample is anywhere in the
    epoch as likely as anywhere else, but not independently of the others: a batch has samples of `window` blocks (of
    two windows, where it lies across their border), drawn from them at random, and each block is needed during one
    window only. `block` is its extent in voxels of the first array (None: that of its shards,
    without shards of its chunks).

    Batches are dealt to `workers` in turn, as torch's DataLoader does: each has blocks of its own, and hardly any index
    or chunk is fetched by two. `rank` of `world_size` processes gets its share in the same way; all of them have the
    same number of batches, some of which may be smaller. `drop_last` leaves out what does not fill a batch. Each
    iteration begins the next epoch, also of the dataset.
    """

    def __init__(  # noqa: PLR0913 - as many as torch's own
        self,
        dataset: CropDataset,
        batch_size: int,
        *,
        workers: int = 1,
        shuffle: Shuffle = "blocks",
        seed: int = 0,
        window: int = 16,
        block: Sequence[int] | int | None = None,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Raises `ValueError` for numbers that make no sense, and where there are fewer samples than parts."""
        if shuffle not in ("blocks", True, False):
            raise ValueError(f'shuffle must be "blocks", True or False, not {shuffle!r}')
        counts = {"batch_size": batch_size, "window": window, "world_size": world_size}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if seed < 0 or not 0 <= rank < world_size:
            raise ValueError(f"seed must not be negative, and 0 <= rank < world_size: {seed}, {rank}, {world_size}")
        self._dataset = dataset
        self._batch_size = batch_size
        self._workers = max(workers, 1)  # 0 is torch's word for the process itself
        self._shuffle: Shuffle = shuffle
        self._seed = seed
        self._window = window
        self._block = block
        self._drop_last = drop_last
        self._rank = rank
        self._parts = self._workers * world_size
        self._epoch = 0
        if 0 < len(dataset) < self._parts and not drop_last:
            raise ValueError(f"{len(dataset)} samples are too few for {self._parts} workers in all")
        self._ends(0)  # raises what is wrong with them
        dataset.blocks(block)  # raises what is wrong with it

    def __len__(self) -> int:
        """Number of batches an epoch."""
        return self._workers * len(self._ends(0))

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration begins; without it they are counted from 0."""
        if epoch < 0:
            raise ValueError(f"epoch must not be negative: {epoch}")
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        epoch, self._epoch = self._epoch, self._epoch + 1
        self._dataset.set_epoch(epoch)
        blocks = self._dataset.blocks(self._block)
        first = self._rank * self._workers
        parts = range(first, first + self._workers)
        orders = [
            epoch_order(blocks, self._shuffle, self._window, (self._seed, epoch), (p, self._parts)) for p in parts
        ]
        ends = [[0, *self._ends(part)] for part in parts]
        # One batch of each worker in turn.
        for number in range(1, len(ends[0])):
            for order, end in zip(orders, ends, strict=True):
                yield order[end[number - 1] : end[number]].tolist()

    def _ends(self, part: int) -> list[int]:
        return batch_ends(len(self._dataset), self._batch_size, self._parts, part, drop_last=self._drop_last)
