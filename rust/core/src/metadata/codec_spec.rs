//! A codec as a document declares it, checked and resolved: a closed enum, so that no later layer sees an unknown name.

use std::ops::Deref;

use crate::dtype::Endian;
use crate::error::{Error, Result};
use crate::metadata::element_codec::ElementCodec;
use crate::metadata::foreign::ForeignCodec;
use crate::metadata::limits::MAX_CHUNK_NBYTES;
use crate::metadata::precomputed::Encoding;

/// One codec with its settings. Encoding applies a list of them first to last, decoding last to first.
#[derive(Debug, Clone, PartialEq)]
pub enum CodecSpec {
    /// array -> array. Stored axis `k` is input axis `order[k]` (Zarr v3 `transpose`).
    Transpose {
        /// A permutation of the axes.
        order: Vec<usize>,
    },
    /// array -> array. Elements that are others when stored.
    Element(ElementCodec),
    /// array -> bytes. Elements whose bits follow each other without gaps (Zarr v3 `packbits`).
    PackBits(ElementCodec),
    /// array -> bytes. Elements in C order in this byte order (Zarr v3 `bytes`).
    Bytes {
        /// Byte order of the stored elements.
        endian: Endian,
    },
    /// array -> bytes. A shard (Zarr v3 `sharding_indexed`).
    ShardingIndexed(Box<ShardingSpec>),
    /// array -> bytes. A block of N5: its own extent, then big-endian elements, which alone the next codecs encode.
    N5Block,
    /// array -> bytes. A chunk of a Neuroglancer precomputed volume.
    Volume(Encoding),
    /// bytes -> bytes. RFC 1952, one or more members.
    Gzip {
        /// 0-9, or -1 for the library's default; used by the encoder only.
        level: i32,
    },
    /// bytes -> bytes. RFC 1950 (Zarr v2 `zlib`).
    Zlib {
        /// 0-9, or -1 for the library's default; used by the encoder only.
        level: i32,
    },
    /// bytes -> bytes. RFC 8878, one or more frames.
    Zstd {
        /// Compression level, used by the encoder only.
        level: i32,
        /// Whether the encoder adds the content checksum. A checksum that is present is always verified.
        checksum: bool,
    },
    /// bytes -> bytes. One Blosc-1 chunk.
    Blosc(BloscSpec),
    /// bytes -> bytes. One Blosc 2 chunk whose blocks are boxes.
    B2nd(B2ndSpec),
    /// bytes -> bytes. u32 little-endian decoded size, then one raw LZ4 block (Zarr v2 `lz4`).
    Lz4,
    /// bytes -> bytes. One raw LZ4 block whose decoded size is known (WKW).
    Lz4Block,
    /// bytes -> bytes. The framing of lz4-java, `LZ4Block` (N5).
    Lz4Java,
    /// bytes -> bytes. xz stream (N5, numcodecs `lzma`).
    Xz,
    /// bytes -> bytes. An LZMA stream of the format before xz, `FORMAT_ALONE` (numcodecs `lzma`).
    LzmaAlone,
    /// bytes -> bytes. RFC 7932, one stream (whole objects, by their name or `Content-Encoding`).
    Brotli,
    /// bytes -> bytes. bzip2 stream (Zarr v2 `bz2`).
    Bz2 {
        /// 1-9, used by the encoder only.
        level: u32,
    },
    /// bytes -> bytes. Its input and a checksum of it.
    Checksum(ChecksumSpec),
    /// bytes -> bytes. The first bytes of all elements, then all second ones and so on; what is no whole element stays.
    Shuffle {
        /// Bytes of one element; up to 1: the bytes stay as they are.
        elementsize: usize,
    },
    /// bytes -> bytes. One LZF block (HDF5 filter 32000).
    Hdf5Lzf,
    /// bytes -> bytes. Blocks of LZ4 (HDF5 filter 32004).
    Hdf5Lz4,
    /// bytes -> bytes. Blocks of bit planes, perhaps compressed (HDF5 filter 32008).
    Hdf5Bitshuffle(BitshuffleSpec),
    /// bytes -> bytes. One that is decoded outside of the core.
    Foreign(ForeignCodec),
    /// bytes -> bytes. Integers above the smallest of them, in fewer bits (HDF5 filter 6).
    Hdf5ScaleOffset(ScaleOffsetSpec),
}

impl CodecSpec {
    /// The codec `crc32c` of Zarr v3.
    pub const CRC32C: Self = Self::Checksum(ChecksumSpec { kind: ChecksumKind::Crc32c, at_start: false });

