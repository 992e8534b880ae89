//! Documents that are not JSON, or more of it than is allowed.

use voxfetch_core::metadata::zarr::parse_v3;

use super::{V3, assert_error, document};

#[test]
fn documents_that_are_not() {
    let (m, l) = ("MetadataError", "LimitExceededError");
    let base = document(V3, &[]);
    let deep = |name: &str, n: usize| document(V3, &[(name, &format!("{}1{}", "[".repeat(n), "]".repeat(n)))]);
    let (too_deep, far_too_deep) = (deep("extra", 64), deep("extra", 200_000));
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
    let attributes_twice = document(V3, &[("attributes", "{}"), ("attributes", "{}")]);
    let inside_with_nan = document(V3, &[("attributes", "NaN"), ("codecs", r#"[{"name": "bytes", "name": "zstd"}]"#)]);
    #[rustfmt::skip]
    let table: &[(&[u8], &str, &str)] = &[
        (b"", m, "unreadable JSON: EOF while parsing a value at line 1 column 0"),
        (b"[]", m, "expected a JSON object"),
        (b"null", m, "expected a JSON object"),
        (b"{", m, "EOF"),
        (b"{}", m, "zarr_format: missing"),
        (b"{} {}", m, "trailing characters at line 1 column 4"),
        (b"\xef\xbb\xbf{}", m, "expected value at line 1 column 1"),
        (b"{\"zarr_format\": 3, \"x\": \"\xff\"}", m, "byte 25: the document is not UTF-8"),
        (b"{\"a\": 01}", m, "invalid number"),
        (b"{\"a\": 1.}", m, "invalid number"),
        (b"{\"a\": -}", m, "invalid number"),
        (b"{\"a\": \"\\x\"}", m, "invalid escape"),
        (b"{\"a\": \"\\u12\"}", m, "invalid escape"),
        (b"{\"a\": \"\\ud800\"}", m, "hex escape"),
        (b"{\"a\": \"\n\"}", m, "control character"),
        (b"{'a': 1}", m, "key must be a string"),
        (b"{\"a\": 1,}", m, "trailing comma"),
        (b"{\"attributes\": [1,]}", m, "unreadable JSON: expected value"),
        (b"{\"attributes\": \"\t\"}", m, "control character"),
        (b"{\"attributes\": nan}", m, "expected ident"),
        (b"{\n\"a\": NaN,\n\"b\": ?}", m, "unreadable JSON: expected value at line 3 column 6"),
        (&base.as_bytes()[..base.len() - 1], m, "EOF while parsing an object"),
        (twice.as_bytes(), m, "repeats the name \"shape\" at line 1"),
        (escaped.as_bytes(), m, "repeats the name \"shape\""),
        (inside.as_bytes(), m, "repeats the name \"name\""),
        (inside_with_nan.as_bytes(), m, "repeats the name \"name\""),
        (attributes_twice.as_bytes(), m, "repeats the name \"attributes\""),
        (repeats.as_bytes(), m, "repeats the name"),
        (long_name.as_bytes(), m, "zarr_format: missing"),
        (big_number.as_bytes(), m, "number out of range"),
        (big_name.as_bytes(), m, "data_type: expected a short string"),
        (long.as_bytes(), l, "bytes of a metadata document"),
        (wide.as_bytes(), l, "JSON values in a metadata document: needs 262145, the limit is 262144"),
        (too_deep.as_bytes(), l, "nesting of a metadata document: needs 65, the limit is 64"),
        (far_too_deep.as_bytes(), l, "nesting of a metadata document"),
    ];
    for (text, class, part) in table {
        assert_error(parse_v3(text), class, part);
    }
    assert_error(parse_v3(deep("extra", 63).as_bytes()), "UnsupportedError", "metadata field `extra`");
    // What nobody interprets costs no memory and no stack, so it may be as wide and deep as it likes.
    parse_v3(deep("attributes", 200_000).as_bytes()).unwrap();
    parse_v3(wide_attributes.as_bytes()).unwrap();
    parse_v3(format!("\n\t {base} \r\n").as_bytes()).unwrap();
}

/// Documents close to the size limit, of the smallest values that cost the most.
#[test]
#[expect(clippy::disallowed_types, reason = "measures that no document takes long")]
fn large_documents_are_refused_quickly() {
    for piece in [r#"{"":0},"#, "[[]],", "\"\",", "NaN,", r#""\\\"","#, "-Infinity,\"NaN\",", "1e9,"] {
        let text = format!("{{\"extra\": [{}0]}}", piece.repeat((16 << 20) / piece.len() - 16));
        let start = std::time::Instant::now();
        assert_error(parse_v3(text.as_bytes()), "LimitExceededError", "JSON values");
        let attributes = text.replacen("extra", "attributes", 1);
        assert_error(parse_v3(attributes.as_bytes()), "MetadataError", "zarr_format: missing");
        assert!(start.elapsed().as_secs() < 5, "slow: {piece}");
    }
}
