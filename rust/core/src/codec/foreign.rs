//! Codecs that are decoded elsewhere: what comes back is checked here.

use super::sink::resize;
use crate::error::{Error, Result};
use crate::metadata::foreign::ForeignCodec;

/// Fills `out` with decoded bytes.
pub(super) fn decode_exact(codec: &ForeignCodec, encoded: &[u8], out: &mut [u8]) -> Result<()> {
    let decoded = codec.decoder.decode(encoded, out.len() as u64)?;
    if decoded.len() != out.len() {
        let what = format!("decodes to {} bytes, expected {}", decoded.len(), out.len());
        return Err(Error::codec(codec.name.clone(), what));
    }
    out.copy_from_slice(&decoded);
    Ok(())
}

/// Replaces `out` by at most `limit` decoded bytes.
pub(super) fn decode_bounded(codec: &ForeignCodec, encoded: &[u8], limit: u64, out: &mut Vec<u8>) -> Result<()> {
    let decoded = codec.decoder.decode(encoded, limit)?;
    if decoded.len() as u64 > limit {
        return Err(Error::codec(codec.name.clone(), format!("decodes to more than {limit} bytes")));
    }
    resize(out, decoded.len())?;
    out.copy_from_slice(&decoded);
    Ok(())
}
