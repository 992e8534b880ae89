//! Any bytes as a chunk of JPEG, of the size that the first header of a frame says.
#![no_main]

mod chunk;

use libfuzzer_sys::fuzz_target;
use voxfetch_core::codec::fuzzing;

// Whether there are 3 channels, the image.
fuzz_target!(|input: (bool, &[u8])| {
    let frame = input.1.windows(9).find(|bytes| bytes[0] == 0xff && matches!(bytes[1], 0xc0..=0xc2));
    let Some([_, _, _, _, _, h1, h0, w1, w0]) = frame.and_then(|bytes| bytes.first_chunk()) else { return };
    let [width, height] = [[*w1, *w0], [*h1, *h0]].map(|side| usize::from(u16::from_be_bytes(side)));
    let extent = [width, height, 1, if input.0 { 3 } else { 1 }];
    chunk::check(extent, 1, |out| fuzzing::jpeg(input.1, extent, out));
});
