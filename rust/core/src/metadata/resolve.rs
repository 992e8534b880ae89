//! Parsed parts of a document -> [`ArrayMeta`]: the one place where the parts are checked against each other.
//!
//! The codec list is walked inwards. `order` says which array axis each stored axis is; every transpose composes into
//! it, every shard level leaves a [`ShardLevel`] behind and makes its chunk the next thing to encode. Shapes in the
//! codec list are in stored order at that point; what comes out is in array order.

use crate::dtype::{DataType, Endian};
use crate::error::{Error, Result};
use crate::metadata::limits::{MAX_CHUNK_NBYTES, MAX_INDEX_NBYTES, MAX_SHARD_LEVELS};
use crate::metadata::{
    ArrayMeta, AxisGrid, ChunkForm, CodecList, CodecSpec, ElementCodec, IndexLayout, IndexLocation, IndexSpec,
    KeyEncoding, ShardLevel,
};
use crate::subset::{MAX_EXTENT, MAX_RANK, product};

/// Content of an array's document, each part well-formed by itself.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// Extent of each axis in voxels.
    pub shape: Vec<u64>,
    /// Type of one voxel.
    pub dtype: DataType,
    /// One voxel in native byte order, `dtype.item_size()` bytes.
    pub fill_value: Vec<u8>,
    /// Name of each axis, where there is one.
    pub dimension_names: Vec<Option<String>>,
    /// Extent of a stored object in voxels; the largest along each axis where they differ.
    pub chunk_shape: Vec<u64>,
    /// The grid of stored objects, where they differ in extent.
    pub irregular_grid: Option<Vec<AxisGrid>>,
    /// Grid coordinates -> key of the stored object.
    pub keys: KeyEncoding,
    /// Codecs of a stored object.
    pub codecs: CodecList,
}

