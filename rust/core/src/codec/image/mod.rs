//! JPEG and PNG images as chunks: the pixels, row by row, are the voxels, x fastest; the samples of a pixel are channels.
//!
//! Source: Neuroglancer, "Precomputed Volume Format", `jpeg encoding` and `png encoding`. Any width and height will do
//! that have as many pixels as the chunk has voxels in a channel.
//!
//! An image is refused by its header unless it has the size of the output: no memory is asked for before.

pub(crate) mod jpeg;
pub(crate) mod png;

use super::sink::resize;
use crate::error::{Error, Result};

/// What the header of an image says.
struct Image {
    /// Width and height in pixels.
    side: [usize; 2],
    /// Samples of a pixel.
    channels: usize,
    /// Bytes of a sample.
    item_size: usize,
}

impl Image {
    /// Refuses an image of another size than the output.
    fn check(&self, name: &'static str, extent: [usize; 4], item_size: usize, out: &[u8]) -> Result<()> {
        let [voxels @ .., channels] = extent;
        let voxels = voxels.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
        let nbytes = voxels.and_then(|voxels| voxels.checked_mul(channels)?.checked_mul(item_size));
        if nbytes != Some(out.len()) {
            let what = format!("{} bytes of output for {extent:?} samples of {item_size} bytes", out.len());
            return Err(Error::internal(what));
        }
        let [width, height] = self.side;
        if width.checked_mul(height) != voxels || self.channels != channels || self.item_size != item_size {
            let what = format!("{width} x {height} pixels of {} samples of {} bytes", self.channels, self.item_size);
            return Err(Error::codec(name, format!("{what}, expected {extent:?} of {item_size} bytes")));
        }
        Ok(())
    }

    /// Has `decode` fill memory with whole pixels, and takes their samples apart into the channels of `out`.
    fn separate(&self, out: &mut [u8], decode: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<()> {
        if self.channels == 1 {
            return decode(out);
        }
        let mut pixels = Vec::new();
        resize(&mut pixels, out.len())?;
        decode(&mut pixels)?;
        match (self.channels, self.item_size) {
            (2, 1) => separate::<2, 1>(&pixels, out),
            (3, 1) => separate::<3, 1>(&pixels, out),
            (4, 1) => separate::<4, 1>(&pixels, out),
            (2, _) => separate::<2, 2>(&pixels, out),
            (3, _) => separate::<3, 2>(&pixels, out),
            _ => separate::<4, 2>(&pixels, out),
        }
        Ok(())
    }
}

/// Takes pixels of `C` samples of `N` bytes apart: all first samples, then all second ones, and so on.
fn separate<const C: usize, const N: usize>(pixels: &[u8], out: &mut [u8]) {
    let (samples, _) = pixels.as_chunks::<N>();
    let (pixels, _) = samples.as_chunks::<C>();
    let (out, _) = out.as_chunks_mut::<N>();
    for (index, channel) in out.chunks_exact_mut(pixels.len().max(1)).enumerate() {
        for (voxel, pixel) in channel.iter_mut().zip(pixels) {
            *voxel = pixel[index];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[track_caller]
    fn refuses(decoded: Result<()>, why: &str) {
        let refused = decoded.unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::Codec { .. }) && refused.to_string().contains(why), "{refused}");
    }

    fn chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let named = [kind, content].concat();
        [&(content.len() as u32).to_be_bytes()[..], &named, &libdeflater::crc32(&named).to_be_bytes()].concat()
    }

