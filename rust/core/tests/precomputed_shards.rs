//! Precomputed shards that tensorstore wrote (tests/data/precomputed): every chunk is found, with the bytes that it has in
//! the volume without shards, and the chunks that are not stored there are not found.
#![expect(clippy::disallowed_methods, reason = "fixtures are read from disk; the core itself does no I/O")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use voxfetch_core::index::precomputed::{decode_minishard, decode_shard_index};
use voxfetch_core::index::{MISSING, ShardIndex};
use voxfetch_core::metadata::precomputed::{PrecomputedScale, parse};
use voxfetch_core::metadata::uint64_sharding::{Hash, Sharding, compressed_morton};
use voxfetch_core::subset::ByteRange;

fn volume(name: &str) -> (PathBuf, PrecomputedScale) {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/precomputed/tensorstore-0.1.86").join(name);
    let scale = parse(&fs::read(folder.join("info")).unwrap()).unwrap();
    (folder, scale)
}

fn cells(grid: [u64; 3]) -> impl Iterator<Item = [u64; 3]> {
    (0..grid[0]).flat_map(move |x| (0..grid[1]).flat_map(move |y| (0..grid[2]).map(move |z| [x, y, z])))
}

/// Chunks by cell as they are without shards.
fn expected() -> BTreeMap<[u64; 3], Vec<u8>> {
    let (folder, scale) = volume("unsharded");
    assert_eq!((scale.size, scale.voxel_offset, scale.chunk_size), ([9, 3, 5], [-4, 0, 1000], [2; 3]));
    let found: BTreeMap<_, _> = cells(scale.grid())
        .filter_map(|cell| Some((cell, fs::read(folder.join(&scale.key).join(scale.object_name(&cell))).ok()?)))
        .collect();
    let files = fs::read_dir(folder.join(&scale.key)).unwrap().count();
    assert_eq!((found.len(), files), (22, 22), "every file has the name of a chunk");
    for (cell, bytes) in &found {
        let extent = |axis: usize| (scale.size[axis] - cell[axis] * 2).min(2);
        assert_eq!(bytes.len() as u64, 2 * extent(0) * extent(1) * extent(2));
    }
    found
}

fn gunzip(encoded: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    flate2::read::MultiGzDecoder::new(encoded).read_to_end(&mut decoded).unwrap();
    decoded
}

/// Bytes of a chunk as a reader goes for them, None when it is not stored.
fn chunk(folder: &Path, scale: &PrecomputedScale, sharding: &Sharding, id: u64) -> Option<Vec<u8>> {
    let place = sharding.place(id);
    let shard = fs::read(folder.join(&scale.key).join(sharding.key(place.shard))).ok()?;
    let own = ByteRange { start: 0, end: sharding.index_nbytes() };
    let nbytes = shard.len() as u64;
    let pairs = decode_shard_index(&shard[..own.end as usize], Some(nbytes)).unwrap();
    let grid = [pairs.len() as u64];
    assert_eq!(grid, [1 << sharding.minishard_bits]);
    let index = ShardIndex::from_pairs(pairs, &grid, nbytes, own).unwrap();
    let cut = |range: ByteRange| &shard[range.start as usize..range.end as usize];
    let encoded = cut(index.get(place.minishard).unwrap()?);
    let encoded = if sharding.minishard_index_gzip { gunzip(encoded) } else { encoded.to_vec() };
    let minishard = decode_minishard(&encoded, own.end, nbytes).unwrap();
    let encoded = cut(minishard.get(id).unwrap()?);
    Some(if sharding.data_gzip { gunzip(encoded) } else { encoded.to_vec() })
}

#[test]
fn every_chunk_of_tensorstore_is_found() {
    let expected = expected();
    for (name, hash, gzip, shards) in [
        ("identity", Hash::Identity, [false, false], 4),
        ("identity_gzip", Hash::Identity, [true, true], 9),
        ("murmur", Hash::Murmur3X86_128, [false, false], 4),
        ("murmur_gzip", Hash::Murmur3X86_128, [true, false], 1),
    ] {
        let (folder, scale) = volume(name);
        let sharding = scale.sharding.unwrap();
        assert_eq!((sharding.hash, [sharding.minishard_index_gzip, sharding.data_gzip]), (hash, gzip));
        let mut names: Vec<OsString> = Vec::new();
        for cell in cells(scale.grid()) {
            let id = compressed_morton(&cell, &scale.grid()).unwrap();
            let found = chunk(&folder, &scale, &sharding, id);
            assert_eq!(found.as_ref(), expected.get(&cell), "{name} {cell:?}");
            if found.is_some() {
                names.push(sharding.key(sharding.place(id).shard).into());
            }
        }
        names.sort_unstable();
        names.dedup();
        let mut files: Vec<_> =
            fs::read_dir(folder.join(&scale.key)).unwrap().map(|file| file.unwrap().file_name()).collect();
        files.sort_unstable();
        assert_eq!(files, names, "{name}: every shard has a chunk");
        assert_eq!(files.len(), shards, "{name}");
    }
}

#[test]
fn empty_minishards_of_tensorstore_are_missing() {
    let (folder, scale) = volume("identity_gzip");
    let sharding = scale.sharding.unwrap();
    let empty: usize = fs::read_dir(folder.join(&scale.key))
        .unwrap()
        .map(|file| {
            let shard = fs::read(file.unwrap().path()).unwrap();
            let pairs =
                decode_shard_index(&shard[..sharding.index_nbytes() as usize], Some(shard.len() as u64)).unwrap();
            pairs.iter().filter(|pair| **pair == (MISSING, MISSING)).count()
        })
        .sum();
    assert!(empty > 0, "a shard without an empty minishard shows nothing");
}
