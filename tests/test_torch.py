"""Crops for PyTorch: the voxels that numpy cuts out, each sample once an epoch, read ahead, in any kind of worker."""

from __future__ import annotations

import asyncio
import gc
import itertools
import pickle
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr

import voxfetch as vf
from tests.servers import objects_in
from tests.servers.faulty import Fault, FaultyServer, status

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

from voxfetch.torch import BlockSampler, CropDataset, CropLoader  # noqa: E402
from voxfetch.torch.order import batch_ends  # noqa: E402

SHAPE = (96, 80, 112)
CROP = (16, 20, 24)
FAST = vf.RetryPolicy(max_attempts=2, base_s=0.01, cap_s=0.02, idle_timeout_s=2)


@pytest.fixture(scope="module")
def image(tmp_path_factory, write_array, make_values):
    """Noise in chunks of 16^3, shards of 48^3."""
    path = tmp_path_factory.mktemp("crops") / "image"
    names = {"dimension_names": ("z", "y", "x")}
    return write_array(path, make_values(SHAPE, "uint16"), chunks=(16,) * 3, shards=(48,) * 3, fill_value=9, **names)


@pytest.fixture(scope="module")
def labels(tmp_path_factory, write_array, make_values):
    """At half the resolution."""
    path = tmp_path_factory.mktemp("crops") / "labels"
    half = tuple(extent // 2 for extent in SHAPE)
    names = {"dimension_names": ("z", "y", "x")}
    return write_array(path, make_values(half, "uint64", 1), chunks=(8,) * 3, shards=(24,) * 3, **names)


@pytest.fixture(scope="module")
def big(tmp_path_factory, write_array, make_values):
    """Shards that are too large to be fetched whole."""
    path = tmp_path_factory.mktemp("crops") / "big"
    return write_array(path, make_values((240,) * 3, "uint16"), chunks=(16,) * 3, shards=(80,) * 3, compressors=None)


@pytest.fixture
def served(image):
    """The image on a server, and an engine for it that gives up soon."""
    with FaultyServer(objects_in(image.path, "")) as server, vf.Engine(decode_threads=2, retry=FAST) as engine:
        yield server, vf.open_array(server.url, engine=engine)


def cut(expected, start, shape, fill=None):
    """By numpy, with `fill` outside."""
    if fill is not None:
        expected = np.pad(expected, 64, constant_values=fill)
        start = [place + 64 for place in start]
    return expected[tuple(slice(place, place + extent) for place, extent in zip(start, shape, strict=True))]


def numbered(array, count=50, **options):
    """Random crops whose items carry no number: batches are compared with the places of the sampler."""
    return CropDataset.random(array, CROP, count, seed=4, **options)


def same_order(dataset, batch_size, **options):
    """The batches that a loader with these options gives, by number."""
    return list(BlockSampler(dataset, batch_size, **options))


# ------------------------------------------------------------------------------------------------------------- dataset


def test_items_are_the_voxels(image):
    starts = [[0, 0, 0], [3, 7, 11], [80, 60, 88]]
    crops = CropDataset(image.open(), CROP, starts)
    assert len(crops) == 3
    for number, start in enumerate(starts):
        item = crops[number]
        assert item.dtype == torch.uint16
        np.testing.assert_array_equal(item.numpy(), cut(image.expected, start, CROP))
    np.testing.assert_array_equal(crops[-1].numpy(), crops[2].numpy())
    assert [one.shape for one in crops] == [CROP] * 3  # ends where it ends


def test_outside_is_refused_at_once_or_filled(image):
    starts = np.array([[0, 0, 0], [-5, 70, 100], [90, -3, 0]])
    with pytest.raises(vf.SelectionError, match=r"sample 1 at \(-5, 70, 100\) reaches outside.* and 1 more error"):
        CropDataset(image.open(), CROP, starts)
    crops = CropDataset(image.open(), CROP, starts, bounds="fill")
    for number, start in enumerate(starts):
        np.testing.assert_array_equal(crops[number].numpy(), cut(image.expected, start, CROP, fill=9))


def test_several_arrays_on_one_grid(image, labels):
    pair = {"image": image.open(), "labels": labels.open()}
    starts = [[2, 4, 6], [80, 60, 88]]
    crops = CropDataset(pair, CROP, starts, factors={"labels": 2}, dtype={"image": torch.float32})
    for number, start in enumerate(starts):
        item = crops[number]
        assert (item["image"].dtype, item["labels"].dtype) == (torch.float32, torch.uint64)
        np.testing.assert_array_equal(item["image"].numpy(), cut(image.expected, start, CROP))
        half = cut(labels.expected, np.array(start) // 2, (8, 10, 12))
        np.testing.assert_array_equal(item["labels"].numpy(), half)
    as_tuple = CropDataset(tuple(pair.values()), CROP, starts, factors=(1, 2))[1]
    assert isinstance(as_tuple, tuple)
    np.testing.assert_array_equal(as_tuple[1].numpy(), half)
    with pytest.raises(vf.SelectionError, match=r"sample 1 at \(2, 3, 4\) is no multiple of \(2, 2, 2\)"):
        CropDataset(pair, CROP, [[0, 0, 0], [2, 3, 4]], factors={"labels": 2})
    assert (CropDataset.random(pair, CROP, 40, factors={"labels": 2}).starts % 2 == 0).all()
    batch = next(iter(CropLoader(crops, 2, shuffle=False)))
    np.testing.assert_array_equal(batch["labels"][1].numpy(), half)


def test_an_array_may_lack_named_axes(tmp_path, image, write_array, make_values):
    values = make_values((2, *SHAPE), "uint8", 2)
    path = tmp_path / "channels"
    channels = write_array(path, values, chunks=(1, 16, 16, 16), dimension_names=("c", "z", "y", "x"))
    crops = CropDataset({"raw": channels.open(), "mask": image.open()}, (2, *CROP), [[0, 5, 6, 7]])
    np.testing.assert_array_equal(crops[0]["raw"].numpy(), cut(values, (0, 5, 6, 7), (2, *CROP)))
    np.testing.assert_array_equal(crops[0]["mask"].numpy(), cut(image.expected, (5, 6, 7), CROP))
    with pytest.raises(vf.SelectionError, match="by name, in the same order"):
        CropDataset([image.open(), channels.open()], CROP)


def test_absolute_coordinates(tmp_path, make_values):
    pytest.importorskip("tensorstore")
    from tests.precomputed import write_scale

    values = make_values((40, 36, 20, 1), "uint16")
    write_scale(tmp_path, values, chunk_size=(16, 16, 16), voxel_offset=(-16, 8, 3))
    array = vf.open_image(tmp_path).level(0)
    crops = CropDataset(array, (8, 8, 8, 1), [[-16, 8, 3, 0], [-3, 20, 15, 0]], absolute=True)
    np.testing.assert_array_equal(crops[1].numpy(), values[13:21, 12:20, 12:20])
    assert crops.blocks(16).tolist() == [0, 1]
    with pytest.raises(vf.SelectionError, match=r"sample 0 at \(-17, 8, 3, 0\)"):
        CropDataset(array, (8, 8, 8, 1), [[-17, 8, 3, 0]], absolute=True)
    covered = CropDataset(array, (20, 20, 20, 1), absolute=True)
    assert covered.starts[0].tolist() == [-16, 8, 3, 0]


@pytest.mark.parametrize("bounds", ["raise", "fill"])
def test_without_starts_the_array_is_covered(image, bounds):
    crops = CropDataset(image.open(), CROP, bounds=bounds)
    seen = np.zeros(SHAPE, bool)
    for start in crops.starts:
        seen[tuple(slice(place, place + extent) for place, extent in zip(start, CROP, strict=True))] = True
    assert seen.all()
    assert len(crops) == 6 * 4 * 5
    assert (((crops.starts + CROP) <= SHAPE).all()) == (bounds == "raise")


def test_random_crops(image):
    crops = CropDataset.random(image.open(), CROP, 500, seed=1, region=((10, 0, 20), (60, 80, 112)))
    first = crops.starts
    assert (first >= (10, 0, 20)).all()
    assert (first + CROP <= (60, 80, 112)).all()
    assert first.min(0).tolist() == [10, 0, 20], "the whole region is used"
    assert (first + CROP).max(0).tolist() == [60, 80, 112]
    crops.set_epoch(1)
    assert (crops.starts != first).any()
    crops.set_epoch(0)
    np.testing.assert_array_equal(crops.starts, first)
    with pytest.raises(vf.SelectionError, match="no crop of"):
        CropDataset.random(image.open(), CROP, 5, region=((0, 0, 0), (15, 80, 112)))


def test_random_crops_of_a_mask(image):
    mask = np.zeros((24, 20, 28), bool)  # cells of 4^3
    mask[10, 10, 10] = mask[12, 12:14, 3] = True
    crops = CropDataset.random(image.open(), CROP, 300, mask=mask)
    middle = (crops.starts + np.array(CROP) // 2) // 4
    assert {tuple(cell) for cell in middle.tolist()} == {(10, 10, 10), (12, 12, 3), (12, 13, 3)}
    with pytest.raises(ValueError, match="does not cover"):
        CropDataset.random(image.open(), CROP, 3, mask=np.ones((60, 20, 28)))


def test_a_batch_is_one_plan(image):
    """Overlapping crops of two arrays: each chunk is decoded once, and the engine is asked once."""
    with vf.Engine() as engine:
        one, two = image.open(engine=engine), image.open(engine=engine)
        crops = CropDataset((one, two), (16, 16, 16), [[16, 16, 16], [16, 16, 20], [16, 16, 32]])
        batch = crops.__getitems__([0, 1, 2])
        stats = engine.stats()
        assert (stats.chunks_decoded, stats.bytes_decoded) == (2 * 2, 2 * 2 * 16**3 * 2)
    np.testing.assert_array_equal(batch[2][1].numpy(), cut(image.expected, (16, 16, 32), (16, 16, 16)))


def test_boxes_are_a_selection_of_read_all(image):
    array = image.open()
    out = torch.empty((2, *CROP), dtype=torch.uint16)
    boxes = vf.Boxes([[1, 2, 3], [4, 5, 6]], CROP, out=out)
    filled, same, plane = vf.read_all([(array, vf.Boxes([[-3, 0, 0]], 8, bounds="fill")), (array, boxes), (array, 5)])
    assert same is out
    np.testing.assert_array_equal(filled[0], cut(image.expected, (-3, 0, 0), (8, 8, 8), fill=9))
    np.testing.assert_array_equal(out[1].numpy(), cut(image.expected, (4, 5, 6), CROP))
    np.testing.assert_array_equal(plane, image.expected[5])


def test_pickles_small_and_follows_the_epoch(image):
    crops = CropDataset.random(image.open(), CROP, 100_000, seed=3)
    data = pickle.dumps(crops)
    assert len(data) < 8_000
    again = pickle.loads(data)
    again.set_epoch(2)
    crops.set_epoch(2)
    np.testing.assert_array_equal(again.starts, crops.starts)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"starts": [[0.5, 0, 0]]}, ValueError, r"ints \(N, 3\), not float64"),
        ({"starts": [[0, 0]]}, ValueError, r"not int64 \(1, 2\)"),
        ({"bounds": "clip"}, ValueError, "bounds must be"),
        ({"shape": (4, 4)}, ValueError, "shape must be an int or 3"),
        ({"shape": 0}, ValueError, "at least 1"),
        ({"arrays": np.zeros(3)}, TypeError, "voxfetch Array"),
        ({"dtype": {"labels": torch.int64}}, ValueError, "labels"),
        ({"dtype": "float32"}, TypeError, "one of torch, such as torch.float32, not 'float32'"),
        ({"dtype": np.float32}, TypeError, "one of torch"),
        ({"factors": 3}, ValueError, "no multiple of the factors"),
    ],
)
def test_bad_arguments(image, arguments, error, words):
    with pytest.raises(error, match=words):
        CropDataset(**({"arrays": image.open(), "shape": CROP} | arguments))


