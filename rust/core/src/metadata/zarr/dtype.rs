//! Names of data types -> [`DataType`]: Zarr v3 extensions and numpy type strings of v2.

use serde_json::Value;

use super::{Extension, extents};
use crate::dtype::{DataType, Endian, Field, Record};
use crate::error::{Error, Result};
use crate::metadata::json::Node;
use crate::metadata::limits::{MAX_FIELDS, MAX_ITEM_NBYTES};

/// Units of numpy's `datetime64` and `timedelta64`.
const TIME_UNITS: [&str; 14] = ["Y", "M", "W", "D", "h", "m", "s", "ms", "us", "μs", "ns", "ps", "fs", "as"];

/// A version 3 `data_type`.
pub(super) fn v3(node: Node<'_>) -> Result<DataType> {
    let extension = Extension::parse_required(node)?;
    let nbytes = |extension: &Extension<'_>| {
        extension.only(&["length_bytes"])?;
        let length = extension.require("length_bytes")?;
        item_nbytes(&length, length.u64()?)
    };
    let dtype = match extension.name {
        "bool" => DataType::Bool,
        "float16" => DataType::Float(2),
        "complex64" | "complex_float32" => DataType::Complex(8),
        "complex128" | "complex_float64" => DataType::Complex(16),
        "string" | "bytes" | "variable_length_bytes" | "binary" => DataType::Object,
        "numpy.datetime64" => return Ok(DataType::DateTime(v3_time_unit(&extension)?)),
        "numpy.timedelta64" => return Ok(DataType::TimeDelta(v3_time_unit(&extension)?)),
        "raw_bytes" => return Ok(DataType::Raw(nbytes(&extension)?)),
        "null_terminated_bytes" => return Ok(DataType::FixedBytes(nbytes(&extension)?)),
        "fixed_length_utf32" => {
            return match nbytes(&extension)? {
                n if n % 4 == 0 => Ok(DataType::FixedUtf32(n / 4)),
                _ => Err(extension.node.error("characters of UTF-32 have 4 bytes each")),
            };
        }
        "struct" | "structured" => return v3_record(&extension),
        name => match name.strip_prefix('r').filter(|bits| bits.bytes().all(|b| b.is_ascii_digit())) {
            Some("") | None => {
                DataType::number(name).or_else(|| DataType::narrow(name)).ok_or_else(|| unknown(name))?
            }
            Some(bits) => raw(&extension.node, bits)?,
        },
    };
    extension.only(&[])?;
    Ok(dtype)
}

fn unknown(name: &str) -> Error {
    let hint = if name.starts_with("complex_") {
        "numpy has no complex type of such numbers"
    } else {
        "read are numbers, bool, r<bits>, times, bytes and strings of fixed size, and structs of these"
    };
    Error::unsupported(format!("data type `{name}`"), hint)
}

/// Fields of a version 3 `struct`: objects, or pairs of name and type as `structured` has them.
fn v3_record(extension: &Extension<'_>) -> Result<DataType> {
    extension.only(&["fields"])?;
    let list = extension.require("fields")?;
    let mut fields = Vec::new();
    for item in list.items(MAX_FIELDS)? {
        let (name, dtype) = if let Value::Array(_) = item.value {
            let pair: Vec<Node<'_>> = item.items(2)?.collect();
            let [name, dtype] = pair.as_slice() else { return Err(item.expected("a name and a data type")) };
            (name.clone(), dtype.clone())
        } else {
            if let Some((member, _)) = item.members()?.find(|(member, _)| !matches!(*member, "name" | "data_type")) {
                return Err(item.error(format!("`{member:.40}` is not a member of a field (name, data_type)")));
            }
            (item.require("name")?, item.require("data_type")?)
        };
        let name = name.str().ok().filter(|name| !name.is_empty()).ok_or_else(|| name.expected("a name"))?;
        let found = of_fixed_size(v3(dtype.clone())?, &dtype)?;
        fields.push(Field { name: name.to_owned(), dtype: found, shape: Vec::new(), endian: None });
    }
    record(&list, fields)
}

/// The type of a field, which no codec could make an object of.
fn of_fixed_size(dtype: DataType, node: &Node<'_>) -> Result<DataType> {
    match dtype {
        DataType::Object => {
            let name = node.value.as_str().map_or_else(|| node.value.to_string(), str::to_owned);
            Err(Error::unsupported(format!("data type `{name:.40}` in a record"), "fields have a fixed size"))
        }
        dtype => Ok(dtype),
    }
}

/// A version 2 list of fields: `[name, type]` or `[name, type, shape]`. A field without a name (numpy describes padding so)
/// is called `f` and its number, as numpy does.
fn v2_record(node: &Node<'_>) -> Result<DataType> {
    let mut fields = Vec::new();
    for (number, item) in node.items(MAX_FIELDS)?.enumerate() {
        let parts: Vec<Node<'_>> = item.items(3)?.collect();
        let (name, dtype, shape) = match parts.as_slice() {
            [name, dtype] => (name.str()?, dtype, Vec::new()),
            [name, dtype, shape] => {
                let extents = if let Value::Number(_) = shape.value { vec![shape.u64()?] } else { extents(shape)? };
                (name.str()?, dtype, extents)
            }
            _ => return Err(item.expected("a name, a type and perhaps a shape")),
        };
        let name = if name.is_empty() { format!("f{number}") } else { name.to_owned() };
        let (found, endian) = v2(dtype)?;
        let dtype = of_fixed_size(found, dtype)?;
        fields.push(Field { name, dtype, shape, endian: Some(endian) });
    }
    record(node, fields)
}

/// Checks the fields of a record.
fn record(node: &Node<'_>, fields: Vec<Field>) -> Result<DataType> {
    let mut names: Vec<&str> = fields.iter().map(|field| &*field.name).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
        return Err(node.error("two fields have one name"));
    }
    for field in &fields {
        item_nbytes(node, field.nbytes())?;
    }
    let record = Record::new(fields);
    item_nbytes(node, record.nbytes())?;
    Ok(DataType::Record(record))
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

/// A version 2 `dtype`: a numpy type string such as `<u2`, and the byte order it names (of single bytes: little), or a list
/// of fields, each with its own.
pub(super) fn v2(node: &Node<'_>) -> Result<(DataType, Endian)> {
    if let Value::Array(_) = node.value {
        return Ok((v2_record(node)?, Endian::Little));
    }
    let text = node.short_str()?;
    if let Some(dtype) = DataType::narrow(text) {
        // As tensorstore writes them.
        return Ok((dtype, Endian::Little));
    }
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

/// Unit and factor of a version 3 time: `s` and 25 -> `25s`.
fn v3_time_unit(extension: &Extension<'_>) -> Result<String> {
    extension.only(&["unit", "scale_factor"])?;
    let (unit, factor) = (extension.require("unit")?, extension.require("scale_factor")?);
    let factor = factor.integer(1, i32::MAX as u64)?;
    match unit.short_str()? {
        "generic" => {
            Err(Error::unsupported(format!("data type `{}` without a unit", extension.name), "times need one"))
        }
        name if !TIME_UNITS.contains(&name) => Err(unit.expected("a unit of time, such as \"ns\"")),
        name => {
            Ok(format!("{}{}", if factor == 1 { String::new() } else { factor.to_string() }, name.replace('μ', "u")))
        }
    }
}
