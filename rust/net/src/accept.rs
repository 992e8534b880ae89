//! Replies that are exactly what was asked for, as almost all are: they need nobody's look but this one.
//!
//! What is not accepted here is not refused: it goes to whoever asked, who knows what servers mean (the judge in
//! `voxfetch.store.verify`, of whose rules these are the part without an exception). RFC 9110, sections 8.8 and 14.4.

use crate::{Bytes, Head, Reply};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which bytes.
    pub part: Part,
    /// Strong ETag that the object must have.
    pub if_match: Option<String>,
}

/// Bytes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// From `start` to before `end`.
    Range {
        /// The first.
        start: u64,
        /// After the last.
        end: u64,
    },
    /// The last so many, or all if there are fewer.
    Suffix(u64),
    /// All, at most so many.
    Whole(u64),
}

/// What a reply says of its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Place of the first byte in the object.
    pub start: u64,
    /// Bytes of the object, if the server says it.
    pub total: Option<u64>,
    /// The ETag, if it is a strong one.
    pub etag: Option<String>,
    /// The Last-Modified header.
    pub modified: Option<String>,
}

impl Wanted {
    /// What the reply says of its body if that is exactly what was asked for; else the reply.
    pub(crate) fn accept(&self, reply: Reply) -> Result<(Accepted, Bytes), Reply> {
        let Some(body) = reply.body.as_ref() else { return Err(reply) };
        let Some(accepted) = self.accepted(&reply.head, body.as_ref().len() as u64) else { return Err(reply) };
        match reply.body {
            Some(body) => Ok((accepted, body)),
            None => Err(reply),
        }
    }

    fn accepted(&self, head: &Head, nbytes: u64) -> Option<Accepted> {
        let header = |name| head.headers.iter().find(|header| header.0 == name).map(|header| header.1.as_str());
        let etag = header("etag");
        let is_plain = header("content-encoding").is_none_or(|value| matches!(value, "" | "identity"));
        let is_version = self.if_match.as_deref().is_none_or(|wanted| etag == Some(wanted));
        let is_length = header("content-length").is_none_or(|value| number(value) == Some(nbytes));
        if !(is_plain && is_version && is_length) {
            return None;
        }
        let (start, total) = match self.part {
            Part::Whole(most) => (head.status == 200 && nbytes <= most).then_some((0, Some(nbytes)))?,
            part => {
                let (start, end, total) = content_range(header("content-range").filter(|_| head.status == 206)?)?;
                let is_wanted = match part {
                    Part::Range { start: first, end: last } => (start, end) == (first, last),
                    Part::Suffix(wanted) => (start, Some(end)) == (total?.saturating_sub(wanted), total),
                    Part::Whole(_) => false,
                };
                (is_wanted && end - start == nbytes).then_some((start, total))?
            }
        };
        let etag = etag.filter(|etag| is_strong(etag)).map(ToOwned::to_owned);
        Some(Accepted { start, total, etag, modified: header("last-modified").map(ToOwned::to_owned) })
    }
}

/// `bytes first-last/total` as (first, last + 1, total).
fn content_range(value: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let total = if total == "*" { None } else { Some(number(total)?) };
    (first <= last && total.is_none_or(|total| last < total)).then_some((first, last + 1, total))
}

/// Up to 18 digits and nothing else: every such number fits, and one more does.
fn number(digits: &str) -> Option<u64> {
    let all = (1..=18).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().ok()).flatten()
}

