"""What is read: each workload is a value, and ``plan`` turns it into boxes for one volume.

The boxes depend only on (seed, volume, workload, round), never on the engine or on a library's random generator, so
every engine reads the same boxes in the same order, whatever interpreter it runs in.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

SPATIAL_AXES = "zyx"
PLANE_EXTENT_MAX = 1024
FEW = 8


@dataclass(frozen=True)
class Box:
    """A half-open box of voxels, in the axis order of the stored array."""

    start: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def slices(self) -> tuple[slice, ...]:
        """The box as an index expression."""
        return tuple(slice(s, s + n) for s, n in zip(self.start, self.shape, strict=True))

    def is_aligned_to(self, chunk: tuple[int, ...]) -> bool:
        """Whether the box is exactly one cell of a grid of ``chunk`` voxels."""
        return self.shape == chunk and all(s % c == 0 for s, c in zip(self.start, chunk, strict=True))


@dataclass(frozen=True)
class Workload:
    """One kind of read.

    ``extent`` is the size of a box in voxels along (z, y, x); None is the whole axis, at most ``extent_max``. ``mode``
    says what one sample is: "one" = one read of one box; "each" = ``count`` reads, each timed; "many" = ``count``
    boxes asked for at once, timed together. ``align`` puts starts on multiples of it (voxels). ``part``: one box, the
    volume halved along its longest axis until this many such parts make the whole; ``extent`` says nothing then.
    ``chunk``: a box is one chunk of the volume, whatever its shape is.
    """

    name: str
    what: str
    extent: tuple[int | None, int | None, int | None]
    mode: Literal["one", "each", "many"] = "one"
    count: int = 1
    align: int = 1
    extent_max: int | None = None
    reuse_output: bool = False
    part: int = 1
    chunk: bool = False


_WHOLE = (None, None, None)
WORKLOADS: dict[str, Workload] = {
    w.name: w
    for w in (
        Workload("part64", "a 64th of the volume, from the corner of a shard", _WHOLE, align=512, part=64),
        Workload("part16", "a 16th of the volume, from the corner of a shard", _WHOLE, align=512, part=16),
        Workload("part4", "a quarter of the volume, from the corner of a shard", _WHOLE, align=512, part=4),
        Workload("full", "the whole volume into one new array", _WHOLE),
        Workload("box", "one 256^3 box, unaligned, random", (256, 256, 256)),
        Workload("xy", "one plane z = const, at most 1024^2", (1, None, None), extent_max=PLANE_EXTENT_MAX),
        Workload("xz", "one plane y = const, at most 1024^2", (None, 1, None), extent_max=PLANE_EXTENT_MAX),
        Workload("yz", "one plane x = const, at most 1024^2", (None, None, 1), extent_max=PLANE_EXTENT_MAX),
        Workload("chunk", "one aligned 32^3 box, handle open, one after the other", (32, 32, 32), "each", 200, 32),
        Workload("many", "1,000 random boxes of 48^3 asked for together", (48, 48, 48), "many", 1000),
        Workload("box128", "one 128^3 box, unaligned, random", (128, 128, 128)),
        Workload("one_chunk", "one chunk, handle open, one after the other", _WHOLE, "each", 50, chunk=True),
        Workload("full_reused", "the whole volume into an array used before", _WHOLE, reuse_output=True),
    )
}
#: Names that stand for several workloads.
WORKLOAD_GROUPS = {
    "reads": ("full", "box", "xy", "xz", "yz", "chunk", "many"),
    "parts": ("part64", "part16", "part4", "full"),
    "formats": ("full", "box128", "xy", "one_chunk"),
}


def plan(
    workload: Workload,
    shape: tuple[int, ...],
    axes: str,
    *,
    rounds: int,
    seed: str,
    few: bool = False,
    chunk: tuple[int, ...] | None = None,
) -> list[list[Box]]:
    """The boxes of every round: ``rounds`` + 1 lists, the first for the unmeasured read.

    shape, axes: of the stored array; axes other than z, y, x are read whole. Boxes larger than three quarters of an
    axis are cut to that, so that small volumes work too. Rounds of "one" and "each" read different boxes (an engine
    with a cache of decoded chunks must not meet its own work again), rounds of "many" the same ones. ``few`` cuts
    ``count`` to 8, for tests. ``chunk``: voxels of a chunk, for workloads that read one; those cut short by the end of
    the array are not read.
    """
    rng = random.Random(f"{seed}/{workload.name}/{axes}/{shape}")
    count = min(workload.count, FEW) if few else workload.count
    box_shape = tuple(_extent(workload, axis, size) for axis, size in zip(axes, shape, strict=True))
    for _ in range(workload.part.bit_length() - 1):
        longest = box_shape.index(max(box_shape))
        box_shape = (*box_shape[:longest], box_shape[longest] // 2, *box_shape[longest + 1 :])
    align = (workload.align,) * len(shape)
    if workload.chunk:
        if chunk is None:
            raise ValueError(f"{workload.name}: of which chunks?")
        box_shape = align = chunk
    total = count if workload.mode == "many" else count * (rounds + 1)
    boxes = [Box(start, box_shape) for start in _starts(rng, align, shape, box_shape, total)]
    if workload.mode == "many":
        return [boxes] * (rounds + 1)
    return [boxes[i * count : (i + 1) * count] for i in range(rounds + 1)]


def _extent(workload: Workload, axis: str, size: int) -> int:
    """Voxels of a box along one axis of the stored array."""
    wanted = workload.extent[SPATIAL_AXES.index(axis)] if axis in SPATIAL_AXES else None
    if wanted is None:
        return size if workload.extent_max is None else min(size, workload.extent_max)
    return min(wanted, max(1, size * 3 // 4))


def _starts(
    rng: random.Random, align: tuple[int, ...], shape: tuple[int, ...], box: tuple[int, ...], total: int
) -> list[tuple[int, ...]]:
    """``total`` random starts, distinct as long as there are enough of them."""
    per_axis = [(size - extent) // a + 1 for size, extent, a in zip(shape, box, align, strict=True)]
    available = 1
    for n in per_axis:
        available *= n
    picked = rng.sample(range(available), total) if total <= available else rng.choices(range(available), k=total)
    return [_unravel(i, per_axis, align) for i in picked]


def _unravel(index: int, per_axis: list[int], align: tuple[int, ...]) -> tuple[int, ...]:
    start: list[int] = []
    for n, a in zip(reversed(per_axis), reversed(align), strict=True):
        index, i = divmod(index, n)
        start.append(i * a)
    return tuple(reversed(start))
