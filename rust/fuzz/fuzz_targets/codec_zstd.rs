//! Any bytes as a chunk of zstd.
#![no_main]

mod codec;

use libfuzzer_sys::fuzz_target;
use voxfetch_core::metadata::CodecSpec;

fuzz_target!(|input: (u16, &[u8])| codec::check(CodecSpec::Zstd { level: 1, checksum: false }, input.0, input.1));
