//! Any bytes as a `.zarray`: an array or a typed error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use voxfetch_core::codec::PreparedArray;
use voxfetch_core::error::ErrorKind;
use voxfetch_core::metadata::zarr::parse_v2;

fuzz_target!(|document: &[u8]| {
    if let Err(error) = parse_v2(document, None).and_then(PreparedArray::new) {
        assert!(!matches!(error.kind(), ErrorKind::Internal { .. }), "{error}");
        assert!(error.to_string().len() < 1000, "{error}");
    }
});
