"""Any image as plain OME-Zarr over HTTP, read by zarr-python: `python examples/serve_zarr.py [SOURCE]`."""

import sys
from pathlib import Path

import zarr
from obstore.store import HTTPStore
from zarr.storage import ObjectStore

from voxfetch.server import Server

SOURCE = Path(__file__).parents[1] / "tests" / "data" / "fib25" / "fib25.ome.zarr"


def main(source: str) -> None:
    """Serves, prints where, and reads a plane as any other program could."""
    server = Server({"em": source}).start_in_thread()
    try:
        url = server.url_of("em")
        print(url.replace(server.token or "", "TOKEN"))
        store = ObjectStore(HTTPStore(url, client_options={"allow_http": True}), read_only=True)
        group = zarr.open_group(store, mode="r")
        image = group.attrs["ome"]["multiscales"][0]
        print(image["name"], [axis["name"] for axis in image["axes"]], f"{len(image['datasets'])} levels")
        level = group["0"]
        print(f"shape {level.shape}, chunks {level.chunks}, unsharded; mean of the first plane {level[0].mean():.3f}")
    finally:
        server.stop()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(SOURCE))