/// Checks the parts against each other and against the limits, and folds transposes and shards.
///
/// # Errors
/// `Metadata` when the parts contradict each other, `Limit` when they ask for more than is allowed.
pub fn resolve(parsed: Parsed) -> Result<ArrayMeta> {
    let Parsed { shape, dtype, fill_value, dimension_names, chunk_shape, irregular_grid, keys, codecs } = parsed;
    let rank = shape.len();
    check_shapes(&shape, &chunk_shape)?;
    if fill_value.len() != dtype.item_size() || dimension_names.len() != rank {
        return Err(Error::internal("fill value or dimension names of the wrong length"));
    }
    let irregular = irregular_grid.is_some();
    let shard_grid = irregular_grid.map_or_else(|| grid(&shape, &chunk_shape), counted)?;

    let mut order: Vec<usize> = (0..rank).collect();
    let mut chunk_shape = chunk_shape;
    let mut levels: Vec<ShardLevel> = Vec::new();
    let mut at = String::from("codecs");
    let mut list = &codecs;
    let mut chunk_elements: Vec<ElementCodec> = Vec::new();
    let (endian, chunk_codecs) = loop {
        let parts = split(list, &at)?;
        for (position, codec) in parts.array_to_array.iter().enumerate() {
            let place = || format!("{at}[{}]", list.place(position));
            match codec {
                CodecSpec::Transpose { order: axes } => {
                    refuse_ordered(&chunk_elements, codec, place)?;
                    order = compose(&order, axes, || format!("{}.configuration.order", place()))?;
                }
                CodecSpec::Element(codec) => chunk_elements.push(codec.clone()),
                other => return Err(Error::internal(format!("`{}` taken for an array -> array codec", other.name()))),
            }
        }
        let place = list.place(parts.array_to_array.len());
        let spec = match parts.array_to_bytes {
            CodecSpec::Bytes { endian } => break (*endian, parts.bytes_to_bytes.to_vec()),
            CodecSpec::PackBits(codec) => {
                chunk_elements.push(codec.clone());
                break (Endian::Little, parts.bytes_to_bytes.to_vec());
            }
            CodecSpec::ShardingIndexed(spec) => spec,
            other => return Err(Error::internal(format!("`{}` taken for an array -> bytes codec", other.name()))),
        };
        if let Some(codec) = chunk_elements.first() {
            let what = format!("{at}[{place}]: `{}` before `sharding_indexed`", codec.name);
            return Err(Error::unsupported(what, "codecs that change elements are read inside of shards"));
        }
        at = format!("{at}[{place}].configuration");
        if levels.len() == MAX_SHARD_LEVELS {
            let limit = MAX_SHARD_LEVELS as u64;
            return Err(Error::limit(format!("{at}: levels of sharding"), limit + 1, limit));
        }
        let (level_grid, entry_shape) = subdivide(&chunk_shape, &spec.chunk_shape, &order, &at)?;
        if levels.is_empty() {
            shard_grid.iter().zip(&entry_shape).try_for_each(|(axis, &entry)| check_cells(axis, entry, &at))?;
        }
        let layout = index_layout(&level_grid, &order, &spec.index_codecs, spec.index_location, &at)?;
        let outer = parts.bytes_to_bytes.to_vec();
        chunk_shape.clone_from(&entry_shape);
        levels.push(ShardLevel { outer, grid: level_grid, entry_shape, index: IndexSpec::ShardingIndexed(layout) });
        at.push_str(".codecs");
        list = &spec.codecs;
    };
    let nbytes = chunk_nbytes(&chunk_shape, &dtype)?;
    for codec in &chunk_elements {
        match codec.encoded_nbytes((nbytes / dtype.item_size().max(1)) as u64) {
            Some(nbytes) if nbytes <= MAX_CHUNK_NBYTES => {}
            nbytes => {
                let what = format!("bytes of a chunk after `{}`", codec.name);
                return Err(Error::limit(what, nbytes.unwrap_or(u64::MAX), MAX_CHUNK_NBYTES));
            }
        }
    }
    let makes_objects = matches!(chunk_codecs.first(), Some(CodecSpec::Foreign(codec)) if codec.objects);
    if matches!(dtype, DataType::Object) && (!makes_objects || !chunk_elements.is_empty()) {
        let what = "elements of no fixed size, without a codec that knows them as the first";
        return Err(Error::unsupported(what, "read are vlen-utf8, vlen-bytes and others of their kind"));
    }
    let chunk_form = if irregular && levels.is_empty() { ChunkForm::Cell } else { ChunkForm::Elements };
    Ok(ArrayMeta {
        chunk_nbytes: nbytes,
        chunk_elements,
        grid_origin: vec![0; rank],
        origin: vec![0; rank],
        shape,
        dtype,
        fill_value,
        dimension_names,
        shard_grid,
        keys,
        levels,
        chunk_shape,
        chunk_order: order,
        endian,
        chunk_form,
        chunk_codecs,
        codecs,
    })
}

/// Ranks agree, extents are within bounds, chunks are not empty.
pub(super) fn check_shapes(shape: &[u64], chunk_shape: &[u64]) -> Result<()> {
    if shape.len() > MAX_RANK {
        return Err(Error::limit("number of axes", shape.len() as u64, MAX_RANK as u64));
    }
    if chunk_shape.len() != shape.len() {
        let what = format!("chunks have {} axes, the array has {}", chunk_shape.len(), shape.len());
        return Err(Error::metadata("chunk shape", what));
    }
    if chunk_shape.contains(&0) {
        return Err(Error::metadata("chunk shape", format!("chunks {chunk_shape:?} hold no voxel")));
    }
    match shape.iter().chain(chunk_shape).max() {
        Some(&extent) if extent > MAX_EXTENT => Err(Error::limit("extent of an axis in voxels", extent, MAX_EXTENT)),
        _ => Ok(()),
    }
}

/// The regular grid of stored objects, whose number fits an `i64`.
pub(super) fn grid(shape: &[u64], chunk_shape: &[u64]) -> Result<Vec<AxisGrid>> {
    counted(shape.iter().zip(chunk_shape).map(|(&extent, &step)| AxisGrid::regular(extent, step)).collect())
}

