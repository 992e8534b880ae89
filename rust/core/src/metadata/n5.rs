//! N5 dataset documents (`attributes.json`) -> [`N5Array`].
//!
//! Source: N5 specification 4.0.0, "File-system specification" (dataset attributes), and what Java writers leave behind:
//! a comment before the object, `compressionType` of version 0, `codecs` of version 4.
//!
//! Dataset and user attributes share the document, so members that are not known are ignored. Settings of a compression
//! serve its encoder, except `useZlib`: its streams say everything else themselves.

use serde_json::Value;

use crate::dtype::{DataType, Endian};
use crate::error::{Error, Result};
use crate::metadata::json::{Node, parse as parse_json};
use crate::metadata::limits::{MAX_CHUNK_NBYTES, MAX_CODECS};
use crate::metadata::resolve::{check_shapes, chunk_nbytes, grid};
use crate::metadata::zarr::blosc;
use crate::metadata::{ArrayMeta, BloscSpec, ChunkForm, CodecList, CodecSpec, KeyEncoding};
use crate::subset::{MAX_EXTENT, MAX_RANK, product};

/// A dataset, checked. Per-axis lists are in the order of `dimensions`: the first axis is the fastest in a block.
#[derive(Debug, Clone, PartialEq)]
pub struct N5Array {
    /// Extent of each axis in voxels; at least one axis.
    pub dimensions: Vec<u64>,
    /// Nominal extent of a block in voxels, each at least 1; the header of a block says its own.
    pub block_size: Vec<u64>,
    /// Type of one voxel; stored big-endian.
    pub dtype: DataType,
    /// What follows the header of a block.
    pub compression: Compression,
    /// Name of each axis, where the document names them all differently.
    pub axes: Option<Vec<String>>,
}

/// How the elements of a block are compressed: one stream after the block's header.
#[derive(Debug, Clone, PartialEq)]
pub enum Compression {
    /// Not at all.
    Raw,
    /// RFC 1952, one or more members.
    Gzip {
        /// 0-9, or -1 for the library's default.
        level: i32,
    },
    /// RFC 1950: `gzip` with `useZlib`.
    Zlib {
        /// 0-9, or -1 for the library's default.
        level: i32,
    },
    /// bzip2 stream.
    Bzip2 {
        /// 1-9, in units of 100 kB of block.
        level: u32,
    },
    /// xz stream.
    Xz,
    /// Framing of lz4-java (`LZ4Block`).
    Lz4,
    /// One Blosc-1 chunk.
    Blosc(BloscSpec),
    /// RFC 8878, one or more frames.
    Zstd {
        /// Compression level.
        level: i32,
    },
}

/// Reads the `attributes.json` of a dataset.
///
/// # Errors
/// `Metadata` when the document breaks a rule or is a group's, `Unsupported` for a data type or compression that is not
/// read, `Limit` when it asks for more than [`limits`](crate::metadata::limits) allow.
pub fn parse(document: &[u8]) -> Result<N5Array> {
    let value = parse_json(without_comments(document)?, &[])?;
    let document = Node::root(&value);
    refuse_label_multisets(&document)?;
    let dtype = data_type(&document.require("dataType")?)?;
    let dimensions = dimensions(&document.require("dimensions")?)?;
    let block_size = block_size(&document.require("blockSize")?, dimensions.len(), dtype.item_size())?;
    let compression = compression(&document, dtype.item_size())?;
    let axes = axes(&document, dimensions.len());
    Ok(N5Array { dimensions, block_size, dtype, compression, axes })
}

