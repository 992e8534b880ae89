//! Stored elements <-> native ones: bytes of numbers reversed, bits that do not matter cleared.

use super::{DataType, Endian};

/// What is done to the bytes of each element, in place. Doing it again undoes it, but for cleared bits, which stay so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conversion {
    item_size: usize,
    /// Disjoint, ascending; empty when stored elements are native.
    steps: Vec<Step>,
}

/// One change of `count` units from byte `offset` of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    offset: usize,
    count: usize,
    change: Change,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Reverses the bytes of units of so many.
    Swap(usize),
    /// Clears all but the lowest bits of each byte.
    Mask(u8),
}

impl Step {
    fn nbytes(&self) -> usize {
        match self.change {
            Change::Swap(unit) => self.count * unit,
            Change::Mask(_) => self.count,
        }
    }

    fn apply(&self, bytes: &mut [u8]) {
        match self.change {
            Change::Swap(unit) => swap_bytes_in_place(bytes, unit),
            Change::Mask(mask) => bytes.iter_mut().for_each(|byte| *byte &= mask),
        }
    }
}

impl Conversion {
    /// The one between elements stored in byte order `endian` and native ones.
    #[must_use]
    pub fn new(dtype: &DataType, endian: Endian) -> Self {
        let mut conversion = Self { item_size: dtype.item_size(), steps: Vec::new() };
        conversion.add(dtype, endian, 0, 1);
        conversion
    }

    /// Adds what `repeats` elements from byte `offset` on need.
    fn add(&mut self, dtype: &DataType, endian: Endian, offset: usize, repeats: usize) {
        let change = match dtype {
            DataType::Record(record) => {
                for repeat in 0..repeats {
                    let mut at = offset + repeat * dtype.item_size();
                    for field in record.fields() {
                        self.add(&field.dtype, field.endian.unwrap_or(endian), at, field.count() as usize);
                        at += field.nbytes() as usize;
                    }
                }
                return;
            }
            DataType::Narrow(narrow) if narrow.bits() < 8 => Change::Mask((1 << narrow.bits()) - 1),
            _ if endian == Endian::NATIVE || dtype.swap_unit() == 1 => return,
            _ => Change::Swap(dtype.swap_unit()),
        };
        let mut step = Step { offset, count: 1, change };
        step.count = repeats * dtype.item_size() / step.nbytes();
        match self.steps.last_mut() {
            Some(last) if last.change == change && last.offset + last.nbytes() == offset => last.count += step.count,
            _ => self.steps.push(step),
        }
    }

    /// True when stored elements are native.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.steps.is_empty()
    }

    /// Bytes that have to be converted together.
    #[must_use]
    pub fn alignment(&self) -> usize {
        if self.is_none() { 1 } else { self.item_size.max(1) }
    }

    /// Converts whole elements.
    pub fn apply(&self, elements: &mut [u8]) {
        match self.steps.as_slice() {
            [] => {}
            // All of each element, and so all of them together.
            [step] if step.nbytes() == self.item_size => step.apply(elements),
            steps => {
                for element in elements.chunks_exact_mut(self.item_size.max(1)) {
                    for step in steps {
                        if let Some(bytes) = element.get_mut(step.offset..step.offset + step.nbytes()) {
                            step.apply(bytes);
                        }
                    }
                }
            }
        }
    }
}

