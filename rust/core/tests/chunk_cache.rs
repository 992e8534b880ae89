//! Decoded chunks kept between reads through the machine: which requests they spare, and when they are not used.

#![expect(unsafe_code, reason = "outputs and inputs are raw memory")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;

use voxfetch_core::assemble::job::{Outputs, carry_out};
use voxfetch_core::assemble::{Input, Output, Worker};
use voxfetch_core::chunk_cache::ChunkCache;
use voxfetch_core::codec::{CodecContext, PreparedArray, Verify};
use voxfetch_core::metadata::zarr::parse_v3;
use voxfetch_core::plan::coalesce::Merge;
use voxfetch_core::plan::machine::{Failure, Limits, Machine, Mode, RemoteArray, Shared, Tally, Version, What};
use voxfetch_core::plan::{AxisSelection, Selection};
use voxfetch_core::shard_writer;

/// Extent of the array, which is one stored object, and of a chunk, along both axes.
const EXTENT: usize = 1024;
const CHUNK: usize = 64;
const ACROSS: usize = EXTENT / CHUNK;
const CHUNK_NBYTES: u64 = (CHUNK * CHUNK) as u64;
const TRUST_S: f64 = 60.0;

const RAW: &str = r#""bytes""#;
const CHECKED: &str = r#""bytes", "crc32c""#;
const PACKED: &str = r#""bytes", {"name": "zstd", "configuration": {"level": 1, "checksum": false}}"#;

fn sharded(codecs: &str) -> String {
    format!(
        r#"{{"name": "sharding_indexed", "configuration": {{"chunk_shape": [{CHUNK}, {CHUNK}], "codecs": [{codecs}],
            "index_codecs": ["bytes", "crc32c"]}}}}"#
    )
}

fn array(codecs: &str) -> RemoteArray {
    let document = format!(
        r#"{{"zarr_format": 3, "node_type": "array", "shape": [{EXTENT}, {EXTENT}], "data_type": "uint8",
            "chunk_grid": {{"name": "regular", "configuration": {{"chunk_shape": [{EXTENT}, {EXTENT}]}}}},
            "chunk_key_encoding": "default", "fill_value": 0, "codecs": [{codecs}]}}"#
    );
    RemoteArray {
        meta: Arc::new(PreparedArray::new(parse_v3(document.as_bytes()).unwrap()).unwrap()),
        store: "store".into(),
        path: String::new(),
        url: "test://array".into(),
        merge: Merge { max_gap_bytes: 0, max_request_bytes: 1 << 20 },
        verify: Verify::Full,
        missing_is_error: false,
        trust_s: TRUST_S,
        trust_missing_s: TRUST_S,
        interactive: false,
    }
}

fn voxel(salt: u8, y: usize, x: usize) -> u8 {
    (y * 7 + x / 3) as u8 ^ salt
}

/// One stored object, and a machine that reads it.
struct Fixture {
    array: Arc<RemoteArray>,
    cache: Arc<ChunkCache>,
    machine: Machine<Outputs, Vec<u8>>,
    object: Vec<u8>,
    salt: u8,
    has_etag: bool,
    now_s: f64,
}

impl Fixture {
    fn new(codecs: &str, cache_nbytes: u64) -> Self {
        let cache = Arc::new(ChunkCache::new(cache_nbytes));
        let limits = Limits { in_flight_nbytes: 1 << 30, index_cache_nbytes: 1 << 20 };
        let machine = Machine::new(limits, Arc::clone(&cache));
        let array = Arc::new(array(codecs));
        let mut new = Self { array, cache, machine, object: Vec::new(), salt: 0, has_etag: true, now_s: 0.0 };
        new.write(1);
        new
    }

