//! Properties of whole chains: round trips, and foreign bytes that end in an error or in the right elements.

mod chunks;
mod hdf5;
mod window;

use proptest::prelude::*;

use super::*;
use crate::dtype::{Field, Record};
use crate::error::ErrorKind;
use crate::metadata::{BloscShuffle, BloscSpec, ChecksumKind, ChecksumSpec};

const ZSTD: CodecSpec = CodecSpec::Zstd { level: 1, checksum: false };
const ZSTD_CHECKED: CodecSpec = CodecSpec::Zstd { level: 3, checksum: true };
const GZIP: CodecSpec = CodecSpec::Gzip { level: -1 };
const ZLIB: CodecSpec = CodecSpec::Zlib { level: 9 };
const BZ2: CodecSpec = CodecSpec::Bz2 { level: 1 };
const CRC32C: CodecSpec = CodecSpec::CRC32C;
use CodecSpec::Lz4;

fn blosc() -> CodecSpec {
    let (cname, shuffle) = ("lz4".to_owned(), BloscShuffle::Byte);
    CodecSpec::Blosc(BloscSpec { cname, clevel: 5, shuffle, typesize: 2, blocksize: 0 })
}

fn checksum(kind: ChecksumKind, at_start: bool) -> CodecSpec {
    CodecSpec::Checksum(ChecksumSpec { kind, at_start })
}

/// Chains in encoding order, and whether a checksum guards all their elements.
fn chains() -> Vec<(Vec<CodecSpec>, bool)> {
    vec![
        (vec![], false),
        (vec![CRC32C], true),
        (vec![CRC32C, CRC32C], true),
        (vec![checksum(ChecksumKind::Crc32, true)], true),
        (vec![checksum(ChecksumKind::Adler32, true), checksum(ChecksumKind::Fletcher32, false)], true),
        (vec![checksum(ChecksumKind::JenkinsLookup3 { initval: 3 }, false)], true),
        (vec![checksum(ChecksumKind::Adler32, false), ZSTD, checksum(ChecksumKind::Fletcher32, true)], true),
        (vec![ZSTD], false),
        (vec![ZSTD_CHECKED], true),
        (vec![ZSTD, CRC32C], true),
        (vec![GZIP], true),
        (vec![CodecSpec::Gzip { level: 0 }], true),
        (vec![ZLIB], true),
        (vec![Lz4], false),
        (vec![Lz4, CRC32C], true),
        (vec![BZ2], true),
        (vec![CRC32C, GZIP], true),
        (vec![ZSTD, GZIP], true),
        (vec![ZSTD, CRC32C, GZIP, CRC32C], true),
        (vec![CRC32C, Lz4, BZ2, ZSTD_CHECKED], true),
        (vec![GZIP, Lz4, CRC32C, ZLIB], true),
    ]
}

fn u16_chain(specs: &[CodecSpec], nbytes: usize) -> CodecChain {
    CodecChain::new(specs, Endian::Little, &DataType::UInt(2), nbytes).unwrap()
}

fn encode(chain: &CodecChain, elements: &[u8]) -> Vec<u8> {
    let mut out = b"before".to_vec();
    chain.encode(&mut CodecContext::default(), elements, &mut out).unwrap();
    out.split_off(6)
}

/// Elements as images have them: neighbours alike, some noise.
fn some_elements(nbytes: usize) -> Vec<u8> {
    (0..nbytes as u32)
        .map(|i| if i % 2 == 0 { (i / 16 + (i.wrapping_mul(2_654_435_761) >> 30)) as u8 } else { 3 })
        .collect()
}