    /// A PNG of a header, `chunks` and the end.
    fn png_with([width, height]: [u32; 2], [bits, colours, interlace]: [u8; 3], chunks: &[Vec<u8>]) -> Vec<u8> {
        let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[bits, colours, 0, 0, interlace]].concat();
        [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &header), &chunks.concat(), &chunk(b"IEND", &[])].concat()
    }

    /// A PNG without pixels.
    fn png_of(side: [u32; 2], bits: u8, colours: u8) -> Vec<u8> {
        png_with(side, [bits, colours, 0], &[chunk(b"IDAT", &[])])
    }

    /// The first segments of a JPEG, without a scan.
    fn jpeg_of([width, height]: [u16; 2], components: u8) -> Vec<u8> {
        let [width, height] = [width.to_be_bytes(), height.to_be_bytes()];
        let mut image = vec![0xff, 0xd8, 0xff, 0xc0, 0, 8 + 3 * components, 8];
        image.extend([height, width].concat());
        image.push(components);
        (1..=components).for_each(|component| image.extend([component, 0x11, 0]));
        image.extend([0xff, 0xda, 0, 6 + 2 * components, components]);
        (1..=components).for_each(|component| image.extend([component, 0]));
        image.extend([0, 63, 0, 0, 0xff, 0xd9]);
        image
    }

    #[test]
    fn an_image_of_another_size_is_refused_by_its_header() {
        let extent = [4, 3, 2, 1];
        for side in [[60_000, 60_000], [24, 2], [23, 1], [5, 5]] {
            let why = format!("{} x {} pixels", side[0], side[1]);
            refuses(png::decode(&png_of(side.map(u32::from), 8, 0), extent, 1, &mut [0; 24]), &why);
            refuses(jpeg::decode(&jpeg_of(side, 1), extent, &mut [0; 24]), &why);
        }
        let largest = 0x7fff_ffff;
        refuses(png::decode(&png_of([largest, largest], 16, 6), extent, 1, &mut [0; 24]), "pixels");
        refuses(png::decode(&png_of([8, 3], 8, 2), extent, 1, &mut [0; 24]), "of 3 samples");
        refuses(png::decode(&png_of([8, 3], 16, 0), extent, 1, &mut [0; 24]), "of 2 bytes");
        refuses(jpeg::decode(&jpeg_of([8, 3], 3), extent, &mut [0; 24]), "of 3 samples");
        refuses(jpeg::decode(&jpeg_of([8, 3], 1), [4, 3, 2, 3], &mut [0; 72]), "of 1 samples");
        // The size is right, but there are no pixels.
        refuses(png::decode(&png_of([8, 3], 8, 0), extent, 1, &mut [0; 24]), "");
        refuses(jpeg::decode(&jpeg_of([8, 3], 1), extent, &mut [0; 24]), "");
    }

    #[test]
    fn samples_that_are_no_voxels_are_refused() {
        let interlaced = png_with([4, 1], [8, 0, 1], &[]);
        for image in [png_of([4, 1], 8, 3), interlaced] {
            let refused = png::decode(&image, [4, 1, 1, 1], 1, &mut [0; 4]).unwrap_err();
            assert!(matches!(refused.kind(), ErrorKind::Unsupported { .. }));
        }
        refuses(png::decode(&png_of([4, 1], 4, 0), [4, 1, 1, 1], 1, &mut [0; 4]), "4 bits");
        refuses(jpeg::decode(&jpeg_of([4, 1], 4), [4, 1, 1, 1], &mut [0; 4]), "");
        for channels in [0, 2, 4] {
            let refused =
                jpeg::decode(&jpeg_of([4, 1], 1), [4, 1, 1, channels], &mut vec![0; 4 * channels]).unwrap_err();
            assert!(matches!(refused.kind(), ErrorKind::Unsupported { .. }));
        }
    }

    #[test]
    fn sizes_that_do_not_fit_together_are_refused() {
        for extent in [[4, 1, 1, 1], [usize::MAX, usize::MAX, 1, 1]] {
            let refused = png::decode(&png_of([4, 1], 8, 0), extent, 1, &mut [0; 3]).unwrap_err();
            assert!(matches!(refused.kind(), ErrorKind::Internal { .. }));
            let refused = jpeg::decode(&jpeg_of([4, 1], 1), extent, &mut [0; 3]).unwrap_err();
            assert!(matches!(refused.kind(), ErrorKind::Internal { .. }));
        }
    }

    #[test]
    fn pixels_are_those_of_all_chunks_that_have_any() {
        let mut rows = vec![0; 64];
        let nbytes = libdeflater::Compressor::default().zlib_compress(&[0, 1, 2, 0, 3, 4], &mut rows).unwrap();
        let (start, end) = rows[..nbytes].split_at(5);
        let (start, end, nothing) = (chunk(b"IDAT", start), chunk(b"IDAT", end), chunk(b"IDAT", &[]));
        let decode = |chunks: &[&Vec<u8>]| {
            let chunks: Vec<_> = chunks.iter().map(|chunk| chunk.to_vec()).collect();
            let mut out = [0; 4];
            png::decode(&png_with([2, 2], [8, 0, 0], &chunks), [4, 1, 1, 1], 1, &mut out).map(|()| out)
        };
        assert_eq!(decode(&[&start, &end]), Ok([1, 2, 3, 4]));
        let (text, unknown) = (chunk(b"tEXt", b"no pixels"), chunk(b"NEWS", b"important"));
        assert_eq!(decode(&[&text, &nothing, &start, &nothing, &end, &text]), Ok([1, 2, 3, 4]));
        for chunks in [&[&start][..], &[&end, &start], &[&start, &end, &end, &unknown], &[&nothing]] {
            decode(chunks).unwrap_err();
        }
    }

    #[test]
    fn rows_of_every_filter_are_predicted_by_their_neighbours() {
        // Four pixels of two bytes in each of six rows; the first row and the first pixel have zeros for neighbours.
        let pixels: Vec<u8> = (0..48u32).map(|i| (i * i * 37 + i / 3 * 91) as u8).collect();
        let at = |row: usize, byte: Option<usize>| byte.map_or(0, |byte| i32::from(pixels[row * 8 + byte]));
        let mut rows = Vec::new();
        for row in 0..6 {
            let filter = [3, 1, 2, 3, 4, 0][row];
            rows.push(filter as u8);
            for byte in 0..8usize {
                let left = byte.checked_sub(2);
                let above = |byte| if row > 0 { at(row - 1, byte) } else { 0 };
                let (a, b, c) = (at(row, left), above(Some(byte)), above(left));
                let nearest = [a, b, c].into_iter().min_by_key(|value| (a + b - c - value).abs()).unwrap();
                let predicted = [0, a, b, (a + b) / 2, nearest][filter];
                rows.push((at(row, Some(byte)) - predicted) as u8);
            }
        }
        let decode = |rows: &[u8]| {
            let mut stream = vec![0; 200];
            let nbytes = libdeflater::Compressor::default().zlib_compress(rows, &mut stream).unwrap();
            let image = png_with([4, 6], [8, 4, 0], &[chunk(b"IDAT", &stream[..nbytes])]);
            let mut out = [0; 48];
            png::decode(&image, [4, 6, 1, 2], 1, &mut out).map(|()| out)
        };
        let channels: Vec<u8> = (0..48).map(|i| pixels[i % 24 * 2 + i / 24]).collect();
        assert_eq!(decode(&rows).unwrap(), channels[..]);
        rows[9] = 5;
        decode(&rows).unwrap_err();
        decode(&rows[..53]).unwrap_err();
    }
}
