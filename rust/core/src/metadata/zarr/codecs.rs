//! Codec lists of version 3 -> [`CodecSpec`]s. Those that come from numcodecs are read in [`numcodecs`](super::numcodecs).
//!
//! Only names, settings and data types are read here; that a list makes sense (its order, shapes, permutations) is checked
//! where it is resolved.

use std::ops::RangeInclusive;

use super::numcodecs::{self, element};
use super::{Extension, elements, extents};
use crate::dtype::{DataType, Endian};
use crate::error::{Error, Result};
use crate::metadata::foreign::{ForeignCodec, ForeignCodecs};
use crate::metadata::json::Node;
use crate::metadata::limits::MAX_CODECS;
use crate::metadata::{BloscShuffle, BloscSpec, CodecList, CodecSpec, ElementStep, IndexLocation, ShardingSpec};

/// What a codec must know of the array it encodes.
#[derive(Clone)]
pub(super) struct Input<'f> {
    pub(super) rank: usize,
    /// Of its elements; array -> array codecs change it.
    pub(super) dtype: DataType,
    pub(super) endian: Endian,
    pub(super) is_v2: bool,
    /// Whether its elements have no fixed size and no codec has made bytes of them yet.
    pub(super) objects: bool,
    foreign: &'f dyn ForeignCodecs,
}

impl<'f> Input<'f> {
    /// The array of a version 2 document.
    pub(super) fn v2(rank: usize, dtype: DataType, endian: Endian, foreign: &'f dyn ForeignCodecs) -> Self {
        let objects = matches!(dtype, DataType::Object);
        Self { rank, dtype, endian, is_v2: true, objects, foreign }
    }

    /// The array of a version 3 document, whose elements have no byte order before the codec `bytes`.
    pub(super) fn v3(rank: usize, dtype: DataType, foreign: &'f dyn ForeignCodecs) -> Self {
        Self { is_v2: false, ..Self::v2(rank, dtype, Endian::NATIVE, foreign) }
    }

    /// A codec that is decoded elsewhere; None when nobody knows it.
    pub(super) fn foreign(
        &self,
        name: &str,
        configuration: Option<&Node<'_>>,
        objects: bool,
    ) -> Result<Option<ForeignCodec>> {
        let configuration = configuration.map_or_else(|| "{}".to_owned(), |node| node.value.to_string());
        self.foreign.find(name, &configuration, objects)
    }
}

/// A version 3 `codecs` list, without the unknown codecs that need not be understood.
pub(super) fn v3_list(node: &Node<'_>, mut input: Input<'_>) -> Result<CodecList> {
    let mut specs = CodecList::default();
    for (place, item) in node.items(MAX_CODECS)?.enumerate() {
        let codec = Extension::parse(item)?;
        match v3_codec(&codec, &mut input)? {
            Some(spec) => {
                // One decoded elsewhere was taken for what turns the array into bytes, and is not.
                if let (false, Some(CodecSpec::Foreign(before))) = (spec.is_bytes_to_bytes(), specs.last()) {
                    let what = format!("{}: codec `{}` before `{}`", node.at, before.name, codec.name);
                    return Err(Error::unsupported(what, "array -> array codecs are not decoded in Python"));
                }
                specs.push(place, spec);
            }
            None => {
                // The first that is none of elements turns the array into bytes: that is `bytes`, and then the codec.
                let is_first =
                    specs.iter().all(|spec| matches!(spec, CodecSpec::Transpose { .. } | CodecSpec::Element(_)));
                let found = input.foreign(codec.name, codec.configuration.as_ref(), input.objects && is_first)?;
                let found = match found {
                    Some(found) => found,
                    // Only one that nobody knows may be left out.
                    None if !codec.must_understand => continue,
                    None => {
                        return Err(Error::unsupported(
                            format!("{}: codec `{}`", codec.node.at, codec.name),
                            "read are bytes, transpose, sharding_indexed, gzip, zstd, blosc, crc32c, packbits, \
                             scale_offset, cast_value, bitround and most of `numcodecs`",
                        ));
                    }
                };
                if is_first {
                    specs.push(place, CodecSpec::Bytes { endian: Endian::NATIVE });
                }
                specs.push(place, CodecSpec::Foreign(found));
            }
        }
    }
    Ok(specs)
}

/// One codec; None when its name is unknown.
fn v3_codec(codec: &Extension<'_>, input: &mut Input<'_>) -> Result<Option<CodecSpec>> {
    // Names that zarr-python derives from numcodecs, which repeats the codec's own name as `id`.
    if let Some(id) = codec.name.strip_prefix("numcodecs.") {
        let Some(known) = numcodecs::settings(id) else { return Ok(None) };
        codec.only(known)?;
        return numcodecs::codec(id, &codec.node, &|name| codec.setting(name), input);
    }
    Ok(Some(match codec.name {
        "bytes" | "endian" => {
            codec.only(&["endian"])?;
            CodecSpec::Bytes { endian: endian(codec)? }
        }
        "transpose" => {
            codec.only(&["order"])?;
            CodecSpec::Transpose { order: permutation(&codec.require("order")?, input.rank)? }
        }
        "sharding_indexed" => CodecSpec::ShardingIndexed(Box::new(sharding(codec, input)?)),
        "gzip" => {
            codec.only(&["level", "id"])?;
            CodecSpec::Gzip { level: deflate_level(codec.setting("level"))? }
        }
        "zstd" => {
            codec.only(&["level", "checksum"])?;
            zstd(codec.setting("level"), codec.setting("checksum"), -131_072..=22)?
        }
        "blosc" => {
            codec.only(&["cname", "clevel", "shuffle", "typesize", "blocksize", "id"])?;
            CodecSpec::Blosc(blosc(|name| codec.setting(name), input.dtype.item_size())?)
        }
        "crc32c" => {
            codec.only(&[])?;
            CodecSpec::CRC32C
        }
        "packbits" => elements::packbits(codec, input)?,
        "scale_offset" => elements::scale_offset(codec, input)?,
        "cast_value" => elements::cast_value(codec, input)?,
        "bitround" => {
            codec.only(&["keepbits"])?;
            let same = (input.dtype.clone(), input.endian);
            element("bitround", &codec.node, input, same.clone(), same, ElementStep::Cast)?
        }
        _ => return Ok(None),
    }))
}

