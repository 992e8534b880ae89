//! A codec as a document declares it, checked and resolved: a closed enum, so that no later layer sees an unknown name.

use std::ops::Deref;

use crate::dtype::Endian;
use crate::metadata::precomputed::Encoding;

/// One codec with its settings. Encoding applies a list of them first to last, decoding last to first.
#[derive(Debug, Clone, PartialEq)]
pub enum CodecSpec {
    /// array -> array. Stored axis `k` is input axis `order[k]` (Zarr v3 `transpose`).
    Transpose {
        /// A permutation of the axes.
        order: Vec<usize>,
    },
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
    /// bytes -> bytes. u32 little-endian decoded size, then one raw LZ4 block (Zarr v2 `lz4`).
    Lz4,
    /// bytes -> bytes. One raw LZ4 block whose decoded size is known (WKW).
    Lz4Block,
    /// bytes -> bytes. The framing of lz4-java, `LZ4Block` (N5).
    Lz4Java,
    /// bytes -> bytes. xz stream (N5).
    Xz,
    /// bytes -> bytes. RFC 7932, one stream (whole objects, by their name or `Content-Encoding`).
    Brotli,
    /// bytes -> bytes. bzip2 stream (Zarr v2 `bz2`).
    Bz2 {
        /// 1-9, used by the encoder only.
        level: u32,
    },
    /// bytes -> bytes. Appends the CRC-32C of its input, 4 bytes little-endian.
    Crc32c,
}

impl CodecSpec {
    /// The name in Zarr documents, for messages and reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Transpose { .. } => "transpose",
            Self::Bytes { .. } => "bytes",
            Self::ShardingIndexed(_) => "sharding_indexed",
            Self::Gzip { .. } => "gzip",
            Self::Zlib { .. } => "zlib",
            Self::Zstd { .. } => "zstd",
            Self::Blosc(_) => "blosc",
            Self::Lz4 => "lz4",
            Self::Lz4Block => "lz4_block",
            Self::Lz4Java => "lz4_java",
            Self::Xz => "xz",
            Self::Brotli => "brotli",
            Self::N5Block => "n5_block",
            Self::Volume(encoding) => encoding.name(),
            Self::Bz2 { .. } => "bz2",
            Self::Crc32c => "crc32c",
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
            other => other.name().into(),
        };
        codecs.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// True for bytes -> bytes codecs.
    #[must_use]
    pub fn is_bytes_to_bytes(&self) -> bool {
        !matches!(
            self,
            Self::Transpose { .. } | Self::Bytes { .. } | Self::ShardingIndexed(_) | Self::N5Block | Self::Volume(_)
        )
    }
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
    /// Codecs of the index: `Transpose`*, `Bytes`, `Crc32c`*.
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