/// Checks that the number of stored objects fits an `i64`.
fn counted(axes: Vec<AxisGrid>) -> Result<Vec<AxisGrid>> {
    let cells: Vec<u64> = axes.iter().map(AxisGrid::cells).collect();
    match product(&cells) {
        Some(n) if n <= i64::MAX as u64 => Ok(axes),
        n => Err(Error::limit("number of stored objects", n.unwrap_or(u64::MAX), i64::MAX as u64)),
    }
}

/// A codec list, cut at its one array -> bytes codec.
struct Split<'c> {
    array_to_array: &'c [CodecSpec],
    array_to_bytes: &'c CodecSpec,
    bytes_to_bytes: &'c [CodecSpec],
}

fn split<'c>(list: &'c CodecList, at: &str) -> Result<Split<'c>> {
    let is_array = |codec: &CodecSpec| matches!(codec, CodecSpec::Transpose { .. } | CodecSpec::Element(_));
    let position = list.iter().position(|codec| !is_array(codec)).unwrap_or(list.len());
    let (array_to_array, rest) = list.split_at(position);
    let Some((array_to_bytes, bytes_to_bytes)) = rest.split_first() else {
        return Err(Error::metadata(at, "no array -> bytes codec, such as `bytes`"));
    };
    if array_to_bytes.is_bytes_to_bytes() {
        let what = format!("`{}` needs an array -> bytes codec, such as `bytes`, before it", array_to_bytes.name());
        return Err(Error::metadata(format!("{at}[{}]", list.place(position)), what));
    }
    match bytes_to_bytes.iter().position(|codec| !codec.is_bytes_to_bytes()) {
        None => Ok(Split { array_to_array, array_to_bytes, bytes_to_bytes }),
        Some(offset) => {
            let name = bytes_to_bytes.get(offset).map_or("codec", CodecSpec::name);
            let what = format!("`{name}` cannot follow `{}`, which turns the array into bytes", array_to_bytes.name());
            Err(Error::metadata(format!("{at}[{}]", list.place(position + 1 + offset)), what))
        }
    }
}

/// Refuses what moves elements after a codec for which their places count.
fn refuse_ordered(before: &[ElementCodec], codec: &CodecSpec, at: impl Fn() -> String) -> Result<()> {
    match before.iter().find(|codec| codec.step.is_ordered()) {
        None => Ok(()),
        Some(ordered) => {
            let what = format!("{}: `{}` after `{}`", at(), codec.name(), ordered.name);
            Err(Error::unsupported(what, "the other order is read"))
        }
    }
}

/// The axes of `order` in the order of `permutation`, which `at` names.
fn compose(order: &[usize], permutation: &[usize], at: impl Fn() -> String) -> Result<Vec<usize>> {
    let mut seen = vec![false; order.len()];
    let composed = permutation.iter().map(|&axis| {
        let first = seen.get_mut(axis).is_some_and(|seen| !std::mem::replace(seen, true));
        order.get(axis).copied().filter(|_| first)
    });
    let composed: Option<Vec<usize>> = composed.collect();
    composed
        .filter(|composed| composed.len() == order.len())
        .ok_or_else(|| Error::metadata(at(), format!("{permutation:?} is not a permutation of {} axes", order.len())))
}

/// Checks that each cell of an axis is a whole number of entries of `entry` voxels.
fn check_cells(axis: &AxisGrid, entry: u64, at: &str) -> Result<()> {
    let AxisGrid::Offsets(_) = axis else { return Ok(()) };
    match (0..axis.cells()).map(|cell| axis.extent(cell)).find(|extent| !extent.is_multiple_of(entry)) {
        None => Ok(()),
        Some(whole) => Err(not_divided(entry, whole, at)),
    }
}

