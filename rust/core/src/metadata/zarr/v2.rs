//! `.zarray` (Zarr specification 2.0).
//!
//! Order `F` is the codec list of version 3 with a transpose that reverses the axes. Unknown members are ignored, as
//! the specification asks.

use super::codecs::v2_compressor;
use super::{check_version, dtype, extents, fill, separator};
use crate::error::{Error, Result};
use crate::metadata::json::Node;
use crate::metadata::limits::MAX_CODECS;
use crate::metadata::resolve::Parsed;
use crate::metadata::{B2ndSpec, CodecSpec, KeyEncoding};

/// The document's content, each member checked by itself.
pub(super) fn array(document: &Node<'_>, dimension_separator: Option<char>) -> Result<Parsed> {
    check_version(document, 2)?;
    let shape = extents(&document.require("shape")?)?;
    // Filters come before the data type: object arrays are best explained by the filter that makes them.
    let filter = document.get("filters").map(|filters| only_filter(&filters)).transpose()?.flatten();
    let (dtype, endian) = dtype::v2(&document.require("dtype")?)?;

    let mut codecs = Vec::new();
    let order = document.require("order")?;
    match order.str()? {
        "C" => {}
        "F" => codecs.push(CodecSpec::Transpose { order: (0..shape.len()).rev().collect() }),
        _ => return Err(order.expected("\"C\" or \"F\"")),
    }
    codecs.push(CodecSpec::Bytes { endian });
    let chunk_shape = extents(&document.require("chunks")?)?;
    if let Some(filter) = filter {
        if codecs.len() > 1 {
            return Err(Error::unsupported("filter `b2nd` with order `F`", "its chunks are in C order"));
        }
        codecs.push(b2nd(&filter, &chunk_shape, dtype.item_size())?);
    }
    let compressor = document.require("compressor")?;
    if !compressor.is_null() {
        codecs.push(v2_compressor(&compressor, dtype.item_size())?);
    }

    let fill_value = document.require("fill_value")?;
    let fill_value = if fill_value.is_null() { vec![0; dtype.item_size()] } else { fill::bytes(&fill_value, &dtype)? };
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
        keys: KeyEncoding::V2 { separator },
        fill_value,
        dimension_names: vec![None; shape.len()],
        shape,
        dtype,
        codecs: codecs.into(),
    })
}

/// `null` and `[]` mean none; any other list but that of `b2nd` is refused by the name of its first filter.
fn only_filter<'v>(filters: &Node<'v>) -> Result<Option<Node<'v>>> {
    if filters.is_null() {
        return Ok(None);
    }
    let filters: Vec<_> = filters.items(MAX_CODECS)?.collect();
    let Some(first) = filters.first() else { return Ok(None) };
    match (first.require("id")?.short_str()?, filters.len()) {
        ("b2nd", 1) => Ok(filters.into_iter().next()),
        (id, _) => Err(Error::unsupported(format!("filter `{id}`"), "arrays with filters are not read")),
    }
}

/// Blocks of a Blosc2 NDim array: a filter of documents that are made from its file.
fn b2nd(filter: &Node<'_>, chunk_shape: &[u64], item_size: usize) -> Result<CodecSpec> {
    Ok(CodecSpec::B2nd(B2ndSpec::new(chunk_shape, &extents(&filter.require("blocks")?)?, item_size)?))
}
