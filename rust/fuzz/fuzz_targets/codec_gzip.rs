//! Any bytes as a chunk of gzip.
#![no_main]

mod codec;

use libfuzzer_sys::fuzz_target;
use voxfetch_core::metadata::CodecSpec;

fuzz_target!(|input: (u16, &[u8])| codec::check(CodecSpec::Gzip { level: 1 }, input.0, input.1));
