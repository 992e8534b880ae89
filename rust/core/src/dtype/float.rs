//! Binary floats as formats: a number -> its bits.

/// Layout of a binary float: a sign bit (but for [`Special::Unsigned`]), exponent bits, mantissa bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloatFormat {
    /// Bits in all.
    pub bits: u8,
    /// Bits of the mantissa.
    pub mantissa: u8,
    /// What is added to an exponent to store it.
    pub bias: i64,
    /// Which bits are no numbers.
    pub special: Special,
}

/// The values of a format that are not finite, in the words of LLVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// As in IEEE 754: infinities and NaN have the largest exponent.
    Ieee,
    /// `fn`: no infinity; NaN is all ones behind the sign.
    Nan,
    /// `fnuz`: no infinity, no negative zero, whose bits are NaN.
    NegativeZero,
    /// `fn` of fewer than 8 bits: all bits are finite numbers.
    None,
    /// `fnu`: powers of two without sign or mantissa; NaN is all ones.
    Unsigned,
}

impl FloatFormat {
    /// IEEE 754 of `nbytes` bytes: 2, 4, or 8.
    #[must_use]
    pub fn ieee(nbytes: u8) -> Self {
        let (mantissa, bias) = match nbytes {
            2 => (10, 15),
            4 => (23, 127),
            _ => (52, 1023),
        };
        Self { bits: nbytes * 8, mantissa, bias, special: Special::Ieee }
    }

    fn sign(self) -> u64 {
        1 << (self.bits - 1)
    }

    /// The bits of NaN: positive, with the quiet bit alone where there is a choice. None when the format has none.
    #[must_use]
    pub fn nan(self) -> Option<u64> {
        match self.special {
            Special::Ieee => Some(self.infinity()? | 1 << (self.mantissa - 1)),
            Special::Nan => Some(self.sign() - 1),
            Special::NegativeZero => Some(self.sign()),
            Special::None => None,
            Special::Unsigned => Some(0xff),
        }
    }

    /// The bits of infinity; None when the format has none.
    #[must_use]
    pub fn infinity(self) -> Option<u64> {
        (self.special == Special::Ieee).then(|| self.sign() - (1 << self.mantissa))
    }

    /// The bits of minus infinity; None when the format has none.
    #[must_use]
    pub fn minus_infinity(self) -> Option<u64> {
        Some(self.infinity()? | self.sign())
    }

    /// The bits of `value`, rounded to nearest, ties to even. None when it rounds to no finite number, and for a number
    /// that is no power of two where there is nothing else.
    #[must_use]
    pub fn encode(self, value: f64) -> Option<u64> {
        if self.bits == 64 {
            return value.is_finite().then(|| value.to_bits());
        }
        let magnitude = value.abs();
        let exponent = (magnitude.to_bits() >> 52) as i64 - 1023;
        if self.special == Special::Unsigned {
            let stored = u64::try_from(exponent + self.bias).ok().filter(|&stored| stored < 0xff)?;
            return (value == f64::from_bits(((exponent + 1023) as u64) << 52)).then_some(stored);
        }
        // Subnormals share the spacing of the smallest normals.
        let exponent = exponent.max(1 - self.bias);
        let mantissa = i64::from(self.mantissa);
        if exponent > self.bias + 1 {
            return None;
        }
        let units_per_one = f64::from_bits(((1023 + mantissa - exponent) as u64) << 52);
        let units = (magnitude * units_per_one).round_ties_even() as u64;
        // A normal number has units of 2^mantissa or more: its leading one adds the last step of the exponent, as does a
        // carry.
        let bits = (((exponent + self.bias - 1) as u64) << self.mantissa) + units;
        let largest = match self.special {
            Special::Ieee => self.infinity()? - 1,
            Special::Nan => self.sign() - 2,
            _ => self.sign() - 1,
        };
        let sign = match value.is_sign_negative() {
            true if bits > 0 || self.special != Special::NegativeZero => self.sign(),
            _ => 0,
        };
        (bits <= largest).then_some(sign | bits)
    }
}

#[cfg(test)]
mod tests {
    use super::{FloatFormat, Special};
    use crate::dtype::{Form, Narrow};

