//! What the targets of codecs that know what they encode do: any bytes as a chunk of some extent. What is decoded fills the
//! whole output, whatever was in it before, and nothing but typed errors comes of the rest.

use voxfetch_core::error::{ErrorKind, Result};

/// Most voxels of a chunk.
const MAX_VOXELS: usize = 1 << 18;

/// `extent` is (x, y, z, channel) in voxels, `item_size` in bytes.
pub fn check(extent: [usize; 4], item_size: usize, decode: impl Fn(&mut [u8]) -> Result<()>) {
    let voxels = extent.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
    let Some(nbytes) = voxels.filter(|voxels| *voxels <= MAX_VOXELS).map(|voxels| voxels * item_size) else { return };
    let (mut out, mut again) = (vec![0xA5; nbytes], vec![0x5A; nbytes]);
    match (decode(&mut out), decode(&mut again)) {
        (Ok(()), Ok(())) => assert!(out == again, "parts of the output were left as they were"),
        (Err(error), Err(other)) => {
            let kind = error.kind();
            let is_meant =
                matches!(kind, ErrorKind::Codec { .. } | ErrorKind::Checksum { .. } | ErrorKind::Unsupported { .. });
            assert!(is_meant, "{error}");
            assert_eq!(error, other);
        }
        (one, other) => panic!("{one:?} and then {other:?}"),
    }
}