def test_a_type_that_torch_has_not(cases):
    with pytest.raises(vf.UnsupportedError, match="torch has no type for datetime64"):
        CropDataset(cases("v2 dates").open(), 4)


# -------------------------------------------------------------------------------------------------- out= and DLPack


def test_tensors_are_memory_to_read_into(image):
    array, box = image.open(), np.s_[5:21, 6:26, 7:31]
    tensor = torch.zeros(CROP, dtype=torch.uint16)
    assert array.read(box, out=tensor) is tensor
    np.testing.assert_array_equal(tensor.numpy(), image.expected[box])
    backing = torch.zeros((24, 40, 16), dtype=torch.uint16)
    array.read(box, out=backing[:, ::2].permute(2, 1, 0))
    np.testing.assert_array_equal(backing.numpy()[:, ::2].transpose(2, 1, 0), image.expected[box])
    assert not backing[:, 1::2].to(torch.int32).any(), "the rest is not touched"
    result = array[box]
    shared = torch.from_dlpack(result)
    assert shared.data_ptr() == result.ctypes.data


class OnGpu:
    """What a tensor on a GPU says of itself."""

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, **_):
        raise BufferError("memory of a CUDA device")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.zeros(CROP), "type float32"),
        (lambda: torch.zeros(CROP[::-1], dtype=torch.uint16), r"shape \(24, 20, 16\)"),
        (lambda: torch.zeros(CROP, requires_grad=True), "require gradient"),
        (lambda: torch.zeros(CROP, dtype=torch.uint16, device="meta"), "not Tensor: .*meta"),
        (lambda: torch.zeros((1, 20, 24), dtype=torch.uint16).expand(CROP), "share memory"),
        (OnGpu, "on the CPU, not OnGpu"),
    ],
)
def test_other_tensors_are_refused(image, make, words):
    with pytest.raises(vf.SelectionError, match=words):
        image.open().read(np.s_[5:21, 6:26, 7:31], out=make())


