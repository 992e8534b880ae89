//! PNG, of 8 or 16 bits a sample, not interlaced.
//!
//! Source: Portable Network Graphics (W3C, third edition) §5, §7, §9. Numbers are big-endian.
//!
//! A signature, then chunks: size u32 of the content, name of 4 bytes, content, CRC-32 of name and content. `IHDR` comes
//! first, `IEND` last; the contents of all `IDAT` are one zlib stream, of rows that have a filter in front. Other chunks
//! change nothing about the samples and are passed over, their checksums compared all the same.

use libdeflater::Decompressor;

use super::super::sink::{check_len, resize};
use super::Image;
use crate::dtype::{Endian, swap_bytes_in_place};
use crate::error::{Error, ErrorKind, Result};

const NAME: &str = "png";

const SIGNATURE: &[u8; 8] = b"\x89PNG\r\n\x1a\n";

/// Decodes a PNG of 1 to 4 samples a pixel, of `item_size` bytes each (1 or 2), into `out`, in native byte order and one
/// channel after the other. `extent` is (x, y, z, channel) in voxels.
///
/// # Errors
/// `Codec` when the image is broken or has another size, number or width of samples, `Checksum` when one differs,
/// `Unsupported` for a palette and for interlaced rows, `Limit` when memory is short, `Internal` when sizes do not fit
/// together.
pub(crate) fn decode(encoded: &[u8], extent: [usize; 4], item_size: usize, out: &mut [u8]) -> Result<()> {
    let mut rest = encoded.strip_prefix(SIGNATURE).ok_or_else(|| Error::codec(NAME, "no signature"))?;
    let (name, header) = take_chunk(&mut rest)?;
    let image = parse_header(&name, header)?;
    image.check(NAME, extent, item_size, out)?;

    // Most images have their pixels in one chunk, which need not be copied.
    let (mut first, mut all): (&[u8], Vec<u8>) = (&[], Vec::new());
    loop {
        match take_chunk(&mut rest)? {
            (name, _) if &name == b"IEND" => break,
            (name, content) if &name == b"IDAT" => {
                if all.is_empty() && first.is_empty() {
                    first = content;
                    continue;
                }
                if all.is_empty() {
                    all.extend_from_slice(first);
                }
                all.extend_from_slice(content);
            }
            // A capital: a decoder that does not know it must not go on.
            (name, _) if name[0].is_ascii_uppercase() && &name != b"PLTE" => {
                return Err(Error::codec(NAME, format!("a chunk {:?}", name.escape_ascii().to_string())));
            }
            _ => {}
        }
    }
    if !rest.is_empty() {
        return Err(Error::codec(NAME, format!("{} bytes after the image", rest.len())));
    }
    let stream = if all.is_empty() { first } else { &all };
    image.separate(out, |pixels| decode_rows(stream, &image, pixels))?;
    if Endian::NATIVE == Endian::Little {
        swap_bytes_in_place(out, item_size);
    }
    Ok(())
}

/// Splits a chunk off the front: its name and its content.
fn take_chunk<'a>(rest: &mut &'a [u8]) -> Result<([u8; 4], &'a [u8])> {
    let truncated = || Error::codec(NAME, "the image is truncated");
    let (size, after) = rest.split_first_chunk::<4>().ok_or_else(truncated)?;
    let size = u32::from_be_bytes(*size) as usize;
    let checked = size.checked_add(4).and_then(|nbytes| after.split_at_checked(nbytes));
    let (checked, after) = checked.ok_or_else(truncated)?;
    let (stored, after) = after.split_first_chunk::<4>().ok_or_else(truncated)?;
    let (stored, computed) = (u32::from_be_bytes(*stored), libdeflater::crc32(checked));
    if stored != computed {
        return Err(ErrorKind::Checksum { codec: NAME, stored: stored.into(), computed: computed.into() }.into());
    }
    let (name, content) = checked.split_first_chunk::<4>().ok_or_else(truncated)?;
    *rest = after;
    Ok((*name, content))
}

