//! The resolved layout against a naive reader of the codec list, on random layouts.
//!
//! The naive reader takes one voxel through the list as the specification tells it: a transpose permutes the
//! coordinates, a shard divides them by its chunk shape and goes on with the remainder. It knows no composed order and
//! no stride.

use proptest::prelude::*;
use voxfetch_core::dtype::{DataType, Endian};
use voxfetch_core::metadata::{CodecSpec, IndexLocation, KeyEncoding, Parsed, ShardingSpec, resolve};

/// Where a voxel lies: for each shard level the u64 words of the index that hold its entry's offset and nbytes, and
/// the position of its element in the decoded chunk.
#[derive(Debug, Default, PartialEq)]
struct Place {
    words: Vec<(u64, u64)>,
    element: u64,
}

fn permute(values: &[u64], order: &[usize]) -> Vec<u64> {
    order.iter().map(|&axis| values[axis]).collect()
}

/// C-order position of `coordinates` in an array of `shape`.
fn ravel(coordinates: &[u64], shape: &[u64]) -> u64 {
    coordinates.iter().zip(shape).fold(0, |position, (c, n)| position * n + c)
}

fn naive(codecs: &[CodecSpec], mut coordinates: Vec<u64>, mut shape: Vec<u64>, place: &mut Place) {
    for codec in codecs {
        match codec {
            CodecSpec::Transpose { order } => {
                (coordinates, shape) = (permute(&coordinates, order), permute(&shape, order));
            }
            CodecSpec::Bytes { .. } => place.element = ravel(&coordinates, &shape),
            CodecSpec::ShardingIndexed(spec) => {
                let zip = |values: &[u64], op: fn(u64, u64) -> u64| -> Vec<u64> {
                    values.iter().zip(&spec.chunk_shape).map(|(v, c)| op(*v, *c)).collect()
                };
                let mut index_shape = zip(&shape, |n, c| n / c);
                let mut entry = zip(&coordinates, |v, c| v / c);
                index_shape.push(2);
                let mut word = |member| {
                    entry.truncate(index_shape.len() - 1);
                    entry.push(member);
                    let (mut at, mut within) = (entry.clone(), index_shape.clone());
                    for codec in spec.index_codecs.iter() {
                        if let CodecSpec::Transpose { order } = codec {
                            (at, within) = (permute(&at, order), permute(&within, order));
                        }
                    }
                    ravel(&at, &within)
                };
                place.words.push((word(0), word(1)));
                naive(&spec.codecs, zip(&coordinates, |v, c| v % c), spec.chunk_shape.clone(), place);
            }
            _ => {}
        }
    }
}

fn resolved(parsed: Parsed, mut coordinates: Vec<u64>) -> Place {
    let meta = resolve(parsed).unwrap();
    let mut place = Place::default();
    for level in &meta.levels {
        let entry = coordinates.iter().zip(&level.entry_shape).map(|(v, n)| v / n);
        let word = entry.zip(&level.layout().unwrap().strides).map(|(e, stride)| e * stride).sum();
        place.words.push((word, word + level.layout().unwrap().pair_stride));
        coordinates.iter_mut().zip(&level.entry_shape).for_each(|(v, n)| *v %= n);
        assert_eq!(level.layout().unwrap().entries, level.grid.iter().product::<u64>());
    }
    place.element = ravel(&permute(&coordinates, &meta.chunk_order), &permute(&meta.chunk_shape, &meta.chunk_order));
    assert_eq!(meta.chunk_nbytes as u64, 4 * meta.chunk_shape.iter().product::<u64>());
    place
}

/// A permutation of up to 5 axes, cut to the rank: axes by their rank in random keys.
fn order_of(keys: &[u32], rank: usize) -> Vec<usize> {
    let mut axes: Vec<usize> = (0..rank).collect();
    axes.sort_by_key(|&axis| keys[axis]);
    axes
}

#[derive(Debug, Clone)]
struct Level {
    transposes: Vec<[u32; 5]>,
    index_transposes: Vec<[u32; 5]>,
    cells: [u64; 4],
    outer: bool,
}

prop_compose! {
    fn any_level()(
        transposes in prop::collection::vec(any::<[u32; 5]>(), 0..3),
        index_transposes in prop::collection::vec(any::<[u32; 5]>(), 0..3),
        cells in prop::array::uniform4(1u64..4),
        outer in any::<bool>(),
    ) -> Level {
        Level { transposes, index_transposes, cells, outer }
    }
}

fn transposes(keys: &[[u32; 5]], rank: usize) -> Vec<CodecSpec> {
    keys.iter().map(|keys| CodecSpec::Transpose { order: order_of(keys, rank) }).collect()
}

