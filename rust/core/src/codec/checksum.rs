//! The checksum codecs: their input and a checksum of it, 4 bytes little-endian, before or after it.
//!
//! Sources: Zarr v3 codecs/crc32c v1.0; numcodecs `checksum32` and `fletcher32`; HDF5 `H5checksum.c`, which has the last
//! two of these. A file of HDF5 up to 1.6.2 may hold the Fletcher-32 with the bytes of both halves exchanged; HDF5 takes
//! either, and so does this.

use super::Verify;
use crate::error::{Error, ErrorKind, Result};
use crate::metadata::{ChecksumKind, ChecksumSpec};

/// Bytes that each of these codecs adds.
pub(crate) const NBYTES: usize = 4;

/// Words that can be summed twice before the sums are reduced.
const FLETCHER_WORDS: usize = 1 << 15;

/// The bytes without the checksum, which is compared unless `verify` is `Cheap`.
///
/// # Errors
/// `Codec` when there is no room for a checksum, `Checksum` when it differs.
pub(crate) fn strip(spec: ChecksumSpec, encoded: &[u8], verify: Verify) -> Result<&[u8]> {
    let codec = spec.kind.name();
    let split = if spec.at_start {
        encoded.split_first_chunk::<NBYTES>().map(|(stored, payload)| (payload, stored))
    } else {
        encoded.split_last_chunk::<NBYTES>()
    };
    let Some((payload, stored)) = split else {
        return Err(Error::codec(codec, format!("{} bytes hold no checksum", encoded.len())));
    };
    if verify == Verify::Full {
        let (stored, computed) = (u32::from_le_bytes(*stored), compute(spec.kind, payload));
        let exchanged = (computed & 0x00ff_00ff) << 8 | computed >> 8 & 0x00ff_00ff;
        if stored != computed && !(spec.kind == ChecksumKind::Fletcher32 && stored == exchanged) {
            return Err(ErrorKind::Checksum { codec, stored: stored.into(), computed: computed.into() }.into());
        }
    }
    Ok(payload)
}

/// Adds the checksum of `bytes` to them.
pub(crate) fn add(spec: ChecksumSpec, bytes: &mut Vec<u8>) {
    let checksum = compute(spec.kind, bytes).to_le_bytes();
    let at = if spec.at_start { 0 } else { bytes.len() };
    bytes.splice(at..at, checksum);
}

fn compute(kind: ChecksumKind, bytes: &[u8]) -> u32 {
    match kind {
        ChecksumKind::Crc32 => libdeflater::crc32(bytes),
        ChecksumKind::Crc32c => crc32c::crc32c(bytes),
        ChecksumKind::Adler32 => libdeflater::adler32(bytes),
        ChecksumKind::Fletcher32 => fletcher32(bytes),
        ChecksumKind::JenkinsLookup3 { initval } => lookup3(bytes, initval),
    }
}

/// Two sums of big-endian words of 16 bits, the second of the values of the first, modulo 65535: a sum that is no zero is
/// never reduced to zero. A last odd byte is the high half of a word.
fn fletcher32(bytes: &[u8]) -> u32 {
    fn reduced(sum: u64) -> u64 {
        if sum == 0 { 0 } else { (sum - 1) % 0xffff + 1 }
    }
    let (words, odd) = bytes.as_chunks::<2>();
    let (mut first, mut second) = (0, 0);
    for part in words.chunks(FLETCHER_WORDS) {
        for word in part {
            first += u64::from(u16::from_be_bytes(*word));
            second += first;
        }
        (first, second) = (reduced(first), reduced(second));
    }
    if let [byte] = odd {
        first += u64::from(*byte) << 8;
        second += first;
    }
    (reduced(second) << 16 | reduced(first)) as u32
}

