"""The benchmarks of formats over HTTP: who is compared with whom, what is made beforehand, and the server of BossDB."""

# ruff: noqa: F811 - fixtures of another file

from __future__ import annotations

import functools
import http.client
import importlib
import time
from contextlib import closing

import pytest

pytest.importorskip("bench", reason="no benchmarks next to the tests")

from bench import formats
from bench.engines import UnsupportedVolumeError
from bench.remote import runner
from bench.remote.runner import BOSS
from bench.remote.server import Server, ServerError
from bench.remote.volumes import RemoteVolume, prepare
from bench.remote.worker import COUNTED, RemoteWorker
from bench.volumes import build

from tests.test_bench import cache, range_server  # noqa: F401 - fixtures


def test_tables_are_made_before_the_clock_runs(range_server, monkeypatch):
    pytest.importorskip("kerchunk")
    volume = prepare(["hdf5_first"], "small", repeat=1, crops=1, sustained_bytes=1, few=True)["hdf5"]
    table = importlib.import_module("voxfetch.formats.hdf5.table")
    made = []
    with closing(RemoteWorker()) as worker:
        worker.load("voxfetch-tables", range_server.port)
        sample = worker._sample
        monkeypatch.setattr(worker, "_sample", lambda *call, **more: (made.append("sample"), sample(*call, **more))[1])
        collect = table._collect
        monkeypatch.setattr(table, "_collect", lambda *given: (made.append("table"), collect(*given)))
        run = {"seed": "s", "count": 2, "limit_s": 60, "delayed": False}
        worker.run("hdf5_first", volume.as_json(), 1, **run)
        with pytest.raises(UnsupportedVolumeError):
            worker.run("hdf5_xy", volume.as_json(), 1, **run)
    assert made == ["table", "sample"] * 2


def test_first_of_hdf5_is_compared_with_its_like():
    times = {"voxfetch": 5.0, "voxfetch-tables": 2.0, "h5py": 4.0, "remfile": 6.0, "zarr-kerchunk": 3.0}
    best = functools.partial(formats._best_peer, times=times)
    assert best("hdf5", "first, http", "voxfetch") == best("hdf5_lm", "first, http", "remfile") == "h5py"
    assert best("hdf5", "first, http", "voxfetch-tables") == "zarr-kerchunk"
    assert best("hdf5", "xy, http", "voxfetch") == best("references", "first, http", "voxfetch") == "zarr-kerchunk"


@pytest.fixture(scope="module")
def boss_server(cache):
    pytest.importorskip("numcodecs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.remote.volumes.SERVED", cache)
        with Server(build("bossdb", "small").path, BOSS) as server:
            yield server


def test_bossdb(boss_server):
    """Answers are compared by the worker; the server counts what is asked for, and waits as it is told."""
    volume = RemoteVolume(*[build("bossdb", "small")] * 2)
    with closing(RemoteWorker()) as worker:
        worker.load("voxfetch", boss_server.port)
        run = {"seed": "s", "count": 2, "limit_s": 60}
        for name in ("bossdb_box128", "bossdb_xy"):
            worker.run(name, volume.as_json(), 0, **run, delayed=False)
            for sample in worker.run(name, volume.as_json(), 1, **run, delayed=True)["samples"]:
                counts = (sample["get"], sample["head"], sample["max_in_flight"], sample["new_connections"])
                assert counts == (1, 0, 1, 0)
                assert sample["seconds"] > 0.02
                assert sample["bytes"] > 97 * 105
    with pytest.raises(ServerError, match="400"):
        boss_server.control.reset(bandwidth_mb_s=50)


def test_counters_of_bossdb_are_right(boss_server):
    boss_server.control.reset(latency_ms=50)
    with closing(http.client.HTTPConnection("127.0.0.1", boss_server.port)) as connection:
        headers = {"authorization": "Token public", "accept": "application/blosc"}
        sizes = []
        for extent in (8, 200):
            start_s = time.monotonic()
            connection.request("GET", f"/v1/cutout/bench/volume/voxels/0/0:{extent}/2:9/3:4/", headers=headers)
            reply = connection.getresponse()
            sizes.append(len(reply.read()))
            assert time.monotonic() - start_s >= 0.05
            assert reply.status == (200 if extent == 8 else 400)
    stats = boss_server.control.stats()
    assert stats["status"] == {"200": 1, "400": 1}
    assert (stats["get"], stats["bytes"], stats["max_in_flight"], stats["new_connections"]) == (2, sum(sizes), 1, 1)


def test_servers_of_a_run(cache, range_server, monkeypatch):
    """BossDB has one of its own."""
    monkeypatch.setattr("bench.remote.runner.SERVED", cache)
    names = ("bossdb_xy", "cubes", "bossdb_box128")
    settings = runner.Settings(
        "small", ("voxfetch",), names, repeat=1, seed="s", budget_s=9, crops=1, sustained_gib=1, few=True
    )
    found = []
    for server, served in runner._servers(settings, settings.volumes()):
        with server:
            found.append((served, set(server.control.stats())))
    assert [served for served, _ in found] == [("cubes",), ("bossdb_xy", "bossdb_box128")]
    assert set(COUNTED) <= found[0][1] & found[1][1]
