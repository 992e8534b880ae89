//! Files that change, vanish, lie or are no files: the old content, the new one or a typed error, never a mixture, never
//! the fill value for data that is there, never a hang.

#![expect(unsafe_code, reason = "outputs and inputs are raw memory")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use voxfetch_core::assemble::{Input, Output};
use voxfetch_core::codec::{PreparedArray, Verify};
use voxfetch_core::error::Error;
use voxfetch_core::metadata::zarr::parse_v3;
use voxfetch_core::plan::coalesce::Merge;
use voxfetch_core::plan::{AxisSelection, Selection};
use voxfetch_local::{Config, LocalArray, LocalEngine, LocalRead};

const EXTENT: usize = 16;
const SHARD: usize = 8;
const CHUNK: usize = 4;
const FILL: u16 = 7;

/// An array of (16, 16) uint16, shards of (8, 8), chunks of (4, 4), in a folder of its own that goes with it.
struct Fixture {
    root: PathBuf,
    array: Arc<LocalArray>,
    engine: LocalEngine,
}

const RAW: &str = r#""bytes""#;
const CHECKED: &str = r#""bytes", "crc32c""#;
const PACKED: &str = r#""bytes", {"name": "zstd", "configuration": {"level": 1, "checksum": false}}"#;

impl Fixture {
    fn new(codecs: &str, index_location: &str) -> Self {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("voxfetch-files-{}-{number}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let document = format!(
            r#"{{"zarr_format": 3, "node_type": "array", "shape": [{EXTENT}, {EXTENT}], "data_type": "uint16",
                "chunk_grid": {{"name": "regular", "configuration": {{"chunk_shape": [{SHARD}, {SHARD}]}}}},
                "chunk_key_encoding": "default", "fill_value": {FILL}, "codecs": [{{"name": "sharding_indexed",
                "configuration": {{"chunk_shape": [{CHUNK}, {CHUNK}], "codecs": [{codecs}],
                "index_codecs": ["bytes", "crc32c"], "index_location": "{index_location}"}}}}]}}"#
        );
        fs::write(root.join("zarr.json"), &document).unwrap();
        let meta = Arc::new(PreparedArray::new(parse_v3(document.as_bytes()).unwrap()).unwrap());
        let array = Arc::new(LocalArray {
            meta,
            root: root.clone(),
            document: "zarr.json".into(),
            merge: Merge { max_gap_bytes: 0, max_request_bytes: 100 },
            verify: Verify::Full,
            missing_is_error: false,
            immutable: false,
            inside: None,
        });
        Self { root, array, engine: engine(64) }
    }

    fn shard(&self) -> PathBuf {
        self.root.join("c/0/0")
    }

    fn write(&self, voxel: impl Fn(usize) -> u16) {
        let data: Vec<u16> = (0..EXTENT * EXTENT).map(voxel).collect();
        let strides = vec![2 * EXTENT as isize, 2];
        let counts = vec![EXTENT as u64; 2];
        // SAFETY: `data` holds all voxels and outlives the call.
        let input = unsafe { Input::new(data.as_ptr().cast(), vec![0, 0], counts.clone(), strides) };
        self.engine.write(&self.array, &[0, 0], &counts, input).unwrap();
    }

    fn read(&self) -> Result<Vec<u16>, Error> {
        self.read_box(0, EXTENT)
    }

    /// The first shard only.
    fn read_shard(&self) -> Result<Vec<u16>, Error> {
        self.read_box(0, SHARD)
    }

    fn read_box(&self, start: usize, extent: usize) -> Result<Vec<u16>, Error> {
        let mut data = vec![0xA5A5u16; extent * extent];
        let counts = vec![extent as u64; 2];
        // SAFETY: `data` has that many voxels and outlives the call.
        let output = unsafe { Output::new(data.as_mut_ptr().cast(), 1, 0, counts, vec![2 * extent as isize, 2]) };
        let axis = AxisSelection::Range { start: start as u64, step: 1, count: extent as u64 };
        let selection = Selection::Axes(vec![axis.clone(), axis]);
        let read = LocalRead { array: Arc::clone(&self.array), selection, output: Some(output.into()) };
        self.engine.read(vec![read], || false).map_err(|(error, _)| error)?;
        Ok(data)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.engine.close();
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Of an uncompressed chunk only the bytes between the first and the last voxel that is needed.
#[test]
fn a_row_of_raw_chunks_is_read_alone() {
    for (codecs, nbytes) in [(RAW, 2 * 2 * CHUNK as u64), (CHECKED, 2 * (2 * (CHUNK * CHUNK) as u64 + 4))] {
        let fixture = Fixture::new(codecs, "end");
        fixture.write(|voxel| voxel as u16 + 100);
        fixture.read_shard().unwrap();
        let bytes_read = || fixture.engine.stats().iter().find(|s| s.0 == "bytes_read").unwrap().1;
        let before = bytes_read();
        let mut row = [0u16; SHARD];
        // SAFETY: `row` has that many voxels and outlives the call.
        let output = unsafe { Output::new(row.as_mut_ptr().cast(), 1, 0, vec![1, SHARD as u64], vec![0, 2]) };
        let axis = |start, count| AxisSelection::Range { start, step: 1, count };
        let selection = Selection::Axes(vec![axis(3, 1), axis(0, SHARD as u64)]);
        let read = || LocalRead {
            array: Arc::clone(&fixture.array),
            selection: selection.clone(),
            output: Some(output.clone().into()),
        };
        let explained = fixture.engine.explain(vec![read()], true, || false).unwrap();
        fixture.engine.read(vec![read()], || false).unwrap();
        assert_eq!(row, std::array::from_fn(|x| (3 * EXTENT + x) as u16 + 100));
        assert_eq!(bytes_read() - before, nbytes);
        assert_eq!((explained.bytes_needed, explained.bytes_fetched), (nbytes, nbytes));
    }
}

fn engine(max_open_files: usize) -> LocalEngine {
    LocalEngine::new(Config {
        threads: 3,
        index_cache_bytes: 1 << 20,
        chunk_cache_bytes: 1 << 20,
        max_open_files,
        in_flight_bytes: 1 << 20,
    })
}

#[track_caller]
fn assert_error(result: Result<Vec<u16>, Error>, classes: &[&str], path: &Path) {
    let error = result.expect_err("should be refused");
    assert!(classes.contains(&error.kind().class_name()), "{error}");
    assert_eq!(error.place().key.as_deref(), Some(&*path.to_string_lossy()), "{error}");
}

/// Every shard of an array read at once holds one value.
#[track_caller]
fn assert_shards_are_uniform(data: &[u16]) {
    for (row, column) in [(0, 0), (0, SHARD), (SHARD, 0), (SHARD, SHARD)] {
        let first = data[row * EXTENT + column];
        for line in data.chunks_exact(EXTENT).skip(row).take(SHARD) {
            assert!(line[column..column + SHARD].iter().all(|&voxel| voxel == first), "a mixture: {line:?}");
        }
    }
}

#[test]
fn a_replaced_file_is_read_anew() {
    for codecs in [RAW, CHECKED, PACKED] {
        let fixture = Fixture::new(codecs, "end");
        for version in 100..300u16 {
            // Chunks of many sizes, so that an old index would lead elsewhere.
            fixture.write(|i| version.wrapping_mul(i as u16 % version));
            let expected: Vec<u16> = (0..EXTENT * EXTENT).map(|i| version.wrapping_mul(i as u16 % version)).collect();
            assert_eq!(fixture.read().unwrap(), expected);
        }
    }
}

#[test]
fn reads_during_replacement_see_one_version_of_each_shard() {
    let fixture = Fixture::new(PACKED, "end");
    fixture.write(|_| 1);
    let versions = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Two kinds of shards, whose chunks lie elsewhere: with one chunk stored, and with all.
            while !stop.load(Ordering::Relaxed) {
                let version = versions.fetch_add(1, Ordering::Relaxed) as u16 % 5000 + 8;
                fixture.write(|_| version);
            }
        });
        let started = Instant::now();
        let mut reads = 0;
        while started.elapsed() < Duration::from_millis(700) || reads < 100 {
            assert_shards_are_uniform(&fixture.read().unwrap());
            reads += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(versions.load(Ordering::Relaxed) > 20);
}