/// Absent: little. Writers leave it out for single bytes, old ones for others too.
fn endian(codec: &Extension<'_>) -> Result<Endian> {
    let Some(node) = codec.setting("endian") else { return Ok(Endian::Little) };
    match node.str()? {
        "little" => Ok(Endian::Little),
        "big" => Ok(Endian::Big),
        _ => Err(node.expected("\"little\" or \"big\"")),
    }
}

/// A list of axes, or one of the two constants that drafts of the specification had.
fn permutation(node: &Node<'_>, rank: usize) -> Result<Vec<usize>> {
    match node.str() {
        Ok("C") => Ok((0..rank).collect()),
        Ok("F") => Ok((0..rank).rev().collect()),
        Ok(_) => Err(node.expected("a permutation of the axes, \"C\" or \"F\"")),
        Err(_) => node.items(rank)?.map(|axis| Ok(axis.u64()? as usize)).collect(),
    }
}

fn sharding(codec: &Extension<'_>, input: &Input<'_>) -> Result<ShardingSpec> {
    codec.only(&["chunk_shape", "codecs", "index_codecs", "index_location"])?;
    let chunk_shape = extents(&codec.require("chunk_shape")?)?;
    let codecs = v3_list(&codec.require("codecs")?, input.clone())?;
    // The index is an array of uint64 with one axis more, for (offset, nbytes).
    let index_input = Input::v3(input.rank + 1, DataType::UInt(8), input.foreign);
    let index_codecs = v3_list(&codec.require("index_codecs")?, index_input)?;
    let index_location = match codec.setting("index_location") {
        None => IndexLocation::End,
        Some(node) => match node.str()? {
            "start" => IndexLocation::Start,
            "end" => IndexLocation::End,
            _ => return Err(node.expected("\"start\" or \"end\"")),
        },
    };
    Ok(ShardingSpec { chunk_shape, codecs, index_codecs, index_location })
}

/// Absent: the library's default.
pub(super) fn deflate_level(node: Option<Node<'_>>) -> Result<i32> {
    Ok(node.map_or(Ok(-1), |level| level.integer(-1, 9))? as i32)
}

/// Absent: 0 and none.
pub(super) fn zstd(
    level: Option<Node<'_>>,
    checksum: Option<Node<'_>>,
    levels: RangeInclusive<i32>,
) -> Result<CodecSpec> {
    let (min, max) = (i64::from(*levels.start()), *levels.end() as u64);
    let level = level.map_or(Ok(0), |level| level.integer(min, max))? as i32;
    let checksum = checksum.map_or(Ok(false), |checksum| checksum.bool())?;
    Ok(CodecSpec::Zstd { level, checksum })
}

/// Settings of Blosc: names of version 3 or numbers of numcodecs. They serve the encoder, so all have defaults.
pub(in crate::metadata) fn blosc<'v>(
    setting: impl Fn(&str) -> Option<Node<'v>>,
    item_size: usize,
) -> Result<BloscSpec> {
    let cname = match setting("cname") {
        None => "lz4",
        Some(node) => match node.str()? {
            name @ ("lz4" | "lz4hc" | "blosclz" | "zstd" | "snappy" | "zlib") => name,
            _ => return Err(node.expected("one of lz4, lz4hc, blosclz, zstd, snappy, zlib")),
        },
    };
    // numcodecs' -1 means: bits of single bytes, bytes of longer elements.
    let automatic = if item_size == 1 { BloscShuffle::Bit } else { BloscShuffle::Byte };
    let shuffle = match setting("shuffle") {
        None => automatic,
        Some(node) => match node.str() {
            Ok("noshuffle") => BloscShuffle::None,
            Ok("shuffle") => BloscShuffle::Byte,
            Ok("bitshuffle") => BloscShuffle::Bit,
            Ok(_) => return Err(node.expected("one of noshuffle, shuffle, bitshuffle")),
            Err(_) => match node.integer(-1, 2)? {
                0 => BloscShuffle::None,
                1 => BloscShuffle::Byte,
                2 => BloscShuffle::Bit,
                _ => automatic,
            },
        },
    };
    let number = |name: &str, default: u64, min: i64, max: u64| {
        setting(name).map_or(Ok(default), |node| node.integer(min, max).map(|n| n as u64))
    };
    Ok(BloscSpec {
        cname: cname.to_owned(),
        clevel: number("clevel", 5, 0, 9)? as u8,
        shuffle,
        // Blosc itself shuffles elements of at most 255 bytes and takes others for single bytes.
        typesize: number("typesize", if item_size > 255 { 1 } else { item_size as u64 }, 1, 255)? as usize,
        blocksize: number("blocksize", 0, 0, i32::MAX as u64)? as usize,
    })
}
