//! Filters of HDF5 in small, by hand; what its libraries write is read in tests/test_zarr_codecs.py.

use super::super::*;
use crate::error::ErrorKind;
use crate::metadata::{BitshuffleInner, BitshuffleSpec, ChecksumKind, ChecksumSpec};

/// Codecs that are only read, of elements of 2 bytes.
pub(super) fn framed() -> [CodecSpec; 6] {
    use BitshuffleInner as Inner;
    let bitshuffle = |inner| CodecSpec::Hdf5Bitshuffle(BitshuffleSpec { elementsize: 2, blocksize: 8, inner });
    [
        CodecSpec::Hdf5Lzf,
        CodecSpec::Hdf5Lz4,
        bitshuffle(Inner::None),
        bitshuffle(Inner::Lz4),
        bitshuffle(Inner::Zstd),
        CodecSpec::LzmaAlone,
    ]
}

#[test]
fn frames_of_hdf5_must_fit_their_blocks() {
    let frame = |nbytes: u64, block: u32, parts: &[&[u8]]| {
        let blocks = parts.iter().flat_map(|part| [&(part.len() as u32).to_be_bytes()[..], part].concat());
        [nbytes.to_be_bytes().to_vec(), block.to_be_bytes().to_vec(), blocks.collect()].concat()
    };
    // 8 elements of 0x0001: the first plane of bits is all ones. One element more is left.
    let planes: Vec<u8> = std::iter::once(0xff).chain([0; 15]).collect();
    let (elements, packed) = ([1u8, 0].repeat(8), [&[0xf0, 1][..], &planes].concat());
    let with_left = |frame: Vec<u8>| [&frame[..], &[7, 7]].concat();
    let [_, lz4, plain, bits_lz4, _, _] = framed();
    let shuffled = |nbytes, block, parts: &[&[u8]]| with_left(frame(nbytes, block, parts));
    #[rustfmt::skip]
    let table: Vec<(&CodecSpec, Vec<u8>, usize, bool)> = vec![
        (&lz4, frame(16, 16, &[&elements]), 16, true),
        (&lz4, frame(16, 99, &[&elements]), 16, true),
        (&lz4, frame(16, 8, &[&elements[..8], &[&[0x80][..], &elements[..8]].concat()]), 16, true),
        (&lz4, frame(0, 0, &[]), 0, true),
        (&lz4, frame(16, 0, &[&elements]), 16, false),
        (&lz4, frame(16, 16, &[]), 16, false),
        (&lz4, frame(16, 16, &[&elements, b""]), 16, false),
        (&lz4, frame(15, 16, &[&elements]), 16, false),
        (&lz4, frame(u64::MAX, 16, &[&elements]), 16, false),
        (&lz4, frame(16, 8, &[&elements]), 16, false),
        (&plain, with_left(planes.clone()), 18, true),
        (&plain, planes.clone(), 18, false),
        (&plain, with_left(planes.clone()), 17, false),
        (&bits_lz4, shuffled(18, 16, &[&packed]), 18, true),
        (&bits_lz4, shuffled(18, 32, &[&packed]), 18, true),
        (&bits_lz4, shuffled(18, 0, &[&packed]), 18, false),
        (&bits_lz4, shuffled(18, 15, &[&packed]), 18, false),
        (&bits_lz4, shuffled(17, 16, &[&packed]), 18, false),
        (&bits_lz4, shuffled(18, 16, &[&packed, b""]), 18, false),
        (&bits_lz4, frame(18, 16, &[&packed]), 18, false),
        (&bits_lz4, shuffled(18, 16, &[&packed[..9]]), 18, false),
        (&bits_lz4, frame(u64::MAX, u32::MAX, &[&packed]), 18, false),
    ];
    let mut context = CodecContext::default();
    for (case, (codec, encoded, nbytes, is_whole)) in table.into_iter().enumerate() {
        let chain = CodecChain::new(std::slice::from_ref(codec), Endian::Little, &DataType::UInt(1), nbytes).unwrap();
        let outer = CodecChain::outer(std::slice::from_ref(codec)).unwrap();
        let mut out = vec![0xa5; nbytes];
        let exact = chain.decode_into(&mut context, &encoded, Verify::Full, &mut out);
        assert_eq!(exact.is_ok(), is_whole, "case {case}: {exact:?}");
        let bounded = outer.decode_to_vec(&mut context, &encoded, Verify::Full, nbytes as u64);
        assert_eq!(bounded.as_ref().is_ok_and(|bytes| bytes.len() == nbytes), is_whole, "case {case}: {bounded:?}");
        if is_whole {
            assert_eq!(out[..nbytes.min(16)], elements[..nbytes.min(16)], "case {case}");
            assert_eq!(bounded, Ok(out), "case {case}");
        }
        for error in [exact.err(), bounded.err()].into_iter().flatten() {
            assert!(matches!(error.kind(), ErrorKind::Codec { .. }), "case {case}: {error}");
        }
    }
}

#[test]
fn shuffled_bytes_have_exact_sizes() {
    let shuffle = |elementsize| CodecSpec::Shuffle { elementsize };
    for (elementsize, encoded) in
        [(0, b"abcdefg"), (1, b"abcdefg"), (3, b"adbecfg"), (7, b"abcdefg"), (1 << 40, b"abcdefg")]
    {
        let chain =
            CodecChain::new(&[shuffle(elementsize), CodecSpec::CRC32C], Endian::Little, &DataType::UInt(1), 7).unwrap();
        assert_eq!((chain.fixed_encoded_nbytes(), chain.is_plain(), chain.has_parts()), (Some(11), false, false));
        let mut encoded = encoded.to_vec();
        checksum::add(ChecksumSpec { kind: ChecksumKind::Crc32c, at_start: false }, &mut encoded);
        let mut out = [0; 7];
        chain.decode_into(&mut CodecContext::default(), &encoded, Verify::Full, &mut out).unwrap();
        assert_eq!(&out, b"abcdefg", "{elementsize}");
        assert_eq!(chain.view(&encoded, Verify::Full), Ok(None));
        assert!(chain.decode_into(&mut CodecContext::default(), &encoded[..10], Verify::Cheap, &mut out).is_err());
    }
}
