"""Arrays as zarr-python and tensorstore write them, read equal: every codec, order, separator and sharding."""

from __future__ import annotations

import numpy as np
import tensorstore

import voxfetch as vf


def test_an_array_of_tensorstore(tmp_path, make_values):
    expected = make_values((13, 21, 8), "u2")
    spec = {
        "driver": "zarr3",
        "kvstore": f"file://{tmp_path}/a",
        "metadata": {
            "shape": expected.shape,
            "data_type": "uint16",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [8, 8, 8]}},
        },
    }
    tensorstore.open(spec, create=True).result().write(expected).result()
    np.testing.assert_array_equal(vf.open_array(tmp_path / "a")[...], expected)
