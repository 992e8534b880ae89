//! Bytes that other people's encoders wrote, decoded: every encoded file under tests/data/numcodecs of the codecs that
//! a chain knows, and every C-Blosc blob under tests/data/c-blosc. Counts are asserted, so that a file that is not
//! found fails too.
#![expect(clippy::disallowed_methods, reason = "fixtures are read from disk; the core itself does no I/O")]
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use voxfetch_core::codec::{BlockTable, CodecChain, CodecContext, Verify};
use voxfetch_core::dtype::{DataType, Endian};
use voxfetch_core::metadata::{BloscShuffle, BloscSpec, ChecksumKind, ChecksumSpec, CodecSpec};

fn data(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(folder)
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// The elements of a .npy file, in the file's order (C or Fortran: codecs see memory order).
fn npy_payload(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[..6], b"\x93NUMPY");
    let header_end = match bytes[6] {
        1 => 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]])),
        _ => 12 + u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize,
    };
    bytes[header_end..].to_vec()
}

fn blosc() -> CodecSpec {
    // A Blosc chunk describes itself, these settings are for encoders.
    CodecSpec::Blosc(BloscSpec {
        cname: "lz4".into(),
        clevel: 5,
        shuffle: BloscShuffle::Byte,
        typesize: 1,
        blocksize: 0,
    })
}

fn chain(codec: &CodecSpec, nbytes: usize) -> CodecChain {
    CodecChain::new(std::slice::from_ref(codec), Endian::NATIVE, &DataType::UInt(1), nbytes).unwrap()
}

/// Decodes with and without knowing the size, whole and in parts, and refuses one byte more and one less.
fn check(context: &mut CodecContext, codec: &CodecSpec, encoded: &[u8], expected: &[u8], what: &str) {
    let mut out = vec![0xa5; expected.len()];
    chain(codec, expected.len()).decode_into(context, encoded, Verify::Full, &mut out).expect(what);
    assert!(out == expected, "{what}: other bytes");
    let at = |part: usize| expected.len() * part / 16;
    for window in [0..1, 0..at(2), at(1)..at(8), at(9)..at(10), at(11)..at(16), at(16) - 1..at(16), at(5)..at(5)] {
        out.fill(0xa5);
        chain(codec, expected.len())
            .decode_window(context, encoded, Verify::Full, window.clone(), &mut out)
            .expect(what);
        assert!(out[window.clone()] == expected[window.clone()], "{what}: other bytes in {window:?}");
    }
    if matches!(codec, CodecSpec::Blosc(_)) {
        check_blocks(context, encoded, expected, what);
    }
    let outer = CodecChain::outer(std::slice::from_ref(codec)).unwrap();
    assert!(
        outer.decode_to_vec(context, encoded, Verify::Full, expected.len() as u64).expect(what) == expected,
        "{what}"
    );
    assert!(outer.decode_to_vec(context, encoded, Verify::Full, expected.len() as u64 - 1).is_err(), "{what}: limit");
    for nbytes in [expected.len() - 1, expected.len() + 1] {
        let mut out = vec![0xa5; nbytes];
        assert!(
            chain(codec, nbytes).decode_into(context, encoded, Verify::Full, &mut out).is_err(),
            "{what}: {nbytes}"
        );
    }
    let longer = [encoded, b"x"].concat();
    assert!(chain(codec, expected.len()).decode_into(context, &longer, Verify::Full, &mut out).is_err(), "{what}");
}

/// Decodes parts from nothing but the range that the block table names for them.
fn check_blocks(context: &mut CodecContext, encoded: &[u8], expected: &[u8], what: &str) {
    let table = BlockTable::parse(encoded).expect(what).expect(what);
    assert_eq!((table.nbytes(), table.cbytes()), (expected.len(), encoded.len() as u64), "{what}");
    let mut out = vec![0xa5; expected.len()];
    let step = expected.len() / 16 + 1;
    for start in (0..expected.len()).step_by(step) {
        for end in (start + 1..=expected.len()).step_by(3 * step) {
            out.fill(0xa5);
            let range = table.range_of(&(start..end)).expect(what);
            let from = range.start as usize;
            let part = (&table, from, &encoded[from..range.end as usize]);
            chain(&blosc(), expected.len()).decode_blocks(context, part, start..end, &mut out).expect(what);
            assert!(out[start..end] == expected[start..end], "{what}: other bytes in {start}..{end}");
        }
    }
}

