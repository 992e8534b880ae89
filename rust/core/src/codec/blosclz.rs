//! BloscLZ streams, a dialect of FastLZ found inside Blosc chunks, decoded without unsafe code.
//!
//! In: one stream. Out: exactly the bytes of the given output. A stream is a sequence of instructions, the first of
//! which is always a literal run (only its low five bits count):
//!
//! | control byte | meaning |
//! |---|---|
//! | `000lllll` | `l + 1` literal bytes follow |
//! | `lllhhhhh`, l 1-7 | match of `l + 2` bytes; l = 7 adds bytes until one is not 255. Then one byte `o`: distance `h * 256 + o + 1`; when h = 31 and o = 255, two more bytes (big-endian) `d`: distance `d + 8192` |
//!
//! Lengths are summed in `usize` and compared with the room left before anything is written.

use super::sink::check_len;
use crate::error::{Error, Result};

const NAME: &str = "blosclz";

/// Distances from here on take two more bytes.
const FAR_DISTANCE: usize = 8192;

/// Most bytes of one literal run.
const MAX_LITERALS: usize = 32;

/// Bytes of a match copied at once where the output has room for writing past the end of a run.
const STEP: usize = 16;

/// Decodes one stream of exactly `out.len()` bytes.
///
/// # Errors
/// `Codec` when the stream ends early, points before its start, or has another size.
pub(super) fn decode_exact(encoded: &[u8], out: &mut [u8]) -> Result<()> {
    let mut input = Input { rest: encoded };
    let mut filled = 0;
    let mut control = input.byte()? & 31;
    loop {
        if control < 32 {
            let len = usize::from(control) + 1;
            let ahead = input.rest;
            let literals = input.take(len)?;
            let to = out.get_mut(filled..).unwrap_or_default();
            match (to.first_chunk_mut::<MAX_LITERALS>(), ahead.first_chunk()) {
                // Far from both ends: one copy of fixed size; what is too much is overwritten.
                (Some(to), Some(from)) => *to = *from,
                _ => room(out, filled, len)?.copy_from_slice(literals),
            }
            filled += len;
        } else {
            let mut len = usize::from(control >> 5) + 2;
            if control >> 5 == 7 {
                loop {
                    let more = input.byte()?;
                    len += usize::from(more);
                    if more != 255 {
                        break;
                    }
                }
            }
            let (high, low) = (usize::from(control & 31), usize::from(input.byte()?));
            let distance = if high == 31 && low == 255 {
                usize::from(input.byte()?) * 256 + usize::from(input.byte()?) + FAR_DISTANCE
            } else {
                high * 256 + low + 1
            };
            if distance > filled {
                return Err(Error::codec(NAME, format!("a match reaches {distance} bytes back after {filled} bytes")));
            }
            room(out, filled, len)?;
            copy_match(out, filled, distance, len);
            filled += len;
        }
        match input.rest.split_first() {
            Some((next, rest)) => (control, input.rest) = (*next, rest),
            None => return check_len(NAME, filled, out.len()),
        }
    }
}

struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8> {
        let (byte, rest) = self.rest.split_first().ok_or_else(truncated)?;
        self.rest = rest;
        Ok(*byte)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(truncated)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// The next `len` bytes of the output.
fn room(out: &mut [u8], filled: usize, len: usize) -> Result<&mut [u8]> {
    let expected = out.len();
    out.get_mut(filled..)
        .and_then(|rest| rest.get_mut(..len))
        .ok_or_else(|| Error::codec(NAME, format!("decodes to more than {expected} bytes")))
}

/// Repeats the bytes `distance` before `filled`; the caller has checked `distance` in `1..=filled` and the room.
fn copy_match(out: &mut [u8], filled: usize, distance: usize, len: usize) {
    let source = filled - distance;
    if distance >= STEP && out.len() - filled >= len + STEP {
        let mut done = 0;
        while done < len {
            out.copy_within(source + done..source + done + STEP, filled + done);
            done += STEP;
        }
    } else if distance == 1 {
        let byte = out[source];
        out[filled..filled + len].fill(byte);
    } else {
        // Each step copies all there is since `source`, a whole number of periods.
        let mut done = 0;
        while done < len {
            let step = (distance + done).min(len - done);
            out.copy_within(source..source + step, filled + done);
            done += step;
        }
    }
}

fn truncated() -> Error {
    Error::codec(NAME, "the stream is truncated")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(encoded: &[u8], len: usize) -> Result<Vec<u8>> {
        let mut out = vec![0xa5; len];
        decode_exact(encoded, &mut out).map(|()| out)
    }

    #[test]
    fn literals_runs_and_far_matches() {
        assert_eq!(decode(&[2, 1, 2, 3], 3), Ok(vec![1, 2, 3]));
        // A run: distance 1, length 3 + 2.
        assert_eq!(decode(&[0, 9, 3 << 5, 0], 6), Ok(vec![9; 6]));
        // A period of two, long length: 7 + 2 + 255 + 1.
        let pattern: Vec<u8> = (0..267).map(|i| i as u8 % 2).collect();
        assert_eq!(decode(&[1, 0, 1, 7 << 5, 255, 1, 1], 267), Ok(pattern));
        // 8192 literals, then 3 bytes from the largest near distance and the smallest far one.
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for run in 0..256u32 {
            stream.push(31);
            let literals = (0..32).map(|i| (run * 7 + i) as u8);
            stream.extend(literals.clone());
            expected.extend(literals);
        }
        stream.extend([1 << 5 | 31, 254, 1 << 5 | 31, 255, 0, 2]);
        expected.extend_from_within(1..4);
        expected.extend_from_within(1..4);
        assert_eq!(decode(&stream, 8198), Ok(expected));
    }

    #[test]
    fn lengths_that_pass_the_output_are_refused() {
        let mut stream = vec![0, 9, 7 << 5];
        stream.extend(std::iter::repeat_n(255, 9_000_000));
        stream.extend([0, 0]);
        assert!(decode(&stream, 65_536).is_err());
        for len in 0..10 {
            assert_eq!(decode(&[2, 1, 2, 3], len).is_ok(), len == 3);
            assert_eq!(decode(&[0, 9, 3 << 5, 0], len).is_ok(), len == 6);
        }
        assert!(decode(&[0, 9, 3 << 5, 1], 6).is_err(), "points before the start");
        assert!(decode(&[], 0).is_err());
    }
}