# --------------------------------------------------------------------------------------------------------------- order


@pytest.mark.parametrize("shuffle", ["blocks", True, False])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("world_size", [1, 4])
@pytest.mark.parametrize(("count", "batch_size"), [(100, 7), (37, 9), (12, 1)])
def test_every_sample_once_across_ranks_and_workers(image, shuffle, workers, world_size, count, batch_size):
    crops = numbered(image.open(), count)
    ranks = []
    for rank in range(world_size):
        sampler = BlockSampler(
            crops, batch_size, workers=workers, shuffle=shuffle, seed=5, rank=rank, world_size=world_size
        )
        ranks.append(list(sampler))
        assert len(ranks[-1]) == len(sampler)
        assert max(map(len, ranks[-1])) <= batch_size
        assert min(map(len, ranks[-1])) >= 1
    assert len({len(batches) for batches in ranks}) == 1, "all ranks make as many steps"
    samples = [sample for batches in ranks for batch in batches for sample in batch]
    assert sorted(samples) == list(range(count))
    assert (samples == list(range(count))) or shuffle or workers > 1


def test_ends_of_batches():
    assert batch_ends(10, 4, 1, 0, drop_last=False) == [4, 8, 10]
    assert batch_ends(10, 4, 1, 0, drop_last=True) == [4, 8]
    assert batch_ends(9, 4, 2, 0, drop_last=False) == [2, 4]  # the other one has 5
    assert batch_ends(9, 4, 2, 1, drop_last=False) == [4, 5]
    assert batch_ends(17, 4, 2, 0, drop_last=True) == batch_ends(17, 4, 2, 1, drop_last=True) == [4, 8]


