//! JSON fill values -> the bytes of one element.
//!
//! Zarr v3 core, "fill value"; Zarr v2, "fill value encoding". Both versions share one reader: their forms do not
//! contradict each other. Besides them, an integer may be written with a zero fraction, a bool as 0 or 1, a complex
//! number without its imaginary part.

use serde_json::Value;

use crate::dtype::{Conversion, DataType, Endian, FloatFormat, Form, Record};
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
        DataType::Float(size) => native(float(node, FloatFormat::ieee(*size))?, *size),
        DataType::Narrow(narrow) => {
            let bits = match narrow.form {
                Form::Int(bits) => integer(node, -(1 << (bits - 1)), (1 << (bits - 1)) - 1)? as u64,
                Form::UInt(bits) => integer(node, 0, (1 << bits) - 1)? as u64,
                Form::Float(format) => float(node, format)?,
            };
            native(bits & (u64::MAX >> (64 - narrow.bits())), dtype.item_size() as u8)
        }
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
        DataType::Record(record) => match node.value {
            Value::Object(_) if record.fields().iter().all(|field| field.shape.is_empty()) => fields(node, record),
            _ => {
                // As stored: in the byte order of each field, which is little where it has none of its own.
                let mut bytes = base64(node, dtype.item_size())?;
                Conversion::new(dtype, Endian::Little).apply(&mut bytes);
                Ok(bytes)
            }
        },
        // Its meaning is for those who know what the elements are.
        DataType::Object => Ok(vec![0; 8]),
    }
}

/// One value a field, by name.
fn fields(node: &Node<'_>, record: &Record) -> Result<Vec<u8>> {
    if let Some((name, value)) = node.members()?.find(|(name, _)| record.fields().iter().all(|f| f.name != *name)) {
        return Err(value.error(format!("the data type has no field {name:.40?}")));
    }
    let mut element = Vec::new();
    for field in record.fields() {
        element.extend(bytes(&node.require(&field.name)?, &field.dtype)?);
    }
    Ok(element)
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

/// The bits of a float: a number, `NaN`, `Infinity`, `-Infinity`, or the bits as `0x...`.
fn float(node: &Node<'_>, format: FloatFormat) -> Result<u64> {
    let bits = format.bits;
    match node.value {
        Value::Number(number) => {
            // Through a double, as Zarr's own writers and readers do.
            let value = number.as_f64().ok_or_else(|| node.expected("a number"))?;
            format.encode(value).ok_or_else(|| node.error(format!("{number} does not fit {bits} bits")))
        }
        Value::String(text) => special(text, format)
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

/// The values that JSON has no number for.
fn special(text: &str, format: FloatFormat) -> Option<u64> {
    match text {
        "NaN" => format.nan(),
        "Infinity" => format.infinity(),
        "-Infinity" => format.minus_infinity(),
        _ => None,
    }
}

/// A pair of floats of `size` bytes each.
fn complex(node: &Node<'_>, size: u8) -> Result<Vec<u8>> {
    let format = FloatFormat::ieee(size);
    let (re, im) = if let Value::Array(_) = node.value {
        let parts = node.items(2)?.map(|part| float(&part, format)).collect::<Result<Vec<u64>>>()?;
        match parts.as_slice() {
            [re, im] => (*re, *im),
            _ => return Err(node.expected("a real and an imaginary part")),
        }
    } else {
        (float(node, format)?, 0)
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
