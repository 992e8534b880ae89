"""What becomes of forked children while other threads of the parent connect or import; prints figures of docs/fork.md.

Run: python -m tests.fork_hazards [children]. A child has 5 s to read; one that hangs or fails says where, in the file
`hangs` of the current folder. Connections: `children` of one parent, half of them read over http. First reads: a
process each, forked at several times after another thread has begun.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import zarr

from tests.servers import objects_in
from tests.servers.faulty import Fault, FaultyServer
from tests.servers.tls import certificate

DELAYS_S = (0, 0.01, 0.03, 0.06, 0.1)
SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PRELUDE = """
import faulthandler, json, os, signal, sys, threading, time, traceback, warnings
import numpy as np
import voxfetch as vf
warnings.simplefilter("ignore")
urls, options, number = json.loads(sys.argv[1])
expected = np.arange(4096, dtype="u2").reshape(16, 16, 16)
hangs = os.open("hangs", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def opened(url, **keywords):
    return vf.open_array(url, options=options, **keywords)

def check(array):
    assert (array[...] == expected).all()

def again(use):
    while True:
        use()

def new(url):
    with vf.Engine(decode_threads=1) as engine:
        check(opened(url, engine=engine))

def child(work):
    pid = os.fork()
    if pid == 0:
        faulthandler.register(signal.SIGALRM, file=hangs, chain=True)
        signal.alarm(5)
        try:
            work()
        except BaseException:
            traceback.print_exc(file=open(hangs, "a"))
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print({0: "reads", 1: "error", -signal.SIGALRM: "hangs"}.get(code, f"ends by signal {-code}"))
"""
CONNECTIONS = """
arrays = [opened(url) for url in urls]
[check(array) for array in arrays]
for _ in range(3):
    threading.Thread(target=again, args=(USE,), daemon=True).start()
time.sleep(0.2)
for n in range(number):
    child(lambda: check(arrays[n % 2]))
os._exit(0)
"""
FIRST = """
BEFORE
threading.Thread(target=USE, daemon=True).start()
time.sleep(number)
child(lambda: check(opened(urls[0])))
os._exit(0)
"""
IMPORTS = """
import asyncio, obstore.store, voxfetch.array, voxfetch.connections, voxfetch.scheduler, voxfetch.sources
import voxfetch.store.http, voxfetch.store.object, voxfetch.store.resolve
"""
USES = {
    "each request": "lambda array=opened(urls[0], engine=vf.Engine(decode_threads=1)): check(array)",
    "each engine, which reads certificates": "lambda: new(urls[0])",
}
BEFORES = {
    "nothing": ("", "lambda: check(opened(urls[0]))"),
    "imported": (IMPORTS, "lambda: check(opened(urls[0]))"),
    "opened an array": ("array = opened(urls[0])", "lambda: check(array)"),
}


def run(code, urls, options, number, environ):
    """Counts what became of the children of one parent."""
    arguments = [sys.executable, "-c", PRELUDE + code, json.dumps([urls, options, number])]
    return Counter(subprocess.run(arguments, env=environ, stdout=subprocess.PIPE, text=True, check=True).stdout.split())


def shown(counts):
    return ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))


def main(children):
    server_side, trusted = certificate()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        values = np.arange(4096, dtype="u2").reshape(16, 16, 16)
        zarr.create_array(folder / "root", data=values, chunks=(4, 8, 8), shards=(8, 8, 16))
        objects = objects_in(folder / "root", "bucket/root/")
        trust = folder / "certificates.pem"
        system = SYSTEM_CERTIFICATES.read_bytes() if SYSTEM_CERTIFICATES.exists() else b""
        trust.write_bytes(system + trusted.read_bytes())
        environ = {**os.environ, "SSL_CERT_FILE": str(trust), "AWS_EC2_METADATA_DISABLED": "true"}
        with FaultyServer(objects, ssl=server_side) as secure, FaultyServer(objects) as plain:
            secure.rule = lambda _: Fault(close=True)
            https, http = f"{secure.url}/bucket/root", f"{plain.url}/bucket/root"
            for what, use in USES.items():
                before = secure.connections
                counts = run(CONNECTIONS.replace("USE", use), [https, http], None, children, environ)
                made = secure.connections - before
                print(f"three threads connect for {what}: {shown(counts)} ({made:,} connections)", flush=True)
            s3 = {"endpoint": plain.url, "credentials": {"key": "a", "secret": "b"}}
            places = {"http": (http, None), "https": (https, None), "s3": ("s3://bucket/root", s3)}
            for before, (setup, use) in BEFORES.items():
                code = FIRST.replace("BEFORE", setup).replace("USE", use)
                for kind, (url, options) in places.items():
                    counts = Counter()
                    for number in DELAYS_S * 3:
                        counts += run(code, [url], options, number, environ)
                    print(f"first read under way, {before} before, {kind}: {shown(counts)}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
