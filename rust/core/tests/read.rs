//! Plan, resolve, coalesce, decode and assemble against a naive reader, on random arrays, random reads and random memory.

#![expect(unsafe_code, reason = "outputs and inputs are raw memory")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use proptest::prelude::*;
use voxfetch_core::assemble::Input;
use voxfetch_core::codec::CodecContext;
use voxfetch_core::error::ErrorKind;
use voxfetch_core::plan::{AxisSelection, MAX_ITEMS, Plan, ReadSpec, Selection};
use voxfetch_core::shard_writer;

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_read_equals_the_naive_one(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        support::check_random_reads(&mut support::Choices::new(&bytes));
    }

    #[test]
    fn every_remote_read_equals_the_naive_one(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        support::check_random_network(&mut support::Choices::new(&bytes));
    }

    #[test]
    fn any_bytes_are_voxels_or_an_error(kind: u8, object in prop::collection::vec(any::<u8>(), 0..400)) {
        support::check_any_object(kind, &object);
    }
}

/// The padding of an edge chunk included, which no read returns.
#[test]
fn shards_have_the_bytes_that_zarr_python_gives_them() {
    let document = r#"{"zarr_format": 3, "node_type": "array", "shape": [5, 4], "data_type": "uint16", "fill_value": FILL,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 4]}}, "chunk_key_encoding": "default",
        "codecs": [{"name": "sharding_indexed", "configuration": {"chunk_shape": [2, 2], "codecs": ["bytes"],
        "index_codecs": ["bytes", "crc32c"]}}]}"#;
    let array = |fill: &str| support::array(&document.replace("FILL", fill)).unwrap();
    // a[i, j] = 4 i + j, and 0 in the first chunk.
    let data: Vec<u16> = (0..20).map(|i| if i / 4 < 2 && i % 4 < 2 { 0 } else { i }).collect();
    // SAFETY: `data` holds the (5, 4) voxels and outlives the input.
    let input = unsafe { Input::new(data.as_ptr().cast(), vec![0, 0], vec![5, 4], vec![8, 2]) };
    let mut context = CodecContext::default();
    let mut encode = |fill, shard: [u64; 2]| {
        shard_writer::encode_object(&array(fill), &mut context, &shard, &input).unwrap().unwrap()
    };
    let (whole, edge, filled) = (encode("0", [0, 0]), encode("0", [1, 0]), encode("9", [1, 0]));
    let words = |bytes: &[u8]| -> Vec<u16> { bytes.as_chunks().0.iter().copied().map(u16::from_le_bytes).collect() };
    assert_eq!(words(&whole[..24]), [8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15]);
    assert_eq!((whole.len(), &whole[88..]), (92, &[0x1b, 0xa7, 0x35, 0xa3][..]));
    assert_eq!(words(&edge[..16]), [16, 17, 0, 0, 18, 19, 0, 0]);
    assert_eq!(edge.len(), 16 + 68);
    assert_eq!(words(&filled[..16]), [16, 17, 9, 9, 18, 19, 9, 9]);
}

fn plan(codecs: &str, shape: &str, chunk: &str, axes: Vec<AxisSelection>) -> Plan {
    let document = format!(
        r#"{{"zarr_format": 3, "node_type": "array", "shape": {shape}, "data_type": "uint8", "fill_value": 0,
            "chunk_grid": {{"name": "regular", "configuration": {{"chunk_shape": {chunk}}}}},
            "chunk_key_encoding": "default", "codecs": {codecs}}}"#
    );
    let reads = vec![ReadSpec { array: 0, selection: Selection::Axes(axes) }];
    Plan::new(vec![support::array(&document).unwrap()], reads).unwrap()
}

#[test]
fn a_sparse_selection_of_a_huge_array_takes_no_memory() {
    let extent = 1u64 << 60;
    let axes = vec![AxisSelection::Range { start: 1, step: 3, count: extent / 3 }];
    let plan = plan(r#"["bytes"]"#, &format!("[{extent}]"), "[1]", axes);
    assert_eq!(plan.visits(), extent / 3);
    assert_eq!(plan.visit(extent / 3 - 1).shard, [1 + (extent / 3 - 1) * 3]);
}

#[test]
fn a_shard_of_more_chunks_than_there_is_memory_for_is_refused() {
    let inner = r#"[{"name": "sharding_indexed", "configuration": {"chunk_shape": [1], "codecs": ["bytes"],
        "index_codecs": ["bytes"]}}]"#;
    let codecs = format!(
        r#"[{{"name": "sharding_indexed", "configuration": {{"chunk_shape": [1048576], "codecs": {inner},
            "index_codecs": ["bytes"]}}}}]"#
    );
    let extent = 1u64 << 40;
    let axes = vec![AxisSelection::Range { start: 0, step: 1, count: extent }];
    let plan = plan(&codecs, &format!("[{extent}]"), &format!("[{extent}]"), axes);
    let refused = plan.chunk_items(&plan.visit(0), &mut Vec::new()).unwrap_err();
    assert!(
        matches!(refused.kind(), ErrorKind::Limit { needed, limit: MAX_ITEMS, .. } if *needed == extent),
        "{refused}"
    );
}
