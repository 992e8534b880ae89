//! Codecs that are decoded outside of the core: where they may stand, and what comes of them.

use std::sync::Arc;

use voxfetch_core::codec::{CodecContext, PreparedArray, Verify};
use voxfetch_core::dtype::DataType;
use voxfetch_core::error::{Error, Result};
use voxfetch_core::metadata::foreign::{ForeignCodec, ForeignCodecs, ForeignDecode};
use voxfetch_core::metadata::limits::MAX_CHUNK_NBYTES;
use voxfetch_core::metadata::zarr::{parse_v2_with, parse_v3_with};
use voxfetch_core::metadata::{ArrayMeta, CodecSpec};

use super::{INDEX, Members, V2, V3, assert_error, document};

/// Repeats each byte as often as its configuration says.
struct Repeat(usize);

impl ForeignDecode for Repeat {
    fn decode(&self, encoded: &[u8], limit: u64) -> Result<Vec<u8>> {
        match encoded.first() {
            Some(b'!') => Err(Error::codec("elsewhere.repeat", format!("blue, up to {limit}"))),
            _ => Ok(encoded.iter().flat_map(|&byte| std::iter::repeat_n(byte, self.0)).collect()),
        }
    }
}

struct Elsewhere;

impl ForeignCodecs for Elsewhere {
    fn find(&self, name: &str, configuration: &str, objects: bool) -> Result<Option<ForeignCodec>> {
        if name == "elsewhere.refused" {
            return Err(Error::unsupported("refused", "elsewhere"));
        }
        let times = configuration.bytes().find(u8::is_ascii_digit).map_or(2, |digit| usize::from(digit - b'0'));
        Ok(name.starts_with("elsewhere.").then(|| ForeignCodec {
            name: name.into(),
            configuration: configuration.into(),
            objects,
            through: "elsewhere".into(),
            decoder: Arc::new(Repeat(times)),
        }))
    }
}

fn v3(changes: Members) -> Result<ArrayMeta> {
    parse_v3_with(document(V3, changes).as_bytes(), &Elsewhere)
}

fn v2(changes: Members) -> Result<ArrayMeta> {
    parse_v2_with(document(V2, changes).as_bytes(), None, &Elsewhere)
}

fn decoded(meta: ArrayMeta, encoded: &[u8]) -> Result<Vec<u8>> {
    let array = PreparedArray::new(meta)?;
    let mut out = vec![0; array.chunk_nbytes];
    array.chain().decode_into(&mut CodecContext::default(), encoded, Verify::Full, &mut out)?;
    Ok(out)
}

const REPEAT: &str = r#"{"name": "elsewhere.repeat", "configuration": {"times": 4}}"#;

