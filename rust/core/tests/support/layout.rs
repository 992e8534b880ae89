//! Random `zarr.json` documents within the rules, each with the codecs in a form that the naive writer can walk.

use serde_json::{Value, json};
use voxfetch_core::metadata::CodecSpec;

use super::Choices;

/// At most so many voxels of a chunk and chunks of a shard: a few large ones, or many small ones.
const PARTS: [(u64, u64); 6] = [(40, 12), (40, 12), (40, 12), (40, 12), (40, 12), (2, 150)];
/// Shards of an array.
const SHARDS: u64 = 8;

#[derive(Debug, Clone)]
pub enum Codec {
    Transpose(Vec<usize>),
    Bytes { big: bool },
    Shard(Box<Shard>),
    Crc32c,
    Compressor(CodecSpec, Value),
}

#[derive(Debug, Clone)]
pub struct Shard {
    /// In stored order at this point of the list.
    pub chunk_shape: Vec<u64>,
    pub codecs: Vec<Codec>,
    pub index_codecs: Vec<Codec>,
    pub index_at_start: bool,
}

/// An array that can be written down.
#[derive(Debug, Clone)]
pub struct Layout {
    pub document: String,
    pub shard_shape: Vec<u64>,
    pub chunk_shape: Vec<u64>,
    /// Extents of the stored objects along each axis, where they differ.
    pub edges: Option<Vec<Vec<u64>>>,
    pub codecs: Vec<Codec>,
    /// Bytes of the units of a voxel that byte order reverses, one after the other.
    pub units: &'static [usize],
}

/// Bytes of one voxel.
pub fn item_size(array: &super::Array) -> usize {
    array.dtype.item_size()
}

impl Layout {
    /// First voxel and extent of a stored object along each axis.
    pub fn cell(&self, cell: &[u64]) -> (Vec<u64>, Vec<u64>) {
        let along = |(axis, &cell): (usize, &u64)| match &self.edges {
            None => (cell * self.shard_shape[axis], self.shard_shape[axis]),
            Some(edges) => (edges[axis][..cell as usize].iter().sum(), edges[axis][cell as usize]),
        };
        cell.iter().enumerate().map(along).unzip()
    }

    /// Grid coordinates of the chunk that holds a voxel, which may lie beyond the array in a chunk at its edge.
    pub fn chunk_of(&self, at: &[u64]) -> Vec<u64> {
        let along = |(axis, &place): (usize, &u64)| match &self.edges {
            Some(edges) if self.shard_shape == self.chunk_shape => {
                let ends = edges[axis].iter().scan(0, |end, edge| {
                    *end += edge;
                    Some(*end)
                });
                ends.take_while(|&end| end <= place).count() as u64
            }
            _ => place / self.chunk_shape[axis],
        };
        at.iter().enumerate().map(along).collect()
    }

    pub fn random(choices: &mut Choices<'_>) -> Self {
        let rank = choices.below(5) as usize;
        let (dtype, fill_value, units): (_, _, &[usize]) = choices.pick(&[
            (json!("uint8"), json!(7), &[1]),
            (json!("int16"), json!(-2), &[2]),
            (json!("float32"), json!(1.5), &[4]),
            (json!("uint64"), json!(0), &[8]),
            (json!("r24"), json!([1, 2, 3]), &[1, 1, 1]),
            (json!("complex64"), json!([1.0, "NaN"]), &[4, 4]),
            (json!("bool"), json!(true), &[1]),
            (record(), json!({"a": 1, "b": {"c": -5, "d": [0.5, 0]}, "e": -1}), &[1, 4, 4, 4, 2]),
        ]);
        let (chunk_voxels, shard_chunks) = choices.pick(&PARTS);
        let chunk_shape = extents(choices, rank, 5, chunk_voxels);
        // Extent of an entry at each level, from the stored object inwards.
        let mut entries = vec![chunk_shape.clone()];
        let mut left = shard_chunks;
        for _ in 0..choices.below(4).min(2) {
            let counts = extents(choices, rank, if shard_chunks > 100 { 15 } else { 4 }, left);
            left /= counts.iter().product::<u64>();
            entries.insert(0, entries[0].iter().zip(&counts).map(|(entry, n)| entry * n).collect());
        }
        let shard_shape = entries.remove(0);
        let counts = extents(choices, rank, 4, SHARDS);
        let shape: Vec<u64> = shard_shape
            .iter()
            .zip(&counts)
            .map(|(&shard, &n)| if choices.chance(40) { 0 } else { shard * n - choices.below(shard) })
            .collect();
        let entry = entries.first().cloned().unwrap_or_else(|| vec![1; rank]);
        let edges = choices.chance(3).then(|| {
            (0..rank).map(|axis| edges(choices, shape[axis], entry[axis], shard_shape[axis] / entry[axis])).collect()
        });
        let grid = match &edges {
            None => json!({"name": "regular", "configuration": {"chunk_shape": shard_shape}}),
            Some(edges) => json!({"name": "rectilinear", "configuration": {"kind": "inline", "chunk_shapes": edges}}),
        };
        let codecs = codecs(choices, (0..rank).collect(), &entries);
        let keys = choices.pick(&[json!("default"), json!({"name": "v2", "configuration": {"separator": "/"}})]);
        let document = json!({
            "zarr_format": 3,
            "node_type": "array",
            "shape": shape,
            "data_type": dtype,
            "chunk_grid": grid,
            "chunk_key_encoding": keys,
            "fill_value": fill_value,
            "codecs": documents(&codecs),
        });
        Self { document: document.to_string(), shard_shape, chunk_shape, edges, codecs, units }
    }
}

