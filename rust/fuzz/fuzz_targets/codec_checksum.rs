//! Any bytes with a checksum of any kind at either end.
#![no_main]

mod codec;

use libfuzzer_sys::fuzz_target;
use voxfetch_core::metadata::{ChecksumKind, ChecksumSpec, CodecSpec};

// Kind of checksum and end of the bytes, initial value, size, bytes.
fuzz_target!(|input: (u8, u32, u16, &[u8])| {
    let kind = match input.0 >> 1 {
        0 => ChecksumKind::Crc32,
        1 => ChecksumKind::Crc32c,
        2 => ChecksumKind::Adler32,
        3 => ChecksumKind::Fletcher32,
        _ => ChecksumKind::JenkinsLookup3 { initval: input.1 },
    };
    codec::check(CodecSpec::Checksum(ChecksumSpec { kind, at_start: input.0 & 1 == 1 }), input.2, input.3);
});
