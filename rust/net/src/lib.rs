//! Many HTTP/1.1 GETs in flight on one thread of its own, over hyper, with TLS by rustls.
//!
//! [`Client::get`] takes a request up from any thread; the thread of the client sends it, reads as much of the reply as
//! [`Limits`] allow and says through `wake` that [`Client::take`] has something. What a reply means is not decided here,
//! unless it is exactly what was asked for and goes to a [`Landing`]: nothing is followed, decoded or tried again, but
//! for a kept connection that the server has left meanwhile.
//!
//! | module | what it knows |
//! |-|-|
//! | `accept` | which replies need no other look |
//! | `connect` | names, addresses, TLS; when to give up |
//! | `exchange` | one request and its reply |
//! | `fault` | what an error of the libraries below means |
//! | `memory` | what bodies are read into |

mod accept;
mod connect;
mod exchange;
mod fault;
mod memory;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

pub use accept::{Accepted, Part, Wanted};
use exchange::Connections;
pub use fault::{Failure, Kind};
pub use memory::Bytes;

/// The headers of a reply that [`Head`] holds, in lower case.
pub const HEADERS: [&str; 10] = [
    "content-encoding",
    "content-length",
    "content-range",
    "date",
    "etag",
    "last-modified",
    "location",
    "retry-after",
    "x-amz-bucket-region",
    "x-ms-error-code",
];

/// How many bytes of a body are read, by the status. One byte more is, to see that there are more.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of a 206.
    pub part: u64,
    /// Of a 200.
    pub whole: u64,
    /// Whether a 200 that does not say its length is left unread.
    pub sized: bool,
}

/// Where a body goes that is exactly what was asked for: what its [`Get`] wants, and who takes it on the client's thread.
pub struct Landing {
    /// What is asked for.
    pub wanted: Wanted,
    /// Takes token, what the reply says, and body.
    pub take: Arc<dyn Fn(u64, Accepted, Bytes) + Send + Sync>,
}

/// One GET.
pub struct Get {
    /// Names it.
    pub token: u64,
    /// Where to, http or https, percent-encoded.
    pub url: String,
    /// What is sent besides Host.
    pub headers: Vec<(String, String)>,
    /// What is read of the reply.
    pub limits: Limits,
    /// Where the body goes if it is exactly what was asked for; everything else, and all if None, goes to [`Client::take`].
    pub landing: Option<Landing>,
}

/// Status and headers of a reply, the latter as [`HEADERS`] names them; of several with one name, the first.
#[derive(Debug)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// Name and value.
    pub headers: Vec<(&'static str, String)>,
}

/// A reply: its body ends at the limit that its status has; None where its length is past that or unknown (see
/// [`Limits`]). Of a status other than 2xx the body is the start of an explanation.
#[derive(Debug)]
pub struct Reply {
    /// Status and headers.
    pub head: Head,
    /// The bytes.
    pub body: Option<Bytes>,
}

/// How a GET ended.
#[derive(Debug)]
pub struct Done {
    /// That of the [`Get`].
    pub token: u64,
    /// The reply, or why there is none.
    pub outcome: Result<Reply, Failure>,
}

enum Command {
    Get(Get),
    Cancel(u64),
    Close,
}

struct Shared {
    done: Mutex<Vec<Done>>,
    /// Whether `wake` was called and nobody has looked since.
    woken: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Shared {
    fn done(&self) -> MutexGuard<'_, Vec<Done>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, done: Done) {
        self.done().push(done);
        if !self.woken.swap(true, Ordering::AcqRel) {
            (self.wake)();
        }
    }
}

