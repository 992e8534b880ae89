"""Arrays that zarr-python wrote, each with the numpy array it stands for: what every read is compared with."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, settings

import voxfetch as vf

# No deadline: two cores are shared with the compiler now and then, and pytest stops what hangs.
settings.register_profile(
    "default", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("default")


@dataclass(frozen=True)
class Case:
    """An array on disk: the folder, and what it holds."""

    path: Path
    expected: np.ndarray

    def open(self, **keywords: Any) -> vf.Array:
        return vf.open_array(self.path, **keywords)


def values(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray:
    """Voxels of which hardly any two are equal, whatever the type."""
    dtype = np.dtype(dtype)
    generator = np.random.default_rng(seed)
    if dtype.kind in "US":
        letters = generator.integers(
            ord("a"), ord("z"), (*shape, dtype.itemsize // np.dtype(f"{dtype.kind}1").itemsize)
        )
        words = ["".join(map(chr, word)) for word in letters.reshape(-1, letters.shape[-1])]
        return np.array(words, dtype).reshape(shape)
    if dtype.kind == "b":
        return generator.integers(0, 2, shape).astype(dtype)
    if dtype.kind == "c":
        return (generator.normal(size=shape) + 1j * generator.normal(size=shape)).astype(dtype)
    if dtype.kind == "f":
        return generator.normal(size=shape).astype(dtype)
    if dtype.kind in "mM":
        return generator.integers(0, 1 << 60, shape).astype(dtype)
    information = np.iinfo(dtype)
    return generator.integers(information.min, information.max, shape, dtype=dtype.newbyteorder("="), endpoint=True)


def write(path: Path, expected: np.ndarray, *, holes: float = 0.0, seed: int = 0, **layout: Any) -> Case:
    """Writes with zarr-python; `holes` is the share of stored objects that are left out, and are the fill value."""
    expected = expected.copy()
    with warnings.catch_warnings():
        # Types that zarr-python calls unstable in v3 are stable in v2, where they are used here.
        warnings.simplefilter("ignore")
        array = zarr.create_array(str(path), shape=expected.shape, dtype=layout.pop("dtype", expected.dtype), **layout)
        array[...] = expected
    stored = array.shards or array.chunks
    if holes:
        generator = np.random.default_rng(seed)
        for grid in np.ndindex(*(-(-extent // one) for extent, one in zip(expected.shape, stored, strict=True))):
            if generator.random() < holes:
                key = array.metadata.encode_chunk_key(grid)
                (path / key).unlink(missing_ok=True)
                place = tuple(slice(g * one, (g + 1) * one) for g, one in zip(grid, stored, strict=True))
                expected[place] = array.fill_value
    return Case(path, expected)


@pytest.fixture(scope="session")
def make_values():
    """`make_values(shape, dtype, seed)` -> voxels."""
    return values


@pytest.fixture(scope="session")
def write_array():
    """`write_array(path, expected, holes=..., **layout of zarr.create_array)` -> Case."""
    return write


def _layouts() -> dict[str, tuple[tuple[int, ...], Any, dict[str, Any]]]:
    transpose = zarr.codecs.TransposeCodec
    return {
        "sharded": (
            (37, 50, 41),
            "uint16",
            {"chunks": (8, 10, 9), "shards": (16, 20, 18), "holes": 0.2, "fill_value": 7},
        ),
        "plain": ((23, 31, 17), "float32", {"chunks": (7, 8, 9), "holes": 0.2, "fill_value": float("nan")}),
        "transposed": (
            (20, 21, 22),
            "int64",
            {"chunks": (5, 7, 4), "shards": (10, 14, 8), "filters": [transpose(order=(2, 0, 1))], "holes": 0.1},
        ),
        "line": ((1000,), "bool", {"chunks": (64,), "shards": (256,)}),
        "point": ((), "float64", {"chunks": ()}),
        "five": ((3, 4, 5, 6, 7), "int8", {"chunks": (2, 2, 3, 3, 4), "shards": (2, 4, 3, 6, 4), "holes": 0.2}),
        "empty": ((0, 5), "uint8", {"chunks": (2, 2)}),
        "one chunk": ((3, 4), "complex128", {"chunks": (10, 10)}),
        "v2 F big": (
            (19, 23),
            "int32",
            {"dtype": ">i4", "chunks": (6, 5), "zarr_format": 2, "order": "F", "holes": 0.2},
        ),
        "v2 dates": ((13, 9), "datetime64[ns]", {"chunks": (4, 4), "zarr_format": 2}),
        "v2 words": ((7, 8), "U5", {"chunks": (3, 3), "zarr_format": 2}),
        "v2 bytes": ((11,), "S3", {"chunks": (4,), "zarr_format": 2}),
        "v2 nested": ((6, 7, 8), "uint64", {"chunks": (2, 3, 4), "zarr_format": 2, "chunk_key_encoding": _slash(2)}),
    }


def _slash(zarr_format: int) -> dict[str, Any]:
    return {"name": "v2" if zarr_format == 2 else "default", "separator": "/"}


LAYOUTS = tuple(_layouts())


@pytest.fixture(scope="session")
def cases(tmp_path_factory):
    """`cases(name)` -> the Case of one of the layouts, written once."""
    root = tmp_path_factory.mktemp("arrays")

    @functools.cache
    def case(name: str) -> Case:
        shape, dtype, layout = _layouts()[name]
        seed = LAYOUTS.index(name)
        return write(root / name.replace(" ", "_"), values(shape, dtype, seed), seed=seed, **layout)

    return case


@pytest.fixture(params=LAYOUTS, scope="session")
def case(request, cases):
    """Each layout in turn."""
    return cases(request.param)


@pytest.fixture(scope="session")
def volume(cases):
    """The sharded 3-D array with holes and edge shards."""
    return cases("sharded")
