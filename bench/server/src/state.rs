//! What all connections share: the delays that are set, the counters, the log; and the control requests that set and
//! show them.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::Request;

/// Replies that are counted one by one; all others are "other".
const STATUSES: [u16; 8] = [200, 206, 304, 400, 404, 405, 412, 416];
/// Requests that the log keeps, so that a forgotten `log=1` does not fill the memory.
const LOG_LINES_MAX: usize = 1 << 20;
const CONTROL: &str = "/_control/";
/// How long a control request waits for requests in flight: a client that has its last byte may ask before that
/// request has been counted to its end.
const SETTLE: Duration = Duration::from_millis(50);
const SETTLE_STEP: Duration = Duration::from_micros(50);

/// Delays, counters, log. Sums over requests, each exact; a snapshot while requests run is not one instant.
pub struct State {
    latency_us: AtomicU64,
    connect_us: AtomicU64,
    bytes_per_s: AtomicU64,
    logging: AtomicBool,
    gets: AtomicU64,
    heads: AtomicU64,
    others: AtomicU64,
    bytes: AtomicU64,
    in_flight: AtomicU64,
    max_in_flight: AtomicU64,
    connections: AtomicU64,
    statuses: [AtomicU64; STATUSES.len() + 1],
    log: Mutex<Vec<String>>,
    started: Instant,
}

impl Default for State {
    fn default() -> Self {
        State {
            latency_us: AtomicU64::default(),
            connect_us: AtomicU64::default(),
            bytes_per_s: AtomicU64::default(),
            logging: AtomicBool::default(),
            gets: AtomicU64::default(),
            heads: AtomicU64::default(),
            others: AtomicU64::default(),
            bytes: AtomicU64::default(),
            in_flight: AtomicU64::default(),
            max_in_flight: AtomicU64::default(),
            connections: AtomicU64::default(),
            statuses: Default::default(),
            log: Mutex::default(),
            started: Instant::now(),
        }
    }
}

/// What a request is to wait for.
pub struct Delay {
    /// From the arrival of the request to the first byte of its reply.
    pub latency: Duration,
    /// Bytes a second of a body; 0 is no limit.
    pub bytes_per_s: u64,
}

/// How a request was answered. The bytes are `start <= i < end` of the object, and those sent, which are none for HEAD.
pub struct Answered {
    pub connection: u64,
    pub status: u16,
    pub start: u64,
    pub end: u64,
    pub sent: u64,
    /// Since the request arrived.
    pub took: Duration,
}

/// The answer to a control request.
pub struct Told {
    pub status: u16,
    pub body: String,
}

impl State {
    /// Counts a request that has arrived, and says how long to wait. `first`: of its connection.
    pub fn begin(&self, request: &Request, first: bool) -> Delay {
        self.counter_of(request.method).fetch_add(1, Relaxed);
        let in_flight = self.in_flight.fetch_add(1, Relaxed) + 1;
        self.max_in_flight.fetch_max(in_flight, Relaxed);
        let mut latency_us = self.latency_us.load(Relaxed);
        if first {
            self.connections.fetch_add(1, Relaxed);
            latency_us += self.connect_us.load(Relaxed);
        }
        Delay { latency: Duration::from_micros(latency_us), bytes_per_s: self.bytes_per_s.load(Relaxed) }
    }

    /// Counts the end of a request that `begin` counted; `None`: its connection broke.
    pub fn end(&self, request: &Request, answered: Option<&Answered>) {
        self.in_flight.fetch_sub(1, Relaxed);
        let Some(answered) = answered else { return };
        self.bytes.fetch_add(answered.sent, Relaxed);
        let place = STATUSES.iter().position(|status| *status == answered.status).unwrap_or(STATUSES.len());
        if let Some(counter) = self.statuses.get(place) {
            counter.fetch_add(1, Relaxed);
        }
        if self.logging.load(Relaxed) {
            let line = self.log_line(request, answered);
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            if log.len() < LOG_LINES_MAX {
                log.push(line);
            }
        }
    }

