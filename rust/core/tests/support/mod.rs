//! Random arrays and random reads, made from a string of bytes; a naive writer and a naive reader as oracles; and the
//! plainest engine on memory. Shared by the property tests and the fuzz targets.
//!
//! Everything random comes out of [`Choices`], so that a shorter or smaller string of bytes is a simpler case.

mod choices;
mod engine;
mod layout;
mod naive;
mod network;
mod reads;

pub use choices::Choices;
use engine::{Objects, carry_out};
use naive::Oracle;
pub use network::check_random_network;
use reads::{Memory, Wanted};

use std::sync::Arc;

use voxfetch_core::codec::Verify;
use voxfetch_core::error::Result;
use voxfetch_core::metadata::zarr::parse_v3;
use voxfetch_core::plan::coalesce::Merge;
use voxfetch_core::plan::{Plan, ReadSpec};

/// What the plan takes for an array.
pub type Array = voxfetch_core::codec::PreparedArray;

/// The array of a `zarr.json`.
pub fn array(document: &str) -> Result<Arc<Array>> {
    Ok(Arc::new(Array::new(parse_v3(document.as_bytes())?)?))
}

/// Makes arrays and reads of them, carries the reads out as one plan and compares all memory, gaps and surroundings
/// included, with what the naive reader puts there.
///
/// # Panics
/// When they differ, or when something refuses what is legal.
pub fn check_random_reads(choices: &mut Choices<'_>) {
    let oracles: Vec<Oracle> = (0..1 + choices.below(2)).map(|_| Oracle::random(choices)).collect();
    let arrays: Vec<Arc<Array>> = oracles.iter().map(|oracle| Arc::clone(&oracle.array)).collect();
    let reads: Vec<(usize, Wanted)> = (0..1 + choices.below(3))
        .map(|_| {
            let number = choices.below(oracles.len() as u64) as usize;
            (number, Wanted::random(choices, &oracles[number].array.shape, &oracles[number].layout.chunk_shape))
        })
        .collect();
    let memories: Vec<Memory> =
        reads.iter().map(|(number, wanted)| Memory::random(choices, wanted, oracles[*number].item_size())).collect();
    let merge = Merge { max_gap_bytes: choices.below(20), max_request_bytes: choices.below(1000) };
    // Last, as it takes the most choices.
    let objects: Vec<Objects> = oracles.iter().map(|oracle| oracle.write(choices)).collect();
    let specs = reads.iter().map(|(array, wanted)| ReadSpec { array: *array, selection: wanted.selection() }).collect();
    let documents = || oracles.iter().map(|oracle| oracle.layout.document.clone()).collect::<Vec<_>>().join("\n");
    let plan = Plan::new(arrays, specs).unwrap_or_else(|error| panic!("{error}\n{}\n{reads:?}", documents()));
    for (poison, verify) in [(0xA5, Verify::Full), (0x5A, Verify::Cheap)] {
        let mut got: Vec<Vec<u8>> = memories.iter().map(|memory| vec![poison; memory.nbytes]).collect();
        let mut expected = got.clone();
        for (((number, wanted), memory), bytes) in reads.iter().zip(&memories).zip(&mut expected) {
            let oracle = &oracles[*number];
            wanted.each(|part, place, voxel| {
                let at = memory.at(part, place);
                bytes[at..at + oracle.item_size()].copy_from_slice(&oracle.voxel(voxel));
            });
        }
        let outputs: Vec<_> = memories.iter().zip(&mut got).map(|(memory, bytes)| memory.output(bytes)).collect();
        carry_out(&plan, &outputs, &objects, verify, merge)
            .unwrap_or_else(|error| panic!("{error}\n{}\n{reads:?}", documents()));
        assert!(got == expected, "{}\n{reads:?}\n{memories:?}", documents());
    }
}

/// Small arrays without checksums, which would keep random bytes from getting anywhere: (codecs, shard).
const OBJECTS: [(&str, u64); 6] = [
    (r#""bytes""#, 4),
    (r#""bytes", {"name": "blosc", "configuration": {}}, {"name": "zstd", "configuration": {}}"#, 4),
    (
        r#"{"name": "sharding_indexed", "configuration": {"chunk_shape": [2, 2], "index_codecs": ["bytes"],
        "codecs": ["bytes"]}}"#,
        8,
    ),
    (
        r#"{"name": "sharding_indexed", "configuration": {"chunk_shape": [2, 4], "index_codecs": ["bytes"],
        "codecs": ["bytes", {"name": "gzip", "configuration": {}}], "index_location": "start"}}"#,
        8,
    ),
    (
        r#"{"name": "sharding_indexed", "configuration": {"chunk_shape": [4, 4], "index_codecs": ["bytes"],
        "codecs": [{"name": "sharding_indexed", "configuration": {"chunk_shape": [2, 2], "index_codecs": ["bytes"],
        "codecs": [{"name": "transpose", "configuration": {"order": [1, 0]}},
        {"name": "bytes", "configuration": {"endian": "big"}}, {"name": "numcodecs.lz4", "configuration": {}}],
        "index_location": "start"}}]}}"#,
        8,
    ),
    (
        r#"{"name": "sharding_indexed", "configuration": {"chunk_shape": [2, 2], "index_codecs": ["bytes"],
        "codecs": ["bytes", "crc32c"]}}, {"name": "zstd", "configuration": {}}"#,
        8,
    ),
];

/// Reads all of an array whose one stored object is `object`.
///
/// # Panics
/// When that ends in anything but voxels or an error of the data, or touches bytes outside of the output.
pub fn check_any_object(kind: u8, object: &[u8]) {
    let (codecs, shard) = OBJECTS[usize::from(kind) % OBJECTS.len()];
    let array = array(&format!(
        r#"{{"zarr_format": 3, "node_type": "array", "shape": [{shard}, {shard}], "data_type": "uint16",
            "chunk_grid": {{"name": "regular", "configuration": {{"chunk_shape": [{shard}, {shard}]}}}},
            "chunk_key_encoding": "default", "fill_value": 0, "codecs": [{codecs}]}}"#
    ));
    let array = array.unwrap_or_else(|error| panic!("{error}"));
    let wanted = Wanted::whole(&array.shape);
    let plan = Plan::new(vec![array], vec![ReadSpec { array: 0, selection: wanted.selection() }]);
    let plan = plan.unwrap_or_else(|error| panic!("{error}"));
    let memory = Memory::random(&mut Choices::new(&[]), &wanted, 2);
    let mut bytes = vec![0xA5; memory.nbytes];
    let objects = Objects::from([(vec![0, 0], object.to_vec())]);
    let merge = Merge { max_gap_bytes: 1 << 20, max_request_bytes: 1 << 20 };
    let outputs = [memory.output(&mut bytes)];
    if let Err(error) = carry_out(&plan, &outputs, &[objects], Verify::Full, merge) {
        let class = error.kind().class_name();
        assert!(["ShardIndexError", "CodecError", "ChecksumError"].contains(&class), "{class}: {error}");
    }
    wanted.each(|part, place, _| {
        let at = memory.at(part, place);
        bytes[at..at + 2].fill(0xA5);
    });
    assert!(bytes.iter().all(|&byte| byte == 0xA5), "bytes outside of the output were written");
}