fn not_divided(entry: u64, whole: u64, at: &str) -> Error {
    let what = format!("{entry} does not divide the shard's extent {whole}");
    Error::metadata(format!("{at}.chunk_shape"), what)
}

/// Grid and entry shape of a shard, in array order. `stored` is the shape of an entry in stored order.
fn subdivide(shard: &[u64], stored: &[u64], order: &[usize], at: &str) -> Result<(Vec<u64>, Vec<u64>)> {
    if stored.len() != order.len() {
        let what = format!("{} axes, the array has {}", stored.len(), order.len());
        return Err(Error::metadata(format!("{at}.chunk_shape"), what));
    }
    let (mut level_grid, mut entry_shape) = (vec![1; shard.len()], vec![1; shard.len()]);
    for (&axis, &extent) in order.iter().zip(stored) {
        let whole = shard.get(axis).copied().unwrap_or_default();
        if extent == 0 || !whole.is_multiple_of(extent) {
            return Err(not_divided(extent, whole, at));
        }
        if let (Some(cells), Some(entry)) = (level_grid.get_mut(axis), entry_shape.get_mut(axis)) {
            (*cells, *entry) = (whole / extent, extent);
        }
    }
    Ok((level_grid, entry_shape))
}

/// Place and layout of a shard's index: an array of u64 of the stored grid's shape and a last axis (offset, nbytes).
fn index_layout(
    level_grid: &[u64],
    order: &[usize],
    codecs: &CodecList,
    location: IndexLocation,
    at: &str,
) -> Result<IndexLayout> {
    let rank = order.len();
    let at = format!("{at}.index_codecs");
    let parts = split(codecs, &at)?;
    let CodecSpec::Bytes { endian } = parts.array_to_bytes else {
        return Err(Error::metadata(at, format!("`{}` has no fixed size", parts.array_to_bytes.name())));
    };
    let checksums = parts.bytes_to_bytes.iter().map(|codec| match codec {
        CodecSpec::Checksum(spec) => Ok(*spec),
        other => Err(Error::metadata(at.clone(), format!("`{}` has no fixed size", other.name()))),
    });
    let checksums = checksums.collect::<Result<Vec<_>>>()?;
    let bytes = |entries: u64| entries.checked_mul(16)?.checked_add(4 * checksums.len() as u64);
    let (entries, nbytes) = match product(level_grid).and_then(|entries| Some((entries, bytes(entries)?))) {
        Some((entries, nbytes)) if nbytes <= MAX_INDEX_NBYTES => (entries, nbytes),
        needed => {
            let needed = needed.map_or(u64::MAX, |(_, nbytes)| nbytes);
            return Err(Error::limit("bytes of a shard index", needed, MAX_INDEX_NBYTES));
        }
    };

    // Axes of the stored index, named by array axes; `rank` is the pair axis.
    let mut axes: Vec<usize> = order.iter().copied().chain([rank]).collect();
    for (position, codec) in parts.array_to_array.iter().enumerate() {
        let CodecSpec::Transpose { order } = codec else {
            return Err(Error::metadata(at, format!("`{}` changes the numbers of an index", codec.name())));
        };
        axes = compose(&axes, order, || format!("{at}[{}].configuration.order", codecs.place(position)))?;
    }
    let (strides, pair_stride) = IndexLayout::strides_along(&axes, level_grid);
    Ok(IndexLayout { location, endian: *endian, entries, strides, pair_stride, checksums, nbytes })
}

/// Bytes of one decoded chunk, at least 1.
pub(super) fn chunk_nbytes(chunk_shape: &[u64], dtype: &DataType) -> Result<usize> {
    let nbytes = product(chunk_shape).and_then(|voxels| voxels.checked_mul(dtype.item_size() as u64));
    match nbytes {
        Some(nbytes) if nbytes <= MAX_CHUNK_NBYTES => Ok(nbytes as usize),
        nbytes => Err(Error::limit("bytes of a decoded chunk", nbytes.unwrap_or(u64::MAX), MAX_CHUNK_NBYTES)),
    }
}
