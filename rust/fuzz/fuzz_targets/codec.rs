//! What every codec target does: any bytes as a chunk of a few sizes, decoded into memory of that size and into a vector
//! with that limit; both agree, and nothing but typed errors comes of it. One difference is meant: only where the size is
//! not known beforehand does zstd need the memory of a window, and that is bounded. Decoded in part, a chunk is as the
//! whole one.

use voxfetch_core::codec::{CodecChain, CodecContext, Verify};
use voxfetch_core::dtype::{DataType, Endian};
use voxfetch_core::error::ErrorKind;
use voxfetch_core::metadata::CodecSpec;

pub fn check(codec: CodecSpec, size: u16, encoded: &[u8]) {
    let mut context = CodecContext::default();
    let nbytes = usize::from(size) + 1;
    let chain = CodecChain::new(std::slice::from_ref(&codec), Endian::NATIVE, &DataType::UInt(1), nbytes).unwrap();
    let outer = CodecChain::outer(std::slice::from_ref(&codec)).unwrap();
    let mut exact = vec![0xA5; nbytes];
    let into = chain.decode_into(&mut context, encoded, Verify::Full, &mut exact);
    let bounded = outer.decode_to_vec(&mut context, encoded, Verify::Full, nbytes as u64);
    for error in [into.as_ref().err(), bounded.as_ref().err()].into_iter().flatten() {
        assert!(matches!(error.kind(), ErrorKind::Codec { .. } | ErrorKind::Checksum { .. }), "{error}");
    }
    match (into, bounded) {
        (Ok(()), Ok(decoded)) => assert_eq!(exact, decoded),
        (Ok(()), Err(error)) => {
            assert!(error.to_string().contains("too much memory"), "only the bounded decoder refuses: {error}");
        }
        (Err(error), Ok(decoded)) => assert_ne!(decoded.len(), nbytes, "only the exact decoder refuses: {error}"),
        (Err(_), Err(_)) => {}
    }
    // zstd decodes chunks in part from some blocks of 128 KiB on.
    for nbytes in [nbytes, nbytes * 16] {
        check_window(&codec, nbytes, encoded, &mut context);
    }
}

/// What the whole chunk delivers, a part of it does as well.
fn check_window(codec: &CodecSpec, nbytes: usize, encoded: &[u8], context: &mut CodecContext) {
    let chain = CodecChain::new(std::slice::from_ref(codec), Endian::NATIVE, &DataType::UInt(1), nbytes).unwrap();
    let at = |place: usize| nbytes * usize::from(encoded.get(place).copied().unwrap_or(0)) / 255;
    let (low, high) = (at(encoded.len() / 2), at(encoded.len().saturating_sub(1)));
    let window = low.min(high)..low.max(high);
    let (mut whole, mut part) = (vec![0xA5; nbytes], vec![0x5A; nbytes]);
    let into = chain.decode_into(context, encoded, Verify::Full, &mut whole);
    match (into, chain.decode_window(context, encoded, Verify::Full, window.clone(), &mut part)) {
        (Ok(()), decoded) => assert!(decoded.is_ok() && part[window.clone()] == whole[window]),
        (Err(_), Ok(())) => {}
        (Err(_), Err(error)) => assert!(matches!(error.kind(), ErrorKind::Codec { .. } | ErrorKind::Checksum { .. })),
    }
}