    /// Another version of the object.
    fn write(&mut self, salt: u8) {
        let data: Vec<u8> = (0..EXTENT * EXTENT).map(|at| voxel(salt, at / EXTENT, at % EXTENT)).collect();
        let counts = vec![EXTENT as u64; 2];
        // SAFETY: `data` holds all voxels and outlives the input.
        let input = unsafe { Input::new(data.as_ptr(), vec![0, 0], counts, vec![EXTENT as isize, 1]) };
        let mut context = CodecContext::default();
        self.object = shard_writer::encode_object(&self.array.meta, &mut context, &[0, 0], &input).unwrap().unwrap();
        self.salt = salt;
    }

    fn with(&mut self, change: impl FnOnce(&mut RemoteArray)) {
        let mut other = RemoteArray {
            meta: Arc::clone(&self.array.meta),
            store: Arc::clone(&self.array.store),
            path: String::new(),
            url: self.array.url.clone(),
            ..*self.array
        };
        change(&mut other);
        self.array = Arc::new(other);
    }

    /// Requests of a read of voxels `x` of row `y`, which is compared with what is stored now.
    fn row(&mut self, y: usize, x: usize, count: usize) -> Vec<What> {
        let mut got = vec![0u8; count];
        // SAFETY: `got` has that many voxels and outlives the read.
        let output = unsafe { Output::new(got.as_mut_ptr(), 1, 0, vec![1, count as u64], vec![0, 1]) };
        let (requests, _) = self.run((y, x, count), Mode::Read, Some(output));
        let expected: Vec<u8> = (x..x + count).map(|x| voxel(self.salt, y, x)).collect();
        assert!(got == expected, "row {y} from {x}");
        requests
    }

    fn explain(&mut self, y: usize, x: usize, count: usize) -> Tally {
        self.run((y, x, count), Mode::Explain { fetch_indexes: true }, None).1
    }

    fn run(&mut self, place: (usize, usize, usize), mode: Mode, output: Option<Output>) -> (Vec<What>, Tally) {
        let axis = |start, count| AxisSelection::Range { start: start as u64, step: 1, count: count as u64 };
        let selection = Selection::Axes(vec![axis(place.0, 1), axis(place.1, place.2)]);
        let shared =
            Shared::new(vec![(7, vec![(Arc::clone(&self.array), selection)])], mode, vec![output.map(Into::into)])
                .unwrap();
        self.machine.submit(Arc::new(shared));
        let (mut worker, mut asked) = (Worker::default(), Vec::new());
        for _ in 0..100 {
            self.now_s += 0.01;
            for request in self.machine.next_requests(100, self.now_s) {
                asked.push(request.what);
                let nbytes = self.object.len() as u64;
                let etag: Option<Arc<str>> = self.has_etag.then(|| format!("\"{}\"", self.salt).into());
                if request.if_match.is_some() && request.if_match != etag {
                    self.machine.on_error(request.id, Failure::Changed, self.now_s);
                    continue;
                }
                let (start, end) = match request.what {
                    What::Range(range) => (range.start, range.end),
                    What::Suffix(count) => (nbytes - count, nbytes),
                    What::Whole(_) => (0, nbytes),
                };
                let body = self.object[start as usize..end as usize].to_vec();
                let version = Version { etag, modified: None, total: Some(nbytes) };
                self.machine.on_body(request.id, version, start, body, self.now_s);
            }
            for job in self.machine.take_jobs() {
                let outcome = carry_out(&job, &mut worker);
                self.machine.on_done(job, outcome, self.now_s);
            }
            if let Some(ended) = self.machine.take_ended().pop() {
                assert!(self.machine.is_idle());
                assert!(ended.error.is_none() && ended.problems.is_empty(), "{ended:?}");
                return (asked, ended.tally);
            }
        }
        panic!("the read does not end");
    }
}

fn is_index(what: &What) -> bool {
    matches!(what, What::Suffix(_))
}

