//! Data types and fill values.
//!
//! An element is `item_size` bytes; in memory always in native (little-endian) order. `swap_unit` is the size of the
//! units whose bytes are reversed in the other byte order (a complex number is two units, a raw element none).

mod conversion;
mod float;
mod narrow;
mod record;

pub use conversion::Conversion;
pub(crate) use conversion::swap_bytes_in_place;
pub use float::{FloatFormat, Special};
pub use narrow::{Form, Narrow};
pub use record::{Field, Record};

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
    /// A number that numpy itself has not.
    Narrow(Narrow),
    /// Uninterpreted bytes: Zarr v3 `r<bits>` and `raw_bytes`, Zarr v2 `|V<n>`.
    Raw(u32),
    /// Bytes padded with NUL: Zarr v3 `null_terminated_bytes`, Zarr v2 `|S<n>`.
    FixedBytes(u32),
    /// So many UTF-32 code units padded with NUL: Zarr v3 `fixed_length_utf32`, Zarr v2 `<U<n>`.
    FixedUtf32(u32),
    /// 8-byte integer counting a unit (numpy spelling, such as `ns` or `25s`): Zarr v3 `numpy.datetime64`, Zarr v2
    /// `<M8[unit]`.
    DateTime(String),
    /// Zarr v3 `numpy.timedelta64`, Zarr v2 `<m8[unit]`.
    TimeDelta(String),
    /// Several fields: Zarr v3 `struct`, Zarr v2 lists of fields.
    Record(Record),
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

    /// The number type of this name that numpy itself has not.
    #[must_use]
    pub fn narrow(name: &str) -> Option<Self> {
        Narrow::find(name).map(Self::Narrow)
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
            Self::Narrow(narrow) => usize::from(narrow.bits().div_ceil(8)),
            Self::Record(record) => record.nbytes() as usize,
        }
    }

    /// Bytes of the units that byte order reverses; 1 when byte order does not matter or fields differ in it.
    #[must_use]
    pub fn swap_unit(&self) -> usize {
        match self {
            Self::Bool | Self::Raw(_) | Self::FixedBytes(_) | Self::Record(_) | Self::Object => 1,
            Self::Narrow(_) => self.item_size(),
            Self::Int(n) | Self::UInt(n) | Self::Float(n) => *n as usize,
            Self::Complex(n) => *n as usize / 2,
            Self::FixedUtf32(_) => 4,
            Self::DateTime(_) | Self::TimeDelta(_) => 8,
        }
    }

    /// The numpy spelling in native byte order, such as `uint16`, `V3`, `S5`, `datetime64[ns]`; that of `ml_dtypes` where
    /// numpy has none; of a record only its size.
    #[must_use]
    pub fn numpy_name(&self) -> String {
        match self {
            Self::Bool => "bool".into(),
            Self::Int(n) => format!("int{}", *n as u32 * 8),
            Self::UInt(n) => format!("uint{}", *n as u32 * 8),
            Self::Float(n) => format!("float{}", *n as u32 * 8),
            Self::Complex(n) => format!("complex{}", *n as u32 * 8),
            Self::Narrow(narrow) => narrow.name.into(),
            Self::Record(record) => format!("V{}", record.nbytes()),
            Self::Raw(n) => format!("V{n}"),
            Self::FixedBytes(n) => format!("S{n}"),
            Self::FixedUtf32(n) => format!("U{n}"),
            Self::DateTime(unit) => format!("datetime64[{unit}]"),
            Self::TimeDelta(unit) => format!("timedelta64[{unit}]"),
            Self::Object => "object".into(),
        }
    }
}

/// A double rounded to IEEE half precision, ties to even. Of a NaN the highest bits stay.
pub(crate) fn half_bits(value: f64) -> u16 {
    let sign = u16::from(value.is_sign_negative()) << 15;
    if value.is_nan() {
        let payload = (value.to_bits() >> 42) as u16 & 0x3ff;
        return sign | 0x7c00 | if payload == 0 { 1 } else { payload };
    }
    FloatFormat::ieee(2).encode(value).map_or(sign | 0x7c00, |bits| bits as u16)
}

/// The double of the same value as an IEEE half.
pub(crate) fn half_value(bits: u16) -> f64 {
    let (exponent, fraction) = (bits >> 10 & 31, u64::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction as f64 * f64::from_bits((1023 - 24) << 52),
        31 => f64::from_bits(0x7ff << 52 | fraction << 42),
        _ => f64::from_bits((u64::from(exponent) + 1023 - 15) << 52 | fraction << 42),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::{half_bits, half_value};

    #[test]
    fn every_half_comes_back() {
        for bits in 0..=u16::MAX {
            assert_eq!(half_bits(half_value(bits)), bits, "{bits:#06x}");
        }
        assert_eq!(half_bits(f64::from_bits(0x7ff0_0000_0000_0001)), 0x7c01);
        assert_eq!([65520.0, -65520.0, f64::MAX].map(half_bits), [0x7c00, 0xfc00, 0x7c00]);
    }
}
