//! Documents that are not JSON, or more of it than is allowed.

use voxfetch_core::metadata::zarr::parse_v3;

use super::{V3, assert_error, document};

#[test]
fn documents_that_are_not() {
    let (m, l) = ("MetadataError", "LimitExceededError");
    let base = document(V3, &[]);
    let deep = |n: usize| document(V3, &[("attributes", &format!("{}1{}", "[".repeat(n), "]".repeat(n)))]);
    let (too_deep, far_too_deep) = (deep(64), deep(200_000));
    let wide = document(V3, &[("extra", &format!("[{}0]", "0,".repeat(1 << 19)))]);
    let wide_attributes = document(V3, &[("attributes", &format!("[{}0]", "0,".repeat(1 << 19)))]);
    let long = document(V3, &[("attributes", &format!("\"{}\"", "x".repeat(16 << 20)))]);
    let long_name = format!("{{\"{}\": 1}}", "x".repeat(1 << 20));
    let repeats = format!("{{\"{0}\": 1, \"{0}\": 1}}", "x".repeat(1 << 20));
    let big_number = document(V3, &[("fill_value", &"1".repeat(1 << 20))]);
    let big_name = document(V3, &[("data_type", &format!("\"{}\"", "x".repeat(1 << 20)))]);
    let twice = base.replacen('{', r#"{"shape": [1], "#, 1);
    let escaped = base.replacen('{', r#"{"\u0073hape": [1], "#, 1);
    let inside = document(V3, &[("codecs", r#"[{"name": "bytes", "name": "zstd"}]"#)]);
    #[rustfmt::skip]
    let table: &[(&[u8], &str, &str)] = &[
        (b"", m, "expected a JSON object"),
        (b"[]", m, "expected a JSON object"),
        (b"null", m, "expected a JSON object"),
        (b"{", m, "byte 1"),
        (b"{}", m, "zarr_format: missing"),
        (b"{} {}", m, "text after the end"),
        (b"\xef\xbb\xbf{}", m, "expected a JSON object"),
        (b"{\"zarr_format\": 3, \"x\": \"\xff\"}", m, "byte 25: the document is not UTF-8"),
        (b"{\"a\": 01}", m, "malformed number"),
        (b"{\"a\": 1.}", m, "malformed number"),
        (b"{\"a\": -}", m, "malformed number"),
        (b"{\"a\": \"\\x\"}", m, "unknown escape"),
        (b"{\"a\": \"\\u12\"}", m, "hexadecimal"),
        (b"{\"a\": \"\n\"}", m, "control character"),
        (b"{'a': 1}", m, "expected a quoted name"),
        (b"{\"a\": 1,}", m, "expected a quoted name"),
        (&base.as_bytes()[..base.len() - 1], m, "expected `,` or `}`"),
        (twice.as_bytes(), m, "repeats the name \"shape\""),
        (escaped.as_bytes(), m, "repeats the name \"shape\""),
        (inside.as_bytes(), m, "repeats the name \"name\""),
        (repeats.as_bytes(), m, "repeats the name"),
        (long_name.as_bytes(), m, "zarr_format: missing"),
        (big_number.as_bytes(), m, "fill_value"),
        (big_name.as_bytes(), m, "data_type: expected a short string"),
        (long.as_bytes(), l, "bytes of a metadata document"),
        (wide.as_bytes(), l, "JSON values in a metadata document"),
        (too_deep.as_bytes(), l, "nesting of a metadata document: needs 65, the limit is 64"),
        (far_too_deep.as_bytes(), l, "nesting of a metadata document"),
    ];
    for (text, class, part) in table {
        assert_error(parse_v3(text), class, part);
    }
    parse_v3(deep(63).as_bytes()).unwrap();
    parse_v3(wide_attributes.as_bytes()).unwrap();
    parse_v3(format!("\n\t {base} \r\n").as_bytes()).unwrap();
}
