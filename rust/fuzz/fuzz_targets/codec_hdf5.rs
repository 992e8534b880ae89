//! Any bytes as a chunk of the filters that HDF5 alone has.
#![no_main]

mod codec;

use libfuzzer_sys::fuzz_target;
use voxfetch_core::metadata::{BitshuffleInner, BitshuffleSpec, CodecSpec};

// Filter, bytes of an element, elements of a block, size, chunk.
fuzz_target!(|input: (u8, u8, u8, u16, &[u8])| {
    let (elementsize, blocksize) = (usize::from(input.1), usize::from(input.2));
    let bitshuffle = |inner| CodecSpec::Hdf5Bitshuffle(BitshuffleSpec { elementsize, blocksize, inner });
    let codec = match input.0 % 6 {
        0 => CodecSpec::Hdf5Lzf,
        1 => CodecSpec::Hdf5Lz4,
        2 => bitshuffle(BitshuffleInner::None),
        3 => bitshuffle(BitshuffleInner::Lz4),
        4 => bitshuffle(BitshuffleInner::Zstd),
        _ => CodecSpec::Shuffle { elementsize },
    };
    codec::check(codec, input.3, input.4);
});
