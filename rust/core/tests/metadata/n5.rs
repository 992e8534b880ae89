//! Rules of N5 documents, one row each.

use proptest::prelude::*;
use voxfetch_core::dtype::DataType;
use voxfetch_core::error::Result;
use voxfetch_core::metadata::n5::{Compression, N5Array, parse};
use voxfetch_core::metadata::{BloscShuffle, BloscSpec};

use super::{Members, assert_error, document};

const N5: Members = &[
    ("dimensions", "[10, 7, 3]"),
    ("blockSize", "[4, 6, 1]"),
    ("dataType", r#""uint16""#),
    ("compression", r#"{"type": "raw"}"#),
];

fn n5(changes: Members) -> Result<N5Array> {
    parse(document(N5, changes).as_bytes())
}

#[test]
fn ordinary_n5() {
    let array = n5(&[("unknown", r#"{"a": [1]}"#), ("pixelResolution", "3")]).unwrap();
    assert_eq!(array.dimensions, [10, 7, 3]);
    assert_eq!(array.block_size, [4, 6, 1]);
    assert_eq!(array.dtype, DataType::UInt(2));
    assert_eq!(array.compression, Compression::Raw);
    assert_eq!(array.axes, None);
    assert_eq!(n5(&[("dimensions", "[0, 7, 3]")]).unwrap().dimensions, [0, 7, 3]);
}

#[test]
fn n5_data_types() {
    let table = [
        ("uint8", DataType::UInt(1)),
        ("uint16", DataType::UInt(2)),
        ("uint32", DataType::UInt(4)),
        ("uint64", DataType::UInt(8)),
        ("int8", DataType::Int(1)),
        ("int16", DataType::Int(2)),
        ("int32", DataType::Int(4)),
        ("int64", DataType::Int(8)),
        ("float32", DataType::Float(4)),
        ("float64", DataType::Float(8)),
    ];
    for (name, dtype) in table {
        assert_eq!(n5(&[("dataType", &format!("\"{name}\""))]).unwrap().dtype, dtype);
    }
}

#[test]
fn n5_compressions() {
    let blosc = |cname: &str, clevel, shuffle| {
        Compression::Blosc(BloscSpec { cname: cname.into(), clevel, shuffle, typesize: 2, blocksize: 0 })
    };
    let table = [
        (r#"{"type": "raw"}"#, Compression::Raw),
        (r#"{"type": "gzip"}"#, Compression::Gzip { level: -1 }),
        (r#"{"type": "gzip", "level": 5, "useZlib": false}"#, Compression::Gzip { level: 5 }),
        (r#"{"type": "gzip", "level": -1, "useZlib": true}"#, Compression::Zlib { level: -1 }),
        (r#"{"type": "bzip2", "blockSize": 1}"#, Compression::Bzip2 { level: 1 }),
        (r#"{"type": "bzip2"}"#, Compression::Bzip2 { level: 9 }),
        (r#"{"type": "xz", "preset": 6}"#, Compression::Xz),
        (r#"{"type": "lz4", "blockSize": 65536}"#, Compression::Lz4),
        (r#"{"type": "zstd", "level": 7, "nbWorkers": 4}"#, Compression::Zstd { level: 7 }),
        (r#"{"type": "zstandard"}"#, Compression::Zstd { level: 3 }),
        (
            r#"{"type": "blosc", "cname": "blosclz", "clevel": 6, "shuffle": 2, "blocksize": 0, "nthreads": 1}"#,
            blosc("blosclz", 6, BloscShuffle::Bit),
        ),
        (r#"{"type": "blosc", "shuffle": 0}"#, blosc("lz4", 5, BloscShuffle::None)),
    ];
    for (text, compression) in table {
        assert_eq!(n5(&[("compression", text)]).unwrap().compression, compression, "{text}");
    }
}

#[test]
fn n5_compressions_of_other_versions() {
    let legacy = |name: &str| n5(&[("compression", ""), ("compressionType", &format!("\"{name}\""))]);
    assert_eq!(legacy("raw").unwrap().compression, Compression::Raw);
    assert_eq!(legacy("gzip").unwrap().compression, Compression::Gzip { level: -1 });
    assert_eq!(legacy("lz4").unwrap().compression, Compression::Lz4);
    assert_error(legacy("jpeg"), "UnsupportedError", "compressionType: compression `jpeg`");

    let codecs = |list: &str| n5(&[("compression", ""), ("codecs", list)]);
    assert_eq!(codecs(r#"[{"name": "n5bytes"}]"#).unwrap().compression, Compression::Raw);
    let gzip = r#"[{"name": "n5bytes", "configuration": {}}, {"name": "gzip", "configuration": {"level": 4}}]"#;
    assert_eq!(codecs(gzip).unwrap().compression, Compression::Gzip { level: 4 });
    let zlib = r#"[{"type": "n5bytes"}, {"type": "gzip", "level": 4, "useZlib": true}]"#;
    assert_eq!(codecs(zlib).unwrap().compression, Compression::Zlib { level: 4 });
    // The newest spelling wins.
    assert_eq!(
        n5(&[("codecs", gzip), ("compressionType", "\"xz\"")]).unwrap().compression,
        Compression::Gzip { level: 4 }
    );
    assert_eq!(n5(&[("compressionType", "\"xz\"")]).unwrap().compression, Compression::Raw);
}

#[test]
fn n5_axes() {
    let transform = |more: &str| format!(r#"{{"axes": ["z", "y", "x"], "scale": [1, 1, 1]{more}}}"#);
    let axes = |changes: Members| n5(changes).unwrap().axes.map(|axes| axes.concat());
    assert_eq!(axes(&[("axes", r#"["x", "y", "z"]"#)]).as_deref(), Some("xyz"));
    assert_eq!(axes(&[("transform", &transform(""))]).as_deref(), Some("xyz"));
    assert_eq!(axes(&[("transform", &transform(r#", "ordering": "C""#))]).as_deref(), Some("xyz"));
    assert_eq!(axes(&[("transform", &transform(r#", "ordering": "F""#))]).as_deref(), Some("zyx"));
    assert_eq!(axes(&[("transform", &transform(r#", "order": "F""#))]).as_deref(), Some("zyx"));
    assert_eq!(axes(&[("axes", r#"["a", "b", "c"]"#), ("transform", &transform(""))]).as_deref(), Some("abc"));
    assert_eq!(axes(&[("axes", "3"), ("transform", &transform(""))]).as_deref(), Some("xyz"));
    for bad in ["3", r#"["x", "y"]"#, r#"["x", "y", "z", "t"]"#, r#"["x", "y", "x"]"#, r#"["x", "y", ""]"#, "[1, 2, 3]"]
    {
        assert_eq!(axes(&[("axes", bad)]), None, "{bad}");
    }
}

#[test]
fn n5_comments() {
    let base = document(N5, &[]);
    for before in
        ["/* licence */", "/*-\n * #%L\n **/\n", "// one\n// two\r\n", " \n/* a */ // b\n/**/\t", "/*//*/", "//*\n"]
    {
        assert_eq!(parse(format!("{before}{base}").as_bytes()).unwrap(), n5(&[]).unwrap(), "{before:?}");
    }
    for before in ["/* no end", "/*/", "// no end", "/", "/ *", "# x\n", "* /"] {
        assert_error(parse(before.as_bytes()), "MetadataError", "");
    }
    assert_error(parse(b"/* a */"), "MetadataError", "unreadable JSON");
    assert_error(parse(format!("{base} // after").as_bytes()), "MetadataError", "trailing characters");
    assert_error(parse(b"/* a"), "MetadataError", "a comment without an end");
    // The first end is the end.
    let ends = document(N5, &[("unknown", r#""*/ {""#)]);
    assert_eq!(parse(format!("/* a */\n// b\n{ends}\n").as_bytes()).unwrap(), n5(&[]).unwrap());
}

#[test]
fn n5_refusals() {
    let (m, u, l) = ("MetadataError", "UnsupportedError", "LimitExceededError");
    let ones = format!("[{}]", vec!["1"; 33].join(","));
    #[rustfmt::skip]
    let table: &[(&str, &str, &str, &str)] = &[
        ("dimensions", "", m, "dimensions: missing"),
        ("dimensions", "[]", m, "dimensions: no axes"),
        ("dimensions", "3", m, "dimensions: expected a list, found 3"),
        ("dimensions", "[10, -7, 3]", m, "dimensions[1]"),
        ("dimensions", "[10, 7.0, 3]", m, "dimensions[1]"),
        ("dimensions", "[10, 18446744073709551616, 3]", m, "dimensions[1]"),
        ("dimensions", "[10, 18446744073709551615, 3]", l, "extent of an axis"),
        ("dimensions", &ones, l, "dimensions: number of items"),
        ("blockSize", "", m, "blockSize: missing"),
        ("blockSize", "[4, 6]", m, "blockSize: 2 axes, `dimensions` has 3"),
        ("blockSize", "[4, 0, 1]", m, "blockSize[1]"),
        ("blockSize", "[4, 2147483648, 1]", m, "blockSize[1]"),
        ("blockSize", "[65536, 16384, 1]", l, "bytes of a decoded block"),
        ("blockSize", "[2147483647, 2147483647, 2147483647]", l, "bytes of a decoded block"),
        ("dataType", "", m, "dataType: missing"),
        ("dataType", "16", m, "dataType: expected a short string"),
        ("dataType", "\"string\"", u, "data type `string`"),
        ("dataType", "\"object\"", u, "data type `object`"),
        ("dataType", "\"UINT8\"", u, "data type `UINT8`"),
        ("compression", "", m, "compression: missing"),
        ("compression", "null", m, "compression: expected an object, found null"),
        ("compression", "{}", m, "compression.type: missing"),
        ("compression", r#"{"type": 3}"#, m, "compression.type: expected a short string"),
        ("compression", r#"{"type": "jpeg"}"#, u, "compression.type: compression `jpeg`"),
        ("compression", r#"{"type": "sharding_indexed"}"#, u, "compression `sharding_indexed`"),
        ("compression", r#"{"type": "gzip", "useZlib": 1}"#, m, "compression.useZlib"),
        ("compression", r#"{"type": "gzip", "level": 10}"#, m, "compression.level"),
        ("compression", r#"{"type": "bzip2", "blockSize": 0}"#, m, "compression.blockSize"),
        ("compression", r#"{"type": "blosc", "shuffle": 3}"#, m, "compression.shuffle"),
        ("codecs", "[]", m, "codecs: no codec"),
        ("codecs", "{}", m, "codecs: expected a list"),
        ("codecs", "[{}]", m, "codecs[0].type: missing"),
        ("codecs", r#"[{"name": "sharding_indexed"}]"#, u, "codecs[0]: codec `sharding_indexed`"),
        ("codecs", r#"[{"name": "gzip"}]"#, u, "codecs[0]: codec `gzip`"),
        ("codecs", r#"[{"name": "n5bytes"}, {"name": "rot13"}]"#, u, "codecs[1].name: compression `rot13`"),
        ("codecs", r#"[{"name": "n5bytes"}, {"name": "gzip"}, {"name": "gzip"}]"#, u, "codecs[2]: a second compression"),
        ("isLabelMultiset", "true", u, "isLabelMultiset: label multisets"),
    ];
    for (member, text, class, part) in table {
        assert_error(n5(&[(member, text)]), class, part);
    }
    n5(&[("isLabelMultiset", "false")]).unwrap();
    // What the types are is best said by what makes them: a label multiset is no uint8.
    assert_error(n5(&[("isLabelMultiset", "true"), ("dataType", "\"uint8\"")]), u, "label multisets");
}

proptest! {
    /// A valid document with some bytes changed is an array or a typed error.
    #[test]
    fn changed_documents(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let base = document(N5, &[("compression", r#"{"type": "gzip", "useZlib": true}"#), ("axes", r#"["x", "y", "z"]"#)]);
        let mut bytes = format!("/* c */{base}").into_bytes();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Err(error) = parse(&bytes) {
            prop_assert_ne!(error.kind().class_name(), "InternalError");
        }
    }
}