fn parse_header(name: &[u8; 4], header: &[u8]) -> Result<Image> {
    let fields = header.first_chunk::<13>().filter(|_| name == b"IHDR" && header.len() == 13);
    let fields = fields.ok_or_else(|| Error::codec(NAME, "no header"))?;
    let [w3, w2, w1, w0, h3, h2, h1, h0, bits, colours, compression, filter, interlace] = *fields;
    let channels = match colours {
        0 => 1,
        2 => 3,
        3 => return Err(Error::unsupported("PNG with a palette", "its samples are no voxels")),
        4 => 2,
        6 => 4,
        other => return Err(Error::codec(NAME, format!("colour type {other}"))),
    };
    let item_size = match bits {
        8 => 1,
        16 => 2,
        other => return Err(Error::codec(NAME, format!("samples of {other} bits"))),
    };
    if [compression, filter] != [0, 0] {
        return Err(Error::codec(NAME, format!("compression method {compression}, filter method {filter}")));
    }
    if interlace != 0 {
        return Err(Error::unsupported("interlaced PNG", "only rows from top to bottom are read"));
    }
    let side = [[w3, w2, w1, w0], [h3, h2, h1, h0]].map(|side| u32::from_be_bytes(side) as usize);
    Ok(Image { side, channels, item_size })
}

/// Fills `pixels`, as many as the image has.
fn decode_rows(stream: &[u8], image: &Image, pixels: &mut [u8]) -> Result<()> {
    let [_, height] = image.side;
    let mut filtered = Vec::new();
    resize(&mut filtered, pixels.len() + height)?;
    let decoded = Decompressor::new().zlib_decompress(stream, &mut filtered);
    check_len(NAME, decoded.map_err(|error| Error::codec(NAME, error.to_string()))?, filtered.len())?;
    match image.channels * image.item_size {
        1 => undo_filters::<1>(&filtered, height, pixels),
        2 => undo_filters::<2>(&filtered, height, pixels),
        3 => undo_filters::<3>(&filtered, height, pixels),
        4 => undo_filters::<4>(&filtered, height, pixels),
        6 => undo_filters::<6>(&filtered, height, pixels),
        _ => undo_filters::<8>(&filtered, height, pixels),
    }
}

/// Undoes the filters of rows of pixels of `P` bytes. `filtered` has a byte more for each of the `height` rows.
fn undo_filters<const P: usize>(filtered: &[u8], height: usize, pixels: &mut [u8]) -> Result<()> {
    let len = pixels.len() / height.max(1);
    let zeros = vec![[0; P]; len / P];
    let mut above = zeros.as_slice();
    for (filtered, row) in filtered.chunks_exact(len + 1).zip(pixels.chunks_exact_mut(len.max(1))) {
        let Some((filter, filtered)) = filtered.split_first() else { break };
        let (filtered, _) = filtered.as_chunks::<P>();
        let (row, _) = row.as_chunks_mut::<P>();
        match filter {
            0 => row.copy_from_slice(filtered),
            1 => undo::<P>(filtered, above, row, |left, _, _| left),
            2 => undo::<P>(filtered, above, row, |_, above, _| above),
            3 => undo::<P>(filtered, above, row, |left, above, _| ((u16::from(left) + u16::from(above)) / 2) as u8),
            4 => undo::<P>(filtered, above, row, paeth),
            other => return Err(Error::codec(NAME, format!("a row with filter {other}"))),
        }
        above = row;
    }
    Ok(())
}

/// Adds to each byte what `predict` makes of the bytes to the left, above, and above to the left.
fn undo<const P: usize>(
    filtered: &[[u8; P]],
    above: &[[u8; P]],
    row: &mut [[u8; P]],
    predict: impl Fn(u8, u8, u8) -> u8,
) {
    let (mut left, mut above_left) = ([0; P], [0; P]);
    for ((pixel, above), filtered) in row.iter_mut().zip(above).zip(filtered) {
        for byte in 0..P {
            pixel[byte] = filtered[byte].wrapping_add(predict(left[byte], above[byte], above_left[byte]));
        }
        (left, above_left) = (*pixel, *above);
    }
}

/// Of the three bytes the one that is nearest to left + above - above_left (§9.4).
fn paeth(left: u8, above: u8, above_left: u8) -> u8 {
    let [a, b, c] = [left, above, above_left].map(i16::from);
    let [to_left, to_above, to_above_left] = [b - c, a - c, a + b - 2 * c].map(i16::abs);
    // Selected, not branched on: what is nearest in an image is anyone's guess.
    let (nearest, distance) = if to_above < to_left { (above, to_above) } else { (left, to_left) };
    if to_above_left < distance { above_left } else { nearest }
}
