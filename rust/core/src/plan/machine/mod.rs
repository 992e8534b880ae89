//! Reads of remote arrays as a state machine: calls go in, requests come out; bodies go in, jobs and endings come out.
//!
//! It holds no socket, thread or clock. Its owner sends what [`Machine::next_requests`] gives, hands every reply to
//! [`Machine::on_body`] or [`Machine::on_error`], carries the [`Job`]s out wherever it likes and hands their results to
//! [`Machine::on_done`]. Of each stored object one index is fetched however many reads wait for it; chunks that several
//! reads want while their object waits for its turn are merged into the same requests. Bytes in flight, until they are
//! decoded, stay below one limit.
//!
//! One voxel through it: its visit begins, finds nothing known of its shard and waits; the shard's index is requested
//! (a [`What::Suffix`]), comes ([`Machine::on_body`]), is decoded ([`Task::Index`]); the visit resolves its chunk to bytes
//! of the object, which wait with their neighbours until [`Machine::next_requests`] merges them into a [`What::Range`];
//! its body comes and is decoded into the output ([`Task::Deliver`]); the visit ends, and with the last one the call.
//!
//! A reply that belongs to another version of the object than its index makes the visits of that object begin again; a
//! job at work is waited for first, so that old voxels never overwrite new ones.

mod batch;
mod blocks;
mod counters;
mod kept;
mod object;
mod parts;
mod replies;
mod requests;
mod visits;

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use crate::chunk_cache::{ChunkCache, ObjectCache};
use crate::codec::{PreparedArray, Verify};
use crate::error::{Error, Result};
use crate::index::ShardIndex;
use crate::index::cache::ByteCache;
use crate::plan::Item;
use crate::plan::coalesce::Merge;
use crate::plan::kept::KeptChunk;
use crate::plan::shard::StoredChunk;
use crate::subset::ByteRange;
use batch::Batch;
pub use batch::{Call, Ended, Mode, Shared, Tally, missing_chunk};
pub use counters::Counters;
pub use object::Version;
use object::{Known, Name, Object, Want};

/// Shards that decode to at most this many bytes are fetched whole when nothing is known of them.
const SMALL_SHARD_NBYTES: u64 = 512 << 10;

/// An array behind a store, and how it is read.
#[derive(Debug)]
pub struct RemoteArray {
    /// What its documents say.
    pub meta: Arc<PreparedArray>,
    /// Names its store; equal for arrays whose objects are the same.
    pub store: Arc<str>,
    /// Key of the array in its store; empty for the root.
    pub path: String,
    /// URL of the array, for messages.
    pub url: String,
    /// When ranges are merged.
    pub merge: Merge,
    /// Which checksums are computed.
    pub verify: Verify,
    /// Whether a chunk that is not stored is an error instead of the fill value.
    pub missing_is_error: bool,
    /// Seconds for which what is known of an object is trusted.
    pub trust_s: f64,
    /// Seconds for which it is trusted that an object, or a chunk in one, is not stored; no more than `trust_s` counts.
    pub trust_missing_s: f64,
    /// Whether its reads go before others.
    pub interactive: bool,
}

impl RemoteArray {
    /// Key of the stored object at these grid coordinates.
    #[must_use]
    pub fn key(&self, shard: &[u64]) -> String {
        let key = self.meta.keys.key(shard);
        if self.path.is_empty() { key } else { format!("{}/{key}", self.path) }
    }

    /// URL of the stored object at these grid coordinates.
    #[must_use]
    pub fn object_url(&self, shard: &[u64]) -> String {
        format!("{}/{}", self.url, self.meta.keys.key(shard))
    }

    /// Whether objects of which nothing is known are fetched whole although their parts could be had alone.
    fn is_small(&self) -> bool {
        let [level] = self.meta.levels.as_slice() else { return false };
        let chunks = level.index.entries().saturating_mul(self.meta.chunk_nbytes as u64);
        !self.meta.has_outer_codecs() && chunks.saturating_add(level.index.nbytes()) <= SMALL_SHARD_NBYTES
    }
}

/// Bytes to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// These.
    Range(ByteRange),
    /// The last so many.
    Suffix(u64),
    /// All, at most so many.
    Whole(u64),
}

/// One request to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Names it in the reply.
    pub id: u64,
    /// The store of the array.
    pub store: Arc<str>,
    /// The object.
    pub key: Arc<str>,
    /// Which bytes.
    pub what: What,
    /// Strong ETag that the object must still have.
    pub if_match: Option<Arc<str>>,
}

