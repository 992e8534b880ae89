//! Numbers of every data type, in one form: what conversions between data types go through.

use crate::dtype::{DataType, half_bits, half_value};

/// A value of any real data type, exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    Int(i64),
    UInt(u64),
    Float(f64),
}

/// Elements of one data type, in native byte order.
pub(super) trait Number: Copy {
    /// Bytes of one.
    const NBYTES: usize;
    /// The one that `bytes` are; of another number of bytes: 0.
    fn load(bytes: &[u8]) -> Self;
    /// Writes itself into as many bytes.
    fn store(self, bytes: &mut [u8]);
    fn value(self) -> Value;
    /// The number that C and numpy make of `value`: integers keep their low bits, floats are rounded to the nearest, and
    /// cut where they become integers. Where C leaves the integer open, it is what x86-64 gives.
    fn cast(value: Value) -> Self;
    /// The sum, which wraps around; of bools, whether one is true.
    fn sum(self, other: Self) -> Self;
    /// `self / scale + offset`, of an integer in doubles and of a float in its own type.
    fn scaled(self, scale: f64, offset: f64) -> Value;
}

macro_rules! bytes {
    ($type:ty) => {
        const NBYTES: usize = size_of::<$type>();

        #[inline]
        fn load(bytes: &[u8]) -> Self {
            bytes
                .first_chunk()
                .map_or(<$type>::from_ne_bytes([0; size_of::<$type>()]), |bytes| <$type>::from_ne_bytes(*bytes))
        }

        #[inline]
        fn store(self, bytes: &mut [u8]) {
            if let Some(bytes) = bytes.first_chunk_mut() {
                *bytes = self.to_ne_bytes();
            }
        }
    };
}

macro_rules! integer {
    ($type:ty, $variant:ident($wide:ty), $from_float:expr) => {
        impl Number for $type {
            bytes!($type);

            #[inline]
            fn value(self) -> Value {
                Value::$variant(<$wide>::from(self))
            }

            #[inline]
            fn cast(value: Value) -> Self {
                match value {
                    Value::Int(value) => value as $type,
                    Value::UInt(value) => value as $type,
                    Value::Float(value) => $from_float(value) as $type,
                }
            }

            #[inline]
            fn sum(self, other: Self) -> Self {
                self.wrapping_add(other)
            }

            #[inline]
            fn scaled(self, scale: f64, offset: f64) -> Value {
                Value::Float(self as f64 / scale + offset)
            }
        }
    };
}

integer!(i8, Int(i64), to_i32);
integer!(i16, Int(i64), to_i32);
integer!(i32, Int(i64), to_i32);
integer!(i64, Int(i64), to_i64);
integer!(u8, UInt(u64), to_i32);
integer!(u16, UInt(u64), to_i32);
integer!(u32, UInt(u64), to_i64);
integer!(u64, UInt(u64), to_u64);

macro_rules! float {
    ($type:ty) => {
        impl Number for $type {
            bytes!($type);

            #[inline]
            fn value(self) -> Value {
                Value::Float(self.into())
            }

            #[inline]
            fn cast(value: Value) -> Self {
                match value {
                    Value::Int(value) => value as $type,
                    Value::UInt(value) => value as $type,
                    Value::Float(value) => value as $type,
                }
            }

            #[inline]
            fn sum(self, other: Self) -> Self {
                self + other
            }

            #[inline]
            fn scaled(self, scale: f64, offset: f64) -> Value {
                Value::Float((self / scale as $type + offset as $type).into())
            }
        }
    };
}

float!(f32);
float!(f64);

/// An IEEE half. Each operation is done in singles and rounded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Half(u16);

impl Half {
    fn single(self) -> f32 {
        half_value(self.0) as f32
    }
}

impl Number for Half {
    const NBYTES: usize = 2;

    fn load(bytes: &[u8]) -> Self {
        Self(u16::load(bytes))
    }

