"""Who serves: each server with one worker, set up the way that is fastest for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.engines import OWN
from bench.runner import interpreter
from bench.serve.chunks import Decoder, StoredChunks
from bench.serve.process import free_port
from bench.volumes import Volume

if TYPE_CHECKING:
    from bench.serve.chunks import Shape
    from bench.volumes import Array

#: Volume -> the one with the same voxels and chunks that voxfetch has to encode.
TRANSCODED = {"webknossos": "wkw", "webknossos64": "wkw64"}
TRANSCODING = f"{OWN}-transcoded"
NEUROGLANCER_TOKEN = "bench"
LIMIT = "nginx"


class ServerMissingError(Exception):
    """A server is not installed; the message says what to do."""


@dataclass(frozen=True)
class Request:
    """What is asked for: a path, and the value of a Range header where it is a part of that."""

    path: str
    range: str | None = None


@dataclass(frozen=True)
class Server:
    """How a server is started, and what is asked of it."""

    command: list[str]
    port: int
    request: Callable[[Shape], Request]
    versions: dict[str, str]
    configuration: str
    #: Of a body, where it is not a chunk as it is stored; called once the server runs.
    decoder: Callable[[], Callable[[Shape, bytes], Array] | None] = field(default=lambda: None)


def nginx(folder: Path, stored: StoredChunks, volume: Volume) -> Server:
    """Static files of the same chunks, unsharded."""
    del volume
    program = shutil.which("nginx")
    if program is None:
        raise ServerMissingError("nginx is not installed (Debian: apt-get install nginx-light)")
    files, port, configuration = folder / "chunks", free_port(), folder / "nginx.conf"
    stored.write(files)
    user = "user root;" if os.geteuid() == 0 else ""
    configuration.write_text(f"""
{user} daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr error;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 600;
  open_file_cache max={len(stored.parts) + 1}; open_file_cache_valid 600s; types {{ }}
  default_type application/octet-stream;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; root {files}; }}
}}
""")
    told = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr
    return Server(
        [program, "-c", str(configuration), "-p", str(folder), "-e", "stderr"],
        port,
        lambda position: Request(f"/{stored.key(position)}"),
        {"nginx": told.rpartition("/")[2].strip()},
        "the chunks as files, one worker, sendfile, files kept open",
    )


def zarrhttp(variant: str) -> Callable[[Path, StoredChunks, Volume], Server]:
    """Shards as they are; the client knows their indexes and asks for the range of each chunk.

    variant: "fast", with the parts that make uvicorn fast, or "plain", as it comes.
    """

    def server(folder: Path, stored: StoredChunks, volume: Volume) -> Server:
        del folder
        program, port = _python("zarrhttp", "zarr_http_server, uvloop, httptools"), free_port()

        def request(position: Shape) -> Request:
            part = stored.parts[position]
            return Request(f"/{part.key}", f"bytes={part.start}-{part.end - 1}")

        parts = ("uvloop", "httptools") if variant == "fast" else ("asyncio", "h11")
        return Server(
            [program, "-m", "bench.serve.programs", "zarrhttp", str(volume.path), str(port), *parts],
            port,
            request,
            _versions(program, "zarr-http-server", "zarr", "uvicorn", *(p for p in parts if p != "asyncio")),
            f"the shards; ranges of chunks, by a client that has every index; uvicorn with {' and '.join(parts)}",
        )

    return server


def neuroglancer(variant: str) -> Callable[[Path, StoredChunks, Volume], Server]:
    """The volume server of Neuroglancer's Python package. variant: "raw", "npz" or "memory"."""

    def server(folder: Path, stored: StoredChunks, volume: Volume) -> Server:
        del folder
        encoding = "npz" if variant == "npz" else "raw"
        # Its encoding raw calls what numpy has no more.
        needs = (
            "neuroglancer, tensorstore, numpy; numpy.ndarray.tostring"
            if encoding == "raw"
            else "neuroglancer, tensorstore"
        )
        program, port = _python("neuroglancer", needs), free_port()
        token = f"{NEUROGLANCER_TOKEN}.{NEUROGLANCER_TOKEN}"
        scale = ",".join("1" for _ in stored.shape)

        def request(position: Shape) -> Request:
            box = stored.box(position)
            end = ",".join(str(s + n) for s, n in zip(box.start, box.shape, strict=True))
            start = ",".join(map(str, box.start))
            return Request(f"/neuroglancer/{encoding}/{token}/{scale}/{start}/{end}")

        def decode(position: Shape, body: bytes) -> Array:
            if encoding == "npz":
                return _npz(body)
            return np.frombuffer(body, volume.dtype).reshape(stored.box(position).shape)

        where = "voxels in memory" if variant == "memory" else "of tensorstore with a cache pool of 16 MiB"
        described = volume.as_json() | {"memory": variant == "memory"}
        return Server(
            [program, "-m", "bench.serve.programs", "neuroglancer", json.dumps(described), str(port)],
            port,
            request,
            _versions(program, "neuroglancer", "tensorstore", "tornado", "numpy"),
            f"LocalVolume {where}, encoding {encoding}",
            lambda: decode,
        )

    return server


