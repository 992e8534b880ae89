//! Codecs of numcodecs by their `id`: filters and compressors of version 2, and those that version 3 calls `numcodecs.<id>`.
//!
//! Source: numcodecs 0.16. Levels are recorded as they were given and clamped by the encoder.

use serde_json::Value;

use super::codecs::Input;
use super::{codecs, dtype};
use crate::dtype::{DataType, Endian};
use crate::error::{Error, Result};
use crate::metadata::json::Node;
use crate::metadata::limits::MAX_ITEM_NBYTES;
use crate::metadata::{
    BitPacking, BitshuffleInner, BitshuffleSpec, ChecksumKind, ChecksumSpec, CodecSpec, ElementCodec, ElementStep,
    PaddingByte, ScaleOffsetSpec,
};

/// What can be read, for messages.
pub(super) const READ: &str = "read are blosc, zlib, gzip, zstd, lz4, bz2, lzma, shuffle, delta, fixedscaleoffset, \
                               astype, quantize, bitround, packbits and checksums";

/// Settings by their names.
pub(super) type Settings<'s, 'v> = &'s dyn Fn(&str) -> Option<Node<'v>>;

/// Names of the settings of codec `id`; None when it is not read.
pub(super) fn settings(id: &str) -> Option<&'static [&'static str]> {
    Some(match id {
        "gzip" | "zlib" | "bz2" => &["level", "id"],
        "zstd" => &["level", "checksum", "id"],
        "blosc" => &["cname", "clevel", "shuffle", "typesize", "blocksize", "id"],
        "lz4" => &["acceleration", "id"],
        "lzma" => &["format", "check", "preset", "filters", "id"],
        "shuffle" => &["elementsize", "id"],
        "crc32" | "crc32c" | "adler32" => &["location", "id"],
        "jenkins_lookup3" => &["initval", "prefix", "id"],
        "fletcher32" | "packbits" | "hdf5_lzf" | "hdf5_lz4" => &["id"],
        "hdf5_bitshuffle" => &["elementsize", "cname", "blocksize", "id"],
        "hdf5_scaleoffset" => &["elementsize", "elements", "endian", "fill", "id"],
        "delta" => &["dtype", "astype", "id"],
        "fixedscaleoffset" => &["scale", "offset", "dtype", "astype", "id"],
        "quantize" => &["digits", "dtype", "astype", "id"],
        "astype" => &["encode_dtype", "decode_dtype", "id"],
        "bitround" => &["keepbits", "id"],
        _ => return None,
    })
}