#[test]
fn a_rewrite_in_place_is_one_version_of_each_chunk_or_an_error() {
    let fixture = Fixture::new(CHECKED, "end");
    fixture.write(|_| 1);
    let (first, path) = (fs::read(fixture.shard()).unwrap(), fixture.shard());
    fixture.write(|_| 2);
    let second = fs::read(&path).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for bytes in [&first, &second] {
                    // Truncates first, as most programs do.
                    fs::write(&path, bytes).unwrap();
                    std::thread::sleep(Duration::from_micros(300));
                }
            }
        });
        let started = Instant::now();
        let mut read = 0;
        while started.elapsed() < Duration::from_millis(500) || read < 10 {
            match fixture.read_shard() {
                Ok(data) => {
                    read += 1;
                    for corner in [0, CHUNK, SHARD * CHUNK, SHARD * CHUNK + CHUNK] {
                        let chunk = (0..CHUNK * CHUNK).map(|i| data[corner + i / CHUNK * SHARD + i % CHUNK]);
                        let voxels: Vec<u16> = chunk.collect();
                        assert!(voxels.iter().all(|&v| v == voxels[0] && (v == 1 || v == 2)), "{voxels:?}");
                    }
                }
                Err(error) => {
                    let class = error.kind().class_name();
                    let expected = ["ObjectChangedError", "ShardIndexError", "ChecksumError"].contains(&class);
                    assert!(expected, "{class}: {error}");
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    fs::write(&path, &first).unwrap();
    assert!(fixture.read_shard().unwrap().iter().all(|&voxel| voxel == 1));
}

#[test]
fn a_deleted_folder_is_not_the_fill_value() {
    let fixture = Fixture::new(RAW, "end");
    fixture.write(|i| i as u16);
    fixture.read().unwrap();
    fs::remove_file(fixture.shard()).unwrap();
    assert!(fixture.read_shard().unwrap().iter().all(|&voxel| voxel == FILL), "a shard that is not stored");
    let moved = fixture.root.with_extension("moved");
    fs::rename(&fixture.root, &moved).unwrap();
    assert_error(fixture.read(), &["NotFoundError"], &fixture.root.join("zarr.json"));
    fs::rename(&moved, &fixture.root).unwrap();
    assert_eq!(fixture.read().unwrap()[EXTENT * EXTENT - 1], (EXTENT * EXTENT - 1) as u16);
    fs::remove_dir_all(&fixture.root).unwrap();
    assert_error(fixture.read(), &["NotFoundError"], &fixture.root.join("zarr.json"));
}

#[test]
fn few_open_files_are_enough() {
    let mut fixture = Fixture::new(RAW, "end");
    fixture.write(|i| i as u16);
    for limit in [0, 1, 2] {
        fixture.engine = engine(limit);
        for _ in 0..3 {
            assert_eq!(fixture.read().unwrap(), (0..(EXTENT * EXTENT) as u16).collect::<Vec<_>>());
        }
        let open = fixture.engine.stats().into_iter().find(|(name, _)| *name == "open_files").unwrap().1;
        assert!(open <= limit as u64, "{open} files open");
    }
}

#[test]
fn what_is_no_file_is_an_error() {
    let fixture = Fixture::new(RAW, "end");
    fixture.write(|i| i as u16);
    let path = fixture.shard();
    // From here on the engine has the file open.
    fixture.read_shard().unwrap();

    fs::remove_file(&path).unwrap();
    symlink(fixture.root.join("nowhere"), &path).unwrap();
    assert_error(fixture.read_shard(), &["NotFoundError"], &path);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_error(fixture.read_shard(), &["StoreError"], &path);
    fs::remove_dir(&path).unwrap();

    // Opened for reading as usual, a pipe waits for somebody who writes.
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let started = Instant::now();
    assert_error(fixture.read_shard(), &["StoreError"], &path);
    assert!(started.elapsed() < Duration::from_secs(5));
    fs::remove_file(&path).unwrap();

    // Data that is not mounted or not fetched.
    symlink(fixture.root.join("nowhere"), &path).unwrap();
    assert_error(fixture.read_shard(), &["NotFoundError"], &path);
    fs::remove_dir_all(fixture.root.join("c")).unwrap();
    symlink(fixture.root.join("nowhere"), fixture.root.join("c")).unwrap();
    assert_error(fixture.read_shard(), &["NotFoundError"], &path);
    fs::remove_file(fixture.root.join("c")).unwrap();
    fs::write(fixture.root.join("c"), "a file where a folder should be").unwrap();
    assert_error(fixture.read_shard(), &["StoreError"], &path);
    fs::remove_file(fixture.root.join("c")).unwrap();
    symlink("c", fixture.root.join("c")).unwrap();
    assert_error(fixture.read_shard(), &["StoreError"], &path);
}

#[test]
fn a_link_to_data_is_data() {
    let fixture = Fixture::new(RAW, "end");
    fixture.write(|i| i as u16);
    fs::rename(fixture.root.join("c"), fixture.root.join("elsewhere")).unwrap();
    symlink("elsewhere", fixture.root.join("c")).unwrap();
    assert_eq!(fixture.read().unwrap(), (0..(EXTENT * EXTENT) as u16).collect::<Vec<_>>());
    fs::remove_file(fixture.root.join("elsewhere/0/0")).unwrap();
    assert!(fixture.read_shard().unwrap().iter().all(|&voxel| voxel == FILL), "not stored, through a good link");
}

#[test]
fn a_shard_cut_off_anywhere_is_an_error() {
    for location in ["start", "end"] {
        for codecs in [RAW, CHECKED, PACKED] {
            let fixture = Fixture::new(codecs, location);
            fixture.write(|i| (i * i) as u16);
            let whole = fs::read(fixture.shard()).unwrap();
            for nbytes in 0..whole.len() {
                fs::write(fixture.shard(), &whole[..nbytes]).unwrap();
                let classes = ["ShardIndexError", "ChecksumError", "CodecError"];
                assert_error(fixture.read_shard(), &classes, &fixture.shard());
            }
            fs::write(fixture.shard(), &whole).unwrap();
            fixture.read_shard().unwrap();
        }
    }
}

#[test]
fn an_entry_larger_than_a_chunk_is_refused_unread() {
    let fixture = Fixture::new(PACKED, "start");
    fixture.write(|i| i as u16);
    let mut shard = fs::read(fixture.shard()).unwrap();
    let huge = 1u64 << 40;
    shard[8..16].copy_from_slice(&huge.to_le_bytes());
    let words = 16 * (SHARD / CHUNK) * (SHARD / CHUNK);
    let mut crc = u32::MAX;
    for &byte in &shard[..words] {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg());
        }
    }
    shard[words..words + 4].copy_from_slice(&(!crc).to_le_bytes());
    fs::write(fixture.shard(), &shard).unwrap();
    // A sparse file: as large as the entry says, and a few bytes on disk.
    fs::File::options().write(true).open(fixture.shard()).unwrap().set_len(huge + 1000).unwrap();
    let started = Instant::now();
    assert_error(fixture.read_shard(), &["ShardIndexError"], &fixture.shard());
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn leftovers_of_a_killed_writer_are_in_nobodys_way() {
    let fixture = Fixture::new(RAW, "end");
    fs::create_dir_all(fixture.root.join("c/0")).unwrap();
    for number in 0..2000 {
        fs::write(fixture.root.join(format!("c/0/.0.{}.{number}.tmp", std::process::id())), "half").unwrap();
    }
    fixture.write(|i| i as u16);
    assert_eq!(fixture.read().unwrap(), (0..(EXTENT * EXTENT) as u16).collect::<Vec<_>>());
}