/// Whether an ETag is strong and no longer than one that is kept.
fn is_strong(etag: &str) -> bool {
    let is_allowed = |char| matches!(char, '\u{21}' | '\u{23}'..='\u{7e}' | '\u{80}'..='\u{ff}');
    let inner = etag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.is_some_and(|inner| inner.chars().count() <= 1024 && inner.chars().all(is_allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: u16, headers: &[(&'static str, &str)]) -> Head {
        Head { status, headers: headers.iter().map(|&(name, value)| (name, value.to_owned())).collect() }
    }

    fn wanted(part: Part) -> Wanted {
        Wanted { part, if_match: None }
    }

    const RANGE: Part = Part::Range { start: 10, end: 30 };

    #[test]
    fn the_reply_to_a_range() {
        let said = [("content-range", "bytes 10-29/100"), ("content-length", "20"), ("etag", "\"v\"")];
        let accepted = wanted(RANGE).accepted(&head(206, &said), 20).unwrap();
        assert_eq!(accepted, Accepted { start: 10, total: Some(100), etag: Some("\"v\"".into()), modified: None });
        let unknown = head(206, &[("content-range", "bytes 10-29/*"), ("last-modified", "noon")]);
        let accepted = wanted(RANGE).accepted(&unknown, 20).unwrap();
        assert_eq!(accepted, Accepted { start: 10, total: None, etag: None, modified: Some("noon".into()) });
    }

    #[test]
    fn the_end_of_an_object_and_all_of_it() {
        let long = head(206, &[("content-range", "bytes 80-99/100")]);
        assert_eq!(wanted(Part::Suffix(20)).accepted(&long, 20).unwrap().start, 80);
        let short = head(206, &[("content-range", "bytes 0-9/10")]);
        assert_eq!(wanted(Part::Suffix(20)).accepted(&short, 10).unwrap().start, 0);
        let whole = wanted(Part::Whole(20)).accepted(&head(200, &[("content-encoding", "identity")]), 20).unwrap();
        assert_eq!((whole.start, whole.total), (0, Some(20)));
    }

    #[test]
    fn whatever_is_not_exactly_that_is_left_to_whoever_asked() {
        let good = ("content-range", "bytes 10-29/100");
        for (status, headers, nbytes) in [
            (200, &[good][..], 20),
            (206, &[], 20),
            (206, &[good], 19),
            (206, &[good], 21),
            (206, &[good, ("content-length", "19")], 20),
            (206, &[good, ("content-length", "+20")], 20),
            (206, &[good, ("content-encoding", "gzip")], 20),
            (206, &[("content-range", "bytes 11-30/100")], 20),
            (206, &[("content-range", "bytes 10-29/29")], 20),
            (206, &[("content-range", "bytes 29-10/100")], 20),
            (206, &[("content-range", "bytes 10-29/-1")], 20),
            (206, &[("content-range", "bytes 10-29")], 20),
            (206, &[("content-range", "bytes */100")], 20),
            (206, &[("content-range", "bytes 10-18446744073709551615/*")], 20),
        ] {
            assert_eq!(wanted(RANGE).accepted(&head(status, headers), nbytes), None, "{status} {headers:?} {nbytes}");
        }
        let suffix = wanted(Part::Suffix(20));
        for range in ["bytes 80-99/*", "bytes 80-98/99", "bytes 79-98/100", "bytes 10-29/30"] {
            let accepted = suffix.accepted(&head(206, &[("content-range", range)]), 20);
            assert_eq!(accepted.is_some(), range == "bytes 10-29/30", "{range}");
        }
        assert_eq!(wanted(Part::Whole(19)).accepted(&head(200, &[]), 20), None);
        assert_eq!(wanted(Part::Whole(20)).accepted(&head(200, &[("content-encoding", "gzip")]), 20), None);
        assert_eq!(wanted(Part::Whole(20)).accepted(&head(204, &[]), 20), None);
    }

    #[test]
    fn only_the_version_asked_for_and_only_strong_etags() {
        let asked = Wanted { part: RANGE, if_match: Some("\"v\"".into()) };
        for etag in ["\"w\"", "W/\"v\"", "v", ""] {
            let reply = head(206, &[("content-range", "bytes 10-29/100"), ("etag", etag)]);
            assert_eq!(asked.accepted(&reply, 20), None, "{etag}");
            assert_eq!(wanted(RANGE).accepted(&reply, 20).unwrap().etag, (etag == "\"w\"").then(|| etag.to_owned()));
        }
        assert_eq!(asked.accepted(&head(206, &[("content-range", "bytes 10-29/100")]), 20), None);
    }
}