#[test]
fn chunks_are_requested_and_decoded_once() {
    for codecs in [RAW, CHECKED, PACKED] {
        let mut fixture = Fixture::new(&sharded(codecs), 1 << 20);
        let first = fixture.row(0, 0, EXTENT);
        assert!(first.len() >= 2 && is_index(&first[0]), "{first:?}");
        for y in 1..CHUNK {
            assert_eq!(fixture.row(y, 0, EXTENT), [], "{codecs} {y}");
        }
        let counters = fixture.machine.counters;
        assert_eq!((counters.chunks_decoded, counters.chunk_cache_misses), (ACROSS as u64, ACROSS as u64));
        assert_eq!(counters.chunk_cache_hits, ((CHUNK - 1) * ACROSS) as u64);
        assert!(fixture.cache.nbytes() > ACROSS as u64 * CHUNK_NBYTES);
        // The next chunks, of which some are at hand.
        assert_ne!(fixture.row(CHUNK, CHUNK, CHUNK), []);
        let requests = fixture.row(CHUNK, 0, 3 * CHUNK);
        assert!(!requests.is_empty() && requests.iter().all(|what| matches!(what, What::Range(_))), "{requests:?}");
        assert_eq!(fixture.machine.counters.chunks_decoded, ACROSS as u64 + 3);
    }
}

#[test]
fn nothing_is_kept_by_itself() {
    let mut fixture = Fixture::new(&sharded(PACKED), 0);
    let first = fixture.row(0, 0, EXTENT);
    assert_eq!(fixture.row(1, 0, EXTENT), first[1..], "all but the index");
    let counters = fixture.machine.counters;
    assert_eq!((counters.chunk_cache_hits, counters.chunk_cache_misses, fixture.cache.nbytes()), (0, 0, 0));
}

#[test]
fn a_tagged_version_lasts_and_another_one_is_read_anew() {
    let mut fixture = Fixture::new(&sharded(PACKED), 1 << 20);
    fixture.row(0, 0, EXTENT);
    fixture.now_s += 2.0 * TRUST_S;
    let again = fixture.row(1, 0, EXTENT);
    assert!(again.len() == 1 && is_index(&again[0]), "the same version: {again:?}");
    fixture.now_s += 2.0 * TRUST_S;
    fixture.write(2);
    assert!(fixture.row(2, 0, EXTENT).len() >= 2);
    assert_eq!(fixture.row(3, 0, EXTENT), []);
}

#[test]
fn a_version_without_a_tag_lasts_as_long_as_its_index() {
    let mut fixture = Fixture::new(&sharded(PACKED), 1 << 20);
    fixture.has_etag = false;
    fixture.row(0, 0, EXTENT);
    assert_eq!(fixture.row(1, 0, EXTENT), []);
    fixture.now_s += 2.0 * TRUST_S;
    fixture.write(2);
    assert!(fixture.row(2, 0, EXTENT).len() >= 2);
}

/// A chunk of the old version is at hand, its neighbour has to be asked for, and is of another version.
#[test]
fn versions_are_not_mixed() {
    let mut fixture = Fixture::new(&sharded(PACKED), 1 << 20);
    fixture.row(0, 0, CHUNK);
    fixture.write(2);
    let requests = fixture.row(1, 0, 2 * CHUNK);
    assert_eq!(requests.iter().filter(|what| is_index(what)).count(), 1, "{requests:?}");
    assert_eq!(fixture.row(2, 0, 2 * CHUNK), []);
}

#[test]
fn an_object_that_is_one_chunk_is_asked_for_once_while_it_is_trusted() {
    for (codecs, has_etag) in [(PACKED, true), (RAW, false)] {
        let mut fixture = Fixture::new(codecs, 4 << 20);
        fixture.has_etag = has_etag;
        assert!(matches!(fixture.row(0, 0, 10)[..], [What::Whole(_)]));
        assert_eq!(fixture.row(500, 0, EXTENT), []);
        let report = fixture.explain(9, 0, EXTENT);
        assert_eq!((report.requests, report.inexact), (0, false));
        assert_eq!(
            (report.bytes_from_cache, report.bytes_needed),
            (fixture.object.len() as u64, report.bytes_from_cache)
        );
        assert_eq!(fixture.machine.counters.chunks_decoded, 1);
        fixture.now_s += 2.0 * TRUST_S;
        fixture.write(2);
        assert!(matches!(fixture.row(0, 0, 10)[..], [What::Whole(_)]));
    }
    // More than half of the cache: as without one.
    let mut fixture = Fixture::new(PACKED, (EXTENT * EXTENT) as u64);
    for y in 0..3 {
        assert!(matches!(fixture.row(y, 0, 10)[..], [What::Whole(_)]));
    }
    assert_eq!(fixture.cache.nbytes(), 0);
}

