//! JPEG (ITU-T T.81), baseline and progressive.
//!
//! The standard leaves open how values are rounded and how subsampled colours are spread over pixels. Other decoders differ
//! by 1 in grey, by up to 4 in colour, and by more in images of up to 4 pixels in width, where libjpeg-turbo repeats colours
//! and this decoder interpolates.
//!
//! The standard leaves rounding to the decoder. Grey differs from what libjpeg-turbo makes of it by at most 1, colours by
//! a little more, as their conversion and the interpolation of those that are stored at half size are rounded as well.

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::Image;
use crate::error::{Error, Result};

const NAME: &str = "jpeg";

/// Largest width and height that there can be.
const MAX_SIDE: usize = u16::MAX as usize;

/// Second bytes of markers.
const START: u8 = 0xd8;
const END: u8 = 0xd9;
const SCAN: u8 = 0xda;

/// Decodes a JPEG of 1 or 3 components of 8 bits into `out`, one channel after the other. `extent` is (x, y, z, channel) in
/// voxels.
///
/// # Errors
/// `Codec` when the image is broken or has another size or number of components, `Limit` when memory is short, `Internal`
/// when sizes do not fit together.
pub(crate) fn decode(encoded: &[u8], extent: [usize; 4], out: &mut [u8]) -> Result<()> {
    let refuse = |error: zune_jpeg::errors::DecodeErrors| Error::codec(NAME, error.to_string());
    let colours = match extent[3] {
        1 => ColorSpace::Luma,
        3 => ColorSpace::RGB,
        other => return Err(Error::unsupported(format!("{NAME} of {other} channels"), "1 and 3 are read")),
    };
    check_structure(encoded)?;
    // Strict: what is out of place is an error, not grey.
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(MAX_SIDE)
        .set_max_height(MAX_SIDE)
        .jpeg_set_out_colorspace(colours);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(encoded), options);
    decoder.decode_headers().map_err(refuse)?;
    let info = decoder.info().ok_or_else(|| Error::codec(NAME, "no size"))?;
    let image = Image { side: [info.width.into(), info.height.into()], channels: info.components.into(), item_size: 1 };
    image.check(NAME, extent, 1, out)?;
    image.separate(out, |pixels| {
        // Pixels that the decoder leaves out after all must not be those of another chunk.
        pixels.fill(0);
        decoder.decode_into(pixels).map_err(refuse)
    })
}

/// Checks that the image consists of whole segments up to its end, and that of a sequential frame each component has been
/// scanned there. The decoder itself takes much that is missing for the end of the image.
fn check_structure(encoded: &[u8]) -> Result<()> {
    let broken = || Error::codec(NAME, "the image is truncated or not whole");
    let mut rest = encoded.strip_prefix(&[0xff, START]).ok_or_else(broken)?;
    // Components that are still to be scanned; None when components are scanned several times (progressive).
    let mut to_scan = Some(0u8);
    let mut scans = 0;
    loop {
        let [0xff, after @ ..] = rest else { return Err(broken()) };
        let (marker, after) = after.split_first().ok_or_else(broken)?;
        if *marker == 0xff {
            // Any marker may have more of its first byte in front.
            rest = &rest[1..];
            continue;
        }
        if *marker == END {
            let is_whole = after.is_empty() && scans > 0 && to_scan.unwrap_or(0) == 0;
            return if is_whole { Ok(()) } else { Err(broken()) };
        }
        if scans > 0 && to_scan == Some(0) {
            return Err(broken());
        }
        let (size, _) = after.split_first_chunk::<2>().ok_or_else(broken)?;
        let (segment, after) = after.split_at_checked(u16::from_be_bytes(*size).into()).ok_or_else(broken)?;
        let content = segment.get(2..).ok_or_else(broken)?;
        rest = after;
        match *marker {
            0xc0 | 0xc1 => to_scan = Some(*content.get(5).ok_or_else(broken)?),
            0xc2 => to_scan = None,
            SCAN => {
                scans += 1;
                let components = content.first().ok_or_else(broken)?;
                to_scan = to_scan.map(|left| left.checked_sub(*components).ok_or_else(broken)).transpose()?;
                // Up to the next marker that does not belong to the scan: no stuffed zero, no restart.
                let is_marker = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0 | 0xd0..=0xd7 | 0xff);
                let len = rest.windows(2).position(is_marker).ok_or_else(broken)?;
                rest = &rest[len..];
            }
            _ => {}
        }
    }
}