    #[test]
    fn halves_round_to_nearest_even() {
        let table = [
            (0.0, 0x0000),
            (-0.0, 0x8000),
            (1.0, 0x3c00),
            (-2.5, 0xc100),
            (0.1, 0x2e66),
            (1.0 / 3.0, 0x3555),
            (2049.0, 0x6800),         // tie, down to even
            (2051.0, 0x6802),         // tie, up to even
            (2f64.powi(-14), 0x0400), // smallest normal
            (1023.0 / 1024.0 * 2f64.powi(-14), 0x03ff),
            (1023.5 / 1024.0 * 2f64.powi(-14), 0x0400), // subnormal that rounds up to it
            (2f64.powi(-24), 0x0001),                   // smallest subnormal
            (2f64.powi(-25), 0x0000),                   // tie, down to even
            (2f64.powi(-25) * 1.001, 0x0001),
            (1e-300, 0x0000),
            (65504.0, 0x7bff),
            (65519.9, 0x7bff),
        ];
        for (value, bits) in table {
            assert_eq!(FloatFormat::ieee(2).encode(value), Some(bits), "{value}");
        }
        for value in [65520.0, f64::MAX, -f64::MAX] {
            assert_eq!(FloatFormat::ieee(2).encode(value), None, "{value}");
        }
    }

    #[test]
    fn singles_round_as_the_machine_does() {
        for value in [0.1, -1e-40, 1e-46, 16_777_217.0, 3.402_823_466_385_288_6e38, f64::from(f32::MIN_POSITIVE) / 3.0]
        {
            assert_eq!(FloatFormat::ieee(4).encode(value), Some(u64::from((value as f32).to_bits())), "{value}");
        }
        assert_eq!(FloatFormat::ieee(4).encode(3.5e38), None);
    }

    /// The bits are those of the Python package ml_dtypes 0.6.0.
    #[test]
    fn narrow_floats() {
        let table = [
            ("bfloat16", 1.0, Some(0x3f80)),
            ("bfloat16", -3.15, Some(0xc04a)),
            ("bfloat16", 1e39, None),
            ("float8_e3m4", -1.0, Some(0xb0)),
            ("float8_e4m3", -1.0, Some(0xb8)),
            ("float8_e4m3", 240.0, Some(0x77)),
            ("float8_e4m3", 248.0, None), // rounds to infinity
            ("float8_e4m3fn", 448.0, Some(0x7e)),
            ("float8_e4m3fn", 465.0, None),
            ("float8_e4m3b11fnuz", -1.0, Some(0xd8)),
            ("float8_e4m3fnuz", -1.0, Some(0xc0)),
            ("float8_e4m3fnuz", -0.0, Some(0)),
            ("float8_e4m3fnuz", 240.0, Some(0x7f)),
            ("float8_e5m2", -1.0, Some(0xbc)),
            ("float8_e5m2fnuz", -1.0, Some(0xc0)),
            ("float8_e8m0fnu", 1.0, Some(127)),
            ("float8_e8m0fnu", 2f64.powi(-127), Some(0)),
            ("float8_e8m0fnu", 2f64.powi(127), Some(254)),
            ("float8_e8m0fnu", 2f64.powi(128), None),
            ("float8_e8m0fnu", 3.0, None),
            ("float8_e8m0fnu", 0.0, None),
            ("float8_e8m0fnu", -1.0, None),
            ("float6_e2m3fn", -1.0, Some(0x28)),
            ("float6_e2m3fn", 7.5, Some(0x1f)),
            ("float6_e2m3fn", 8.0, None),
            ("float6_e3m2fn", -1.0, Some(0x2c)),
            ("float4_e2m1fn", -1.0, Some(0x0a)),
            ("float4_e2m1fn", 6.0, Some(7)),
            ("float4_e2m1fn", -0.5, Some(9)),
        ];
        for (name, value, bits) in table {
            let Some(Narrow { form: Form::Float(format), .. }) = Narrow::find(name) else { panic!("{name}") };
            assert_eq!(format.encode(value), bits, "{name} {value}");
        }
        let special = |special| FloatFormat { bits: 8, mantissa: 3, bias: 7, special };
        assert_eq!(special(Special::Ieee).nan(), Some(0x7c));
        assert_eq!(special(Special::Ieee).minus_infinity(), Some(0xf8));
        assert_eq!(special(Special::Nan).nan(), Some(0x7f));
        assert_eq!(special(Special::NegativeZero).nan(), Some(0x80));
        assert_eq!(special(Special::Unsigned).nan(), Some(0xff));
        assert_eq!(special(Special::None).nan(), None);
        assert_eq!(special(Special::Nan).infinity(), None);
    }
}