/// The codec list of nested `levels` around a chunk of `chunk` (in its own stored order), and the shape it encodes.
fn codecs(levels: &[Level], innermost: &[[u32; 5]], chunk: &[u64]) -> (Vec<CodecSpec>, Vec<u64>) {
    let rank = chunk.len();
    // Undoes the transposes before an array -> bytes codec: from the shape of its input to that of the whole list's.
    let unpermuted = |shape: &[u64], list: &[CodecSpec]| {
        list.iter().rev().fold(shape.to_vec(), |stored, codec| {
            let CodecSpec::Transpose { order } = codec else { return stored };
            let mut input = vec![0; rank];
            order.iter().zip(&stored).for_each(|(&axis, &extent)| input[axis] = extent);
            input
        })
    };
    let Some((level, deeper)) = levels.split_first() else {
        let mut list = transposes(innermost, rank);
        let shape = unpermuted(chunk, &list);
        list.push(CodecSpec::Bytes { endian: Endian::Little });
        return (list, shape);
    };
    let (inner, chunk_shape) = codecs(deeper, innermost, chunk);
    let mut list = transposes(&level.transposes, rank);
    let shard: Vec<u64> = chunk_shape.iter().zip(level.cells).map(|(extent, n)| extent * n).collect();
    let shape = unpermuted(&shard, &list);
    let mut index_codecs = transposes(&level.index_transposes, rank + 1);
    index_codecs.extend([CodecSpec::Bytes { endian: Endian::Big }, CodecSpec::CRC32C]);
    list.push(CodecSpec::ShardingIndexed(Box::new(ShardingSpec {
        chunk_shape,
        codecs: inner.into(),
        index_codecs: index_codecs.into(),
        index_location: IndexLocation::Start,
    })));
    if level.outer {
        list.push(CodecSpec::CRC32C);
    }
    (list, shape)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_resolved_layout_is_that_of_the_codec_list(
        rank in 0usize..=4,
        levels in prop::collection::vec(any_level(), 0..=3),
        innermost in prop::collection::vec(any::<[u32; 5]>(), 0..3),
        chunk in prop::array::uniform4(1u64..5),
        fractions in prop::array::uniform4(0.0f64..1.0),
    ) {
        let (list, shape) = codecs(&levels, &innermost, &chunk[..rank]);
        let voxel: Vec<u64> = shape.iter().zip(fractions).map(|(&n, f)| (n as f64 * f) as u64).collect();
        let parsed = Parsed {
            shape: shape.clone(),
            dtype: DataType::Float(4),
            fill_value: vec![0; 4],
            dimension_names: vec![None; rank],
            chunk_shape: shape.clone(),
            irregular_grid: None,
            keys: KeyEncoding::V2 { separator: '.' },
            codecs: list.clone().into(),
        };
        let mut expected = Place::default();
        naive(&list, voxel.clone(), shape, &mut expected);
        prop_assert_eq!(resolved(parsed.clone(), voxel), expected);
        let meta = resolve(parsed).unwrap();
        for (level, wanted) in meta.levels.iter().zip(&levels) {
            prop_assert_eq!(!level.outer.is_empty(), wanted.outer);
            prop_assert_eq!(level.layout().unwrap().checksums.len(), 1);
            prop_assert_eq!(level.layout().unwrap().nbytes, 16 * level.layout().unwrap().entries + 4);
        }
    }
}

/// tensorstore writes this array with these strides and orders; no permutation here is its own inverse.
#[test]
fn a_layout_that_tensorstore_writes() {
    let codecs = r#"[{"name": "transpose", "configuration": {"order": [2, 0, 1]}}, {"name": "sharding_indexed",
        "configuration": {"chunk_shape": [5, 2, 3],
            "codecs": [{"name": "transpose", "configuration": {"order": [1, 2, 0]}}, "bytes"],
            "index_codecs": [{"name": "transpose", "configuration": {"order": [3, 1, 2, 0]}}, "bytes", "crc32c"]}}]"#;
    let grid = r#"{"name": "regular", "configuration": {"chunk_shape": [4, 6, 10]}}"#;
    let meta = super::v3(&[("shape", "[4, 6, 10]"), ("chunk_grid", grid), ("codecs", codecs)]).unwrap();
    let level = &meta.levels[0];
    assert_eq!((&*level.grid, &*level.entry_shape), (&[2, 2, 2][..], &[2, 3, 5][..]));
    assert_eq!((&*level.layout().unwrap().strides, level.layout().unwrap().pair_stride), (&[4, 2, 1][..], 8));
    assert_eq!((&*meta.chunk_shape, &*meta.chunk_order), (&[2, 3, 5][..], &[0, 1, 2][..]));
}
