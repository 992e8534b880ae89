//! Integers of few bits, one after another in memory.

/// Integers of 0 to 63 bits at any bit.
#[derive(Debug)]
pub(super) struct Bits(Box<[u64]>);

impl Bits {
    /// Room for `nbits` bits, all zero.
    pub(super) fn zeros(nbits: usize) -> Self {
        // Two words more, so that every value lies in two: one of no bits may stand at the very end.
        Self(vec![0; nbits.div_ceil(64) + 2].into_boxed_slice())
    }

    /// The largest integer of `width` bits.
    pub(super) fn ones(width: u32) -> u64 {
        (1 << width) - 1
    }

    /// Bytes it takes.
    pub(super) fn nbytes(&self) -> usize {
        size_of_val(&*self.0)
    }

    /// Writes a value of at most `width` bits to place `at`, where nothing has been written yet.
    pub(super) fn set(&mut self, at: usize, width: u32, value: u64) {
        debug_assert!(value <= Self::ones(width));
        let (word, shift) = (at / 64, at % 64);
        self.0[word] |= value << shift;
        self.0[word + 1] |= value >> 1 >> (63 - shift);
    }

    /// The value of `width` bits at place `at`.
    pub(super) fn get(&self, at: usize, width: u32) -> u64 {
        let (word, shift) = (at / 64, at % 64);
        let value = self.0[word] >> shift | self.0[word + 1] << 1 << (63 - shift);
        value & Self::ones(width)
    }
}

#[cfg(test)]
mod tests {
    use super::Bits;

    #[test]
    fn values_of_every_width_come_back() {
        for width in 0..64u32 {
            let values: Vec<u64> =
                (0..200u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) & Bits::ones(width)).collect();
            let mut bits = Bits::zeros(values.len() * width as usize);
            for (place, &value) in values.iter().enumerate() {
                bits.set(place * width as usize, width, value);
            }
            for (place, &value) in values.iter().enumerate() {
                assert_eq!(bits.get(place * width as usize, width), value, "{width} {place}");
            }
            assert!(bits.nbytes() <= 200 * width as usize / 8 + 24);
        }
    }
}
