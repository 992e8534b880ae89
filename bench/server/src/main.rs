//! Serves the files of a folder over HTTP/1.1 with the delays of a distant store, and counts what it was asked.
//!
//! ```text
//! usage: range-server FOLDER [--port N] [--exit-with-stdin]
//! ```
//!
//! Listens on 127.0.0.1 and prints `{"port": N}`. `/PATH` is the file `FOLDER/PATH`; links are followed. So a client of
//! S3 that signs nothing and puts the bucket into the path is served as well: its bucket is the first folder.
//!
//! - GET, with `Range: bytes=a-b`, `bytes=a-`, `bytes=-n` (RFC 9110, 14.1.2); HEAD; `If-Match`, `If-None-Match`.
//! - The ETag is strong and made of inode, size and time of modification; `Last-Modified` is in whole seconds.
//! - `/_control/reset?latency_ms=L&connect_ms=C&bandwidth=B&log=1` sets the counters to zero and what is named: every
//!   reply begins L ms after its request, C ms later still if it is the first of its connection, and flows at B MB/s
//!   (10^6 bytes) a connection at most; 0 is no limit. What is not named stays.
//! - `/_control/stats` answers counters and settings as JSON, `/_control/log` the requests since the reset (with `log=1`)
//!   as one JSON object a line. Control requests are neither delayed nor counted, nor are connections that make no others.
//!
//! A thread a connection: a sleeping one delays nobody else. `connection` is the life of one, `http` the words of the
//! protocol as pure functions, `state` settings, counters and log.

mod connection;
mod http;
mod state;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use state::State;

/// Connections that may wait to be accepted. std asks for 128: of a burst of more, some would wait a whole second for
/// the second try of their first packet.
const BACKLOG: i32 = 4096;
/// Bytes of stack of a connection's thread; its buffers are on the heap.
const STACK_BYTES: usize = 128 << 10;
/// How long to wait for descriptors or threads when there are none.
const OUT_OF_RESOURCES: Duration = Duration::from_millis(5);

struct Options {
    folder: PathBuf,
    port: u16,
    exit_with_stdin: bool,
}

fn main() -> ExitCode {
    let Some(options) = options(std::env::args().skip(1)) else {
        eprintln!("usage: range-server FOLDER [--port N] [--exit-with-stdin]");
        return ExitCode::from(2);
    };
    match listen(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("range-server: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `None` where the command line is not understood.
fn options(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let (mut folder, mut port, mut exit_with_stdin) = (None, 0, false);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--port" => port = arguments.next()?.parse().ok()?,
            "--exit-with-stdin" => exit_with_stdin = true,
            name if !name.starts_with('-') && folder.is_none() => folder = Some(PathBuf::from(name)),
            _ => return None,
        }
    }
    Some(Options { folder: folder?, port, exit_with_stdin })
}

/// Accepts connections for ever.
fn listen(options: Options) -> std::io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port))?;
    lengthen_queue(&listener)?;
    println!("{{\"port\": {}}}", listener.local_addr()?.port());
    std::io::stdout().flush()?;
    if options.exit_with_stdin {
        thread::spawn(exit_with_stdin);
    }
    let (state, folder) = (Arc::new(State::default()), Arc::new(options.folder));
    for number in 0_u64.. {
        let accepted = listener.accept().and_then(|(stream, _)| {
            let (state, folder) = (Arc::clone(&state), Arc::clone(&folder));
            thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
                // A client that went away is no news.
                let _ = connection::serve(&stream, &folder, &state, number);
            })
        });
        if let Err(error) = accepted {
            eprintln!("range-server: a connection was lost: {error}");
            thread::sleep(OUT_OF_RESOURCES);
        }
    }
    Ok(())
}

/// Ends with the program that started this one, however that ends.
fn exit_with_stdin() {
    let mut ignored = [0; 64];
    while matches!(std::io::stdin().read(&mut ignored), Ok(read) if read > 0) {}
    std::process::exit(0);
}

fn lengthen_queue(listener: &TcpListener) -> std::io::Result<()> {
    unsafe extern "C" {
        fn listen(socket: i32, backlog: i32) -> i32;
    }
    // SAFETY: listen(2) takes two integers; the descriptor is open as long as the listener lives. Called on a socket
    // that listens already, it changes the length of the queue and nothing else.
    match unsafe { listen(listener.as_raw_fd(), BACKLOG) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
