"""BossDB: channels of a server read voxel by voxel, by few cutouts; what it refuses or breaks is an error."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import zarr

import voxfetch as vf
from tests.servers.asking import run
from tests.servers.boss import BossServer, Channel
from voxfetch.store import Ask, boss, cutouts
from voxfetch.store.boss import BossStore
from voxfetch.store.cutouts import BLOCK, CUBOID, Volume, around, inside, merged, split, voxels

FIB25 = "tests/data/fib25/fib25.ome.zarr"
FAST = vf.RetryPolicy(max_attempts=3, base_s=0.01, cap_s=0.02, idle_timeout_s=5)


@pytest.fixture(scope="module")
def em(request):
    """EM, repeated in y and x so that it takes several cuboids: (36, 600, 1250)."""
    return np.tile(zarr.open_array(request.config.rootpath / FIB25 / "0")[:36], (1, 3, 5))[:, :600]


@pytest.fixture(scope="module")
def labels(request):
    """Labels as uint64, (100, 250, 250)."""
    return zarr.open_array(request.config.rootpath / FIB25 / "labels/groundtruth/0")[:100].astype("uint64")


@pytest.fixture(scope="module")
def channels(em, labels):
    times = np.stack([em[:20, :70, :600] + n for n in range(3)])
    return {
        "fib/one/em": Channel(em),
        "fib/seg/labels": Channel(labels, method="isotropic"),
        "fib/wide/em": Channel(em[:20].astype("uint16") * 257, start=(5, 100, 513), resolutions=2),
        "fib/film/em": Channel(times, resolutions=1),
        "fib/raw/em": Channel(em[:16], status="NOT_DOWNSAMPLED"),
        "fib/cloud/em": Channel(em[:16], status="NOT_DOWNSAMPLED", storage="cloudvol"),
        "fib/mine/em": Channel(em[:16], token="mine"),
        "fib/base/em": Channel(em[:16], base=1, resolutions=2),
    }


@pytest.fixture
def server(channels):
    with BossServer(channels) as server:
        yield server


@pytest.fixture
def engine():
    with vf.Engine(retry=FAST) as engine:
        yield engine


def url(server, path):
    return f"bossdb://{server.url}/{path}"


def wait_for(condition):
    while not condition():
        time.sleep(0.005)


# --- what it is


def test_a_channel_is_an_image(server, engine):
    image = vf.open(url(server, "fib/one/em"), engine=engine)
    assert isinstance(image, vf.Image)
    assert (image.name, image.format, image.axes) == ("em", "BossDB", ("z", "y", "x"))
    assert image.url == url(server, "fib/one/em")
    assert image.attrs["channel"]["datatype"] == "uint8"
    assert [level.shape for level in image.levels] == [(36, 600, 1250), (36, 300, 625), (36, 150, 313)]
    level = image.levels[1]
    assert (level.format, level.dtype, level.origin) == ("bossdb", np.uint8, (0, 0, 0))
    assert (level.shards, level.chunks, level.codecs) == ((16, 512, 512), (4, 64, 64), "bytes")
    assert (level.scale, level.unit) == ((30, 8, 8), ("nanometer",) * 3)
    assert level.translation == (0, 2, 2)
    assert not server.cutouts


def test_isotropic_hierarchies_halve_z_too(server, engine):
    image = vf.open(url(server, "fib/seg/labels"), engine=engine)
    assert [level.shape for level in image.levels] == [(100, 250, 250), (50, 125, 125), (25, 63, 63)]
    assert image.levels[2].scale == (120, 16, 16)
    assert image.levels[2].dtype == np.uint64


@pytest.mark.parametrize("resolution", [0, 1, 2])
@pytest.mark.parametrize("path", ["fib/one/em", "fib/seg/labels"])
def test_every_voxel(server, engine, channels, path, resolution):
    expected = channels[path].levels[resolution][1][0]
    array = vf.open_array(url(server, f"{path}/{resolution}"), engine=engine)
    np.testing.assert_array_equal(array[...], expected)
    z, y, x = (extent // 3 for extent in expected.shape)
    np.testing.assert_array_equal(array[z, y:, 1:x], expected[z, y:, 1:x])
    np.testing.assert_array_equal(array[:, y, x], expected[:, y, x])


def test_boxes_anywhere(server, engine, em):
    array = vf.open_array(url(server, "fib/one/em"), "0", engine=engine)
    random = np.random.default_rng(3)
    for _ in range(30):
        start = [int(random.integers(0, extent)) for extent in em.shape]
        shape = [int(random.integers(1, min(extent - at, 300) + 1)) for at, extent in zip(start, em.shape, strict=True)]
        expected = em[tuple(slice(at, at + extent) for at, extent in zip(start, shape, strict=True))]
        np.testing.assert_array_equal(array.read_box(start, shape), expected)


def test_a_frame_that_does_not_begin_at_zero(server, engine, channels):
    for resolution in (0, 1):
        array = vf.open_array(url(server, f"fib/wide/em/{resolution}"), engine=engine)
        first, expected = channels["fib/wide/em"].levels[resolution]
        assert (array.origin, array.dtype) == (first, np.uint16)
        np.testing.assert_array_equal(array[...], expected[0])
        np.testing.assert_array_equal(
            array.read_box((first[0], first[1] + 7, first[2] + 3), (2, 90, 100), absolute=True),
            expected[0, :2, 7:97, 3:103],
        )
    level = vf.open(url(server, "fib/wide/em"), engine=engine).levels[1]
    assert level.translation == (150, 50 * 8 + 2, 256 * 8 + 2)


def test_time(server, engine, channels):
    image = vf.open(url(server, "fib/film/em"), engine=engine)
    assert (image.axes, image.levels[0].scale) == (("t", "z", "y", "x"), (2, 30, 4, 4))
    assert image.levels[0].unit == ("second", *["nanometer"] * 3)
    expected = channels["fib/film/em"].voxels
    np.testing.assert_array_equal(image.levels[0][...], expected)
    np.testing.assert_array_equal(image.levels[0][1:, 3, 5:50], expected[1:, 3, 5:50])


def test_resolutions_that_hold_nothing_are_no_levels(server, engine, channels):
    assert len(vf.open(url(server, "fib/raw/em"), engine=engine).levels) == 1
    assert len(vf.open(url(server, "fib/cloud/em"), engine=engine).levels) == 3
    # Who names one gets it.
    named = vf.open_array(url(server, "fib/raw/em/2"), engine=engine)
    np.testing.assert_array_equal(named[3], channels["fib/raw/em"].levels[2][1][0, 3])


def test_hierarchies_that_begin_at_a_coarser_resolution(server, engine, channels):
    image = vf.open(url(server, "fib/base/em"), engine=engine)
    assert [level.scale[2] for level in image.levels] == [8, 16]
    np.testing.assert_array_equal(image.levels[0][3], channels["fib/base/em"].levels[1][1][0, 3])


# --- how it is named


def test_every_way_to_name_a_channel(server, engine):
    channel = f"{server.url}/fib/one/em"
    for source, keywords in [
        (f"bossdb://{channel}", {}),
        (f"bossdb://{channel}/", {}),
        (channel, {"format": "bossdb"}),
        (f"{channel}|bossdb:", {}),
        (f"bossdb://{server.url}|bossdb:fib/one/em", {}),
    ]:
        assert vf.open(source, engine=engine, **keywords).name == "em"
    assert vf.open_array(f"bossdb://{channel}", "1", engine=engine).shape == (36, 300, 625)
    assert vf.open_array(f"bossdb://{channel}/1", engine=engine).shape == (36, 300, 625)
    assert asyncio.run(vf.open_async(f"bossdb://{channel}", engine=engine)).name == "em"


def test_a_name_without_a_server_is_one_of_bossdb_org():
    from voxfetch.sources import _without_adapters, is_remote

    for source in ("bossdb://coll/exp/chan/2", "coll/exp/chan/2|bossdb:"):
        assert _without_adapters(source) == ("https://api.bossdb.io/coll/exp/chan/2", "", "bossdb")
        assert is_remote(source)


def test_what_is_no_channel(server, engine):
    def wrong(path, kind=vf.NotFoundError, **keywords):
        with pytest.raises(kind) as caught:
            vf.open(url(server, path), engine=engine, **keywords)
        return str(caught.value)

    assert "its experiments: base, cloud, film" in wrong("fib", vf.MetadataError)
    assert "its channels: em" in wrong("fib/one", vf.MetadataError)
    assert "bossdb://collection/experiment/channel" in wrong("", vf.MetadataError)
    assert "no channel 'EM'" in wrong("fib/one/EM")
    assert "no collection 'fob'" in wrong("fob")
    assert "0 to 2" in wrong("fib/one/em/3")
    assert "resolutions" in wrong("fib/one/em/0/1")
    assert "resolutions" in wrong("fib/one/em/x")
    with pytest.raises(vf.UnsupportedError, match="BossDB is a server"):
        vf.open("fib/one/em", format="bossdb")
    with pytest.raises(ValueError, match="region"):
        vf.open(url(server, "fib/one/em"), options=vf.StoreOptions(region="x"), engine=engine)


@pytest.mark.parametrize(
    ("what", "part"),
    [
        ({"datatype": "float32"}, "datatype"),
        ({"datatype": 3}, "datatype"),
        ({"base_resolution": -1}, "base_resolution"),
        ({"num_hierarchy_levels": 1 << 40}, "num_hierarchy_levels"),
        ({"num_time_samples": "many"}, "num_time_samples"),
        ({"hierarchy_method": "near_iso"}, "hierarchy_method"),
        ({"x_stop": -5}, "x_stop"),
        ({"y_stop": 1 << 70}, "y_stop"),
        ({"z_voxel_size": 0}, "z_voxel_size"),
        ({"coord_frame": None}, "coord_frame"),
        ({"coord_frame": "../../cutout"}, "relative path"),
    ],
)
def test_documents_that_make_no_sense(server, engine, monkeypatch, what, part):
    answer = server.answer

    def changed(request):
        status, headers, body = answer(request)
        members = json.loads(body)
        return status, headers, json.dumps(members | {k: v for k, v in what.items() if k in members}).encode()

    monkeypatch.setattr(server, "answer", changed)
    with pytest.raises((vf.MetadataError, vf.UnsupportedError), match=part):
        vf.open(url(server, "fib/one/em"), engine=engine)


# --- what is asked for


@pytest.mark.parametrize("name", ["c/exp/em", "col/c/em", "col/exp/c", "c/c/c", "collection/c/coord"])
def test_channels_called_like_parts_of_keys(em, name):
    with BossServer({name: Channel(em[:16])}) as server, vf.Engine(retry=FAST) as engine:
        array = vf.open_array(f"bossdb://{server.url}/{name}", "0", engine=engine)
        np.testing.assert_array_equal(array[3:9, 500:530, 1000:], em[3:9, 500:530, 1000:])


def test_a_box_is_one_cutout_of_it(server, engine, em):
    array = vf.open_array(url(server, "fib/one/em/0"), engine=engine)
    # Across four cuboids and three layers of them.
    np.testing.assert_array_equal(array[10:34, 480:600, 500:620], em[10:34, 480:600, 500:620])
    np.testing.assert_array_equal(array[21], em[21])
    np.testing.assert_array_equal(array.with_axes("xyz")[7:9, 590:, -1], em[-1, 590:, 7:9].T)
    assert array[3, 4, 5] == em[3, 4, 5]
    assert server.cutouts == [
        (0, ((500, 620), (480, 600), (10, 34))),
        (0, ((0, 1250), (0, 600), (21, 22))),
        (0, ((7, 9), (590, 600), (35, 36))),
        (0, ((5, 6), (4, 5), (3, 4))),
    ]


def test_explain_counts_what_a_box_takes(server, engine):
    report = vf.open_array(url(server, "fib/one/em/0"), engine=engine).explain((slice(10, 34), slice(99), slice(7)))
    assert (report.requests, report.bytes_fetched) == (1, 24 * 99 * 7)
    assert not server.cutouts


def test_several_boxes_of_a_read_are_one_cutout_in_whole_blocks(server, engine, em):
    array = vf.open_array(url(server, "fib/one/em/0"), engine=engine)
    got = array.read_many([(10, 480, 500), (22, 480, 500)], (12, 120, 120))
    np.testing.assert_array_equal(got.reshape(24, 120, 120), em[10:34, 480:600, 500:620])
    assert server.cutouts == [(0, ((448, 640), (448, 600), (8, 36)))]
    np.testing.assert_array_equal(array[20:24:2, :, ::3], em[20:24:2, :, ::3])
    assert server.cutouts[1:] == [(0, ((0, 1250), (0, 600), (20, 24)))]


@pytest.mark.parametrize(("most", "pieces"), [(1 << 23, 5), (1 << 22, 7), (1 << 20, 27)])
def test_large_boxes_are_cut_between_cuboids(server, engine, channels, monkeypatch, most, pieces):
    for module in (boss, cutouts):
        monkeypatch.setattr(module, "MAX_CUTOUT_NBYTES", most)
    expected = channels["fib/one/em"].voxels[0, 5:35, 3:590, 20:1240]
    array = vf.open_array(url(server, "fib/one/em/0"), engine=engine)
    np.testing.assert_array_equal(array[5:35, 3:590, 20:1240], expected)
    sizes = [np.prod([high - low for low, high in box]) for _, box in server.cutouts]
    assert sum(sizes) == expected.size, "no voxel twice"
    assert (max(sizes) <= most, len(sizes)) == (True, pieces)
    starts = {(y[0], z[0]) for _, (_, y, z) in server.cutouts}
    assert starts <= {(y, z) for y in (3, 512) for z in (5, 16, 32)}


def test_boxes_at_the_same_moment_are_few_cutouts(server, engine, em):
    array = vf.open_array(url(server, "fib/one/em/0"), engine=engine)
    boxes = [np.s_[z : z + 5, y : y + 30, x : x + 40] for z in (3, 8) for y in (7, 37) for x in range(20, 420, 40)]
    wrong = np.s_[5:6, 10:200, 30:31]

    async def main():
        return await asyncio.gather(*(array.read_async(box) for box in [*boxes, wrong]))

    got = asyncio.run(main())
    for box, found in zip([*boxes, wrong], got, strict=True):
        np.testing.assert_array_equal(found, em[box])
    # The first may have begun before the others came.
    assert len(server.cutouts) <= 12


def test_a_box_is_asked_for_without_waiting(server, engine, em, monkeypatch):
    array = vf.open_array(url(server, "fib/one/em/0"), engine=engine)
    monkeypatch.setattr(boss, "_QUIET_S", 5.0)
    began_s = time.monotonic()
    for z in (3, 4):
        np.testing.assert_array_equal(array[z], em[z])
    assert time.monotonic() - began_s < 5


def test_asks_for_boxes_in_one_turn_of_the_loop_are_one_cutout(monkeypatch):
    monkeypatch.setattr(boss, "_QUIET_S", 0.2)
    volume = Volume("fib/one/em/0", ((0, 1), (10, 46), (0, 600), (0, 1250)), 1, has_time=False)
    store = BossStore("http://127.0.0.1:9").with_volumes([volume])
    found = [store.pieces(volume.path, ((0, 8), (y, y + 70), (5, 105))) for y in (30, 100)]
    names = [pieces.name for pieces in found]
    assert names == ["5:105/30:100/10:18", "5:105/100:170/10:18"]

    async def work(clients):
        sent = asyncio.Queue()

        async def refuse(get):
            sent.put_nowait(get.url.partition("/cutout/fib/one/em/0/")[2])
            await go.wait()
            raise vf.StoreError("no")

        clients = SimpleNamespace(wholes=clients.wholes, get=refuse)
        asks = [Ask(f"{volume.path}/{name}/c/0/0/0") for name in names]
        go = asyncio.Event()
        go.set()
        errors = await asyncio.gather(*(store.get(ask, clients) for ask in asks), return_exceptions=True)
        assert [error.message for error in errors] == ["no, cutout 5:105/30:170/10:18"] * 2
        # Behind another that is under way they need not come in one turn.
        go.clear()
        tasks = [asyncio.create_task(store.get(Ask(f"{volume.path}/0:9/0:9/10:18/c/0/0/0"), clients))]
        places = [await sent.get(), await sent.get()]
        for ask in asks:
            tasks.append(asyncio.create_task(store.get(ask, clients)))
            await asyncio.sleep(0.001)
        places.append(await sent.get())
        go.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert sent.empty()
        return places

    assert run(work) == ["5:105/30:170/10:18", "0:9/0:9/10:18", "5:105/30:170/10:18"]


def test_large_reads_take_cutouts_of_a_bounded_size(server, engine, em):
    array = vf.open_array(url(server, "fib/one/em/0"), engine=engine)
    np.testing.assert_array_equal(array[...], em)
    sizes = [np.prod([high - low for low, high in box]) for _, box in server.cutouts]
    assert sum(sizes) == em.size, "no voxel twice, none that is not there"
    assert max(sizes) <= 16 << 20
    assert len(sizes) <= 4


def test_nothing_is_read_twice_from_the_chunk_cache(channels, em):
    with BossServer(channels) as server, vf.Engine(chunk_cache_bytes=64 << 20, retry=FAST) as engine:
        array = vf.open_array(url(server, "fib/one/em/0"), engine=engine)
        for z in (4, 5, 6, 7):
            np.testing.assert_array_equal(array[z, :256, :256], em[z, :256, :256])
        assert len(server.cutouts) == 1


def test_a_read_that_is_cancelled_stops_its_cutout(server, engine, em):
    array = vf.open_array(url(server, "fib/one/em/0"), engine=engine)
    server.refusals.append(1.0)

    async def main():
        task = asyncio.create_task(array.read_async((0, slice(64), slice(64))))
        await asyncio.to_thread(wait_for, lambda: server.cutouts)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    np.testing.assert_array_equal(array[0, :64, :64], em[0, :64, :64])
    assert len(server.cutouts) == 2


def test_a_cutout_stops_when_nobody_waits_for_it_any_more():
    volume = Volume("fib/one/em/0", ((0, 1), (0, 36), (0, 600), (0, 1250)), 1, has_time=False)
    store = BossStore("http://127.0.0.1:9").with_volumes([volume])

    async def work(clients):
        begun, stopped = asyncio.Event(), asyncio.Event()

        async def hang(_):
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                stopped.set()

        clients = SimpleNamespace(wholes=clients.wholes, get=hang)
        asks = [Ask("fib/one/em/0/c/0/0/0", n * volume.block_nbytes, (n + 1) * volume.block_nbytes) for n in range(2)]
        first, second = (asyncio.create_task(store.get(ask, clients)) for ask in asks)
        await begun.wait()
        first.cancel()
        await asyncio.sleep(0.05)
        assert not stopped.is_set()
        second.cancel()
        await asyncio.wait_for(stopped.wait(), 5)

    run(work)


def test_reads_from_many_threads(server, engine, em):
    array = vf.open_array(url(server, "fib/one/em/0"), engine=engine)
    wrong = []

    def work(n):
        got = array[n : n + 9, 100 * n : 100 * n + 90, 500:900]
        if not np.array_equal(got, em[n : n + 9, 100 * n : 100 * n + 90, 500:900]):
            wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- who may


def test_the_token_goes_along_and_is_never_shown(server, engine, em):
    secret = vf.StoreOptions(credentials={"token": "mine"})
    with pytest.raises(vf.PermissionDeniedError, match="token") as caught:
        vf.open(url(server, "fib/mine/em"), engine=engine)
    assert caught.value.status == 403
    image = vf.open(url(server, "fib/mine/em"), options=secret, engine=engine)
    np.testing.assert_array_equal(image.levels[0][3], em[3])
    assert {request.headers["authorization"] for request in server.requests[-3:]} == {"Token mine"}
    as_header = vf.StoreOptions(headers={"Authorization": "Token mine"})
    assert vf.open(url(server, "fib/mine/em"), options=as_header, engine=engine).name == "em"
    assert vf.open(url(server, "fib/mine/em"), options=vf.StoreOptions(credentials="mine"), engine=engine).name == "em"


def test_a_token_that_is_refused(server, engine):
    options = vf.StoreOptions(credentials={"token": "hunter2"})
    with pytest.raises(vf.CredentialsError, match="token") as caught:
        vf.open(url(server, "fib/one/em"), options=options, engine=engine)
    assert caught.value.status == 401
    assert "hunter2" not in repr(caught.value) + str(caught.value) + repr(options)
    for credentials in ({"secret": "hunter2"}, 5, "", "hunter2\n"):
        with pytest.raises(ValueError) as wrong:
            vf.open(url(server, "fib/one/em"), options=vf.StoreOptions(credentials=credentials), engine=engine)
        assert "hunter2" not in str(wrong.value)


def test_a_token_that_expires(server, engine):
    options = vf.StoreOptions(credentials={"token": "mine"})
    array = vf.open_array(url(server, "fib/one/em/0"), options=options, engine=engine)
    server.tokens = ("public",)
    with pytest.raises(vf.CredentialsError) as caught:
        array[0, 0]
    assert "mine" not in str(caught.value)
    assert "cutout 0:1250/0:1/0:1" in caught.value.message


def test_pickled_arrays_and_images_read_on(server, em):
    options = vf.StoreOptions(credentials={"token": "mine"})
    image = pickle.loads(pickle.dumps(vf.open(url(server, "fib/one/em"), options=options)))
    count = len(server.requests)
    np.testing.assert_array_equal(image.levels[0][5, :70], em[5, :70])
    assert len(server.requests) == count + 1
    array = vf.open_array(url(server, "fib/one/em/1"), options=options)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(array))[5], em[5, ::2, ::2])
    assert "mine" not in repr(array) + repr(image) + array.url


# --- what goes wrong


def read(server, engine):
    return vf.open_array(url(server, "fib/one/em/0"), engine=engine)[8:24, :512, 512:1024]


def read_blocks(server, engine):
    return vf.open_array(url(server, "fib/one/em/0"), engine=engine).read_many([(8, 0, 512)], (16, 512, 512))[0]


# How the same voxels are read, and the objects that they are of.
WAYS = [(read, "512:1024/0:512/8:24/c/0/0/0"), (read_blocks, "c/0/0/1")]


@pytest.mark.parametrize("read", [read, read_blocks])
def test_a_busy_server_is_asked_again_in_one(server, em, read):
    server.refusals += [(503, {"retry-after": "1"}), (429, {}), (500, {})]
    with vf.Engine(retry=vf.RetryPolicy(max_attempts=5, base_s=0.01, cap_s=0.02)) as engine:
        np.testing.assert_array_equal(read(server, engine), em[8:24, :512, 512:1024])
    assert len(server.cutouts) == 4, "those that failed together come together again"


def test_a_server_that_fails_for_good(server, engine):
    server.refusals += [(503, {})] * 3
    with pytest.raises(vf.RetriesExhaustedError) as caught:
        read(server, engine)
    assert (caught.value.status, caught.value.attempts) == (503, 3)


@pytest.mark.parametrize(("read", "key"), WAYS)
@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, vf.NotFoundError), (403, vf.PermissionDeniedError), (400, vf.StoreError), (413, vf.StoreError)],
)
def test_refusals(server, engine, status, kind, read, key):
    server.refusals.append((status, {}))
    with pytest.raises(kind) as caught:
        read(server, engine)
    assert caught.value.status == status
    assert caught.value.key.startswith(url(server, f"fib/one/em/0/{key}"))
    assert "cutout 512:1024/0:512/8:24" in caught.value.message


@pytest.mark.parametrize(("read", "key"), WAYS)
@pytest.mark.parametrize(
    "change",
    [
        lambda body: body[:100],
        lambda body: b"",
        lambda body: b"<html>",
        lambda body: body[:4] + (1).to_bytes(4, "little") + body[8:],
        lambda body: body + b"\0",
        lambda body: b"\0" * (8 << 20),
    ],
)
def test_bodies_that_are_not_the_cutout(server, engine, change, read, key):
    server.refusals.append(change)
    with pytest.raises(vf.DataError) as caught:
        read(server, engine)
    assert caught.value.key.startswith(url(server, f"fib/one/em/0/{key}"))
    assert "cutout 512:1024/0:512/8:24" in caught.value.message


def test_a_slow_reply(server, em):
    server.refusals.append(0.5)
    with vf.Engine(retry=FAST) as engine:
        np.testing.assert_array_equal(read(server, engine), em[8:24, :512, 512:1024])


def test_closing_the_engine_ends_what_waits(server):
    engine = vf.Engine(retry=FAST)
    array = vf.open_array(url(server, "fib/one/em/0"), engine=engine)
    server.refusals.append(1.0)
    failure = []

    def work():
        try:
            array[0]
        except vf.StoreError as error:
            failure.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: server.cutouts)
    engine.close()
    thread.join(10)
    assert failure


def test_what_is_stored_is_verified(server, engine):
    report = vf.open_array(url(server, "fib/seg/labels/1"), engine=engine).verify()
    assert report.ok
    assert (report.objects, report.chunks) == (4, 13 * 2 * 2)


# --- boxes


@pytest.mark.parametrize("cell", [(2, 1, 3, 5), (0, 0, 0, 0), (8, 3, 9, 9)])
def test_runs_of_blocks_are_boxes(cell):
    volume = Volume("c/e/h/0", ((0, 9), (6, 57), (70, 5000), (40, 5050)), 2, has_time=True)
    cuboid, block = volume.cuboid(cell), volume.block_nbytes
    grid = [high - low for low, high in cuboid.box]
    numbers = np.arange(np.prod(grid)).reshape(grid)
    entries = np.frombuffer(cuboid.table, "<u8").reshape(4, 8, 8, 2)
    stored = entries[entries[..., 1] == block][:, 0]
    np.testing.assert_array_equal(stored, numbers.ravel() * block)
    assert (entries[entries[..., 1] != block] == 2**64 - 1).all()
    assert cuboid.data_nbytes == numbers.size * block
    for first in range(0, numbers.size, 5):
        for last in range(first, numbers.size, 3):
            run = cuboid.run(first * block + 3, last * block + 7)
            axes = zip(run.box, cuboid.box, strict=True)
            inside = numbers[tuple(slice(low - at, high - at) for (low, high), (at, _) in axes)].ravel()
            assert np.array_equal(inside, np.arange(inside[0], inside[0] + inside.size)), "what is sent is one run"
            assert run.skip == (first - inside[0]) * block + 3
            assert run.skip + run.nbytes <= inside.size * block


def test_grids_of_pieces():
    random = np.random.default_rng(2)
    for _ in range(200):
        item_nbytes = int(random.choice([1, 2, 8]))
        starts = [int(at) for at in random.integers(0, (9, 5000, 5000, 5000))]
        extents = [int(n) for n in 2 ** random.uniform(0, (2, 12, 12, 12))]
        box = tuple((at, at + n) for at, n in zip(starts, extents, strict=True))
        volume = Volume("c/e/h/0", ((0, 99), (0, 9999), (0, 9999), (0, 9999)), item_nbytes, has_time=True)
        assert volume.keyed(volume.key(box)) == box
        grid = volume.grid(box)
        assert np.prod(grid.shape) * item_nbytes <= cutouts.MAX_CUTOUT_NBYTES
        assert grid.piece((0, 0, 0, 0))[1][0] <= box[1][0]
        for start, n, (low, high), cuboid in list(zip(grid.start, grid.shape, box, CUBOID, strict=True))[:3]:
            assert (start, n) == (low, high - low) or (n % cuboid == start % cuboid == 0 <= low - start < cuboid)


def test_groups_fill_boxes_of_a_bounded_size():
    random = np.random.default_rng(1)
    for _ in range(20):
        cells = {tuple((int(at), int(at) + 1) for at in random.integers(0, (2, 9, 9, 9))) for _ in range(60)}
        groups = merged(cells, 12)
        assert sorted(box for group in groups for box in group) == sorted(cells)
        for group in groups:
            extent = np.prod([high - low for low, high in around(group)])
            assert extent == len(group) <= 12


def test_blocks_of_a_cutout_beyond_the_volume_are_zero():
    from numcodecs import blosc

    volume = Volume("c/e/h/0", ((0, 1), (2, 6), (0, 70), (10, 100)), 1, has_time=False)
    cutout = inside(voxels(((0, 1), (0, 3), (0, 2), (0, 2))), volume.box)
    assert cutout == ((0, 1), (2, 6), (0, 70), (10, 100))
    values = np.random.default_rng(0).integers(1, 255, (4, 70, 90), np.uint8)
    encoded = blosc.compress(values.tobytes(), b"lz4", 5, 1, typesize=8)
    whole = np.zeros((12, 128, 128), np.uint8)
    whole[2:6, :70, 10:100] = values
    boxes = [((0, 1), (z, z + 1), (y, y + 1), (0, 2)) for z in range(3) for y in range(2)]
    parts = split(encoded, 1, cutout, BLOCK, [voxels(box) for box in boxes])
    for part, (_, z, y, _) in zip(parts, boxes, strict=True):
        row = whole[z[0] * 4 : z[1] * 4, y[0] * 64 : y[1] * 64]
        assert bytes(part) == row[:, :, :64].tobytes() + row[:, :, 64:].tobytes()
    (all_of_it,) = split(encoded, 1, cutout, (1, 1, 1, 90), [cutout])
    assert bytes(all_of_it) == values.tobytes()
    assert (CUBOID, BLOCK) == ((1, 16, 512, 512), (1, 4, 64, 64))
