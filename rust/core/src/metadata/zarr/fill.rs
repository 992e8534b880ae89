//! JSON fill values -> the bytes of one element.
//!
//! Zarr v3 core, "fill value"; Zarr v2, "fill value encoding". Both versions share one reader: their forms do not
//! contradict each other. Besides them, an integer may be written with a zero fraction, a bool as 0 or 1, a complex
//! number without its imaginary part.

use serde_json::Value;

use crate::dtype::DataType;
use crate::error::Result;
use crate::metadata::json::Node;

/// One element in native byte order, `dtype.item_size()` bytes.
pub(super) fn bytes(node: &Node<'_>, dtype: &DataType) -> Result<Vec<u8>> {
    match dtype {
        DataType::Bool => Ok(vec![u8::from(boolean(node)?)]),
        DataType::Int(size) => {
            let max = (1u64 << (*size * 8 - 1)) - 1;
            native(integer(node, -(max as i64) - 1, max)? as u64, *size)
        }
        DataType::UInt(size) => native(integer(node, 0, u64::MAX >> (64 - *size * 8))? as u64, *size),
        DataType::Float(size) => native(float(node, *size)?, *size),
        DataType::Complex(size) => complex(node, *size / 2),
        DataType::DateTime(_) | DataType::TimeDelta(_) => {
            let value =
                if node.str() == Ok("NaT") { i64::MIN } else { integer(node, i64::MIN, i64::MAX as u64)? as i64 };
            native(value as u64, 8)
        }
        DataType::Raw(size) => match node.value {
            Value::Array(_) => {
                let bytes = node.items(*size as usize)?.map(|item| Ok(item.integer(0, 255)? as u8));
                let bytes = bytes.collect::<Result<Vec<u8>>>()?;
                if bytes.len() == *size as usize { Ok(bytes) } else { Err(node.expected(&format!("{size} bytes"))) }
            }
            _ => base64(node, *size as usize),
        },
        DataType::FixedBytes(size) => base64(node, *size as usize),
        DataType::FixedUtf32(length) => utf32(node, *length as usize),
        // Its meaning is for those who know what the elements are.
        DataType::Object => Ok(vec![0; 8]),
    }
}

/// The low `size` bytes of `value`, in native order.
fn native(value: u64, size: u8) -> Result<Vec<u8>> {
    let mut bytes: Vec<u8> = value.to_le_bytes().into_iter().take(size.into()).collect();
    if cfg!(target_endian = "big") {
        bytes.reverse();
    }
    Ok(bytes)
}

fn boolean(node: &Node<'_>) -> Result<bool> {
    match node.value.as_u64() {
        Some(0) => Ok(false),
        Some(1) => Ok(true),
        _ => node.bool(),
    }
}

/// An integer in `min..=max`; also a number such as `3.0` or `1e3`, as long as doubles hold it exactly.
fn integer(node: &Node<'_>, min: i64, max: u64) -> Result<i128> {
    const EXACT: f64 = (1u64 << 53) as f64;
    if let Value::Number(number) = node.value
        && number.is_f64()
        && let Some(value) = number.as_f64()
        && value.fract() == 0.0
        && value.abs() <= EXACT
        && (i128::from(min)..=i128::from(max)).contains(&(value as i128))
    {
        return Ok(value as i128);
    }
    node.integer(min, max)
}

/// The bits of a float of `size` bytes: a number, `NaN`, `Infinity`, `-Infinity`, or the bits as `0x...`.
fn float(node: &Node<'_>, size: u8) -> Result<u64> {
    let bits = u32::from(size) * 8;
    match node.value {
        Value::Number(number) => {
            let value = number.as_f64().ok_or_else(|| node.expected("a number"))?;
            // Through a double, as Zarr's own writers and readers do.
            let (encoded, finite) = match size {
                2 => (u64::from(half_bits(value)), half_bits(value) & 0x7c00 != 0x7c00),
                4 => (u64::from((value as f32).to_bits()), (value as f32).is_finite()),
                _ => (value.to_bits(), value.is_finite()),
            };
            if finite { Ok(encoded) } else { Err(node.error(format!("{number} does not fit {bits} bits"))) }
        }
        Value::String(text) => special(text, size)
            .or_else(|| {
                let digits = text.strip_prefix("0x").filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
                u64::from_str_radix(digits, 16).ok().filter(|value| *value <= u64::MAX >> (64 - bits))
            })
            .ok_or_else(|| {
                node.expected(&format!("a number, NaN, Infinity, -Infinity or the {bits} bits as hexadecimal"))
            }),
        _ => Err(node.expected("a number or a string")),
    }
}

