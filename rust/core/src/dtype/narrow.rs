//! Numbers that numpy itself has not: integers of fewer than 8 bits, floats of machine learning (Zarr extensions,
//! data-types/{int4,bfloat16,float8_e4m3fn,...}). An element takes whole bytes, whose upper bits do not matter.

use super::FloatFormat;
use super::float::Special;

/// A number type by the name that Zarr v3 and the Python package `ml_dtypes` have for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Narrow {
    /// The name.
    pub name: &'static str,
    /// What it is.
    pub form: Form,
}

/// What the bits of a number mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A signed integer of so many bits.
    Int(u8),
    /// An unsigned integer of so many bits.
    UInt(u8),
    /// A float.
    Float(FloatFormat),
}

const fn float(name: &'static str, bits: u8, mantissa: u8, bias: i64, special: Special) -> Narrow {
    Narrow { name, form: Form::Float(FloatFormat { bits, mantissa, bias, special }) }
}

const NARROW: [Narrow; 16] = [
    Narrow { name: "int2", form: Form::Int(2) },
    Narrow { name: "int4", form: Form::Int(4) },
    Narrow { name: "uint2", form: Form::UInt(2) },
    Narrow { name: "uint4", form: Form::UInt(4) },
    float("bfloat16", 16, 7, 127, Special::Ieee),
    float("float8_e3m4", 8, 4, 3, Special::Ieee),
    float("float8_e4m3", 8, 3, 7, Special::Ieee),
    float("float8_e4m3b11fnuz", 8, 3, 11, Special::NegativeZero),
    float("float8_e4m3fn", 8, 3, 7, Special::Nan),
    float("float8_e4m3fnuz", 8, 3, 8, Special::NegativeZero),
    float("float8_e5m2", 8, 2, 15, Special::Ieee),
    float("float8_e5m2fnuz", 8, 2, 16, Special::NegativeZero),
    float("float8_e8m0fnu", 8, 0, 127, Special::Unsigned),
    float("float6_e2m3fn", 6, 3, 1, Special::None),
    float("float6_e3m2fn", 6, 2, 3, Special::None),
    float("float4_e2m1fn", 4, 1, 1, Special::None),
];

impl Narrow {
    /// The type of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        NARROW.into_iter().find(|narrow| narrow.name == name)
    }

    /// Bits that matter, of 2, 4, 6, 8 or 16.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self.form {
            Form::Int(bits) | Form::UInt(bits) => bits,
            Form::Float(format) => format.bits,
        }
    }
}