    /// The name in Zarr documents, for messages and reports.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Transpose { .. } => "transpose",
            Self::Element(codec) | Self::PackBits(codec) => codec.name,
            Self::Bytes { .. } => "bytes",
            Self::ShardingIndexed(_) => "sharding_indexed",
            Self::Gzip { .. } => "gzip",
            Self::Zlib { .. } => "zlib",
            Self::Zstd { .. } => "zstd",
            Self::Blosc(_) => "blosc",
            Self::B2nd(_) => "b2nd",
            Self::Lz4 => "lz4",
            Self::Lz4Block => "lz4_block",
            Self::Lz4Java => "lz4_java",
            Self::Xz => "xz",
            Self::Brotli => "brotli",
            Self::N5Block => "n5_block",
            Self::Volume(encoding) => encoding.name(),
            Self::LzmaAlone => "lzma",
            Self::Bz2 { .. } => "bz2",
            Self::Checksum(spec) => spec.kind.name(),
            Self::Shuffle { .. } => "shuffle",
            Self::Hdf5Lzf => "hdf5_lzf",
            Self::Hdf5Lz4 => "hdf5_lz4",
            Self::Hdf5Bitshuffle(_) => "hdf5_bitshuffle",
            Self::Foreign(codec) => &codec.name,
            Self::Hdf5ScaleOffset(_) => "hdf5_scaleoffset",
        }
    }

    /// A list of codecs on one line, with what is inside a shard in brackets.
    #[must_use]
    pub fn describe(codecs: &[Self]) -> String {
        let one = |codec: &Self| match codec {
            Self::Transpose { order } => format!("transpose({order:?})"),
            Self::Bytes { endian: Endian::Big } => "bytes(big)".into(),
            Self::ShardingIndexed(spec) => {
                format!("sharding_indexed{:?}[{}]", spec.chunk_shape, Self::describe(&spec.codecs))
            }
            Self::Zstd { level, checksum: true } => format!("zstd({level}, checksum)"),
            Self::Zstd { level, .. } | Self::Gzip { level } | Self::Zlib { level } => {
                format!("{}({level})", codec.name())
            }
            Self::Blosc(spec) => format!("blosc({}, {})", spec.cname, spec.clevel),
            Self::B2nd(spec) => format!("b2nd{:?}", spec.block_shape()),
            Self::Foreign(codec) => format!("{} ({})", codec.name, codec.through),
            other => other.name().into(),
        };
        codecs.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// True for bytes -> bytes codecs that are written as well as read.
    #[must_use]
    pub fn is_written(&self) -> bool {
        matches!(
            self,
            Self::Gzip { .. }
                | Self::Zlib { .. }
                | Self::Zstd { .. }
                | Self::Lz4
                | Self::Bz2 { .. }
                | Self::Checksum(_)
        )
    }

    /// True for bytes -> bytes codecs.
    #[must_use]
    pub fn is_bytes_to_bytes(&self) -> bool {
        !matches!(
            self,
            Self::Transpose { .. }
                | Self::Element(_)
                | Self::PackBits(_)
                | Self::Bytes { .. }
                | Self::ShardingIndexed(_)
                | Self::N5Block
                | Self::Volume(_)
        )
    }
}

/// A checksum of 4 bytes, little-endian, at one end of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChecksumSpec {
    /// How it is computed.
    pub kind: ChecksumKind,
    /// Whether it stands before the bytes rather than after them.
    pub at_start: bool,
}

/// Ways to compute a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumKind {
    /// CRC-32 of gzip.
    Crc32,
    /// CRC-32C (Castagnoli).
    Crc32c,
    /// Adler-32 of zlib.
    Adler32,
    /// Fletcher-32 as HDF5 has it.
    Fletcher32,
    /// Bob Jenkins' lookup3 as HDF5 has it.
    JenkinsLookup3 {
        /// Where it starts.
        initval: u32,
    },
}

impl ChecksumKind {
    /// The name of its codec.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "crc32",
            Self::Crc32c => "crc32c",
            Self::Adler32 => "adler32",
            Self::Fletcher32 => "fletcher32",
            Self::JenkinsLookup3 { .. } => "jenkins_lookup3",
        }
    }
}

/// Settings of `hdf5_scaleoffset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScaleOffsetSpec {
    /// Bytes of one element.
    pub elementsize: usize,
    /// Elements of a chunk.
    pub elements: usize,
    /// Byte order of the decoded elements.
    pub endian: Endian,
    /// The value that elements of ones stand for; only the bytes of an element count.
    pub fill: Option<u64>,
}

/// Settings of `hdf5_bitshuffle`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitshuffleSpec {
    /// Bytes of one element.
    pub elementsize: usize,
    /// Elements of one block, 0 for automatic. With a compressor, the bytes themselves say it.
    pub blocksize: usize,
    /// What compresses the blocks.
    pub inner: BitshuffleInner,
}

/// What compresses the blocks of `hdf5_bitshuffle`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BitshuffleInner {
    /// Nothing.
    None,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// Codecs in encoding order. Each knows its place in the document's list, for messages: unknown codecs that need not be
/// understood are left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CodecList {
    specs: Vec<CodecSpec>,
    places: Vec<usize>,
}

impl CodecList {
    /// Adds the codec that the document lists at `place`.
    pub fn push(&mut self, place: usize, spec: CodecSpec) {
        self.specs.push(spec);
        self.places.push(place);
    }

