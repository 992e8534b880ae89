//! Zarr array documents -> [`ArrayMeta`].
//!
//! Version 3: specification 3.1 (`zarr.json`) and registered extensions: codecs, the chunk grid `rectilinear`, data types
//! of fixed size. Version 2: specification 2.0 (`.zarray`). Attributes, groups and consolidated metadata are not read here.
//!
//! Lenient only where no reading of the document could give other voxels: compression levels may be absent, an integer
//! fill value may be written `0.0`. Whatever is not understood is refused by name.

mod codecs;
mod dtype;
mod elements;
mod fill;
mod grid;
mod numcodecs;
mod v2;
mod v3;

pub(super) use codecs::blosc;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::metadata::ArrayMeta;
use crate::metadata::foreign::{ForeignCodecs, NoForeignCodecs};
use crate::metadata::json::{Node, parse};
use crate::subset::MAX_RANK;

/// Reads the `zarr.json` of an array.
///
/// # Errors
/// `Metadata` when the document breaks a rule or is a group's, `Unsupported` for a legal extension that is not read,
/// `Limit` when it asks for more than [`limits`](crate::metadata::limits) allow.
pub fn parse_v3(document: &[u8]) -> Result<ArrayMeta> {
    parse_v3_with(document, &NoForeignCodecs)
}

/// As [`parse_v3`], with codecs that are decoded elsewhere.
///
/// # Errors
/// As [`parse_v3`], and what `foreign` refuses.
pub fn parse_v3_with(document: &[u8], foreign: &dyn ForeignCodecs) -> Result<ArrayMeta> {
    let value = parse(document, &["attributes"])?;
    crate::metadata::resolve(v3::array(&Node::root(&value), foreign)?)
}

/// Reads a `.zarray`. `dimension_separator` (`.` or `/`), when given, replaces the document's, for the many arrays
/// written with `/` that do not record it.
///
/// # Errors
/// As [`parse_v3`].
pub fn parse_v2(document: &[u8], dimension_separator: Option<char>) -> Result<ArrayMeta> {
    parse_v2_with(document, dimension_separator, &NoForeignCodecs)
}

/// As [`parse_v2`], with codecs that are decoded elsewhere.
///
/// # Errors
/// As [`parse_v2`], and what `foreign` refuses.
pub fn parse_v2_with(
    document: &[u8],
    dimension_separator: Option<char>,
    foreign: &dyn ForeignCodecs,
) -> Result<ArrayMeta> {
    let value = parse(document, &["attributes"])?;
    crate::metadata::resolve(v2::array(&Node::root(&value), dimension_separator, foreign)?)
}

/// Extents of up to `MAX_RANK` axes.
fn extents(list: &Node<'_>) -> Result<Vec<u64>> {
    list.items(MAX_RANK)?.map(|item| item.u64()).collect()
}

/// Requires `zarr_format` to be `version`.
fn check_version(document: &Node<'_>, version: u64) -> Result<()> {
    let found = document.require("zarr_format")?;
    match found.u64()? {
        n if n == version => Ok(()),
        n => Err(found.error(format!("expected {version}, found {n}"))),
    }
}

/// `.` or `/`.
fn separator(node: &Node<'_>) -> Result<char> {
    match node.str()? {
        "." => Ok('.'),
        "/" => Ok('/'),
        _ => Err(node.expected("\".\" or \"/\"")),
    }
}

/// An extension of a version 3 document: a data type, grid, key encoding, codec or storage transformer.
struct Extension<'v> {
    name: &'v str,
    /// The extension itself, for its path.
    node: Node<'v>,
    configuration: Option<Node<'v>>,
    must_understand: bool,
}

impl<'v> Extension<'v> {
    /// From an object of name, configuration and `must_understand`, or the name alone.
    fn parse(node: Node<'v>) -> Result<Self> {
        if let Value::String(_) = node.value {
            let name = node.short_str()?;
            return Ok(Self { name, node, configuration: None, must_understand: true });
        }
        let (mut name, mut configuration, mut must_understand) = (None, None, true);
        for (member, value) in node.members().map_err(|_| node.expected("a name or an object with a name"))? {
            match member {
                "name" => name = Some(value.short_str()?),
                "configuration" => {
                    if !matches!(value.value, Value::Object(_)) {
                        return Err(value.expected("an object"));
                    }
                    configuration = Some(value);
                }
                "must_understand" => must_understand = value.bool()?,
                _ => return Err(value.error("not a member of an extension (name, configuration, must_understand)")),
            }
        }
        let name = name.ok_or_else(|| node.error("an extension without a name"))?;
        Ok(Self { name, node, configuration, must_understand })
    }

    /// As [`Extension::parse`], for the kinds that may not say `"must_understand": false`.
    fn parse_required(node: Node<'v>) -> Result<Self> {
        let extension = Self::parse(node)?;
        if extension.must_understand {
            Ok(extension)
        } else {
            Err(extension.node.error("\"must_understand\": false is not allowed here"))
        }
    }

    /// Member of the configuration, if there is one.
    fn setting(&self, name: &str) -> Option<Node<'v>> {
        self.configuration.as_ref()?.get(name)
    }

    /// Member of the configuration that must be there.
    fn require(&self, name: &str) -> Result<Node<'v>> {
        match &self.configuration {
            Some(configuration) => configuration.require(name),
            None => Err(Error::metadata(format!("{}.configuration.{name}", self.node.at), "missing")),
        }
    }

    /// Refuses settings other than `known`: one that is not understood may change what the bytes mean.
    fn only(&self, known: &[&str]) -> Result<()> {
        let Some(configuration) = &self.configuration else { return Ok(()) };
        match configuration.members()?.find(|(member, _)| !known.contains(member)) {
            Some((member, _)) => Err(Error::unsupported(
                format!("{}: setting `{member:.40}` of `{}`", configuration.at, self.name),
                "written by a newer version of the format, or misspelt",
            )),
            None => Ok(()),
        }
    }
}
