//! The array -> array codecs that change elements: stored elements -> those of the array, both in native byte order.
//!
//! Sources: numcodecs 0.16 (`delta`, `fixedscaleoffset`, `astype`, `quantize`, `packbits`), bit for bit; zarr-extensions
//! (`scale_offset`, `cast_value`, `packbits`). See [`ElementStep`] for what each does.

use super::number::{Number, Value, integer_range, with_number};
use super::sink::{check_len, resize};
use crate::dtype::{DataType, Endian};
use crate::error::{Error, Result};
use crate::metadata::{BitPacking, CastSpec, ElementCodec, ElementStep, OutOfRange, PaddingByte, Rounding};

/// 2^127: an `i128` holds smaller integers.
const WIDE: f64 = 170_141_183_460_469_231_731_687_303_715_884_105_728.0;

/// Decodes the stored elements of a chunk into `out`. `codecs` are in encoding order, not empty; `stored` is as long as their
/// types say for the elements of `out`.
///
/// # Errors
/// `Codec` when a value is not allowed or a length is wrong, `Limit` when memory is short.
pub(super) fn decode(codecs: &[ElementCodec], stored: &[u8], out: &mut [u8]) -> Result<()> {
    let (before, codec) = match codecs {
        [] => return Err(Error::internal("no codecs of elements")),
        [codec] => return decode_one(codec, stored, out),
        [before @ .., codec] => (before, codec),
    };
    let first = before.first().unwrap_or(codec);
    let count = out.len() / first.decoded.item_size().max(1);
    let mut decoded = Vec::new();
    resize(&mut decoded, count.saturating_mul(codec.decoded.item_size()))?;
    decode_one(codec, stored, &mut decoded)?;
    decode(before, &decoded, out)
}

fn decode_one(codec: &ElementCodec, stored: &[u8], out: &mut [u8]) -> Result<()> {
    let count = (out.len() / codec.decoded.item_size().max(1)) as u64;
    let expected = codec.encoded_nbytes(count).and_then(|nbytes| usize::try_from(nbytes).ok()).unwrap_or(usize::MAX);
    check_len(codec.name, stored.len(), expected)?;
    if let ElementStep::Unpack(packing) = &codec.step {
        return unpack(codec, packing, stored, out);
    }
    let other = || Err(Error::internal(format!("`{}` of elements that are no numbers", codec.name)));
    with_number!(codec.encoded, From => with_number!(codec.decoded, To => convert::<From, To>(codec, stored, out), other()), other())
}

/// A codec of one stored element for one element.
fn convert<From: Number, To: Number>(codec: &ElementCodec, stored: &[u8], out: &mut [u8]) -> Result<()> {
    match &codec.step {
        ElementStep::Cast => each::<From, To>(stored, out, |stored| To::cast(stored.value())),
        ElementStep::Sum => {
            let mut sum: Option<To> = None;
            each::<From, To>(stored, out, |stored| {
                let step = To::cast(stored.value());
                let next = sum.map_or(step, |sum| sum.sum(step));
                *sum.insert(next)
            });
        }
        ElementStep::FixedScaleOffset { scale, offset } => {
            each::<From, To>(stored, out, |stored| To::cast(stored.scaled(*scale, *offset)));
        }
        ElementStep::ScaleOffset { scale, offset } => {
            let (scale, offset) = (To::load(scale).value(), To::load(offset).value());
            let range = integer_range(&codec.decoded);
            return try_each::<From, To>(stored, out, |stored| {
                Ok(To::cast(scale_offset(codec, stored, (scale, offset), range)?))
            });
        }
        ElementStep::CastValue(spec) => {
            let map: Vec<_> = spec.map.iter().map(|(from, to)| (From::load(from).value(), To::load(to))).collect();
            return try_each::<From, To>(stored, out, |stored| {
                let value = stored.value();
                match map.iter().find(|(from, _)| is_same(*from, value)) {
                    Some((_, to)) => Ok(*to),
                    None => cast_value(codec, spec, value),
                }
            });
        }
        ElementStep::Unpack(_) => {}
    }
    Ok(())
}

fn each<From: Number, To: Number>(stored: &[u8], out: &mut [u8], mut decode: impl FnMut(From) -> To) {
    for (to, from) in out.chunks_exact_mut(To::NBYTES).zip(stored.chunks_exact(From::NBYTES)) {
        decode(From::load(from)).store(to);
    }
}

fn try_each<From: Number, To: Number>(
    stored: &[u8],
    out: &mut [u8],
    mut decode: impl FnMut(From) -> Result<To>,
) -> Result<()> {
    for (to, from) in out.chunks_exact_mut(To::NBYTES).zip(stored.chunks_exact(From::NBYTES)) {
        decode(From::load(from))?.store(to);
    }
    Ok(())
}

