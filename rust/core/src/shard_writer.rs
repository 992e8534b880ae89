//! Voxels -> the bytes of one stored object: a chunk, or a shard with its index (Zarr v3 sharding-indexed v1.0).
//!
//! Chunks are laid end to end in Morton order, dimension 0 lowest; chunks that hold nothing but the fill value are not
//! stored, and an object without any stored chunk does not exist.

use crate::assemble::Input;
use crate::codec::{CodecContext, PreparedArray};
use crate::error::{Error, ErrorKind, Result};
use crate::index::{MISSING, morton, sharding_indexed};
use crate::metadata::{ArrayMeta, ChunkForm, IndexLayout, IndexLocation, ShardLevel};
use crate::subset::MAX_RANK;

/// Checks that a box covers whole stored objects, clipped at the array's end.
///
/// # Errors
/// `Selection` when it reaches outside the array, `Unsupported` when it covers part of a stored object.
pub fn check_whole(array: &ArrayMeta, start: &[u64], counts: &[u64]) -> Result<()> {
    if start.len() != array.rank() || counts.len() != array.rank() {
        return Err(ErrorKind::Selection { what: "the box has another rank than the array".into() }.into());
    }
    for axis in 0..array.rank() {
        let (low, extent, grid) = (start[axis], array.shape[axis], &array.shard_grid[axis]);
        let high = low.checked_add(counts[axis]).filter(|&high| high <= extent);
        let Some(high) = high else {
            let what = format!("axis {axis} has {extent} voxels; the box reaches outside");
            return Err(ErrorKind::Selection { what }.into());
        };
        let on_grid = |at: u64| at == extent || grid.start(grid.cell_of(at)) == at;
        if counts[axis] > 0 && !(on_grid(low) && on_grid(high)) {
            let step = grid.extent(grid.cell_of(low));
            return Err(Error::unsupported(
                format!("axis {axis}: writing voxels {low}..{high}, which is part of a stored object of {step} voxels"),
                format!("write whole objects: start at a multiple of {step} and end at one or at the array's end"),
            ));
        }
    }
    Ok(())
}

/// Checks that every codec can be written, before an object that needs no codec (it goes away) is changed.
///
/// # Errors
/// `Unsupported` for a codec that is only read.
pub fn check_codecs(array: &ArrayMeta) -> Result<()> {
    array.levels.iter().try_for_each(|level| layout(level).map(|_| ()))?;
    if array.is_irregular() {
        return Err(Error::unsupported("writing chunks of different extents", "write an array with a regular grid"));
    }
    if array.chunk_form != ChunkForm::Elements {
        return Err(not_written());
    }
    if let Some(codec) = array.chunk_elements.first() {
        return Err(Error::unsupported(format!("writing the {} codec", codec.name), "make the array without it"));
    }
    let mut codecs = array.levels.iter().flat_map(|level| &level.outer).chain(&array.chunk_codecs);
    match codecs.find(|codec| !codec.is_written()) {
        None => Ok(()),
        Some(codec) => {
            Err(Error::unsupported(format!("writing the {} codec", codec.name()), "make the array with zstd instead"))
        }
    }
}

/// The layout of an index that can be written.
fn layout(level: &ShardLevel) -> Result<&IndexLayout> {
    level.layout().ok_or_else(not_written)
}

fn not_written() -> Error {
    Error::unsupported("writing this format", "write a Zarr v3 array with voxfetch.create")
}

/// Encodes the stored object at grid coordinates `shard`. None when all its voxels are the fill value.
///
/// # Errors
/// `Unsupported` when a codec cannot be written, `Internal` when `input` does not cover the object.
pub fn encode_object(
    array: &PreparedArray,
    context: &mut CodecContext,
    shard: &[u64],
    input: &Input,
) -> Result<Option<Vec<u8>>> {
    let first: Vec<u64> = shard.iter().zip(&array.shard_grid).map(|(&cell, grid)| grid.start(cell)).collect();
    let mut chunk = Vec::new();
    chunk
        .try_reserve_exact(array.chunk_nbytes)
        .map_err(|_| Error::limit("memory for a chunk", array.chunk_nbytes as u64, 0))?;
    chunk.resize(array.chunk_nbytes, 0);
    let mut out = Vec::new();
    let stored = encode_level(array, context, 0, &first, input, &mut chunk, &mut out)?;
    Ok(stored.then_some(out))
}

/// Appends the encoded entry of `level` whose first voxel is `first`; false when it need not be stored.
fn encode_level(
    array: &PreparedArray,
    context: &mut CodecContext,
    level: usize,
    first: &[u64],
    input: &Input,
    chunk: &mut [u8],
    out: &mut Vec<u8>,
) -> Result<bool> {
    let Some(spec) = array.levels.get(level) else {
        let stored = input.gather(array, first, chunk)?
            && chunk.chunks_exact(array.dtype.item_size()).any(|item| item != array.fill_value);
        if stored {
            array.chain().encode(context, chunk, out)?;
        }
        return Ok(stored);
    };
    let mut shard = Vec::new();
    let layout = layout(spec)?;
    let index_nbytes = layout.nbytes as usize;
    if layout.location == IndexLocation::Start {
        shard.resize(index_nbytes, 0);
    }
    let mut pairs = vec![(MISSING, MISSING); layout.entries as usize];
    let mut any = false;
    for cell in morton::morton_sequence(&spec.grid) {
        let mut corner = [0u64; MAX_RANK];
        let mut rest = cell;
        for axis in (0..first.len()).rev() {
            corner[axis] = first[axis] + rest % spec.grid[axis] * spec.entry_shape[axis];
            rest /= spec.grid[axis];
        }
        let corner = &corner[..first.len()];
        if corner.iter().zip(&array.shape).any(|(low, extent)| low >= extent) {
            continue;
        }
        let offset = shard.len() as u64;
        if encode_level(array, context, level + 1, corner, input, chunk, &mut shard)? {
            any = true;
            pairs[cell as usize] = (offset, shard.len() as u64 - offset);
        }
    }
    if !any {
        return Ok(false);
    }
    let index = sharding_indexed::encode(layout, &spec.grid, &pairs);
    match layout.location {
        IndexLocation::Start => shard[..index_nbytes].copy_from_slice(&index),
        IndexLocation::End => shard.extend_from_slice(&index),
    }
    match array.outer(level) {
        None => out.extend_from_slice(&shard),
        Some(outer) => outer.encode(context, &shard, out)?,
    }
    Ok(true)
}
