//! Chunk grids of version 3.

use voxfetch_core::metadata::{ArrayMeta, AxisGrid, ChunkForm, IndexLayout};

use super::{INDEX, assert_error, shards, v3};

fn rectilinear(axes: &str) -> String {
    format!(r#"{{"name": "rectilinear", "configuration": {{"kind": "inline", "chunk_shapes": {axes}}}}}"#)
}

/// Where the cells of each axis lie.
fn cells(meta: &ArrayMeta) -> Vec<Vec<(u64, u64)>> {
    let along = |axis: &AxisGrid| (0..axis.cells()).map(|cell| (axis.start(cell), axis.extent(cell))).collect();
    meta.shard_grid.iter().map(along).collect()
}

/// The examples are those of the registered extension, for arrays of (10, 7).
#[test]
fn cells_of_rectilinear_grids() {
    let table = [
        ("[4, 6]", vec![vec![(0, 4), (4, 4), (8, 4)], vec![(0, 6), (6, 6)]], [4, 6]),
        ("[[[4, 3]], [6, 6]]", vec![vec![(0, 4), (4, 4), (8, 4)], vec![(0, 6), (6, 6)]], [4, 6]),
        ("[[[2, 3], 4], 7]", vec![vec![(0, 2), (2, 2), (4, 2), (6, 4)], vec![(0, 7)]], [4, 7]),
        ("[[1, [2, 1], 7], [3, 4]]", vec![vec![(0, 1), (1, 2), (3, 7)], vec![(0, 3), (3, 4)]], [7, 4]),
        // Past the array: what hangs over, and whole cells, of which there may be any number.
        ("[[3, 9], [5, 5, 5, 50]]", vec![vec![(0, 3), (3, 9)], vec![(0, 5), (5, 5)]], [9, 5]),
        ("[[6, 2, [2, 18446744073709551615]], 7]", vec![vec![(0, 6), (6, 2), (8, 2)], vec![(0, 7)]], [6, 7]),
        ("[[6, [4, 18446744073709551615], 1], 7]", vec![vec![(0, 6), (6, 4)], vec![(0, 7)]], [6, 7]),
    ];
    for (axes, expected, largest) in table {
        let meta = v3(&[("chunk_grid", &rectilinear(axes))]).unwrap();
        assert_eq!((cells(&meta), &*meta.chunk_shape), (expected.clone(), &largest[..]), "{axes}");
        let regular = expected.iter().all(|axis| axis.iter().all(|cell| cell.1 == axis[0].1));
        assert_eq!(meta.chunk_form, if regular { ChunkForm::Elements } else { ChunkForm::Cell }, "{axes}");
        assert_eq!(meta.chunk_nbytes as u64, 2 * largest[0] * largest[1]);
    }
}

#[test]
fn grids_of_zarrs() {
    let rectangular = r#"{"name": "rectangular", "configuration": {"chunk_shape": [[4, 1, 5], 6]}}"#;
    let meta = v3(&[("chunk_grid", rectangular)]).unwrap();
    assert_eq!(cells(&meta), [vec![(0, 4), (4, 1), (5, 5)], vec![(0, 6), (6, 6)]]);
    let bounded =
        |shape: &str| format!(r#"{{"name": "zarrs.regular_bounded", "configuration": {{"chunk_shape": {shape}}}}}"#);
    let meta = v3(&[("chunk_grid", &bounded("[4, 100]"))]).unwrap();
    assert_eq!(cells(&meta), [vec![(0, 4), (4, 4), (8, 2)], vec![(0, 7)]]);
    let meta = v3(&[("chunk_grid", &bounded("[5, 7]"))]).unwrap();
    assert_eq!((meta.chunk_form, &*meta.chunk_shape), (ChunkForm::Elements, &[5, 7][..]));
}

#[test]
fn an_empty_axis_has_no_cells() {
    let meta = v3(&[("shape", "[0, 7]"), ("chunk_grid", &rectilinear("[[3, 4], [2, 5]]"))]).unwrap();
    assert_eq!((cells(&meta), &*meta.chunk_shape), (vec![vec![], vec![(0, 2), (2, 5)]], &[3, 5][..]));
    let bounded = r#"{"name": "zarrs.regular_bounded", "configuration": {"chunk_shape": [4, 7]}}"#;
    let meta = v3(&[("shape", "[0, 7]"), ("chunk_grid", bounded)]).unwrap();
    assert_eq!((cells(&meta), &*meta.chunk_shape), (vec![vec![], vec![(0, 7)]], &[4, 7][..]));
}

/// As if each were a shard of a regular grid.
#[test]
fn shards_of_different_extents() {
    let sharded = |chunk_shape: &str, index: &str| {
        shards(&format!(r#"{{"chunk_shape": {chunk_shape}, "index_codecs": {index}, "codecs": ["bytes"]}}"#))
    };
    let transposed = |order: &str| {
        format!(r#"[{{"name": "transpose", "configuration": {{"order": {order}}}}}, "bytes", "crc32c", "crc32c"]"#)
    };
    let irregular = ("chunk_grid", &*rectilinear("[[2, 8, 4], [6, 3, 9]]"));
    for index in [INDEX.into(), transposed("[2, 0, 1]"), transposed("[1, 2, 0]"), transposed("[1, 0, 2]")] {
        let codecs = sharded("[2, 3]", &index);
        let meta = v3(&[irregular, ("codecs", &codecs)]).unwrap();
        assert_eq!((meta.chunk_form, &*meta.chunk_shape), (ChunkForm::Elements, &[2, 3][..]));
        assert_eq!(meta.shard_shape().unwrap(), [8, 6]);
        for (cell, extent) in [([0, 0], "[2, 6]"), ([1, 0], "[8, 6]"), ([1, 1], "[8, 3]"), ([0, 1], "[2, 3]")] {
            let grid = format!(r#"{{"name": "regular", "configuration": {{"chunk_shape": {extent}}}}}"#);
            let alone = v3(&[("chunk_grid", &grid), ("codecs", &codecs)]).unwrap();
            let (level, expected) = (meta.level_in(0, &cell).unwrap(), &alone.levels[0]);
            assert_eq!((&level.grid, &level.entry_shape), (&expected.grid, &expected.entry_shape));
            let (layout, expected) = (level.layout().unwrap(), expected.layout().unwrap());
            assert_eq!((layout.entries, layout.nbytes), (expected.entries, expected.nbytes), "{extent} {index}");
            // Along an axis of one entry the stride does not matter.
            let strides = |layout: &IndexLayout| {
                let axes = level.grid.iter().zip(&layout.strides).filter(|(n, _)| **n > 1).map(|(_, stride)| *stride);
                (axes.collect::<Vec<_>>(), layout.pair_stride)
            };
            assert_eq!(strides(layout), strides(expected), "{extent} {index}");
        }
    }
    let broken = v3(&[irregular, ("codecs", &sharded("[4, 3]", INDEX))]);
    assert_error(
        broken,
        "MetadataError",
        "codecs[0].configuration.chunk_shape: 4 does not divide the shard's extent 2",
    );
}

#[test]
fn broken_grids() {
    let (m, u, l) = ("MetadataError", "UnsupportedError", "LimitExceededError");
    let table: &[(&str, &str, &str)] = &[
        ("[[4, 5], 7]", m, "chunk_shapes[0]: the extents add up to 9, the axis has 10 voxels"),
        ("[[], 7]", m, "chunk_shapes[0]: expected at least one extent"),
        ("[[4, 0, 6], 7]", m, "chunk_shapes[0][1]"),
        ("[[10, 0], 7]", m, "chunk_shapes[0][1]"),
        ("[[[4, 0], 10], 7]", m, "chunk_shapes[0][0][1]"),
        ("[[[4, 1, 1]], 7]", l, "chunk_shapes[0][0]: number of items"),
        ("[[[4]], 7]", m, "chunk_shapes[0][0]: expected an extent and a count"),
        ("[[[[4, 3]]], 7]", m, "chunk_shapes[0][0]"),
        ("[0, 7]", m, "chunk_shapes[0]"),
        ("[-1, 7]", m, "chunk_shapes[0]"),
        ("[[4611686018427387904], 7]", m, "chunk_shapes[0][0]"),
        ("[\"4\", 7]", m, "chunk_shapes[0]"),
        ("[4]", m, "edges of 1 axes, the array has 2"),
        ("4", m, "chunk_shapes: expected a list"),
    ];
    for (axes, class, part) in table {
        assert_error(v3(&[("chunk_grid", &rectilinear(axes))]), class, part);
    }
    let kind = r#"{"name": "rectilinear", "configuration": {"kind": "elsewhere", "chunk_shapes": [4, 6]}}"#;
    assert_error(v3(&[("chunk_grid", kind)]), u, "kind `elsewhere`");
    // A short document must not take much memory.
    let many = ("chunk_grid", &*rectilinear("[[[1, 1000000000000], 2], 7]"));
    assert_error(v3(&[("shape", "[1000000000001, 7]"), many]), l, "cells of an irregular chunk grid");
    let equal = ("chunk_grid", &*rectilinear("[[[1, 1000000000000]], 7]"));
    assert_eq!(v3(&[("shape", "[1000000000000, 7]"), equal]).unwrap().shard_grid[0].cells(), 1_000_000_000_000);
    let wide = ("chunk_grid", &*rectilinear("[[1, [4611686018427387903, 18446744073709551615]], 7]"));
    assert_error(v3(&[("shape", "[18446744073709551615, 7]"), wide]), m, "chunk_shapes[0][1][0]");
    let wide = ("chunk_grid", &*rectilinear("[[1, [4611686018427387902, 18446744073709551615]], 7]"));
    assert_error(v3(&[("shape", "[18446744073709551615, 7]"), wide]), l, "extent of an axis");
}