/// Fields within fields, 15 bytes.
fn record() -> Value {
    let field = |name: &str, dtype: Value| json!({"name": name, "data_type": dtype});
    let fields = |list: &[Value]| json!({"name": "struct", "configuration": {"fields": list}});
    let inner = fields(&[field("c", json!("int32")), field("d", json!("complex64"))]);
    fields(&[field("a", json!("uint8")), field("b", inner), field("e", json!("int16"))])
}

/// Extents of at most `most` units that cover `extent` voxels, and perhaps more.
fn edges(choices: &mut Choices<'_>, extent: u64, unit: u64, most: u64) -> Vec<u64> {
    let mut edges = Vec::new();
    while edges.is_empty() || edges.iter().sum::<u64>() < extent {
        edges.push(unit * (1 + choices.below(most)));
    }
    edges.extend((0..choices.below(3)).map(|_| unit * most));
    edges
}

/// Extents of at most `most`, at most `product` together.
fn extents(choices: &mut Choices<'_>, rank: usize, most: u64, product: u64) -> Vec<u64> {
    let mut left = product;
    (0..rank)
        .map(|_| {
            let extent = 1 + choices.below(most.min(left));
            left /= extent;
            extent
        })
        .collect()
}

/// A codec list for entries of `entries[0]` and so on inwards. Stored axis `k` is array axis `order[k]`.
fn codecs(choices: &mut Choices<'_>, mut order: Vec<usize>, entries: &[Vec<u64>]) -> Vec<Codec> {
    let mut list = Vec::new();
    for _ in 0..choices.below(6).saturating_sub(3) {
        let permutation = choices.permutation(order.len());
        order = permutation.iter().map(|&axis| order[axis]).collect();
        list.push(Codec::Transpose(permutation));
    }
    let most = match entries {
        [] => {
            list.push(Codec::Bytes { big: choices.chance(3) });
            4
        }
        [entry, inner @ ..] => {
            let chunk_shape = order.iter().map(|&axis| entry[axis]).collect();
            let mut index_codecs = Vec::new();
            if choices.chance(4) {
                index_codecs.push(Codec::Transpose(choices.permutation(order.len() + 1)));
            }
            index_codecs.push(Codec::Bytes { big: choices.chance(4) });
            index_codecs.extend((0..choices.pick(&[1, 0, 2])).map(|_| Codec::Crc32c));
            list.push(Codec::Shard(Box::new(Shard {
                chunk_shape,
                codecs: codecs(choices, order, inner),
                index_codecs,
                index_at_start: choices.chance(2),
            })));
            if choices.chance(4) { 3 } else { 1 }
        }
    };
    list.extend((0..choices.below(most)).map(|_| bytes_to_bytes(choices)));
    list
}

fn bytes_to_bytes(choices: &mut Choices<'_>) -> Codec {
    let compressor = |spec, name: &str, configuration: Value| {
        Codec::Compressor(spec, json!({"name": name, "configuration": configuration}))
    };
    // bzip2 makes its tables anew for every chunk, which takes longer than all the rest.
    match choices.below(20) {
        0..5 => Codec::Crc32c,
        5..9 => {
            let checksum = choices.chance(2);
            compressor(CodecSpec::Zstd { level: 1, checksum }, "zstd", json!({"level": 1, "checksum": checksum}))
        }
        9..12 => compressor(CodecSpec::Gzip { level: 1 }, "gzip", json!({"level": 1})),
        12..15 => compressor(CodecSpec::Zlib { level: 1 }, "numcodecs.zlib", json!({"level": 1})),
        15..19 => compressor(CodecSpec::Lz4, "numcodecs.lz4", json!({"acceleration": 1})),
        _ => compressor(CodecSpec::Bz2 { level: 1 }, "numcodecs.bz2", json!({"level": 1})),
    }
}

fn documents(codecs: &[Codec]) -> Vec<Value> {
    let one = |codec: &Codec| match codec {
        Codec::Transpose(order) => json!({"name": "transpose", "configuration": {"order": order}}),
        Codec::Bytes { big } => {
            json!({"name": "bytes", "configuration": {"endian": if *big { "big" } else { "little" }}})
        }
        Codec::Crc32c => json!({"name": "crc32c"}),
        Codec::Compressor(_, document) => document.clone(),
        Codec::Shard(shard) => json!({"name": "sharding_indexed", "configuration": {
            "chunk_shape": shard.chunk_shape,
            "codecs": documents(&shard.codecs),
            "index_codecs": documents(&shard.index_codecs),
            "index_location": if shard.index_at_start { "start" } else { "end" },
        }}),
    };
    codecs.iter().map(one).collect()
}