/// The values that JSON has no number for. NaN is positive, with the quiet bit alone.
fn special(text: &str, size: u8) -> Option<u64> {
    let (infinity, quiet) = match size {
        2 => (0x7c00, 1 << 9),
        4 => (0x7f80_0000, 1 << 22),
        _ => (0x7ff0_0000_0000_0000, 1 << 51),
    };
    match text {
        "NaN" => Some(infinity | quiet),
        "Infinity" => Some(infinity),
        "-Infinity" => Some(infinity | (1 << (u32::from(size) * 8 - 1))),
        _ => None,
    }
}

/// A double rounded to IEEE half precision, ties to even.
fn half_bits(value: f64) -> u16 {
    let sign = u16::from(value.is_sign_negative()) << 15;
    let magnitude = value.abs();
    if magnitude >= 65520.0 {
        return sign | 0x7c00;
    }
    // Subnormals share the spacing 2^-24 of the smallest normals.
    let exponent = ((magnitude.to_bits() >> 52) as i64 - 1023).max(-14);
    let units_per_one = f64::from_bits(((1023 + 10 - exponent) as u64) << 52);
    let units = (magnitude * units_per_one).round_ties_even() as u16;
    // A normal number has units >= 1024: its leading one adds the last step of the exponent, as does a carry.
    sign | ((((exponent + 14) as u16) << 10) + units)
}

/// A pair of floats of `size` bytes each.
fn complex(node: &Node<'_>, size: u8) -> Result<Vec<u8>> {
    let (re, im) = if let Value::Array(_) = node.value {
        let parts = node.items(2)?.map(|part| float(&part, size)).collect::<Result<Vec<u64>>>()?;
        match parts.as_slice() {
            [re, im] => (*re, *im),
            _ => return Err(node.expected("a real and an imaginary part")),
        }
    } else {
        (float(node, size)?, 0)
    };
    Ok([native(re, size)?, native(im, size)?].concat())
}

/// Code points of a string, padded with NUL to `length`.
fn utf32(node: &Node<'_>, length: usize) -> Result<Vec<u8>> {
    // Writers of old put the number 0 where they meant the empty string.
    let text = if node.value.as_u64() == Some(0) { "" } else { node.str()? };
    if text.chars().count() > length {
        return Err(node.expected(&format!("at most {length} characters")));
    }
    let mut bytes: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_ne_bytes()).collect();
    bytes.resize(length * 4, 0);
    Ok(bytes)
}

/// Base64 (RFC 4648, padded) of up to `size` bytes, padded with NUL to `size`.
fn base64(node: &Node<'_>, size: usize) -> Result<Vec<u8>> {
    if node.value.as_u64() == Some(0) {
        return Ok(vec![0; size]);
    }
    let text = node.str().map_err(|_| node.expected("bytes in base64"))?;
    let digits = text.trim_end_matches('=');
    let mut bytes = Vec::new();
    let (mut word, mut bits) = (0u32, 0);
    for digit in digits.bytes() {
        let sextet = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(node.expected("bytes in base64")),
        };
        word = (word << 6) | u32::from(sextet);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits) as u8);
            word &= (1 << bits) - 1;
        }
    }
    if text.len() % 4 != 0 || text.len() - digits.len() > 2 || word != 0 {
        return Err(node.expected("bytes in base64"));
    }
    if bytes.len() > size {
        return Err(node.expected(&format!("at most {size} bytes")));
    }
    bytes.resize(size, 0);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::half_bits;

    #[test]
    fn halves_round_to_nearest_even() {
        let table = [
            (0.0, 0x0000),
            (-0.0, 0x8000),
            (1.0, 0x3c00),
            (-2.5, 0xc100),
            (0.1, 0x2e66),
            (1.0 / 3.0, 0x3555),
            (2049.0, 0x6800),         // tie, down to even
            (2051.0, 0x6802),         // tie, up to even
            (2f64.powi(-14), 0x0400), // smallest normal
            (1023.0 / 1024.0 * 2f64.powi(-14), 0x03ff),
            (1023.5 / 1024.0 * 2f64.powi(-14), 0x0400), // subnormal that rounds up to it
            (2f64.powi(-24), 0x0001),                   // smallest subnormal
            (2f64.powi(-25), 0x0000),                   // tie, down to even
            (2f64.powi(-25) * 1.001, 0x0001),
            (1e-300, 0x0000),
            (65504.0, 0x7bff),
            (65519.9, 0x7bff),
            (65520.0, 0x7c00),
            (f64::MAX, 0x7c00),
        ];
        for (value, bits) in table {
            assert_eq!(half_bits(value), bits, "{value}");
        }
    }
}