def test_blocks_stay_together(image):
    """Samples of a block come within one window of blocks, whose order and mixture are random."""
    crops = numbered(image.open(), 600)
    blocks = crops.blocks(24)
    middles = (crops.starts + np.array(CROP) // 2) // 24
    assert len(np.unique(middles, axis=0)) == blocks.max() + 1 > 40
    for one, other in ((0, 1), (5, 300)):
        assert (blocks[one] == blocks[other]) == (middles[one] == middles[other]).all()
    order = np.concatenate(same_order(crops, 10, window=4, block=24, seed=1))
    places = {block: np.flatnonzero(blocks[order] == block) for block in range(blocks.max() + 1)}
    in_order = sorted(places, key=lambda block: places[block].min())
    ends = 0
    windows = 0
    while ends < 600:
        here = set(blocks[order[ends : ends + 1]])
        begin = ends
        # A window ends where all that has begun has ended.
        while ends < 600 and (ends == begin or any(places[block].max() >= ends for block in here)):
            here.add(blocks[order[ends]])
            ends += 1
        assert len(here) <= 4
        windows += 1
    assert windows >= len(in_order) / 4
    firsts = blocks[order[:60]]
    assert (np.diff(firsts) != 0).mean() > 0.5, "mixed inside a window"


def test_workers_have_blocks_of_their_own(image):
    """DataLoader gives batch i to worker i % n; two of them share the block in which one's part ends at most."""
    crops = numbered(image.open(), 600)
    blocks, batches = crops.blocks(24), same_order(crops, 10, workers=4, block=24)
    of_worker = [set(blocks[np.concatenate(batches[worker::4])]) for worker in range(4)]
    assert sum(map(len, of_worker)) <= len(set(blocks)) + 3


def test_order_depends_on_seed_and_epoch_only(image):
    crops = CropDataset(image.open(), CROP)
    orders = [same_order(crops, 8, seed=seed) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    sampler = BlockSampler(crops, 8, seed=1)
    epochs = [list(sampler) for _ in range(3)]
    assert epochs[0] == orders[0]
    assert epochs[0] != epochs[1] != epochs[2]
    sampler.set_epoch(1)
    assert list(sampler) == epochs[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"shuffle": "rows"}, "shuffle must be"),
        ({"window": 0}, "window"),
        ({"rank": 2, "world_size": 2}, "rank"),
        ({"world_size": 51}, "too few"),
        ({"prefetch": -1}, "prefetch"),
        ({"shard_block": (4, 4)}, "block"),
    ],
)
def test_bad_options(image, options, words):
    with pytest.raises(ValueError, match=words):
        CropLoader(numbered(image.open()), **({"batch_size": 4} | options))


# -------------------------------------------------------------------------------------------------------------- loader


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("prefetch", [None, 0, 3])
def test_batches_are_the_voxels(image, served, remote, prefetch):
    crops = numbered(served[1] if remote else image.open())
    loader = CropLoader(crops, 8, prefetch=prefetch, seed=2)
    assert len(loader) == 7
    for epoch in range(2):
        order = BlockSampler(crops, 8, seed=2)
        order.set_epoch(epoch)
        for batch, numbers in zip(loader, order, strict=True):
            assert batch.shape == (len(numbers), *CROP)
            for crop, start in zip(batch.numpy(), crops.starts[numbers], strict=True):
                np.testing.assert_array_equal(crop, cut(image.expected, start, CROP))


