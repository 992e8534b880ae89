//! Any bytes as the `info` of a precomputed volume of one scale: a scale with names for its chunks, or a typed error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use voxfetch_core::error::ErrorKind;
use voxfetch_core::metadata::limits::MAX_INDEX_NBYTES;
use voxfetch_core::metadata::precomputed::parse;
use voxfetch_core::metadata::uint64_sharding::compressed_morton;

fuzz_target!(|document: &[u8]| {
    match parse(document) {
        Ok(scale) => {
            let grid = scale.grid();
            let last = grid.map(|cells| cells.saturating_sub(1));
            assert!(!scale.object_name(&last).is_empty());
            if let Some(sharding) = scale.sharding {
                assert!(sharding.index_nbytes() <= MAX_INDEX_NBYTES);
                let place = sharding.place(compressed_morton(&last, &grid).unwrap());
                assert!(place.minishard < sharding.index_nbytes() / 16);
                assert_eq!(sharding.key(place.shard).len(), sharding.key(0).len());
            }
        }
        Err(error) => {
            assert!(!matches!(error.kind(), ErrorKind::Internal { .. }), "{error}");
            assert!(error.to_string().len() < 1000, "{error}");
        }
    }
});