/// `stored / scale + offset`, all of one type. `range` is that of an integer type.
fn scale_offset(
    codec: &ElementCodec,
    stored: impl Number,
    (scale, offset): (Value, Value),
    range: Option<(i128, i128)>,
) -> Result<Value> {
    let Some((min, max)) = range else { return Ok(stored.scaled(f64::cast(scale), f64::cast(offset))) };
    // Numbers of 64 bits cannot overflow 128.
    let (wide, scale) = (integer(stored.value()), integer(scale));
    let quotient = wide.checked_div(scale);
    let quotient = quotient.ok_or_else(|| Error::codec(codec.name, "elements cannot be divided by 0"))?;
    let sum = quotient + integer(offset);
    if quotient * scale != wide || sum < min || sum > max {
        let what = format!("{wide} / {scale} + {} is no {}", integer(offset), codec.decoded.numpy_name());
        return Err(Error::codec(codec.name, what));
    }
    Ok(of_integer(sum))
}

/// Equal numbers, or both no numbers.
fn is_same(one: Value, other: Value) -> bool {
    matches!((one, other), (Value::Float(one), Value::Float(other)) if one.is_nan() && other.is_nan()) || one == other
}

fn cast_value<To: Number>(codec: &ElementCodec, spec: &CastSpec, value: Value) -> Result<To> {
    let refuse = |value: &dyn std::fmt::Display| {
        Err(Error::codec(codec.name, format!("{value} is no {}", codec.decoded.numpy_name())))
    };
    let Some((min, max)) = integer_range(&codec.decoded) else {
        // Clamped, a value beyond the largest is infinity, which floats have.
        let (given, cast) = (f64::cast(value), To::cast(value));
        let is_beyond = given.is_finite() && f64::cast(cast.value()).is_infinite();
        return if is_beyond && spec.out_of_range != OutOfRange::Clamp { refuse(&given) } else { Ok(cast) };
    };
    let wide = match value {
        Value::Int(_) | Value::UInt(_) => integer(value),
        Value::Float(value) if value.is_nan() => return refuse(&value),
        Value::Float(value) => {
            let whole = match spec.rounding {
                Rounding::NearestEven => value.round_ties_even(),
                Rounding::NearestAway => value.round(),
                Rounding::TowardsZero => value.trunc(),
                Rounding::TowardsPositive => value.ceil(),
                Rounding::TowardsNegative => value.floor(),
            };
            match spec.out_of_range {
                OutOfRange::Wrap if value.is_infinite() => return refuse(&value),
                // Low bits of so large a number are 0.
                OutOfRange::Wrap if whole.abs() >= WIDE => 0,
                _ => whole as i128,
            }
        }
    };
    match spec.out_of_range {
        _ if (min..=max).contains(&wide) => Ok(To::cast(of_integer(wide))),
        OutOfRange::Refuse => refuse(&wide),
        OutOfRange::Clamp => Ok(To::cast(of_integer(wide.clamp(min, max)))),
        OutOfRange::Wrap => Ok(To::cast(Value::UInt(wide as u64))),
    }
}

fn integer(value: Value) -> i128 {
    match value {
        Value::Int(value) => value.into(),
        Value::UInt(value) => value.into(),
        Value::Float(value) => value as i128,
    }
}

/// The value of an integer, of which the low 64 bits are looked at.
fn of_integer(value: i128) -> Value {
    if value < 0 { Value::Int(value as i64) } else { Value::UInt(value as u64) }
}

