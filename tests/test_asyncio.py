"""Async twins, event loops that come and go, cancellation."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import voxfetch as vf


def descriptors():
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def test_twins_give_the_same(case):
    expected = case.expected

    async def main():
        array = await vf.open_array_async(case.path)
        assert array == await vf.open_async(case.path)
        np.testing.assert_array_equal(await array.read_async(), expected)
        out = np.empty(expected.shape, expected.dtype, "F")
        assert await array.read_async(out=out) is out
        np.testing.assert_array_equal(out, expected)
        assert (await array.read_async(order="F")).flags.f_contiguous
        zeros = (0,) * array.ndim
        ones = tuple(min(extent, 2) for extent in array.shape)
        box = expected[tuple(slice(0, n) for n in ones)]
        np.testing.assert_array_equal(await array.read_box_async(zeros, ones), box)
        np.testing.assert_array_equal(await array.read_many_async([zeros, zeros], ones), np.array([box, box]))
        if all(array.shape):
            assert await array.read_async(zeros) == expected[zeros]
            np.testing.assert_array_equal(await array.read_points_async([zeros] * 3), np.array([expected[zeros]] * 3))
            np.testing.assert_array_equal(await array.vindex.read_async(zeros), expected[zeros])
        np.testing.assert_array_equal(await array.oindex.read_async(...), expected)
        assert await array.explain_async() == array.explain()
        assert await array.explain_async(fetch_indexes=False) == array.explain(fetch_indexes=False)
        assert (await array.verify_async()) == array.verify()
        many = await vf.read_all_async([(array, ...), (array, ...)])
        for one in many:
            np.testing.assert_array_equal(one, expected)
        blocks = [(box, block) async for box, block in array.blocks(5 if array.ndim else ())]
        assert [box for box, _ in blocks] == list(array.blocks(5 if array.ndim else ()).boxes())
        for box, block in blocks:
            np.testing.assert_array_equal(block, expected[box.slices])

    asyncio.run(main(), debug=True)


def test_create_async(tmp_path):
    async def main():
        array = await vf.create_async(tmp_path / "a", shape=(4, 4), dtype="u1")
        array[...] = 5
        return await array.read_async()

    assert (asyncio.run(main()) == 5).all()


def test_open_image_async_refuses_an_array(volume):
    with pytest.raises(vf.MetadataError):
        asyncio.run(vf.open_image_async(volume.path))


def test_errors_arrive(volume, tmp_path):
    async def main():
        array = volume.open(read_options=vf.ReadOptions(on_missing="raise"))
        with pytest.raises(vf.NotFoundError):
            await array.read_async()
        with pytest.raises(vf.SelectionError):
            await array.read_async(99)
        with pytest.raises(vf.NotFoundError):
            await vf.read_all_async([(volume.open(), ...), (array, ...)])
        with pytest.raises(vf.NotFoundError):
            async for _ in array.blocks(8, prefetch=20):
                pass
        results = await asyncio.gather(*(array.read_async() for _ in range(20)), return_exceptions=True)
        assert {type(result) for result in results} == {vf.NotFoundError}
        gc.collect()

    asyncio.run(main())


def test_many_at_once(volume):
    async def main():
        array = volume.open()
        generator = np.random.default_rng(0)
        starts = generator.integers(0, 25, (300, 3))
        blocks = await asyncio.gather(*(array.read_box_async(start, 12) for start in starts))
        for (z, y, x), block in zip(starts, blocks, strict=True):
            np.testing.assert_array_equal(block, volume.expected[z : z + 12, y : y + 12, x : x + 12])

    asyncio.run(main())


def test_the_loop_runs_on_while_reading(volume):
    """Other tasks get their turns between the start of a read and its end."""

    async def main():
        array = volume.open()
        turns = 0

        async def count():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counter = asyncio.create_task(count())
        await asyncio.gather(*(array.read_async() for _ in range(20)))
        counter.cancel()
        return turns

    assert asyncio.run(main()) > 1


def test_loops_that_come_and_go(volume):
    engine = vf.Engine(decode_threads=2)
    array = vf.open_array(volume.path, engine=engine)

    async def main():
        return await array.read_async(np.s_[5:15])

    before = descriptors()
    for _ in range(60):
        np.testing.assert_array_equal(asyncio.run(main()), volume.expected[5:15])
    assert descriptors() <= before + 8
    engine.close()
    gc.collect()
    assert descriptors() <= before


def test_loops_in_threads(volume):
    array = volume.open()
    failures = []

    def work():
        async def main():
            blocks = await asyncio.gather(*(array.read_async() for _ in range(5)))
            for block in blocks:
                np.testing.assert_array_equal(block, volume.expected)

        try:
            for _ in range(5):
                asyncio.run(main())
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_cancellation_of_many(volume):
    engine = vf.Engine(decode_threads=2)
    array = vf.open_array(volume.path, engine=engine)

    async def main():
        tasks = [asyncio.create_task(array.read_async()) for _ in range(200)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results[1::2]:
            np.testing.assert_array_equal(result, volume.expected)
        for result in results[::2]:
            assert isinstance(result, asyncio.CancelledError)
        # The engine is as it was.
        np.testing.assert_array_equal(await array.read_async(), volume.expected)

    for _ in range(3):
        asyncio.run(main())
    engine.close()


def test_memory_of_a_cancelled_read_stays(volume):
    """The output of a cancelled read is given up at once; its memory must live until the workers are done with it."""

    async def main():
        array = volume.open()
        for _ in range(50):
            task = asyncio.create_task(array.read_async())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            del task
            garbage = [np.full(volume.expected.shape, 0x5A5A, "u2") for _ in range(3)]
            assert all((one == 0x5A5A).all() for one in garbage)

    asyncio.run(main())


def test_timeout(volume):
    async def main():
        array = volume.open()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await array.read_async()
        np.testing.assert_array_equal(await array.read_async(), volume.expected)

    asyncio.run(main())


def test_loops_closed_with_reads_in_flight(volume):
    engine = vf.Engine(decode_threads=1)
    array = vf.open_array(volume.path, engine=engine)
    for _ in range(20):
        loop = asyncio.new_event_loop()

        async def begin():
            return [engine.start(array.job(...).reads) for _ in range(10)]

        futures = loop.run_until_complete(begin())
        loop.close()
        del loop, futures
    gc.collect()

    async def main():
        return await array.read_async()

    np.testing.assert_array_equal(asyncio.run(main()), volume.expected)
    engine.close()


def test_async_blocks_end_early(volume):
    async def main():
        array = volume.open()
        for _ in range(10):
            stream = aiter(array.blocks(8, prefetch=20))
            box, block = await anext(stream)
            np.testing.assert_array_equal(block, volume.expected[box.slices])
            await stream.aclose()

    asyncio.run(main())


def test_aclose_ends_what_is_running(volume):
    async def main():
        async with vf.Engine(decode_threads=2) as engine:
            array = vf.open_array(volume.path, engine=engine)
            tasks = [asyncio.create_task(array.read_async()) for _ in range(50)]
            await asyncio.sleep(0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if not isinstance(result, vf.StoreError):
                np.testing.assert_array_equal(result, volume.expected)
        # And it starts again.
        np.testing.assert_array_equal(await array.read_async(), volume.expected)
        await engine.aclose()

    asyncio.run(main())


def test_close_from_a_thread_does_not_hang_waiting_tasks(volume):
    async def main():
        engine = vf.Engine(decode_threads=2)
        array = vf.open_array(volume.path, engine=engine)
        tasks = [asyncio.create_task(array.read_async()) for _ in range(50)]
        await asyncio.sleep(0)
        await asyncio.to_thread(engine.close)
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(result, vf.StoreError):
                np.testing.assert_array_equal(result, volume.expected)

    asyncio.run(main())


@pytest.mark.parametrize(
    "end",
    [
        "await asyncio.gather(*tasks)",
        "return",
        "raise SystemExit(0)",
        "[task.cancel() for task in tasks]",
        "os._exit(0)",
        "[loop.stop() for loop in [asyncio.get_running_loop()]]; await asyncio.sleep(0)",
    ],
)
def test_interpreter_exit_with_reads_in_flight(volume, end):
    code = f"""
import asyncio, os, sys, voxfetch as vf
array = vf.open_array(sys.argv[1])
async def main():
    tasks = [asyncio.ensure_future(array.read_async()) for _ in range(50)]
    await asyncio.sleep(0)
    {end}
try:
    asyncio.run(main())
except RuntimeError as error:
    assert "stopped before" in str(error), error
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(volume.path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