/// Why there is no body.
#[derive(Debug, Clone)]
pub enum Failure {
    /// There is no such object.
    Absent,
    /// The object is another one than was asked for, or shorter.
    Changed,
    /// Anything else, after all attempts.
    Error(Error),
}

/// Work that needs no knowledge of the machine, to be carried out anywhere.
#[derive(Debug)]
pub struct Job<P, B> {
    /// What is to be done.
    pub task: Task<P>,
    /// The bytes that it needs.
    pub body: Option<B>,
    /// Bytes in flight that end with it.
    nbytes: u64,
}

/// What a job does.
#[derive(Debug)]
pub enum Task<P> {
    /// Decode an index.
    Index(IndexTask),
    /// Deliver chunks, missing ones or whole objects to the outputs.
    Deliver {
        /// Place in the object of the body's first byte.
        body_start: u64,
        /// The parts, each of one visit.
        parts: Vec<Part<P>>,
    },
}

/// An index to be decoded.
#[derive(Debug)]
pub struct IndexTask {
    /// The array.
    pub array: Arc<RemoteArray>,
    /// Grid coordinates of the object.
    pub cell: Vec<u64>,
    /// Nesting level.
    pub level: usize,
    /// Bytes of the shard in its object.
    pub shard: ByteRange,
    /// Bytes of the index in the body.
    pub encoded: Range<usize>,
    /// Bytes of the object.
    pub object_nbytes: u64,
    object: u64,
    epoch: u32,
    /// Of the object itself: the version of the reply, and whether the body is the whole object.
    root: Option<(Version, bool)>,
}

/// What one visit gets of a body.
#[derive(Debug)]
pub struct Part<P> {
    /// The plan and the memory.
    pub shared: Arc<Shared<P>>,
    /// Number of the visit in the plan.
    pub number: u64,
    /// Its items.
    pub items: Arc<Vec<Item>>,
    /// What is delivered.
    pub delivery: Delivery,
    /// Reads of the plan that want it no more: their memory may be gone.
    pub dropped: Vec<u32>,
    /// Where its chunks are kept that are decoded.
    pub cache: Option<ObjectCache>,
    visit: u64,
    calls: Vec<u32>,
    pass: u32,
}

/// What is delivered to a visit.
#[derive(Debug)]
pub enum Delivery {
    /// Chunks in the body.
    Chunks(Vec<StoredChunk>),
    /// The whole object: one chunk, or a shard with codecs around it.
    Object,
    /// Items, by position, of chunks that are not stored.
    Missing(Vec<Range<usize>>),
    /// Chunks that are at hand decoded.
    Kept(Vec<KeptChunk>),
}

/// Result of a job.
#[derive(Debug)]
pub enum Outcome {
    /// Of [`Task::Index`].
    Index(Result<ShardIndex>),
    /// Of [`Task::Deliver`]: the errors of each part, with the items they concern.
    Delivered(Vec<Vec<(Range<usize>, Error)>>),
}

/// Sizes of a machine.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes in flight: requested, or received and not decoded yet.
    pub in_flight_nbytes: u64,
    /// Bytes of indexes kept for later reads.
    pub index_cache_nbytes: u64,
}

/// The reads of one engine.
#[derive(Debug)]
pub struct Machine<P, B> {
    limits: Limits,
    batches: HashMap<u64, Batch<P>>,
    /// Batch and call of each token.
    tokens: HashMap<u64, (u64, u32)>,
    /// Batches with visits to begin: those of interactive reads, the others.
    open: [VecDeque<u64>; 2],
    visits: HashMap<u64, Active>,
    objects: HashMap<u64, Object>,
    names: HashMap<Name, u64>,
    remembered: ByteCache<Name, Known>,
    chunk_cache: Arc<ChunkCache>,
    /// Stores of which objects without an index are fetched whole: they give no parts, or do not tell how large the object is.
    wholes: HashSet<Arc<str>>,
    /// Requests to be sent next, by priority.
    ready: [VecDeque<Flight>; 2],
    /// Objects with pending chunks, by priority.
    queue: [VecDeque<u64>; 2],
    in_flight: HashMap<u64, Flight>,
    in_flight_nbytes: u64,
    /// Requests that those bytes belong to.
    held: usize,
    last_id: u64,
    items: usize,
    /// Visits, and objects that nobody was busy with, begun by the last call of `next_requests`.
    begun: (usize, usize),
    jobs: Vec<Job<P, B>>,
    ended: Vec<Ended>,
    /// Numbers for people.
    pub counters: Counters,
}

