//! Byte ranges -> merged requests.
//!
//! Two neighbours are merged when the bytes between them are cheaper to read than another request is; a request is cut
//! before it passes a size, so that parts of a large region run in parallel and no body is held longer than needed.

use std::ops::Range;

use crate::subset::ByteRange;

/// When ranges are merged. Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merge {
    /// Largest gap between two ranges that is read with them.
    pub max_gap_bytes: u64,
    /// Size past which nothing more is added to a request. A single range may be larger.
    pub max_request_bytes: u64,
}

/// One merged range and the ranges in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Bytes to read.
    pub range: ByteRange,
    /// Positions of the ranges that it covers.
    pub members: Range<usize>,
}

/// Merges `ranges`, which are sorted by start and may overlap.
#[must_use]
pub fn coalesce(ranges: impl IntoIterator<Item = ByteRange>, merge: Merge) -> Vec<Request> {
    let mut requests: Vec<Request> = Vec::new();
    for (number, range) in ranges.into_iter().enumerate() {
        if let Some(last) = requests.last_mut() {
            let end = last.range.end.max(range.end);
            let near = range.start <= last.range.end.saturating_add(merge.max_gap_bytes);
            if range.end <= last.range.end || (near && end - last.range.start <= merge.max_request_bytes) {
                last.range.end = end;
                last.members.end = number + 1;
                continue;
            }
        }
        requests.push(Request { range, members: number..number + 1 });
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::{Merge, Request, coalesce};
    use crate::subset::ByteRange;
    use proptest::prelude::*;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange { start, end }
    }

    #[test]
    fn gaps_and_sizes_decide() {
        let merge = Merge { max_gap_bytes: 10, max_request_bytes: 100 };
        let ranges = [range(0, 20), range(30, 50), range(61, 70), range(70, 169), range(169, 500), range(180, 200)];
        assert_eq!(
            coalesce(ranges, merge),
            [
                Request { range: range(0, 50), members: 0..2 },
                Request { range: range(61, 70), members: 2..3 },
                Request { range: range(70, 169), members: 3..4 },
                Request { range: range(169, 500), members: 4..6 },
            ]
        );
    }

    proptest! {
        #[test]
        fn covers_every_range_within_the_limits(
            mut ranges in prop::collection::vec((0u64..10_000, 1u64..400), 0..60),
            gap in 0u64..300,
            size in 1u64..2_000,
        ) {
            ranges.sort_unstable();
            let ranges: Vec<_> = ranges.into_iter().map(|(start, len)| range(start, start + len)).collect();
            let requests = coalesce(ranges.iter().copied(), Merge { max_gap_bytes: gap, max_request_bytes: size });
            let mut next = 0;
            for request in &requests {
                prop_assert_eq!(request.members.start, next);
                next = request.members.end;
                let members = &ranges[request.members.clone()];
                prop_assert_eq!(request.range.start, members[0].start);
                prop_assert_eq!(request.range.end, members.iter().map(|m| m.end).max().unwrap());
                let largest = members.iter().map(ByteRange::len).max().unwrap();
                prop_assert!(request.range.len() <= size.max(largest));
                let mut end = members[0].end;
                for member in members {
                    prop_assert!(member.start <= end + gap);
                    end = end.max(member.end);
                }
            }
            prop_assert_eq!(next, ranges.len());
        }
    }
}
