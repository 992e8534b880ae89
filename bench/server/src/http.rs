//! The words of HTTP/1.1 (RFC 9110, RFC 9112) as far as a reader of objects uses them: request heads, ranges, entity
//! tags, dates, paths. Pure functions of bytes and numbers.

use std::path::{Component, Path, PathBuf};

const SECONDS_A_DAY: u64 = 86_400;

/// The head of a request. `path` is as sent, percent signs and all.
pub struct Request<'a> {
    /// As sent: `GET`, `HEAD` or anything else.
    pub method: &'a str,
    /// Before the question mark.
    pub path: &'a str,
    /// After it; empty without one.
    pub query: &'a str,
    pub range: Option<&'a str>,
    pub if_match: Option<&'a str>,
    pub if_none_match: Option<&'a str>,
    /// Whether the client wants the connection closed after the reply, or sends a body, which nobody here reads.
    pub close: bool,
}

/// Bytes of the head at the start of `bytes`, its empty line included; `None` while that has not arrived.
pub fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

impl<'a> Request<'a> {
    /// `None` for what is not a request of HTTP/1.x.
    pub fn parse(head: &'a [u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        if !version.starts_with("HTTP/1.") || words.next().is_some() {
            return None;
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let close = version == "HTTP/1.0";
        let mut request = Request { method, path, query, range: None, if_match: None, if_none_match: None, close };
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':')?;
            let value = value.trim();
            match name {
                _ if name.eq_ignore_ascii_case("range") => request.range = Some(value),
                _ if name.eq_ignore_ascii_case("if-match") => request.if_match = Some(value),
                _ if name.eq_ignore_ascii_case("if-none-match") => request.if_none_match = Some(value),
                _ if name.eq_ignore_ascii_case("connection") => request.close |= value.eq_ignore_ascii_case("close"),
                _ if name.eq_ignore_ascii_case("content-length") => request.close |= value != "0",
                _ if name.eq_ignore_ascii_case("transfer-encoding") => request.close = true,
                _ => {}
            }
        }
        Some(request)
    }

    /// The value of `name` in the query.
    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        self.query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, v)| v)
    }
}

/// What a `Range` asks of an object.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it, as a 200.
    Whole,
    /// Bytes `start <= i < end`, as a 206.
    Part(u64, u64),
    /// Nothing that is there: a 416.
    Nothing,
}

/// Lists of ranges and what is malformed are ignored, as the standard allows.
pub fn wanted(range: Option<&str>, size: u64) -> Wanted {
    let Some((first, last)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
        return Wanted::Whole;
    };
    let part = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(start), Ok(last)) if start <= last => (start, size.min(last.saturating_add(1))),
        (Ok(start), Err(_)) if last.is_empty() => (start, size),
        (Err(_), Ok(length)) if first.is_empty() => (size - length.min(size), size),
        _ => return Wanted::Whole,
    };
    if part.0 < part.1 { Wanted::Part(part.0, part.1) } else { Wanted::Nothing }
}

/// Whether a list of entity tags, or `*`, names the strong tag `etag` (quotes included).
pub fn names(tags: &str, etag: &str) -> bool {
    tags == "*" || tags.split(',').any(|tag| tag.trim() == etag)
}

/// The file a path names below `folder`. `None` for paths that lead out of it or cannot be decoded.
pub fn file_of(folder: &Path, path: &str) -> Option<PathBuf> {
    let decoded = percent_decoded(path)?;
    let relative = Path::new(decoded.trim_start_matches('/'));
    let inside = relative.components().all(|part| matches!(part, Component::Normal(_)));
    (inside && !decoded.ends_with('/')).then(|| folder.join(relative))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hexadecimal(rest.next()?)? << 4 | hexadecimal(rest.next()?)?,
            0 => return None,
            _ => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Seconds since 1970 as `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn date(seconds: u64) -> String {
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, second) = (seconds / SECONDS_A_DAY, seconds % SECONDS_A_DAY);
    let weekday = WEEKDAYS.iter().cycle().nth((days % 7) as usize).copied().unwrap_or_default();
    let (mut year, mut day) = (1970, days);
    while day >= days_in_year(year) {
        day -= days_in_year(year);
        year += 1;
    }
    let february = days_in_year(year) - 337;
    let mut month = "";
    for (name, length) in MONTHS.iter().zip([31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
        month = name;
        if day < length {
            break;
        }
        day -= length;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{weekday}, {:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT", day + 1)
}

fn days_in_year(year: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    365 + u64::from(leap)
}
