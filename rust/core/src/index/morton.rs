//! Orders in which writers lay chunks into a shard: C, Fortran, and Morton with the first or the last axis lowest.
//!
//! Readers never rely on an order (the specification mandates none); it only makes an index smaller in memory and tells
//! a writer where to put chunks. The Morton code of a cell interleaves the bits of its coordinates; an axis of `n` cells
//! gives `ceil(log2 n)` bits.

use crate::subset::{MAX_RANK, product};

/// A bijection between the cells of a grid, numbered in C order, and their ranks in another order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// The C order itself.
    C,
    /// First axis fastest.
    F {
        /// Cells along each axis.
        grid: Box<[u64]>,
    },
    /// Interleaved bits; only for grids whose extents are powers of two, where codes have no holes.
    Morton {
        /// For each bit of a cell's number in C order, lowest first, its place in the rank.
        places: Box<[u8]>,
    },
}

impl Order {
    /// The orders that a writer of this grid may have used.
    pub fn candidates(grid: &[u64]) -> impl Iterator<Item = Self> {
        let several_axes = grid.iter().filter(|&&n| n > 1).count() > 1;
        let powers_of_two = grid.iter().all(|n| n.is_power_of_two());
        let mut orders = vec![Self::C];
        if several_axes && grid.len() <= MAX_RANK {
            if powers_of_two {
                let bits: Vec<u8> = grid.iter().map(|n| n.trailing_zeros() as u8).collect();
                orders.insert(0, Self::Morton { places: places(&bits, true) });
                orders.push(Self::Morton { places: places(&bits, false) });
            }
            orders.push(Self::F { grid: grid.into() });
        }
        orders.into_iter()
    }

    /// Rank of the cell whose number in C order is `cell`.
    #[must_use]
    pub fn rank(&self, cell: u64) -> u64 {
        match self {
            Self::C => cell,
            Self::F { grid } => {
                let mut rest = cell;
                let mut rank = 0u64;
                for &n in grid.iter().rev() {
                    // Digits of the C number come out last axis first, which is the F number's most significant first.
                    rank = rank.wrapping_mul(n).wrapping_add(rest % n.max(1));
                    rest /= n.max(1);
                }
                rank
            }
            Self::Morton { places } => {
                places.iter().enumerate().fold(0, |rank, (bit, &place)| rank | ((cell >> bit) & 1) << place)
            }
        }
    }
}

impl Order {
    /// Ranks of all cells, in C order.
    #[must_use]
    pub fn ranks(&self, grid: &[u64]) -> Vec<u64> {
        // In each of the orders the rank of a cell is the sum of what its coordinates give one by one.
        let mut ranks = vec![0];
        for (axis, &n) in grid.iter().enumerate() {
            let stride: u64 = grid[axis + 1..].iter().product();
            let of_axis: Vec<u64> = (0..n).map(|coordinate| self.rank(coordinate * stride)).collect();
            ranks = ranks.iter().flat_map(|before| of_axis.iter().map(move |own| before + own)).collect();
        }
        ranks
    }
}

/// `places` of an order on a grid of `1 << bits[axis]` cells along each axis; axis 0, else the last one, gives the lowest bit.
fn places(bits: &[u8], first_axis_lowest: bool) -> Box<[u8]> {
    let of_axis = |axis: usize| {
        (0..bits[axis]).map(move |bit| {
            let mut coordinates = [0u64; MAX_RANK];
            coordinates[axis] = 1 << bit;
            interleave(&coordinates[..bits.len()], bits, first_axis_lowest).trailing_zeros() as u8
        })
    };
    (0..bits.len()).rev().flat_map(of_axis).collect()
}

fn interleave(coordinates: &[u64], bits: &[u8], first_axis_lowest: bool) -> u64 {
    let mut code = 0;
    let mut at = 0;
    for bit in 0..bits.iter().copied().max().unwrap_or(0) {
        let mut take = |axis: usize| {
            if bit < bits[axis] {
                code |= ((coordinates[axis] >> bit) & 1) << at;
                at += 1;
            }
        };
        if first_axis_lowest {
            (0..bits.len()).for_each(&mut take);
        } else {
            (0..bits.len()).rev().for_each(&mut take);
        }
    }
    code
}

/// Cells of a grid (any extents) in Morton order with axis 0 lowest, as numbers in C order: the order in which we write.
#[must_use]
pub fn morton_sequence(grid: &[u64]) -> Vec<u64> {
    let bits: Vec<u8> = grid.iter().map(|&n| (64 - n.saturating_sub(1).leading_zeros()) as u8).collect();
    let count = product(grid).unwrap_or(0);
    let mut cells: Vec<(u64, u64)> = (0..count)
        .map(|cell| {
            let mut coordinates = [0u64; MAX_RANK];
            let mut rest = cell;
            for (coordinate, &n) in coordinates.iter_mut().zip(grid).rev() {
                *coordinate = rest % n;
                rest /= n;
            }
            (interleave(&coordinates[..grid.len()], &bits, true), cell)
        })
        .collect();
    cells.sort_unstable();
    cells.into_iter().map(|(_, cell)| cell).collect()
}

#[cfg(test)]
mod tests {
    use super::{Order, morton_sequence};

    #[test]
    fn orders_are_bijections() {
        for grid in [vec![4u64, 2, 8], vec![2, 2], vec![8], vec![1, 4, 1, 2]] {
            let count: u64 = grid.iter().product();
            for order in Order::candidates(&grid) {
                let mut seen: Vec<u64> = (0..count).map(|cell| order.rank(cell)).collect();
                assert_eq!(order.ranks(&grid), seen, "{order:?}");
                seen.sort_unstable();
                assert_eq!(seen, (0..count).collect::<Vec<_>>(), "{order:?}");
            }
        }
    }

    #[test]
    fn morton_has_the_first_axis_lowest() {
        // 2 x 2: cells (0,0) (1,0) (0,1) (1,1), in C order numbers 0 2 1 3.
        assert_eq!(morton_sequence(&[2, 2]), [0, 2, 1, 3]);
        // Extents that are no powers of two: codes outside the grid are skipped. Grid 3 x 2.
        assert_eq!(morton_sequence(&[3, 2]), [0, 2, 1, 3, 4, 5]);
        let order = Order::candidates(&[4, 4, 4]).next().unwrap();
        for (rank, &cell) in morton_sequence(&[4, 4, 4]).iter().enumerate() {
            assert_eq!(order.rank(cell), rank as u64);
        }
    }

    #[test]
    fn fortran_order_counts_the_first_axis_fastest() {
        let order = Order::F { grid: Box::new([2, 3]) };
        assert_eq!((0..6).map(|cell| order.rank(cell)).collect::<Vec<_>>(), [0, 2, 4, 1, 3, 5]);
    }
}