/// Codec `id` with its settings, of which `at` is the owner; None when it is not read. An array -> array codec gets
/// `input` elements, and leaves there what it makes of them.
pub(super) fn codec<'v>(
    id: &str,
    at: &Node<'_>,
    setting: Settings<'_, 'v>,
    input: &mut Input,
) -> Result<Option<CodecSpec>> {
    let known = |name: &str| setting(name).filter(|node| !node.is_null());
    let require = |name: &str| known(name).ok_or_else(|| at.error(format!("`{id}` needs the setting `{name}`")));
    Ok(Some(match id {
        "gzip" => CodecSpec::Gzip { level: codecs::deflate_level(setting("level"))? },
        "zlib" => CodecSpec::Zlib { level: codecs::deflate_level(setting("level"))? },
        "bz2" => CodecSpec::Bz2 { level: setting("level").map_or(Ok(1), |level| level.integer(1, 9))? as u32 },
        "zstd" => codecs::zstd(setting("level"), setting("checksum"), i32::MIN..=i32::MAX)?,
        "blosc" => CodecSpec::Blosc(codecs::blosc(setting, input.dtype.item_size())?),
        "lz4" => CodecSpec::Lz4,
        "lzma" => lzma(at, &known)?,
        "shuffle" => {
            // Version 3 takes the elements of the array.
            let default = if input.is_v2 { 4 } else { input.dtype.item_size() };
            let elementsize =
                known("elementsize").map_or(Ok(default as i128), |node| node.integer(0, MAX_ITEM_NBYTES))?;
            CodecSpec::Shuffle { elementsize: elementsize as usize }
        }
        "crc32" => checksum(ChecksumKind::Crc32, true, &known)?,
        "adler32" => checksum(ChecksumKind::Adler32, true, &known)?,
        "crc32c" => checksum(ChecksumKind::Crc32c, false, &known)?,
        "fletcher32" => checksum(ChecksumKind::Fletcher32, false, &|_| None)?,
        "jenkins_lookup3" => {
            if let Some(prefix) = known("prefix") {
                return Err(Error::unsupported(format!("{}: bytes before those of the checksum", prefix.at), READ));
            }
            let initval = known("initval").map_or(Ok(0), |node| node.integer(0, u32::MAX.into()))? as u32;
            checksum(ChecksumKind::JenkinsLookup3 { initval }, false, &|_| None)?
        }
        "hdf5_lzf" => CodecSpec::Hdf5Lzf,
        "hdf5_lz4" => CodecSpec::Hdf5Lz4,
        "hdf5_bitshuffle" => {
            let elementsize = require("elementsize")?.integer(1, MAX_ITEM_NBYTES)? as usize;
            let name = require("cname")?;
            let inner = match name.str()? {
                "none" => BitshuffleInner::None,
                "lz4" => BitshuffleInner::Lz4,
                "zstd" => BitshuffleInner::Zstd,
                _ => return Err(name.expected("one of none, lz4, zstd")),
            };
            let blocksize = known("blocksize").map_or(Ok(0), |node| node.integer(0, u32::MAX.into()))? as usize;
            CodecSpec::Hdf5Bitshuffle(BitshuffleSpec { elementsize, blocksize, inner })
        }
        "hdf5_scaleoffset" => {
            let number = |name, most| -> Result<usize> { Ok(require(name)?.integer(0, most)? as usize) };
            let endian = require("endian")?;
            CodecSpec::Hdf5ScaleOffset(ScaleOffsetSpec {
                elementsize: number("elementsize", MAX_ITEM_NBYTES)?,
                elements: number("elements", u32::MAX.into())?,
                endian: match endian.str()? {
                    "little" => Endian::Little,
                    "big" => Endian::Big,
                    _ => return Err(endian.expected("little or big")),
                },
                fill: known("fill").map(|node| node.integer(0, u64::MAX)).transpose()?.map(|fill| fill as u64),
            })
        }
        "delta" => {
            let (decoded, encoded) = dtypes(("dtype", "astype"), &known, input)?;
            if !is_summed(&encoded.0, &decoded.0) {
                let (from, to) = (encoded.0.numpy_name(), decoded.0.numpy_name());
                let what = format!("{}: `delta` from {from} to {to}", at.at);
                return Err(Error::unsupported(what, "stored differences are no wider than the elements of the array"));
            }
            element("delta", at, input, decoded, encoded, ElementStep::Sum)?
        }
        "fixedscaleoffset" => {
            let [scale, offset] = [require("scale")?, require("offset")?].map(|node| {
                node.value.as_f64().filter(|number| number.is_finite()).ok_or_else(|| node.expected("a number"))
            });
            let (decoded, encoded) = dtypes(("dtype", "astype"), &known, input)?;
            let step = ElementStep::FixedScaleOffset { scale: scale?, offset: offset? };
            element("fixedscaleoffset", at, input, decoded, encoded, step)?
        }
        "quantize" => {
            let (decoded, encoded) = dtypes(("dtype", "astype"), &known, input)?;
            element("quantize", at, input, decoded, encoded, ElementStep::Cast)?
        }
        "astype" => {
            require("encode_dtype")?;
            let (decoded, encoded) = dtypes(("decode_dtype", "encode_dtype"), &known, input)?;
            element("astype", at, input, decoded, encoded, ElementStep::Cast)?
        }
        "bitround" => {
            let same = (input.dtype.clone(), input.endian);
            element("bitround", at, input, same.clone(), same, ElementStep::Cast)?
        }
        "packbits" => {
            let packing = BitPacking { high_first: true, padding: PaddingByte::First, first_bit: 0, last_bit: 0 };
            let (decoded, encoded) = ((DataType::Bool, Endian::Little), (DataType::UInt(1), Endian::Little));
            element("packbits", at, input, decoded, encoded, ElementStep::Unpack(packing))?
        }
        _ => return Ok(None),
    }))
}

/// True when numpy adds up elements of `from` in the type `to`, or in another of integers of which the low bits are the same.
fn is_summed(from: &DataType, to: &DataType) -> bool {
    use DataType::{Bool, Float, Int, UInt};
    match (from, to) {
        (UInt(8), Int(_)) | (Int(_), UInt(8)) => false,
        (Bool, Bool | Int(_) | UInt(_) | Float(_)) | (Int(_) | UInt(_), Int(_) | UInt(_) | Float(8)) => true,
        (Float(from), Float(to)) => from <= to,
        (Int(from) | UInt(from), Float(to)) => from < to,
        _ => false,
    }
}

