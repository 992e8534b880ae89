//! Rules of version 3, one row each.

use voxfetch_core::dtype::{DataType, Endian};
use voxfetch_core::metadata::{
    AxisGrid, BloscShuffle, BloscSpec, ChecksumKind, ChecksumSpec, CodecSpec, ElementCodec, ElementStep, IndexLocation,
};

use super::{INDEX, Members, assert_error, document, shards, v2, v3};

#[test]
fn ordinary_v3() {
    let meta = v3(&[
        ("attributes", r#"{"a": NaN, "a": [1, {"b": -Infinity}], "lone": "\ud800"}"#),
        ("dimension_names", r#"["y", null]"#),
        ("storage_transformers", "[]"),
    ])
    .unwrap();
    assert_eq!(meta.shape, [10, 7]);
    assert_eq!(meta.dtype, DataType::UInt(2));
    assert_eq!(meta.fill_value, [0, 0]);
    assert_eq!(meta.dimension_names, [Some("y".into()), None]);
    assert_eq!(meta.shard_grid, [AxisGrid::regular(10, 4), AxisGrid::regular(7, 6)]);
    assert_eq!(meta.keys.key(&[1, 2]), "c/1/2");
    assert_eq!(meta.chunk_shape, [4, 6]);
    assert_eq!(meta.chunk_order, [0, 1]);
    assert_eq!(meta.chunk_nbytes, 48);
    assert!(meta.levels.is_empty());
    assert_eq!(*meta.codecs, [CodecSpec::Bytes { endian: Endian::Little }]);
}

#[test]
fn rank_0() {
    let grid = r#"{"name": "regular", "configuration": {"chunk_shape": []}}"#;
    let meta = v3(&[("shape", "[]"), ("chunk_grid", grid)]).unwrap();
    assert_eq!((meta.rank(), meta.chunk_nbytes, meta.keys.key(&[])), (0, 2, "c".into()));
    let sharded = shards(&format!(r#"{{"chunk_shape": [], "codecs": ["bytes"], "index_codecs": {INDEX}}}"#));
    let meta = v3(&[("shape", "[]"), ("chunk_grid", grid), ("codecs", &sharded)]).unwrap();
    assert_eq!((meta.levels[0].layout().unwrap().entries, meta.levels[0].layout().unwrap().nbytes), (1, 20));
    let meta = v2(&[("shape", "[]"), ("chunks", "[]"), ("order", r#""F""#)]).unwrap();
    assert_eq!((meta.rank(), meta.keys.key(&[])), (0, "0".into()));
}

#[test]
fn a_sharded_array() {
    // The layout of WEBKNOSSOS: axes reversed inside the shard, zstd with checksum.
    let codecs = shards(&format!(
        r#"{{"chunk_shape": [1, 32, 32, 32], "index_location": "start", "index_codecs": {INDEX}, "codecs": [
            {{"name": "transpose", "configuration": {{"order": "F"}}}},
            {{"name": "bytes", "configuration": {{"endian": "big"}}}},
            {{"name": "zstd", "configuration": {{"level": 5, "checksum": true}}}}]}}"#
    ));
    let meta = v3(&[
        ("shape", "[1, 4096, 4000, 1]"),
        ("chunk_grid", r#"{"name": "regular", "configuration": {"chunk_shape": [1, 1024, 1024, 512]}}"#),
        ("codecs", &codecs),
    ])
    .unwrap();
    let [level] = meta.levels.as_slice() else { panic!("one level") };
    assert_eq!(meta.shard_shape(), Some(vec![1, 1024, 1024, 512]));
    assert_eq!((&*level.grid, &*level.entry_shape), (&[1, 32, 32, 16][..], &[1, 32, 32, 32][..]));
    assert_eq!(level.layout().unwrap().location, IndexLocation::Start);
    assert_eq!(
        (level.layout().unwrap().entries, level.layout().unwrap().nbytes, level.layout().unwrap().checksums.len()),
        (16384, 262_148, 1)
    );
    assert_eq!(
        (&*level.layout().unwrap().strides, level.layout().unwrap().pair_stride),
        (&[32768, 1024, 32, 2][..], 1)
    );
    assert_eq!((&*meta.chunk_shape, &*meta.chunk_order), (&[1, 32, 32, 32][..], &[3, 2, 1, 0][..]));
    assert!(!meta.has_outer_codecs());
}

#[test]
fn v3_data_types() {
    let table = [
        ("bool", "true", DataType::Bool),
        ("int8", "-1", DataType::Int(1)),
        ("int16", "-1", DataType::Int(2)),
        ("int32", "-1", DataType::Int(4)),
        ("int64", "-1", DataType::Int(8)),
        ("uint8", "1", DataType::UInt(1)),
        ("uint16", "1", DataType::UInt(2)),
        ("uint32", "1", DataType::UInt(4)),
        ("uint64", "1", DataType::UInt(8)),
        ("float16", "1", DataType::Float(2)),
        ("float32", "1", DataType::Float(4)),
        ("float64", "1", DataType::Float(8)),
        ("complex64", "[1, 1]", DataType::Complex(8)),
        ("complex128", "[1, 1]", DataType::Complex(16)),
        ("r8", "[1]", DataType::Raw(1)),
        ("r24", "[1, 2, 3]", DataType::Raw(3)),
    ];
    for (name, fill, dtype) in table {
        for spelling in [format!("\"{name}\""), format!(r#"{{"name": "{name}", "configuration": {{}}}}"#)] {
            let meta = v3(&[("data_type", &spelling), ("fill_value", fill)]).unwrap();
            assert_eq!(meta.dtype, dtype);
            assert_eq!(meta.fill_value.len(), dtype.item_size());
        }
    }
}

#[test]
fn fill_values() {
    let table: &[(&str, &str, u64)] = &[
        ("bool", "true", 1),
        ("bool", "false", 0),
        ("bool", "1", 1),
        ("int8", "-128", 0x80),
        ("int16", "-2", 0xfffe),
        ("int16", "3.0", 3),
        ("int16", "-0.0", 0),
        ("int32", "1e3", 1000),
        ("int64", "-9223372036854775808", 1 << 63),
        ("uint64", "18446744073709551615", u64::MAX),
        ("uint64", "9007199254740993", 9_007_199_254_740_993),
        ("uint8", "255", 255),
        ("uint8", "-0", 0),
        ("float16", "1", 0x3c00),
        ("float16", "\"NaN\"", 0x7e00),
        ("float16", "\"-Infinity\"", 0xfc00),
        ("float16", "\"0x7c01\"", 0x7c01),
        ("float32", "\"NaN\"", 0x7fc0_0000),
        ("float32", "NaN", 0x7fc0_0000),
        ("float32", "\"Infinity\"", 0x7f80_0000),
        ("float32", "-Infinity", 0xff80_0000),
        ("float32", "\"0xffc00001\"", 0xffc0_0001),
        ("float32", "-0.0", 0x8000_0000),
        ("float32", "16777217", 0x4b80_0000),            // tie, to even
        ("float32", "16777217.0000000001", 0x4b80_0000), // through a double, as zarr-python and tensorstore
        ("float32", "-3.4028234663852886e+38", 0xff7f_ffff),
        ("float64", "\"NaN\"", 0x7ff8_0000_0000_0000),
        ("float64", "\"0x7ff0000000000001\"", 0x7ff0_0000_0000_0001),
        ("float64", "0.1", 0x3fb9_9999_9999_999a),
        ("float64", "5e-324", 1),
        ("complex64", "[\"NaN\", -1.5]", 0xbfc0_0000_7fc0_0000),
        ("complex64", "2", 0x4000_0000),
        ("r32", "[1, 2, 3, 255]", 0xff03_0201),
    ];
    for (dtype, fill, bits) in table {
        let meta = v3(&[("data_type", &format!("\"{dtype}\"")), ("fill_value", fill)]).unwrap();
        let expected = bits.to_le_bytes();
        assert_eq!(meta.fill_value, expected[..meta.dtype.item_size()], "{dtype} {fill}");
    }
    let meta =
        v3(&[("data_type", "\"complex128\""), ("fill_value", r#"["0x7ff0000000000001", "-Infinity"]"#)]).unwrap();
    assert_eq!(
        meta.fill_value,
        [0x7ff0_0000_0000_0001u64.to_le_bytes(), 0xfff0_0000_0000_0000u64.to_le_bytes()].concat()
    );
}

#[test]
fn chunk_keys() {
    let table = [
        (r#""default""#, "c/1/2"),
        (r#"{"name": "default"}"#, "c/1/2"),
        (r#"{"name": "default", "configuration": {}}"#, "c/1/2"),
        (r#"{"name": "default", "configuration": {"separator": "."}}"#, "c.1.2"),
        (r#""v2""#, "1.2"),
        (r#"{"name": "v2", "configuration": {"separator": "/"}, "must_understand": true}"#, "1/2"),
    ];
    for (text, key) in table {
        assert_eq!(v3(&[("chunk_key_encoding", text)]).unwrap().keys.key(&[1, 2]), key);
    }
}

#[test]
fn v3_codecs() {
    let bytes = CodecSpec::Bytes { endian: Endian::Little };
    let zstd = |level, checksum| CodecSpec::Zstd { level, checksum };
    let blosc = |cname: &str, clevel, shuffle, typesize, blocksize| {
        CodecSpec::Blosc(BloscSpec { cname: cname.into(), clevel, shuffle, typesize, blocksize })
    };
    let checksum = |kind, at_start| CodecSpec::Checksum(ChecksumSpec { kind, at_start });
    let table = [
        (r#""bytes""#, vec![bytes.clone()]),
        (r#"{"name": "bytes"}"#, vec![bytes.clone()]),
        (r#"{"name": "endian", "configuration": {"endian": "big"}}"#, vec![CodecSpec::Bytes { endian: Endian::Big }]),
        (
            r#"{"name": "transpose", "configuration": {"order": [1, 0]}}, "bytes""#,
            vec![CodecSpec::Transpose { order: vec![1, 0] }, bytes.clone()],
        ),
        (
            r#"{"name": "transpose", "configuration": {"order": "C"}}, "bytes""#,
            vec![CodecSpec::Transpose { order: vec![0, 1] }, bytes.clone()],
        ),
        (
            r#"{"name": "transpose", "configuration": {"order": "F"}}, "bytes""#,
            vec![CodecSpec::Transpose { order: vec![1, 0] }, bytes.clone()],
        ),
        (
            r#""bytes", {"name": "gzip", "configuration": {"level": 9}}, "gzip""#,
            vec![bytes.clone(), CodecSpec::Gzip { level: 9 }, CodecSpec::Gzip { level: -1 }],
        ),
        (
            r#""bytes", {"name": "zstd", "configuration": {"level": -131072, "checksum": true}}, "zstd""#,
            vec![bytes.clone(), zstd(-131_072, true), zstd(0, false)],
        ),
        (
            r#""bytes", {"name": "blosc", "configuration":
                {"cname": "zstd", "clevel": 3, "shuffle": "bitshuffle", "typesize": 4, "blocksize": 512}}"#,
            vec![bytes.clone(), blosc("zstd", 3, BloscShuffle::Bit, 4, 512)],
        ),
        (
            r#""bytes", {"name": "blosc", "configuration": {"cname": "lz4hc", "clevel": 0, "shuffle": "noshuffle"}}"#,
            vec![bytes.clone(), blosc("lz4hc", 0, BloscShuffle::None, 2, 0)],
        ),
        (
            r#""bytes", {"name": "numcodecs.blosc", "configuration": {"id": "blosc", "cname": "snappy", "shuffle": -1}}"#,
            vec![bytes.clone(), blosc("snappy", 5, BloscShuffle::Byte, 2, 0)],
        ),
        (
            r#""bytes", {"name": "blosc", "configuration": {"shuffle": 1}}"#,
            vec![bytes.clone(), blosc("lz4", 5, BloscShuffle::Byte, 2, 0)],
        ),
        (r#""bytes", "crc32c""#, vec![bytes.clone(), CodecSpec::CRC32C]),
        (
            r#""bytes", {"name": "numcodecs.crc32c", "configuration": {"location": "end"}}, "numcodecs.crc32c""#,
            vec![bytes.clone(), CodecSpec::CRC32C, CodecSpec::CRC32C],
        ),
        (
            r#""bytes", {"name": "numcodecs.zlib", "configuration": {"level": -1}}, "numcodecs.gzip", "numcodecs.lz4""#,
            vec![bytes.clone(), CodecSpec::Zlib { level: -1 }, CodecSpec::Gzip { level: -1 }, CodecSpec::Lz4],
        ),
        (
            r#""bytes", {"name": "numcodecs.zstd", "configuration": {"level": 100}},
               {"name": "numcodecs.bz2", "configuration": {"id": "bz2", "level": 9}}"#,
            vec![bytes.clone(), zstd(100, false), CodecSpec::Bz2 { level: 9 }],
        ),
        (
            r#""bytes", {"name": "numcodecs.adler32", "configuration": {"location": "end"}}, "numcodecs.crc32",
               "numcodecs.fletcher32", {"name": "numcodecs.jenkins_lookup3", "configuration": {"initval": 4, "prefix": null}}"#,
            vec![
                bytes.clone(),
                checksum(ChecksumKind::Adler32, false),
                checksum(ChecksumKind::Crc32, true),
                checksum(ChecksumKind::Fletcher32, false),
                checksum(ChecksumKind::JenkinsLookup3 { initval: 4 }, false),
            ],
        ),
        (
            r#""bytes", "numcodecs.shuffle", {"name": "numcodecs.lzma", "configuration": {"format": 2}}, "numcodecs.lzma""#,
            vec![bytes.clone(), CodecSpec::Shuffle { elementsize: 2 }, CodecSpec::LzmaAlone, CodecSpec::Xz],
        ),
        (
            r#"{"name": "numcodecs.delta", "configuration": {"dtype": "<u2", "astype": "int8"}}, "bytes", "numcodecs.shuffle""#,
            vec![
                CodecSpec::Element(ElementCodec {
                    name: "delta",
                    decoded: DataType::UInt(2),
                    encoded: DataType::Int(1),
                    step: ElementStep::Sum,
                }),
                bytes.clone(),
                CodecSpec::Shuffle { elementsize: 1 },
            ],
        ),
        // Unknown, but need not be understood.
        (
            r#"{"name": "a", "must_understand": false}, "bytes", {"name": "b", "configuration": {"c": 1}, "must_understand": false}"#,
            vec![bytes.clone()],
        ),
    ];
    for (text, specs) in table {
        assert_eq!(v3(&[("codecs", &format!("[{text}]"))]).unwrap().codecs.to_vec(), specs, "{text}");
    }
}

#[test]
fn v3_tolerance() {
    v3(&[("consolidated_metadata", "null")]).unwrap();
    v3(&[("anything", r#"{"must_understand": false, "name": "x", "more": [1]}"#)]).unwrap();
    v3(&[("storage_transformers", r#"[{"name": "x", "must_understand": false}]"#)]).unwrap();
    v3(&[("dimension_names", "null")]).unwrap();
    v3(&[("dimension_names", r#"["x", "x"]"#)]).unwrap();
    v3(&[("shape", "[0, 7]")]).unwrap();
    let grid = r#"{"name": "regular", "configuration": {"chunk_shape": [4, 6]}, "must_understand": true}"#;
    v3(&[("chunk_grid", grid)]).unwrap();
    // The largest array: no product of extents is needed to be small, only the number of objects.
    let largest = ((1u64 << 62) - 2).to_string();
    let grid = r#"{"name": "regular", "configuration": {"chunk_shape": [1000000, 1000]}}"#;
    v3(&[("shape", &format!("[{largest}, 1000]")), ("chunk_grid", grid)]).unwrap();
}

#[test]
fn v3_refusals() {
    let name = |kind: &str| format!(r#"{{"name": "{kind}", "must_understand": false}}"#);
    let chunks = |shape: &str| format!(r#"{{"name": "regular", "configuration": {{"chunk_shape": {shape}}}}}"#);
    let zeros = |n: usize| format!("[{}]", vec!["1"; n].join(","));
    let codec = |name: &str, configuration: &str| {
        format!(r#"["bytes", {{"name": "{name}", "configuration": {{{configuration}}}}}]"#)
    };
    let order = |order: &str| format!(r#"[{{"name": "transpose", "configuration": {{"order": {order}}}}}, "bytes"]"#);
    let ignored = |rest: &str| format!(r#"[{{"name": "x", "must_understand": false}}, {rest}]"#);
    let ignored_shard = shards(&format!(
        r#"{{"chunk_shape": [2, 2], "codecs": ["bytes"], "index_codecs": {}}}"#,
        ignored(r#"{"name": "transpose", "configuration": {"order": [1, 0]}}, "bytes""#)
    ));
    let many = format!("[\"bytes\"{}]", ", \"crc32c\"".repeat(40));
    let (m, u, l) = ("MetadataError", "UnsupportedError", "LimitExceededError");
    #[rustfmt::skip]
    let table: &[(&str, &str, &str, &str)] = &[
        ("zarr_format", "", m, "zarr_format: missing"),
        ("zarr_format", "2", m, "zarr_format: expected 3, found 2"),
        ("zarr_format", "\"3\"", m, "zarr_format: expected a non-negative integer, found \"3\""),
        ("zarr_format", "3.0", m, "zarr_format"),
        ("node_type", "", m, "node_type: missing"),
        ("node_type", "\"group\"", m, "this is a group"),
        ("node_type", "\"file\"", m, "node_type"),
        ("node_type", "null", m, "node_type"),
        ("shape", "", m, "shape: missing"),
        ("shape", "10", m, "shape: expected a list, found 10"),
        ("shape", "[10]", m, "chunk shape: chunks have 2 axes, the array has 1"),
        ("shape", "[-10, 7]", m, "shape[0]: expected a non-negative integer, found -10"),
        ("shape", "[10.0, 7]", m, "shape[0]"),
        ("shape", "[true, 7]", m, "shape[0]: expected a non-negative integer, found true"),
        ("shape", "[\"10\", 7]", m, "shape[0]"),
        ("shape", "[null, 7]", m, "shape[0]"),
        ("shape", "[18446744073709551616, 7]", m, "shape[0]"),
        ("shape", "[9223372036854775807, 7]", l, "extent of an axis"),
        ("shape", "[4611686018427387903, 7]", l, "extent of an axis"),
        ("shape", "[4611686018427387902, 4611686018427387902]", l, "number of stored objects"),
        ("shape", &zeros(33), l, "shape: number of items: needs 33, the limit is 32"),
        ("data_type", "", m, "data_type: missing"),
        ("data_type", "5", m, "data_type: expected a name or an object with a name, found 5"),
        ("data_type", "{}", m, "data_type: an extension without a name"),
        ("data_type", "\"string\"", u, "elements of no fixed size"),
        ("data_type", "\"uint\"", u, "data type `uint`"),
        ("data_type", "\"r\"", u, "data type `r`"),
        ("data_type", "\"r12\"", m, "data_type: `r12`"),
        ("data_type", "\"r0\"", m, "data_type: elements of no bytes"),
        ("data_type", "\"r80000000000\"", l, "bytes of one element"),
        ("data_type", "\"r99999999999999999999999\"", m, "data_type"),
        ("data_type", r#"{"name": "uint16", "configuration": {"endian": "big"}}"#, u, "setting `endian` of `uint16`"),
        ("data_type", &name("uint16"), m, "data_type: \"must_understand\": false is not allowed"),
        ("chunk_grid", "", m, "chunk_grid: missing"),
        ("chunk_grid", "\"regular\"", m, "chunk_grid.configuration.chunk_shape: missing"),
        ("chunk_grid", r#"{"name": "hexagonal", "configuration": {}}"#, u, "chunk grid `hexagonal`"),
        ("chunk_grid", &name("regular"), m, "chunk_grid: \"must_understand\": false"),
        ("chunk_grid", r#"{"name": "regular", "chunk_shape": [4, 6]}"#, m, "chunk_grid.chunk_shape: not a member"),
        ("chunk_grid", r#"{"name": "regular", "configuration": {"chunk_shape": [4, 6], "x": 1}}"#, u, "setting `x`"),
        ("chunk_grid", r#"{"name": "regular", "configuration": [4, 6]}"#, m, "chunk_grid.configuration: expected an object"),
        ("chunk_grid", &chunks("[4]"), m, "chunks have 1 axes"),
        ("chunk_grid", &chunks("[4, 6, 1]"), m, "chunks have 3 axes"),
        ("chunk_grid", &chunks("[4, 0]"), m, "hold no voxel"),
        ("chunk_grid", &chunks("[4, -6]"), m, "chunk_grid.configuration.chunk_shape[1]"),
        ("chunk_grid", &chunks("[4, 6.0]"), m, "chunk_grid.configuration.chunk_shape[1]"),
        ("chunk_grid", &chunks("[4, 36893488147419103232]"), m, "chunk_grid.configuration.chunk_shape[1]"),
        ("chunk_grid", &chunks("[4, 18446744073709551615]"), l, "extent of an axis"),
        ("chunk_grid", &chunks("[65536, 16384]"), l, "bytes of a decoded chunk: needs 2147483648"),
        ("chunk_grid", &chunks("[4611686018427387902, 4611686018427387902]"), l, "bytes of a decoded chunk"),
        ("chunk_key_encoding", "", m, "chunk_key_encoding: missing"),
        ("chunk_key_encoding", "\"v3\"", u, "chunk key encoding `v3`"),
        ("chunk_key_encoding", &name("default"), m, "must_understand"),
        ("chunk_key_encoding", r#"{"name": "v2", "configuration": {"separator": "-"}}"#, m, "chunk_key_encoding.configuration.separator: expected \".\" or \"/\", found \"-\""),
        ("chunk_key_encoding", r#"{"name": "v2", "configuration": {"separator": 1}}"#, m, "separator: expected a string"),
        ("chunk_key_encoding", r#"{"name": "default", "separator": "/"}"#, m, "chunk_key_encoding.separator: not a member"),
        ("chunk_key_encoding", r#"{"name": "default", "configuration": {"prefix": "/"}}"#, u, "setting `prefix`"),
        ("fill_value", "", m, "fill_value: missing"),
        ("fill_value", "null", m, "fill_value: expected an integer from 0 to 65535, found null"),
        ("fill_value", "-1", m, "fill_value"),
        ("fill_value", "65536", m, "fill_value"),
        ("fill_value", "1.5", m, "fill_value"),
        ("fill_value", "NaN", m, "fill_value"),
        ("fill_value", "\"0\"", m, "fill_value"),
        ("fill_value", "true", m, "fill_value"),
        ("fill_value", "[0]", m, "fill_value"),
        ("fill_value", "1e309", m, "unreadable JSON: number out of range at line 1 column"),
        ("codecs", "", m, "codecs: missing"),
        ("codecs", "null", m, "codecs: expected a list, found null"),
        ("codecs", "[]", m, "codecs: no array -> bytes codec"),
        ("codecs", "[null]", m, "codecs[0]"),
        ("codecs", "[\"zstd\"]", m, "codecs[0]: `zstd` needs an array -> bytes codec"),
        ("codecs", "[\"bytes\", \"bytes\"]", m, "codecs[1]: `bytes` cannot follow `bytes`"),
        ("codecs", r#"["bytes", {"name": "transpose", "configuration": {"order": [1, 0]}}]"#, m, "codecs[1]: `transpose` cannot follow"),
        ("codecs", "[\"gzip\", \"bytes\"]", m, "codecs[0]: `gzip` needs"),
        ("codecs", &ignored(r#""bytes", {"name": "x", "must_understand": false}, "bytes""#), m, "codecs[3]: `bytes` cannot follow"),
        ("codecs", &ignored("\"gzip\""), m, "codecs[1]: `gzip` needs"),
        ("codecs", &ignored(r#"{"name": "transpose", "configuration": {"order": [0, 0]}}, "bytes""#), m, "codecs[1].configuration.order: [0, 0] is not"),
        ("codecs", &ignored(ignored_shard.trim_matches(['[', ']'])), m, "codecs[1].configuration.index_codecs[1].configuration.order: [1, 0] is not"),
        ("codecs", "[\"bytes\", \"brotli\"]", u, "codecs[1]: codec `brotli`"),
        ("codecs", "[\"bytes\", \"zlib\"]", u, "codecs[1]: codec `zlib`"),
        ("codecs", "[\"bytes\", \"numcodecs.pickle\"]", u, "codecs[1]: codec `numcodecs.pickle`"),
        ("codecs", "[\"vlen-utf8\"]", u, "codecs[0]: codec `vlen-utf8`"),
        ("codecs", r#"[{"name": "bytes", "must_understand": "no"}]"#, m, "codecs[0].must_understand: expected true or false"),
        ("codecs", r#"[{"name": "bytes", "configurations": {"endian": "big"}}]"#, m, "codecs[0].configurations: not a member"),
        ("codecs", r#"[{"name": "unknown", "must_understand": false}]"#, m, "no array -> bytes codec"),
        ("codecs", r#"[{"name": "bytes", "configuration": {"endian": "middle"}}]"#, m, "codecs[0].configuration.endian"),
        ("codecs", r#"[{"name": "bytes", "configuration": {"endian": null}}]"#, m, "codecs[0].configuration.endian"),
        ("codecs", r#"[{"name": "bytes", "configuration": {"order": "F"}}]"#, u, "setting `order` of `bytes`"),
        ("codecs", &order("[0]"), m, "codecs[0].configuration.order: [0] is not a permutation of 2 axes"),
        ("codecs", &order("[0, 0]"), m, "is not a permutation"),
        ("codecs", &order("[0, 2]"), m, "is not a permutation"),
        ("codecs", &order("[0, -1]"), m, "codecs[0].configuration.order[1]"),
        ("codecs", &order("[0, 1, 2]"), l, "codecs[0].configuration.order: number of items"),
        ("codecs", &order("\"K\""), m, "codecs[0].configuration.order"),
        ("codecs", "[\"transpose\", \"bytes\"]", m, "codecs[0].configuration.order: missing"),
        ("codecs", &codec("gzip", "\"level\": true"), m, "codecs[1].configuration.level: expected an integer from -1 to 9, found true"),
        ("codecs", &codec("gzip", "\"level\": 10"), m, "codecs[1].configuration.level"),
        ("codecs", &codec("zstd", "\"level\": 23"), m, "codecs[1].configuration.level"),
        ("codecs", &codec("zstd", "\"checksum\": 1"), m, "codecs[1].configuration.checksum: expected true or false, found 1"),
        ("codecs", &codec("zstd", "\"dictionary\": 1"), u, "codecs[1].configuration: setting `dictionary` of `zstd`"),
        ("codecs", &codec("blosc", "\"cname\": \"lz5\""), m, "codecs[1].configuration.cname"),
        ("codecs", &codec("blosc", "\"clevel\": 10"), m, "codecs[1].configuration.clevel"),
        ("codecs", &codec("blosc", "\"shuffle\": \"shuffled\""), m, "codecs[1].configuration.shuffle"),
        ("codecs", &codec("blosc", "\"shuffle\": 3"), m, "codecs[1].configuration.shuffle"),
        ("codecs", &codec("blosc", "\"typesize\": 0"), m, "codecs[1].configuration.typesize"),
        ("codecs", &codec("blosc", "\"blocksize\": -1"), m, "codecs[1].configuration.blocksize"),
        ("codecs", &codec("numcodecs.bz2", "\"level\": 0"), m, "codecs[1].configuration.level"),
        ("codecs", &codec("numcodecs.crc32c", "\"location\": \"middle\""), m, "codecs[1].configuration.location: expected \"start\" or \"end\""),
        ("codecs", &codec("crc32c", "\"location\": \"end\""), u, "setting `location`"),
        ("codecs", &many, l, "codecs: number of items: needs 41"),
        ("dimension_names", "[\"x\"]", m, "dimension_names: expected 2 names"),
        ("dimension_names", "[\"x\", 1]", m, "dimension_names[1]"),
        ("dimension_names", "\"xy\"", m, "dimension_names: expected a list"),
        ("storage_transformers", "[{\"name\": \"cache\"}]", u, "storage transformer `cache`"),
        ("storage_transformers", "[\"cache\"]", u, "storage transformer `cache`"),
        ("storage_transformers", "{}", m, "storage_transformers: expected a list"),
        ("extra", "1", u, "metadata field `extra`"),
        ("extra", "{}", u, "metadata field `extra`"),
        ("extra", "null", u, "metadata field `extra`"),
        ("extra", r#"{"must_understand": true}"#, u, "metadata field `extra`"),
        ("extra", r#"{"must_understand": 0}"#, m, "extra.must_understand"),
        ("consolidated_metadata", "{}", u, "metadata field `consolidated_metadata`"),
    ];
    for (member, text, class, part) in table {
        assert_error(v3(&[(member, text)]), class, part);
    }
}

#[test]
fn bad_fill_values() {
    let table = [
        ("bool", "2"),
        ("bool", "\"true\""),
        ("int8", "128"),
        ("int8", "-129"),
        ("int64", "9223372036854775808"),
        ("int64", "-9223372036854775809"),
        ("int64", "9223372036854775807.0"), // doubles do not hold it
        ("uint64", "18446744073709551616"),
        ("uint64", "1e19"),
        ("int32", "Infinity"),
        ("float16", "65520"),
        ("float32", "1e39"),
        ("float32", "\"nan\""),
        ("float32", "\"0x1ffffffff\""),
        ("float32", "\"0x\""),
        ("float32", "\"0x+1\""),
        ("float32", "\"1.5\""),
        ("float32", "true"),
        ("float32", "null"),
        ("float64", "\"0x10000000000000000\""),
        ("complex64", "[1]"),
        ("complex64", "[1, true]"),
        ("complex64", "\"1+2j\""),
        ("r16", "[1]"),
        ("r16", "[1, 256]"),
        ("r16", "[1, -1]"),
        ("r16", "\"AAA\""),
        ("r16", "\"AAAA\""), // three bytes
    ];
    for (dtype, fill) in table {
        let result = v3(&[("data_type", &format!("\"{dtype}\"")), ("fill_value", fill)]);
        assert_error(result, "MetadataError", "fill_value");
    }
    for (dtype, fill) in [("complex64", "[1, 2, 3]"), ("r16", "[1, 2, 3]")] {
        let result = v3(&[("data_type", &format!("\"{dtype}\"")), ("fill_value", fill)]);
        assert_error(result, "LimitExceededError", "fill_value: number of items");
    }
}

#[test]
fn bad_shards() {
    let (m, u, l) = ("MetadataError", "UnsupportedError", "LimitExceededError");
    let at = "codecs[0].configuration";
    #[rustfmt::skip]
    let table: &[(&str, &str, &str, &str, &str)] = &[
        // chunk_shape, codecs, index_codecs
        ("[3, 6]", r#"["bytes"]"#, INDEX, m, "chunk_shape: 3 does not divide the shard's extent 4"),
        ("[0, 6]", r#"["bytes"]"#, INDEX, m, "chunk_shape: 0 does not divide"),
        ("[8, 6]", r#"["bytes"]"#, INDEX, m, "chunk_shape: 8 does not divide"),
        ("[2]", r#"["bytes"]"#, INDEX, m, "chunk_shape: 1 axes, the array has 2"),
        ("[2, -1]", r#"["bytes"]"#, INDEX, m, "chunk_shape[1]"),
        ("2", r#"["bytes"]"#, INDEX, m, "chunk_shape: expected a list"),
        ("[2, 2]", "[]", INDEX, m, "codecs: no array -> bytes codec"),
        ("[2, 2]", r#"["gzip"]"#, INDEX, m, "codecs[0]: `gzip` needs"),
        ("[2, 2]", r#"["unheard-of"]"#, INDEX, u, "codecs[0]: codec `unheard-of`"),
        ("[2, 2]", r#"["bytes"]"#, "[]", m, "index_codecs: no array -> bytes codec"),
        ("[2, 2]", r#"["bytes"]"#, r#"["crc32c"]"#, m, "index_codecs[0]: `crc32c` needs"),
        ("[2, 2]", r#"["bytes"]"#, r#"["bytes", "zstd"]"#, m, "index_codecs: `zstd` has no fixed size"),
        ("[2, 2]", r#"["bytes"]"#, r#"["bytes", "crc32c", "gzip"]"#, m, "index_codecs: `gzip` has no fixed size"),
        ("[2, 2]", r#"["bytes"]"#, r#"["bytes", "adler32"]"#, u, "index_codecs[1]: codec `adler32`"),
        ("[2, 2]", r#"["bytes"]"#, r#"[{"name": "transpose", "configuration": {"order": [1, 0]}}, "bytes"]"#, m, "index_codecs[0].configuration.order: [1, 0] is not a permutation of 3 axes"),
    ];
    for (chunk_shape, codecs, index_codecs, class, part) in table {
        let configuration =
            format!(r#"{{"chunk_shape": {chunk_shape}, "codecs": {codecs}, "index_codecs": {index_codecs}}}"#);
        assert_error(v3(&[("codecs", &shards(&configuration))]), class, &format!("{at}.{part}"));
    }
    let inside = format!(
        r#"{{"chunk_shape": [2, 2], "codecs": ["bytes"], "index_codecs": {}}}"#,
        shards(&format!(r#"{{"chunk_shape": [1, 1, 1], "codecs": ["bytes"], "index_codecs": {INDEX}}}"#))
    );
    assert_error(v3(&[("codecs", &shards(&inside))]), m, "index_codecs: `sharding_indexed` has no fixed size");
    for missing in ["chunk_shape", "codecs", "index_codecs"] {
        let members = [("chunk_shape", "[2, 2]"), ("codecs", "[\"bytes\"]"), ("index_codecs", INDEX)];
        let result = v3(&[("codecs", &shards(&document(&members, &[(missing, "")])))]);
        assert_error(result, m, &format!("{at}.{missing}: missing"));
    }
    let members: Members = &[("chunk_shape", "[2, 2]"), ("codecs", "[\"bytes\"]"), ("index_codecs", INDEX)];
    let location = document(members, &[("index_location", "\"middle\"")]);
    assert_error(v3(&[("codecs", &shards(&location))]), m, "index_location: expected \"start\" or \"end\"");
    let extra = document(members, &[("chunk_grid", "1")]);
    assert_error(v3(&[("codecs", &shards(&extra))]), u, "setting `chunk_grid` of `sharding_indexed`");
    assert_error(v3(&[("codecs", "[\"sharding_indexed\"]")]), m, "configuration.chunk_shape: missing");

    let mut nested = String::from("[\"bytes\"]");
    for depth in 0..6 {
        let result = v3(&[("codecs", &nested)]);
        if depth <= 4 {
            assert_eq!(result.unwrap().levels.len(), depth);
        } else {
            assert_error(result, l, "levels of sharding: needs 5, the limit is 4");
        }
        nested = shards(&format!(r#"{{"chunk_shape": [2, 2], "codecs": {nested}, "index_codecs": {INDEX}}}"#));
    }
}

#[test]
fn absurd_indexes_are_refused_before_anything_is_allocated() {
    let array = |shard: u64, chunk: u64| {
        let grid = format!(r#"{{"name": "regular", "configuration": {{"chunk_shape": [{shard}, {shard}]}}}}"#);
        let codecs =
            shards(&format!(r#"{{"chunk_shape": [{chunk}, {chunk}], "codecs": ["bytes"], "index_codecs": {INDEX}}}"#));
        v3(&[("chunk_grid", &grid), ("codecs", &codecs)])
    };
    assert_error(array(1 << 17, 1), "LimitExceededError", "bytes of a shard index: needs 274877906948");
    assert_error(array(1 << 40, 1), "LimitExceededError", "bytes of a shard index: needs 18446744073709551615");
    assert_error(array(1 << 30, 1 << 20), "LimitExceededError", "bytes of a decoded chunk");
    assert_error(array(1 << 11, 1), "LimitExceededError", "bytes of a shard index");
    assert_eq!(array(1 << 10, 1).unwrap().levels[0].index.nbytes(), (16 << 20) + 4);
}
