//! Any bytes as stored elements of any type for those of any other, through every step there is.
#![no_main]

mod chunk;

use libfuzzer_sys::fuzz_target;
use voxfetch_core::codec::fuzzing;
use voxfetch_core::dtype::DataType;
use voxfetch_core::metadata::{BitPacking, CastSpec, ElementCodec, ElementStep, OutOfRange, PaddingByte, Rounding};

fn dtype(number: u8) -> DataType {
    match number % 12 {
        0 => DataType::Bool,
        number @ 1..=4 => DataType::Int(1 << (number - 1)),
        number @ 5..=8 => DataType::UInt(1 << (number - 5)),
        number => DataType::Float(2 << (number - 9)),
    }
}

// Types and step, three settings, number of elements when bits are packed, two numbers, stored elements.
fuzz_target!(|input: ([u8; 3], [u8; 3], u8, [u8; 16], &[u8])| {
    let ([decoded, encoded, step], settings, count, numbers, stored) = input;
    let (decoded, mut encoded) = (dtype(decoded), dtype(encoded));
    let [one, other] =
        [&numbers[..8], &numbers[8..]].map(|bytes| f64::from_bits(u64::from_le_bytes(bytes.try_into().unwrap())));
    let rounding = [
        Rounding::NearestEven,
        Rounding::NearestAway,
        Rounding::TowardsZero,
        Rounding::TowardsPositive,
        Rounding::TowardsNegative,
    ];
    let step = match step % 6 {
        0 => ElementStep::Cast,
        1 => ElementStep::Sum,
        2 => ElementStep::FixedScaleOffset { scale: one, offset: other },
        3 => {
            encoded = decoded.clone();
            let bytes = |at: usize| numbers[at..at + decoded.item_size()].to_vec();
            ElementStep::ScaleOffset { scale: bytes(0), offset: bytes(8) }
        }
        4 => ElementStep::CastValue(CastSpec {
            rounding: rounding[usize::from(settings[0] % 5)],
            out_of_range: [OutOfRange::Refuse, OutOfRange::Clamp, OutOfRange::Wrap][usize::from(settings[1] % 3)],
            map: vec![(numbers[..encoded.item_size()].to_vec(), numbers[8..8 + decoded.item_size()].to_vec())],
        }),
        _ => {
            encoded = DataType::UInt(1);
            let bits = if decoded == DataType::Bool { 1 } else { decoded.item_size() as u32 * 8 };
            let first_bit = u32::from(settings[0]) % bits;
            ElementStep::Unpack(BitPacking {
                high_first: decoded == DataType::Bool && settings[1] & 1 == 1,
                padding: [PaddingByte::None, PaddingByte::First, PaddingByte::Last][usize::from(settings[2] % 3)],
                first_bit,
                last_bit: first_bit + u32::from(settings[1]) % (bits - first_bit),
            })
        }
    };
    let count = if let ElementStep::Unpack(_) = step { usize::from(count) } else { stored.len() / encoded.item_size() };
    let item_size = decoded.item_size();
    let codec = ElementCodec { name: "step", decoded, encoded, step };
    chunk::check([count, 1, 1, 1], item_size, |out| fuzzing::elements(std::slice::from_ref(&codec), stored, out));
});
