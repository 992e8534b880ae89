//! DEFLATE (RFC 1951) in its two containers: gzip (RFC 1952, one or more members) and zlib (RFC 1950).
//!
//! The ordinary chunk (one member, plain header) is decoded by libdeflate straight into the output, and its trailer is
//! compared. Everything else (more members, optional header fields, unknown size) takes the slower stream, which also
//! decides on every chunk that the fast path does not accept, so that both have one meaning.

use libdeflater::{CompressionLvl, Compressor, Decompressor};

use super::sink::{ExactSink, GrowingSink, Sink, drain};
use crate::error::{Error, Result};

/// Level of zlib's `Z_DEFAULT_COMPRESSION`, which documents write as -1.
const DEFAULT_LEVEL: i32 = 6;

/// Header of a gzip member without optional fields: magic, deflate, no flags, then mtime, extra flags and system.
const GZIP_HEADER_NBYTES: usize = 10;
const PLAIN_GZIP_HEADER: [u8; 4] = [0x1f, 0x8b, 8, 0];

/// Which bytes stand around the DEFLATE stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Container {
    Gzip,
    Zlib,
}

impl Container {
    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zlib => "zlib",
        }
    }
}

/// libdeflate's contexts, made on first use.
#[derive(Default)]
pub(super) struct DeflateContext {
    decoder: Option<Decompressor>,
    encoder: Option<(i32, Compressor)>,
}

impl DeflateContext {
    /// Decodes exactly `out.len()` bytes.
    pub(super) fn decode_exact(&mut self, container: Container, encoded: &[u8], out: &mut [u8]) -> Result<()> {
        let fast = match container {
            Container::Gzip => self.decode_plain_gzip(encoded, out),
            Container::Zlib => self.decode_plain_zlib(encoded, out),
        };
        if fast.is_some() {
            return Ok(());
        }
        decode_stream(container, encoded, ExactSink::new(out))
    }

    /// Decodes at most `limit` bytes into `out`, which is emptied first.
    pub(super) fn decode_bounded(
        &mut self,
        container: Container,
        encoded: &[u8],
        limit: u64,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        decode_stream(container, encoded, GrowingSink::new(out, limit))
    }

    /// Encodes `decoded` into `out`, which is emptied first. `level` is 0-9, or -1 for the default.
    pub(super) fn encode(&mut self, container: Container, decoded: &[u8], level: i32, out: &mut Vec<u8>) -> Result<()> {
        let name = container.name();
        let level = if level < 0 { DEFAULT_LEVEL } else { level.min(9) };
        if self.encoder.as_ref().is_none_or(|(of, _)| *of != level) {
            let lvl = CompressionLvl::new(level).map_err(|_| Error::codec(name, format!("no level {level}")))?;
            self.encoder = Some((level, Compressor::new(lvl)));
        }
        let (_, encoder) = self.encoder.as_mut().ok_or_else(|| Error::internal("no deflate encoder"))?;
        out.clear();
        let bound = match container {
            Container::Gzip => encoder.gzip_compress_bound(decoded.len()),
            Container::Zlib => encoder.zlib_compress_bound(decoded.len()),
        };
        super::sink::resize(out, bound)?;
        let written = match container {
            Container::Gzip => encoder.gzip_compress(decoded, out),
            Container::Zlib => encoder.zlib_compress(decoded, out),
        };
        out.truncate(written.map_err(|error| Error::codec(name, error.to_string()))?);
        Ok(())
    }

    fn decode_plain_gzip(&mut self, encoded: &[u8], out: &mut [u8]) -> Option<()> {
        let (header, rest) = encoded.split_at_checked(GZIP_HEADER_NBYTES)?;
        let (payload, trailer) = rest.split_last_chunk::<8>()?;
        if !header.starts_with(&PLAIN_GZIP_HEADER) {
            return None;
        }
        self.inflate_exact(payload, out)?;
        let mut computed = [0; 8];
        computed[..4].copy_from_slice(&libdeflater::crc32(out).to_le_bytes());
        // The size modulo 2^32, as the format has it.
        computed[4..].copy_from_slice(&(out.len() as u32).to_le_bytes());
        (computed == *trailer && !ends_early(payload, *trailer)).then_some(())
    }

    fn decode_plain_zlib(&mut self, encoded: &[u8], out: &mut [u8]) -> Option<()> {
        let (header, rest) = encoded.split_first_chunk::<2>()?;
        let (payload, trailer) = rest.split_last_chunk::<4>()?;
        let [method, flags] = *header;
        // Deflate with a window of at most 32 KiB, header checksum, no preset dictionary.
        if method & 0x0f != 8 || method >> 4 > 7 || u16::from_be_bytes(*header) % 31 != 0 || flags & 0x20 != 0 {
            return None;
        }
        self.inflate_exact(payload, out)?;
        let computed = libdeflater::adler32(out).to_be_bytes();
        (computed == *trailer && !ends_early(payload, *trailer)).then_some(())
    }

    fn inflate_exact(&mut self, payload: &[u8], out: &mut [u8]) -> Option<()> {
        let expected = out.len();
        let decoder = self.decoder.get_or_insert_with(Decompressor::new);
        decoder.deflate_decompress(payload, out).ok().filter(|decoded| *decoded == expected).map(|_| ())
    }
}

/// True when `trailer` also occurs inside `payload`. libdeflate does not tell where its stream ended; when the stream
/// ended early and its own trailer followed there, then what comes after it is another member or garbage.
fn ends_early<const N: usize>(payload: &[u8], trailer: [u8; N]) -> bool {
    payload.windows(N).any(|window| window.first_chunk() == Some(&trailer))
}

fn decode_stream(container: Container, encoded: &[u8], sink: impl Sink) -> Result<()> {
    let name = container.name();
    if encoded.is_empty() {
        return Err(Error::codec(name, "no bytes"));
    }
    match container {
        // Bytes after a member must be another member.
        Container::Gzip => drain(name, &mut flate2::bufread::MultiGzDecoder::new(encoded), sink),
        Container::Zlib => {
            let mut decoder = flate2::bufread::ZlibDecoder::new(encoded);
            drain(name, &mut decoder, sink)?;
            match decoder.get_ref().len() {
                0 => Ok(()),
                extra => Err(Error::codec(name, format!("{extra} bytes after the stream"))),
            }
        }
    }
}
