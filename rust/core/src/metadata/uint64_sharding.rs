//! Which object holds a chunk of a sharded Neuroglancer precomputed volume: `neuroglancer_uint64_sharded_v1` (sharded.rst)
//! and the chunk ids of volumes, compressed Morton codes (volume.rst).

/// How chunk ids are spread over shards, and how shards are encoded (`neuroglancer_uint64_sharded_v1`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sharding {
    /// Low bits of an id that do not count, so that neighbours lie together; at most 64.
    pub preshift_bits: u32,
    /// What the other bits go through.
    pub hash: Hash,
    /// A shard has 2^this minishards; at most 32.
    pub minishard_bits: u32,
    /// There are 2^this shards; at most 64 less `minishard_bits`.
    pub shard_bits: u32,
    /// Whether the index of a minishard is stored with gzip.
    pub minishard_index_gzip: bool,
    /// Whether the bytes of a chunk, which have their encoding already, are stored with gzip.
    pub data_gzip: bool,
}

/// Hash function of a [`Sharding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// None.
    Identity,
    /// The low half of MurmurHash3_x86_128 with seed 0, of the 8 bytes, little-endian.
    Murmur3X86_128,
}

/// Bits that the coordinates along an axis of `cells` chunks take in a chunk id.
pub(super) fn code_bits(cells: u64) -> u32 {
    u64::BITS - cells.saturating_sub(1).leading_zeros()
}

/// Id of the chunk in a cell of a grid of three axes, the first of which gives the lowest bit: bits that are 0 in all
/// cells are left out. None when the grid needs more than 64 bits.
#[must_use]
pub fn compressed_morton(cell: &[u64], grid: &[u64]) -> Option<u64> {
    let widths = grid.iter().map(|&cells| code_bits(cells));
    if cell.len() != 3 || grid.len() != 3 || widths.clone().sum::<u32>() > u64::BITS {
        return None;
    }
    let (mut code, mut place) = (0, 0);
    for bit in 0..widths.clone().max()? {
        for (&coordinate, width) in cell.iter().zip(widths.clone()) {
            if bit < width {
                code |= ((coordinate >> bit) & 1) << place;
                place += 1;
            }
        }
    }
    Some(code)
}

/// As [`compressed_morton`], for a cell (x, y, z, ...) of a grid that has been found to fit.
#[must_use]
pub fn chunk_id(cell: &[u64], grid: &[u64; 3]) -> u64 {
    compressed_morton(cell.get(..3).unwrap_or_default(), grid).unwrap_or_default()
}

/// Where a chunk is to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Number of the shard.
    pub shard: u64,
    /// Number of the minishard in it.
    pub minishard: u64,
}

impl Sharding {
    /// Bytes of the index with which every shard begins: 16 a minishard.
    #[must_use]
    pub fn index_nbytes(&self) -> u64 {
        1u64.checked_shl(self.minishard_bits).map_or(u64::MAX, |minishards| minishards.saturating_mul(16))
    }

    /// The shard and minishard that have a chunk, if it is stored.
    #[must_use]
    pub fn place(&self, chunk_id: u64) -> Place {
        let id = shifted(chunk_id, self.preshift_bits);
        let hash = match self.hash {
            Hash::Identity => id,
            Hash::Murmur3X86_128 => murmur3_x86_128(id),
        };
        Place {
            shard: low_bits(shifted(hash, self.minishard_bits), self.shard_bits),
            minishard: low_bits(hash, self.minishard_bits),
        }
    }

    /// Name of a shard's object in the folder of its scale: lower-case hexadecimal digits, as many as the largest number
    /// has.
    #[must_use]
    pub fn key(&self, shard: u64) -> String {
        let digits = self.shard_bits.div_ceil(4).max(1) as usize;
        format!("{shard:0digits$x}.shard")
    }
}

/// `value >> bits`, also for 64 and more.
fn shifted(value: u64, bits: u32) -> u64 {
    value.checked_shr(bits).unwrap_or(0)
}

/// The lowest `bits` bits, also for 64 and more.
fn low_bits(value: u64, bits: u32) -> u64 {
    value & 1u64.checked_shl(bits).map_or(u64::MAX, |one| one - 1)
}

/// Low half of MurmurHash3_x86_128 with seed 0 of 8 bytes, little-endian (Austin Appleby, public domain). Of such a short
/// key only the two words that a last, incomplete block mixes into h1 and h2 are not nothing.
fn murmur3_x86_128(key: u64) -> u64 {
    const C1: u32 = 0x239b_961b;
    const C2: u32 = 0xab0e_9789;
    const C3: u32 = 0x38b3_4ae5;
    let (low, high) = (key as u32, (key >> 32) as u32);
    let k1 = low.wrapping_mul(C1).rotate_left(15).wrapping_mul(C2);
    let k2 = high.wrapping_mul(C2).rotate_left(16).wrapping_mul(C3);
    // Each word is mixed with the number of bytes; h3 and h4 are equal throughout.
    let (mut h1, mut h2, mut h3) = (k1 ^ 8, k2 ^ 8, 8u32);
    h1 = h1.wrapping_add(h2).wrapping_add(h3).wrapping_add(h3);
    h2 = h2.wrapping_add(h1);
    h3 = h3.wrapping_add(h1);
    let finish = |mut h: u32| {
        h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
        h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
        h ^ (h >> 16)
    };
    [h1, h2, h3] = [h1, h2, h3].map(finish);
    h1 = h1.wrapping_add(h2).wrapping_add(h3).wrapping_add(h3);
    h2 = h2.wrapping_add(h1);
    u64::from(h1) | u64::from(h2) << 32
}

