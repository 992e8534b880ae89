//! The life of one connection: request, wait, reply, next request.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::http::{self, Request, Wanted};
use crate::state::{Answered, State};

const HEAD_BYTES_MAX: usize = 64 << 10;
/// A body is read and written in pieces of this size, the first together with the head. Over loopback that is twice as
/// fast as sendfile(2), which hands over single pages.
const PIECE_BYTES: u64 = 128 << 10;
/// Pieces of a body whose speed is limited are smaller, so that its bytes trickle rather than jump.
const PACED_PIECE_BYTES: u64 = 32 << 10;

/// A reply before it is sent: `headers` are whole lines, without `Content-Length`; `length` is what that says.
struct Reply {
    status: u16,
    headers: String,
    length: u64,
    body: Body,
}

enum Body {
    /// None, whatever the length: of HEAD, of errors.
    Nothing,
    Text(String),
    /// Bytes `start <= i < end` of a file.
    Part(File, u64, u64),
}

/// Serves until the client closes, or asks to.
///
/// # Errors
/// What the socket or a file raised; the connection is to be dropped then.
pub fn serve(stream: &TcpStream, folder: &Path, state: &State, number: u64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut input, mut output) = (Vec::new(), Vec::new());
    let mut first = true;
    while let Some(length) = next_head(stream, &mut input)? {
        let arrived = Instant::now();
        let head: Vec<u8> = input.drain(..length).collect();
        let Some(request) = Request::parse(&head) else {
            return send(stream, error(400), true, arrived, 0, &mut output).map(|_| ());
        };
        if let Some(told) = state.control(&request) {
            let headers = "Content-Type: application/json\r\n".to_string();
            let length = told.body.len() as u64;
            let reply = Reply { status: told.status, headers, length, body: Body::Text(told.body) };
            send(stream, reply, request.close, arrived, 0, &mut output)?;
        } else {
            let delay = state.begin(&request, first);
            first = false;
            let reply = reply_to(&request, folder);
            let (status, (start, end)) = (reply.status, reply.body.range());
            let due = arrived + delay.latency;
            let sent = send(stream, reply, request.close, due, delay.bytes_per_s, &mut output);
            let answered = sent.as_ref().ok().map(|sent| {
                let took = arrived.elapsed();
                Answered { connection: number, status, start, end, sent: *sent, took }
            });
            state.end(&request, answered.as_ref());
            sent?;
        }
        if request.close {
            return Ok(());
        }
    }
    Ok(())
}

/// Reads until `input` starts with a whole head; its length, or `None` at the end of the stream.
fn next_head(mut stream: &TcpStream, input: &mut Vec<u8>) -> io::Result<Option<usize>> {
    let mut bytes = [0; 4096];
    loop {
        if let Some(length) = http::head_length(input) {
            return Ok(Some(length));
        }
        if input.len() > HEAD_BYTES_MAX {
            return Err(ErrorKind::InvalidData.into());
        }
        match stream.read(&mut bytes)? {
            0 => return Ok(None),
            read => input.extend_from_slice(bytes.get(..read).unwrap_or_default()),
        }
    }
}

fn reply_to(request: &Request, folder: &Path) -> Reply {
    if request.method != "GET" && request.method != "HEAD" {
        return error(405);
    }
    let Some(path) = http::file_of(folder, request.path) else { return error(404) };
    let opened = File::open(path).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
    let (file, metadata) = match opened {
        Ok(opened) if opened.1.is_file() => opened,
        Err(reason) if reason.kind() == ErrorKind::PermissionDenied => return error(403),
        _ => return error(404),
    };
    let etag = etag_of(&metadata);
    let modified = http::date(metadata.mtime().try_into().unwrap_or(0));
    let mut headers = format!(
        "Content-Type: application/octet-stream\r\nAccept-Ranges: bytes\r\nETag: {etag}\r\nLast-Modified: {modified}\r\n"
    );
    let without_body = |status, headers, length| Reply { status, headers, length, body: Body::Nothing };
    if request.if_match.is_some_and(|tags| !http::names(tags, &etag)) {
        return without_body(412, headers, 0);
    }
    if request.if_none_match.is_some_and(|tags| http::names(tags, &etag)) {
        return without_body(304, headers, 0);
    }
    let size = metadata.len();
    if request.method == "HEAD" {
        return without_body(200, headers, size);
    }
    let (status, start, end) = match http::wanted(request.range, size) {
        Wanted::Whole => (200, 0, size),
        Wanted::Part(start, end) => {
            headers += &format!("Content-Range: bytes {start}-{}/{size}\r\n", end - 1);
            (206, start, end)
        }
        Wanted::Nothing => {
            headers += &format!("Content-Range: bytes */{size}\r\n");
            return without_body(416, headers, 0);
        }
    };
    Reply { status, headers, length: end - start, body: Body::Part(file, start, end) }
}

fn error(status: u16) -> Reply {
    Reply { status, headers: String::new(), length: 0, body: Body::Nothing }
}

fn etag_of(metadata: &Metadata) -> String {
    format!("\"{:x}-{:x}-{:x}.{:x}\"", metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

impl Body {
    /// Bytes of the object, half-open; (0, 0) without one.
    fn range(&self) -> (u64, u64) {
        match self {
            Body::Part(_, start, end) => (*start, *end),
            _ => (0, 0),
        }
    }
}

/// Sends a reply when it is due, its body at `bytes_per_s` at most (0: no limit); the bytes of that body. `output` is
/// scratch. What a distant server would do before its first byte is done by then: it shares the machine with the reader.
fn send(
    mut stream: &TcpStream,
    reply: Reply,
    close: bool,
    due: Instant,
    bytes_per_s: u64,
    output: &mut Vec<u8>,
) -> io::Result<u64> {
    let reason = match reply.status {
        200 => "OK",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        412 => "Precondition Failed",
        _ => "Range Not Satisfiable",
    };
    output.clear();
    // As a bucket whose objects pages of other sites may read.
    let open = "Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: *\r\n";
    write!(output, "HTTP/1.1 {} {reason}\r\n{open}{}", reply.status, reply.headers)?;
    if reply.status != 304 {
        write!(output, "Content-Length: {}\r\n", reply.length)?;
    }
    output.extend_from_slice(if close { b"Connection: close\r\n\r\n" } else { b"\r\n" });
    let (file, start, end) = match reply.body {
        Body::Part(file, start, end) => (file, start, end),
        Body::Text(text) => {
            output.extend_from_slice(text.as_bytes());
            return stream.write_all(output).map(|()| text.len() as u64);
        }
        Body::Nothing => {
            sleep_until(due);
            return stream.write_all(output).map(|()| 0);
        }
    };
    let length = end - start;
    let begun = due.max(Instant::now());
    let mut at = start;
    while at < end {
        let piece = (end - at).min(if bytes_per_s == 0 { PIECE_BYTES } else { PACED_PIECE_BYTES });
        let kept = output.len();
        output.resize(kept + piece as usize, 0);
        file.read_exact_at(output.get_mut(kept..).unwrap_or_default(), at)?;
        at += piece;
        sleep_until(if bytes_per_s > 0 {
            // A piece is sent when its last byte is due.
            begun + Duration::from_secs_f64((at - start) as f64 / bytes_per_s as f64)
        } else {
            begun
        });
        stream.write_all(output)?;
        output.clear();
    }
    if length == 0 {
        sleep_until(due);
        stream.write_all(output)?;
    }
    Ok(length)
}

fn sleep_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        thread::sleep(left);
    }
}
