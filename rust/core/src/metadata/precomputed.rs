//! `info` of a Neuroglancer precomputed volume, with one scale -> [`PrecomputedScale`].
//!
//! Sources: Neuroglancer's "Precomputed Volume Format" (volume.rst, json_schema/volume.yml) and "Sharded format"
//! (sharded.rst, json_schema/sharding.yml). An `info` lists all scales of a volume; the caller leaves in it the one that
//! is meant. What says nothing of voxels (resolution, meshes, the quality of an encoder) is not read.
//!
//! Lists are in the order x, y, z. A chunk holds all channels, with x fastest and the channel slowest.

use crate::dtype::{DataType, Endian};
use crate::error::{Error, Result};
use crate::metadata::json::{self, Node};
use crate::metadata::limits::{MAX_CHUNK_NBYTES, MAX_INDEX_NBYTES};
use crate::metadata::resolve::{check_shapes, chunk_nbytes, grid};
use crate::metadata::uint64_sharding::{Hash, Sharding, code_bits};
use crate::metadata::{ArrayMeta, ChunkForm, CodecList, CodecSpec, IndexSpec, KeyEncoding, ShardLevel};
use crate::subset::{MAX_EXTENT, product};

/// One scale of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrecomputedScale {
    /// Type of one voxel.
    pub dtype: DataType,
    /// Number of channels, at least 1.
    pub num_channels: u64,
    /// Extent in voxels.
    pub size: [u64; 3],
    /// Coordinates of the first voxel, where the chunk grid begins; negative ones are usual.
    pub voxel_offset: [i64; 3],
    /// Extent of a chunk in voxels, at least 1. The last chunk along an axis ends where the volume does.
    pub chunk_size: [u64; 3],
    /// What the bytes of a chunk are.
    pub encoding: Encoding,
    /// How chunks are gathered in shards; None where each is an object of its own.
    pub sharding: Option<Sharding>,
    /// Folder of the chunks or shards, relative to that of the document; empty where they lie beside it.
    pub key: String,
}

/// Encoding of a chunk (volume.rst, "Chunk encoding").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Little-endian elements.
    Raw,
    /// A JPEG image whose rows, one after the other, are the voxels.
    Jpeg,
    /// A PNG image, likewise.
    Png,
    /// Blocks of indices into tables of labels.
    CompressedSegmentation {
        /// Extent of a block in voxels, at least 1.
        block_size: [u64; 3],
    },
    /// Boundaries of labels.
    Compresso,
}

impl Encoding {
    /// Its name in an `info`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::CompressedSegmentation { .. } => "compressed_segmentation",
            Self::Compresso => "compresso",
        }
    }
}

impl PrecomputedScale {
    /// Number of chunks along each axis.
    #[must_use]
    pub fn grid(&self) -> [u64; 3] {
        let [(x, i), (y, j), (z, k)] = pairs(self.size, self.chunk_size);
        [x.div_ceil(i.max(1)), y.div_ceil(j.max(1)), z.div_ceil(k.max(1))]
    }

    /// Name in the folder of the scale of the object that holds the chunk in grid cell (x, y, z).
    #[must_use]
    pub fn object_name(&self, cell: &[u64]) -> String {
        self.keys().key(cell)
    }

    fn keys(&self) -> KeyEncoding {
        match self.sharding {
            None => KeyEncoding::PrecomputedChunk { size: self.size, step: self.chunk_size, offset: self.voxel_offset },
            Some(sharding) => KeyEncoding::PrecomputedShard { grid: self.grid(), sharding },
        }
    }
}

/// Name of the object of the chunk in a cell (x, y, z) of a volume without shards: the coordinates between which it lies.
pub(super) fn chunk_name(cell: &[u64], size: [u64; 3], step: [u64; 3], offset: [i64; 3]) -> String {
    use std::fmt::Write as _;
    let mut name = String::with_capacity(48);
    for (&at, ((size, step), offset)) in cell.iter().zip(pairs(size, step).into_iter().zip(offset)) {
        let start = at.saturating_mul(step).min(size);
        let end = start.saturating_add(step).min(size);
        let [start, end] = [start, end].map(|voxel| i128::from(offset) + i128::from(voxel));
        let separator = if name.is_empty() { "" } else { "_" };
        // Writing to a String cannot fail.
        let _ = write!(name, "{separator}{start}-{end}");
    }
    name
}

