//! `zarr.json` of an array (Zarr specification 3.1, "array metadata").

use super::codecs::{Input, v3_list};
use super::{Extension, check_version, dtype, extents, fill, grid, separator};
use crate::error::{Error, Result};
use crate::metadata::KeyEncoding;
use crate::metadata::foreign::ForeignCodecs;
use crate::metadata::json::Node;
use crate::metadata::resolve::Parsed;
use crate::subset::MAX_RANK;

/// The document's content, each member checked by itself.
pub(super) fn array(document: &Node<'_>, foreign: &dyn ForeignCodecs) -> Result<Parsed> {
    check_version(document, 3)?;
    let node_type = document.require("node_type")?;
    match node_type.str()? {
        "array" => {}
        "group" => return Err(node_type.error("this is a group, not an array")),
        _ => return Err(node_type.expected("\"array\"")),
    }
    check_members(document)?;
    let shape = extents(&document.require("shape")?)?;
    let dtype = dtype::v3(document.require("data_type")?)?;
    let input = Input::v3(shape.len(), dtype.clone(), foreign);
    let codecs = v3_list(&document.require("codecs")?, input)?;
    let grid = grid::v3(document.require("chunk_grid")?, &shape)?;
    Ok(Parsed {
        chunk_shape: grid.chunk_shape,
        irregular_grid: grid.irregular,
        keys: key_encoding(document.require("chunk_key_encoding")?)?,
        fill_value: fill::bytes(&document.require("fill_value")?, &dtype)?,
        dimension_names: dimension_names(document.get("dimension_names"), shape.len())?,
        shape,
        dtype,
        codecs,
    })
}

/// Refuses what the document says we must understand and do not.
fn check_members(document: &Node<'_>) -> Result<()> {
    for (name, member) in document.members()? {
        match name {
            "zarr_format" | "node_type" | "shape" | "data_type" | "chunk_grid" | "chunk_key_encoding"
            | "fill_value" | "codecs" | "attributes" | "dimension_names" => {}
            "storage_transformers" => {
                for item in member.items(usize::MAX)? {
                    let transformer = Extension::parse(item)?;
                    if transformer.must_understand {
                        let what = format!("storage transformer `{}`", transformer.name);
                        return Err(Error::unsupported(what, "no storage transformer is registered"));
                    }
                }
            }
            // Written into arrays by mistake (zarr-python before 3.1.4).
            "consolidated_metadata" if member.is_null() => {}
            _ => match member.get("must_understand").map(|flag| flag.bool()).transpose()? {
                Some(false) => {}
                _ => {
                    return Err(Error::unsupported(
                        format!("metadata field `{name:.40}`"),
                        "the document does not allow readers to ignore it (\"must_understand\": false)",
                    ));
                }
            },
        }
    }
    Ok(())
}

fn key_encoding(node: Node<'_>) -> Result<KeyEncoding> {
    let encoding = Extension::parse_required(node)?;
    let given = match encoding.setting("separator") {
        Some(node) => Some(separator(&node)?),
        None => None,
    };
    let keys = match encoding.name {
        "default" => KeyEncoding::Default { separator: given.unwrap_or('/') },
        "v2" => KeyEncoding::V2 { separator: given.unwrap_or('.') },
        name => {
            let what = format!("chunk key encoding `{name}`");
            return Err(Error::unsupported(what, "read are `default` and `v2`"));
        }
    };
    encoding.only(&["separator"])?;
    Ok(keys)
}

/// One name or None an axis; all None when the document has no names (also when it says `null`, as betas of
/// zarr-python did).
fn dimension_names(node: Option<Node<'_>>, rank: usize) -> Result<Vec<Option<String>>> {
    let Some(node) = node.filter(|node| !node.is_null()) else { return Ok(vec![None; rank]) };
    let name = |item: Node<'_>| if item.is_null() { Ok(None) } else { Ok(Some(item.str()?.to_owned())) };
    let names = node.items(MAX_RANK)?.map(name).collect::<Result<Vec<_>>>()?;
    if names.len() == rank { Ok(names) } else { Err(node.expected(&format!("{rank} names"))) }
}
