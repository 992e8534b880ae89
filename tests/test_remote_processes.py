"""Remote arrays in many processes: whatever the parent has used, a forked child reads right, and the parent goes on.

Over HTTP and from S3. Nothing is written to stderr; a hang is a failure.
"""

# Fixtures are imported, and are arguments.
# ruff: noqa: F811

from __future__ import annotations

import os

import pytest

from tests.scripts import KINDS, Place, logged, moto, places, run, small, started  # noqa: F401 - fixtures
from tests.servers import objects_in
from tests.servers.faulty import Fault, FaultyServer
from tests.servers.tls import certificate

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

# -------------------------------------------------------------------------------------------------------------- forks

USES = {
    "opened": "",
    "sync": "check(array)",
    "async": "check_async(array)",
    "blocks, begun": "iterator = iter(array.blocks(8, prefetch=10)); next(iterator)",
    "reports": "array.verify(); array.explain()",
    "own engine": "array = opened(engine=vf.Engine(decode_threads=2)); check(array); check_async(array)",
    "closed engine": "check(array); array.engine.close()",
    "first in flight": "threading.Thread(target=check, args=(array,)).start()",
    "in flight": "check(array); [threading.Thread(target=check, args=(array,)).start() for _ in range(4)]",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("use", USES)
def test_child_reads_after_the_parent_has_used(use, kind, places, run):
    code = f"""
def main():
    array = opened()
    {USES[use]}
    def work():
        check(array)
        check_async(array)
        check(opened())
        check_blocks(array.blocks(8))
        array.engine.close()
        assert array.verify().problem_count == 0
        in_child(lambda: (check(array), check_async(array)))
    in_child(work)
    in_child(work, leave=sys.exit)
    check(array)
    check_async(array)
"""
    run(code, places(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_fork_while_other_threads_read(kind, places, run):
    """A lock that another thread holds at the fork is held for ever in the child."""
    code = """
def main():
    array = opened()
    check(array)
    stop = threading.Event()
    def busy(use):
        while not stop.is_set():
            use()
    uses = [lambda: check(array), lambda: check_async(array), opened, lambda: check_blocks(array.blocks(8))]
    threads = [threading.Thread(target=busy, args=(use,)) for use in uses]
    [thread.start() for thread in threads]
    try:
        for number in range(8):
            in_child(lambda: (check(array), check_async(array)), leave=sys.exit if number % 2 else os._exit)
    finally:
        stop.set()
        [thread.join() for thread in threads]
    check(array)
"""
    run(code, places(kind))


def test_fork_while_other_threads_connect_over_https(small, run):
    """A connection for each request; one thread also has an engine for each read, which reads the certificates."""
    code = """
def main():
    array = opened()
    check(array)
    stop = threading.Event()
    def busy(use):
        while not stop.is_set():
            use()
    def new():
        with vf.Engine(decode_threads=1) as engine:
            check(opened(engine=engine))
    threads = [threading.Thread(target=busy, args=(use,)) for use in (lambda: check(array), lambda: check(array), new)]
    [thread.start() for thread in threads]
    try:
        for number in range(40):
            in_child(lambda: check(array), leave=os._exit if number % 4 else sys.exit)
    finally:
        stop.set()
        [thread.join() for thread in threads]
    check(array)
"""
    server_side, trusted = certificate()
    with FaultyServer(objects_in(small.path, "root/"), ssl=server_side) as server:
        server.rule = lambda _: Fault(close=True)
        run(code, Place(f"{server.url}/root"), SSL_CERT_FILE=str(trusted))
        assert server.connections > 200, "each request needs a connection"


@pytest.mark.parametrize("kind", KINDS)
def test_fork_inside_a_running_loop(kind, places, run):
    code = """
def main():
    array = opened()
    async def go():
        reads = [asyncio.ensure_future(array.read_async()) for _ in range(10)]
        await asyncio.sleep(0)
        for _ in range(3):
            in_child(lambda: (check(array), check_async(array)))
        for block in await asyncio.gather(*reads):
            np.testing.assert_array_equal(block, expected)
    asyncio.run(go())
"""
    run(code, places(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_iteration_goes_on_in_both(kind, places, run):
    code = """
def main():
    array = opened()
    blocks = array.blocks(8, prefetch=6)
    iterator = iter(blocks)
    next(iterator), next(iterator)
    def rest():
        assert check_blocks(iterator, 2) == len(blocks)
    in_child(rest)
    in_child(rest)
    rest()
"""
    run(code, places(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_threads_that_begin_at_once_in_the_child_share_its_engine(kind, places, run):
    code = """
def main():
    array = opened()
    check(array)
    def work():
        sys.setswitchinterval(1e-6)
        at_once([lambda: array[0, 0, 0]] * 12)
        assert [thread.name for thread in threading.enumerate()].count("voxfetch-io") == 1
        assert array.engine.stats().reads == 12
    def engines():
        at_once([lambda: check(opened(engine=vf.Engine(decode_threads=1)))] * 6)
    for _ in range(3):
        in_child(work)
        in_child(engines)
"""
    run(code, places(kind))


def test_a_memory_of_the_parent_is_refused_at_once(run):
    """The one thing that a child cannot have."""
    code = """
def main():
    import obstore, zarr
    store = obstore.store.MemoryStore()
    zarr.create_array(zarr.storage.ObjectStore(store), name="a", data=expected)
    array = vf.open_array(store, "a")
    check(array)
    def work():
        began = time.monotonic()
        for use in (check, check_async):
            try:
                use(array)
            except vf.ForkSafetyError as error:
                assert "spawn" in error.hint
            else:
                raise AssertionError("read")
        assert time.monotonic() - began < 1
    in_child(work)
    check(array)
"""
    run(code, Place(""))


# -------------------------------------------------------------------------------------------------------------- pools


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_pools_of_processes(method, kind, logged, run):
    place = logged(kind)
    code = f"""
def read(job):
    array, start = job
    return array.read_box(start, (6, 6, 6))

def main():
    array = opened()
    check(array)
    assert len(pickle.dumps(array)) < 4096
    context = multiprocessing.get_context("{method}")
    starts = [(i, 2 * i, i) for i in range(8)]
    def right(boxes):
        for start, box in zip(starts, boxes, strict=True):
            np.testing.assert_array_equal(box, expected[tuple(slice(s, s + 6) for s in start)])
    with context.Pool(2) as pool:
        right(pool.map(read, [(array, start) for start in starts]))
        pool.close()
        pool.join()
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        right(pool.map(read, [(array, start) for start in starts]))
"""
    run(code, place)
    documents = [request.key for request in place.server.requests if not request.key.startswith("bucket/root/c/")]
    assert documents == ["bucket/root/zarr.json"], "an array that was pickled reads its metadata again"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_of_a_data_loader(method, kind, places, run):
    """As torch does it: a dataset with an open array, workers that take indices from a queue, again every epoch."""
    code = f"""
class Dataset:
    def __init__(self):
        self.array = opened()
        self.mean = float(self.array[0:4].mean())  # used in the parent

    def __getitem__(self, number):
        dice = random.Random(number)
        start = [dice.randrange(extent - 5) for extent in self.array.shape]
        return start, self.array.read_box(start, (5, 5, 5))

def worker(dataset, indices, batches):
    while (batch := indices.get()) is not None:
        batches.put([dataset[number] for number in batch])

def main():
    context = multiprocessing.get_context("{method}")
    dataset = Dataset()
    for epoch in range(2):
        indices, batches = context.SimpleQueue(), context.SimpleQueue()
        workers = [context.Process(target=worker, args=(dataset, indices, batches), daemon=True) for _ in range(2)]
        [one.start() for one in workers]
        for number in range(0, 40, 4):
            indices.put(range(number, number + 4))
        check(dataset.array)  # validation in the meantime
        for _ in range(10):
            for start, box in batches.get():
                np.testing.assert_array_equal(box, expected[tuple(slice(s, s + 5) for s in start)])
        [indices.put(None) for _ in workers]
        [one.join() for one in workers]
        assert [one.exitcode for one in workers] == [0, 0]
"""
    run(code, places(kind))