/// Fields of 8 bytes, of which 6 know a byte order.
fn record() -> DataType {
    let field = |dtype, shape: &[u64]| Field { name: String::new(), dtype, shape: shape.to_vec(), endian: None };
    DataType::Record(Record::new(vec![
        field(DataType::UInt(1), &[]),
        field(DataType::Float(2), &[3]),
        field(DataType::FixedBytes(1), &[]),
    ]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn chains_give_back_what_they_encode(
        units in proptest::collection::vec(any::<[u8; 16]>(), 1..200),
        repeat in 1..40usize,
        big in any::<bool>(),
        dtype in prop_oneof![
            Just(DataType::Bool), Just(DataType::UInt(2)), Just(DataType::Float(4)), Just(DataType::Int(8)),
            Just(DataType::Complex(8)), Just(DataType::Complex(16)), Just(DataType::FixedUtf32(2)), Just(DataType::Raw(16)),
            Just(record()),
        ],
    ) {
        let elements = units.concat().repeat(repeat);
        let mut context = CodecContext::default();
        let endian = if big { Endian::Big } else { Endian::Little };
        for (specs, _) in chains() {
            let chain = CodecChain::new(&specs, endian, &dtype, elements.len()).unwrap();
            let encoded = encode(&chain, &elements);
            prop_assert!(encoded.len() as u64 <= chain.max_encoded_nbytes());
            if let Some(nbytes) = chain.fixed_encoded_nbytes() {
                prop_assert_eq!(encoded.len() as u64, nbytes);
                prop_assert_eq!(nbytes, chain.max_encoded_nbytes());
            }
            let mut out = vec![0xa5; elements.len()];
            for verify in [Verify::Full, Verify::Cheap] {
                out.fill(0xa5);
                chain.decode_into(&mut context, &encoded, verify, &mut out).unwrap();
                prop_assert!(out == elements);
                prop_assert!(chain.decode_to_vec(&mut context, &encoded, verify, elements.len() as u64).unwrap() == elements);
                let fixed = chain.fixed_encoded_nbytes().is_some();
                let native = Conversion::new(&dtype, endian).is_none();
                let view = chain.view(&encoded, verify).unwrap();
                prop_assert_eq!(view.is_some(), fixed && native);
                prop_assert!(view.is_none_or(|view| view == elements));
            }
            prop_assert!(chain.decode_to_vec(&mut context, &encoded, Verify::Full, elements.len() as u64 - 1).is_err());
        }
    }

    #[test]
    fn random_bytes_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        prefix in prop_oneof![
            Just(vec![]),
            Just(vec![0x28, 0xb5, 0x2f, 0xfd]),
            Just(vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]),
            Just(vec![0x78, 0x9c]),
            Just(b"BZh1\x31\x41\x59\x26\x53\x59".to_vec()),
            Just(vec![64, 0, 0, 0]),
            Just(vec![0, 0, 0, 0, 0, 0, 0, 64, 0, 0, 0, 16]),
            Just(vec![0x5d, 0, 0, 1, 0, 64, 0, 0, 0, 0, 0, 0, 0]),
        ],
    ) {
        let encoded = [prefix, bytes].concat();
        let mut context = CodecContext::default();
        let mut out = vec![0; 64];
        let shuffle = CodecSpec::Shuffle { elementsize: 5 };
        for codec in [ZSTD, GZIP, ZLIB, Lz4, BZ2, blosc(), CRC32C, shuffle].into_iter().chain(hdf5::framed()) {
            let _ = u16_chain(std::slice::from_ref(&codec), 64).decode_into(&mut context, &encoded, Verify::Full, &mut out);
            let vec = CodecChain::outer(&[codec]).unwrap().decode_to_vec(&mut context, &encoded, Verify::Cheap, 64);
            prop_assert!(vec.is_err() || vec.is_ok_and(|vec| vec.len() <= 64));
        }
        let _ = blosclz::decode_exact(&encoded, &mut out);
        let _ = lz4::decode_raw_exact(&encoded, &mut out);
    }

    #[test]
    fn random_blosc_chunks_never_panic(
        flags in any::<u8>(),
        typesize in prop_oneof![Just(1u8), Just(2), Just(8), any::<u8>()],
        nbytes in 0..600i32,
        blocksize in prop_oneof![0..600i32, any::<i32>()],
        starts in proptest::collection::vec(prop_oneof![0..200i32, any::<i32>()], 0..5),
        streams in proptest::collection::vec((prop_oneof![0..100i32, any::<i32>()], proptest::collection::vec(any::<u8>(), 0..60)), 0..6),
    ) {
        let mut chunk = vec![2, 1, flags, typesize];
        let blocks: Vec<u8> = starts.iter().flat_map(|start| start.to_le_bytes())
            .chain(streams.into_iter().flat_map(|(size, bytes)| [&size.to_le_bytes()[..], &bytes].concat())).collect();
        for size in [nbytes, blocksize, 16 + blocks.len() as i32] {
            chunk.extend_from_slice(&size.to_le_bytes());
        }
        chunk.extend_from_slice(&blocks);
        let mut out = vec![0; nbytes as usize];
        if let Ok(parsed) = BloscChunk::parse(&chunk) {
            let _ = parsed.decode(&mut CodecContext::default(), &mut out);
        }
    }
}

