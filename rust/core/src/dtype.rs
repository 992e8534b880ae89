//! Data types and fill values.
//!
//! An element is `item_size` bytes; in memory always in native (little-endian) order. `swap_unit` is the size of the
//! units whose bytes are reversed in the other byte order (a complex number is two units, a raw element none).

/// Byte order of stored elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endian {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

impl Endian {
    /// Byte order of this machine.
    pub const NATIVE: Self = if cfg!(target_endian = "big") { Self::Big } else { Self::Little };
}

/// Type of one element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataType {
    /// One byte, 0 or 1.
    Bool,
    /// Signed integer of 1, 2, 4 or 8 bytes.
    Int(u8),
    /// Unsigned integer of 1, 2, 4 or 8 bytes.
    UInt(u8),
    /// IEEE 754 binary float of 2, 4 or 8 bytes.
    Float(u8),
    /// Two floats, real then imaginary, 8 or 16 bytes together.
    Complex(u8),
    /// Uninterpreted bytes: Zarr v3 `r<bits>`, Zarr v2 `|V<n>`.
    Raw(u32),
    /// Zarr v2 `|S<n>`: bytes padded with NUL.
    FixedBytes(u32),
    /// Zarr v2 `<U<n>`: `n` UTF-32 code units padded with NUL.
    FixedUtf32(u32),
    /// Zarr v2 `<M8[unit]`: 8-byte integer counting `unit` (numpy spelling, such as `ns` or `25s`).
    DateTime(String),
    /// Zarr v2 `<m8[unit]`.
    TimeDelta(String),
    /// Elements of no fixed size (Zarr v3 `string` and `bytes`, Zarr v2 `|O`), as numbers that stand for them: their codec
    /// knows what for (see [`foreign`](crate::metadata::foreign)).
    Object,
}

impl DataType {
    /// The number type of this name, which all formats spell alike, such as `uint16`.
    #[must_use]
    pub fn number(name: &str) -> Option<Self> {
        Some(match name {
            "int8" => Self::Int(1),
            "int16" => Self::Int(2),
            "int32" => Self::Int(4),
            "int64" => Self::Int(8),
            "uint8" => Self::UInt(1),
            "uint16" => Self::UInt(2),
            "uint32" => Self::UInt(4),
            "uint64" => Self::UInt(8),
            "float32" => Self::Float(4),
            "float64" => Self::Float(8),
            _ => return None,
        })
    }

    /// Bytes of one element.
    #[must_use]
    pub fn item_size(&self) -> usize {
        match self {
            Self::Bool => 1,
            Self::Int(n) | Self::UInt(n) | Self::Float(n) | Self::Complex(n) => *n as usize,
            Self::Raw(n) | Self::FixedBytes(n) => *n as usize,
            Self::FixedUtf32(n) => *n as usize * 4,
            Self::DateTime(_) | Self::TimeDelta(_) | Self::Object => 8,
        }
    }

    /// Bytes of the units that byte order reverses; 1 when byte order does not matter.
    #[must_use]
    pub fn swap_unit(&self) -> usize {
        match self {
            Self::Bool | Self::Raw(_) | Self::FixedBytes(_) | Self::Object => 1,
            Self::Int(n) | Self::UInt(n) | Self::Float(n) => *n as usize,
            Self::Complex(n) => *n as usize / 2,
            Self::FixedUtf32(_) => 4,
            Self::DateTime(_) | Self::TimeDelta(_) => 8,
        }
    }

    /// The numpy spelling in native byte order, such as `uint16`, `V3`, `S5`, `datetime64[ns]`.
    #[must_use]
    pub fn numpy_name(&self) -> String {
        match self {
            Self::Bool => "bool".into(),
            Self::Int(n) => format!("int{}", *n as u32 * 8),
            Self::UInt(n) => format!("uint{}", *n as u32 * 8),
            Self::Float(n) => format!("float{}", *n as u32 * 8),
            Self::Complex(n) => format!("complex{}", *n as u32 * 8),
            Self::Raw(n) => format!("V{n}"),
            Self::FixedBytes(n) => format!("S{n}"),
            Self::FixedUtf32(n) => format!("U{n}"),
            Self::DateTime(unit) => format!("datetime64[{unit}]"),
            Self::TimeDelta(unit) => format!("timedelta64[{unit}]"),
            Self::Object => "object".into(),
        }
    }
}
