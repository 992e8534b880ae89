//! The naive writer and reader: every voxel on its own, codecs as the specification words them.

use std::cell::RefCell;
use std::sync::Arc;

use voxfetch_core::assemble::Input;
use voxfetch_core::codec::{CodecChain, CodecContext};
use voxfetch_core::shard_writer;

use super::layout::{Codec, Layout, Shard, item_size};
use super::{Array, Choices, Objects, array};

thread_local! {
    /// Compressors take longer to make than to compress so little.
    static CONTEXT: RefCell<CodecContext> = RefCell::default();
}

/// What an array holds: each chunk is stored or not, each voxel of a stored chunk has its own value.
pub struct Oracle {
    pub layout: Layout,
    pub array: Arc<Array>,
    salt: u64,
}

/// Voxels in C order; None in chunks that are not stored.
struct Block {
    shape: Vec<u64>,
    voxels: Vec<Option<Vec<u8>>>,
}

impl Oracle {
    pub fn random(choices: &mut Choices<'_>) -> Self {
        let layout = Layout::random(choices);
        let array = array(&layout.document).unwrap_or_else(|error| panic!("{error}\n{}", layout.document));
        Self { layout, array, salt: choices.below(u64::MAX) }
    }

    pub fn item_size(&self) -> usize {
        item_size(&self.array)
    }

    /// The voxel at `at`; outside the array the fill value.
    pub fn voxel(&self, at: &[i64]) -> Vec<u8> {
        let at: Option<Vec<u64>> = at.iter().map(|&place| u64::try_from(place).ok()).collect();
        at.filter(|at| at.iter().zip(&self.array.shape).all(|(place, extent)| place < extent))
            .and_then(|at| self.stored(&at))
            .unwrap_or_else(|| self.array.fill_value.clone())
    }

    /// The voxel at `at`, which may lie beyond the array in a chunk at its edge; None when its chunk is not stored.
    fn stored(&self, at: &[u64]) -> Option<Vec<u8>> {
        if hash(self.salt, &self.layout.chunk_of(at)) % 4 == 3 {
            return None;
        }
        let value = hash(!self.salt, at);
        Some(value.to_le_bytes().iter().cycle().take(self.item_size()).copied().collect())
    }

    /// All stored objects, from the naive writer or from ours.
    pub fn write(&self, choices: &mut Choices<'_>) -> Objects {
        let grid: Vec<u64> = self.array.shard_grid.iter().map(voxfetch_core::metadata::AxisGrid::cells).collect();
        let ours = choices.chance(3) && self.layout.edges.is_none();
        let mut objects = Objects::new();
        each_place(&grid, &mut |shard| {
            let bytes = if ours { self.write_ours(shard) } else { self.write_naively(shard, choices) };
            objects.extend(bytes.map(|bytes| (shard.to_vec(), bytes)));
        });
        objects
    }

    fn write_ours(&self, shard: &[u64]) -> Option<Vec<u8>> {
        let (start, extents) = self.layout.cell(shard);
        let ends = self.array.shape.iter().zip(&start).zip(extents);
        let counts: Vec<u64> = ends.map(|((extent, start), step)| (extent - start).min(step)).collect();
        let mut data = Vec::new();
        each_place(&counts, &mut |place| {
            let at: Vec<i64> = place.iter().zip(&start).map(|(place, start)| (place + start) as i64).collect();
            data.extend(self.voxel(&at));
        });
        let mut strides = vec![0isize; counts.len()];
        let mut stride = self.item_size() as isize;
        for (slot, &count) in strides.iter_mut().zip(&counts).rev() {
            *slot = stride;
            stride *= count as isize;
        }
        shard_writer::check_whole(&self.array, &start, &counts).unwrap();
        // SAFETY: `data` holds `counts` voxels in C order and outlives the call.
        let input = unsafe { Input::new(data.as_ptr(), start, counts, strides) };
        CONTEXT.with_borrow_mut(|context| shard_writer::encode_object(&self.array, context, shard, &input)).unwrap()
    }

    fn write_naively(&self, shard: &[u64], choices: &mut Choices<'_>) -> Option<Vec<u8>> {
        let (start, shape) = self.layout.cell(shard);
        let mut voxels = Vec::new();
        each_place(&shape, &mut |place| {
            let at: Vec<u64> = place.iter().zip(&start).map(|(place, start)| place + start).collect();
            voxels.push(self.stored(&at));
        });
        self.encode(&self.layout.codecs, Block { shape, voxels }, choices)
    }

