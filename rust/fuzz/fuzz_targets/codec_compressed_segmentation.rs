//! Any bytes as a chunk of compressed_segmentation.
#![no_main]

mod chunk;

use libfuzzer_sys::fuzz_target;
use voxfetch_core::codec::fuzzing;

// The extent, the block, whether labels have 8 bytes, the chunk.
fuzz_target!(|input: ([u8; 4], [u8; 3], bool, &[u8])| {
    let (extent, block) = (input.0.map(usize::from), input.1.map(|n| usize::from(n) + 1));
    let item_size = if input.2 { 8 } else { 4 };
    chunk::check(extent, item_size, |out| fuzzing::compressed_segmentation(input.3, extent, block, item_size, out));
});