#[test]
fn they_stand_after_bytes_or_for_bytes() {
    for codecs in [format!("[\"bytes\", {REPEAT}]"), format!("[{REPEAT}]"), format!("[{REPEAT}, \"crc32c\"]")] {
        let meta = v3(&[("codecs", &codecs), ("data_type", "\"uint8\"")]).unwrap();
        assert_eq!(meta.chunk_order, [0, 1]);
        assert!(CodecSpec::describe(&meta.codecs).contains("elsewhere.repeat (elsewhere)"));
        assert_eq!(meta.foreign_codecs().count(), 1);
        if !codecs.contains("crc32c") {
            assert_eq!(decoded(meta, b"abcdef").unwrap(), b"aaaabbbbccccddddeeeeffff");
        }
    }
    let shard = format!(
        r#"[{{"name": "sharding_indexed", "configuration": {{"chunk_shape": [2, 3], "codecs": [{REPEAT}],
            "index_codecs": {INDEX}}}}}, {REPEAT}]"#
    );
    let meta = v3(&[("codecs", &shard)]).unwrap();
    assert_eq!((meta.chunk_codecs.len(), meta.levels[0].outer.len(), meta.foreign_codecs().count()), (1, 1, 2));
    let meta = v2(&[("filters", r#"[{"id": "elsewhere.repeat"}]"#), ("compressor", r#"{"id": "elsewhere.repeat"}"#)]);
    assert_eq!(decoded(meta.unwrap(), &[7; 12]).unwrap(), [7; 48]);
}

#[test]
fn where_they_may_not_stand() {
    let (m, u) = ("MetadataError", "UnsupportedError");
    let table: [(String, &str, &str); 7] = [
        (format!("[{REPEAT}, \"bytes\"]"), u, "codecs: codec `elsewhere.repeat` before `bytes`"),
        (format!("[\"bytes\", {REPEAT}, \"bytes\"]"), u, "codecs: codec `elsewhere.repeat` before `bytes`"),
        (r#"["bytes", "gzip", "bytes"]"#.into(), m, "cannot follow"),
        (r#"["bytes", "elsewhere.refused"]"#.into(), u, "refused"),
        (r#"["bytes", "nowhere"]"#.into(), u, "codecs[1]: codec `nowhere`"),
        (r#"["nowhere"]"#.into(), u, "codecs[0]: codec `nowhere`"),
        (
            format!(
                r#"[{{"name": "sharding_indexed", "configuration": {{"chunk_shape": [2, 3], "codecs": ["bytes"],
                    "index_codecs": ["bytes", {REPEAT}]}}}}]"#
            ),
            m,
            "`elsewhere.repeat` has no fixed size",
        ),
    ];
    for (codecs, class, part) in table {
        assert_error(v3(&[("codecs", &codecs)]), class, part);
    }
    // One that need not be understood is left out only where nobody knows it.
    let optional =
        |name: &str| v3(&[("codecs", &format!(r#"["bytes", {{"name": "{name}", "must_understand": false}}]"#))]);
    assert_eq!(optional("nowhere").unwrap().foreign_codecs().count(), 0);
    assert_eq!(optional("elsewhere.repeat").unwrap().foreign_codecs().count(), 1);
    assert_error(optional("elsewhere.refused"), u, "refused");
}

#[test]
fn what_comes_back_is_checked() {
    let array = || v3(&[("codecs", &format!("[{REPEAT}]")), ("data_type", "\"uint8\"")]).unwrap();
    assert_error(decoded(array(), b"!"), "CodecError", "elsewhere.repeat: blue, up to 24");
    assert_error(decoded(array(), b"abcde"), "CodecError", "decodes to 20 bytes, expected 24");
    assert_error(decoded(array(), b"abcdefg"), "CodecError", "decodes to 28 bytes, expected 24");
    let twice = r#"["bytes", "elsewhere.repeat", {"name": "elsewhere.repeat", "configuration": {"times": 9}}]"#;
    let array = v3(&[("codecs", twice), ("data_type", "\"uint8\"")]).unwrap();
    let limit = 2 * 24 + (64 << 10);
    assert_error(decoded(array, &vec![b'a'; limit / 9 + 1]), "CodecError", &format!("more than {limit} bytes"));
}

#[test]
fn elements_of_no_fixed_size_are_numbers() {
    let objects = [("data_type", "\"string\""), ("codecs", r#"["elsewhere.repeat", "gzip"]"#), ("fill_value", "\"a\"")];
    let meta = v3(&objects).unwrap();
    assert_eq!((&meta.dtype, meta.dtype.item_size(), meta.chunk_nbytes), (&DataType::Object, 8, 4 * 6 * 8));
    assert_eq!(meta.dtype.numpy_name(), "object");
    assert_eq!(meta.fill_value, [0; 8]);
    assert!(meta.foreign_codecs().all(|codec| codec.objects));
    let array = PreparedArray::new(meta).unwrap();
    assert!(!array.has_lasting_chunks());
    // However long they are.
    assert!(array.max_chunk_nbytes() > MAX_CHUNK_NBYTES);

    let filters = [("dtype", "\"|O\""), ("filters", r#"[{"id": "elsewhere.a"}, {"id": "elsewhere.b"}]"#)];
    let meta = v2(&filters).unwrap();
    assert_eq!(meta.foreign_codecs().map(|codec| codec.objects).collect::<Vec<_>>(), [true, false]);
    let without = [("dtype", "\"|O\""), ("compressor", r#"{"id": "zlib"}"#)];
    assert_error(v2(&without), "UnsupportedError", "elements of no fixed size");
    let late = [("data_type", "\"string\""), ("codecs", r#"["bytes", "elsewhere.repeat"]"#)];
    assert_error(v3(&late), "UnsupportedError", "elements of no fixed size");
}

#[test]
fn chunks_of_other_settings_are_other_chunks() {
    let hash = |times: u32| {
        let codecs = format!(r#"[{{"name": "elsewhere.repeat", "configuration": {{"times": {times}}}}}]"#);
        PreparedArray::new(v3(&[("codecs", &codecs)]).unwrap()).unwrap().chunk_hash(&[0])
    };
    assert_eq!(hash(2), hash(2));
    assert_ne!(hash(2), hash(3));
}
