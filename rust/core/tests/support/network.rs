//! A network for the machine: objects that answer in any order, fail, and are replaced while they are read.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use voxfetch_core::assemble::job::{Outputs, carry_out};
use voxfetch_core::assemble::{Output, Worker};
use voxfetch_core::chunk_cache::ChunkCache;
use voxfetch_core::codec::Verify;
use voxfetch_core::error::{Error, ErrorKind, TransportClass};
use voxfetch_core::plan::Selection;
use voxfetch_core::plan::coalesce::Merge;
use voxfetch_core::plan::machine::{
    Call, Failure, Job, Limits, Machine, Mode, RemoteArray, Request, Shared, Version, What,
};

use super::naive::Oracle;
use super::reads::{Memory, Wanted};
use super::{Array, Choices};

type Body = Arc<[u8]>;

/// Objects by store and key, and how often each has been written.
struct Network {
    objects: BTreeMap<(String, String), (Body, u64)>,
    has_etags: bool,
    has_totals: bool,
}

impl Network {
    fn put(&mut self, number: usize, array: &RemoteArray, oracle: &Oracle, choices: &mut Choices<'_>) {
        let written = oracle.write(choices);
        let store = array.store.to_string();
        let version = |key: &str| self.objects.get(&(store.clone(), key.to_owned())).map_or(0, |known| known.1 + 1);
        let new: Vec<_> = written
            .into_iter()
            .map(|(shard, bytes)| {
                let key = array.key(&shard);
                let version = version(&key);
                ((store.clone(), key), (Body::from(bytes), version))
            })
            .collect();
        assert!(new.iter().all(|entry| entry.0.0 == format!("store {number}")));
        self.objects.extend(new);
    }

    fn answer(&self, request: &Request) -> Result<(Version, u64, Body), Failure> {
        let (body, version) =
            self.objects.get(&(request.store.to_string(), request.key.to_string())).ok_or(Failure::Absent)?;
        let etag: Option<Arc<str>> = self.has_etags.then(|| format!("\"{version}\"").into());
        if request.if_match.is_some() && request.if_match != etag {
            return Err(Failure::Changed);
        }
        let nbytes = body.len() as u64;
        let (start, end) = match request.what {
            What::Range(range) if range.end > nbytes => return Err(Failure::Changed),
            What::Range(range) => (range.start, range.end),
            What::Suffix(count) => (nbytes.saturating_sub(count), nbytes),
            What::Whole(most) => {
                assert!(nbytes <= most, "{nbytes} > {most}");
                (0, nbytes)
            }
        };
        let modified = Some(format!("day {version}").into());
        let total = self.has_totals.then_some(nbytes);
        Ok((Version { etag, modified, total }, start, body[start as usize..end as usize].into()))
    }
}

/// Decisions about the order of things, which go on when the bytes of `Choices` have ended (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 |= 1 << 40;
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// One read, its memory, and what has become of it.
struct Running {
    array: usize,
    wanted: Wanted,
    memory: Memory,
    bytes: Vec<u8>,
    ended: Option<Option<Error>>,
    cancelled: bool,
}

