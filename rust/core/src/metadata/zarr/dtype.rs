//! Names of data types -> [`DataType`]: Zarr v3 extensions and numpy type strings of v2.

use super::Extension;
use crate::dtype::{DataType, Endian};
use crate::error::{Error, Result};
use crate::metadata::json::Node;
use crate::metadata::limits::MAX_ITEM_NBYTES;

/// Units of numpy's `datetime64` and `timedelta64`.
const TIME_UNITS: [&str; 14] = ["Y", "M", "W", "D", "h", "m", "s", "ms", "us", "μs", "ns", "ps", "fs", "as"];

/// A version 3 `data_type`.
pub(super) fn v3(node: Node<'_>) -> Result<DataType> {
    let extension = Extension::parse_required(node)?;
    let core = match extension.name {
        "bool" => Some(DataType::Bool),
        "float16" => Some(DataType::Float(2)),
        "complex64" => Some(DataType::Complex(8)),
        "complex128" => Some(DataType::Complex(16)),
        "string" | "bytes" | "variable_length_bytes" | "binary" => Some(DataType::Object),
        name => match name.strip_prefix('r').filter(|bits| bits.bytes().all(|b| b.is_ascii_digit())) {
            Some("") | None => DataType::number(name),
            Some(bits) => Some(raw(&extension.node, bits)?),
        },
    };
    let Some(dtype) = core else {
        return Err(Error::unsupported(
            format!("data type `{}`", extension.name),
            "read are bool, integers, floats, complex, r<bits>, string and bytes",
        ));
    };
    extension.only(&[])?;
    Ok(dtype)
}

/// `r<bits>`.
fn raw(node: &Node<'_>, bits: &str) -> Result<DataType> {
    match bits.parse::<u64>() {
        Ok(n) if n % 8 == 0 => Ok(DataType::Raw(item_nbytes(node, n / 8)?)),
        _ => Err(node.error(format!("`r{bits}` is not a multiple of 8 bits"))),
    }
}

/// Checks the size of an element.
fn item_nbytes(node: &Node<'_>, nbytes: u64) -> Result<u32> {
    match nbytes {
        0 => Err(node.error("elements of no bytes")),
        1..=MAX_ITEM_NBYTES => Ok(nbytes as u32),
        _ => Err(Error::limit("bytes of one element", nbytes, MAX_ITEM_NBYTES)),
    }
}

/// A version 2 `dtype`: a numpy type string such as `<u2`, and the byte order it names (of single bytes: little).
pub(super) fn v2(node: &Node<'_>) -> Result<(DataType, Endian)> {
    if node.items(usize::MAX).is_ok() {
        return Err(Error::unsupported("structured data types", "split the fields into arrays"));
    }
    let text = node.short_str()?;
    let malformed = || node.error(format!("{text:?} is not a numpy type string"));
    let mut rest = text.chars();
    let order = rest.next().filter(|c| "<>|".contains(*c)).ok_or_else(malformed)?;
    let kind = rest.next().ok_or_else(malformed)?;
    let rest = rest.as_str();
    if matches!(kind, 'M' | 'm') {
        let unit = rest.strip_prefix('8').ok_or_else(malformed)?;
        let unit = v2_time_unit(unit)
            .ok_or_else(|| Error::unsupported(format!("data type `{text}`"), "times need a unit, such as `<M8[ns]`"))?;
        let dtype = if kind == 'M' { DataType::DateTime(unit) } else { DataType::TimeDelta(unit) };
        return Ok((dtype, v2_order(node, order)?));
    }
    if text == "|O" {
        return Ok((DataType::Object, Endian::NATIVE));
    }
    let size = match rest.bytes().all(|b| b.is_ascii_digit()) {
        true => rest.parse::<u64>().map_err(|_| malformed())?,
        false => return Err(malformed()),
    };
    let dtype = match (kind, size) {
        ('b', 1) => DataType::Bool,
        ('i', 1 | 2 | 4 | 8) => DataType::Int(size as u8),
        ('u', 1 | 2 | 4 | 8) => DataType::UInt(size as u8),
        ('f', 2 | 4 | 8) => DataType::Float(size as u8),
        ('c', 8 | 16) => DataType::Complex(size as u8),
        ('S', n) => DataType::FixedBytes(item_nbytes(node, n)?),
        ('V', n) => DataType::Raw(item_nbytes(node, n)?),
        ('U', n) => DataType::FixedUtf32(item_nbytes(node, n.saturating_mul(4))? / 4),
        ('f', 12 | 16) | ('c', 24 | 32) => {
            return Err(Error::unsupported(format!("data type `{text}`"), "long doubles differ between machines"));
        }
        ('b' | 'i' | 'u' | 'f' | 'c', _) => return Err(malformed()),
        _ => return Err(Error::unsupported(format!("data type `{text}`"), "read are the kinds b i u f c m M S U V O")),
    };
    let endian = if dtype.swap_unit() == 1 { Endian::Little } else { v2_order(node, order)? };
    Ok((dtype, endian))
}

fn v2_order(node: &Node<'_>, order: char) -> Result<Endian> {
    match order {
        '<' => Ok(Endian::Little),
        '>' => Ok(Endian::Big),
        _ => Err(node.error("elements of several bytes need the byte order `<` or `>`")),
    }
}

/// `[ns]` or `[25s]` -> `ns`, `25s`.
fn v2_time_unit(text: &str) -> Option<String> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let unit = inner.trim_start_matches(|c: char| c.is_ascii_digit());
    let factor = inner.strip_suffix(unit)?;
    let legal = TIME_UNITS.contains(&unit) && (factor.is_empty() || factor.parse::<i32>().is_ok_and(|f| f > 0));
    legal.then(|| inner.replace('μ', "u"))
}