/// Elements whose bits follow each other.
fn unpack(codec: &ElementCodec, packing: &BitPacking, stored: &[u8], out: &mut [u8]) -> Result<()> {
    let components = if let DataType::Complex(_) = codec.decoded { 2 } else { 1 };
    let component_nbytes = codec.decoded.item_size() / components;
    let nbits = packing.last_bit - packing.first_bit + 1;
    let (padding, bytes) = match packing.padding {
        PaddingByte::None => (None, stored),
        PaddingByte::First => (stored.first(), stored.get(1..).unwrap_or_default()),
        PaddingByte::Last => (stored.last(), stored.split_last().map_or(stored, |(_, bytes)| bytes)),
    };
    let bits = (out.len() / component_nbytes.max(1)) as u64 * u64::from(nbits);
    let expected = bits.next_multiple_of(8) - bits;
    if let Some(padding) = padding
        && u64::from(*padding) != expected
    {
        return Err(Error::codec(codec.name, format!("{padding} bits of padding, expected {expected}")));
    }
    let is_signed = matches!(codec.decoded, DataType::Int(_));
    let unused = 64 - nbits;
    let mut at = 0;
    for component in out.chunks_exact_mut(component_nbytes.max(1)) {
        let mut number = 0;
        if packing.high_first {
            number = u64::from(bytes.get(at / 8).is_some_and(|byte| byte << (at % 8) & 0x80 != 0));
        } else {
            // 64 bits may lie in 9 bytes.
            let mut wide = [0; 16];
            let from = bytes.get(at / 8..).unwrap_or_default();
            wide.iter_mut().zip(from).take(9).for_each(|(to, from)| *to = *from);
            number |= (u128::from_le_bytes(wide) >> (at % 8)) as u64;
        }
        number <<= unused;
        number = if is_signed { ((number as i64) >> unused) as u64 } else { number >> unused };
        let little = (number << packing.first_bit).to_le_bytes();
        component.iter_mut().zip(little).for_each(|(to, from)| *to = from);
        if Endian::NATIVE == Endian::Big {
            component.reverse();
        }
        at += nbits as usize;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn step(decoded: DataType, encoded: DataType, step: ElementStep) -> ElementCodec {
        ElementCodec { name: "step", decoded, encoded, step }
    }

    fn bytes(numbers: &[i16]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
    }

    #[test]
    fn steps_are_undone_from_the_last_to_the_first() {
        let sum = step(DataType::Int(2), DataType::Int(1), ElementStep::Sum);
        let scaled =
            step(DataType::Int(2), DataType::Int(2), ElementStep::FixedScaleOffset { scale: 0.5, offset: 1.0 });
        let wider = step(DataType::Int(1), DataType::Int(2), ElementStep::Cast);
        let mut out = vec![0xa5; 6];
        decode(&[scaled.clone(), sum.clone()], &[5, 1, 0xff], &mut out).unwrap();
        assert_eq!(out, bytes(&[11, 13, 11]));
        decode(&[scaled, sum.clone(), wider], &bytes(&[5, 1, 255]), &mut out).unwrap();
        assert_eq!(out, bytes(&[11, 13, 11]));
        for stored in [&[1, 2][..], &[1, 2, 3, 4]] {
            let refused = decode(std::slice::from_ref(&sum), stored, &mut out).unwrap_err();
            assert!(matches!(refused.kind(), ErrorKind::Codec { .. }));
        }
        let raw = step(DataType::Raw(2), DataType::Int(1), ElementStep::Cast);
        assert!(matches!(decode(&[raw], &[1, 2, 3], &mut out).unwrap_err().kind(), ErrorKind::Internal { .. }));
    }

    #[test]
    fn integers_are_divided_without_a_rest_and_do_not_overflow() {
        let codec = |scale: i16, offset: i16| {
            let (scale, offset) = (bytes(&[scale]), bytes(&[offset]));
            step(DataType::Int(2), DataType::Int(2), ElementStep::ScaleOffset { scale, offset })
        };
        let decode = |scale, offset, stored: i16| {
            let mut out = [0; 2];
            decode(&[codec(scale, offset)], &bytes(&[stored]), &mut out).map(|()| i16::from_ne_bytes(out))
        };
        for (scale, offset, stored, expected) in [
            (2, 0, -8, Some(-4)),
            (-2, 0, 8, Some(-4)),
            (-2, 0, -6, Some(3)),
            (2, 10, 6, Some(13)),
            (2, 0, 7, None),
            (-2, 0, 7, None),
            (2, 0, -7, None),
            (-1, 0, i16::MIN, None),
            (-1, -1, i16::MIN, Some(i16::MAX)),
            (1, 1, i16::MAX, None),
            (1, -1, i16::MIN, None),
            (0, 0, 1, None),
        ] {
            let decoded = decode(scale, offset, stored);
            assert_eq!(decoded.as_ref().ok(), expected.as_ref(), "{stored} / {scale} + {offset}: {decoded:?}");
        }
    }

    #[test]
    fn bits_are_taken_from_where_they_lie() {
        let unpack = |decoded, high_first, padding, first_bit, last_bit| {
            let packing = BitPacking { high_first, padding, first_bit, last_bit };
            step(decoded, DataType::UInt(1), ElementStep::Unpack(packing))
        };
        let mut bools = [7; 5];
        decode(&[unpack(DataType::Bool, true, PaddingByte::First, 0, 0)], &[3, 0b1011_0000], &mut bools).unwrap();
        assert_eq!(bools, [1, 0, 1, 1, 0]);
        decode(&[unpack(DataType::Bool, false, PaddingByte::Last, 0, 0)], &[0b0000_1101, 3], &mut bools).unwrap();
        assert_eq!(bools, [1, 0, 1, 1, 0]);
        let first = unpack(DataType::Bool, true, PaddingByte::First, 0, 0);
        for stored in [&[2, 0][..], &[3], &[3, 0, 0], &[11, 0]] {
            let refused = decode(std::slice::from_ref(&first), stored, &mut bools).unwrap_err();
            assert!(matches!(refused.kind(), ErrorKind::Codec { .. }), "{stored:?}");
        }
        // 3 bits from bit 2 on: 0b011, 0b100, of which the second is negative.
        let mut numbers = [0; 4];
        decode(&[unpack(DataType::Int(2), false, PaddingByte::None, 2, 4)], &[0b10_0011], &mut numbers).unwrap();
        assert_eq!(numbers.to_vec(), bytes(&[12, -16]));
        // All bits of 8 bytes that do not begin with a byte.
        let mut wide = [0; 16];
        let stored: Vec<u8> = (1..=15).collect();
        decode(&[unpack(DataType::UInt(8), false, PaddingByte::None, 4, 63)], &stored, &mut wide).unwrap();
        let all = stored.iter().rev().fold(0u128, |number, byte| number << 8 | u128::from(*byte));
        let expected = [(all as u64) << 4, ((all >> 60) as u64) << 4].map(u64::to_ne_bytes).concat();
        assert_eq!(wide.to_vec(), expected);
    }
}