/// Reads an `info` with exactly one scale.
///
/// # Errors
/// `Metadata` when the document breaks a rule, `Unsupported` for a data type or encoding that is not read, `Limit` when it
/// asks for more than [`limits`](crate::metadata::limits) allow.
pub fn parse(document: &[u8]) -> Result<PrecomputedScale> {
    let value = json::parse(document, &[])?;
    let info = Node::root(&value);
    let dtype = data_type(&info.require("data_type")?)?;
    let num_channels = info.require("num_channels")?.integer(1, MAX_EXTENT)? as u64;
    let scales = info.require("scales")?;
    let mut listed = scales.items(usize::MAX)?;
    let (Some(scale), None) = (listed.next(), listed.next()) else {
        return Err(scales.expected("a list of one scale"));
    };
    let size = triple(&scale.require("size")?, |item| item.integer(0, MAX_EXTENT))?.map(|n| n as u64);
    let voxel_offset = match scale.get("voxel_offset").filter(|node| !node.is_null()) {
        Some(node) => triple(&node, |item| item.integer(-(MAX_EXTENT as i64), MAX_EXTENT))?.map(|n| n as i64),
        None => [0; 3],
    };
    let chunk_sizes = scale.require("chunk_sizes")?;
    let mut copies = chunk_sizes.items(usize::MAX)?;
    let first = copies.next().ok_or_else(|| chunk_sizes.expected("a list of chunk sizes"))?;
    let sharding = match scale.get("sharding").filter(|node| !node.is_null()) {
        Some(node) => Some(sharding(&node)?),
        None => None,
    };
    if sharding.is_some() && copies.next().is_some() {
        return Err(chunk_sizes.error("copies in chunks of other sizes cannot share shards"));
    }
    let parsed = PrecomputedScale {
        encoding: encoding(&scale, &dtype, num_channels)?,
        dtype,
        num_channels,
        size,
        voxel_offset,
        chunk_size: extents(&first)?,
        sharding,
        key: folder(&scale.require("key")?)?,
    };
    check_sizes(&parsed)?;
    Ok(parsed)
}

/// The scale as an array with the axes (x, y, z, channel).
///
/// # Errors
/// As [`parse`].
pub fn array(document: &[u8]) -> Result<ArrayMeta> {
    let scale = parse(document)?;
    let with_channel = |values: [u64; 3], channels: u64| values.into_iter().chain([channels]).collect::<Vec<_>>();
    let shape = with_channel(scale.size, scale.num_channels);
    let step = with_channel(scale.chunk_size, scale.num_channels);
    // A chunk larger than the volume ends where it does.
    let chunk_shape: Vec<u64> = step.iter().zip(&shape).map(|(&step, &extent)| step.min(extent.max(1))).collect();
    check_shapes(&shape, &step)?;
    let mut codecs = vec![CodecSpec::Volume(scale.encoding)];
    let mut levels = Vec::new();
    if let Some(sharding) = scale.sharding {
        if sharding.data_gzip {
            codecs.push(CodecSpec::Gzip { level: -1 });
        }
        let indexes = [IndexSpec::PrecomputedShard(sharding), IndexSpec::PrecomputedMinishard(sharding)];
        let level = |index| ShardLevel { outer: Vec::new(), grid: vec![1; 4], entry_shape: chunk_shape.clone(), index };
        levels.extend(indexes.map(level));
    }
    Ok(ArrayMeta {
        shard_grid: grid(&shape, &step)?,
        grid_origin: vec![0; 4],
        origin: scale.voxel_offset.into_iter().chain([0]).collect(),
        fill_value: vec![0; scale.dtype.item_size()],
        dimension_names: ["x", "y", "z", "channel"].map(|name| Some(name.into())).into(),
        keys: scale.keys(),
        levels,
        chunk_order: vec![3, 2, 1, 0],
        chunk_nbytes: chunk_nbytes(&chunk_shape, &scale.dtype)?,
        chunk_shape,
        dtype: scale.dtype,
        endian: Endian::Little,
        chunk_form: ChunkForm::Volume(scale.encoding),
        chunk_elements: Vec::new(),
        chunk_codecs: codecs.get(1..).unwrap_or_default().to_vec(),
        codecs: CodecList::from(codecs),
        shape,
    })
}

/// Refuses chunks and grids beyond the limits. Chunks count without what lies outside of the volume.
fn check_sizes(scale: &PrecomputedScale) -> Result<()> {
    let largest = pairs(scale.size, scale.chunk_size).map(|(size, step)| size.min(step));
    let factors = largest.into_iter().chain([scale.num_channels, scale.dtype.item_size() as u64]);
    let nbytes = product(factors).unwrap_or(u64::MAX);
    if nbytes > MAX_CHUNK_NBYTES {
        return Err(Error::limit("bytes of a decoded chunk", nbytes, MAX_CHUNK_NBYTES));
    }
    let grid = scale.grid();
    let chunks = product(grid).unwrap_or(u64::MAX);
    if chunks > i64::MAX as u64 {
        return Err(Error::limit("number of chunks", chunks, i64::MAX as u64));
    }
    let bits: u32 = grid.iter().map(|&cells| code_bits(cells)).sum();
    if scale.sharding.is_some() && bits > u64::BITS {
        return Err(Error::limit("bits of a chunk id", bits.into(), u64::BITS.into()));
    }
    Ok(())
}

fn data_type(node: &Node<'_>) -> Result<DataType> {
    let name = node.short_str()?;
    // Old documents have capitals.
    let dtype = DataType::number(&name.to_ascii_lowercase());
    dtype.filter(|dtype| !matches!(dtype, DataType::Int(8) | DataType::Float(8))).ok_or_else(|| {
        let hint = "the format has integers of 8 to 32 bits, uint64 and float32";
        Error::unsupported(format!("{}: data type `{name}`", node.at), hint)
    })
}