/// The dataset of an `attributes.json` as an array with the axes of `dimensions`.
///
/// # Errors
/// As [`parse`].
pub fn array(document: &[u8]) -> Result<ArrayMeta> {
    let N5Array { dimensions, block_size, dtype, compression, axes } = parse(document)?;
    let rank = dimensions.len();
    check_shapes(&dimensions, &block_size)?;
    let compression = match compression {
        Compression::Raw => None,
        Compression::Gzip { level } => Some(CodecSpec::Gzip { level }),
        Compression::Zlib { level } => Some(CodecSpec::Zlib { level }),
        Compression::Bzip2 { level } => Some(CodecSpec::Bz2 { level }),
        Compression::Xz => Some(CodecSpec::Xz),
        Compression::Lz4 => Some(CodecSpec::Lz4Java),
        Compression::Blosc(spec) => Some(CodecSpec::Blosc(spec)),
        Compression::Zstd { level } => Some(CodecSpec::Zstd { level, checksum: false }),
    };
    Ok(ArrayMeta {
        shard_grid: grid(&dimensions, &block_size)?,
        grid_origin: vec![0; rank],
        origin: vec![0; rank],
        // What is not stored is 0 by convention.
        fill_value: vec![0; dtype.item_size()],
        dimension_names: axes.map_or_else(|| vec![None; rank], |names| names.into_iter().map(Some).collect()),
        keys: KeyEncoding::V2 { separator: '/' },
        levels: Vec::new(),
        // The first axis is the fastest.
        chunk_order: (0..rank).rev().collect(),
        chunk_nbytes: chunk_nbytes(&block_size, &dtype)?,
        chunk_shape: block_size,
        endian: Endian::Big,
        chunk_form: ChunkForm::N5Block,
        chunk_elements: Vec::new(),
        chunk_codecs: compression.clone().into_iter().collect(),
        codecs: CodecList::from(std::iter::once(CodecSpec::N5Block).chain(compression).collect::<Vec<_>>()),
        shape: dimensions,
        dtype,
    })
}

/// The document from its object on: Java's reader allows `//` and `/* */` before it.
fn without_comments(document: &[u8]) -> Result<&[u8]> {
    let mut rest = document.trim_ascii_start();
    loop {
        let (after, end): (&[u8], &[u8]) = match rest {
            [b'/', b'/', after @ ..] => (after, b"\n"),
            [b'/', b'*', after @ ..] => (after, b"*/"),
            _ => return Ok(rest),
        };
        let Some(at) = after.windows(end.len()).position(|window| window == end) else {
            return Err(Error::metadata("", "a comment without an end"));
        };
        rest = after.get(at + end.len()..).unwrap_or_default().trim_ascii_start();
    }
}

/// Label multisets are bytes of another form under the type `uint8`.
fn refuse_label_multisets(document: &Node<'_>) -> Result<()> {
    match document.get("isLabelMultiset").map(|node| node.bool()) {
        Some(Ok(true)) => Err(Error::unsupported(
            "isLabelMultiset: label multisets of Paintera",
            "extract scalar labels with the `extract-to-scalar` command of paintera-conversion-helper",
        )),
        _ => Ok(()),
    }
}

fn data_type(node: &Node<'_>) -> Result<DataType> {
    let name = node.short_str()?;
    DataType::number(name).ok_or_else(|| {
        let hint = "read are integers and floats; strings and objects have no fixed size";
        Error::unsupported(format!("data type `{name}`"), hint)
    })
}

fn dimensions(node: &Node<'_>) -> Result<Vec<u64>> {
    let dimensions: Vec<u64> = node.items(MAX_RANK)?.map(|item| item.u64()).collect::<Result<_>>()?;
    match dimensions.iter().max() {
        None => Err(node.error("no axes")),
        Some(&extent) if extent > MAX_EXTENT => Err(Error::limit("extent of an axis in voxels", extent, MAX_EXTENT)),
        Some(_) => Ok(dimensions),
    }
}

fn block_size(node: &Node<'_>, rank: usize, item_size: usize) -> Result<Vec<u64>> {
    let extents: Vec<u64> = node
        .items(MAX_RANK)?
        .map(|item| item.integer(1, i32::MAX as u64).map(|extent| extent as u64))
        .collect::<Result<_>>()?;
    if extents.len() != rank {
        return Err(node.error(format!("{} axes, `dimensions` has {rank}", extents.len())));
    }
    match product(&extents).and_then(|voxels| voxels.checked_mul(item_size as u64)) {
        Some(nbytes) if nbytes <= MAX_CHUNK_NBYTES => Ok(extents),
        nbytes => Err(Error::limit("bytes of a decoded block", nbytes.unwrap_or(u64::MAX), MAX_CHUNK_NBYTES)),
    }
}