#[test]
fn truncated_bytes_are_refused() {
    let elements = some_elements(600);
    let mut context = CodecContext::default();
    let mut out = vec![0; elements.len()];
    for (specs, _) in chains() {
        let chain = u16_chain(&specs, elements.len());
        let encoded = encode(&chain, &elements);
        for len in 0..encoded.len() {
            let refused = chain.decode_into(&mut context, &encoded[..len], Verify::Full, &mut out).unwrap_err();
            assert!(matches!(refused.kind(), ErrorKind::Codec { .. } | ErrorKind::Checksum { .. }), "{specs:?} {len}");
            // Without a size to compare with, an LZ4 block may end after any sequence, and elements anywhere.
            if !specs.is_empty() {
                let limit = elements.len() as u64;
                assert!(chain.decode_to_vec(&mut context, &encoded[..len], Verify::Full, limit).is_err());
            }
        }
    }
}

#[test]
fn appended_bytes_are_refused() {
    let elements = some_elements(600);
    let mut context = CodecContext::default();
    let mut out = vec![0; elements.len()];
    for (specs, _) in chains() {
        let chain = u16_chain(&specs, elements.len());
        let encoded = encode(&chain, &elements);
        for extra in 1..=64 {
            for byte in [0, 0x5a, 0xff] {
                let longer = [encoded.as_slice(), &vec![byte; extra]].concat();
                let decoded = chain.decode_into(&mut context, &longer, Verify::Full, &mut out);
                // One token without literals and match is a legal end of an LZ4 block.
                let harmless = specs.last() == Some(&Lz4) && out == elements;
                assert!(decoded.is_err() || harmless, "{specs:?} {extra} x {byte}");
            }
        }
        if !specs.is_empty() {
            let twice = encoded.repeat(2);
            assert!(chain.decode_into(&mut context, &twice, Verify::Full, &mut out).is_err(), "{specs:?} twice");
        }
    }
}

#[test]
fn a_flipped_bit_is_noticed_where_a_checksum_is() {
    let elements = some_elements(400);
    let mut context = CodecContext::default();
    for (specs, guarded) in chains() {
        let chain = u16_chain(&specs, elements.len());
        let mut encoded = encode(&chain, &elements);
        for at in 0..encoded.len() {
            for bit in 0..8 {
                encoded[at] ^= 1 << bit;
                let mut out = vec![0xa5; elements.len()];
                let decoded = chain.decode_into(&mut context, &encoded, Verify::Full, &mut out);
                assert!(decoded.is_err() || out == elements || !guarded, "{specs:?} byte {at} bit {bit}");
                let streamed = chain.decode_to_vec(&mut context, &encoded, Verify::Full, elements.len() as u64);
                match (decoded, streamed) {
                    (Ok(()), Ok(streamed)) => assert_eq!(streamed, out, "{specs:?} byte {at} bit {bit}"),
                    // A stream may need what is not looked at when the size is known, such as zstd's window.
                    (Ok(()), Err(_)) => assert!(out == elements, "{specs:?} byte {at} bit {bit}"),
                    (Err(_), streamed) => assert!(streamed.is_err(), "{specs:?} byte {at} bit {bit}"),
                }
                encoded[at] ^= 1 << bit;
            }
        }
    }
}

