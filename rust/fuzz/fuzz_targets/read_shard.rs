//! Any bytes as a stored object of a small array: its voxels or a typed error, and no byte outside the output is touched.
#![no_main]

#[path = "../../core/tests/support/mod.rs"]
#[expect(dead_code, reason = "shared with tests that use the rest")]
mod support;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| support::check_any_object(input.0, input.1));