def test_iterations_at_the_same_time(image):
    """Each keeps the places of its epoch; also inside a running event loop."""
    crops = numbered(image.open(), 64)
    loader = CropLoader(crops, 4, shuffle=False, prefetch=1)

    async def main():
        first = iter(loader)
        got = [next(first)]
        second = iter(loader)
        other = [next(second)]
        return [*got, *first], [*other, *second]

    for epoch, got in enumerate(asyncio.run(main())):
        crops.set_epoch(epoch)
        for crop, start in zip(torch.cat(got).numpy(), crops.starts, strict=True):
            np.testing.assert_array_equal(crop, cut(image.expected, start, CROP))


def test_transform_and_type(image):
    crops = CropDataset(image.open(), CROP, bounds="fill", dtype=torch.int32, transform=lambda item: (item + 1, 3))
    voxels, threes = next(iter(CropLoader(crops, 4, shuffle=False)))
    assert threes.tolist() == [3] * 4
    np.testing.assert_array_equal(voxels[0].numpy(), cut(image.expected, (0, 0, 0), CROP).astype("i4") + 1)
    assert next(iter(DataLoader(crops, 4)))[0].shape == (4, *CROP)


def test_pinned_memory_needs_cuda(image, monkeypatch):
    with pytest.raises(vf.UnsupportedError, match="pin_memory=True needs CUDA"):
        CropLoader(numbered(image.open()), 4, pin_memory=True)
    # As if there were: what is asked of torch.
    asked = []
    empty = torch.empty

    def pinned(shape, *, dtype, pin_memory):
        asked.append((shape, dtype, pin_memory))
        return empty(shape, dtype=dtype)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", pinned)
    crops = CropDataset(image.open(), CROP, [[1, 2, 3], [4, 5, 6]], dtype=torch.float32)
    batch = next(iter(CropLoader(crops, 2, pin_memory=True, shuffle=False)))
    assert asked == [((2, *CROP), torch.uint16, True), ((2, *CROP), torch.float32, True)]
    np.testing.assert_array_equal(batch[1].numpy(), cut(image.expected, (4, 5, 6), CROP))


def test_blocks_are_read_while_the_consumer_works(image):
    """For inference: what is in flight is decoded while the first block is used."""
    with vf.Engine(decode_threads=2) as engine:
        blocks = iter(image.open(engine=engine).blocks(16, prefetch=9))
        next(blocks)
        deadline = time.monotonic() + 5
        while engine.stats().chunks_decoded < 10 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert engine.stats().chunks_decoded == 10
        del blocks


def data_requests(server):
    return [request for request in server.requests if not request.key.endswith("zarr.json")]


def test_reads_ahead_while_the_consumer_works(served):
    """While one batch is used, those after it are fetched; no more than `prefetch` of them."""
    server, array = served
    crops = numbered(array, 80)
    server.latency_s = 0.05
    batches = iter(CropLoader(crops, 4, prefetch=3, shuffle=True))
    next(batches)
    time.sleep(1)
    before = len(data_requests(server))
    server.rule = lambda request: status(500)
    for _ in range(3):
        next(batches)  # they came before the store failed
    with pytest.raises(vf.StoreError, match="sample"):
        next(batches)
    assert before < len(data_requests(server))


@pytest.mark.parametrize("how", ["break", "error", "dropped"])
def test_an_iteration_left_early_stops(big, how):
    # Two requests at a time: what is in flight takes seconds.
    with FaultyServer(objects_in(big.path, ""), latency_s=0.05) as server, vf.Engine(max_requests=2) as engine:
        crops = CropDataset.random(vf.open_array(server.url, engine=engine), 24, 200)
        leave_early(server, CropLoader(crops, 4, prefetch=8, shuffle=True), how)


def leave_early(server, loader, how):
    class ConsumerError(Exception):
        pass

    def consume(loader):
        for _ in loader:
            if how == "error":
                raise ConsumerError
            return

    if how == "error":
        with pytest.raises(ConsumerError):
            consume(loader)
    elif how == "break":
        consume(loader)
    else:
        batches = iter(loader)
        next(batches)
        del batches
    gc.collect()
    time.sleep(0.2)
    before = len(server.requests)
    time.sleep(0.4)
    assert len(server.requests) == before
    threads = weakref.ref(loader._thread)
    del loader
    gc.collect()
    assert threads() is None
    assert not [one for one in threading.enumerate() if one.name == "voxfetch-crops"]


def test_memory_of_cancelled_batches_is_freed(image, monkeypatch):
    """Also where a worker still writes to it when the iteration ends."""
    made = []
    empty = np.empty

    def watched(*arguments, **keywords):
        array = empty(*arguments, **keywords)
        if array.shape[1:] == CROP:
            made.append(weakref.ref(array))
        return array

    loader = CropLoader(numbered(image.open(), 400), 40)
    monkeypatch.setattr("voxfetch.reads.np.empty", watched)
    for _ in loader:
        break
    monkeypatch.undo()
    del _
    assert len(made) > 1
    deadline = time.monotonic() + 5
    while any(one() is not None for one in made) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.02)
    assert not [one for one in made if one() is not None]


