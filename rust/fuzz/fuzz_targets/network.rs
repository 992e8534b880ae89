//! Random arrays read through a machine whose network answers in any order, fails and replaces objects.
#![no_main]

#[path = "../../core/tests/support/mod.rs"]
#[expect(dead_code, reason = "shared with tests that use the rest")]
mod support;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| support::check_random_network(&mut support::Choices::new(bytes)));
