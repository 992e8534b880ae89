//! Any bytes as a chunk of PNG, of the size that its header says.
#![no_main]

mod chunk;

use libfuzzer_sys::fuzz_target;
use voxfetch_core::codec::fuzzing;

// Channels less one, whether samples have 16 bits, the image.
fuzz_target!(|input: (u8, bool, &[u8])| {
    let Some(header) = input.2.get(16..).and_then(|rest| rest.first_chunk::<8>()) else { return };
    let side = |at: usize| header[at..at + 4].iter().fold(0, |side, byte| side << 8 | usize::from(*byte));
    let extent = [side(0), side(4), 1, usize::from(input.0 % 4) + 1];
    let item_size = if input.1 { 2 } else { 1 };
    chunk::check(extent, item_size, |out| fuzzing::png(input.2, extent, item_size, out));
});