/// Codecs around the shard: its chunks are at hand or all of it is asked for.
#[test]
fn shards_that_are_encoded_as_a_whole() {
    let codecs = format!(r#"{}, {{"name": "gzip", "configuration": {{"level": 1}}}}"#, sharded(RAW));
    let mut fixture = Fixture::new(&codecs, 1 << 20);
    assert!(matches!(fixture.row(0, 0, 3 * CHUNK)[..], [What::Whole(_)]));
    assert_eq!(fixture.row(1, CHUNK, 2 * CHUNK), []);
    assert!(matches!(fixture.row(2, CHUNK, 3 * CHUNK)[..], [What::Whole(_)]));
    assert_eq!(fixture.row(2, 0, 4 * CHUNK), []);
}

#[test]
fn a_check_is_of_what_is_stored_and_full_is_not_served_by_cheap() {
    let mut fixture = Fixture::new(&sharded(CHECKED), 1 << 20);
    fixture.with(|array| array.verify = Verify::Cheap);
    fixture.row(0, 0, EXTENT);
    assert_eq!(fixture.row(0, 0, EXTENT), []);
    fixture.with(|array| array.verify = Verify::Full);
    assert_ne!(fixture.row(0, 0, EXTENT), []);
    assert_eq!(fixture.row(0, 0, EXTENT), []);
    let decoded = fixture.machine.counters.chunks_decoded;
    let (requests, _) = fixture.run((0, 0, EXTENT), Mode::Check, None);
    assert_ne!(requests, []);
    assert_eq!(fixture.machine.counters.chunks_decoded, decoded + ACROSS as u64);
}

#[test]
fn what_is_explained_is_what_is_requested() {
    for codecs in [RAW, PACKED] {
        let mut fixture = Fixture::new(&sharded(codecs), 1 << 20);
        fixture.row(0, 2 * CHUNK, CHUNK);
        for (x, count) in [(0, EXTENT), (0, EXTENT), (2 * CHUNK, CHUNK)] {
            let (report, before) = (fixture.explain(1, x, count), fixture.machine.counters);
            let requests = fixture.row(1, x, count);
            assert!(!report.inexact && report.requests == requests.len() as u64, "{codecs} {report:?} {requests:?}");
            assert_eq!(report.bytes_fetched, fixture.machine.counters.bytes_read - before.bytes_read);
            assert_eq!(report.round_trips, u64::from(!requests.is_empty()));
            assert!(report.bytes_from_cache > 0);
        }
        assert_eq!(fixture.machine.counters.chunks_decoded, ACROSS as u64);
    }
    // A row is more than half of the cache: its first chunks may make others of it go.
    let mut fixture = Fixture::new(&sharded(PACKED), ACROSS as u64 * CHUNK_NBYTES);
    fixture.row(0, 8 * CHUNK, 4 * CHUNK);
    assert!(fixture.explain(0, 0, EXTENT).inexact);
    assert!(!fixture.explain(0, 8 * CHUNK, 5 * CHUNK).inexact);
}

#[test]
fn the_limit_holds_whatever_is_read() {
    let limit = 10 * CHUNK_NBYTES;
    let mut fixture = Fixture::new(&sharded(PACKED), limit);
    for number in 0..200 {
        fixture.row(number * 37 % EXTENT, 0, 1 + number * 91 % EXTENT);
        assert!(fixture.cache.nbytes() <= limit);
    }
    assert!(fixture.cache.nbytes() > limit * 3 / 4);
    assert!(fixture.machine.counters.chunk_cache_hits > 0);
}
