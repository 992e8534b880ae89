//! Registered codecs of version 3 that change elements: `packbits`, `scale_offset` and `cast_value`.
//!
//! Source: zarr-extensions, `codecs/packbits`, `codecs/scale_offset`, `codecs/cast_value`; the `scalar_map` of the last as
//! zarr-python writes it.

use super::codecs::Input;
use super::numcodecs::element;
use super::{Extension, dtype, fill};
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::metadata::json::Node;
use crate::metadata::{BitPacking, CastSpec, CodecSpec, ElementCodec, ElementStep, OutOfRange, PaddingByte, Rounding};

/// Most elements that a `scalar_map` may change.
const MAX_SCALARS: usize = 1 << 12;

/// `packbits`.
pub(super) fn packbits(codec: &Extension<'_>, input: &Input) -> Result<CodecSpec> {
    codec.only(&["padding_encoding", "first_bit", "last_bit"])?;
    let components = match &input.dtype {
        DataType::Complex(_) => 2,
        DataType::Bool | DataType::Int(_) | DataType::UInt(_) | DataType::Float(_) => 1,
        other => {
            let what = format!("{}: `packbits` of elements of {}", codec.node.at, other.numpy_name());
            return Err(Error::unsupported(what, "read are bool, integers, floats and complex numbers of whole bytes"));
        }
    };
    let bits = if input.dtype == DataType::Bool { 1 } else { input.dtype.item_size() as u64 * 8 / components };
    let bit = |name: &str, default: u64, min: u64| -> Result<u32> {
        let setting = codec.setting(name).filter(|node| !node.is_null());
        Ok(setting.map_or(Ok(default.into()), |node| node.integer(min as i64, bits - 1))? as u32)
    };
    let first_bit = bit("first_bit", 0, 0)?;
    let last_bit = bit("last_bit", bits - 1, first_bit.into())?;
    let padding = match codec.setting("padding_encoding") {
        None => PaddingByte::None,
        Some(node) => match node.str()? {
            "none" => PaddingByte::None,
            "first_byte" => PaddingByte::First,
            "last_byte" => PaddingByte::Last,
            _ => return Err(node.expected("one of none, first_byte, last_byte")),
        },
    };
    let packing = BitPacking { high_first: false, padding, first_bit, last_bit };
    Ok(CodecSpec::PackBits(ElementCodec {
        name: "packbits",
        decoded: input.dtype.clone(),
        encoded: DataType::UInt(1),
        step: ElementStep::Unpack(packing),
    }))
}

/// `scale_offset`. Absent: 1 and 0, as zarr-python writes them.
pub(super) fn scale_offset(codec: &Extension<'_>, input: &mut Input) -> Result<CodecSpec> {
    codec.only(&["offset", "scale"])?;
    if !is_real(&input.dtype) {
        return Err(codec.node.error(format!("`scale_offset` of elements of {}", input.dtype.numpy_name())));
    }
    let number = |name: &str, default: u8| match codec.setting(name) {
        Some(node) => fill::bytes(&node, &input.dtype),
        None => fill::bytes(&Node { value: &default.into(), at: String::new() }, &input.dtype),
    };
    let (scale, offset) = (number("scale", 1)?, number("offset", 0)?);
    // Of a float, the sign bit alone is zero too.
    let zero = fill::bytes(&Node { value: &0.into(), at: String::new() }, &input.dtype)?;
    let minus_zero = fill::bytes(&Node { value: &(-0.0).into(), at: String::new() }, &input.dtype).unwrap_or_default();
    if scale == zero || scale == minus_zero {
        return Err(codec.require("scale")?.error("elements cannot be divided by 0"));
    }
    let same = (input.dtype.clone(), input.endian);
    let step = ElementStep::ScaleOffset { scale, offset };
    element("scale_offset", &codec.node, input, same.clone(), same, step)
}

/// `cast_value`.
pub(super) fn cast_value(codec: &Extension<'_>, input: &mut Input) -> Result<CodecSpec> {
    codec.only(&["data_type", "rounding", "out_of_range", "scalar_map"])?;
    let (decoded, encoded) = (input.dtype.clone(), dtype::v3(codec.require("data_type")?)?);
    if !is_real(&decoded) || !is_real(&encoded) {
        let (from, to) = (encoded.numpy_name(), decoded.numpy_name());
        return Err(codec.node.error(format!("`cast_value` from {from} to {to}; integers and floats can be cast")));
    }
    let rounding = match codec.setting("rounding") {
        None => Rounding::NearestEven,
        Some(node) => match node.str()? {
            "nearest-even" => Rounding::NearestEven,
            "nearest-away" => Rounding::NearestAway,
            "towards-zero" => Rounding::TowardsZero,
            "towards-positive" => Rounding::TowardsPositive,
            "towards-negative" => Rounding::TowardsNegative,
            _ => return Err(node.expected("a way to round, such as \"nearest-even\"")),
        },
    };
    if rounding != Rounding::NearestEven && precision(&decoded) < precision(&encoded) && is_float(&decoded) {
        let (from, to) = (encoded.numpy_name(), decoded.numpy_name());
        let what = format!("{}: `cast_value` that rounds {from} to {to}", codec.node.at);
        return Err(Error::unsupported(what, "floats are rounded to the nearest, of two to the even one"));
    }
    let out_of_range = match codec.setting("out_of_range").filter(|node| !node.is_null()) {
        None => OutOfRange::Refuse,
        Some(node) => match node.str()? {
            "error" => OutOfRange::Refuse,
            "clamp" => OutOfRange::Clamp,
            "wrap" => OutOfRange::Wrap,
            _ => return Err(node.expected("one of error, clamp, wrap")),
        },
    };
    let map = codec.setting("scalar_map").and_then(|node| node.get("decode")).filter(|node| !node.is_null());
    let map = map.map_or(Ok(Vec::new()), |node| scalars(&node, &encoded, &decoded))?;
    let (decoded, encoded) = ((decoded, input.endian), (encoded, input.endian));
    let step = ElementStep::CastValue(CastSpec { rounding, out_of_range, map });
    element("cast_value", &codec.node, input, decoded, encoded, step)
}

/// A list of pairs.
fn scalars(node: &Node<'_>, from: &DataType, to: &DataType) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let pair = |item: Node<'_>| {
        let pair: Vec<_> = item.items(2)?.collect();
        let [one, other] = pair.as_slice() else { return Err(item.expected("a pair of elements")) };
        Ok((fill::bytes(one, from)?, fill::bytes(other, to)?))
    };
    node.items(MAX_SCALARS)?.map(pair).collect()
}

fn is_float(dtype: &DataType) -> bool {
    matches!(dtype, DataType::Float(_))
}

fn is_real(dtype: &DataType) -> bool {
    matches!(dtype, DataType::Int(_) | DataType::UInt(_) | DataType::Float(_))
}

/// Bits of the largest integer up to which all are there.
fn precision(dtype: &DataType) -> usize {
    match dtype {
        DataType::Float(2) => 11,
        DataType::Float(4) => 24,
        DataType::Float(_) => 53,
        DataType::Int(_) => dtype.item_size() * 8 - 1,
        _ => dtype.item_size() * 8,
    }
}
