"""The command line as a user meets it: processes, exit codes, files, JSON. The parsers in detail."""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image as Picture

import voxfetch as vf
from voxfetch.cli import main, text
from voxfetch.cli.read import _slab_end
from voxfetch.png import as_grey, write_png

DATA = Path(__file__).parent / "data"
FIB25 = DATA / "fib25" / "fib25.ome.zarr"
COMMAND = [sys.executable, "-m", "voxfetch.cli"]


def run(*arguments, **more):
    """One call of the command in a process of its own."""
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, timeout=50, check=False, **more)


def call(capsysbinary, *arguments):
    """The same inside this process: (exit code, stdout, stderr)."""
    code = main([*map(str, arguments)])
    out, err = capsysbinary.readouterr()
    return code, out.decode(), err.decode()


@pytest.fixture
def volume(tmp_path):
    """A sharded array that no axis of which is like another, with its values."""
    values = np.random.default_rng(0).integers(0, 60000, (20, 33, 47), np.uint16)
    array = zarr.create_array(
        tmp_path / "v.zarr",
        shape=values.shape,
        shards=(8, 16, 32),
        chunks=(4, 8, 16),
        dtype="u2",
        dimension_names=["z", "y", "x"],
    )
    array[...] = values
    return tmp_path / "v.zarr", values


# --- info and ls


def test_info_of_the_volume_in_a_process():
    done = run("info", FIB25)
    assert done.returncode == 0
    assert done.stderr == b""
    lines = done.stdout.decode().splitlines()
    assert lines[0].endswith("fib25.ome.zarr: image, OME-Zarr 0.5")
    assert "  axes       z (nanometer), y (nanometer), x (nanometer)" in lines
    assert "  labels     groundtruth" in lines
    assert any(line.split()[:6] == ["0", "250", "x", "250", "x", "250"] for line in lines)
    assert not any(line.rstrip() != line for line in lines)


@pytest.mark.parametrize("before", [True, False])
def test_info_as_json(capsysbinary, before):
    arguments = ["--json", "info", FIB25] if before else ["info", FIB25, "--json"]
    code, out, err = call(capsysbinary, *arguments)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["kind"] == "image"
    assert found["format"] == "OME-Zarr 0.5"
    assert found["axes"] == ["z", "y", "x"]
    assert found["labels"] == ["groundtruth"]
    assert found["channels"][0]["window"] == {"min": 0, "max": 255, "start": 60, "end": 200}
    assert [level["shape"] for level in found["levels"]] == [[250] * 3, [125] * 3, [63] * 3]
    assert found["levels"][1]["scale"] == [20, 20, 20]
    assert found["levels"][0]["chunks"] == [32] * 3
    assert found["levels"][0]["shards"] == [128] * 3


def test_info_of_array_and_group(capsysbinary, volume):
    folder, values = volume
    code, out, _ = call(capsysbinary, "info", folder)
    assert code == 0
    assert "20 x 33 x 47 (z y x)" in out
    assert "8 x 16 x 32" in out
    code, out, _ = call(capsysbinary, "info", folder, "--json")
    found = json.loads(out)
    assert found["kind"] == "array"
    assert found["nbytes"] == values.nbytes
    assert found["fill_value"] == 0
    code, out, _ = call(capsysbinary, "info", FIB25 / "labels")
    assert code == 0
    assert "groundtruth" in out


def test_info_of_odd_values(capsysbinary, tmp_path):
    array = zarr.create_array(tmp_path / "a", shape=(2,), dtype="f4", fill_value=float("nan"))
    array.attrs["note"] = "\x1b[31mred\n"
    code, out, _ = call(capsysbinary, "info", tmp_path / "a", "--json")
    assert code == 0
    assert json.loads(out)["fill_value"] == "NaN"
    code, out, _ = call(capsysbinary, "info", tmp_path / "a")
    assert code == 0
    assert "\x1b" not in out
    assert "red\\n" in out


def test_ls(capsysbinary):
    code, out, _ = call(capsysbinary, "ls", FIB25)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == ".  image, OME-Zarr 0.5, z y x"
    assert lines[1] == "level 0  250 x 250 x 250 uint8, chunks 32 x 32 x 32, shards 128 x 128 x 128"
    assert "labels/groundtruth/level 2  63 x 63 x 63 uint64" in out
    code, out, _ = call(capsysbinary, "ls", FIB25 / "labels", "--json", "--depth", 1)
    entries = json.loads(out)["entries"]
    assert [(entry["path"], entry["kind"]) for entry in entries] == [(".", "group"), ("groundtruth", "image")]