    /// `None` where the request is for an object.
    pub fn control(&self, request: &Request) -> Option<Told> {
        let action = request.path.strip_prefix(CONTROL)?;
        let asked = Instant::now();
        while self.in_flight.load(Relaxed) > 0 && asked.elapsed() < SETTLE {
            thread::sleep(SETTLE_STEP);
        }
        let body = match action {
            "stats" => Some(self.stats()),
            "log" => Some(self.log.lock().unwrap_or_else(PoisonError::into_inner).concat()),
            "reset" => self.reset(request).map(|()| self.stats()),
            _ => None,
        };
        Some(match body {
            Some(body) => Told { status: 200, body },
            None => Told { status: 400, body: "{\"error\": \"reset, stats or log; numbers from 0\"}\n".into() },
        })
    }

    fn counter_of(&self, method: &str) -> &AtomicU64 {
        match method {
            "GET" => &self.gets,
            "HEAD" => &self.heads,
            _ => &self.others,
        }
    }

    /// `None`, and nothing changed, where a value is no number.
    fn reset(&self, request: &Request) -> Option<()> {
        // Milliseconds to microseconds, MB/s to B/s.
        let settings = [
            ("latency_ms", &self.latency_us, 1e3),
            ("connect_ms", &self.connect_us, 1e3),
            ("bandwidth", &self.bytes_per_s, 1e6),
        ];
        let mut changes = Vec::new();
        for (name, setting, scale) in settings {
            let Some(text) = request.parameter(name) else { continue };
            let value = text.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0)?;
            changes.push((setting, (value * scale).round() as u64));
        }
        for (setting, value) in changes {
            setting.store(value, Relaxed);
        }
        if let Some(log) = request.parameter("log") {
            self.logging.store(log != "0", Relaxed);
        }
        for counter in [&self.gets, &self.heads, &self.others, &self.bytes, &self.connections] {
            counter.store(0, Relaxed);
        }
        for counter in &self.statuses {
            counter.store(0, Relaxed);
        }
        self.max_in_flight.store(self.in_flight.load(Relaxed), Relaxed);
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Some(())
    }

    fn stats(&self) -> String {
        let mut statuses = String::new();
        let names = STATUSES.iter().map(ToString::to_string).chain(["other".to_string()]);
        for (name, counter) in names.zip(&self.statuses) {
            let separator = if statuses.is_empty() { "" } else { ", " };
            // Writing to a string cannot fail.
            let _ = write!(statuses, "{separator}\"{name}\": {}", counter.load(Relaxed));
        }
        format!(
            "{{\"get\": {}, \"head\": {}, \"other\": {}, \"bytes\": {}, \"in_flight\": {}, \"max_in_flight\": {}, \
             \"new_connections\": {}, \"status\": {{{statuses}}}, \
             \"latency_ms\": {}, \"connect_ms\": {}, \"bandwidth\": {}}}\n",
            self.gets.load(Relaxed),
            self.heads.load(Relaxed),
            self.others.load(Relaxed),
            self.bytes.load(Relaxed),
            self.in_flight.load(Relaxed),
            self.max_in_flight.load(Relaxed),
            self.connections.load(Relaxed),
            self.latency_us.load(Relaxed) as f64 / 1e3,
            self.connect_us.load(Relaxed) as f64 / 1e3,
            self.bytes_per_s.load(Relaxed) as f64 / 1e6,
        )
    }

    fn log_line(&self, request: &Request, answered: &Answered) -> String {
        let plain = |c: char| if c.is_ascii_graphic() && c != '"' && c != '\\' { c } else { '?' };
        let (method, path) = (
            request.method.chars().map(plain).collect::<String>(),
            request.path.chars().map(plain).collect::<String>(),
        );
        format!(
            "{{\"ended_us\": {}, \"took_us\": {}, \"connection\": {}, \"method\": \"{method}\", \"path\": \"{path}\", \
             \"status\": {}, \"start\": {}, \"end\": {}, \"sent\": {}}}\n",
            self.started.elapsed().as_micros(),
            answered.took.as_micros(),
            answered.connection,
            answered.status,
            answered.start,
            answered.end,
            answered.sent,
        )
    }
}
