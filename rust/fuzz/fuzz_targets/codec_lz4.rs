//! Any bytes as a chunk of lz4.
#![no_main]

mod codec;

use libfuzzer_sys::fuzz_target;
use voxfetch_core::metadata::CodecSpec;

fuzz_target!(|input: (u16, &[u8])| codec::check(CodecSpec::Lz4, input.0, input.1));
