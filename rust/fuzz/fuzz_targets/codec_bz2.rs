//! Any bytes as a chunk of bz2.
#![no_main]

mod codec;

use libfuzzer_sys::fuzz_target;
use voxfetch_core::metadata::CodecSpec;

fuzz_target!(|input: (u16, &[u8])| codec::check(CodecSpec::Bz2 { level: 1 }, input.0, input.1));
