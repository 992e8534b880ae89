//! The `crc32c` codec: its input followed by the CRC-32C (Castagnoli) of it, 4 bytes little-endian.
//!
//! Source: Zarr v3 codecs/crc32c v1.0.

use super::Verify;
use crate::error::{Error, ErrorKind, Result};

const NAME: &str = "crc32c";

/// Bytes that the codec adds.
pub(super) const NBYTES: usize = 4;

/// The bytes before the checksum, which is compared unless `verify` is `Cheap`.
///
/// # Errors
/// `Codec` when there is no room for a checksum, `Checksum` when it differs.
pub(super) fn strip(encoded: &[u8], verify: Verify) -> Result<&[u8]> {
    let Some((payload, stored)) = encoded.split_last_chunk::<NBYTES>() else {
        return Err(Error::codec(NAME, format!("{} bytes hold no checksum", encoded.len())));
    };
    if verify == Verify::Full {
        let (stored, computed) = (u32::from_le_bytes(*stored), crc32c::crc32c(payload));
        if stored != computed {
            return Err(ErrorKind::Checksum { codec: NAME, stored: stored.into(), computed: computed.into() }.into());
        }
    }
    Ok(payload)
}

/// Appends the checksum of `bytes` to them.
pub(super) fn append(bytes: &mut Vec<u8>) {
    let checksum = crc32c::crc32c(bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_the_standard_check_string() {
        let mut bytes = b"123456789".to_vec();
        append(&mut bytes);
        assert_eq!(&bytes[9..], &0xe306_9283_u32.to_le_bytes());
        assert_eq!(strip(&bytes, Verify::Full), Ok(&b"123456789"[..]));
        bytes[0] ^= 1;
        assert!(matches!(strip(&bytes, Verify::Full).unwrap_err().kind(), ErrorKind::Checksum { .. }));
        assert!(strip(&bytes, Verify::Cheap).is_ok());
        assert!(matches!(strip(&bytes[..3], Verify::Cheap).unwrap_err().kind(), ErrorKind::Codec { .. }));
    }
}