/// A visit that has begun.
#[derive(Debug)]
struct Active {
    batch: u64,
    number: u64,
    object: u64,
    items: Arc<Vec<Item>>,
    calls: Vec<u32>,
    /// Chunks that it waits for.
    left: usize,
    /// Jobs at work for it.
    working: usize,
    pass: u32,
    /// The object changed while a job was at work: begin again when that has ended.
    again: bool,
    /// Requests that it had to wait for before it knew its chunks.
    waited: u64,
    /// When its batch began.
    began_s: f64,
    /// What was asked for before this moment says of no chunk that it is missing.
    trusts_missing_since_s: f64,
}

/// A request that is sent or about to be.
#[derive(Debug)]
struct Flight {
    object: u64,
    epoch: u32,
    nbytes: u64,
    what: What,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// The index of the object, in all of the object if `whole`.
    Root { whole: bool },
    /// An index further in.
    Inner { level: usize, shard: ByteRange },
    /// All of an object that has no parts.
    Object,
    /// The beginning of an object that is one chunk with blocks.
    Blocks,
    /// Chunks.
    Chunks(Vec<Want>),
}

impl<P, B: Clone + AsRef<[u8]>> Machine<P, B> {
    /// A machine without reads. Decoded chunks go to `chunk_cache`.
    #[must_use]
    pub fn new(limits: Limits, chunk_cache: Arc<ChunkCache>) -> Self {
        Self {
            limits,
            batches: HashMap::new(),
            tokens: HashMap::new(),
            open: Default::default(),
            visits: HashMap::new(),
            objects: HashMap::new(),
            names: HashMap::new(),
            remembered: ByteCache::new(limits.index_cache_nbytes),
            chunk_cache,
            wholes: HashSet::new(),
            ready: Default::default(),
            queue: Default::default(),
            in_flight: HashMap::new(),
            in_flight_nbytes: 0,
            held: 0,
            last_id: 0,
            items: 0,
            begun: (0, 0),
            jobs: Vec::new(),
            ended: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// Takes calls up; their endings come through [`Machine::take_ended`].
    pub fn submit(&mut self, shared: Arc<Shared<P>>) {
        let interactive = shared.arrays.iter().any(|array| array.interactive);
        let id = self.new_id();
        for (call, &token) in shared.tokens.iter().enumerate() {
            self.tokens.insert(token, (id, call as u32));
        }
        let calls: Vec<u32> = (0..shared.tokens.len() as u32).collect();
        // A check is of what is stored.
        let is_stored = shared.mode == Mode::Check || shared.plan.has_encoded();
        let cache = self.chunk_cache.for_read().filter(|_| !is_stored);
        self.batches.insert(id, Batch::new(shared, interactive, cache));
        self.open[usize::from(!interactive)].push_back(id);
        self.settle(id, &calls);
    }

    /// Starts nothing more for a call, which ends once no job is at work on its memory. Returns the requests in flight
    /// that nobody waits for any more: their replies are ignored.
    pub fn cancel(&mut self, token: u64) -> Vec<u64> {
        let Some(&(id, call)) = self.tokens.get(&token) else { return Vec::new() };
        let Some(batch) = self.batches.get_mut(&id) else { return Vec::new() };
        batch.stop(call);
        self.settle(id, &[call]);
        let unwanted = self.in_flight.iter().filter(|(_, flight)| !self.is_awaited(flight));
        let mut unwanted: Vec<u64> = unwanted.map(|(&id, _)| id).collect();
        unwanted.sort_unstable();
        unwanted.iter().for_each(|&id| self.abandon(id));
        unwanted
    }

    /// The requests to send next, at most `most` of them. Time in seconds, from any fixed start.
    pub fn next_requests(&mut self, most: usize, now_s: f64) -> Vec<Request> {
        let mut requests = Vec::new();
        self.begun = (0, 0);
        while requests.len() < most {
            let Some(flight) = self.next_flight(now_s) else { break };
            let fits = self.in_flight_nbytes + flight.nbytes <= self.limits.in_flight_nbytes;
            // Two at least, so that one is on its way while the other is decoded; an oversize one alone.
            let few = self.held < 2 && flight.nbytes <= self.limits.in_flight_nbytes;
            if !(fits || few || self.held == 0) {
                let priority = self.priority(&flight);
                self.ready[priority].push_front(flight);
                break;
            }
            let Some(object) = self.objects.get(&flight.object) else { continue };
            let if_match = match (&flight.kind, &object.known) {
                (Kind::Chunks(_) | Kind::Inner { .. }, Some(Known::Present { version, .. })) => version.etag.clone(),
                _ => None,
            };
            let (store, key) = (Arc::clone(&object.name.store), Arc::clone(&object.name.key));
            self.in_flight_nbytes += flight.nbytes;
            self.held += 1;
            let id = self.new_id();
            requests.push(Request { id, store, key, what: flight.what, if_match });
            self.in_flight.insert(id, flight);
        }
        requests
    }

    /// Whether the last [`Machine::next_requests`] ended before all that could begin had begun: it is to be asked again.
    #[must_use]
    pub fn has_more(&self) -> bool {
        visits::have_enough_begun(self.begun)
    }

    /// Whether there is something for its owner: a call has ended, or a request may be sent once there is room.
    #[must_use]
    pub fn has_news(&self) -> bool {
        let to_send = |priority: usize| {
            !(self.ready[priority].is_empty() && self.queue[priority].is_empty() && self.open[priority].is_empty())
        };
        !self.ended.is_empty() || to_send(0) || to_send(1)
    }

    /// Takes the body of a request: bytes `start..` of a version of the object.
    pub fn on_body(&mut self, id: u64, version: Version, start: u64, body: B, now_s: f64) {
        let Some(flight) = self.in_flight.remove(&id) else { return };
        let nbytes = body.as_ref().len() as u64;
        self.counters.requests += 1;
        self.counters.bytes_read += nbytes;
        // What was asked for was an estimate where the whole object was.
        self.in_flight_nbytes = self.in_flight_nbytes.saturating_sub(flight.nbytes) + nbytes;
        if !self.received(flight, version, start, body, now_s) {
            self.release(nbytes);
        }
    }

    /// Takes the end of a request that brings no body.
    pub fn on_error(&mut self, id: u64, failure: Failure, now_s: f64) {
        let Some(flight) = self.in_flight.remove(&id) else { return };
        self.release(flight.nbytes);
        self.failed(flight, failure, now_s);
    }

    /// Takes the result of a job; returns its body, which is not needed any more.
    pub fn on_done(&mut self, job: Job<P, B>, outcome: Outcome, now_s: f64) -> Option<B> {
        let Job { task, body, nbytes } = job;
        match (task, outcome) {
            (Task::Index(task), Outcome::Index(index)) => self.index_done(task, index, body.as_ref(), nbytes, now_s),
            (Task::Index(task), Outcome::Delivered(_)) => {
                let error = Err(Error::internal("an index was delivered"));
                self.index_done(task, error, body.as_ref(), nbytes, now_s);
            }
            (Task::Deliver { parts, .. }, outcome) => {
                if body.is_some() {
                    self.release(nbytes);
                }
                let mut errors = match outcome {
                    Outcome::Delivered(errors) => errors.into_iter(),
                    Outcome::Index(_) => Vec::new().into_iter(),
                };
                for part in parts {
                    let all = 0..part.items.len();
                    let undone = || vec![(all, Error::internal("a part was not delivered"))];
                    self.part_done(part, errors.next().unwrap_or_else(undone));
                }
            }
        }
        body
    }

    /// The jobs to carry out since it was last asked.
    pub fn take_jobs(&mut self) -> Vec<Job<P, B>> {
        std::mem::take(&mut self.jobs)
    }

    /// The calls that have ended since it was last asked.
    pub fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// Forgets what is known of objects that no read is busy with.
    pub fn forget(&mut self) {
        self.remembered = ByteCache::new(self.limits.index_cache_nbytes);
        self.wholes.clear();
    }

    /// Bytes of indexes kept for later reads.
    #[must_use]
    pub fn index_cache_nbytes(&self) -> u64 {
        self.remembered.nbytes()
    }

    /// Bytes requested, or received and not decoded yet.
    #[must_use]
    pub fn in_flight_nbytes(&self) -> u64 {
        self.in_flight_nbytes
    }

    /// True when no call is open and no request or job is on its way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.batches.is_empty() && self.in_flight.is_empty() && self.in_flight_nbytes == 0
    }

    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}