/// Reads arrays through a machine whose network answers in random order, fails at times and replaces objects, and
/// compares all memory with what the naive reader puts there.
///
/// # Panics
/// When a read that ended well differs, when one that ended is written to, when one does not end, when more bytes are in
/// flight than are allowed, or when an index is fetched twice for no reason.
pub fn check_random_network(choices: &mut Choices<'_>) {
    let oracles: Vec<Oracle> = (0..1 + choices.below(2)).map(|_| Oracle::random(choices)).collect();
    let limits = Limits {
        in_flight_nbytes: choices.pick(&[1 << 30, 1, 100, 1000]),
        index_cache_nbytes: choices.pick(&[1 << 20, 0, 2000]),
    };
    let arrays: Vec<Arc<RemoteArray>> = oracles
        .iter()
        .enumerate()
        .map(|(number, oracle)| {
            Arc::new(RemoteArray {
                meta: Arc::clone(&oracle.array),
                store: format!("store {number}").into(),
                path: choices.pick(&["", "a/b"]).into(),
                url: "test://array".into(),
                merge: Merge { max_gap_bytes: choices.below(20), max_request_bytes: choices.below(1000) },
                verify: Verify::Full,
                missing_is_error: false,
                trust_s: choices.pick(&[f64::INFINITY, 0.0, 5.0]),
                trust_missing_s: choices.pick(&[f64::INFINITY, 0.0, 5.0]),
                interactive: choices.chance(3),
            })
        })
        .collect();
    let mut running: Vec<Running> = (0..1 + choices.below(5))
        .map(|_| {
            let array = choices.below(oracles.len() as u64) as usize;
            let meta: &Array = &oracles[array].array;
            let wanted = Wanted::random(choices, &meta.shape, &oracles[array].layout.chunk_shape);
            let memory = Memory::random(choices, &wanted, oracles[array].item_size());
            let bytes = vec![0xA5; memory.nbytes];
            Running { array, wanted, memory, bytes, ended: None, cancelled: false }
        })
        .collect();
    let (fails, replaces, cancels) = (choices.chance(4), choices.chance(3), choices.chance(4));
    let mut network =
        Network { objects: BTreeMap::new(), has_etags: !choices.chance(3), has_totals: !choices.chance(5) };
    // Only strong ETags, or sizes and dates, tell versions apart.
    for (number, oracle) in oracles.iter().enumerate() {
        network.put(number, &arrays[number], oracle, choices);
    }
    let chunk_cache = Arc::new(ChunkCache::new(choices.pick(&[0, 1 << 20, 2000])));
    let mut machine: Machine<Outputs, Body> = Machine::new(limits, Arc::clone(&chunk_cache));
    let (mut waiting, mut in_flight, mut jobs): (Vec<usize>, Vec<Request>, Vec<Job<Outputs, Body>>) =
        ((0..running.len()).collect(), Vec::new(), Vec::new());
    let mut worker = Worker::default();
    let (mut now_s, mut asked, mut replaced) = (0.0, HashSet::new(), 0);
    let describe = || oracles.iter().map(|oracle| oracle.layout.document.clone()).collect::<Vec<_>>().join("\n");
    let mut dice = Dice(choices.below(u64::MAX));
    for step in 0.. {
        assert!(step < 100_000, "the machine does not come to an end\n{}", describe());
        now_s += 0.01;
        match dice.below(if step < 400 { 14 } else { 8 }) {
            0..2 if !waiting.is_empty() => {
                let count = 1 + dice.below(waiting.len() as u64) as usize;
                let calls: Vec<usize> = waiting.drain(..count).collect();
                submit(&mut machine, &arrays, &mut running, &calls);
            }
            2..4 => {
                let most = 1 + dice.below(4) as usize;
                let has_news = machine.has_news();
                let requests = machine.next_requests(most, now_s);
                assert!(has_news || requests.is_empty(), "there was nothing to do, it said\n{}", describe());
                for request in requests {
                    if !matches!(request.what, What::Range(_))
                        && !asked.insert((request.store.clone(), request.key.clone()))
                    {
                        let trusts =
                            |array: &Arc<RemoteArray>| array.trust_s.min(array.trust_missing_s) == f64::INFINITY;
                        let trusts = arrays.iter().all(trusts);
                        let is_whole = matches!(request.what, What::Whole(_));
                        let why = fails
                            || cancels
                            || replaced > 0
                            || limits.index_cache_nbytes < 1 << 20
                            || !trusts
                            || is_whole;
                        assert!(why, "{request:?} is fetched again\n{}", describe());
                    }
                    in_flight.push(request);
                }
                let asked_nbytes: u64 = in_flight.iter().map(request_nbytes).sum();
                assert!(in_flight.len() <= 2 || asked_nbytes <= limits.in_flight_nbytes.max(1 << 20), "{asked_nbytes}");
            }
            4..6 if !in_flight.is_empty() => {
                let request = in_flight.swap_remove(dice.below(in_flight.len() as u64) as usize);
                let answer = if fails && dice.below(6) == 5 {
                    let class = TransportClass::RetriesExhausted;
                    let (what, hint) = (String::from("no luck"), String::new());
                    Err(Failure::Error(
                        ErrorKind::Transport { class, what, hint, status: Some(503), attempts: 8 }.into(),
                    ))
                } else {
                    network.answer(&request)
                };
                match answer {
                    Ok((version, start, body)) => machine.on_body(request.id, version, start, body, now_s),
                    Err(failure) => machine.on_error(request.id, failure, now_s),
                }
            }
            6..8 if !jobs.is_empty() => {
                let job = jobs.swap_remove(dice.below(jobs.len() as u64) as usize);
                let outcome = carry_out(&job, &mut worker);
                machine.on_done(job, outcome, now_s);
            }
            8 if replaces && replaced < 3 => {
                replaced += 1;
                let number = dice.below(oracles.len() as u64) as usize;
                network.put(number, &arrays[number], &oracles[number], choices);
            }
            9 if cancels => {
                let number = dice.below(running.len() as u64) as usize;
                running[number].cancelled = true;
                let gone = machine.cancel(number as u64);
                in_flight.retain(|request| !gone.contains(&request.id));
            }
            _ => {}
        }
        jobs.extend(machine.take_jobs());
        let has_news = machine.has_news();
        let ended = machine.take_ended();
        assert!(has_news || ended.is_empty(), "nobody had ended, it said\n{}", describe());
        for ended in ended {
            let read = &mut running[ended.token as usize];
            assert!(read.ended.is_none(), "a call ended twice");
            if ended.error.is_some() {
                // From now on this memory is nobody's business.
                read.bytes.fill(0x3C);
            }
            read.ended = Some(ended.error);
        }
        if waiting.is_empty() && machine.is_idle() && jobs.is_empty() {
            break;
        }
    }
    assert_eq!(machine.in_flight_nbytes(), 0);
    assert!(chunk_cache.nbytes() <= 1 << 20);
    for read in &running {
        let Some(error) = &read.ended else { panic!("a call has not ended\n{}", describe()) };
        if let Some(error) = error {
            let class = error.kind().class_name();
            let fair = match class {
                "RetriesExhaustedError" => fails,
                "ObjectChangedError" => replaced >= 3,
                "StoreError" => read.cancelled,
                _ => false,
            };
            assert!(fair, "{class}: {error}\n{}", describe());
            assert!(read.bytes.iter().all(|&byte| byte == 0x3C), "memory was written to after the end");
            continue;
        }
        let oracle = &oracles[read.array];
        let mut expected = vec![0xA5; read.memory.nbytes];
        read.wanted.each(|part, place, voxel| {
            let at = read.memory.at(part, place);
            expected[at..at + oracle.item_size()].copy_from_slice(&oracle.voxel(voxel));
        });
        assert!(read.bytes == expected, "{}\n{:?}\n{:?}", describe(), read.wanted, read.memory);
    }
}

fn request_nbytes(request: &Request) -> u64 {
    match request.what {
        What::Range(range) => range.len(),
        What::Suffix(nbytes) => nbytes,
        What::Whole(_) => 0,
    }
}

fn submit(machine: &mut Machine<Outputs, Body>, arrays: &[Arc<RemoteArray>], running: &mut [Running], calls: &[usize]) {
    let mut specs: Vec<Call> = Vec::new();
    let mut outputs: Outputs = Vec::new();
    for &number in calls {
        let read = &mut running[number];
        let output: Output = read.memory.output(&mut read.bytes);
        if let Selection::Boxes { starts, shape, fill_outside: true } = &read.wanted.selection() {
            for part in 0..starts.len().checked_div(shape.len()).unwrap_or(1) {
                let filled = output.fill_box(part as u32, &arrays[read.array].meta.fill_value);
                filled.unwrap_or_else(|error| panic!("{error}"));
            }
        }
        outputs.push(Some(output.into()));
        specs.push((number as u64, vec![(Arc::clone(&arrays[read.array]), read.wanted.selection())]));
    }
    let shared = Shared::new(specs, Mode::Read, outputs).unwrap_or_else(|error| panic!("{error}"));
    machine.submit(Arc::new(shared));
}
