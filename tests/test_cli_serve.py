"""`voxfetch serve` as a process: URLs on stdout, signals, exit codes, workers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import zarr

from tests.servers.plain import Client
from voxfetch.cli import main

COMMAND = [sys.executable, "-m", "voxfetch.cli", "serve"]


@pytest.fixture
def volume(tmp_path):
    zarr.create_array(tmp_path / "v.zarr", shape=(4, 4), chunks=(2, 2), dtype="u1")[...] = 1
    return tmp_path / "v.zarr"


@contextlib.contextmanager
def served(*arguments, lines=1, soft_limit=None):
    """The process and what it has printed by the time it listens. `soft_limit`: of open files, as it begins."""
    # A child inherits "ignore", as in a job in the background, but not a handler: it starts with the default.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        command = [*COMMAND, *map(str, arguments)]
        if soft_limit is not None:
            command = ["sh", "-c", f'ulimit -S -n {soft_limit}; exec "$@"', "sh", *command]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        try:
            yield process, [process.stdout.readline().strip() for _ in range(lines)]
        finally:
            process.kill()


def get(url, path="", plane="z3", **headers):
    parts = urlsplit(url.replace("/z3/", f"/{plane}/", 1))
    with Client(parts.port) as client:
        return client.ask(parts.path + path, **headers)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_serves_until_a_signal(volume, number, code):
    with served(volume, f"em={volume}", lines=2) as (process, urls):
        assert [url.rpartition("/")[2] for url in urls] == ["v.zarr", "em"]
        for url in urls:
            assert url.startswith("http://127.0.0.1:")
            got = get(url, "/zarr.json", "raw")
            assert (got.status, got.body) == (200, (volume / "zarr.json").read_bytes())
            parts = urlsplit(url)
            assert got["Cache-Control"] == "no-cache"
        with Client(parts.port) as idle:
            assert idle.ask("/").status == 401
            process.send_signal(number)
            assert process.wait(15) == code
            assert idle.socket.recv(1) == b""
        shown = process.stderr.read()
        assert "Traceback" not in shown
        assert "v.zarr: " in shown


@pytest.mark.skipif(sys.platform != "linux", reason="of a process as /proc shows it")
def test_a_thousand_clients_at_once_and_few_open_files_to_begin_with(tmp_path):
    """As shells have it: a soft limit of about as many files as there are clients, which a process may raise."""
    array = zarr.create_array(tmp_path / "v.zarr", shape=(64, 256, 256), chunks=(64, 64, 64), dtype="u1")
    array[...] = 1
    with served(tmp_path / "v.zarr", "--token", "0123456789abcdef", soft_limit=256) as (process, [url]):
        port, path = urlsplit(url).port, urlsplit(url).path
        assert get(url, "/c/0/0/0").status == 200
        proc = Path(f"/proc/{process.pid}")
        files, resident = len(list((proc / "fd").iterdir())), resident_nbytes(proc)
        clients = [Client(port) for _ in range(1000)]
        for number, client in enumerate(clients):
            client.send(f"{path}/c/0/{number % 4}/{number // 4 % 4}")
        statuses = [client.receive().status for client in clients]
        grown = resident_nbytes(proc) - resident
        for client in clients:
            client.socket.close()
        # 64 work and 256 wait; what is more is sent away.
        assert set(statuses) <= {200, 503}
        assert statuses.count(200) >= 300
        assert grown < 128 << 20
        deadline = time.monotonic() + 10
        while (left := len(list((proc / "fd").iterdir()))) > files + 20:
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        assert "Traceback" not in process.stderr.read()


def resident_nbytes(proc):
    return int((proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_while_a_source_does_not_answer(number, code):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(20)
        with served(f"http://127.0.0.1:{silent.getsockname()[1]}/a.zarr", lines=0) as (process, _):
            asking, _ = silent.accept()
            with asking:
                time.sleep(0.2)
                process.send_signal(number)
                assert process.wait(10) == code
            assert "Traceback" not in process.stderr.read()


def test_options(volume):
    arguments = ("--no-auth", "--origin", "https://a.example", "--allow-host", "em.example", "--immutable", "--json")
    with served(volume, *arguments) as (process, lines):
        found = json.loads(lines[0])
        url = found["sources"]["v.zarr"]
        assert found["url"] + "z3/v.zarr" == url
        got = get(url, "/zarr.json", "raw", host="em.example", Origin="https://a.example")
        assert got.status == 200
        assert got["Access-Control-Allow-Origin"] == "https://a.example"
        assert "immutable" in got["Cache-Control"]
        assert get(url, "/zarr.json", "raw", Origin="https://b.example")["Access-Control-Allow-Origin"] is None
        process.terminate()
        assert process.wait(15) == 0


def workers_of(process):
    """Numbers of the processes that serve; beside them is one of Python's own."""
    below = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [pid for pid in below if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]


