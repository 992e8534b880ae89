//! The client against servers that say a given text.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use voxfetch_net::{Client, Done, Failure, Get, Kind, Limits, Reply};

const LIMITS: Limits = Limits { part: 10, whole: 100, sized: false };
const IDLE: Duration = Duration::from_millis(300);

/// Answers the n-th request of all with the n-th text; an empty one closes the connection instead.
struct Server {
    url: String,
    connections: Arc<AtomicUsize>,
    requests: mpsc::Receiver<String>,
}

impl Server {
    fn new(replies: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/key", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let replies: Arc<Vec<String>> = Arc::new(replies.iter().map(|&reply| reply.to_owned()).collect());
        let number = Arc::new(AtomicUsize::new(0));
        let (sender, requests) = mpsc::channel();
        let count = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let (replies, number, sender) = (Arc::clone(&replies), Arc::clone(&number), sender.clone());
                thread::spawn(move || serve(stream.unwrap(), &replies, &number, &sender));
            }
        });
        Self { url, connections, requests }
    }
}

fn serve(mut stream: TcpStream, replies: &[String], number: &AtomicUsize, sender: &mpsc::Sender<String>) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(nbytes) = stream.read(&mut buffer) {
        if nbytes == 0 {
            return;
        }
        request.extend_from_slice(&buffer[..nbytes]);
        if !request.ends_with(b"\r\n\r\n") {
            continue;
        }
        sender.send(String::from_utf8(std::mem::take(&mut request)).unwrap()).unwrap();
        let reply = &replies[number.fetch_add(1, Ordering::SeqCst)];
        if reply.is_empty() {
            stream.shutdown(Shutdown::Both).unwrap();
            return;
        }
        stream.write_all(reply.as_bytes()).unwrap();
    }
}

struct Asking {
    client: Client,
    woken: mpsc::Receiver<()>,
}

impl Asking {
    fn new() -> Self {
        let (sender, woken) = mpsc::channel();
        let client = Client::new(IDLE, move || sender.send(()).unwrap_or(())).unwrap();
        Self { client, woken }
    }

    fn start(&self, token: u64, url: &str, limits: Limits) {
        let headers = vec![("range".to_owned(), "bytes=0-9".to_owned())];
        self.client.get(Get { token, url: url.to_owned(), headers, limits, landing: None });
    }

    fn done(&self) -> Vec<Done> {
        self.woken.recv_timeout(Duration::from_secs(20)).unwrap();
        self.client.take()
    }

    fn get(&self, url: &str, limits: Limits) -> Result<Reply, Failure> {
        self.start(7, url, limits);
        let mut done = self.done();
        assert_eq!((done.len(), done[0].token), (1, 7));
        done.remove(0).outcome
    }
}

fn body(reply: &str, limits: Limits) -> Option<Vec<u8>> {
    Asking::new().get(&Server::new(&[reply]).url, limits).unwrap().body.map(|body| body.as_ref().to_vec())
}

fn kind(reply: &str) -> (Kind, Option<u16>) {
    let failure = Asking::new().get(&Server::new(&[reply]).url, LIMITS).unwrap_err();
    (failure.kind, failure.status)
}

#[test]
fn a_reply_has_its_status_headers_and_body() {
    let server = Server::new(&["HTTP/1.1 206 X\r\nETag: \"a\"\r\nX-Else: b\r\nContent-Length: 3\r\n\r\nabc"]);
    let reply = Asking::new().get(&server.url, LIMITS).unwrap();
    assert_eq!((reply.head.status, reply.body.unwrap().as_ref()), (206, &b"abc"[..]));
    assert_eq!(reply.head.headers, [("content-length", "3".to_owned()), ("etag", "\"a\"".to_owned())]);
    let request = server.requests.recv().unwrap();
    assert!(request.starts_with("GET /key HTTP/1.1\r\nrange: bytes=0-9\r\nhost: 127.0.0.1:"), "{request}");
}

