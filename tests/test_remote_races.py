"""Remote reads where several things happen at once: ends, wake-ups, budgets, order. Each test is a defect there was."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
import zarr
from numcodecs.checksum32 import CRC32C

import voxfetch as vf
from tests.servers.faulty import Fault, FaultyServer

FAST = vf.RetryPolicy(max_attempts=2, base_s=0.01, cap_s=0.02, idle_timeout_s=1)


def objects(shape, chunks, shards=None, *, dtype="uint32", prefix="", **layout):
    store = zarr.storage.MemoryStore()
    array = zarr.create_array(
        store, shape=shape, chunks=chunks, shards=shards, dtype=dtype, compressors=None, fill_value=9, **layout
    )
    data = np.arange(np.prod(shape), dtype="uint64").astype(dtype).reshape(shape)
    array[...] = data
    return held(store, prefix), data


def held(store, prefix=""):
    """What a server takes of a store of zarr in memory: key -> bytes."""
    return {prefix + key: value.to_bytes() for key, value in store._store_dict.items()}


def seconds_beside(work, function):
    """How long a call takes while `work` goes on in another thread."""
    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.05)
    started = time.monotonic()
    function()
    took = time.monotonic() - started
    thread.join()
    return took


def within(seconds, function):
    """Result or exception of a call on another thread; fails when it does not end in time."""
    result = []

    def run():
        try:
            result.append(function())
        except BaseException as error:  # noqa: BLE001
            result.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not result:
        pytest.fail(f"it has not ended after {seconds} s")
    return result[0]


def alone(script, seconds=20):
    """Runs a script in a process of its own, which is killed when it takes too long."""
    code = "from tests.test_remote_races import *\n" + textwrap.dedent(script) + "\nimport os\nos._exit(0)\n"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], timeout=seconds, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.fail(f"it has not ended after {seconds} s")
    assert done.returncode == 0, done.stderr[-1000:]


def test_stats_and_a_dropped_reply_do_not_wait_for_each_other():
    """`stats` locks the machine while it holds the GIL; a reply dropped under that lock takes the GIL."""
    alone("""
        served, _ = objects((128,) * 3, (16,) * 3, (64,) * 3)
        with FaultyServer(served) as server:
            engine = vf.Engine(retry=FAST)
            options = vf.ReadOptions(max_request_bytes=1)
            array = vf.open_array(server.url, engine=engine, read_options=options)
            array.explain()
            server.rule = lambda r: status(403) if (r.key, (r.range or "")[:8]) == ("c/0/0/0", "bytes=0-") else None
            threading.Thread(target=lambda: [engine.stats() for _ in iter(int, 1)], daemon=True).start()
            until = time.monotonic() + 0.8
            while time.monotonic() < until:
                try:
                    array[:64, :64, :64]
                except vf.StoreError:
                    pass
    """)


def test_a_wake_up_between_next_and_take_is_not_lost():
    """`_pump` asks for requests, then `take` clears the flag: what a worker ended in between wakes nobody."""
    noise = np.random.default_rng(0).integers(0, 1 << 31, (128,) * 3).astype("uint32")
    store = zarr.storage.MemoryStore()
    zarr.create_array(
        store, shape=noise.shape, chunks=noise.shape, dtype="uint32", compressors=zarr.codecs.ZstdCodec(level=1)
    )[...] = noise
    served = held(store, "x/")
    empty = zarr.storage.MemoryStore()
    zarr.create_array(empty, shape=(128,) * 3, chunks=(4,) * 3, shards=(128,) * 3, dtype="uint8", compressors=None)
    # One chunk and the index of 32,768, which takes a moment to decode.
    index = np.full(2 * 32**3, 2**64 - 1, "<u8")
    index[:2] = 0, 64
    served["y/zarr.json"] = empty._store_dict["zarr.json"].to_bytes()
    served["y/c/0/0/0"] = bytes(64) + bytes(CRC32C(location="end").encode(index.view("u1")))
    with FaultyServer(served, latency_s=0.002) as server:
        engine = vf.Engine(retry=FAST, decode_threads=1)
        slow = vf.open_array(f"{server.url}/x", engine=engine)
        forget = vf.ReadOptions(index_ttl_s=0)
        cold = vf.open_array(f"{server.url}/y", engine=engine, read_options=forget)
        scheduler = engine.scheduler
        real = scheduler._remote

        class Remote:
            def __getattr__(self, name):
                return getattr(real, name)

            def turn(self, most):
                found = real.turn(most)
                if sys._getframe(2).f_code.co_name == "_woken":
                    time.sleep(0.02)  # a busy thread keeps the GIL
                return found

        scheduler._remote = Remote()
        scheduler._send = lambda landing: scheduler._clients.land(real, landing, scheduler._strayed)

        async def both():
            await asyncio.gather(slow.read_async(), cold.read_box_async((0, 0, 0), (4, 4, 4)))

        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            within(0.8, lambda: asyncio.run(both()))
        engine.close()


def test_open_and_close_at_the_same_time_end():
    """`Scheduler.run` hands its coroutine to a loop that has just taken stock of its tasks and ends."""
    alone("""
        served, _ = objects((8, 8), (8, 8))
        with FaultyServer(served) as server:
            engine = vf.Engine(retry=FAST, decode_threads=1)
            last = [time.monotonic()] * 3

            def opener(number):
                while True:
                    try:
                        vf.open_array(server.url, engine=engine)
                    except vf.StoreError:
                        pass
                    last[number] = time.monotonic()

            for number in range(3):
                threading.Thread(target=opener, args=(number,), daemon=True).start()
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                time.sleep(0.002)
                engine.close()
            time.sleep(1.5)
            assert min(last) > time.monotonic() - 1.2, "open() waits for ever"
    """)


@pytest.mark.parametrize("kind", [asyncio.CancelledError, SystemExit, GeneratorExit])
def test_whatever_a_transport_raises_ends_the_read(kind):
    """`_fetch` tells the machine nothing about a BaseException; SystemExit ends the I/O thread, calls stay open."""
    served, _ = objects((8, 8), (8, 8))
    asked = []

    def headers():
        asked.append(0)
        if len(asked) > 1:
            raise kind
        return {}

    with FaultyServer(served) as server:
        engine = vf.Engine(retry=FAST)
        array = vf.open_array(server.url, engine=engine, options=vf.StoreOptions(headers=headers))
        assert isinstance(within(1, lambda: array[...]), vf.VoxfetchError)


def test_a_header_that_is_not_utf8_ends_the_read():
    """`_remote.body` refuses a str with surrogates outside the `try` of `_fetch`: nobody answers the request."""
    served, data = objects((8, 8), (8, 8))
    with FaultyServer(served) as server:
        array = vf.open_array(server.url, engine=vf.Engine(retry=FAST))
        server.rule = lambda _: Fault(headers={"Last-Modified": "a\xff", "ETag": None})
        got = within(1, lambda: array[...])
        assert isinstance(got, vf.VoxfetchError) or (got == data).all()


def test_closing_gives_the_budget_back():
    """`_serve` cancels requests whose visit a job is at work for and does not tell the machine."""
    alone(
        """
        noise = np.random.default_rng(0).integers(0, 1 << 31, (128, 128, 384)).astype("uint32")
        store = zarr.storage.MemoryStore()
        zarr.create_array(store, shape=noise.shape, chunks=(128, 128, 64), shards=noise.shape, dtype="uint32",
                          compressors=zarr.codecs.ZstdCodec(level=1))[...] = noise  # 4 MiB a chunk
        served = held(store, "a/")
        served |= objects((128, 128, 192), (128, 128, 192), prefix="b/")[0]  # 12 MiB
        with FaultyServer(served) as server:
            engine = vf.Engine(retry=FAST, decode_threads=1, memory_limit_bytes=32 << 20, index_cache_bytes=1 << 20)
            options = vf.ReadOptions(max_request_bytes=1, immutable=True)
            array = vf.open_array(f"{server.url}/a", engine=engine, read_options=options)
            other = vf.open_array(f"{server.url}/b", engine=engine)

            def ranged(request):
                first = (request.range or "bytes=-").startswith(("bytes=0-", "bytes=-"))
                return None if first else Fault(stall=-1)

            def stopped():
                try:
                    array[...]
                except vf.StoreError:
                    pass

            for _ in range(2):
                array.explain()
                server.rule = ranged
                before = engine.stats().requests
                thread = threading.Thread(target=stopped, daemon=True)
                thread.start()
                while engine.stats().requests == before:
                    time.sleep(0.0005)
                engine.close()  # while the one chunk that came is decoded
                thread.join()
                server.rule = lambda _: None
                other[...]
    """,
        seconds=20,
    )


def test_an_explanation_of_many_chunks_stalls_nobody():
    """`next_requests` begins visits until one needs a request: of a billion that need none, all in one go."""
    served, _ = objects((64, 64), (32, 32), dtype="uint8")
    document = json.loads(served["zarr.json"])
    document["shape"] = [32 * 1000, 32 * 1200]
    served["big/zarr.json"] = json.dumps(document).encode()
    with FaultyServer(served) as server, vf.Engine(retry=FAST) as engine:
        array, big = vf.open_array(server.url, engine=engine), vf.open_array(f"{server.url}/big", engine=engine)
        assert seconds_beside(big.explain, lambda: array[:4, :4]) < 0.3


def test_filling_a_large_output_stalls_nobody():
    """`fill_outside` runs on the I/O thread."""
    served, _ = objects((64, 64, 64), (64, 64, 64), dtype="uint8")
    with FaultyServer(served) as server, vf.Engine(retry=FAST) as engine:
        array = vf.open_array(server.url, engine=engine)
        array[0, 0, 0]

        def fill():
            array.read_box((-200,) * 3, (700,) * 3, bounds="fill")

        assert seconds_beside(fill, lambda: array[:4, :4]) < 0.3


def test_verify_counts_bytes_once():
    """A shard that came whole is counted as an index and again as data."""
    served, _ = objects((32, 32), (8, 8), (16, 16), dtype="uint16")
    with FaultyServer(served) as server, vf.Engine() as engine:
        report = vf.open_array(server.url, engine=engine).verify()
        assert report.bytes == sum(len(value) for key, value in served.items() if key.startswith("c/"))


def test_a_small_shard_with_unused_bytes_is_read():
    """Shards may have gaps; on suspicion fetched whole, with a limit, instead of by index."""
    served, data = objects((16, 16), (8, 8), (16, 16), dtype="uint16")
    body, gap = served["c/0/0"], 100_000
    index = np.frombuffer(body[-68:-4], "<u8").copy()
    index[::2] += gap
    served["c/0/0"] = bytes(gap) + body[:-68] + bytes(CRC32C(location="end").encode(index.view("u1")))
    with FaultyServer(served) as server, vf.Engine(retry=FAST) as engine:
        np.testing.assert_array_equal(vf.open_array(server.url, engine=engine)[...], data)


def test_a_truncated_shard_with_its_index_first_is_not_called_replaced():
    """A first request that the object is too short for is taken for a replacement, four times over."""
    codec = zarr.codecs.ShardingCodec(chunk_shape=(64, 64), index_location="start")
    served, _ = objects((512, 512), (512, 512), serializer=codec, filters=None)
    served["c/0/0"] = served["c/0/0"][:100]
    with FaultyServer(served) as server, vf.Engine(retry=FAST) as engine, pytest.raises(vf.ShardIndexError):
        vf.open_array(server.url, engine=engine)[...]


def test_the_first_error_of_one_shard_is_the_first_in_plan_order():
    """Errors are sorted by visit only: inside one shard the first to arrive is reported."""
    served, _ = objects((64,) * 3, (32,) * 3, (64,) * 3)
    with FaultyServer(served) as server, vf.Engine(retry=FAST) as engine:
        array = vf.open_array(server.url, engine=engine, read_options=vf.ReadOptions(max_request_bytes=1))
        array.explain()
        server.rule = lambda r: Fault(status=500, delay_s=0.1 if (r.range or "").startswith("bytes=0-") else 0)
        with pytest.raises(vf.StoreError) as caught:
            array[...]
        assert caught.value.byte_range[0] == 0


def test_a_known_object_expires_although_reads_overlap():
    """What is known of an object that is never idle is trusted for ever."""
    served, _ = objects((64,) * 3, (32,) * 3, (64,) * 3)
    with FaultyServer(served, latency_s=0.03) as server, vf.Engine(retry=FAST) as engine:
        array = vf.open_array(server.url, engine=engine, read_options=vf.ReadOptions(index_ttl_s=0.1))
        array[0, 0, 0]
        server.requests.clear()
        until = time.monotonic() + 0.8

        def read():
            while time.monotonic() < until:
                array[:40, :40, :40]

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
            time.sleep(0.01)
        for thread in threads:
            thread.join()
        assert sum(request.range == "bytes=-132" for request in server.requests) >= 2


def test_a_bulk_read_of_one_shard_lets_small_reads_through():
    """The requests of a large shard are cut at once and stand before everything that comes later."""
    served, _ = objects((64,) * 3, (8,) * 3, (64,) * 3)
    served |= objects((8, 8), (8, 8), prefix="small/")[0]
    with FaultyServer(served, latency_s=0.01) as server, vf.Engine(max_requests=4, retry=FAST) as engine:
        bulk = vf.open_array(server.url, engine=engine, read_options=vf.ReadOptions(max_request_bytes=1))
        small = vf.open_array(f"{server.url}/small", engine=engine)
        bulk[0, 0, 0]
        thread = threading.Thread(target=bulk.read)
        thread.start()
        time.sleep(0.1)
        started = time.monotonic()
        small[...]
        took = time.monotonic() - started
        thread.join()
        assert took < 0.3


def test_bulk_reads_do_not_become_interactive_by_company():
    """One interactive call makes all calls of the same wake-up interactive."""
    served, _ = objects((64,) * 3, (8,) * 3, (64,) * 3)
    served |= objects((8, 8), (8, 8), prefix="small/")[0]
    with FaultyServer(served, latency_s=0.01) as server, vf.Engine(max_requests=4, retry=FAST) as engine:
        bulk = vf.open_array(server.url, engine=engine, read_options=vf.ReadOptions(max_request_bytes=1))
        urgent = vf.open_array(
            f"{server.url}/small", engine=engine, read_options=vf.ReadOptions(priority="interactive")
        )
        bulk[0, 0, 0]

        async def main():
            scheduler = engine.scheduler
            wake, scheduler._wake = scheduler._wake, lambda: None
            tasks = [asyncio.ensure_future(bulk.read_async()), asyncio.ensure_future(urgent.read_async())]
            await asyncio.sleep(0.01)
            scheduler._wake = wake
            wake()
            await asyncio.sleep(0.1)
            started = time.monotonic()
            await urgent.read_async()
            took = time.monotonic() - started
            await asyncio.gather(*tasks)
            return took

        assert asyncio.run(main()) < 0.3


def test_stores_are_forgotten():
    """`Scheduler._stores` keeps every store (connections, whole memory stores) for as long as the engine lives."""
    served, _ = objects((8, 8), (8, 8))
    with FaultyServer(served) as server, vf.Engine() as engine:
        for _ in range(20):
            vf.open_array(server.url, engine=engine, options=vf.StoreOptions(headers=dict))[0, 0]
        assert len(engine.scheduler._stores) < 20


def test_the_process_ends_while_an_open_waits():
    """`run_in_thread` threads are not daemons, and cancelling the twin does not stop them: exit waits for retries."""
    script = """
        served, _ = objects((8, 8), (8, 8))
        server = FaultyServer(served)
        server.__enter__()
        server.rule = lambda _: Fault(stall=-1)
        async def main():
            try:
                await asyncio.wait_for(vf.open_array_async(server.url), 0.1)
            except TimeoutError:
                pass
        asyncio.run(main())
        import sys
        sys.exit()
    """
    alone(script)
