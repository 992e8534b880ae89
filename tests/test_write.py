"""Arrays that voxfetch writes: read equal by others, whole after a killed writer or a full disk."""

from __future__ import annotations

import numpy as np
import pytest

import voxfetch as vf


def test_read_only_arrays_refuse_writes(tmp_path):
    vf.create(tmp_path / "a", shape=(8, 8), dtype="u1")
    before = sorted(tmp_path.rglob("*"))
    array = vf.open_array(tmp_path / "a")
    with pytest.raises(vf.ReadOnlyError):
        array[...] = np.ones((8, 8), "u1")
    assert sorted(tmp_path.rglob("*")) == before
