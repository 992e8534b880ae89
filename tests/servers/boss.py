"""The part of the REST API of BossDB, version 1, that reading needs: metadata, and cutouts as Blosc chunks."""

from __future__ import annotations

import json
import re
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numcodecs import blosc

from tests.servers.cloud import CloudServer

MAX_NBYTES = 500_000_000
CUTOUT = re.compile(r"/v1/cutout/(\w+)/(\w+)/(\w+)/(\d+)/(\d+):(\d+)/(\d+):(\d+)/(\d+):(\d+)(?:/(\d+):(\d+))?/?")
COLLECTION = re.compile(r"/v1/collection/([\w-]+)(?:/experiment/([\w-]+)(?:/channel/([\w-]+))?)?/?")
COORD = re.compile(r"/v1/coord/([\w-]+)/?")


@dataclass
class Channel:
    """A channel with all of its resolutions, (t, z, y, x); `start` is that of the coordinate frame, (z, y, x)."""

    voxels: np.ndarray
    start: tuple = (0, 0, 0)
    method: str = "anisotropic"
    resolutions: int = 3
    base: int = 0
    status: str = "DOWNSAMPLED"
    storage: str = "spdb"
    token: str = "public"
    voxel_size: tuple = (30, 4, 4)
    levels: dict = field(init=False)

    def __post_init__(self):
        if self.voxels.ndim == 3:
            self.voxels = self.voxels[None]
        self.levels = {self.base + n: self.level(self.base + n) for n in range(self.resolutions)}

    def factors(self, resolution):
        factor = 2**resolution
        return (factor if self.method == "isotropic" else 1), factor, factor

    def level(self, resolution):
        """Every so many-th voxel, of those whose coordinates are multiples; (first voxel, voxels)."""
        if self.factors(resolution) == (1, 1, 1):
            return tuple(self.start), self.voxels
        first, slices = [], [slice(None)]
        for factor, start, extent in zip(self.factors(resolution), self.start, self.voxels.shape[1:], strict=True):
            low, high = start // factor, -(-(start + extent) // factor)
            first.append(low)
            slices.append(np.clip(np.arange(low, high) * factor - start, 0, extent - 1))
        times, *axes = slices
        return tuple(first), np.ascontiguousarray(self.voxels[times][np.ix_(range(len(self.voxels)), *axes)])