def test_threads_share_an_iteration(big):
    """Eight consumers of one loader: each sample once, and hardly a byte more is fetched than for one."""
    with FaultyServer(objects_in(big.path, "")) as server:
        nbytes = []
        for consumers in (1, 8):
            with vf.Engine() as engine:
                crops = CropDataset.random(vf.open_array(server.url, engine=engine), 24, 240, seed=4)
                server.sent_nbytes = 0
                batches = iter(CropLoader(crops, 8, window=1))
                with ThreadPoolExecutor(consumers) as threads:
                    parts = list(threads.map(lambda _, b=batches: list(b), range(consumers)))
                nbytes.append(server.sent_nbytes)
            got = sorted(crop.tobytes() for part in parts for batch in part for crop in batch.numpy())
            assert got == sorted(cut(big.expected, start, (24,) * 3).tobytes() for start in crops.starts)
    assert nbytes[1] <= 1.1 * nbytes[0], nbytes


def test_batches_are_begun_together_for_many_threads_too(image, monkeypatch):
    begun = []
    monkeypatch.setattr(
        CropDataset,
        "read_async",
        lambda *given, read=CropDataset.read_async, **how: begun.append(threading.get_ident()) or read(*given, **how),
    )
    crops = CropDataset.random(vf.open_array(image.path), CROP, 128)
    batches = iter(CropLoader(crops, 1, prefetch=8))
    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(lambda _: sum(map(len, batches)), range(8))) == 128
    groups = [len(list(group)) for _, group in itertools.groupby(begun)]
    assert sum(groups) == 128
    assert min(groups[:-1]) >= 5, "one by one, they are planned one by one"


# -------------------------------------------------------------------------------------------------------------- errors


def broken(image, tmp_path):
    """A copy in which the bytes of one shard are damaged, all but its index."""
    import shutil

    path = tmp_path / "broken"
    shutil.copytree(image.path, path)
    shard = path / "c" / "1" / "0" / "1"
    data = bytearray(shard.read_bytes())
    index_nbytes = 27 * 16 + 4
    data[: len(data) - index_nbytes] = bytes(len(data) - index_nbytes)
    shard.write_bytes(data)
    return path


@pytest.mark.parametrize("reader", ["loader", "dataset", "torch"])
def test_damaged_data_names_the_sample(image, tmp_path, reader):
    starts = [[0, 0, 0], [0, 50, 0], [60, 5, 60], [60, 50, 10]]
    crops = CropDataset(vf.open_array(broken(image, tmp_path)), CROP, starts)
    read = {
        "loader": lambda: list(CropLoader(crops, 4, shuffle=False)),
        "dataset": lambda: crops.__getitems__([0, 1, 2, 3]),
        "torch": lambda: list(DataLoader(crops, 4)),
    }[reader]
    with pytest.raises(vf.DataError, match=r"sample 2 at \(60, 5, 60\): ") as caught:
        read()
    assert caught.value.key.endswith("c/1/0/1")
    assert pickle.loads(pickle.dumps(caught.value)).message == caught.value.message
    assert len(list(CropLoader(CropDataset(vf.open_array(broken(image, tmp_path / "x")), CROP, starts[:2])))) == 2


def test_a_store_that_dies_names_the_sample(served):
    server, array = served
    crops = CropDataset(array, CROP, [[0, 0, 0], [60, 5, 60]])
    loader = CropLoader(crops, 1, shuffle=False, prefetch=0)
    batches = iter(loader)
    next(batches)
    server.rule = lambda request: Fault(reset=-1)
    with pytest.raises(vf.StoreError, match=r"sample 1 at \(60, 5, 60\): "):
        next(batches)
    assert list(batches) == []
    server.rule = lambda request: None
    assert len(list(loader)) == 2, "the loader is as good as new"


def test_an_array_that_changes_is_read_as_it_is_now(served, image):
    """A shard is replaced during the epoch: its index is read again, and no batch mixes both."""
    server, array = served
    crops = CropDataset(array, CROP, [[0, 0, 0], [20, 20, 20]])
    batches = iter(CropLoader(crops, 1, shuffle=False, prefetch=0))
    next(batches)
    other = objects_in(image.path, "")["c/1/1/1"]
    server.put("c/0/0/0", other)
    got = next(batches)[0].numpy()
    now = np.full((48, 48, 48), 9, "u2")
    now[:48, :32, :48] = image.expected[48:96, 48:80, 48:96]
    np.testing.assert_array_equal(got, now[20:36, 20:40, 20:44])


# ----------------------------------------------------------------------------------------------------------- processes