/// From `codecs` (version 4), else `compression`, else `compressionType` (version 0), in the order of the Java reader.
fn compression(document: &Node<'_>, item_size: usize) -> Result<Compression> {
    match (document.get("codecs"), document.get("compression"), document.get("compressionType")) {
        (Some(codecs), ..) => from_codecs(&codecs, item_size),
        (None, None, Some(name)) => named(&name, &name, item_size),
        _ => {
            let compression = document.require("compression")?;
            named(&compression.require("type")?, &compression, item_size)
        }
    }
}

/// `n5bytes`, the header and big-endian elements, and at most one compression after it.
fn from_codecs(codecs: &Node<'_>, item_size: usize) -> Result<Compression> {
    let mut compression = None;
    let mut count = 0;
    for (place, codec) in codecs.items(MAX_CODECS)?.enumerate() {
        let name = codec.get("name").map_or_else(|| codec.require("type"), Ok)?;
        count += 1;
        match (place, name.short_str()?) {
            (0, "n5bytes") => {}
            (0, other) => {
                let what = format!("{}: codec `{other}`", codec.at);
                return Err(Error::unsupported(what, "blocks with the header of N5 (`n5bytes`) are read"));
            }
            _ if compression.is_some() => {
                return Err(Error::unsupported(format!("{}: a second compression", codec.at), "one is read"));
            }
            _ => {
                let settings = codec.get("configuration").unwrap_or(codec);
                compression = Some(named(&name, &settings, item_size)?);
            }
        }
    }
    if count == 0 {
        return Err(codecs.error("no codec"));
    }
    Ok(compression.unwrap_or(Compression::Raw))
}

fn named(name: &Node<'_>, settings: &Node<'_>, item_size: usize) -> Result<Compression> {
    let integer = |setting: &str, default: i32, min: i32, max: i32| match settings.get(setting) {
        Some(node) => node.integer(min.into(), max as u64).map(|n| n as i32),
        None => Ok(default),
    };
    Ok(match name.short_str()? {
        "raw" => Compression::Raw,
        "gzip" => {
            let level = integer("level", -1, -1, 9)?;
            let use_zlib = settings.get("useZlib").map_or(Ok(false), |node| node.bool())?;
            if use_zlib { Compression::Zlib { level } } else { Compression::Gzip { level } }
        }
        "bzip2" => Compression::Bzip2 { level: integer("blockSize", 9, 1, 9)? as u32 },
        "xz" => Compression::Xz,
        "lz4" => Compression::Lz4,
        "blosc" => Compression::Blosc(blosc(|setting| settings.get(setting), item_size)?),
        "zstd" | "zstandard" => Compression::Zstd { level: integer("level", 3, -131_072, 22)? },
        other => {
            return Err(Error::unsupported(
                format!("{}: compression `{other}`", name.at),
                "read are raw, gzip, bzip2, xz, lz4, blosc and zstd",
            ));
        }
    })
}

/// Names from `axes`, in the order of `dimensions`, else from COSEM's `transform`, which lists them reversed unless it says
/// `"ordering": "F"` (or `order`). They mean nothing to the voxels: what is not a list of names is passed over.
fn axes(document: &Node<'_>, rank: usize) -> Option<Vec<String>> {
    if let Some(axes) = document.get("axes").and_then(|node| names(&node, rank)) {
        return Some(axes);
    }
    let transform = document.get("transform")?;
    let mut axes = names(&transform.get("axes")?, rank)?;
    let is_f =
        |member: &str| transform.get(member).is_some_and(|node| matches!(node.value, Value::String(s) if s == "F"));
    if !(is_f("ordering") || is_f("order")) {
        axes.reverse();
    }
    Some(axes)
}

fn names(node: &Node<'_>, rank: usize) -> Option<Vec<String>> {
    let names: Vec<String> =
        node.items(rank).ok()?.map(|item| item.short_str().map(str::to_owned)).collect::<Result<_>>().ok()?;
    let distinct =
        names.iter().enumerate().all(|(i, name)| !name.is_empty() && names.iter().take(i).all(|n| n != name));
    (names.len() == rank && distinct).then_some(names)
}