class BossServer(CloudServer):
    """Serves `channels`, "collection/experiment/channel" -> Channel.

    `tokens` are those it knows. `refusals` is consumed from the left by cutouts: (status, headers) refuses one, a
    number of seconds lets it wait, a function changes its body, None lets it pass.
    """

    def __init__(self, channels, tokens=("public", "mine")):
        super().__init__()
        self.channels = channels
        self.tokens = tokens
        self.refusals = deque()

    @property
    def cutouts(self):
        """Those that were asked for, as (resolution, ((x0, x1), (y0, y1), (z0, z1)))."""
        found = [CUTOUT.fullmatch(request.path) for request in self.requests]
        numbers = [[int(part) for part in match.groups()[3:10]] for match in found if match]
        return [(n[0], tuple(zip(n[1::2], n[2::2], strict=True))) for n in numbers]

    def answer(self, request):
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind != "Token" or token not in self.tokens:
            return document({"detail": f"Invalid token {token}."}, 401)
        if match := CUTOUT.fullmatch(request.path):
            return self._cutout(request, token, *match.groups())
        if match := COLLECTION.fullmatch(request.path):
            return self._metadata(token, *match.groups())
        if match := COORD.fullmatch(request.path):
            return self._frame(match[1])
        return refusal(404, 1000, "no such URL")

    def _cutout(self, request, token, collection, experiment, name, resolution, *numbers):
        channel = self.channels.get(f"{collection}/{experiment}/{name}")
        if channel is None:
            return refusal(404, 4000, f"{name} does not exist.")
        if channel.token not in {"public", token}:
            return refusal(403, 3001, f"Missing read permissions on the resource {name}")
        fault = self.refusals.popleft() if self.refusals else None
        if isinstance(fault, tuple):
            status, headers = fault
            return status, {"content-type": "application/json", **headers}, b"{}"
        if isinstance(fault, float):
            time.sleep(fault)
        if request.headers.get("accept") != "application/blosc":
            return refusal(406, 5001, "Could not satisfy the request Accept header.")
        if int(resolution) not in channel.levels:
            return refusal(400, 1002, f"Invalid resolution {resolution}.")
        first, voxels = channel.levels[int(resolution)]
        x0, x1, y0, y1, z0, z1 = map(int, numbers[:6])
        has_time = numbers[6] is not None
        t0, t1 = map(int, numbers[6:]) if has_time else (0, 1)
        low = (t0, z0 - first[0], y0 - first[1], x0 - first[2])
        high = (t1, z1 - first[0], y1 - first[1], x1 - first[2])
        if not all(0 <= a < b <= extent for a, b, extent in zip(low, high, voxels.shape, strict=True)):
            return refusal(400, 1001, f"Incorrect cutout arguments {request.path}")
        part = np.ascontiguousarray(voxels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))])
        if part.nbytes > MAX_NBYTES:
            return refusal(413, 2000, "Cutout request is over 500MB when uncompressed.")
        part = part if has_time else part[0]
        # Bits instead of bytes, as the server has it.
        body = blosc.compress(part.tobytes(), b"blosclz", 1, 1, typesize=8 * part.itemsize)
        body = fault(body) if callable(fault) else body
        return 200, {"content-type": "application/blosc"}, body

    def _metadata(self, token, collection, experiment, name):
        prefix = "/".join(part for part in (collection, experiment) if part) + "/"
        below = {
            path.removeprefix(prefix): channel for path, channel in self.channels.items() if path.startswith(prefix)
        }
        names = sorted({path.partition("/")[0] for path in below})
        common = {"description": "", "creator": "somebody", "to_be_deleted": None}
        if not below:
            return refusal(404, 4000, f"{experiment or collection} does not exist.")
        if experiment is None:
            return document({"name": collection, "experiments": names, **common})
        if name is None:
            channel = next(iter(below.values()))
            found = {
                "channels": names,
                "name": experiment,
                "collection": collection,
                "coord_frame": f"{collection}_{experiment}",
                "num_hierarchy_levels": channel.resolutions,
                "hierarchy_method": channel.method,
                "num_time_samples": len(channel.voxels),
                "time_step": 2 if len(channel.voxels) > 1 else None,
                "time_step_unit": "seconds" if len(channel.voxels) > 1 else "",
            }
            return document(found | common)
        channel = below.get(name)
        if channel is None:
            return refusal(404, 4000, f"{name} does not exist.")
        if channel.token not in {"public", token}:
            return refusal(403, 3001, f"Missing read permissions on the resource {name}")
        found = {
            "name": name,
            "experiment": experiment,
            "default_time_sample": 0,
            "type": "annotation" if channel.voxels.itemsize == 8 else "image",
            "base_resolution": channel.base,
            "datatype": channel.voxels.dtype.name,
            "sources": [],
            "related": [],
            "downsample_status": channel.status,
            "storage_type": channel.storage,
            "bucket": "bucket",
            "cv_path": "/path",
        }
        return document(found | common)

    def _frame(self, name):
        for path, channel in self.channels.items():
            if name == "_".join(path.split("/")[:2]):
                found = {"name": name, "description": "", "voxel_unit": "nanometers"}
                axes = zip("zyx", channel.start, channel.voxels.shape[1:], channel.voxel_size, strict=True)
                for axis, start, extent, size in axes:
                    found |= {f"{axis}_start": start, f"{axis}_stop": start + extent, f"{axis}_voxel_size": size}
                return document(found)
        return refusal(404, 4000, f"{name} does not exist.")


def document(value, status=200):
    return status, {"content-type": "application/json"}, json.dumps(value).encode()


def refusal(status, code, message):
    return document({"status": status, "code": code, "message": message}, status)