/// Two blocks and a short third, bytes shuffled, typesize 2; streams stored, so that no codec is needed.
fn blosc_chunk(split: bool) -> (Vec<u8>, Vec<u8>) {
    let (blocksize, nbytes) = (512, 1200);
    let elements = some_elements(nbytes);
    let mut blocks = Vec::new();
    let mut chunk = vec![2, 1, if split { 0x21 } else { 0x31 }, 2];
    let mut starts = Vec::new();
    for block in elements.chunks(blocksize) {
        starts.extend_from_slice(&(16 + 12 + blocks.len() as i32).to_le_bytes());
        let planes: Vec<u8> = block.iter().step_by(2).chain(block.iter().skip(1).step_by(2)).copied().collect();
        let parts = if split && block.len() == blocksize { 2 } else { 1 };
        for part in planes.chunks(block.len() / parts) {
            blocks.extend_from_slice(&(part.len() as i32).to_le_bytes());
            blocks.extend_from_slice(part);
        }
    }
    for size in [nbytes, blocksize, 16 + 12 + blocks.len()] {
        chunk.extend_from_slice(&(size as i32).to_le_bytes());
    }
    chunk.extend(starts);
    chunk.extend(blocks);
    (chunk, elements)
}

#[test]
fn each_block_of_a_blosc_chunk_decodes_alone() {
    let mut context = CodecContext::default();
    for split in [false, true] {
        let (chunk, elements) = blosc_chunk(split);
        let parsed = BloscChunk::parse(&chunk).unwrap();
        assert_eq!((parsed.nbytes(), parsed.num_blocks()), (1200, 3));
        for index in [2, 0, 1] {
            let range = parsed.block_range(index);
            let mut out = vec![0xa5; range.len()];
            parsed.decode_block(&mut context, index, &mut out).unwrap();
            assert_eq!(out, elements[range]);
        }
        assert!(parsed.block_range(3).is_empty());
        assert!(parsed.decode_block(&mut context, 3, &mut []).is_err());
        assert!(parsed.decode_block(&mut context, 0, &mut [0; 511]).is_err());
    }
}

#[test]
fn broken_blosc_headers_are_refused() {
    let (chunk, elements) = blosc_chunk(true);
    let chain = u16_chain(&[blosc()], elements.len());
    let mut out = vec![0; elements.len()];
    let mut decode = |chunk: &[u8]| chain.decode_into(&mut CodecContext::default(), chunk, Verify::Full, &mut out);
    decode(&chunk).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = chunk.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let mut version_1 = with(0, &[1]);
    decode(&version_1).unwrap();
    version_1[0] = 0;
    decode(&version_1).unwrap_err();
    for (what, at, bytes) in [
        ("Blosc 2 chunk", 0, &[5][..]),
        ("Blosc 2 extended header", 2, &[0x05]),
        ("reserved flag", 2, &[0x29]),
        ("inner codec 5", 2, &[0xa1]),
        ("typesize 0", 3, &[0]),
        ("nbytes one less", 4, &1199i32.to_le_bytes()),
        ("nbytes negative", 4, &(-1i32).to_le_bytes()),
        ("blocksize 0", 8, &0i32.to_le_bytes()),
        ("blocksize huge", 8, &i32::MAX.to_le_bytes()),
        ("blocksize negative", 8, &(-512i32).to_le_bytes()),
        ("blocksize 1: no room for the table", 8, &1i32.to_le_bytes()),
        ("cbytes one more", 12, &(chunk.len() as i32 + 1).to_le_bytes()),
        ("block in the header", 16, &0i32.to_le_bytes()),
        ("block in the table", 16, &27i32.to_le_bytes()),
        ("block at the end", 16, &(chunk.len() as i32).to_le_bytes()),
        ("block beyond the end", 20, &i32::MAX.to_le_bytes()),
        ("block before the chunk", 24, &(-1i32).to_le_bytes()),
        ("csize negative", 28, &(-1i32).to_le_bytes()),
        ("csize beyond the end", 28, &i32::MAX.to_le_bytes()),
        ("csize 0", 28, &0i32.to_le_bytes()),
    ] {
        let refused = decode(&with(at, bytes)).expect_err(what);
        assert!(matches!(refused.kind(), ErrorKind::Codec { .. }), "{what}: {refused}");
    }
    let frame = [&b"\x9e\xa8b2frame\0"[..], &[0; 100]].concat();
    assert!(decode(&frame).unwrap_err().to_string().contains("Blosc 2"));
}

