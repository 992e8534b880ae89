//! Zarr and N5 documents: a row for every rule, a naive walk of the codec list as oracle of the resolved layout,
//! and mutated documents, which must end in a value or a typed error.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod foreign;
mod grid;
mod json;
mod layout;
mod mutation;
mod n5;
mod precomputed;
mod types;
mod v2;
mod v3;

use voxfetch_core::error::Result;
use voxfetch_core::metadata::ArrayMeta;
use voxfetch_core::metadata::zarr::{parse_v2, parse_v3};

/// Members of a document and their JSON text.
type Members<'a> = &'a [(&'a str, &'a str)];

const V3: Members = &[
    ("zarr_format", "3"),
    ("node_type", r#""array""#),
    ("shape", "[10, 7]"),
    ("data_type", r#""uint16""#),
    ("chunk_grid", r#"{"name": "regular", "configuration": {"chunk_shape": [4, 6]}}"#),
    ("chunk_key_encoding", r#"{"name": "default", "configuration": {"separator": "/"}}"#),
    ("fill_value", "0"),
    ("codecs", r#"[{"name": "bytes", "configuration": {"endian": "little"}}]"#),
];

const V2: Members = &[
    ("zarr_format", "2"),
    ("shape", "[10, 7]"),
    ("chunks", "[4, 6]"),
    ("dtype", r#""<u2""#),
    ("compressor", "null"),
    ("fill_value", "0"),
    ("order", r#""C""#),
    ("filters", "null"),
];

/// The document of `base` with members replaced, added, or (empty text) removed.
fn document(base: Members, changes: Members) -> String {
    let changed = |name: &str| changes.iter().any(|(other, _)| *other == name);
    let members = base.iter().filter(|(name, _)| !changed(name)).chain(changes).filter(|(_, text)| !text.is_empty());
    let members: Vec<String> = members.map(|(name, text)| format!("\"{name}\": {text}")).collect();
    format!("{{{}}}", members.join(", "))
}

fn v3(changes: Members) -> Result<ArrayMeta> {
    parse_v3(document(V3, changes).as_bytes())
}

fn v2(changes: Members) -> Result<ArrayMeta> {
    parse_v2(document(V2, changes).as_bytes(), None)
}

#[track_caller]
fn assert_error<T: std::fmt::Debug>(result: Result<T>, class: &str, part: &str) {
    let error = result.expect_err(&format!("should be {class}: {part}"));
    let message = error.to_string();
    assert_eq!(error.kind().class_name(), class, "{message}");
    assert!(message.contains(part), "{message:?} does not contain {part:?}");
    assert!(message.len() < 500, "a message of {} bytes", message.len());
}

fn shards(configuration: &str) -> String {
    format!(r#"[{{"name": "sharding_indexed", "configuration": {configuration}}}]"#)
}

const INDEX: &str = r#"[{"name": "bytes", "configuration": {"endian": "little"}}, "crc32c"]"#;