def test_ls_shows_what_is_broken_and_goes_on(capsysbinary, tmp_path):
    group = zarr.create_group(tmp_path / "g")
    for name in "abc":
        group.create_array(name, shape=(2,), dtype="u1")
    (tmp_path / "g" / "b" / "zarr.json").write_text("{}")
    code, out, _ = call(capsysbinary, "ls", tmp_path / "g")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [".", "a", "b", "c"]
    assert out.splitlines()[2].startswith("b  ! ")


# --- read


def test_read_npy(capsysbinary, tmp_path, volume):
    folder, values = volume
    target = tmp_path / "out.npy"
    code, out, err = call(capsysbinary, "read", folder, "--region", "3:19,:,5:40:3", "-o", target)
    assert (code, out) == (0, "")
    assert "16 x 33 x 12 uint16" in err
    np.testing.assert_array_equal(np.load(target), values[3:19, :, 5:40:3])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npy", "v.zarr"]


@pytest.mark.parametrize(
    ("region", "selection"),
    [
        (None, np.s_[...]),
        ("3", np.s_[3]),
        ("-1,...,2:4", np.s_[-1, :, 2:4]),
        ("x=5:9,z=1", np.s_[1, :, 5:9]),
        ("4,5,6", np.s_[4, 5, 6]),
        ("1:1", np.s_[1:1]),
        ("15:999", np.s_[15:999]),
        ("::2,1:2", np.s_[::2, 1:2]),
        ("5:6,7:8,9:30", np.s_[5:6, 7:8, 9:30]),
    ],
)
def test_read_regions(capsysbinary, tmp_path, volume, region, selection, monkeypatch):
    # Slabs of a few voxels: every border between slabs is crossed.
    monkeypatch.setattr("voxfetch.cli.read._SLAB_BYTES", 3000)
    folder, values = volume
    where = [] if region is None else [f"--region={region}"]
    assert call(capsysbinary, "read", folder, *where, "-o", tmp_path / "o.npy")[0] == 0
    found = np.load(tmp_path / "o.npy")
    np.testing.assert_array_equal(found, values[selection])
    assert found.shape == values[selection].shape
    assert call(capsysbinary, "read", folder, *where, "-o", tmp_path / "o.raw")[0] == 0
    assert (tmp_path / "o.raw").read_bytes() == values[selection].tobytes()


