//! DEFLATE (RFC 1951) in its two containers: gzip (RFC 1952, one or more members) and zlib (RFC 1950).
//!
//! The ordinary chunk (one member, plain header) is decoded by libdeflate straight into the output. Everything else (more
//! members, optional header fields, unknown size) takes the slower stream, which also decides on every chunk that the
//! fast path does not accept, so that both have one meaning.

use libdeflater::{CompressionLvl, Compressor};

use super::inflate::Inflater;
use super::sink::{ExactSink, GrowingSink, Sink, drain};
use crate::error::{Error, Result};

/// Level of zlib's `Z_DEFAULT_COMPRESSION`, which documents write as -1.
const DEFAULT_LEVEL: i32 = 6;

/// First bytes of a gzip member without optional fields: magic, deflate, no flags.
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
    decoder: Option<Inflater>,
    encoder: Option<(i32, Compressor)>,
}

impl DeflateContext {
    /// Decodes exactly `out.len()` bytes.
    pub(super) fn decode_exact(&mut self, container: Container, encoded: &[u8], out: &mut [u8]) -> Result<()> {
        let is_plain = container == Container::Zlib || encoded.starts_with(&PLAIN_GZIP_HEADER);
        self.decoder = self.decoder.take().or_else(Inflater::new);
        if is_plain && self.decoder.as_mut().is_some_and(|decoder| decoder.decode_exact(container, encoded, out)) {
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
