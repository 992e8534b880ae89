//! Any bytes as a stream of Brotli.
#![no_main]

mod stream;

use libfuzzer_sys::fuzz_target;
use voxfetch_core::codec::fuzzing;

fuzz_target!(|input: (u16, &[u8])| stream::check(input.0, input.1, fuzzing::brotli_exact, fuzzing::brotli_bounded));
