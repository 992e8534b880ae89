//! Grid coordinates of a stored object -> its key.

/// Grid coordinates -> key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyEncoding {
    /// Zarr v3 `default`: `c` and the coordinates joined by the separator; `c` alone for rank 0.
    Default {
        /// `/` or `.`.
        separator: char,
    },
    /// Zarr v2: the coordinates joined by the separator; `0` for rank 0.
    V2 {
        /// `.` or `/`.
        separator: char,
    },
    /// WKW: `z{Z}/y{Y}/x{X}.wkw` of the coordinates (channel, x, y, z).
    Wkw,
}

impl KeyEncoding {
    /// The key of one stored object, relative to the array.
    #[must_use]
    pub fn key(&self, coordinates: &[u64]) -> String {
        use std::fmt::Write as _;
        let mut key = String::with_capacity(4 + coordinates.len() * 4);
        let (separator, prefixed) = match *self {
            Self::Default { separator } => {
                key.push('c');
                (separator, true)
            }
            Self::V2 { separator } => (separator, false),
            Self::Wkw => {
                let [x, y, z] = [1, 2, 3].map(|axis| coordinates.get(axis).copied().unwrap_or_default());
                return format!("z{z}/y{y}/x{x}.wkw");
            }
        };
        for (axis, coordinate) in coordinates.iter().enumerate() {
            if prefixed || axis > 0 {
                key.push(separator);
            }
            // Writing to a String cannot fail.
            let _ = write!(key, "{coordinate}");
        }
        if key.is_empty() {
            key.push('0');
        }
        key
    }
}
