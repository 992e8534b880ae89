//! Any bytes as the index of a shard: every entry lies inside the shard and outside the index, is missing, or is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use voxfetch_core::dtype::Endian;
use voxfetch_core::error::ErrorKind;
use voxfetch_core::index::{MISSING, sharding_indexed};
use voxfetch_core::metadata::{IndexLayout, IndexLocation};

fuzz_target!(|input: (u8, u64, &[u8])| {
    let (kind, more, encoded) = input;
    // Grid (entries / 2, 2), the two words of an entry side by side.
    let entries = encoded.len() as u64 / 32 * 2;
    let location = if kind & 1 == 0 { IndexLocation::End } else { IndexLocation::Start };
    let endian = if kind & 2 == 0 { Endian::Little } else { Endian::Big };
    let layout = IndexLayout {
        location,
        endian,
        entries,
        strides: vec![4, 2],
        pair_stride: 1,
        checksums: Vec::new(),
        nbytes: entries * 16,
    };
    let shard_nbytes = layout.nbytes.saturating_add(more);
    let Ok(index_range) = sharding_indexed::index_range(&layout, shard_nbytes) else { return };
    let words = &encoded[..layout.nbytes as usize];
    let index = sharding_indexed::decode(&layout, &[entries / 2, 2], words, shard_nbytes).unwrap();
    for entry in 0..entries {
        let word = |at: usize| {
            let bytes = words[at * 8..at * 8 + 8].try_into().unwrap();
            if endian == Endian::Little { u64::from_le_bytes(bytes) } else { u64::from_be_bytes(bytes) }
        };
        let (offset, size) = (word(entry as usize * 2), word(entry as usize * 2 + 1));
        match index.get(entry) {
            Ok(None) => assert!(offset == MISSING && size == MISSING, "{offset} {size} taken for missing"),
            Ok(Some(range)) => {
                assert_eq!((range.start, range.len()), (offset, size));
                assert!(size > 0 && range.end <= shard_nbytes);
                assert!(range.end <= index_range.start || range.start >= index_range.end);
            }
            Err(error) => assert!(matches!(error.kind(), ErrorKind::ShardIndex { .. }), "{error}"),
        }
    }
});