    fn encode(&self, codecs: &[Codec], mut block: Block, choices: &mut Choices<'_>) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        for codec in codecs {
            match codec {
                Codec::Transpose(order) => block = block.transposed(order),
                Codec::Bytes { big } => {
                    let voxels: Option<Vec<Vec<u8>>> = block.voxels.iter().cloned().collect();
                    bytes = voxels?.concat();
                    if *big {
                        for item in bytes.chunks_mut(self.item_size()) {
                            let mut rest = item;
                            for &unit in self.layout.units {
                                let (number, behind) = rest.split_at_mut(unit);
                                number.reverse();
                                rest = behind;
                            }
                        }
                    }
                }
                Codec::Shard(shard) => bytes = self.encode_shard(shard, &block, choices)?,
                Codec::Crc32c => append_crc32c(&mut bytes),
                Codec::Compressor(spec, _) => {
                    let mut encoded = Vec::new();
                    let chain = CodecChain::outer(std::slice::from_ref(spec)).unwrap();
                    CONTEXT.with_borrow_mut(|context| chain.encode(context, &bytes, &mut encoded)).unwrap();
                    bytes = encoded;
                }
            }
        }
        Some(bytes)
    }

    /// Chunks in any order, with bytes between them that belong to none.
    fn encode_shard(&self, shard: &Shard, block: &Block, choices: &mut Choices<'_>) -> Option<Vec<u8>> {
        let grid: Vec<u64> = block.shape.iter().zip(&shard.chunk_shape).map(|(whole, part)| whole / part).collect();
        let mut cells = Vec::new();
        each_place(&grid, &mut |cell| cells.push(cell.to_vec()));
        let order = if choices.chance(2) { choices.permutation(cells.len()) } else { (0..cells.len()).collect() };
        let index_nbytes =
            16 * cells.len() + 4 * (shard.index_codecs.iter().filter(|c| matches!(c, Codec::Crc32c)).count());
        let start = if shard.index_at_start { index_nbytes } else { 0 };
        let gaps = choices.chance(3);
        let mut data = Vec::new();
        let mut pairs = vec![[u64::MAX; 2]; cells.len()];
        for number in order {
            let inner = block.part(&cells[number], &shard.chunk_shape);
            if let Some(encoded) = self.encode(&shard.codecs, inner, choices) {
                if gaps {
                    data.extend(vec![0xEE; choices.below(5) as usize]);
                }
                pairs[number] = [(start + data.len()) as u64, encoded.len() as u64];
                data.extend(encoded);
            }
        }
        // A shard without chunks need not be stored, but may be.
        if data.is_empty() && !choices.chance(3) {
            return None;
        }
        let mut index = Vec::new();
        let mut words = Block {
            shape: grid.iter().copied().chain([2]).collect(),
            voxels: pairs.iter().flatten().map(|word| Some(word.to_le_bytes().to_vec())).collect(),
        };
        for codec in &shard.index_codecs {
            match codec {
                Codec::Transpose(order) => words = words.transposed(order),
                Codec::Bytes { big } => {
                    index = words.voxels.iter().flatten().flatten().copied().collect();
                    if *big {
                        index.chunks_mut(8).for_each(<[u8]>::reverse);
                    }
                }
                Codec::Crc32c => append_crc32c(&mut index),
                other => panic!("{other:?} in an index"),
            }
        }
        assert_eq!(index.len(), index_nbytes);
        Some(if shard.index_at_start { [index, data].concat() } else { [data, index].concat() })
    }
}

impl Block {
    fn at(&self, place: &[u64]) -> Option<Vec<u8>> {
        let number = place.iter().zip(&self.shape).fold(0, |number, (place, extent)| number * extent + place);
        self.voxels[number as usize].clone()
    }

    /// Axis `k` of the result is axis `order[k]` of this block.
    fn transposed(&self, order: &[usize]) -> Self {
        let shape: Vec<u64> = order.iter().map(|&axis| self.shape[axis]).collect();
        let mut voxels = Vec::new();
        each_place(&shape, &mut |place| {
            let mut source = vec![0; order.len()];
            for (&axis, &coordinate) in order.iter().zip(place) {
                source[axis] = coordinate;
            }
            voxels.push(self.at(&source));
        });
        Self { shape, voxels }
    }

    fn part(&self, cell: &[u64], shape: &[u64]) -> Self {
        let mut voxels = Vec::new();
        each_place(shape, &mut |place| {
            let source: Vec<u64> = place.iter().zip(cell).zip(shape).map(|((p, c), n)| p + c * n).collect();
            voxels.push(self.at(&source));
        });
        Self { shape: shape.to_vec(), voxels }
    }
}

/// Calls `each` with every place of a box, in C order.
pub fn each_place(shape: &[u64], each: &mut dyn FnMut(&[u64])) {
    let mut place = vec![0; shape.len()];
    for number in 0..shape.iter().product::<u64>() {
        let mut rest = number;
        for (coordinate, extent) in place.iter_mut().zip(shape).rev() {
            *coordinate = rest % extent;
            rest /= extent;
        }
        each(&place);
    }
}

fn hash(salt: u64, words: &[u64]) -> u64 {
    let mix = |state: u64, word: u64| {
        let state = (state ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (state ^ (state >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
    };
    let hash = words.iter().fold(mix(salt, words.len() as u64), |state, &word| mix(state, word));
    hash ^ (hash >> 32)
}

/// CRC-32C, one bit at a time.
pub fn append_crc32c(bytes: &mut Vec<u8>) {
    let mut crc = u32::MAX;
    for &byte in bytes.iter() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg());
        }
    }
    bytes.extend((!crc).to_le_bytes());
}