/// Reverses the bytes of each unit of `unit` bytes; a rest shorter than a unit stays.
pub(crate) fn swap_bytes_in_place(bytes: &mut [u8], unit: usize) {
    // Known widths become vector shuffles.
    fn swap<const N: usize>(bytes: &mut [u8]) {
        let (units, _) = bytes.as_chunks_mut::<N>();
        units.iter_mut().for_each(|unit| unit.reverse());
    }
    match unit {
        0 | 1 => {}
        2 => swap::<2>(bytes),
        4 => swap::<4>(bytes),
        8 => swap::<8>(bytes),
        _ => bytes.chunks_exact_mut(unit).for_each(<[u8]>::reverse),
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, Conversion, Step, swap_bytes_in_place};
    use crate::dtype::{DataType, Endian, Field, Record};

    const FOREIGN: Endian = if cfg!(target_endian = "big") { Endian::Little } else { Endian::Big };

    fn field(dtype: DataType, shape: &[u64], endian: Option<Endian>) -> Field {
        Field { name: String::new(), dtype, shape: shape.to_vec(), endian }
    }

    fn converted(dtype: &DataType, endian: Endian, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        Conversion::new(dtype, endian).apply(&mut bytes);
        bytes
    }

    #[test]
    fn swapping_reverses_units_only() {
        let swapped = |bytes: &[u8], unit: usize| {
            let mut bytes = bytes.to_vec();
            swap_bytes_in_place(&mut bytes, unit);
            bytes
        };
        assert_eq!(swapped(&[1, 2, 3, 4, 5], 1), [1, 2, 3, 4, 5]);
        assert_eq!(swapped(&[1, 2, 3, 4, 5], 2), [2, 1, 4, 3, 5]);
        assert_eq!(swapped(&[1, 2, 3, 4, 5], 4), [4, 3, 2, 1, 5]);
        assert_eq!(swapped(&[1, 2, 3, 4, 5, 6, 7, 8], 8), [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(swapped(&[1, 2, 3, 4, 5, 6, 7], 3), [3, 2, 1, 6, 5, 4, 7]);
    }

    #[test]
    fn numbers_are_reversed_in_the_other_byte_order() {
        assert_eq!(converted(&DataType::Complex(8), FOREIGN, &[1, 2, 3, 4, 5, 6, 7, 8]), [4, 3, 2, 1, 8, 7, 6, 5]);
        assert_eq!(converted(&DataType::Raw(4), FOREIGN, &[1, 2, 3, 4]), [1, 2, 3, 4]);
        for dtype in [DataType::Complex(8), DataType::Raw(4)] {
            assert!(Conversion::new(&dtype, Endian::NATIVE).is_none());
        }
        let bfloat16 = DataType::narrow("bfloat16").unwrap();
        assert_eq!(converted(&bfloat16, FOREIGN, &[1, 2, 3, 4]), [2, 1, 4, 3]);
    }

    #[test]
    fn bits_that_do_not_matter_are_cleared() {
        for (name, mask) in [("int2", 3), ("uint4", 15), ("float6_e2m3fn", 63), ("float8_e5m2", 255)] {
            let dtype = DataType::narrow(name).unwrap();
            assert_eq!(converted(&dtype, Endian::NATIVE, &[0xff, 0x80]), [mask, 0x80 & mask], "{name}");
        }
    }

    #[test]
    fn fields_are_converted_each() {
        // u2 u2 i1 {u4 in its own order, U1}[2] i4[3 in native order]
        let inner = Record::new(vec![
            field(DataType::UInt(4), &[], Some(Endian::NATIVE)),
            field(DataType::FixedUtf32(1), &[], None),
        ]);
        let record = DataType::Record(Record::new(vec![
            field(DataType::UInt(2), &[], None),
            field(DataType::UInt(2), &[], None),
            field(DataType::Int(1), &[], None),
            field(DataType::Record(inner), &[2], None),
            field(DataType::Int(4), &[3], Some(FOREIGN)),
        ]));
        assert_eq!(record.item_size(), 2 + 2 + 1 + 2 * 8 + 12);
        let conversion = Conversion::new(&record, FOREIGN);
        let step = |offset, count, unit| Step { offset, count, change: Change::Swap(unit) };
        // The last inner field and the first of the three behind it are neighbours of one width.
        assert_eq!(conversion.steps, [step(0, 2, 2), step(9, 1, 4), step(17, 4, 4)]);
        assert_eq!(conversion.alignment(), 33);
        let bytes: Vec<u8> = (0..66).collect();
        let mut once = bytes.clone();
        conversion.apply(&mut once);
        assert_eq!(once[..13], [1, 0, 3, 2, 4, 5, 6, 7, 8, 12, 11, 10, 9]);
        assert_eq!(once[33 + 29..], [65, 64, 63, 62]);
        conversion.apply(&mut once);
        assert_eq!(once, bytes);
    }
}
