//! Data types of version 3 beyond the core, and their fill values.

use voxfetch_core::dtype::DataType;

use super::{assert_error, v3};

fn with(name: &str, settings: &str) -> String {
    format!(r#"{{"name": "{name}", "configuration": {{{settings}}}}}"#)
}

fn record(fields: &str) -> String {
    with("struct", &format!("\"fields\": {fields}"))
}

#[test]
fn types_of_fixed_size() {
    let length = |name: &str, nbytes: u64| with(name, &format!("\"length_bytes\": {nbytes}"));
    let time =
        |name: &str, unit: &str, factor: u64| with(name, &format!("\"unit\": \"{unit}\", \"scale_factor\": {factor}"));
    let table = [
        (
            time("numpy.datetime64", "ns", 1),
            "\"NaT\"",
            DataType::DateTime("ns".into()),
            &[0, 0, 0, 0, 0, 0, 0, 0x80][..],
        ),
        (time("numpy.datetime64", "D", 7), "-1", DataType::DateTime("7D".into()), &[0xff; 8]),
        (time("numpy.timedelta64", "μs", 10), "2", DataType::TimeDelta("10us".into()), &[2, 0, 0, 0, 0, 0, 0, 0]),
        (length("raw_bytes", 2), "\"//8=\"", DataType::Raw(2), &[255, 255]),
        (length("null_terminated_bytes", 3), "\"YWI=\"", DataType::FixedBytes(3), b"ab\0"),
        (length("fixed_length_utf32", 8), "\"a\"", DataType::FixedUtf32(2), b"a\0\0\0\0\0\0\0"),
        ("\"complex_float32\"".into(), "[1, 0]", DataType::Complex(8), &[0, 0, 0x80, 0x3f, 0, 0, 0, 0]),
    ];
    for (text, fill, dtype, bytes) in table {
        let meta = v3(&[("data_type", &text), ("fill_value", fill)]).unwrap();
        assert_eq!((&meta.dtype, &*meta.fill_value), (&dtype, bytes), "{text}");
    }
}

#[test]
fn fill_values_of_narrow_numbers() {
    let table: &[(&str, &str, &[u8])] = &[
        ("int2", "-2", &[2]),
        ("int4", "-1", &[15]), // the upper bits stay clear
        ("uint4", "15.0", &[15]),
        ("bfloat16", "-1", &[0x80, 0xbf]),
        ("bfloat16", "\"NaN\"", &[0xc0, 0x7f]),
        ("bfloat16", "\"0x7fc1\"", &[0xc1, 0x7f]),
        ("float8_e5m2", "\"-Infinity\"", &[0xfc]),
        ("float8_e4m3fn", "\"NaN\"", &[0x7f]),
        ("float8_e8m0fnu", "0.5", &[126]),
        ("float6_e2m3fn", "\"0x3f\"", &[0x3f]),
        ("float4_e2m1fn", "-6", &[15]),
    ];
    for (name, fill, bytes) in table {
        let meta = v3(&[("data_type", &format!("\"{name}\"")), ("fill_value", fill)]).unwrap();
        assert_eq!((&*meta.dtype.numpy_name(), &*meta.fill_value), (*name, *bytes), "{name} {fill}");
    }
    let refused = [
        ("int4", "8"),
        ("int2", "-3"),
        ("uint2", "-1"),
        ("uint4", "\"1\""),
        ("float8_e4m3fn", "\"Infinity\""),
        ("float8_e4m3fn", "1000"),
        ("float6_e2m3fn", "\"NaN\""),
        ("float6_e2m3fn", "\"0x40\""),
        ("float8_e8m0fnu", "0"),
    ];
    for (name, fill) in refused {
        assert_error(v3(&[("data_type", &format!("\"{name}\"")), ("fill_value", fill)]), "MetadataError", "fill_value");
    }
}

#[test]
fn structs() {
    let point = record(r#"[{"name": "x", "data_type": "float32"}, {"name": "y", "data_type": "int16"}]"#);
    let dtype = record(&format!(r#"[{{"name": "p", "data_type": {point}}}, {{"name": "flag", "data_type": "bool"}}]"#));
    let fill = r#"{"flag": true, "p": {"y": -2, "x": 1}}"#;
    let meta = v3(&[("data_type", &dtype), ("fill_value", fill)]).unwrap();
    assert_eq!(meta.fill_value, [0, 0, 0x80, 0x3f, 0xfe, 0xff, 1]);
    // Pairs, and one value in base64, as zarr-python wrote them first.
    let pairs = with("structured", r#""fields": [["a", "uint16"], ["b", "int8"]]"#);
    let meta = v3(&[("data_type", &pairs), ("fill_value", "\"AQID\"")]).unwrap();
    assert_eq!(meta.fill_value, [1, 2, 3]);

    let (m, u, l) = ("MetadataError", "UnsupportedError", "LimitExceededError");
    let table: &[(&str, &str, &str)] = &[
        ("[]", m, "elements of no bytes"),
        (r#"[{"name": "x"}]"#, m, "data_type: missing"),
        (r#"[{"data_type": "bool"}]"#, m, "name: missing"),
        (r#"[{"name": "", "data_type": "bool"}]"#, m, "expected a name"),
        (r#"[{"name": "x", "data_type": "bool", "shape": [2]}]"#, m, "`shape` is not a member of a field"),
        (r#"[["x", "bool", [2]]]"#, l, "number of items"),
        (r#"[["x", "bool"], ["x", "bool"]]"#, m, "two fields have one name"),
        (r#"[["x", "string"]]"#, u, "data type `string`"),
        (r#"[["x", "r8000000"], ["y", "r8000000"]]"#, l, "bytes of one element"),
    ];
    for (fields, class, part) in table {
        assert_error(v3(&[("data_type", &record(fields)), ("fill_value", "0")]), class, part);
    }
    let table: &[(&str, &str)] = &[
        (r#"{"flag": true}"#, "fill_value.p: missing"),
        (r#"{"flag": true, "p": {"x": 1, "y": 2}, "z": 1}"#, "no field \"z\""),
        (r#"{"flag": true, "p": {"x": 1, "y": 70000}}"#, "fill_value.p.y"),
        (r#"{"flag": true, "p": [1, 2]}"#, "fill_value.p"),
        ("1", "fill_value"),
        ("\"AAAAAAAAAAAAAA==\"", "at most 7 bytes"),
    ];
    for (fill, part) in table {
        assert_error(v3(&[("data_type", &dtype), ("fill_value", fill)]), m, part);
    }
}

#[test]
fn types_are_refused_by_name() {
    let (m, u) = ("MetadataError", "UnsupportedError");
    let time = |settings: &str| with("numpy.datetime64", settings);
    let table = [
        ("\"complex_bfloat16\"".into(), u, "data type `complex_bfloat16`"),
        ("\"complex_float16\"".into(), u, "data type `complex_float16`"),
        ("\"float8\"".into(), u, "data type `float8`"),
        (with("bfloat16", "\"x\": 1"), u, "setting `x` of `bfloat16`"),
        (time("\"unit\": \"s\""), m, "scale_factor: missing"),
        (time("\"unit\": \"s\", \"scale_factor\": 0"), m, "scale_factor: expected an integer from 1"),
        (time("\"unit\": \"eon\", \"scale_factor\": 1"), m, "unit: expected a unit of time"),
        (time("\"unit\": \"generic\", \"scale_factor\": 1"), u, "without a unit"),
        (with("fixed_length_utf32", "\"length_bytes\": 6"), m, "4 bytes each"),
        (with("raw_bytes", "\"length_bytes\": 0"), m, "elements of no bytes"),
        ("\"raw_bytes\"".into(), m, "length_bytes: missing"),
        ("\"struct\"".into(), m, "fields: missing"),
    ];
    for (text, class, part) in table {
        assert_error(v3(&[("data_type", &text), ("fill_value", "0")]), class, part);
    }
}
