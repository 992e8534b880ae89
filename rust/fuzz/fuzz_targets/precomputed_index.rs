//! Any bytes as the index of a precomputed shard and of a minishard: every range lies inside the shard and outside the
//! shard's index, is missing, or is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use voxfetch_core::error::ErrorKind;
use voxfetch_core::index::ShardIndex;
use voxfetch_core::index::precomputed::{decode_minishard, decode_shard_index};
use voxfetch_core::subset::ByteRange;

fn word(encoded: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(encoded[at * 8..at * 8 + 8].try_into().unwrap())
}

fuzz_target!(|input: (u8, u64, &[u8])| {
    let (kind, more, encoded) = input;
    if kind & 1 == 0 {
        let encoded = &encoded[..encoded.len() / 16 * 16];
        let own = ByteRange { start: 0, end: encoded.len() as u64 };
        let shard_nbytes = own.end.saturating_add(more);
        let pairs = decode_shard_index(encoded, Some(shard_nbytes)).unwrap();
        let count = pairs.len() as u64;
        let index = ShardIndex::from_pairs(pairs, &[count], shard_nbytes, own).unwrap();
        for minishard in 0..count {
            let (start, end) = (word(encoded, minishard as usize * 2), word(encoded, minishard as usize * 2 + 1));
            match index.get(minishard) {
                Ok(None) => assert_eq!(start, end),
                Ok(Some(range)) => {
                    assert_eq!((range.start - own.end, range.end - own.end), (start, end));
                    assert!(start < end && range.end <= shard_nbytes);
                }
                Err(error) => assert!(matches!(error.kind(), ErrorKind::ShardIndex { .. }), "{error}"),
            }
        }
    } else {
        let encoded = &encoded[..encoded.len() / 24 * 24];
        let (count, index_nbytes) = (encoded.len() / 24, u64::from(kind >> 1) * 16);
        let object_nbytes = index_nbytes.saturating_add(more);
        let minishard = decode_minishard(encoded, index_nbytes, object_nbytes).unwrap();
        assert!(minishard.len() == count && minishard.memory_nbytes() <= encoded.len() as u64 + 100);
        let (mut id, mut end) = (0u64, index_nbytes);
        for chunk in 0..count {
            id = id.wrapping_add(word(encoded, chunk));
            let start = end.wrapping_add(word(encoded, count + chunk));
            end = start.wrapping_add(word(encoded, 2 * count + chunk));
            match minishard.get(id) {
                Ok(None) => panic!("chunk {id} is lost"),
                Ok(Some(range)) => {
                    assert_eq!((range.start, range.end), (start, end));
                    assert!(index_nbytes <= start && start < end && end <= object_nbytes);
                }
                Err(error) => assert!(matches!(error.kind(), ErrorKind::ShardIndex { .. }), "{error}"),
            }
        }
    }
});
