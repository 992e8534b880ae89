//! LZF blocks, as the filter of h5py for HDF5 writes them (32000, "lzf").
//!
//! Source: LibLZF 3, `lzf_d.c`. A block is a list of
//!
//! | bytes | what |
//! |---|---|
//! | `000LLLLL`, L + 1 bytes | these bytes |
//! | `LLLooooo`, `oooooooo` | L + 2 bytes from o + 1 bytes back; L is 1 to 6 |
//! | `111ooooo`, L, `oooooooo` | L + 9 bytes from o + 1 bytes back |

use super::sink::{check_len, resize};
use crate::error::{Error, Result};

const NAME: &str = "hdf5_lzf";

/// Decodes a block of exactly `out.len()` bytes.
///
/// # Errors
/// `Codec` when the block is broken or of another size.
pub(crate) fn decode_exact(encoded: &[u8], out: &mut [u8]) -> Result<()> {
    check_len(NAME, decoded_nbytes(encoded)?, out.len())?;
    let (mut rest, mut filled) = (encoded, 0usize);
    while let Some(item) = Item::take(&mut rest)? {
        let end = filled + item.nbytes();
        match item {
            Item::Bytes(bytes) => out.get_mut(filled..end).ok_or_else(broken)?.copy_from_slice(bytes),
            Item::Back { distance, nbytes } => {
                let mut from = filled.checked_sub(distance).ok_or_else(broken)?;
                // Of a place less than `nbytes` back, what is copied is repeated.
                let mut left = nbytes;
                while left > 0 {
                    let len = left.min(end - left - from);
                    out.copy_within(from..from + len, end - left);
                    (from, left) = (from + len, left - len);
                }
            }
        }
        filled = end;
    }
    Ok(())
}

/// Decodes a block of at most `limit` bytes into `out`, which is emptied first.
///
/// # Errors
/// As [`decode_exact`]; `Codec` when there are more than `limit` bytes, `Limit` when memory is short.
pub(crate) fn decode_bounded(encoded: &[u8], limit: u64, out: &mut Vec<u8>) -> Result<()> {
    let nbytes = decoded_nbytes(encoded)?;
    if nbytes as u64 > limit {
        return Err(Error::codec(NAME, format!("decodes to {nbytes} bytes, at most {limit} are possible")));
    }
    out.clear();
    resize(out, nbytes)?;
    decode_exact(encoded, out)
}

/// Bytes that a block decodes to: at most 264 for 3.
fn decoded_nbytes(encoded: &[u8]) -> Result<usize> {
    let (mut rest, mut nbytes) = (encoded, 0);
    while let Some(item) = Item::take(&mut rest)? {
        nbytes += item.nbytes();
    }
    Ok(nbytes)
}

enum Item<'a> {
    Bytes(&'a [u8]),
    Back { distance: usize, nbytes: usize },
}

impl<'a> Item<'a> {
    /// Takes the next item off the front of `rest`; None at the end.
    fn take(rest: &mut &'a [u8]) -> Result<Option<Self>> {
        let Some((&control, mut after)) = rest.split_first() else { return Ok(None) };
        let (high, low) = (usize::from(control >> 5), usize::from(control & 31));
        let item = if high == 0 {
            let (bytes, rest) = after.split_at_checked(low + 1).ok_or_else(broken)?;
            after = rest;
            Self::Bytes(bytes)
        } else {
            let mut next = || -> Result<usize> {
                let (&byte, rest) = after.split_first().ok_or_else(broken)?;
                after = rest;
                Ok(usize::from(byte))
            };
            let nbytes = if high == 7 { 9 + next()? } else { high + 2 };
            Self::Back { distance: (low << 8 | next()?) + 1, nbytes }
        };
        *rest = after;
        Ok(Some(item))
    }

    fn nbytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Back { nbytes, .. } => *nbytes,
        }
    }
}

fn broken() -> Error {
    Error::codec(NAME, "the block is truncated or refers to bytes before its start")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_copied_and_repeated() {
        let table: [(&[u8], Option<&[u8]>); 9] = [
            (b"", Some(b"")),
            (b"\x02abc", Some(b"abc")),
            (b"\x02abc\x20\x02", Some(b"abcabc")),
            (b"\x01ab\x60\x00", Some(b"abbbbbb")),
            (b"\x01ab\xe0\x02\x01", Some(b"ababababababa")),
            (b"\x02ab", None),
            (b"\x01ab\x20", None),
            (b"\x01ab\x20\x02", None),
            (b"\x01ab\xe0\x02", None),
        ];
        for (encoded, expected) in table {
            let mut vec = Vec::new();
            let grown = decode_bounded(encoded, 13, &mut vec).ok().map(|()| vec);
            let expected = expected.map(|bytes| bytes.to_vec());
            assert_eq!(grown, expected, "{encoded:?}");
            for nbytes in 0..16 {
                let mut out = vec![0xa5; nbytes];
                let exact = decode_exact(encoded, &mut out).ok().map(|()| out);
                assert_eq!(exact, expected.clone().filter(|bytes| bytes.len() == nbytes), "{encoded:?}");
            }
        }
        decode_bounded(b"\x02abc", 2, &mut Vec::new()).unwrap_err();
    }
}