#[test]
fn a_broken_blosc_chunk_never_panics() {
    let (chunk, elements) = blosc_chunk(true);
    let mut context = CodecContext::default();
    let mut out = vec![0; elements.len()];
    let mut changed = chunk.clone();
    for at in 0..chunk.len() {
        assert!(BloscChunk::parse(&chunk[..at]).is_err());
        for bit in 0..8 {
            changed[at] ^= 1 << bit;
            let _ = BloscChunk::parse(&changed).and_then(|parsed| parsed.decode(&mut context, &mut out));
            changed[at] ^= 1 << bit;
        }
    }
}

#[test]
fn sizes_and_kinds_are_checked_when_a_chain_is_made() {
    let bytes = CodecSpec::Bytes { endian: Endian::Little };
    assert!(matches!(CodecChain::outer(&[ZSTD, bytes]).unwrap_err().kind(), ErrorKind::Metadata { .. }));
    assert!(matches!(CodecChain::outer(&vec![GZIP; 4]).unwrap_err().kind(), ErrorKind::Limit { .. }));
    assert!(matches!(CodecChain::outer(&vec![CRC32C; 17]).unwrap_err().kind(), ErrorKind::Limit { .. }));
    assert!(CodecChain::new(&[], Endian::Little, &DataType::UInt(4), 6).is_err());
    let chain = u16_chain(&[CRC32C, ZSTD, CRC32C], 1000);
    assert_eq!(chain.max_encoded_nbytes(), max_encoded_nbytes(1004) + 4);
    assert_eq!(chain.fixed_encoded_nbytes(), None);
    assert!(chain.decode_into(&mut CodecContext::default(), &[], Verify::Full, &mut [0; 999]).is_err());
    assert_eq!(CodecChain::outer(&[CRC32C]).unwrap().max_encoded_nbytes(), u64::MAX);
}

#[test]
fn blosc_is_only_read() {
    let error =
        u16_chain(&[blosc()], 4).encode(&mut CodecContext::default(), &[1, 0, 2, 0], &mut Vec::new()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unsupported { .. }));
}

#[test]
fn byte_order_is_that_of_the_units() {
    let foreign = if Endian::NATIVE == Endian::Little { Endian::Big } else { Endian::Little };
    let chain = CodecChain::new(&[], foreign, &DataType::Complex(8), 8).unwrap();
    let mut out = [0; 8];
    chain.decode_into(&mut CodecContext::default(), &[1, 2, 3, 4, 5, 6, 7, 8], Verify::Full, &mut out).unwrap();
    assert_eq!(out, [4, 3, 2, 1, 8, 7, 6, 5]);
}

