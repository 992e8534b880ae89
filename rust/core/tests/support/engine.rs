//! The plainest engine: objects in memory, indexes that are asked for and come later, requests merged as told.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use voxfetch_core::assemble::{Assembly, Encoded, Output, Worker};
use voxfetch_core::codec::Verify;
use voxfetch_core::error::Result;
use voxfetch_core::index::ShardIndex;
use voxfetch_core::plan::coalesce::{Merge, coalesce};
use voxfetch_core::plan::shard::{IndexSource, resolve};
use voxfetch_core::plan::{Plan, Selection};
use voxfetch_core::subset::ByteRange;

/// Stored objects by their grid coordinates.
pub type Objects = BTreeMap<Vec<u64>, Vec<u8>>;

struct Known(HashMap<(usize, ByteRange), Arc<ShardIndex>>);

impl IndexSource for Known {
    fn index(&mut self, level: usize, shard: ByteRange) -> Result<Option<Arc<ShardIndex>>> {
        Ok(self.0.get(&(level, shard)).cloned())
    }
}

/// Carries a plan out; `objects` are those of each array of the plan, `outputs` one for each of its reads.
///
/// # Errors
/// The first problem met.
pub fn carry_out(plan: &Plan, outputs: &[Output], objects: &[Objects], verify: Verify, merge: Merge) -> Result<()> {
    for (read, output) in plan.reads().iter().zip(outputs) {
        if let Selection::Boxes { starts, shape, fill_outside: true } = &read.selection {
            for part in 0..starts.len().checked_div(shape.len()).unwrap_or(1) {
                output.fill_box(part as u32, &plan.arrays()[read.array].fill_value)?;
            }
        }
    }
    let outputs: Vec<_> = outputs.iter().cloned().map(|output| Some(output.into())).collect();
    let assembly = Assembly { plan, outputs: &outputs, verify, cache: None };
    let mut worker = Worker::default();
    for number in 0..plan.visits() {
        let visit = plan.visit(number);
        let array = &*plan.arrays()[visit.array];
        let mut items = Vec::new();
        plan.chunk_items(&visit, &mut items)?;
        let Some(object) = objects[visit.array].get(&visit.shard) else {
            for same in items.chunk_by(|a, b| a.chunk == b.chunk) {
                assembly.deliver(&mut worker, &visit, same, None)?;
            }
            continue;
        };
        if array.levels.is_empty() {
            assembly.deliver(&mut worker, &visit, &items, Some(object.as_slice().into()))?;
            continue;
        }
        if array.has_outer_codecs() {
            assembly.deliver_object(&mut worker, &visit, &items, object)?;
            continue;
        }
        let mut known = Known(HashMap::new());
        let resolved = loop {
            let resolved = resolve(plan, &visit, &items, object.len() as u64, &mut known);
            if resolved.needs.is_empty() {
                break resolved;
            }
            for (level, shard) in resolved.needs {
                let spec = array.level_in(level, &visit.shard).unwrap();
                let range = spec.index.range(shard)?.unwrap();
                let encoded = &object[range.start as usize..range.end as usize];
                let index = spec.index.decode(&spec.grid, encoded, shard, object.len() as u64)?;
                known.0.insert((level, shard), Arc::new(index));
            }
        };
        if let Some((_, error)) = resolved.failed.into_iter().next() {
            return Err(error);
        }
        for group in resolved.missing {
            assembly.deliver(&mut worker, &visit, &items[group], None)?;
        }
        for request in coalesce(resolved.stored.iter().map(|chunk| chunk.range), merge) {
            let body = &object[request.range.start as usize..request.range.end as usize];
            for chunk in &resolved.stored[request.members] {
                let from = (chunk.range.start - request.range.start) as usize;
                let bytes = &body[from..from + chunk.range.len() as usize];
                let encoded = Encoded { bytes, extent: &chunk.extent };
                assembly.deliver(&mut worker, &visit, &items[chunk.items.clone()], Some(encoded))?;
            }
        }
    }
    Ok(())
}
