"""Where the crops of an epoch lie and in which order they come. Numbers in, numbers out: no array, no torch."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["RandomStarts", "Shuffle", "batch_ends", "epoch_order", "grid_starts"]

Shuffle = Literal["blocks"] | bool


def epoch_order(
    blocks: NDArray[np.int64], shuffle: Shuffle, window: int, seed: tuple[int, int], part: tuple[int, int]
) -> NDArray[np.int64]:
    """Returns the samples of one part of an epoch, in order; the parts together have each sample exactly once.

    `blocks` holds the block of each sample, a number >= 0; `seed` is (seed, epoch), the same for all parts; `part` is
    (number, of how many), whose sizes differ by one at most. With "blocks" the samples of a block stay together, in a
    random order of blocks; then those of `window` blocks are mixed.
    """
    random = np.random.default_rng(seed)
    count = len(blocks)
    order = random.permutation(count) if shuffle else np.arange(count)
    if shuffle == "blocks":
        places = random.permutation(int(blocks.max(initial=-1)) + 1)
        order = order[np.argsort(places[blocks[order]], kind="stable")]
    number, parts = part
    mine = order[count * number // parts : count * (number + 1) // parts]
    if shuffle == "blocks" and len(mine):
        windows = np.cumsum(np.diff(blocks[mine], prepend=blocks[mine[0]]) != 0) // window
        mixed = random.permutation(len(mine))
        mine = mine[mixed[np.argsort(windows[mixed], kind="stable")]]
    return mine.astype(np.int64, copy=False)


def batch_ends(count: int, batch_size: int, parts: int, number: int, *, drop_last: bool) -> list[int]:
    """Returns the ends of the batches of part `number` of `count` samples in `parts` parts.

    Each part has the same number of batches: where that needs one more than a part could fill, its batches are smaller.
    Raises `ValueError` where it would have to be empty.
    """
    mine = count * (number + 1) // parts - count * number // parts
    if drop_last:
        return [batch_size * (batch + 1) for batch in range(count // parts // batch_size)]
    most = -(-count // parts)
    batches = -(-most // batch_size)
    if count // parts < batches:
        message = f"{count} samples in {parts} parts are batches of {batch_size} for some and none for others"
        raise ValueError(f"{message}: drop_last=True leaves some out")
    if (batches - 1) * batch_size < mine:
        return [min(batch_size * (batch + 1), mine) for batch in range(batches)]
    return [mine * (batch + 1) // batches for batch in range(batches)]


def grid_starts(shape: Sequence[int], crop: Sequence[int], step: Sequence[int], *, inside: bool) -> NDArray[np.int64]:
    """Returns the starts (N, ndim) of crops that lie side by side and cover an array of `shape`, in C order.

    The last ones reach outside, or with `inside` end where the array does (moved to multiples of `step`) and overlap.
    """
    axes: list[list[int]] = []
    for extent, size, multiple in zip(shape, crop, step, strict=True):
        places = range(0, extent, size)
        last = max(extent - size, 0) // multiple * multiple
        axes.append(sorted({min(place, last) for place in places}) if inside else list(places))
    return np.array(list(itertools.product(*axes)), np.int64).reshape(-1, len(axes))


@dataclass(frozen=True, slots=True, eq=False)
class RandomStarts:
    """Random starts of each epoch: the same for the same seed and epoch. All in voxels of the first array.

    Crops lie in the box from `low` to `high` (half-open), at multiples of `step`. With `mask` (bool, one value for
    `cell` voxels) the middle of each crop is drawn from where it is True in the box, each voxel as likely as any other;
    crops that would reach out of the box are moved into it.
    """

    count: int
    seed: int
    crop: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    step: tuple[int, ...]
    mask: NDArray[np.bool_] | None = None
    cell: tuple[int, ...] = ()

    def __call__(self, epoch: int) -> NDArray[np.int64]:
        """Returns the starts (count, ndim) of an epoch."""
        random = np.random.default_rng((self.seed, epoch))
        step, crop = np.array(self.step, np.int64), np.array(self.crop, np.int64)
        first = -(-np.array(self.low, np.int64) // step)
        last = (np.array(self.high, np.int64) - crop) // step
        size = (self.count, len(self.crop))
        if self.mask is None:
            return random.integers(first, last, size, np.int64, endpoint=True) * step
        where = np.flatnonzero(self.mask)
        cells = np.stack(np.unravel_index(where[random.integers(len(where), size=self.count)], self.mask.shape), 1)
        middle = cells * np.array(self.cell, np.int64) + random.integers(0, self.cell, size)
        return np.clip((middle - crop // 2) // step, first, last) * step
