//! What the targets of compressors that stand for themselves do: any bytes as a stream, decoded into memory of some size and
//! into a vector with that limit; both agree, and nothing but typed errors comes of it.

use voxfetch_core::error::{ErrorKind, Result};

pub fn check(
    size: u16,
    encoded: &[u8],
    exact: impl Fn(&[u8], &mut [u8]) -> Result<()>,
    bounded: impl Fn(&[u8], u64, &mut Vec<u8>) -> Result<()>,
) {
    let nbytes = usize::from(size) + 1;
    let (mut out, mut vec) = (vec![0xA5; nbytes], Vec::new());
    let into = exact(encoded, &mut out);
    let grown = bounded(encoded, nbytes as u64, &mut vec);
    for error in [into.as_ref().err(), grown.as_ref().err()].into_iter().flatten() {
        let kind = error.kind();
        let is_meant =
            matches!(kind, ErrorKind::Codec { .. } | ErrorKind::Checksum { .. } | ErrorKind::Unsupported { .. });
        assert!(is_meant, "{error}");
    }
    match (into, grown) {
        (Ok(()), Ok(())) => assert_eq!(out, vec),
        (Ok(()), Err(error)) => panic!("only the bounded decoder refuses: {error}"),
        (Err(error), Ok(())) => assert_ne!(vec.len(), nbytes, "only the exact decoder refuses: {error}"),
        (Err(_), Err(_)) => {}
    }
}