#[test]
fn bodies_end_at_their_limits() {
    assert_eq!(body("HTTP/1.1 206 X\r\nContent-Length: 11\r\n\r\n01234567890", LIMITS), None);
    let chunked = "Transfer-Encoding: chunked\r\n\r\nc\r\n0123456789ab\r\n0\r\n\r\n";
    assert_eq!(body(&format!("HTTP/1.1 206 X\r\n{chunked}"), LIMITS), Some(b"0123456789a".to_vec()));
    assert_eq!(body(&format!("HTTP/1.1 200 X\r\n{chunked}"), LIMITS), Some(b"0123456789ab".to_vec()));
    assert_eq!(body(&format!("HTTP/1.1 200 X\r\n{chunked}"), Limits { sized: true, ..LIMITS }), None);
    assert_eq!(body(&format!("HTTP/1.1 204 X\r\n{chunked}"), LIMITS), None);
    let huge = format!("HTTP/1.1 503 X\r\nContent-Length: 99999999\r\n\r\n{}", "z".repeat(1 << 17));
    assert_eq!(body(&huge, LIMITS), Some(vec![b'z'; 1 << 12]));
}

#[test]
fn a_length_that_is_not_met_allocates_little() {
    let limits = Limits { whole: u64::MAX, ..LIMITS };
    let reply = "HTTP/1.1 200 X\r\nConnection: close\r\nContent-Length: 999999999999999999\r\n\r\nabc";
    let failure = Asking::new().get(&Server::new(&[reply]).url, limits).unwrap_err();
    assert_eq!((failure.kind, failure.status), (Kind::Stalled, Some(200)));
}

#[test]
fn failures_are_told_apart() {
    assert_eq!(kind(""), (Kind::Closed, None));
    assert_eq!(kind("SSH-2.0-OpenSSH\r\n\r\n"), (Kind::NotHttp, None));
    assert_eq!(kind("HTTP/1.1 200 X\r\nContent-Le"), (Kind::Timeout, None));
    assert_eq!(kind("HTTP/1.1 206 X\r\nContent-Length: 5\r\n\r\nab"), (Kind::Stalled, Some(206)));
    let bad = "HTTP/1.1 206 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    assert_eq!(kind(bad).1, Some(206));
    let asking = Asking::new();
    let of = |url: &str| asking.get(url, LIMITS).unwrap_err();
    assert_eq!(of("ftp//x").kind, Kind::Url);
    assert_eq!(of("http://voxfetch.invalid/").kind, Kind::Name);
    let refused = of("http://127.0.0.1:1/");
    assert_eq!((refused.kind, refused.errno), (Kind::Connect, Some(111)));
}

#[test]
fn only_a_kept_connection_that_is_closed_is_tried_again() {
    const FINE: &str = "HTTP/1.1 206 X\r\nContent-Length: 1\r\n\r\na";
    let server = Server::new(&[FINE, "", FINE]);
    let asking = Asking::new();
    for _ in 0..2 {
        assert_eq!(asking.get(&server.url, LIMITS).unwrap().body.unwrap().as_ref(), b"a");
    }
    assert_eq!((server.requests.try_iter().count(), server.connections.load(Ordering::SeqCst)), (3, 2));
}

#[test]
fn a_request_that_is_dropped_ends_its_connection_and_no_other() {
    let server =
        Server::new(&["HTTP/1.1 206 X\r\nContent-Length: 5\r\n\r\nab", "HTTP/1.1 206 X\r\nContent-Length: 1\r\n\r\na"]);
    let asking = Asking::new();
    asking.start(1, &server.url, LIMITS);
    server.requests.recv_timeout(Duration::from_secs(20)).unwrap();
    asking.client.cancel(1);
    asking.client.cancel(99);
    assert_eq!(asking.get(&server.url, LIMITS).unwrap().body.unwrap().as_ref(), b"a");
    assert!(asking.woken.recv_timeout(2 * IDLE).is_err(), "the end of what was dropped is told");
}

#[test]
fn close_waits_for_nobody() {
    let server = Server::new(&["HTTP/1.1 206 X\r\nContent-Length: 5\r\n\r\nab"]);
    let client = Client::new(Duration::from_secs(60), || ()).unwrap();
    client.get(Get { token: 1, url: server.url.clone(), headers: Vec::new(), limits: LIMITS, landing: None });
    server.requests.recv_timeout(Duration::from_secs(20)).unwrap();
    let began = Instant::now();
    client.close();
    client.close();
    client.get(Get { token: 2, url: server.url, headers: Vec::new(), limits: LIMITS, landing: None });
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(client.take().is_empty());
}