    /// Place in the document's list of codec number `position`.
    #[must_use]
    pub fn place(&self, position: usize) -> usize {
        self.places.get(position).copied().unwrap_or(position)
    }
}

impl From<Vec<CodecSpec>> for CodecList {
    fn from(specs: Vec<CodecSpec>) -> Self {
        Self { places: (0..specs.len()).collect(), specs }
    }
}

impl Deref for CodecList {
    type Target = [CodecSpec];

    fn deref(&self) -> &[CodecSpec] {
        &self.specs
    }
}

/// Settings of `sharding_indexed` (Zarr v3 codecs/sharding-indexed v1.0).
#[derive(Debug, Clone, PartialEq)]
pub struct ShardingSpec {
    /// Shape of the chunks inside the shard, in the axis order of this codec's input.
    pub chunk_shape: Vec<u64>,
    /// Codecs of one chunk.
    pub codecs: CodecList,
    /// Codecs of the index: `Transpose`*, `Bytes`, `Checksum`*.
    pub index_codecs: CodecList,
    /// Where the index lies in the shard.
    pub index_location: IndexLocation,
}

/// End of a shard at which its index lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexLocation {
    /// The first bytes.
    Start,
    /// The last bytes.
    End,
}

/// Settings of the Blosc codec; used by an encoder only, because a Blosc chunk describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BloscSpec {
    /// Inner codec: `lz4`, `lz4hc`, `blosclz`, `zstd`, `snappy` or `zlib`.
    pub cname: String,
    /// 0-9.
    pub clevel: u8,
    /// What happens to the bytes before compression.
    pub shuffle: BloscShuffle,
    /// Bytes of one element for the shuffle.
    pub typesize: usize,
    /// Bytes of one block, 0 for automatic.
    pub blocksize: usize,
}

/// Blosc's pre-filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BloscShuffle {
    /// None.
    None,
    /// Byte shuffle.
    Byte,
    /// Bit shuffle.
    Bit,
}

/// How the blocks of a chunk of a Blosc2 NDim array lie; all sizes have been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct B2ndSpec {
    chunk: Vec<usize>,
    block: Vec<usize>,
    item_size: usize,
    chunk_nbytes: usize,
    block_nbytes: usize,
    padded_nbytes: usize,
}

impl B2ndSpec {
    /// Chunks of extent `chunk` cut into blocks of extent `block`, of elements of `item_size` bytes.
    ///
    /// # Errors
    /// `Metadata` when the extents do not fit each other, `Limit` when a chunk with whole blocks takes too much memory.
    pub fn new(chunk: &[u64], block: &[u64], item_size: usize) -> Result<Self> {
        if chunk.len() != block.len() || chunk.contains(&0) || block.contains(&0) || item_size == 0 {
            return Err(Error::metadata("blocks", format!("{block:?} are no blocks of chunks {chunk:?}")));
        }
        let axes = chunk.iter().zip(block);
        let padded = axes.map(|(&chunk, &block)| chunk.div_ceil(block).saturating_mul(block));
        Ok(Self {
            padded_nbytes: bounded_nbytes(padded, item_size)?,
            chunk_nbytes: bounded_nbytes(chunk.iter().copied(), item_size)?,
            block_nbytes: bounded_nbytes(block.iter().copied(), item_size)?,
            chunk: chunk.iter().map(|&extent| extent as usize).collect(),
            block: block.iter().map(|&extent| extent as usize).collect(),
            item_size,
        })
    }

    /// Extent of a chunk in voxels.
    #[must_use]
    pub fn chunk_shape(&self) -> &[usize] {
        &self.chunk
    }

    /// Extent of a block in voxels.
    #[must_use]
    pub fn block_shape(&self) -> &[usize] {
        &self.block
    }

    /// Blocks along each axis of a chunk.
    pub fn grid(&self) -> impl Iterator<Item = usize> {
        self.chunk.iter().zip(&self.block).map(|(&chunk, &block)| chunk.div_ceil(block))
    }

    /// Bytes of an element.
    #[must_use]
    pub fn item_size(&self) -> usize {
        self.item_size
    }

    /// Bytes of a decoded chunk.
    #[must_use]
    pub fn chunk_nbytes(&self) -> usize {
        self.chunk_nbytes
    }

    /// Bytes of a decoded block.
    #[must_use]
    pub fn block_nbytes(&self) -> usize {
        self.block_nbytes
    }

    /// Bytes of all blocks of a chunk.
    #[must_use]
    pub fn padded_nbytes(&self) -> usize {
        self.padded_nbytes
    }
}

fn bounded_nbytes(mut extents: impl Iterator<Item = u64>, item_size: usize) -> Result<usize> {
    let nbytes = extents.try_fold(item_size as u64, u64::checked_mul).unwrap_or(u64::MAX);
    if nbytes > MAX_CHUNK_NBYTES {
        return Err(Error::limit("bytes of a decoded chunk with its blocks", nbytes, MAX_CHUNK_NBYTES));
    }
    Ok(nbytes as usize)
}
