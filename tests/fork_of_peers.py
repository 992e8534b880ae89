"""What becomes of other readers in a forked child after the parent has read once; prints the table of docs/fork.md.

Run: python -m tests.fork_of_peers [forks]. Each reader has a process of its own, and each child 5 s to read what its
parent has read before.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import zarr

from tests.servers import objects_in
from tests.servers.faulty import FaultyServer

PRELUDE = """
import os, signal, sys, time, warnings
import numpy as np
warnings.simplefilter("ignore")
path, url, s3, forks = sys.argv[1], sys.argv[2] + "/bucket/root", sys.argv[2], int(sys.argv[3])
expected = np.arange(64, dtype="u2").reshape(8, 8)
secrets = {"access_key_id": "a", "secret_access_key": "b"}
"""
POSTLUDE = """
assert (read() == expected).all()
for _ in range(forks):
    pid = os.fork()
    if pid == 0:
        sys.stderr = open(os.devnull, "w")
        signal.alarm(5)
        try:
            os._exit(0 if (read() == expected).all() else 1)
        except BaseException:
            os._exit(2)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print({0: "reads", 1: "reads wrong", 2: "error", -signal.SIGALRM: "hangs"}.get(code, f"ends by signal {-code}"))
signal.alarm(5)
assert (read() == expected).all()
os._exit(0)
"""
ZARRS = 'zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})'
READERS = {
    ("voxfetch", "HTTP"): "import voxfetch as vf; a = vf.open_array(url); read = lambda: a[...]",
    ("voxfetch", "S3"): """
import voxfetch as vf
a = vf.open_array("s3://bucket/root", options={"endpoint": s3, **{"key": "a", "secret": "b"}})
read = lambda: a[...]
""",
    ("obstore", "HTTP"): """
import obstore.store
store = obstore.store.HTTPStore(url, client_options={"allow_http": True})
def read():
    return expected if len(store.get_range("c/0/0", start=0, end=8)) == 8 else None
""",
    ("obstore", "S3"): """
import obstore.store
store = obstore.store.S3Store("bucket", endpoint=s3, region="x", client_options={"allow_http": True}, **secrets)
def read():
    return expected if len(store.get_range("root/c/0/0", start=0, end=8)) == 8 else None
""",
    ("zarr, obstore", "HTTP"): """
import obstore.store, zarr
store = obstore.store.HTTPStore(url, client_options={"allow_http": True})
a = zarr.open_array(zarr.storage.ObjectStore(store, read_only=True), mode="r")
read = lambda: a[...]
""",
    ("zarr, fsspec", "HTTP"): 'import zarr; a = zarr.open_array(url, mode="r"); read = lambda: a[...]',
    ("zarr, zarrs", "files"): f'import zarr; {ZARRS}; a = zarr.open_array(path, mode="r"); read = lambda: a[...]',
    ("zarr, zarrs", "HTTP"): f'import zarr; {ZARRS}; a = zarr.open_array(url, mode="r"); read = lambda: a[...]',
    **{
        ("tensorstore", where): f"""
import tensorstore
os.environ |= {{"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}}
a = tensorstore.open({{"driver": "zarr3", "kvstore": {kvstore}}}).result()
read = lambda: a.read().result()
"""
        for where, kvstore in {
            "files": '{"driver": "file", "path": path}',
            "HTTP": '{"driver": "http", "base_url": url + "/"}',
            "S3": '{"driver": "s3", "bucket": "bucket", "path": "root/", "endpoint": s3, "aws_region": "x"}',
        }.items()
    },
}


def outcome(code, *arguments):
    """How the children ended, and the parent if not well."""
    command = [sys.executable, "-c", PRELUDE + code + POSTLUDE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    text = ", ".join(f"{number} {what}" for what, number in Counter(done.stdout.splitlines()).items())
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        text += f"; the parent ends with {done.returncode}"
    return text


def main():
    forks = sys.argv[1] if len(sys.argv) > 1 else "10"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        zarr.create_array(path, data=np.arange(64, dtype="u2").reshape(8, 8), chunks=(4, 4))
        with FaultyServer(objects_in(path, "bucket/root/")) as server:
            print(f"| Reader | From | {forks} children |\n|---|---|---|")
            for (reader, where), code in READERS.items():
                versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in reader.split(", "))
                print(f"| {versions} | {where} | {outcome(code, str(path), server.url, forks)} |", flush=True)


if __name__ == "__main__":
    main()
