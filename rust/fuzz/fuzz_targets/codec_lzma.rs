//! Any bytes as an LZMA stream of the format before xz.
#![no_main]

mod codec;

use libfuzzer_sys::fuzz_target;
use voxfetch_core::metadata::CodecSpec;

fuzz_target!(|input: (u16, &[u8])| codec::check(CodecSpec::LzmaAlone, input.0, input.1));