/// The encoding, which says for which types and numbers of channels it is.
fn encoding(scale: &Node<'_>, dtype: &DataType, num_channels: u64) -> Result<Encoding> {
    let node = scale.require("encoding")?;
    let name = node.short_str()?;
    let unsigned = |sizes: &[u8]| matches!(dtype, DataType::UInt(size) if sizes.contains(size));
    let (encoding, fits) = match name {
        "raw" => (Encoding::Raw, true),
        "jpeg" => (Encoding::Jpeg, unsigned(&[1]) && matches!(num_channels, 1 | 3)),
        "png" => (Encoding::Png, unsigned(&[1, 2]) && num_channels <= 4),
        "compressed_segmentation" => {
            let block_size = extents(&scale.require("compressed_segmentation_block_size")?)?;
            (Encoding::CompressedSegmentation { block_size }, unsigned(&[4, 8]))
        }
        "compresso" => (Encoding::Compresso, unsigned(&[1, 2, 4, 8]) && num_channels == 1),
        _ => {
            let hint = "read are raw, jpeg, png, compressed_segmentation and compresso; \
                        cloud-volume can copy the volume to one of them";
            return Err(Error::unsupported(format!("{}: encoding `{name}`", node.at), hint));
        }
    };
    if fits {
        Ok(encoding)
    } else {
        let channels = if num_channels == 1 { "channel" } else { "channels" };
        Err(node.error(format!("`{name}` cannot hold {num_channels} {channels} of {}", dtype.numpy_name())))
    }
}

fn sharding(node: &Node<'_>) -> Result<Sharding> {
    let kind = node.require("@type")?;
    let name = kind.short_str()?;
    if name != "neuroglancer_uint64_sharded_v1" {
        let what = format!("{}: sharding `{name}`", kind.at);
        return Err(Error::unsupported(what, "read is neuroglancer_uint64_sharded_v1"));
    }
    let bits = |name: &str, max| node.require(name)?.integer(0, max).map(|n| n as u32);
    let hash = node.require("hash")?;
    let sharding = Sharding {
        preshift_bits: bits("preshift_bits", 64)?,
        hash: match hash.short_str()? {
            "identity" => Hash::Identity,
            "murmurhash3_x86_128" => Hash::Murmur3X86_128,
            name => {
                let what = format!("{}: hash function `{name}`", hash.at);
                return Err(Error::unsupported(what, "the format has identity and murmurhash3_x86_128"));
            }
        },
        minishard_bits: bits("minishard_bits", 32)?,
        shard_bits: bits("shard_bits", 64)?,
        minishard_index_gzip: is_gzip(node, "minishard_index_encoding")?,
        data_gzip: is_gzip(node, "data_encoding")?,
    };
    if sharding.minishard_bits + sharding.shard_bits > u64::BITS {
        return Err(node.error(format!(
            "{} bits of the minishard and {} of the shard are more than the 64 of a chunk id",
            sharding.minishard_bits, sharding.shard_bits
        )));
    }
    if sharding.index_nbytes() > MAX_INDEX_NBYTES {
        let what = format!("{}: bytes of a shard index", node.at);
        return Err(Error::limit(what, sharding.index_nbytes(), MAX_INDEX_NBYTES));
    }
    Ok(sharding)
}

/// `raw`, which is the default, or `gzip`.
fn is_gzip(sharding: &Node<'_>, name: &str) -> Result<bool> {
    let Some(node) = sharding.get(name) else { return Ok(false) };
    match node.short_str()? {
        "raw" => Ok(false),
        "gzip" => Ok(true),
        other => Err(Error::unsupported(format!("{}: `{other}`", node.at), "the format has raw and gzip")),
    }
}

/// A folder below that of the document; `..` is for whoever knows where the document lies.
fn folder(node: &Node<'_>) -> Result<String> {
    let key = node.str()?;
    let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0']);
    if key.is_empty() || key.split('/').all(is_plain) {
        Ok(key.to_owned())
    } else {
        Err(node.expected("a folder below that of the document"))
    }
}

/// Extents of at least one voxel.
fn extents(node: &Node<'_>) -> Result<[u64; 3]> {
    Ok(triple(node, |item| item.integer(1, MAX_EXTENT))?.map(|n| n as u64))
}

/// A list of three numbers.
fn triple(node: &Node<'_>, number: impl Fn(Node<'_>) -> Result<i128>) -> Result<[i128; 3]> {
    let numbers = node.items(usize::MAX)?.map(number).collect::<Result<Vec<_>>>()?;
    numbers.try_into().map_err(|_| node.expected("three numbers"))
}

fn pairs<A: Copy, B: Copy>(a: [A; 3], b: [B; 3]) -> [(A, B); 3] {
    let ([a0, a1, a2], [b0, b1, b2]) = (a, b);
    [(a0, b0), (a1, b1), (a2, b2)]
}