def own(folder: Path, stored: StoredChunks, volume: Volume) -> Server:
    """``voxfetch serve``, its plane /z3: chunks of shards as they are stored."""
    del folder
    return _own(stored, volume, "/z3, chunks as they are stored")


def own_transcoded(folder: Path, stored: StoredChunks, volume: Volume) -> Server:
    """The same of another format, whose chunks have to be decoded and encoded."""
    del folder
    return _own(stored, volume, f"/z3 of {volume.format}: decoded and encoded, nothing kept", "0")


def _own(stored: StoredChunks, volume: Volume, configuration: str, *cache_bytes: str) -> Server:
    port = free_port()
    root = f"/z3/{SOURCE}"

    def decoder() -> Callable[[Shape, bytes], Array]:
        """Of the array that the server shows; its chunks have to be those of the volume."""
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{root}/zarr.json") as reply:
            document = json.load(reply)
        chunk = tuple(document["chunk_grid"]["configuration"]["chunk_shape"])
        if chunk != stored.chunk:
            raise ServerMissingError(f"voxfetch serve shows {volume.name} in chunks {chunk}")
        return Decoder(document)

    return Server(
        own_command(str(volume.path), port, *cache_bytes),
        port,
        lambda position: Request(f"{root}/{stored.key(position)}"),
        {OWN: version(OWN), "aiohttp": version("aiohttp")},
        configuration,
        decoder if cache_bytes else lambda: None,
    )


#: What a source is called in URLs of ``voxfetch serve``.
SOURCE = "bench"


def own_command(source: str, port: int, *cache_bytes: str) -> list[str]:
    """voxfetch's server of one source, without a token."""
    return [sys.executable, "-m", "bench.serve.programs", OWN, source, str(port), *cache_bytes]


SERVERS: dict[str, Callable[[Path, StoredChunks, Volume], Server]] = {
    OWN: own,
    TRANSCODING: own_transcoded,
    LIMIT: nginx,
    "zarrhttp": zarrhttp("fast"),
    "zarrhttp-plain": zarrhttp("plain"),
    "neuroglancer": neuroglancer("raw"),
    "neuroglancer-npz": neuroglancer("npz"),
    "neuroglancer-memory": neuroglancer("memory"),
}


def _python(name: str, modules: str) -> str:
    """The interpreter of a server's environment. ServerMissingError where it lacks something."""
    program = interpreter(name)
    done = subprocess.run([program, "-c", f"import {modules}"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise ServerMissingError(f"{reason}; bench/README.md says how bench/.venv-{name} is made")
    return program


def _versions(program: str, *names: str) -> dict[str, str]:
    code = "import sys, importlib.metadata as m; print(*(m.version(n) for n in sys.argv[1:]))"
    done = subprocess.run([program, "-c", code, *names], capture_output=True, text=True, check=True)
    return dict(zip(names, done.stdout.split(), strict=True))


def _npz(body: bytes) -> Array:
    """What the encoding of this name is: a file of numpy's, compressed by zlib."""
    import io
    import zlib

    voxels: Array = np.load(io.BytesIO(zlib.decompress(body)))
    return voxels