PRELUDE = """
import faulthandler, os, signal, sys, threading, time, warnings
import numpy as np
import torch
from torch.utils.data import DataLoader
import voxfetch as vf
from voxfetch.torch import BlockSampler, CropDataset, CropLoader

warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of fork with threads
torch.set_num_threads(1)
faulthandler.register(signal.SIGALRM, chain=True)
signal.alarm(40)
source, CROP = sys.argv[1], (16, 20, 24)
"""


def run(code, source):
    """A script that prints `done`, and nothing to stderr."""
    arguments = [sys.executable, "-c", PRELUDE + code, str(source)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.endswith("done\n")
    return done.stdout


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_torch(served, image, tmp_path, method):
    """Two epochs of the same workers, after the parent has read; random crops follow the epoch."""
    script = tmp_path / "script.py"
    code = f"""
def main():
    array = vf.open_array(source)
    crops = CropDataset.random(array, CROP, 40, seed=4)
    expected = array[...]
    sampler = BlockSampler(crops, 4, workers=2, seed=1)
    loader = DataLoader(
        crops, batch_sampler=sampler, num_workers=2, persistent_workers=True, multiprocessing_context="{method}"
    )
    places = []
    for epoch in range(2):
        order = BlockSampler(crops, 4, workers=2, seed=1)
        order.set_epoch(epoch)
        for batch, numbers in zip(loader, order, strict=True):
            for crop, start in zip(batch.numpy(), crops.starts[numbers], strict=True):
                cut = expected[tuple(slice(s, s + n) for s, n in zip(start, CROP))]
                np.testing.assert_array_equal(crop, cut)
        places.append(crops.starts)
    assert (places[0] != places[1]).any()
    np.testing.assert_array_equal(crops[3].numpy(), crops[3].numpy())  # the parent reads on

if __name__ == "__main__":
    main()
    print("done")
"""
    script.write_text(PRELUDE + code)
    arguments = [sys.executable, str(script), served[0].url]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=55, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "done\n"), done.stderr


def test_a_child_begins_an_epoch_while_its_parent_does(image):
    """The lock of the parent, held by a thread that the child does not have."""
    code = """
loader = CropLoader(CropDataset(vf.open_array(source), CROP, [[0, 0, 0], [1, 2, 3]]), 2)
loader._beginning.lock.acquire()
child = os.fork()
if child == 0:
    os._exit(0 if sum(map(len, loader)) == 2 else 1)
assert os.waitpid(child, 0)[1] == 0
print("done")
"""
    run(code, image.path)


def test_a_loader_pickles(image):
    loader = CropLoader(CropDataset(vf.open_array(image.path), CROP, [[0, 0, 0], [1, 2, 3]]), 2, shuffle=False)
    before = [batch.numpy() for batch in loader]
    after = [batch.numpy() for batch in pickle.loads(pickle.dumps(loader))]
    np.testing.assert_array_equal(before, after)


def test_a_part_of_a_dataset_is_no_dataset_of_crops(image):
    crops = CropDataset(vf.open_array(image.path), CROP, [[0, 0, 0], [1, 2, 3]])
    with pytest.raises(TypeError, match="a CropLoader reads a CropDataset, not Subset"):
        CropLoader(torch.utils.data.Subset(crops, [0]))


def test_workers_of_torch_hardly_fetch_twice(big):
    """Eight processes with blocks of their own, against one."""
    with FaultyServer(objects_in(big.path, "")) as server:
        crops = CropDataset.random(vf.open_array(server.url), 24, 240, seed=4)
        loader = DataLoader(crops, batch_sampler=BlockSampler(crops, 8, window=1))
        assert sum(len(batch) for batch in loader) == 240
        of_one, server.sent_nbytes = server.sent_nbytes, 0
        code = """
warnings.simplefilter("ignore", UserWarning)  # so many on so few cores
def worker(item):
    return torch.utils.data.get_worker_info().id

crops = CropDataset.random(vf.open_array(source), 24, 240, seed=4, transform=worker)
sampler = BlockSampler(crops, 8, workers=8, window=1)
loader = DataLoader(crops, batch_sampler=sampler, num_workers=8, multiprocessing_context="fork")
batches = list(loader)
assert sum(map(len, batches)) == 240
assert all(set(batch.tolist()) == {number % 8} for number, batch in enumerate(batches))  # dealt in turn
print("done")
"""
        run(code, server.url)
        assert server.sent_nbytes <= 1.1 * of_one


ENDS = {
    "suspended": "batches = iter(loader); next(batches)",
    "in a thread": "threading.Thread(target=lambda: list(loader), daemon=True).start(); time.sleep(0.1)",
    "forked": """
batches = iter(loader)
next(batches)
sys.stdout.flush()
pid = os.fork()
if pid == 0:
    try:
        next(batches)
    except vf.ForkSafetyError:
        assert sum(len(batch) for batch in CropLoader(crops, 4)) == 200
        del batches, loader
        sys.exit(0)
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
next(batches)
""",
}


