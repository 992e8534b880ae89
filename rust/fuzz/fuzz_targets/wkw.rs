//! Any bytes as the document of a WKW mag, then as a slice of a jump table: every block lies in the file and behind the
//! table, or is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use voxfetch_core::codec::PreparedArray;
use voxfetch_core::error::ErrorKind;
use voxfetch_core::metadata::{IndexSpec, wkw};
use voxfetch_core::subset::ByteRange;

fuzz_target!(|input: (u64, u64, &[u8])| {
    let (entry, more, bytes) = input;
    if let Err(error) = wkw::parse(bytes).and_then(PreparedArray::new) {
        assert!(!matches!(error.kind(), ErrorKind::Internal { .. }), "{error}");
    }
    // LZ4, 4^3 blocks of 8^3 voxels of uint16, all in one slice.
    let document = br#"{"header": "574b5701230202020000000000000000", "start": [0, 0, 0], "shape": [32, 32, 32]}"#;
    let array = wkw::parse(document).unwrap();
    let [table, slice] = array.levels.as_slice() else { panic!("{:?}", array.levels) };
    let IndexSpec::WkwSlice(file) = &slice.index else { panic!("{:?}", slice.index) };
    let file_nbytes = file.data_offset.saturating_add(more);
    let places = table.index.known(file_nbytes).unwrap();
    let at = places.get(entry % table.index.entries()).unwrap().unwrap();
    assert!(at.start >= 16 && at.end <= file.data_offset);
    let Ok(blocks) = slice.index.decode(&slice.grid, bytes, at, file_nbytes) else { return };
    for block in 0..slice.index.entries() {
        match blocks.get(block) {
            Ok(Some(ByteRange { start, end })) => {
                assert!(file.data_offset <= start && start < end && end <= file_nbytes)
            }
            Ok(None) => panic!("WKW has no missing blocks"),
            Err(error) => assert!(matches!(error.kind(), ErrorKind::ShardIndex { .. }), "{error}"),
        }
    }
});
