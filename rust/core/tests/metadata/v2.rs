//! Rules of version 2, one row each.

use voxfetch_core::dtype::{DataType, Endian};
use voxfetch_core::metadata::zarr::parse_v2;
use voxfetch_core::metadata::{BloscShuffle, BloscSpec, CodecSpec};

use super::{V2, assert_error, document, v2};

#[test]
fn ordinary_v2() {
    let meta = v2(&[("compressor", r#"{"id": "zlib", "level": 1}"#), ("order", r#""F""#), ("unknown", "[1]")]).unwrap();
    assert_eq!(meta.shape, [10, 7]);
    assert_eq!(meta.dtype, DataType::UInt(2));
    assert_eq!(meta.dimension_names, [None, None]);
    assert_eq!(meta.keys.key(&[1, 2]), "1.2");
    assert_eq!(meta.chunk_shape, [4, 6]);
    assert_eq!(meta.chunk_order, [1, 0]);
    assert_eq!(meta.codecs[2], CodecSpec::Zlib { level: 1 });
}

#[test]
fn v2_data_types() {
    let table = [
        ("|b1", "0", DataType::Bool, Endian::Little),
        ("|i1", "-1", DataType::Int(1), Endian::Little),
        ("<u1", "1", DataType::UInt(1), Endian::Little),
        ("<i2", "1", DataType::Int(2), Endian::Little),
        (">u2", "1", DataType::UInt(2), Endian::Big),
        (">i4", "1", DataType::Int(4), Endian::Big),
        ("<u8", "1", DataType::UInt(8), Endian::Little),
        (">f2", "1", DataType::Float(2), Endian::Big),
        ("<f4", "1", DataType::Float(4), Endian::Little),
        ("<f8", "1", DataType::Float(8), Endian::Little),
        (">c8", "[0, 1]", DataType::Complex(8), Endian::Big),
        ("<c16", "[0, 1]", DataType::Complex(16), Endian::Little),
        ("<M8[ns]", "1", DataType::DateTime("ns".into()), Endian::Little),
        (">m8[25s]", "\"NaT\"", DataType::TimeDelta("25s".into()), Endian::Big),
        ("|S7", "\"\"", DataType::FixedBytes(7), Endian::Little),
        ("|V3", "\"AAAA\"", DataType::Raw(3), Endian::Little),
        (">U13", "\"\"", DataType::FixedUtf32(13), Endian::Big),
    ];
    for (text, fill, dtype, endian) in table {
        let meta = v2(&[("dtype", &format!("\"{text}\"")), ("fill_value", fill)]).unwrap();
        assert_eq!(*meta.codecs, [CodecSpec::Bytes { endian }], "{text}");
        assert_eq!(meta.fill_value.len(), dtype.item_size());
        assert_eq!(meta.dtype, dtype);
        let meta = v2(&[("dtype", &format!("\"{text}\"")), ("fill_value", "null")]).unwrap();
        let is_time = matches!(dtype, DataType::DateTime(_) | DataType::TimeDelta(_));
        let expected = if is_time { i64::MIN.to_ne_bytes().to_vec() } else { vec![0; dtype.item_size()] };
        assert_eq!(meta.fill_value, expected);
    }
}

#[test]
fn v2_records() {
    let dtype = r#"[["a", ">u2"], ["", "|V1"], ["s", [["x", "<i4"], ["t", ">M8[s]"]], [2, 3]], ["n", "|S2", 2]]"#;
    let meta = v2(&[("dtype", dtype), ("fill_value", "null")]).unwrap();
    let DataType::Record(record) = &meta.dtype else { panic!("{:?}", meta.dtype) };
    let fields: Vec<_> = record.fields().iter().map(|f| (&*f.name, &*f.shape, f.endian, f.nbytes())).collect();
    let (big, little) = (Some(Endian::Big), Some(Endian::Little));
    assert_eq!(
        fields,
        [("a", &[][..], big, 2), ("f1", &[], little, 1), ("s", &[2, 3], little, 72), ("n", &[2], little, 4)]
    );
    assert_eq!((meta.dtype.item_size(), meta.fill_value.len()), (79, 79));
    // As stored, so that each field has its own byte order.
    let dtype = r#"[["a", ">u2"], ["b", "<i2"], ["c", ">c8"]]"#;
    let meta = v2(&[("dtype", dtype), ("fill_value", "\"AQIDBAAAAAE/gAAA\"")]).unwrap();
    assert_eq!(meta.fill_value, [2, 1, 3, 4, 1, 0, 0, 0, 0, 0, 0x80, 0x3f]);
    let meta = v2(&[("dtype", dtype), ("fill_value", "0")]).unwrap();
    assert_eq!(meta.fill_value, [0; 12]);
    assert_eq!(v2(&[("dtype", "\"bfloat16\""), ("fill_value", "1")]).unwrap().fill_value, [0x80, 0x3f]);
}

#[test]
fn v2_fill_values() {
    let table: &[(&str, &str, &[u8])] = &[
        ("|b1", "1", &[1]),
        ("<f4", "\"NaN\"", &[0, 0, 0xc0, 0x7f]),
        (">f4", "1.0", &[0, 0, 0x80, 0x3f]), // always native, whatever is stored
        ("<M8[s]", "\"NaT\"", &[0, 0, 0, 0, 0, 0, 0, 0x80]),
        ("<M8[s]", "-9223372036854775808", &[0, 0, 0, 0, 0, 0, 0, 0x80]),
        ("|S3", "\"YWI=\"", b"ab\0"),
        ("|S3", "\"YWJj\"", b"abc"),
        ("|S3", "0", b"\0\0\0"),
        ("|V2", "\"//8=\"", &[255, 255]),
        ("<U3", "\"a\\u00e9\"", &[b'a', 0, 0, 0, 0xe9, 0, 0, 0, 0, 0, 0, 0]),
        ("<U1", "0", &[0, 0, 0, 0]),
    ];
    for (dtype, fill, bytes) in table {
        let meta = v2(&[("dtype", &format!("\"{dtype}\"")), ("fill_value", fill)]).unwrap();
        assert_eq!(meta.fill_value, *bytes, "{dtype} {fill}");
    }
}

#[test]
fn v2_codecs() {
    let blosc = |cname: &str, shuffle, typesize| {
        CodecSpec::Blosc(BloscSpec { cname: cname.into(), clevel: 5, shuffle, typesize, blocksize: 0 })
    };
    let table = [
        (r#"{"id": "zlib", "level": 1}"#, CodecSpec::Zlib { level: 1 }),
        (r#"{"id": "gzip", "level": -1}"#, CodecSpec::Gzip { level: -1 }),
        (r#"{"id": "zstd", "level": 100, "checksum": true}"#, CodecSpec::Zstd { level: 100, checksum: true }),
        (r#"{"id": "lz4", "acceleration": 1}"#, CodecSpec::Lz4),
        (r#"{"id": "bz2", "level": 9}"#, CodecSpec::Bz2 { level: 9 }),
        (
            r#"{"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}"#,
            blosc("lz4", BloscShuffle::Byte, 2),
        ),
        (r#"{"id": "blosc", "cname": "zstd", "clevel": 5, "shuffle": -1}"#, blosc("zstd", BloscShuffle::Byte, 2)),
        (r#"{"id": "blosc", "cname": "zlib", "clevel": 5, "shuffle": 0}"#, blosc("zlib", BloscShuffle::None, 2)),
    ];
    for (text, spec) in table {
        assert_eq!(v2(&[("compressor", text)]).unwrap().codecs[1], spec, "{text}");
    }
    let meta = v2(&[("dtype", "\"|u1\""), ("compressor", r#"{"id": "blosc", "shuffle": -1}"#)]).unwrap();
    assert_eq!(meta.codecs[1], blosc("lz4", BloscShuffle::Bit, 1));
    v2(&[("filters", "[]")]).unwrap();
    v2(&[("filters", "")]).unwrap();
}

#[test]
fn v2_separators() {
    let text = |separator: &str| document(V2, &[("dimension_separator", separator)]);
    let key = |separator: &str, given| parse_v2(text(separator).as_bytes(), given).unwrap().keys.key(&[1, 2]);
    assert_eq!(key("", None), "1.2");
    assert_eq!(key("\".\"", None), "1.2");
    assert_eq!(key("\"/\"", None), "1/2");
    assert_eq!(key("", Some('/')), "1/2");
    assert_eq!(key("\"/\"", Some('.')), "1.2");
    assert_error(parse_v2(text("").as_bytes(), Some('-')), "MetadataError", "dimension separator");
    assert_error(parse_v2(text("\"-\"").as_bytes(), None), "MetadataError", "dimension_separator");
}

#[test]
fn v2_refusals() {
    let (m, u, l) = ("MetadataError", "UnsupportedError", "LimitExceededError");
    let ones = format!("[{}]", vec!["1"; 33].join(","));
    #[rustfmt::skip]
    let table: &[(&str, &str, &str, &str)] = &[
        ("zarr_format", "", m, "zarr_format: missing"),
        ("zarr_format", "3", m, "zarr_format: expected 2, found 3"),
        ("shape", "", m, "shape: missing"),
        ("shape", "[10, -7]", m, "shape[1]"),
        ("shape", &ones, l, "shape: number of items"),
        ("chunks", "", m, "chunks: missing"),
        ("chunks", "[4]", m, "chunks have 1 axes"),
        ("chunks", "[4, 0]", m, "hold no voxel"),
        ("chunks", "true", m, "chunks: expected a list, found true"),
        ("chunks", "[65536, 65536]", l, "bytes of a decoded chunk"),
        ("dtype", "", m, "dtype: missing"),
        ("dtype", "\"u2\"", m, "dtype: \"u2\" is not a numpy type string"),
        ("dtype", "\"=u2\"", m, "dtype"),
        ("dtype", "\"|u2\"", m, "dtype: elements of several bytes need the byte order"),
        ("dtype", "\"<u3\"", m, "dtype"),
        ("dtype", "\"<f1\"", m, "dtype"),
        ("dtype", "\"<i\"", m, "dtype"),
        ("dtype", "\"<\"", m, "dtype"),
        ("dtype", "\"\"", m, "dtype"),
        ("dtype", "\"<i99999999999999999999\"", m, "dtype"),
        ("dtype", "\"<i+4\"", m, "dtype"),
        ("dtype", "\"<é2\"", u, "data type `<é2`"),
        ("dtype", "\"<f16\"", u, "data type `<f16`"),
        ("dtype", "\"|t8\"", u, "data type `|t8`"),
        ("dtype", "\"|O\"", u, "elements of no fixed size"),
        ("dtype", "\"<M8\"", u, "data type `<M8`"),
        ("dtype", "\"<M8[x]\"", u, "data type `<M8[x]`"),
        ("dtype", "\"<M4[s]\"", m, "dtype"),
        ("dtype", "\"|S0\"", m, "dtype: elements of no bytes"),
        ("dtype", "\"|V4000000000\"", l, "bytes of one element"),
        ("dtype", "\"<U9999999999999999999\"", l, "bytes of one element"),
        ("dtype", "[]", m, "dtype: elements of no bytes"),
        ("dtype", r#"["<f4"]"#, m, "dtype[0]: expected a list"),
        ("dtype", r#"[["x"]]"#, m, "dtype[0]: expected a name, a type and perhaps a shape"),
        ("dtype", r#"[["x", "<f4", [2], 1]]"#, l, "dtype[0]: number of items"),
        ("dtype", r#"[[["title", "x"], "<f4"]]"#, m, "dtype[0][0]: expected a string"),
        ("dtype", r#"[["x", "<f4"], ["x", "<i4"]]"#, m, "dtype: two fields have one name"),
        ("dtype", r#"[["x", "<f4"], ["", "|V4"], ["f1", "<i4"]]"#, m, "dtype: two fields have one name"),
        ("dtype", r#"[["x", "<f4", [2, 0]]]"#, m, "dtype: elements of no bytes"),
        ("dtype", r#"[["x", "<f4", [4294967296, 4294967296, 2]]]"#, l, "bytes of one element"),
        ("dtype", r#"[["x", [["y", "|V1000000"]], 2]]"#, l, "bytes of one element"),
        ("dtype", r#"[["x", "|O"]]"#, u, "data type `|O`"),
        ("dtype", "4", m, "dtype"),
        ("compressor", "", m, "compressor: missing"),
        ("compressor", "\"zlib\"", m, "compressor: expected an object"),
        ("compressor", "{}", m, "compressor.id: missing"),
        ("compressor", r#"{"id": "lzma", "format": 3}"#, u, "compressor: `lzma` of format 3"),
        ("compressor", r#"{"id": "delta", "dtype": "<u2"}"#, m, "compressor: `delta` is no compressor"),
        ("compressor", r#"{"id": "pickle"}"#, u, "compressor `pickle`"),
        ("compressor", r#"{"id": "zlib", "level": "9"}"#, m, "compressor.level: expected an integer from -1 to 9, found \"9\""),
        ("compressor", r#"{"id": "blosc", "shuffle": 7}"#, m, "compressor.shuffle"),
        ("fill_value", "", m, "fill_value: missing"),
        ("fill_value", "70000", m, "fill_value"),
        ("order", "", m, "order: missing"),
        ("order", "\"A\"", m, "order: expected \"C\" or \"F\", found \"A\""),
        ("filters", r#"[{"id": "delta", "dtype": "<u4"}]"#, m, "filters[0]: `delta` of elements of uint32, but those before it are uint16"),
        ("filters", r#"[{"id": "delta", "dtype": ">u2"}]"#, u, "filters[0]: `delta` of bytes in another order"),
        ("filters", r#"[{"id": "delta", "dtype": "|V2"}]"#, u, "filters[0]: `delta` from V2 to V2"),
        ("filters", r#"[{"id": "astype", "encode_dtype": "<u2", "decode_dtype": "|S2"}]"#, u, "filters[0]: `astype` of bytes in another order"),
        ("filters", r#"[{"id": "delta", "dtype": "<u2", "astype": "<c8"}]"#, u, "filters[0]: `delta` from complex64 to uint16"),
        ("filters", r#"[{"id": "packbits"}]"#, m, "filters[0]: `packbits` of elements of bool"),
        ("filters", r#"[{"id": "zlib"}, {"id": "delta", "dtype": "<u2"}]"#, u, "filters[1]: filter `delta` after one that makes bytes"),
        ("filters", r#"[{"id": "fixedscaleoffset", "scale": "1", "offset": 0}]"#, m, "filters[0].scale: expected a number"),
        ("filters", r#"[{"id": "fixedscaleoffset", "offset": 0}]"#, m, "filters[0]: `fixedscaleoffset` needs the setting `scale`"),
        ("filters", r#"[{"id": "astype", "encode_dtype": "<u1e9"}]"#, m, "filters[0].encode_dtype"),
        ("filters", r#"[{"id": "shuffle", "elementsize": -1}]"#, m, "filters[0].elementsize"),
        ("filters", r#"[{"id": "hdf5_bitshuffle", "elementsize": 0, "cname": "lz4"}]"#, m, "filters[0].elementsize"),
        ("filters", r#"[{"id": "hdf5_bitshuffle", "elementsize": 2, "cname": "lzf"}]"#, m, "filters[0].cname"),
        ("filters", r#"[{"id": "crc32", "location": "middle"}]"#, m, "filters[0].location"),
        ("filters", r#"[{"id": "jenkins_lookup3", "prefix": [1]}]"#, u, "filters[0].prefix"),
        ("filters", r#"[{"id": "pickle"}]"#, u, "filter `pickle`"),
        ("filters", "[{}]", m, "filters[0].id: missing"),
        ("filters", "{}", m, "filters: expected a list"),
        ("dimension_separator", "\"//\"", m, "dimension_separator"),
    ];
    for (member, text, class, part) in table {
        assert_error(v2(&[(member, text)]), class, part);
    }
    let pickled = v2(&[("dtype", "\"|O\""), ("filters", r#"[{"id": "pickle"}]"#)]);
    assert_error(pickled, u, "filter `pickle`");
    for (dtype, fill) in [
        ("|S2", "\"YWJj\""),
        ("|S2", "\"?\""),
        ("|S2", "\"YW\""),
        ("|S3", "\"YWJ=\""),
        ("<U1", "\"ab\""),
        ("<M8[s]", "\"now\""),
    ] {
        let result = v2(&[("dtype", &format!("\"{dtype}\"")), ("fill_value", fill)]);
        assert_error(result, m, "fill_value");
    }
}