def alive(pids):
    """Those that run; of one that has ended an entry may be left that nobody has looked at."""
    found = []
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(pid)
    return found


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_workers(volume, number, code):
    with served(volume, "--workers", 2) as (process, (url,)):
        for _ in range(20):
            got = get(url, "/zarr.json", "raw")
            assert (got.status, got.body) == (200, (volume / "zarr.json").read_bytes())
        workers = workers_of(process)
        assert len(workers) == 2
        process.send_signal(number)
        assert process.wait(20) == code
        assert "Traceback" not in process.stderr.read()
        assert not alive(workers)


def test_workers_end_together(volume):
    with served(volume, "--workers", 2) as (process, (_,)):
        os.kill(int(workers_of(process)[0]), signal.SIGKILL)
        assert process.wait(20) == 70
        assert "has ended" in process.stderr.read()


def test_workers_end_with_their_parent(volume):
    with served(volume, "--workers", 2) as (process, (_,)):
        workers = workers_of(process)
        process.kill()
        process.wait(10)
        deadline = time.monotonic() + 15
        while (left := alive(workers)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left


def call(capsysbinary, *arguments):
    code = main(["serve", *map(str, arguments)])
    out, err = capsysbinary.readouterr()
    return code, out.decode(), err.decode()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["none.zarr"], 3),
        (["none.zarr", "--workers", "2"], 3),
        ([], 2),
        (["a", "--token", "short"], 2),
        (["a", "--token", ""], 2),
        (["a", "--token", "0123456789abcdef", "--no-auth"], 2),
        (["a", "--port", "70000"], 2),
        (["a", "--workers", "0"], 2),
        (["a", "--cache-bytes", "-1"], 2),
        (["x=a", "x=b"], 2),
        (["..=a"], 2),
    ],
)
def test_what_cannot_be_served(capsysbinary, tmp_path, monkeypatch, arguments, code):
    monkeypatch.chdir(tmp_path)
    got, out, err = call(capsysbinary, *arguments)
    assert (got, out) == (code, "")
    assert err.startswith("voxfetch: ")


def test_a_port_that_is_taken(capsysbinary, volume):
    with served(volume) as (_, (url,)):
        code, out, err = call(capsysbinary, volume, "--port", urlsplit(url).port)
    assert (code, out) == (5, "")
    assert "in use" in err


def test_without_aiohttp(capsysbinary, volume, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = call(capsysbinary, volume)
    assert code == 2
    assert "pip install 'voxfetch[serve]'" in err


def test_importing_is_cheap():
    lines = "import sys, voxfetch.server; print(*{'aiohttp'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == ""


def test_the_example_serves_an_image_that_another_library_reads():
    script = Path(__file__).parents[1] / "examples" / "serve_zarr.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "/t/TOKEN/z3/em" in done.stdout
    assert "chunks (32, 32, 32), unsharded; mean of the first plane 121.692" in done.stdout
