//! Valid documents with one thing wrong: a typed error or a sound array, never a panic, never slowly.

use std::panic::catch_unwind;

use proptest::prelude::*;
use serde_json::{Value, json};
use voxfetch_core::codec::PreparedArray;
use voxfetch_core::error::Result;
use voxfetch_core::metadata::limits::{MAX_CHUNK_NBYTES, MAX_INDEX_NBYTES};
use voxfetch_core::metadata::zarr::{parse_v2, parse_v3};
use voxfetch_core::metadata::{ArrayMeta, AxisGrid};
use voxfetch_core::subset::MAX_EXTENT;

use super::{INDEX, V2, V3, document, shards};

/// Documents that together hold every kind of member.
fn seeds() -> Vec<String> {
    let sharded = shards(&format!(
        r#"{{"chunk_shape": [2, 3], "index_location": "start",
            "index_codecs": [{{"name": "transpose", "configuration": {{"order": [2, 0, 1]}}}}, "bytes", "crc32c"],
            "codecs": [{{"name": "transpose", "configuration": {{"order": [1, 0]}}}}, {{"name": "sharding_indexed",
                "configuration": {{"chunk_shape": [1, 2], "index_codecs": {INDEX}, "codecs": ["bytes",
                    {{"name": "blosc", "configuration": {{"cname": "zstd", "clevel": 5, "shuffle": "bitshuffle",
                        "typesize": 2, "blocksize": 0}}}},
                    {{"name": "zstd", "configuration": {{"level": 5, "checksum": true}}}}]}}}}]}}"#
    ));
    let compressed = r#"[{"name": "transpose", "configuration": {"order": "F"}}, {"name": "bytes", "configuration":
        {"endian": "big"}}, {"name": "gzip", "configuration": {"level": 5}}, {"name": "unknown", "must_understand": false},
        {"name": "numcodecs.bz2", "configuration": {"level": 1, "id": "bz2"}}]"#;
    let rectilinear =
        r#"{"name": "rectilinear", "configuration": {"kind": "inline", "chunk_shapes": [[[2, 3], 4], 6]}}"#;
    let record = r#"{"name": "struct", "configuration": {"fields": [
        {"name": "t", "data_type": {"name": "numpy.datetime64", "configuration": {"unit": "s", "scale_factor": 10}}},
        {"name": "b", "data_type": {"name": "structured", "configuration": {"fields": [["c", "bfloat16"]]}}}]}}"#;
    let v2_blosc = r#"{"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": -1, "blocksize": 0}"#;
    let elements = r#"[{"name": "scale_offset", "configuration": {"scale": 2, "offset": "NaN"}}, {"name": "cast_value",
        "configuration": {"data_type": "int8", "rounding": "nearest-away", "out_of_range": "clamp",
            "scalar_map": {"decode": [[1, "NaN"]], "encode": []}}}, "bitround", "bytes",
        {"name": "numcodecs.crc32", "configuration": {"location": "end"}}]"#;
    let packed = r#"[{"name": "packbits", "configuration":
        {"padding_encoding": "last_byte", "first_bit": 1, "last_bit": 12}}, {"name": "numcodecs.shuffle"}]"#;
    let filters = r#"[{"id": "fixedscaleoffset", "scale": 10, "offset": 0.5, "dtype": ">u2", "astype": ">i4"},
        {"id": "delta", "dtype": ">i4", "astype": "|i1"}, {"id": "astype", "encode_dtype": "<f8", "decode_dtype": "|i1"},
        {"id": "shuffle", "elementsize": 8}, {"id": "jenkins_lookup3", "initval": 3, "prefix": null}]"#;
    let hdf5 = r#"[{"id": "shuffle", "elementsize": 2}, {"id": "hdf5_lzf"}, {"id": "fletcher32"},
        {"id": "hdf5_bitshuffle", "elementsize": 2, "cname": "lz4", "blocksize": 0}]"#;
    vec![
        document(V3, &[("dimension_names", r#"["y", null]"#), ("storage_transformers", "[]"), ("attributes", "{}")]),
        document(V3, &[("codecs", &sharded)]),
        document(V3, &[("codecs", compressed), ("data_type", "\"complex64\""), ("fill_value", "[\"NaN\", 1.5]")]),
        document(V3, &[("data_type", r#"{"name": "r24"}"#), ("fill_value", "[1, 2, 3]")]),
        document(V3, &[("data_type", "\"float16\""), ("fill_value", "\"0x7e00\""), ("chunk_key_encoding", "\"v2\"")]),
        document(V3, &[("codecs", elements), ("data_type", "\"float32\"")]),
        document(V3, &[("codecs", packed), ("data_type", "\"int16\"")]),
        document(V2, &[("filters", filters), ("dtype", "\">u2\"")]),
        document(V2, &[("filters", hdf5)]),
        document(V3, &[("chunk_grid", rectilinear), ("data_type", "\"int4\"")]),
        document(V3, &[("data_type", record), ("fill_value", r#"{"t": "NaT", "b": {"c": 1.5}}"#)]),
        document(V2, &[("dtype", r#"[["a", ">u2"], ["b", [["c", "<f4"]], [2, 3]]]"#), ("fill_value", "\"AAAA\"")]),
        document(V2, &[("compressor", v2_blosc), ("order", "\"F\""), ("dimension_separator", "\"/\"")]),
        document(V2, &[("dtype", "\"<M8[10us]\""), ("fill_value", "\"NaT\""), ("compressor", r#"{"id": "lz4"}"#)]),
        document(V2, &[("dtype", "\"|S5\""), ("fill_value", "\"YWJj\""), ("filters", "[]")]),
        document(
            V2,
            &[("dtype", "\">U3\""), ("fill_value", "\"ab\""), ("compressor", r#"{"id": "gzip", "level": -1}"#)],
        ),
    ]
}

fn replacements() -> Vec<Value> {
    let mut deep = json!(1);
    for _ in 0..100 {
        deep = json!([deep]);
    }
    let texts = ["", "F", "bytes", "crc32c", "sharding_indexed", "NaN", "0x", "r", "<u8", "|O", "é\u{0}", "/", "group"];
    let mut values: Vec<Value> = texts.iter().map(|text| json!(text)).collect();
    values.extend([json!("x".repeat(100_000)), json!(vec![1; 100]), json!(vec!["bytes"; 100]), deep]);
    values.extend([
        json!(null),
        json!(true),
        json!(false),
        json!({}),
        json!([]),
        json!([0]),
        json!([1, 0]),
        json!([[]]),
    ]);
    values
        .extend([0, 1, 2, 3, 7, 1 << 20, 1 << 31, 1 << 32, 1 << 61, 1 << 62, i64::MAX, i64::MIN, -1].map(|n| json!(n)));
    values.extend([json!(u64::MAX), json!(1.0), json!(0.5), json!(-1e300), json!(1e300), json!(5e-324)]);
    values.extend([json!({"name": "x", "must_understand": false}), json!({"id": "pickle"})]);
    values
}

/// What every resolved array promises to the layers above.
fn assert_sound(meta: &ArrayMeta) {
    let rank = meta.rank();
    assert!(rank <= 32 && meta.shape.iter().all(|&extent| extent <= MAX_EXTENT));
    assert_eq!(meta.fill_value.len(), meta.dtype.item_size());
    assert!(meta.dtype.item_size() > 0);
    assert_eq!((meta.dimension_names.len(), meta.shard_grid.len(), meta.chunk_shape.len()), (rank, rank, rank));
    let mut axes = meta.chunk_order.clone();
    axes.sort_unstable();
    assert_eq!(axes, (0..rank).collect::<Vec<_>>());
    let nbytes = meta.chunk_shape.iter().map(|&n| u128::from(n)).product::<u128>() * meta.dtype.item_size() as u128;
    assert_eq!(nbytes, meta.chunk_nbytes as u128);
    assert!(nbytes > 0 && nbytes <= u128::from(MAX_CHUNK_NBYTES));
    assert!(meta.stored(meta.chunk_nbytes).1 <= MAX_CHUNK_NBYTES);
    let objects = meta.shard_grid.iter().map(|axis| u128::from(axis.cells())).product::<u128>();
    assert!(objects < 1 << 63);
    let largest = |axis: &AxisGrid| match axis {
        AxisGrid::Regular { step, .. } => *step,
        AxisGrid::Offsets(offsets) => {
            offsets.windows(2).map(|ends| ends[1].checked_sub(ends[0]).unwrap()).max().unwrap()
        }
    };
    let mut outer: Vec<u64> = meta.shard_grid.iter().map(largest).collect();
    for level in &meta.levels {
        let whole: Vec<u64> = level.grid.iter().zip(&level.entry_shape).map(|(n, extent)| n * extent).collect();
        assert_eq!(whole, outer);
        outer.clone_from(&level.entry_shape);
        let index = level.layout().unwrap();
        assert_eq!(index.entries, level.grid.iter().product::<u64>());
        assert_eq!(index.nbytes, 16 * index.entries + 4 * index.checksums.len() as u64);
        assert!(index.nbytes <= MAX_INDEX_NBYTES);
        let last: u64 = level.grid.iter().zip(&index.strides).map(|(n, stride)| (n - 1) * stride).sum();
        assert_eq!(last + index.pair_stride, 2 * index.entries - 1);
    }
    assert_eq!(outer, meta.chunk_shape);
}

/// Reads a document of unknown version and says whether it was accepted.
fn check(text: &[u8]) -> bool {
    let outcome = catch_unwind(|| -> [Result<ArrayMeta>; 2] { [parse_v3(text), parse_v2(text, None)] });
    let outcome = outcome.unwrap_or_else(|_| panic!("panic on {}", String::from_utf8_lossy(text)));
    let mut accepted = false;
    for result in outcome {
        match result.and_then(|meta| {
            assert_sound(&meta);
            PreparedArray::new(meta)
        }) {
            Ok(_) => accepted = true,
            Err(error) => {
                let class = error.kind().class_name();
                let typed = ["MetadataError", "UnsupportedError", "LimitExceededError"].contains(&class);
                assert!(typed, "{class} {error} on {}", String::from_utf8_lossy(text));
                assert!(error.to_string().len() < 500, "a long message");
            }
        }
    }
    accepted
}

/// Pointers to every value of a document.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| pointers(item, &format!("{at}/{i}"), found))
        }
        Value::Object(members) => members.iter().for_each(|(k, item)| pointers(item, &format!("{at}/{k}"), found)),
        _ => {}
    }
}

/// Every value of every seed replaced by every replacement, removed, and doubled.
#[test]
#[expect(clippy::disallowed_types, reason = "measures that no document takes long")]
fn one_value_wrong() {
    let (replacements, mut mutants, mut accepted) = (replacements(), 0, 0);
    for seed in seeds() {
        assert!(check(seed.as_bytes()), "{seed}");
        let document: Value = serde_json::from_str(&seed).unwrap();
        let mut places = Vec::new();
        pointers(&document, "", &mut places);
        let mut texts: Vec<String> = Vec::new();
        for at in &places {
            for replacement in &replacements {
                let mut mutant = document.clone();
                *mutant.pointer_mut(at).unwrap() = replacement.clone();
                texts.push(mutant.to_string());
            }
            let Some((parent, name)) = at.rsplit_once('/') else { continue };
            let (mut without, mut twice) = (document.clone(), document.clone());
            match (without.pointer_mut(parent).unwrap(), twice.pointer_mut(parent).unwrap()) {
                (Value::Object(without), Value::Object(twice)) => {
                    let value = without.remove(name).unwrap();
                    twice.insert(format!("{name}s"), value);
                }
                (Value::Array(without), Value::Array(twice)) => {
                    let value = without.remove(name.parse().unwrap());
                    twice.insert(0, value);
                }
                _ => unreachable!(),
            }
            texts.extend([without.to_string(), twice.to_string()]);
        }
        for text in texts {
            let start = std::time::Instant::now();
            accepted += usize::from(check(text.as_bytes()));
            assert!(start.elapsed().as_millis() < 500, "slow: {text:.2000}");
            mutants += 1;
        }
    }
    assert!(mutants > 10_000 && accepted < mutants / 4, "{accepted} of {mutants} accepted");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_wrong(
        seed in 0usize..9,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0u8..4, any::<u8>()), 1..6),
    ) {
        let mut text = seeds().swap_remove(seed).into_bytes();
        for (index, kind, byte) in edits {
            let at = index.index(text.len());
            match kind {
                0 => text[at] ^= 1 << (byte % 8),
                1 => text.insert(at, byte),
                2 => { text.remove(at); }
                _ => text.insert(at, br#"{}[]",:0-9eE.\u "#[byte as usize % 16]),
            }
        }
        check(&text);
    }

    #[test]
    fn cut_short(seed in 0usize..9, index in any::<prop::sample::Index>()) {
        let text = seeds().swap_remove(seed);
        prop_assert!(!check(&text.as_bytes()[..index.index(text.len())]));
    }
}