/// An ordinary chunk is decoded by libdeflate, which does not mind what follows its stream.
#[test]
fn bytes_around_the_trailer_of_a_deflate_stream_are_refused() {
    // One stored block of one byte.
    let zlib = |element: u8, middle: &[u8], after: &[u8]| {
        [
            &[0x78, 0x01, 1, 1, 0, 0xfe, 0xff, element][..],
            middle,
            &libdeflater::adler32(&[element]).to_be_bytes(),
            after,
        ]
        .concat()
    };
    let gzip = |middle: &[u8], after: &[u8]| {
        let header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1, 1, 0, 0xfe, 0xff, 7];
        let trailer = [libdeflater::crc32(&[7]).to_le_bytes(), 1u32.to_le_bytes()].concat();
        [&header[..], middle, &trailer, after].concat()
    };
    // Adler-32 of the byte 0 is 00 01 00 01: followed by its own half it ends the bytes once more.
    let mut chunks = vec![(ZLIB, 0, zlib(0, &[], &[]), true), (ZLIB, 0, zlib(0, &[], &[0, 1]), false)];
    for junk in [&[0][..], &[1, 2, 3, 4], &[0x99; 40]] {
        chunks.extend([(ZLIB, 9, zlib(9, junk, &[]), false), (ZLIB, 9, zlib(9, &[], junk), false)]);
        chunks.extend([(GZIP, 7, gzip(junk, &[]), false), (GZIP, 7, gzip(&[], junk), false)]);
    }
    chunks.extend([(ZLIB, 9, zlib(9, &[], &[]), true), (GZIP, 7, gzip(&[], &[]), true)]);
    let trailer = libdeflater::adler32(&[9]).to_be_bytes();
    chunks.extend([
        (ZLIB, 9, zlib(9, &[], &trailer), false),
        (ZLIB, 9, zlib(9, &[&[3], &trailer[..]].concat(), &[]), false),
    ]);
    let mut context = CodecContext::default();
    for (codec, element, encoded, whole) in chunks {
        let mut out = [0xA5];
        let chain = CodecChain::new(std::slice::from_ref(&codec), Endian::Little, &DataType::UInt(1), 1).unwrap();
        let decoded = chain.decode_into(&mut context, &encoded, Verify::Full, &mut out);
        assert_eq!(decoded.is_ok(), whole, "{encoded:02x?}");
        assert!(!whole || out == [element], "{encoded:02x?}");
        let bounded = CodecChain::outer(&[codec]).unwrap().decode_to_vec(&mut context, &encoded, Verify::Full, 1);
        assert_eq!(bounded.is_ok(), whole, "{encoded:02x?}");
    }
}

#[test]
fn a_zstd_frame_that_holds_less_than_it_declares_is_refused() {
    let block = |data: &[u8], last: u32| [&((data.len() as u32) << 3 | last).to_le_bytes()[..3], data].concat();
    let frame =
        |header: &[u8], blocks: [Vec<u8>; 2]| [&[0x28, 0xb5, 0x2f, 0xfd][..], header, &blocks.concat()].concat();
    // Without a size, of 3 bytes; with one (one byte after 0x20). The last block may be empty.
    let no_size = frame(&[0, 0x58], [block(b"abc", 0), block(b"", 1)]);
    let sized = |nbytes| frame(&[0x20, nbytes], [block(b"xy", 0), block(b"", 1)]);
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"any"].concat();
    let outer = CodecChain::outer(&[ZSTD]).unwrap();
    for (frames, expected) in [
        (vec![&no_size, &sized(2)], Some(&b"abcxy"[..])),
        (vec![&sized(2), &skippable, &no_size, &skippable], Some(b"xyabc")),
        (vec![&no_size, &sized(9)], None),
        (vec![&no_size, &sized(1)], None),
        (vec![&sized(3), &no_size], None),
        (vec![&no_size, &sized(3), &no_size], None),
    ] {
        let encoded: Vec<u8> = frames.into_iter().flatten().copied().collect();
        let mut context = CodecContext::default();
        let decoded = outer.decode_to_vec(&mut context, &encoded, Verify::Full, 100);
        assert_eq!(decoded.as_deref().ok(), expected, "{decoded:?}");
        for nbytes in 4..10 {
            let chain = CodecChain::new(&[ZSTD], Endian::Little, &DataType::UInt(1), nbytes).unwrap();
            let exact = chain.decode_into(&mut context, &encoded, Verify::Full, &mut vec![0; nbytes]);
            assert_eq!(exact.is_ok(), expected.is_some_and(|bytes| bytes.len() == nbytes), "{nbytes}");
        }
    }
}
