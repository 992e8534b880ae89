//! `.zarray` (Zarr specification 2.0).
//!
//! Order `F` is the codec list of version 3 with a transpose that reverses the axes. Unknown members are ignored, as
//! the specification asks.

use super::codecs::{Input, v2_compressor, v2_filter};
use super::{check_version, dtype, extents, fill, separator};
use crate::error::{Error, Result};
use crate::metadata::foreign::ForeignCodecs;
use crate::metadata::json::Node;
use crate::metadata::limits::MAX_CODECS;
use crate::metadata::resolve::Parsed;
use crate::metadata::{CodecSpec, KeyEncoding};

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
    codecs.push(CodecSpec::Bytes { endian });
    let mut input = Input::new(shape.len(), &dtype, foreign);
    if let Some(filters) = document.get("filters").filter(|filters| !filters.is_null()) {
        for filter in filters.items(MAX_CODECS)? {
            codecs.push(v2_filter(&filter, input)?);
            input.objects = false;
        }
    }
    let compressor = document.require("compressor")?;
    if !compressor.is_null() {
        codecs.push(v2_compressor(&compressor, input)?);
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
        chunk_shape: extents(&document.require("chunks")?)?,
        keys: KeyEncoding::V2 { separator },
        fill_value,
        dimension_names: vec![None; shape.len()],
        shape,
        dtype,
        codecs: codecs.into(),
    })
}
