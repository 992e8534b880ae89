//! `.zarray` (Zarr specification 2.0).
//!
//! Order `F` is the codec list of version 3 with a transpose that reverses the axes. Unknown members are ignored, as
//! the specification asks.

use super::codecs::Input;
use super::{check_version, dtype, extents, fill, numcodecs, separator};
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::metadata::foreign::ForeignCodecs;
use crate::metadata::json::Node;
use crate::metadata::limits::MAX_CODECS;
use crate::metadata::resolve::Parsed;
use crate::metadata::{B2ndSpec, CodecSpec, KeyEncoding};

/// The document's content, each member checked by itself.
pub(super) fn array(
    document: &Node<'_>,
    dimension_separator: Option<char>,
    foreign: &dyn ForeignCodecs,
) -> Result<Parsed> {
    check_version(document, 2)?;
    let shape = extents(&document.require("shape")?)?;
    let (dtype, endian) = dtype::v2(&document.require("dtype")?)?;

    let mut codecs = Vec::new();
    let order = document.require("order")?;
    match order.str()? {
        "C" => {}
        "F" => codecs.push(CodecSpec::Transpose { order: (0..shape.len()).rev().collect() }),
        _ => return Err(order.expected("\"C\" or \"F\"")),
    }
    let chunk_shape = extents(&document.require("chunks")?)?;
    let mut input = Input::v2(shape.len(), dtype.clone(), endian, foreign);
    let mut bytes_to_bytes = Vec::new();
    let filters = document.get("filters").filter(|filters| !filters.is_null());
    let filters: Vec<Node<'_>> = match filters {
        Some(filters) => filters.items(MAX_CODECS)?.collect(),
        None => Vec::new(),
    };
    for filter in &filters {
        if is_b2nd(filter) {
            if filters.len() > 1 || !codecs.is_empty() {
                return Err(Error::unsupported("filter `b2nd` with others, or with order `F`", "it stands alone"));
            }
            bytes_to_bytes.push(b2nd(filter, &chunk_shape, dtype.item_size())?);
            continue;
        }
        match numcodec(filter, "filter", &mut input)? {
            spec if spec.is_bytes_to_bytes() => bytes_to_bytes.push(spec),
            spec if bytes_to_bytes.is_empty() => codecs.push(spec),
            spec => {
                let what = format!("{}: filter `{}` after one that makes bytes", filter.at, spec.name());
                return Err(Error::unsupported(what, "filters of elements are read before those of bytes"));
            }
        }
    }
    codecs.push(CodecSpec::Bytes { endian: input.endian });
    codecs.append(&mut bytes_to_bytes);
    let compressor = document.require("compressor")?;
    if !compressor.is_null() {
        match numcodec(&compressor, "compressor", &mut input)? {
            spec if spec.is_bytes_to_bytes() => codecs.push(spec),
            spec => return Err(compressor.error(format!("`{}` is no compressor", spec.name()))),
        }
    }

    let fill_value = document.require("fill_value")?;
    let fill_value = match &dtype {
        // "Not a time", as zarr-python has it, which leaves out chunks of nothing else.
        DataType::DateTime(_) | DataType::TimeDelta(_) if fill_value.is_null() => i64::MIN.to_ne_bytes().to_vec(),
        _ if fill_value.is_null() => vec![0; dtype.item_size()],
        _ => fill::bytes(&fill_value, &dtype)?,
    };
    let separator = match (dimension_separator, document.get("dimension_separator")) {
        (Some(given @ ('.' | '/')), _) => given,
        (Some(other), _) => {
            return Err(Error::metadata("", format!("the dimension separator must be `.` or `/`, not {other:?}")));
        }
        (None, Some(node)) if !node.is_null() => separator(&node)?,
        (None, _) => '.',
    };
    Ok(Parsed {
        chunk_shape,
        irregular_grid: None,
        keys: KeyEncoding::V2 { separator },
        fill_value,
        dimension_names: vec![None; shape.len()],
        shape,
        dtype,
        codecs: codecs.into(),
    })
}

/// A filter or a compressor: one that is known here, or one that is decoded elsewhere.
fn numcodec(node: &Node<'_>, what: &str, input: &mut Input<'_>) -> Result<CodecSpec> {
    let id = node.require("id")?.short_str()?;
    if let Some(known) = numcodecs::codec(id, node, &|name| node.get(name), input)? {
        return Ok(known);
    }
    let objects = std::mem::take(&mut input.objects);
    match input.foreign(id, Some(node), objects)? {
        Some(codec) => Ok(CodecSpec::Foreign(codec)),
        None => Err(Error::unsupported(format!("{what} `{id}`"), numcodecs::READ)),
    }
}

fn is_b2nd(filter: &Node<'_>) -> bool {
    filter.get("id").is_some_and(|id| id.str().is_ok_and(|id| id == "b2nd"))
}

/// Blocks of a Blosc2 NDim array: a filter of documents that are made from its file.
fn b2nd(filter: &Node<'_>, chunk_shape: &[u64], item_size: usize) -> Result<CodecSpec> {
    Ok(CodecSpec::B2nd(B2ndSpec::new(chunk_shape, &extents(&filter.require("blocks")?)?, item_size)?))
}
