"""Servers of other libraries as programs: ``python -m bench.serve.programs SERVER VOLUME PORT``, each run by the
interpreter of its own environment.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from dataclasses import replace
from typing import Any


def zarrhttp(path: str, port: int, loop: str, parser: str) -> None:
    """zarr-http-server over the folder of an array; ``loop`` and ``parser`` are names of uvicorn's."""
    from zarr.storage import LocalStore
    from zarr_http_server import serve, store_app

    options = {"log_level": "warning", "access_log": False, "loop": loop, "http": parser}
    serve(store_app(LocalStore(path, read_only=True)), port=port, uvicorn_options=options)


def neuroglancer(volume: str, port: int) -> None:
    """The volume server of Neuroglancer's Python package; ``volume`` is a description of ``bench.volumes`` as JSON."""
    import neuroglancer as ng

    described: dict[str, Any] = json.loads(volume)
    ng.set_server_bind_address("127.0.0.1", port)
    viewer = ng.Viewer(token="bench")
    names = list(described["axes"])
    local = ng.LocalVolume(_voxels(described), ng.CoordinateSpace(names=names, units="", scales=[1] * len(names)))
    local.token = "bench"
    viewer.volume_manager.register_volume(local)
    signal.pause()


def voxfetch(source: str, port: int, cache_bytes: str = "", log: str = "") -> None:
    """voxfetch's server over one source, called ``bench``; ``log``: a file for what it was asked."""
    from voxfetch.server import ServerOptions, serve

    if log:
        logging.basicConfig(filename=log, level=logging.INFO)

    options = ServerOptions(port=port, auth=False, origins=("*",))
    serve({"bench": source}, replace(options, cache_bytes=int(cache_bytes)) if cache_bytes else options)


def _voxels(described: dict[str, Any]) -> Any:
    if not described["memory"]:
        import tensorstore as ts

        context = {"cache_pool": {"total_bytes_limit": 16 << 20}}
        spec = {"driver": "zarr3", "kvstore": f"file://{described['path']}/", "context": context}
        return ts.open(spec, read=True, open=True, recheck_cached_data="open").result()
    import numpy as np

    voxels = np.load(described["source"])
    spatial = voxels.transpose(["zyx".index(axis) for axis in described["axes"] if axis != "c"])
    return np.expand_dims(spatial, described["axes"].index("c"))


if __name__ == "__main__":
    {"zarrhttp": zarrhttp, "neuroglancer": neuroglancer, "voxfetch": voxfetch}[sys.argv[1]](
        sys.argv[2], int(sys.argv[3]), *sys.argv[4:]
    )