def test_read_to_stdout_in_a_process(volume):
    folder, values = volume
    done = run("read", folder, "--region", "2:4", "-o", "-")
    assert done.returncode == 0
    np.testing.assert_array_equal(np.load(io.BytesIO(done.stdout)), values[2:4])
    done = run("read", folder, "--region", "2:4", "-o", "-", "--as", "raw", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == values[2:4].tobytes()


def test_read_says_what_it_did_as_json(capsysbinary, tmp_path, volume):
    folder, values = volume
    code, out, err = call(capsysbinary, "read", folder, "-o", tmp_path / "o.npy", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["shape"] == list(values.shape)
    assert found["nbytes"] == values.nbytes
    assert found["kind"] == "npy"


def test_read_png_of_the_volume(capsysbinary, tmp_path):
    target = tmp_path / "z125.png"
    code, _, err = call(capsysbinary, "read", FIB25, "--region", "z=125", "-o", target)
    assert code == 0
    assert "contrast" not in err
    with Picture.open(target) as picture:
        assert (picture.mode, picture.size) == ("L", (250, 250))
        np.testing.assert_array_equal(np.asarray(picture), vf.open(FIB25).level(0)[125])


def test_read_png_of_16_bits_and_of_a_plane_across(capsysbinary, tmp_path, volume):
    folder, values = volume
    code, _, _ = call(capsysbinary, "read", folder, "--region", "y=7:8", "-o", tmp_path / "o.png")
    assert code == 0
    with Picture.open(tmp_path / "o.png") as picture:
        assert picture.size == (47, 20)
        np.testing.assert_array_equal(np.asarray(picture).astype(np.uint16), values[:, 7])


def test_read_png_of_other_types_says_its_contrast(capsysbinary, tmp_path):
    level = vf.open(FIB25).labels["groundtruth"].level(2)
    code, _, err = call(
        capsysbinary,
        "read",
        FIB25 / "labels" / "groundtruth",
        "--level",
        "4-4-4",
        "--region",
        "10",
        "-o",
        tmp_path / "o.png",
    )
    assert code == 0
    plane = level[10].astype(float)
    assert f"contrast: {plane.min():.6g}..{plane.max():.6g} -> 0..255" in err
    with Picture.open(tmp_path / "o.png") as picture:
        grey = np.rint((plane - plane.min()) * (255 / (plane.max() - plane.min())))
        np.testing.assert_array_equal(np.asarray(picture), grey)


def test_a_failed_read_leaves_no_file(tmp_path):
    shutil.copytree(FIB25 / "0", tmp_path / "a")
    shard = next(path for path in sorted((tmp_path / "a" / "c").rglob("*")) if path.is_file())
    shard.write_bytes(shard.read_bytes()[:-1])
    done = run("read", tmp_path / "a", "-o", tmp_path / "o.npy")
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_read_into_a_pipe_that_has_a_name(tmp_path, volume):
    folder, values = volume
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen([*COMMAND, "read", folder, "-o", pipe, "--as", "raw"], stderr=subprocess.DEVNULL) as process:
        assert pipe.read_bytes() == values.tobytes()
        assert process.wait(20) == 0


# --- verify and bench


def test_verify(capsysbinary):
    code, out, err = call(capsysbinary, "verify", FIB25)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "ok"
    assert len(out.splitlines()) == 7
    code, out, _ = call(capsysbinary, "verify", FIB25, "--level", 2, "--json")
    found = json.loads(out)
    assert found["ok"]
    assert len(found["arrays"]) == 1
    assert found["arrays"][0]["chunks"] == 8


def test_verify_finds_a_flipped_bit_in_an_index(tmp_path):
    shutil.copytree(FIB25, tmp_path / "a")
    shard = next(path for path in sorted((tmp_path / "a" / "1" / "c").rglob("*")) if path.is_file())
    data = bytearray(shard.read_bytes())
    data[-2] ^= 1
    shard.write_bytes(data)
    shutil.rmtree(tmp_path / "a" / "labels")
    done = run("verify", tmp_path / "a")
    assert done.returncode == 1
    lines = done.stdout.decode().splitlines()
    assert lines[-1] == "64 problems found"
    assert lines[-3] == "  ! ... and 44 more"
    done = run("verify", tmp_path / "a", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert not found["ok"]
    assert [array["problem_count"] for array in found["arrays"]] == [0, 64, 0]
    assert "/1/c/" in found["arrays"][1]["problems"][0]["message"]


def test_verify_counts_what_cannot_be_opened(capsysbinary, tmp_path):
    group = zarr.create_group(tmp_path / "g")
    group.create_array("a", shape=(2,), dtype="u1")
    group.create_group("b")
    (tmp_path / "g" / "b" / "zarr.json").write_text("[]")
    code, out, _ = call(capsysbinary, "verify", tmp_path / "g")
    assert code == 1
    assert "b: cannot be opened" in out


def test_bench(capsysbinary, volume):
    folder, _ = volume
    arguments = ["bench", folder, "--count", 3, "--seconds", 0.2, "--shape", "4,8,8"]
    code, out, err = call(capsysbinary, *arguments)
    assert (code, err) == (0, "")
    names = [line.split("  ")[1] for line in out.splitlines()[2:]]
    assert names == ["chunk", "box", "64 boxes", "plane yx", "plane zx", "plane zy"]
    code, out, _ = call(capsysbinary, *arguments, "--json")
    found = json.loads(out)
    assert found["seed"] == 0
    for row in found["workloads"]:
        assert row["nbytes"] > 0
        assert 0 < row["p50_ms"] <= row["p99_ms"]
    assert found["workloads"][1]["shape"] == [4, 8, 8]


def test_bench_of_few_axes(capsysbinary, tmp_path):
    zarr.create_array(tmp_path / "a", shape=(100,), chunks=(30,), dtype="u1")[...] = 1
    zarr.create_array(tmp_path / "b", shape=(0, 3), dtype="u1")
    assert call(capsysbinary, "bench", tmp_path / "a", "--count", 2)[0] == 0
    assert call(capsysbinary, "bench", tmp_path / "a", "--shape", "3,3")[0] == 2
    assert call(capsysbinary, "bench", tmp_path / "b")[0] == 2


# --- what goes wrong


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("info",),
        ("read", FIB25),
        ("read", FIB25, "-o", "x.tiff"),
        ("read", FIB25, "-o", "x.npy", "--level", "9"),
        ("read", FIB25, "-o", "x.npy", "--level", "3-3-3"),
        ("read", FIB25, "-o", "x.npy", "--level", "one"),
        ("read", FIB25 / "0", "-o", "x.npy", "--level", "0"),
        ("read", FIB25 / "labels", "-o", "x.npy"),
        ("read", FIB25, "-o", "x.npy", "--region", "1:2:3:4"),
        ("read", FIB25, "-o", "x.npy", "--region", "999"),
        ("read", FIB25, "-o", "x.npy", "--region", "::-1"),
        ("read", FIB25, "-o", "x.npy", "--region", "c=1"),
        ("read", FIB25, "-o", "x.png"),
        ("read", FIB25, "-o", "x.png", "--region", "0,0:0"),
        ("bench", FIB25, "--shape", "0,1,1"),
        ("ls", FIB25, "--depth", "deep"),
    ],
    ids=lambda arguments: " ".join(str(argument).removeprefix(str(DATA)) for argument in arguments),
)
def test_usage_errors(capsysbinary, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsysbinary, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("voxfetch: ")
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_exit_codes_of_stores_and_documents(capsysbinary, tmp_path):
    (tmp_path / "empty").mkdir()
    for name, document in (
        ("malformed", "{"),
        (
            "unsupported",
            json.dumps(
                {**json.loads((FIB25 / "0" / "zarr.json").read_text()), "storage_transformers": [{"name": "x"}]}
            ),
        ),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "zarr.json").write_text(document)
    cases = {"nowhere": (3, "NotFoundError"), "empty": (3, "NotFoundError"), "malformed": (4, "MetadataError")}
    cases["unsupported"] = (6, "UnsupportedError")
    for name, (code, kind) in cases.items():
        found, out, err = call(capsysbinary, "info", tmp_path / name)
        assert (found, out) == (code, "")
        assert len(err.splitlines()) == 1
        found, out, err = call(capsysbinary, "--json", "info", tmp_path / name)
        assert (found, out) == (code, "")
        problem = json.loads(err)["error"]
        assert problem["kind"] == kind
        assert problem["exit_code"] == code
        assert problem["message"]
    assert call(capsysbinary, "read", FIB25, "-o", tmp_path / "no" / "such" / "folder.npy")[0] == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_exit_code_of_permission(capsysbinary, tmp_path):
    shutil.copytree(FIB25 / "2", tmp_path / "a")
    (tmp_path / "a").chmod(0)
    try:
        assert call(capsysbinary, "info", tmp_path / "a")[0] == 5
    finally:
        (tmp_path / "a").chmod(0o755)


def test_exit_code_of_a_bug_keeps_the_traceback(capsysbinary, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(vf, "open", fail)
    code, _, err = call(capsysbinary, "info", FIB25)
    assert code == 70
    assert "Traceback" in err
    code, _, err = call(capsysbinary, "info", FIB25, "--json")
    assert code == 70
    assert json.loads(err)["error"]["kind"] == "ZeroDivisionError"


def test_broken_pipe():
    with subprocess.Popen(
        [*COMMAND, "read", FIB25, "-o", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(20) == 141
        assert process.stderr.read() == b""


def test_interrupt():
    command = [*COMMAND, "bench", FIB25, "--seconds", "40", "--count", "1000000"]
    # A child inherits "ignore", as in a job in the background, but not a handler: it starts with the default.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        try:
            # It must be past its imports: loaded, and then a moment more.
            while "_core" not in Path(f"/proc/{process.pid}/maps").read_text():
                time.sleep(0.1)
            time.sleep(2)
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130
            assert process.stderr.read() == b""
        finally:
            process.kill()


def test_progress_on_a_terminal_only(volume):
    command = [*COMMAND, "bench", volume[0], "--seconds", "0.8", "--count", "1000000"]
    owner, terminal = pty.openpty()
    try:
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=terminal) as process:
            os.close(terminal)
            shown = b""
            while True:
                try:
                    data = os.read(owner, 4096)
                except OSError:
                    break
                if not data:
                    break
                shown += data
            assert process.wait(20) == 0
    finally:
        os.close(owner)
    assert b"timing [" in shown
    assert shown.endswith(b"\r\x1b[K")
    assert run(*command[3:]).stderr == b""


def test_help_and_version():
    done = run("--help")
    assert done.returncode == 0
    assert b"exit codes: 0 done, 1 verify found problems" in done.stdout
    assert run("read", "--help").returncode == 0
    done = run("--version")
    assert done.stdout.decode() == f"voxfetch {vf.__version__}\n"


def test_installed_command():
    command = Path(sys.executable).parent / "voxfetch"
    if not command.exists():
        pytest.skip("the package is not installed")
    done = subprocess.run([command, "--version"], capture_output=True, check=True, timeout=20)
    assert done.stdout.decode() == f"voxfetch {vf.__version__}\n"


# --- parsers


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (None, np.s_[:, :, :]),
        ("", np.s_[:, :, :]),
        ("5", np.s_[5, :, :]),
        ("10:20, 0:64 ,0:64", np.s_[10:20, 0:64, 0:64]),
        (":,::2,-3", np.s_[:, ::2, -3]),
        ("...", np.s_[:, :, :]),
        ("...,5", np.s_[:, :, 5]),
        ("1,...", np.s_[1, :, :]),
        ("1,2,3,...", np.s_[1, 2, 3]),
        ("x=0:64", np.s_[:, :, 0:64]),
        ("x=0:64,z=5", np.s_[5, :, 0:64]),
        ("y = -4:", np.s_[:, -4:, :]),
    ],
)
def test_parse_region(given, meant):
    assert text.parse_region(given, ("z", "y", "x")) == meant


@pytest.mark.parametrize(
    "given", ["1,2,3,4", "a", "1.5", "1:b", "1:2:3:4", "x=1,2", "x=1,x=2", "w=1", "...,...", "1,2,3,4,...", ",", "x="]
)
def test_parse_region_refuses(given):
    with pytest.raises(text.UsageError):
        text.parse_region(given, ("z", "y", "x"))


def test_parse_shape_and_level():
    assert text.parse_shape("32,32,32") == (32, 32, 32)
    assert text.parse_level("2") == 2
    assert text.parse_level("2-2-1") == "2-2-1"
    for given in ("", "a", "1,-1", "0", "1;2"):
        with pytest.raises(text.UsageError):
            text.parse_shape(given)


@pytest.mark.parametrize(("rows", "chunk"), [(1, 4), (5, 4), (7, 3), (100, 8), (0, 4)])
@pytest.mark.parametrize("span", [range(3, 40), range(0, 40, 3), range(5, 6), range(7, 39, 2)])
def test_slabs_cover_the_span_and_end_on_chunks(span, rows, chunk):
    position, ends = 0, []
    while position < len(span):
        end = _slab_end(span, position, chunk, rows)
        assert position < end <= min(len(span), position + max(1, rows))
        ends.append(end)
        position = end
    if rows >= 2 * chunk and span.step == 1:
        assert all(span[end] % chunk == 0 for end in ends[:-1])


def test_sizes():
    assert [text.size(n) for n in (0, 1023, 1024, 15 << 20, 3 << 50)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "15.0 MiB",
        "3.0 PiB",
    ]
    assert text.plain("a\x1b[1m\u00e9\n") == "a\\x1b[1m\u00e9\\n"


# --- PNG


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (300, 200), (2, 70000)])
def test_png_round_trip(dtype, shape, monkeypatch):
    monkeypatch.setattr("voxfetch.png._STRIP_BYTES", 1000)
    image = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    for given in (image, np.asfortranarray(image), np.repeat(image, 2, 0)[::2]):
        file = io.BytesIO()
        write_png(file, given)
        with Picture.open(file) as picture:
            picture.load()
            np.testing.assert_array_equal(np.asarray(picture).astype(dtype), image)


def test_png_refuses():
    for image in (np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2), np.float32), np.zeros((0, 2), np.uint8)):
        with pytest.raises(ValueError, match="PNG"):
            write_png(io.BytesIO(), image)


def test_grey():
    nan, inf = float("nan"), float("inf")
    cases = [
        (np.array([[True, False]]), [[255, 0]], (0, 1)),
        (np.array([[-1.0, nan, inf, 3.0]]), [[0, 0, 0, 255]], (-1, 3)),
        (np.array([[5, 5]], np.int64), [[0, 0]], (5, 5)),
        (np.array([[nan]]), [[0]], (0, 0)),
        (np.array([[3 + 4j, 0]]), [[255, 0]], (0, 5)),
        (np.array([[0, 100]], "M8[s]"), [[0, 255]], (0, 100)),
    ]
    for image, grey, stretched in cases:
        found = as_grey(image)
        np.testing.assert_array_equal(found[0], grey)
        assert found[0].dtype == np.uint8
        assert found[1] == stretched
    assert as_grey(np.zeros((1, 1), np.uint16))[1] is None
    with pytest.raises(ValueError, match="grey"):
        as_grey(np.array([["a"]]))
