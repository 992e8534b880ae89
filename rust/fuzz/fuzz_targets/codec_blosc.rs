//! Any bytes as a chunk of Blosc: of any inner codec, as the chunk itself says.
#![no_main]

mod codec;

use libfuzzer_sys::fuzz_target;
use voxfetch_core::metadata::{BloscShuffle, BloscSpec, CodecSpec};

fuzz_target!(|input: (u16, &[u8])| {
    let shuffle = BloscShuffle::None;
    let spec = BloscSpec { cname: "zstd".into(), clevel: 5, shuffle, typesize: 1, blocksize: 0 };
    codec::check(CodecSpec::Blosc(spec), input.0, input.1);
});
