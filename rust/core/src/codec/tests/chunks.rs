//! Chunks by foreign encoders that know what they encode, from tests/data/chunks.jsonl: decoded they are what was encoded;
//! truncated, changed or asked for in another size they are an error or at least no panic.

use serde_json::Value;

use super::super::deflate::Container;
use super::super::*;
use crate::dtype::swap_bytes_in_place;
use crate::error::ErrorKind;

/// x, y, z, channel in voxels.
type Extent = [usize; 4];

struct Chunk {
    what: String,
    extent: Extent,
    item_size: usize,
    /// x, y, z in voxels; 0 where the codec has none.
    block: [usize; 3],
    encoded: Vec<u8>,
    decoded: Vec<u8>,
}

fn chunks(codec: &str) -> Vec<Chunk> {
    let lines = include_str!("../../../tests/data/chunks.jsonl").lines().skip(1);
    let records = lines.map(|line| serde_json::from_str(line).unwrap());
    records.filter(|record: &Value| record["codec"] == codec).map(|record| chunk(&record)).collect()
}

fn chunk(record: &Value) -> Chunk {
    let numbers = |key: &str| -> Vec<usize> {
        let numbers = record[key].as_array().map(Vec::as_slice).unwrap_or_default();
        numbers.iter().map(|number| number.as_u64().unwrap() as usize).collect()
    };
    let hex = |key: &str| -> Option<Vec<u8>> {
        let hex = record[key].as_str()?;
        Some((0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect())
    };
    let (kind, extent) = (record["kind"].as_str().unwrap(), numbers("extent").try_into().unwrap());
    let item_size = record["item_size"].as_u64().unwrap() as usize;
    Chunk {
        what: format!("{} {extent:?} {item_size} {kind} {}", record["what"], record["block"]),
        extent,
        item_size,
        block: numbers("block").try_into().unwrap_or_default(),
        encoded: hex("hex").unwrap(),
        decoded: hex("decoded").unwrap_or_else(|| voxels(kind, extent, item_size)),
    }
}

/// The formulas are those of tests/data/chunks.py.
fn voxels(kind: &str, extent: Extent, item_size: usize) -> Vec<u8> {
    let [nx, ny, nz, nc] = extent.map(|n| n as u64);
    let mut out = Vec::new();
    for index in 0..nx * ny * nz * nc {
        let (x, y, z, c) = (index % nx, index / nx % ny, index / nx / ny % nz, index / nx / ny / nz);
        let hash = (x * 7 + y * 1300 + z * 31_000 + c) * 2_654_435_761 % (1 << 32) / 256;
        let slope = (3 * x + 5 * y + 2 * z + 60 * c) % 510;
        let number = match kind {
            "bodies" => ((x + y / 2) / 6 + 10 * ((y + 2 * z) / 7) + 100 * c) * 0x1_0001_0101 + 3,
            "noise" => hash,
            "one" => 7,
            "top" => 255 - hash % 8,
            "image" => slope.min(510 - slope) * if item_size == 1 { 1 } else { 257 },
            other => panic!("{other}"),
        };
        let mut stored = number.to_le_bytes()[..item_size].to_vec();
        if Endian::NATIVE == Endian::Big {
            stored.reverse();
        }
        out.extend(stored);
    }
    out
}

/// Decodes a chunk as it is, cut short, and with bits changed. `tolerance`: how far a byte may be off. `is_checked`: a
/// change is noticed.
fn check(chunk: &Chunk, tolerance: u8, is_checked: bool, decode: impl Fn(&[u8], &mut [u8]) -> Result<()>) {
    let Chunk { what, encoded, decoded, .. } = chunk;
    let mut out = vec![0xa5; decoded.len()];
    decode(encoded, &mut out).unwrap_or_else(|error| panic!("{what}: {error}"));
    let near = |(a, b): (&u8, &u8)| a.abs_diff(*b) <= tolerance;
    assert!(out.iter().zip(decoded).all(near), "{what}: other voxels");

    let step = 1 + encoded.len() / 2000;
    for len in (0..encoded.len()).step_by(step).chain(encoded.len().saturating_sub(40)..encoded.len()) {
        let refused = decode(&encoded[..len], &mut out).expect_err(&format!("{what}: {len} of {}", encoded.len()));
        let is_typed = matches!(refused.kind(), ErrorKind::Codec { .. } | ErrorKind::Checksum { .. });
        assert!(is_typed, "{what} {len}: {refused}");
    }
    let mut changed = encoded.clone();
    for at in (0..encoded.len()).step_by(step) {
        let bit = 1 << (at / step % 8);
        changed[at] ^= bit;
        out.fill(0xa5);
        let decoded_anyway = decode(&changed, &mut out).is_ok();
        assert!(!(is_checked && decoded_anyway) || out == *decoded, "{what}: byte {at}, bits {bit:#x}");
        changed[at] ^= bit;
    }
}

/// Other extents than the chunk has.
fn other_extents([x, y, z, c]: Extent) -> [Extent; 4] {
    [[x + 1, y, z, c], [x, y + 1, z, c], [x, y, z + 1, c], [x, y, z, c + 1]]
}

fn nbytes(extent: Extent, item_size: usize) -> usize {
    extent.iter().product::<usize>() * item_size
}

#[test]
fn compressed_segmentation_decodes() {
    let chunks = chunks("compressed_segmentation");
    assert_eq!(chunks.len(), 34);
    for chunk in &chunks {
        check(chunk, 0, false, |encoded, out| {
            compressed_segmentation::decode(encoded, chunk.extent, chunk.block, chunk.item_size, out)
        });
    }
}

#[test]
fn compresso_decodes() {
    let chunks = chunks("compresso");
    assert_eq!(chunks.len(), 91);
    for chunk in &chunks {
        check(chunk, 0, false, |encoded, out| compresso::decode(encoded, chunk.extent, chunk.item_size, out));
        for extent in other_extents(chunk.extent) {
            let mut out = vec![0; nbytes(extent, chunk.item_size)];
            compresso::decode(&chunk.encoded, extent, chunk.item_size, &mut out).unwrap_err();
        }
        let mut out = vec![0; 2 * chunk.decoded.len()];
        compresso::decode(&chunk.encoded, chunk.extent, 2 * chunk.item_size, &mut out).unwrap_err();
    }
}

#[test]
fn png_decodes() {
    let chunks = chunks("png");
    assert_eq!(chunks.len(), 29);
    for chunk in &chunks {
        check(chunk, 0, true, |encoded, out| image::png::decode(encoded, chunk.extent, chunk.item_size, out));
        for extent in other_extents(chunk.extent) {
            let mut out = vec![0; nbytes(extent, chunk.item_size)];
            image::png::decode(&chunk.encoded, extent, chunk.item_size, &mut out).unwrap_err();
        }
        let mut out = vec![0; 2 * chunk.decoded.len()];
        image::png::decode(&chunk.encoded, chunk.extent, 2 * chunk.item_size, &mut out).unwrap_err();
    }
}

/// Other decoders may differ by 1 from libjpeg-turbo: the standard leaves the rounding of the transform open.
#[test]
fn jpeg_decodes() {
    let chunks = chunks("jpeg");
    assert_eq!(chunks.len(), 36);
    for chunk in &chunks {
        check(chunk, 1, false, |encoded, out| image::jpeg::decode(encoded, chunk.extent, out));
        for extent in other_extents(chunk.extent) {
            let mut out = vec![0; nbytes(extent, 1)];
            image::jpeg::decode(&chunk.encoded, extent, &mut out).unwrap_err();
        }
    }
}

/// An image that ends in the middle of its pixels may be taken for whole, but all of the output is of this image.
#[test]
fn a_jpeg_that_ends_early_leaves_nothing_of_what_was_there() {
    for chunk in chunks("jpeg") {
        let decode = |encoded: &[u8], before: u8| {
            let mut out = vec![before; chunk.decoded.len()];
            image::jpeg::decode(encoded, chunk.extent, &mut out).map(|()| out)
        };
        let scan = chunk.encoded.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
        for len in (scan + 14..chunk.encoded.len() - 2).step_by(7) {
            let early = [&chunk.encoded[..len], &[0xff, 0xd9]].concat();
            assert_eq!(decode(&early, 0xa5), decode(&early, 0x5a), "{} {len}", chunk.what);
            if !chunk.what.contains("progressive") {
                // A comment, another scan.
                let comment = [&chunk.encoded[..len], &[0xff, 0xfe, 0, 2, 0xff, 0xd9]].concat();
                decode(&comment, 0).unwrap_err();
                let again = [&chunk.encoded[..len], &chunk.encoded[scan..]].concat();
                decode(&again, 0).unwrap_err();
            }
        }
    }
}

#[test]
fn streams_decode() {
    type Exact = fn(&[u8], &mut [u8]) -> Result<()>;
    type Bounded = fn(&[u8], u64, &mut Vec<u8>) -> Result<()>;
    let codecs: [(&str, usize, Exact, Bounded); 2] = [
        ("xz", 17, xz::decode_exact, xz::decode_bounded),
        ("lz4_java", 12, lz4_java::decode_exact, lz4_java::decode_bounded),
    ];
    for (codec, count, exact, bounded) in codecs {
        let chunks = chunks(codec);
        assert_eq!(chunks.len(), count, "{codec}");
        for chunk in &chunks {
            let (what, nbytes) = (&chunk.what, chunk.decoded.len());
            check(chunk, 0, !what.contains("check 0"), exact);
            check(chunk, 0, !what.contains("check 0"), |encoded, out| {
                let mut vec = b"before".to_vec();
                bounded(encoded, nbytes as u64, &mut vec)?;
                sink::check_len("test", vec.len(), out.len())?;
                out.copy_from_slice(&vec);
                Ok(())
            });
            bounded(&chunk.encoded, nbytes as u64 - 1, &mut Vec::new()).unwrap_err();
            exact(&chunk.encoded, &mut vec![0; nbytes - 1]).unwrap_err();
            exact(&chunk.encoded, &mut vec![0; nbytes + 1]).unwrap_err();
            for extra in [1, 3, 5] {
                let longer = [chunk.encoded.as_slice(), &vec![0; extra]].concat();
                exact(&longer, &mut vec![0; nbytes]).unwrap_err();
                bounded(&longer, nbytes as u64, &mut Vec::new()).unwrap_err();
            }
        }
        exact(&[], &mut []).unwrap_err();
    }
}

#[test]
fn filters_and_checks_of_xz_that_are_not_read_are_named() {
    let chunks = chunks("xz_unsupported");
    assert_eq!(chunks.len(), 2);
    for chunk in &chunks {
        let refused = xz::decode_exact(&chunk.encoded, &mut vec![0; chunk.decoded.len()]).unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::Unsupported { .. }), "{}: {refused}", chunk.what);
    }
}

/// Neurons of mouse cortex, as cloud-volume stores them; what compresso makes of it is known by its CRC-32.
#[test]
fn real_labels_of_compresso_decode() {
    let stored =
        include_bytes!("../../../../../tests/data/precomputed/cloud-volume/pinky40/16_16_40/256-512_0-256_64-128.gz");
    let mut encoded = Vec::new();
    DeflateContext::default().decode_bounded(Container::Gzip, stored, 1 << 20, &mut encoded).unwrap();
    let mut out = vec![0; 256 * 256 * 64 * 4];
    compresso::decode(&encoded, [256, 256, 64, 1], 4, &mut out).unwrap();
    swap_bytes_in_place(&mut out, if Endian::NATIVE == Endian::Big { 4 } else { 1 });
    assert_eq!(libdeflater::crc32(&out), 0xe37d_fe1d);
}