/// Bob Jenkins' lookup3, `hashlittle`.
fn lookup3(bytes: &[u8], initval: u32) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add(bytes.len() as u32).wrapping_add(initval);
    let [mut a, mut b, mut c] = [start; 3];
    let mut blocks = bytes.chunks(12).peekable();
    while let Some(block) = blocks.next() {
        let mut padded = [0; 12];
        padded.iter_mut().zip(block).for_each(|(to, from)| *to = *from);
        let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3] = padded;
        a = a.wrapping_add(u32::from_le_bytes([a0, a1, a2, a3]));
        b = b.wrapping_add(u32::from_le_bytes([b0, b1, b2, b3]));
        c = c.wrapping_add(u32::from_le_bytes([c0, c1, c2, c3]));
        if blocks.peek().is_some() {
            for rotations in [[4, 6, 8], [16, 19, 4]] {
                a = a.wrapping_sub(c) ^ c.rotate_left(rotations[0]);
                c = c.wrapping_add(b);
                b = b.wrapping_sub(a) ^ a.rotate_left(rotations[1]);
                a = a.wrapping_add(c);
                c = c.wrapping_sub(b) ^ b.rotate_left(rotations[2]);
                b = b.wrapping_add(a);
            }
        } else {
            c = (c ^ b).wrapping_sub(b.rotate_left(14));
            a = (a ^ c).wrapping_sub(c.rotate_left(11));
            b = (b ^ a).wrapping_sub(a.rotate_left(25));
            c = (c ^ b).wrapping_sub(b.rotate_left(16));
            a = (a ^ c).wrapping_sub(c.rotate_left(4));
            b = (b ^ a).wrapping_sub(a.rotate_left(14));
            c = (c ^ b).wrapping_sub(b.rotate_left(24));
        }
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [ChecksumKind; 5] = [
        ChecksumKind::Crc32,
        ChecksumKind::Crc32c,
        ChecksumKind::Adler32,
        ChecksumKind::Fletcher32,
        ChecksumKind::JenkinsLookup3 { initval: 0 },
    ];

    #[test]
    fn checksums_of_strings_are_those_of_the_libraries() {
        // zlib 1.3, google-crc32c 1.7, numcodecs 0.16.6.
        let table: [(&[u8], [u32; 5]); 4] = [
            (b"", [0, 0, 1, 0, 0xdead_beef]),
            (b"123456789", [0xcbf4_3926, 0xe306_9283, 0x091e_01de, 0x09df_09d5, 0x845d_9a96]),
            (&[0xff; 100_000], [0x68c6_cec4, 0x2f0b_8293, 0x149a_302c, 0xffff_ffff, 0x470f_c016]),
            (b"twelve bytes", [0xc5bf_cca0, 0xf22a_f478, 0x1ff1_04df, 0x4903_4f93, 0x597b_94ce]),
        ];
        for (bytes, expected) in table {
            assert_eq!(KINDS.map(|kind| compute(kind, bytes)), expected, "{} bytes", bytes.len());
        }
        assert_eq!(compute(ChecksumKind::JenkinsLookup3 { initval: 7 }, b"123456789"), 0xd9b2_c617);
    }

    #[test]
    fn a_checksum_stands_where_it_is_said_to_and_is_compared() {
        for kind in KINDS {
            for at_start in [false, true] {
                let spec = ChecksumSpec { kind, at_start };
                let mut bytes = b"123456789".to_vec();
                add(spec, &mut bytes);
                let at = if at_start { 4 } else { 0 };
                assert_eq!(strip(spec, &bytes, Verify::Full), Ok(&b"123456789"[..]), "{spec:?}");
                bytes[at + 2] ^= 1;
                let refused = strip(spec, &bytes, Verify::Full).unwrap_err();
                assert!(matches!(refused.kind(), ErrorKind::Checksum { .. }), "{spec:?}");
                assert!(strip(spec, &bytes, Verify::Cheap).is_ok());
                assert!(matches!(strip(spec, &bytes[..3], Verify::Cheap).unwrap_err().kind(), ErrorKind::Codec { .. }));
            }
        }
    }

    #[test]
    fn the_fletcher_of_old_hdf5_is_taken_too() {
        let spec = ChecksumSpec { kind: ChecksumKind::Fletcher32, at_start: false };
        let mut bytes = b"123456789".to_vec();
        add(spec, &mut bytes);
        bytes.swap(9, 10);
        bytes.swap(11, 12);
        strip(spec, &bytes, Verify::Full).unwrap();
        bytes[9] ^= 1;
        strip(spec, &bytes, Verify::Full).unwrap_err();
    }
}