    fn store(self, bytes: &mut [u8]) {
        self.0.store(bytes);
    }

    fn value(self) -> Value {
        Value::Float(half_value(self.0))
    }

    fn cast(value: Value) -> Self {
        Self(half_bits(f64::cast(value)))
    }

    fn sum(self, other: Self) -> Self {
        Self::cast(Value::Float((self.single() + other.single()).into()))
    }

    fn scaled(self, scale: f64, offset: f64) -> Value {
        let [scale, offset] = [scale, offset].map(|number| Self::cast(Value::Float(number)));
        Self::cast(Value::Float((self.single() / scale.single()).into())).sum(offset).value()
    }
}

/// A bool of one byte.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bit(u8);

impl Number for Bit {
    const NBYTES: usize = 1;

    fn load(bytes: &[u8]) -> Self {
        Self(u8::load(bytes))
    }

    fn store(self, bytes: &mut [u8]) {
        self.0.store(bytes);
    }

    fn value(self) -> Value {
        Value::UInt(u64::from(self.0 != 0))
    }

    fn cast(value: Value) -> Self {
        Self(u8::from(!matches!(value, Value::Int(0) | Value::UInt(0) | Value::Float(0.0))))
    }

    fn sum(self, other: Self) -> Self {
        Self(u8::from(self.0 != 0 || other.0 != 0))
    }

    fn scaled(self, scale: f64, offset: f64) -> Value {
        u8::from(self.0 != 0).scaled(scale, offset)
    }
}

fn to_i32(value: f64) -> i32 {
    let whole = value.trunc();
    if whole >= f64::from(i32::MIN) && whole <= f64::from(i32::MAX) { whole as i32 } else { i32::MIN }
}

fn to_i64(value: f64) -> i64 {
    // 2^63 and -2^63 are doubles.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if (-LIMIT..LIMIT).contains(&value) { value as i64 } else { i64::MIN }
}

fn to_u64(value: f64) -> u64 {
    if value >= 9_223_372_036_854_775_808.0 { value as u64 } else { to_i64(value) as u64 }
}

/// Evaluates an expression for the type of Rust that a data type is; `$other` for one that is no number.
macro_rules! with_number {
    ($dtype:expr, $T:ident => $then:expr, $other:expr) => {
        match $dtype {
            $crate::dtype::DataType::Bool => {
                type $T = $crate::codec::number::Bit;
                $then
            }
            $crate::dtype::DataType::Int(1) => {
                type $T = i8;
                $then
            }
            $crate::dtype::DataType::Int(2) => {
                type $T = i16;
                $then
            }
            $crate::dtype::DataType::Int(4) => {
                type $T = i32;
                $then
            }
            $crate::dtype::DataType::Int(8) => {
                type $T = i64;
                $then
            }
            $crate::dtype::DataType::UInt(1) => {
                type $T = u8;
                $then
            }
            $crate::dtype::DataType::UInt(2) => {
                type $T = u16;
                $then
            }
            $crate::dtype::DataType::UInt(4) => {
                type $T = u32;
                $then
            }
            $crate::dtype::DataType::UInt(8) => {
                type $T = u64;
                $then
            }
            $crate::dtype::DataType::Float(2) => {
                type $T = $crate::codec::number::Half;
                $then
            }
            $crate::dtype::DataType::Float(4) => {
                type $T = f32;
                $then
            }
            $crate::dtype::DataType::Float(8) => {
                type $T = f64;
                $then
            }
            _ => $other,
        }
    };
}
pub(super) use with_number;

/// Smallest and largest value of an integer type; None of another.
pub(super) fn integer_range(dtype: &DataType) -> Option<(i128, i128)> {
    match dtype {
        DataType::Int(n) => Some((-(1 << (u32::from(*n) * 8 - 1)), (1 << (u32::from(*n) * 8 - 1)) - 1)),
        DataType::UInt(n) => Some((0, (1 << (u32::from(*n) * 8)) - 1)),
        _ => None,
    }
}