#[test]
fn numcodecs_fixtures_decode() {
    let codecs: [(&str, CodecSpec, usize); 6] = [
        ("zstd", CodecSpec::Zstd { level: 0, checksum: false }, 130),
        ("gzip", CodecSpec::Gzip { level: 1 }, 78),
        ("lz4", CodecSpec::Lz4, 91),
        ("blosc", blosc(), 169),
        ("crc32c", CodecSpec::CRC32C, 13),
        ("adler32", CodecSpec::Checksum(ChecksumSpec { kind: ChecksumKind::Adler32, at_start: true }), 13),
    ];
    let fixtures = data("numcodecs");
    let mut context = CodecContext::default();
    for (name, codec, expected_files) in codecs {
        let mut files = 0;
        for folder in sorted(&fixtures.join(name)).into_iter().filter(|path| path.is_dir()) {
            for path in sorted(&folder).into_iter().filter(|path| path.extension().is_some_and(|e| e == "dat")) {
                let array =
                    path.file_name().unwrap().to_str().unwrap().replace("encoded", "array").replace("dat", "npy");
                let array = fixtures.join(name).join(array);
                check(
                    &mut context,
                    &codec,
                    &fs::read(&path).unwrap(),
                    &npy_payload(&array),
                    &path.display().to_string(),
                );
                files += 1;
            }
        }
        assert_eq!(files, expected_files, "{name}");
    }
}

#[test]
fn c_blosc_blobs_of_all_versions_decode() {
    let expected: Vec<u8> = (0..1_000_000i32).flat_map(i32::to_le_bytes).collect();
    let blobs = sorted(&data("c-blosc"));
    let blobs: Vec<_> = blobs.iter().filter(|path| path.extension().is_some_and(|e| e == "cdata")).collect();
    assert_eq!(blobs.len(), 29);
    let mut context = CodecContext::default();
    for path in blobs {
        check(&mut context, &blosc(), &fs::read(path).unwrap(), &expected, &path.display().to_string());
    }
}

/// The decoded bytes of tests/data/encoded.jsonl; the formula is that of encoded.py.
fn elements(nbytes: usize, typesize: usize) -> Vec<u8> {
    (0..nbytes)
        .map(|at| {
            let (element, byte) = (at / typesize, at % typesize);
            let step = (element / 9) as u32;
            let number = step * step / 5 + ((step % 3) << 20) + u32::from(element % 9 == 4);
            number.to_le_bytes()[byte % 4]
        })
        .collect()
}

#[test]
fn generated_bytes_of_other_encoders_decode() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/encoded.jsonl");
    let mut context = CodecContext::default();
    let mut records = 0;
    for line in fs::read_to_string(path).unwrap().lines().skip(1) {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        let number = |key: &str| record[key].as_u64().unwrap() as usize;
        let codec = match record["codec"].as_str().unwrap() {
            "blosc" => blosc(),
            "zlib" => CodecSpec::Zlib { level: 1 },
            "gzip" => CodecSpec::Gzip { level: 1 },
            "bz2" => CodecSpec::Bz2 { level: 1 },
            "brotli" => CodecSpec::Brotli,
            "zstd" => CodecSpec::Zstd { level: 1, checksum: false },
            other => panic!("{other}"),
        };
        let hex = record["hex"].as_str().unwrap();
        let encoded: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let expected = elements(number("nbytes"), number("typesize"));
        check(&mut context, &codec, &encoded, &expected, &format!("{} {}", record["codec"], record["what"]));
        records += 1;
    }
    assert_eq!(records, 323);
}
