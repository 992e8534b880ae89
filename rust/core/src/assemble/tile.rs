//! Transposes tiles of 8 x 8 items in registers.
//!
//! A row of a tile is 8 items side by side in memory, as little-endian words of 8 bytes: as many words as an item has
//! bytes. In: the rows. Out: the columns, as rows.

/// A tile of items of `S` bytes.
pub(super) type Tile<const S: usize> = [[u64; S]; 8];

/// Exchanges, in each pair of words `distance` apart, the upper lanes of the first with the lower lanes of the second.
/// Lanes are `BITS` wide, `low` has the bits of every other lane.
#[inline(always)]
fn exchange<const BITS: u32, const N: usize>(words: &mut [u64; N], distance: usize, low: u64) {
    for i in (0..N).filter(|i| i & distance == 0) {
        let (x, y) = (words[i], words[i + distance]);
        let different = ((x >> BITS) ^ y) & low;
        words[i] = x ^ (different << BITS);
        words[i + distance] = y ^ different;
    }
}

/// Items of 1 byte.
#[inline(always)]
pub(super) fn bytes(tile: Tile<1>) -> Tile<1> {
    let mut a = tile.map(|[word]| word);
    exchange::<8, _>(&mut a, 1, 0x00ff_00ff_00ff_00ff);
    exchange::<16, _>(&mut a, 2, 0x0000_ffff_0000_ffff);
    exchange::<32, _>(&mut a, 4, 0x0000_0000_ffff_ffff);
    a.map(|word| [word])
}

/// Items of 2 bytes: four quarters of 4 x 4.
#[inline(always)]
pub(super) fn pairs(tile: Tile<2>) -> Tile<2> {
    let mut out = tile;
    for rows in 0..2 {
        for columns in 0..2 {
            let mut a = [0, 1, 2, 3].map(|i| tile[4 * rows + i][columns]);
            exchange::<16, _>(&mut a, 1, 0x0000_ffff_0000_ffff);
            exchange::<32, _>(&mut a, 2, 0x0000_0000_ffff_ffff);
            for (i, word) in a.into_iter().enumerate() {
                out[4 * columns + i][rows] = word;
            }
        }
    }
    out
}

/// Items of 4 bytes: sixteen parts of 2 x 2.
#[inline(always)]
pub(super) fn quads(tile: Tile<4>) -> Tile<4> {
    let mut out = tile;
    for rows in 0..4 {
        for columns in 0..4 {
            let mut a = [tile[2 * rows][columns], tile[2 * rows + 1][columns]];
            exchange::<32, _>(&mut a, 1, 0x0000_0000_ffff_ffff);
            [out[2 * columns][rows], out[2 * columns + 1][rows]] = a;
        }
    }
    out
}

/// Items of 8 bytes.
#[inline(always)]
pub(super) fn words(tile: Tile<8>) -> Tile<8> {
    let mut out = tile;
    for row in 0..8 {
        for column in 0..8 {
            out[column][row] = tile[row][column];
        }
    }
    out
}
