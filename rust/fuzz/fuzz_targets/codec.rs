//! What every codec target does: any bytes as a chunk of a few sizes, decoded into memory of that size and into a vector
//! with that limit; both agree, and nothing but typed errors comes of it. One difference is meant: only where the size is
//! not known beforehand does zstd need the memory of a window, and that is bounded.

use voxfetch_core::codec::{CodecChain, CodecContext, Verify};
use voxfetch_core::dtype::{DataType, Endian};
use voxfetch_core::error::ErrorKind;
use voxfetch_core::metadata::CodecSpec;

pub fn check(codec: CodecSpec, size: u16, encoded: &[u8]) {
    let mut context = CodecContext::default();
    let nbytes = usize::from(size) + 1;
    let chain = CodecChain::new(std::slice::from_ref(&codec), Endian::NATIVE, &DataType::UInt(1), nbytes).unwrap();
    let outer = CodecChain::outer(&[codec]).unwrap();
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
}
