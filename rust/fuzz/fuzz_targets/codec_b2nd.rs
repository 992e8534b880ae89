//! Any bytes as a chunk of Blosc 2 whose blocks are boxes; in part it is as the whole one. Then as a chunk by itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use voxfetch_core::codec::{CodecChain, CodecContext, Verify, blosc2};
use voxfetch_core::dtype::{DataType, Endian};
use voxfetch_core::error::ErrorKind;
use voxfetch_core::metadata::{B2ndSpec, CodecSpec};

fuzz_target!(|input: ([u8; 6], [u8; 2], &[u8])| {
    let (extents, corners, encoded) = input;
    let [z, y, x, bz, by, bx] = extents.map(|extent| u64::from(extent % 40) + 1);
    let spec = B2ndSpec::new(&[z, y, x], &[bz, by, bx], 1).unwrap();
    let nbytes = spec.chunk_nbytes();
    let chain = CodecChain::new(&[CodecSpec::B2nd(spec)], Endian::NATIVE, &DataType::UInt(1), nbytes).unwrap();
    let mut context = CodecContext::default();
    let (mut whole, mut part) = (vec![0xA5; nbytes], vec![0x5A; nbytes]);
    let into = chain.decode_into(&mut context, encoded, Verify::Full, &mut whole);
    if let Err(error) = &into {
        assert!(matches!(error.kind(), ErrorKind::Codec { .. } | ErrorKind::Unsupported { .. }), "{error}");
    }
    let at = |corner: u8| nbytes * usize::from(corner) / 255;
    let window = at(corners[0].min(corners[1]))..at(corners[0].max(corners[1]));
    let decoded = chain.decode_window(&mut context, encoded, Verify::Full, window.clone(), &mut part);
    if into.is_ok() {
        assert!(decoded.is_ok() && part[window.clone()] == whole[window]);
    }
    let _ = blosc2::decode_chunk(encoded, 1 << 16);
});
