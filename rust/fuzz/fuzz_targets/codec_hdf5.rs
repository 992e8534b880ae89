//! Any bytes as a chunk of the filters that HDF5 alone has.
#![no_main]

mod codec;

use libfuzzer_sys::fuzz_target;
use voxfetch_core::dtype::Endian;
use voxfetch_core::metadata::{BitshuffleInner, BitshuffleSpec, CodecSpec, ScaleOffsetSpec};

// Filter, bytes of an element, elements of a block (or the value that stands for fill), size, chunk.
fuzz_target!(|input: (u8, u8, u8, u16, &[u8])| {
    let (elementsize, blocksize) = (usize::from(input.1), usize::from(input.2));
    let bitshuffle = |inner| CodecSpec::Hdf5Bitshuffle(BitshuffleSpec { elementsize, blocksize, inner });
    let endian = if input.2 % 2 == 0 { Endian::Little } else { Endian::Big };
    let fill = (input.2 % 3 > 0).then_some(u64::from(input.2));
    let elements = (usize::from(input.3) + 1) / elementsize.max(1);
    let scaled = ScaleOffsetSpec { elementsize, elements, endian, fill };
    let codec = match input.0 % 7 {
        0 => CodecSpec::Hdf5Lzf,
        1 => CodecSpec::Hdf5Lz4,
        2 => bitshuffle(BitshuffleInner::None),
        3 => bitshuffle(BitshuffleInner::Lz4),
        4 => bitshuffle(BitshuffleInner::Zstd),
        5 => CodecSpec::Hdf5ScaleOffset(scaled),
        _ => CodecSpec::Shuffle { elementsize },
    };
    codec::check(codec, input.3, input.4);
});
