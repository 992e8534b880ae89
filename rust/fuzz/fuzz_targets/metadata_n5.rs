//! Any bytes as the `attributes.json` of a dataset: an array or a typed error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use voxfetch_core::error::ErrorKind;
use voxfetch_core::metadata::limits::MAX_CHUNK_NBYTES;
use voxfetch_core::metadata::n5::parse;

fuzz_target!(|document: &[u8]| match parse(document) {
    Ok(array) => {
        let rank = array.dimensions.len();
        assert!(rank > 0 && array.block_size.len() == rank);
        assert!(array.axes.is_none_or(|axes| axes.len() == rank));
        let voxels: u64 = array.block_size.iter().product();
        assert!(voxels > 0 && voxels * array.dtype.item_size() as u64 <= MAX_CHUNK_NBYTES);
    }
    Err(error) => {
        assert!(!matches!(error.kind(), ErrorKind::Internal { .. }), "{error}");
        assert!(error.to_string().len() < 1000, "{error}");
    }
});
