//! Random arrays, reads and memory against the naive reader of the property tests.
#![no_main]

#[path = "../../core/tests/support/mod.rs"]
#[expect(dead_code, reason = "shared with tests that use the rest")]
mod support;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| support::check_random_reads(&mut support::Choices::new(bytes)));
