"""Index expressions against numpy: what each selects, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from voxfetch import SelectionError
from voxfetch.selection import (
    Box,
    axes_order,
    parse_basic,
    parse_outer,
    parse_points,
    parse_shape,
    parse_starts,
)

SHAPES = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7)
BIG = st.integers(-(1 << 70), 1 << 70)


def indices_of(selection):
    """The parsed selection, applied to the array whose voxels are their own number."""
    return [
        np.arange(item[0], item[0] + item[1] * item[2], item[1]) if isinstance(item, tuple) else item
        for item in selection.axes
    ]


def applied(selection, array):
    picked = array[np.ix_(*indices_of(selection))] if array.ndim else array
    return picked.reshape(selection.shape)


def numbered(shape):
    return np.arange(int(np.prod(shape))).reshape(shape)


@st.composite
def basic(draw, shape):
    """Ints, slices that may reach far outside, and an Ellipsis somewhere."""
    given_axes = draw(st.integers(0, len(shape)))
    items = []
    ellipsis = draw(st.one_of(st.none(), st.integers(0, given_axes)))
    axes = range(given_axes)
    if ellipsis is not None:
        axes = [*range(ellipsis), *range(len(shape) - (given_axes - ellipsis), len(shape))]
    for axis in axes:
        extent = shape[axis]
        bound = st.one_of(st.none(), st.integers(-extent - 3, extent + 3), BIG)
        slices = st.builds(slice, bound, bound, st.one_of(st.none(), st.integers(1, extent + 3), st.just(1 << 70)))
        if extent:
            integer = st.integers(-extent, extent - 1)
            items.append(draw(st.one_of(slices, integer, integer.map(np.int64), integer.map(np.int8))))
        else:
            items.append(draw(slices))
    if ellipsis is not None:
        items.insert(ellipsis, ...)
    return items[0] if len(items) == 1 and draw(st.booleans()) else tuple(items)


@given(st.data())
def test_basic_is_numpy(data):
    shape = data.draw(SHAPES)
    expression = data.draw(basic(shape))
    array = numbered(shape)
    expected = array[expression]
    selection = parse_basic(expression, shape)
    np.testing.assert_array_equal(applied(selection, array), expected)
    assert selection.shape == expected.shape
    assert selection.scalar == (not isinstance(expected, np.ndarray))
    for item, extent in zip(selection.axes, shape, strict=True):
        start, step, count = item
        assert step >= 1
        assert count >= 0
        assert start >= 0
        assert count == 0 or start + (count - 1) * step < extent


@given(st.data())
def test_outer_is_the_product_per_axis(data):
    shape = data.draw(npst.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=6))
    items = []
    for extent in shape:
        indices = st.lists(st.integers(-extent, extent - 1), max_size=5)
        kinds = [
            st.integers(-extent, extent - 1),
            st.builds(slice, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 3)),
            indices,
            indices.map(lambda values: np.array(values, np.int16)),
            npst.arrays(bool, extent),
            st.lists(st.booleans(), min_size=extent, max_size=extent),
        ]
        items.append(data.draw(st.one_of(kinds)))
    array = numbered(shape)
    expected = array
    dropped = 0
    for axis, item in enumerate(items):
        picked = np.asarray(item, np.int64) if isinstance(item, list) and not item else item
        expected = expected[(slice(None),) * (axis - dropped) + (picked,)]
        dropped += isinstance(item, int)
    selection = parse_outer(tuple(items), shape)
    assert selection.shape == expected.shape
    np.testing.assert_array_equal(applied(selection, array), expected)


@given(st.data())
def test_points_are_numpy(data):
    shape = data.draw(npst.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=6))
    shapes = data.draw(npst.mutually_broadcastable_shapes(num_shapes=len(shape), max_dims=3, max_side=4))
    expression = tuple(
        data.draw(npst.arrays(np.int64, one, elements=st.integers(-extent, extent - 1)))
        for one, extent in zip(shapes.input_shapes, shape, strict=True)
    )
    points = parse_points(expression, shape)
    expected = numbered(shape)[expression]
    assert points.shape == expected.shape
    picked = numbered(shape)[tuple(points.starts.T)]
    np.testing.assert_array_equal(picked.reshape(points.shape), expected)
    assert points.box == (1,) * len(shape)


@given(st.data())
def test_points_by_mask_are_numpy(data):
    shape = data.draw(npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
    mask = data.draw(npst.arrays(bool, shape))
    points = parse_points(mask, shape)
    expected = numbered(shape)[mask]
    assert points.shape == expected.shape
    np.testing.assert_array_equal(numbered(shape)[tuple(points.starts.T)] if shape else expected, expected)


def test_points_with_slices_have_the_broadcast_shape_first():
    points = parse_points((slice(1, 4), [0, 2], 1), (5, 6, 7))
    assert points.shape == (2, 3)
    assert points.box == (3, 1, 1)
    assert points.starts.tolist() == [[1, 0, 1], [1, 2, 1]]


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        (None, "newaxis"),
        ((0, None), "newaxis"),
        (True, "oindex"),
        (np.True_, "oindex"),
        ([0, 1], "oindex"),
        (np.array([0, 1]), "vindex"),
        (np.array(1), "vindex"),
        (np.zeros((4, 5), bool), "oindex"),
        (1.0, "float"),
        ("x", "str"),
        ((..., ...), "Ellipsis"),
        ((0, 0, 0), "3 indices"),
        (4, "outside"),
        (-5, "outside"),
        (1 << 80, "outside"),
        (slice(None, None, -1), "step"),
        (slice(None, None, 0), "step"),
        (slice(0.5), "slice"),
        (slice("a", "b"), "slice"),
    ],
)
def test_basic_refuses(expression, says):
    with pytest.raises(SelectionError, match=says):
        parse_basic(expression, (4, 5))


@pytest.mark.parametrize(
    "expression",
    [
        ([0, 4],),
        ([-5],),
        ([[0], [1]],),
        ([0.5],),
        ([True],),
        ("x",),
        (None,),
        ([0, [1, 2]],),
        ([1 << 63],),
        ([1 << 80],),
    ],
)
def test_outer_refuses(expression):
    with pytest.raises(SelectionError):
        parse_outer(expression, (4, 5))


@pytest.mark.parametrize(
    "expression",
    [
        ([0, 1], [0, 1, 2]),
        ([0, 4], [0, 0]),
        ([0], slice(0, 4, 2)),
        np.zeros((5, 4), bool),
        ([0], [0], [0]),
        (None, [0]),
        (True, [0]),
    ],
)
def test_points_refuse(expression):
    with pytest.raises(SelectionError):
        parse_points(expression, (4, 5))


def test_shape_and_starts():
    assert parse_shape(3, 2) == (3, 3)
    assert parse_shape([1, np.int64(2)], 2) == (1, 2)
    assert parse_starts([(1, 2)], 2).dtype == np.int64
    assert parse_starts([], 3).shape == (0, 3)
    assert parse_starts([[1, 2, 3], [4, 5, 6]], 3).flags.c_contiguous
    assert parse_starts(np.array([[1, 2, 3], [4, 5, 6]], order="F"), 3).flags.c_contiguous
    for bad in ([1], (1, 2, 3), (-1, 2), (1.5, 2), None, (1 << 63, 1)):
        with pytest.raises(SelectionError):
            parse_shape(bad, 2)
    for bad in ([1, 2], [[1, 2]], [[0.5, 1, 2]], [["a", "b", "c"]], [[1 << 63, 0, 0]], [[1], [2, 3]], None):
        with pytest.raises(SelectionError):
            parse_starts(bad, 3)


def test_axes_order():
    assert axes_order("zyx", ("x", "y", "z")) == (2, 1, 0)
    assert axes_order(("dim_1", "dim_0"), ("dim_0", "dim_1")) == (1, 0)
    for wanted, axes in (("zy", "zyx"), ("zzy", "zyx"), ("abc", "zyx"), ("xx", "xx")):
        with pytest.raises(SelectionError):
            axes_order(wanted, tuple(axes))


def test_box():
    box = Box((1, 2), (3, 4))
    assert box.stop == (4, 6)
    assert box.slices == (slice(1, 4), slice(2, 6))
