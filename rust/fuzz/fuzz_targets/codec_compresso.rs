//! Any bytes as a chunk of compresso, of the extent and width of labels that it says itself.
#![no_main]

mod chunk;

use libfuzzer_sys::fuzz_target;
use voxfetch_core::codec::fuzzing;

fuzz_target!(|encoded: &[u8]| {
    let Some([width, x0, x1, y0, y1, z0, z1]) = encoded.get(5..).and_then(|rest| rest.first_chunk()) else { return };
    let [x, y, z] = [[*x0, *x1], [*y0, *y1], [*z0, *z1]].map(|n| usize::from(u16::from_le_bytes(n)));
    let (extent, item_size) = ([x, y, z, 1], usize::from(*width));
    chunk::check(extent, item_size, |out| fuzzing::compresso(encoded, extent, item_size, out));
});