/// Data types before and after encoding, by the names of their settings: the input's where there is none, and no change.
fn dtypes<'v>(
    (decoded, encoded): (&str, &str),
    setting: Settings<'_, 'v>,
    input: &Input,
) -> Result<((DataType, Endian), (DataType, Endian))> {
    let parse = |node: Node<'_>| numpy_dtype(&node);
    let decoded = setting(decoded).map_or(Ok((input.dtype.clone(), input.endian)), parse)?;
    let encoded = setting(encoded).map_or(Ok(decoded.clone()), parse)?;
    Ok((decoded, encoded))
}

/// A data type as numpy takes it: `<u2`, `u2` in native order, `uint16`.
fn numpy_dtype(node: &Node<'_>) -> Result<(DataType, Endian)> {
    let text = node.short_str()?;
    let text = match text {
        "bool" => "|b1".into(),
        "float16" => "f2".into(),
        _ => DataType::number(text).map_or(text.into(), |dtype| {
            let kind = match dtype {
                DataType::Int(_) => 'i',
                DataType::UInt(_) => 'u',
                _ => 'f',
            };
            format!("{kind}{}", dtype.item_size())
        }),
    };
    let native = if Endian::NATIVE == Endian::Little { "<" } else { ">" };
    let text = text.strip_prefix('=').unwrap_or(&text);
    let text = if text.starts_with(['<', '>', '|']) { text.to_owned() } else { format!("{native}{text}") };
    dtype::v2(&Node { value: &Value::String(text), at: node.at.clone() })
}

/// An array -> array codec; its elements must be those that there are, or others of the same size and byte order, of which
/// it sees the bits.
pub(super) fn element(
    name: &'static str,
    at: &Node<'_>,
    input: &mut Input,
    (decoded, decoded_endian): (DataType, Endian),
    (encoded, encoded_endian): (DataType, Endian),
    step: ElementStep,
) -> Result<CodecSpec> {
    let has_order = |dtype: &DataType| dtype.swap_unit() > 1;
    if decoded.item_size() != input.dtype.item_size() {
        let (own, given) = (decoded.numpy_name(), input.dtype.numpy_name());
        return Err(at.error(format!("`{name}` of elements of {own}, but those before it are {given}")));
    }
    if decoded.swap_unit() != input.dtype.swap_unit() || has_order(&decoded) && decoded_endian != input.endian {
        let what = format!("{}: `{name}` of bytes in another order than those of the elements before it", at.at);
        return Err(Error::unsupported(what, "write the array again without this filter"));
    }
    if !input.is_v2 && has_order(&encoded) && encoded_endian != Endian::NATIVE {
        let what = format!("{}: `{name}` with big-endian elements", at.at);
        return Err(Error::unsupported(what, "the codec `bytes` gives the byte order"));
    }
    let is_possible = match &step {
        ElementStep::Unpack(_) => true,
        _ => [&decoded, &encoded]
            .into_iter()
            .all(|dtype| matches!(dtype, DataType::Bool | DataType::Int(_) | DataType::UInt(_) | DataType::Float(_))),
    };
    if !is_possible {
        let what = format!("{}: `{name}` from {} to {}", at.at, decoded.numpy_name(), encoded.numpy_name());
        return Err(Error::unsupported(what, "read are bool, integers and floats"));
    }
    (input.dtype, input.endian) = (encoded.clone(), encoded_endian);
    Ok(CodecSpec::Element(ElementCodec { name, decoded, encoded, step }))
}

fn checksum<'v>(kind: ChecksumKind, at_start: bool, setting: Settings<'_, 'v>) -> Result<CodecSpec> {
    let at_start = match setting("location") {
        None => at_start,
        Some(node) => match node.str()? {
            "start" => true,
            "end" => false,
            _ => return Err(node.expected("\"start\" or \"end\"")),
        },
    };
    Ok(CodecSpec::Checksum(ChecksumSpec { kind, at_start }))
}

/// Formats by the numbers of Python's module. A stream of the first two describes itself.
fn lzma<'v>(at: &Node<'_>, setting: Settings<'_, 'v>) -> Result<CodecSpec> {
    match setting("format").map_or(Ok(1), |node| node.integer(0, 3))? {
        1 => Ok(CodecSpec::Xz),
        2 => Ok(CodecSpec::LzmaAlone),
        number => {
            let what = format!("{}: `lzma` of format {number}", at.at);
            Err(Error::unsupported(what, "read are 1 (FORMAT_XZ) and 2 (FORMAT_ALONE)"))
        }
    }
}