#[cfg(test)]
mod tests {
    use super::{Hash, Place, Sharding, compressed_morton, murmur3_x86_128};

    fn sharding(preshift_bits: u32, hash: Hash, minishard_bits: u32, shard_bits: u32) -> Sharding {
        Sharding { preshift_bits, hash, minishard_bits, shard_bits, minishard_index_gzip: false, data_gzip: false }
    }

    #[test]
    fn axes_of_one_chunk_and_high_bits_of_short_axes_are_left_out() {
        let codes = |z: u64| (0..5).map(move |x| compressed_morton(&[x, 0, z], &[5, 1, 3]).unwrap());
        assert_eq!(codes(0).collect::<Vec<_>>(), [0, 1, 4, 5, 16]);
        assert_eq!(codes(1).collect::<Vec<_>>(), [2, 3, 6, 7, 18]);
        assert_eq!(codes(2).collect::<Vec<_>>(), [8, 9, 12, 13, 24]);
        // The hemibrain segmentation.
        assert_eq!(compressed_morton(&[537, 617, 646], &[538, 618, 647]), Some(948_508_451));
        assert_eq!(compressed_morton(&[269, 300, 323], &[538, 618, 647]), Some(118_556_389));
    }

    #[test]
    fn ids_of_64_bits_and_no_more() {
        let full = [(1u64 << 22) - 1, (1 << 21) - 1, (1 << 21) - 1];
        let grid = full.map(|last| last + 1);
        assert_eq!(compressed_morton(&full, &grid), Some(u64::MAX));
        assert_eq!(compressed_morton(&full, &[grid[0] + 1, grid[1], grid[2]]), None);
        assert_eq!(compressed_morton(&[u64::MAX - 1, 0, 0], &[u64::MAX, 1, 1]), Some(u64::MAX - 1));
        assert_eq!(compressed_morton(&[u64::MAX; 3], &[u64::MAX; 3]), None);
        assert_eq!(compressed_morton(&[0, 0, 0], &[1, 1, 1]), Some(0));
        assert_eq!(compressed_morton(&[0, 0], &[1, 1]), None);
        assert_eq!(compressed_morton(&[], &[]), None);
    }

    #[test]
    fn ids_of_a_grid_differ() {
        for grid in [[5u64, 3, 9], [1, 16, 7], [8, 8, 8], [17, 1, 2]] {
            let cells = (0..grid[0]).flat_map(|x| {
                (0..grid[1]).flat_map(move |y| (0..grid[2]).map(move |z| compressed_morton(&[x, y, z], &grid)))
            });
            let mut ids: Vec<u64> = cells.map(Option::unwrap).collect();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len() as u64, grid.iter().product::<u64>());
        }
    }

    #[test]
    fn murmur_hashes() {
        for (key, hash) in [
            (0, 0x4772_b084_e028_ae41),
            (1, 0xe8bd_67d6_16d4_ce9a),
            (42, 0xc20b_94f9_5119_f47a),
            (0x0123_4567_89ab_cdef, 0x7080_3626_4c10_9d93),
            (u64::MAX, 0x574f_66bd_212b_5d1a),
        ] {
            assert_eq!(murmur3_x86_128(key), hash, "{key:#x}");
        }
    }

    #[test]
    fn places_and_keys() {
        // The hemibrain segmentation.
        let hemibrain = sharding(9, Hash::Identity, 6, 15);
        assert_eq!(hemibrain.place(948_508_451), Place { shard: 0x7112, minishard: 11 });
        assert_eq!(hemibrain.place(118_556_389), Place { shard: 0x0e22, minishard: 3 });
        assert_eq!(hemibrain.key(0x7112), "7112.shard");
        assert_eq!(hemibrain.key(0x0e22), "0e22.shard");
        assert_eq!(hemibrain.index_nbytes(), 1024);
        // The hash of 1, as of 2 and 3 with one bit of them shifted out, ends in d4ce9a.
        let hashed = sharding(1, Hash::Murmur3X86_128, 4, 12);
        assert_eq!([2, 3].map(|id| hashed.place(id)), [Place { shard: 0xce9, minishard: 0xa }; 2]);
        for (bits, key) in
            [(0, "0.shard"), (1, "0.shard"), (4, "0.shard"), (5, "00.shard"), (64, "0000000000000000.shard")]
        {
            assert_eq!(sharding(0, Hash::Identity, 0, bits).key(0), key);
        }
        assert_eq!(sharding(0, Hash::Identity, 0, 64).key(u64::MAX), "ffffffffffffffff.shard");
    }

    #[test]
    fn places_at_the_limits() {
        let all = u64::MAX;
        assert_eq!(sharding(64, Hash::Identity, 3, 3).place(all), Place { shard: 0, minishard: 0 });
        assert_eq!(sharding(63, Hash::Identity, 3, 3).place(all), Place { shard: 0, minishard: 1 });
        assert_eq!(sharding(0, Hash::Identity, 0, 64).place(all), Place { shard: all, minishard: 0 });
        assert_eq!(sharding(0, Hash::Identity, 0, 0).place(all), Place { shard: 0, minishard: 0 });
        assert_eq!(sharding(0, Hash::Identity, 32, 32).place(all), Place { shard: all >> 32, minishard: all >> 32 });
        // Never written, but no reason to panic.
        assert_eq!(sharding(99, Hash::Identity, 64, 64).place(all), Place { shard: 0, minishard: 0 });
        assert_eq!(sharding(0, Hash::Identity, 60, 0).index_nbytes(), u64::MAX);
        assert_eq!(sharding(0, Hash::Identity, 64, 0).index_nbytes(), u64::MAX);
    }
}
