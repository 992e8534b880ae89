//! array -> array codecs that change elements: what turns stored elements into those of the array, resolved.
//!
//! Each names both of its data types, so that a chain of them needs no other knowledge. They work on the elements of a whole
//! chunk in stored order; one that looks at the place of an element in it ([`ElementStep::is_ordered`]) allows no codec
//! after it that moves elements.

use crate::dtype::DataType;

/// One such codec.
#[derive(Debug, Clone, PartialEq)]
pub struct ElementCodec {
    /// Its name in documents.
    pub name: &'static str,
    /// Type of an element before encoding.
    pub decoded: DataType,
    /// Type of an element after encoding.
    pub encoded: DataType,
    /// What decoding does.
    pub step: ElementStep,
}

/// What decoding does to the elements of a chunk.
#[derive(Debug, Clone, PartialEq)]
pub enum ElementStep {
    /// The other type, as C and numpy convert (numcodecs `astype`, `quantize`); nothing where it is the same (`bitround`).
    Cast,
    /// The other type, then the sum of all elements so far, which wraps around (numcodecs `delta`).
    Sum,
    /// `x / scale + offset` in floats, at least of the encoded type, then the other type (numcodecs `fixedscaleoffset`).
    FixedScaleOffset {
        /// Divisor.
        scale: f64,
        /// Added afterwards.
        offset: f64,
    },
    /// `x / scale + offset` in the one type; integers are rounded down and may not overflow (Zarr v3 `scale_offset`).
    ScaleOffset {
        /// One element, native byte order.
        scale: Vec<u8>,
        /// One element, native byte order.
        offset: Vec<u8>,
    },
    /// The other type, by rules (Zarr v3 `cast_value`).
    CastValue(CastSpec),
    /// One byte holds bits of several elements (both `packbits`).
    Unpack(BitPacking),
}

/// Rules of `cast_value` for decoding.
#[derive(Debug, Clone, PartialEq)]
pub struct CastSpec {
    /// How floats become integers.
    pub rounding: Rounding,
    /// What becomes of a value that the type does not have.
    pub out_of_range: OutOfRange,
    /// Elements that become others, (encoded, decoded), native byte order; they come before the rules.
    pub map: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Ways to round to an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest, of two the even one.
    NearestEven,
    /// To the nearest, of two the one further from zero.
    NearestAway,
    /// Towards zero.
    TowardsZero,
    /// Up.
    TowardsPositive,
    /// Down.
    TowardsNegative,
}

/// What becomes of a value that a type does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutOfRange {
    /// An error.
    Refuse,
    /// The nearest value there is.
    Clamp,
    /// The integer with the same low bits.
    Wrap,
}

/// How the bits of elements lie in bytes. A complex number has two components, all else one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitPacking {
    /// Whether the first bit of a byte is its highest (numcodecs, bools only) or its lowest.
    pub high_first: bool,
    /// Where a byte says how many bits of the last byte belong to no element.
    pub padding: PaddingByte,
    /// The lowest bit of a component that is stored.
    pub first_bit: u32,
    /// The highest bit of a component that is stored. Those above are copies of it in signed integers, otherwise 0.
    pub last_bit: u32,
}

/// Place of the byte that counts padding bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaddingByte {
    /// There is none.
    None,
    /// The first byte.
    First,
    /// The last byte.
    Last,
}

impl BitPacking {
    /// Bits that one element takes.
    #[must_use]
    pub fn element_bits(&self, dtype: &DataType) -> u64 {
        u64::from(self.last_bit - self.first_bit + 1) * if matches!(dtype, DataType::Complex(_)) { 2 } else { 1 }
    }
}

impl ElementStep {
    /// True when it looks at the place of elements in the chunk.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        matches!(self, Self::Sum | Self::Unpack(_))
    }
}

impl ElementCodec {
    /// True when stored elements are those of the array.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.step == ElementStep::Cast && self.decoded == self.encoded
    }

    /// Bytes that `count` elements take when encoded; None when that is more than a `u64` holds.
    #[must_use]
    pub fn encoded_nbytes(&self, count: u64) -> Option<u64> {
        match &self.step {
            ElementStep::Unpack(packing) => {
                let bits = count.checked_mul(packing.element_bits(&self.decoded))?;
                Some(bits.div_ceil(8) + u64::from(packing.padding != PaddingByte::None))
            }
            _ => count.checked_mul(self.encoded.item_size() as u64),
        }
    }
}