@pytest.mark.parametrize(("how", "remote"), [("suspended", False), ("in a thread", True), ("forked", True)])
def test_the_interpreter_ends(served, image, how, remote):
    """With batches in flight, quickly and without a word."""
    server, _ = served
    server.latency_s = 0.1
    code = f"""
crops = CropDataset.random(vf.open_array(source), CROP, 200)
loader = CropLoader(crops, 4)
{ENDS[how]}
print("done", flush=True)
"""
    run(code, server.url if remote else image.path)


def test_the_example():
    example = Path(__file__).parents[1] / "examples" / "torch_crops.py"
    done = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "loss" in done.stdout
    assert len(example.read_text().splitlines()) < 50


def test_batches_that_would_be_empty_are_refused(tmp_path, write_array):
    array = write_array(tmp_path / "a", np.zeros((13, 4, 4), "u1"), chunks=(4, 4, 4)).open()
    crops = CropDataset.random(array, 4, 13)
    for make in (lambda: CropLoader(crops, world_size=2), lambda: BlockSampler(crops, 1, workers=2)):
        with pytest.raises(ValueError, match="drop_last"):
            make()
    parts = [CropLoader(crops, world_size=2, rank=rank, drop_last=True) for rank in range(2)]
    assert [[len(batch) for batch in part] for part in parts] == [[1] * 6] * 2


def test_arrays_with_other_axes_are_no_pair(tmp_path):
    voxels = np.arange(512, dtype="u2").reshape(8, 8, 8)
    for name, axes, stored in (("image", "zyx", voxels), ("labels", "xyz", voxels.transpose(2, 1, 0))):
        zarr.create_array(
            tmp_path / name, data=np.ascontiguousarray(stored), chunks=(4, 4, 4), dimension_names=list(axes)
        )
    image, labels = (vf.open_array(tmp_path / name) for name in ("image", "labels"))
    starts = np.array([[4, 0, 0]])
    with pytest.raises(vf.SelectionError, match="has the axes"):
        CropDataset((image, labels), 4, starts)
    one, other = CropDataset((image, labels.with_axes("zyx")), 4, starts)[0]
    assert one.equal(other)


def test_masks_in_cells_that_do_not_divide(tmp_path):
    array = vf.open_array(write_empty(tmp_path / "a", (1000,)))
    mask = np.zeros(16, bool)
    mask[14] = True
    with pytest.raises(ValueError, match="mask_cell"):
        CropDataset.random(array, (1,), 500, mask=mask)
    starts = CropDataset.random(array, (1,), 500, mask=mask, mask_cell=64).starts
    assert 896 <= starts.min() <= starts.max() < 960
    ten = vf.open_array(write_empty(tmp_path / "b", (10,)))
    starts = CropDataset.random(ten, (1,), 50, mask=[False, False, False, True]).starts
    assert set(starts.ravel().tolist()) == {9}


def test_a_mask_within_a_region(tmp_path):
    array = vf.open_array(write_empty(tmp_path / "a", (64, 16, 16)))
    mask = np.ones((64, 16, 16), bool)
    mask[20:24] = False
    crops = CropDataset.random(array, (2, 2, 2), 500, mask=mask, region=((16, 0, 0), (24, 16, 16)))
    assert set((crops.starts[:, 0] + 1).tolist()) <= {17, 18, 19}
    with pytest.raises(ValueError, match="nowhere"):
        CropDataset.random(array, (2, 2, 2), 5, mask=mask, region=((20, 0, 0), (24, 16, 16)))


def test_threads_that_begin_at_once_have_an_epoch_each(tmp_path):
    array = vf.open_array(write_empty(tmp_path / "a", (64, 16, 16)))
    crops = CropDataset.random(array, (4, 8, 8), 64, seed=3)
    loader = CropLoader(crops, 4, shuffle=False)
    begun = []
    threads = [threading.Thread(target=lambda: begun.append(iter(loader)._starts)) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    expected = {crops._given(epoch).tobytes() for epoch in range(8)}
    assert {starts.tobytes() for starts in begun} == expected


def test_an_error_of_a_transform_ends_the_iteration(tmp_path):
    array = vf.open_array(write_empty(tmp_path / "a", (64, 16, 16)))
    seen = []

    def transform(item):
        seen.append(1)
        if len(seen) == 3:
            raise KeyError("boom")
        return item

    batches = iter(CropLoader(CropDataset(array, (4, 8, 8), transform=transform), 2, shuffle=False))
    next(batches)
    with pytest.raises(KeyError) as caught:
        next(batches)
    assert caught.value.__notes__ == ["in the transform of item 0 of a batch of 2"]
    assert list(batches) == []


def write_empty(path, shape):
    zarr.create_array(path, shape=shape, chunks=tuple(min(extent, 8) for extent in shape), dtype="u1")
    return path