/// Connections of one process and the thread that serves them. Dropped in a forked child it does nothing.
pub struct Client {
    process: u32,
    shared: Arc<Shared>,
    commands: UnboundedSender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Client {
    /// Starts the thread. `idle` is how long a reply may stand still; `wake` is called on the thread.
    ///
    /// # Errors
    /// When the system gives no thread, or no descriptor to wait on.
    pub fn new(idle: Duration, wake: impl Fn() + Send + Sync + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { done: Mutex::default(), woken: AtomicBool::new(false), wake: Box::new(wake) });
        let (commands, inbox) = unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(8).build()?;
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("voxfetch-net".into()).spawn(move || {
            runtime.block_on(serve(inbox, &theirs, idle));
            // The system may still be looking up a name.
            runtime.shutdown_background();
        })?;
        Ok(Self { process: std::process::id(), shared, commands, thread: Mutex::new(Some(thread)) })
    }

    /// Takes a request up. After [`Client::close`] it never ends.
    pub fn get(&self, get: Get) {
        let _ = self.commands.send(Command::Get(get));
    }

    /// Drops a request and its connection; it may have ended already.
    pub fn cancel(&self, token: u64) {
        let _ = self.commands.send(Command::Cancel(token));
    }

    /// What has ended since the last call.
    pub fn take(&self) -> Vec<Done> {
        self.shared.woken.store(false, Ordering::Release);
        std::mem::take(&mut *self.shared.done())
    }

    /// Drops everything and waits for the end of the thread. A second call does nothing.
    pub fn close(&self) {
        if self.process != std::process::id() {
            return;
        }
        let _ = self.commands.send(Command::Close);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.process == std::process::id() {
            self.close();
            return;
        }
        // The thread is the parent's. Its channel has locks that may have been held at the fork.
        std::mem::forget(self.commands.clone());
        std::mem::forget(Arc::clone(&self.shared));
        std::mem::forget(self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// The requests that run, for whoever drops one.
#[derive(Default)]
struct Running(Mutex<HashMap<u64, AbortHandle>>);

impl Running {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, AbortHandle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the end of a request, even if that is a panic.
struct Telling {
    token: u64,
    landing: Option<Landing>,
    running: Arc<Running>,
    shared: Arc<Shared>,
}

impl Telling {
    fn tell(&self, outcome: Result<Reply, Failure>) {
        self.running.lock().remove(&self.token);
        let outcome = match (outcome, &self.landing) {
            (Ok(reply), Some(landing)) => match landing.wanted.accept(reply) {
                Ok((accepted, body)) => return (landing.take)(self.token, accepted, body),
                Err(reply) => Ok(reply),
            },
            (outcome, _) => outcome,
        };
        self.shared.end(Done { token: self.token, outcome });
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell(Err(Kind::Internal.into()));
        }
    }
}

async fn serve(mut inbox: UnboundedReceiver<Command>, shared: &Arc<Shared>, idle: Duration) {
    let connections = Arc::new(Connections::new(idle));
    let running: Arc<Running> = Arc::default();
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Get(mut get) => {
                let (token, landing, connections) = (get.token, get.landing.take(), Arc::clone(&connections));
                let telling = Telling { token, landing, running: Arc::clone(&running), shared: Arc::clone(shared) };
                let task = tokio::spawn(async move { telling.tell(connections.exchange(&get).await) });
                running.lock().insert(token, task.abort_handle());
            }
            Command::Cancel(token) => {
                if let Some(task) = running.lock().remove(&token) {
                    task.abort();
                }
            }
            Command::Close => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_the_end_of_its_request() {
        let shared = Arc::new(Shared { done: Mutex::default(), woken: AtomicBool::new(false), wake: Box::new(|| ()) });
        let telling = Telling { token: 3, landing: None, running: Arc::default(), shared: Arc::clone(&shared) };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let task = async move {
            let _telling = telling;
            panic!("on purpose");
        };
        assert!(runtime.block_on(runtime.spawn(task)).is_err());
        let done = shared.done();
        assert_eq!((done.len(), done[0].token), (1, 3));
        assert_eq!(done[0].outcome.as_ref().unwrap_err().kind, Kind::Internal);
    }
}
