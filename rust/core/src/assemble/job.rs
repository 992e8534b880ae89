//! Jobs of the machine: an index decoded, or chunks delivered to their outputs. Needs nothing but its arguments.

use std::ops::Range;

use super::{Assembly, Encoded, Target, Worker};
use crate::error::{Error, Result};
use crate::plan::machine::{Delivery, Job, Outcome, Part, Task};

/// The memory of the reads of a plan; None for a read that is only checked.
pub type Outputs = Vec<Option<Target>>;

/// Carries a job out. Errors are part of the outcome.
pub fn carry_out<B: AsRef<[u8]>>(job: &Job<Outputs, B>, worker: &mut Worker) -> Outcome {
    let body = job.body.as_ref().map_or(&[][..], AsRef::as_ref);
    match &job.task {
        Task::Index(task) => Outcome::Index(task.array.meta.level_in(task.level, &task.cell).map_or_else(
            || Err(Error::internal("an index level the array lacks")),
            |spec| {
                let encoded =
                    body.get(task.encoded.clone()).ok_or_else(|| Error::internal("an index outside its body"));
                spec.index.decode(&spec.grid, encoded?, task.shard, task.object_nbytes)
            },
        )),
        Task::Deliver { body_start, parts } => {
            Outcome::Delivered(parts.iter().map(|part| deliver(part, body, *body_start, worker)).collect())
        }
    }
}

/// The outcome of a job that could not be carried out.
#[must_use]
pub fn failed<B>(job: &Job<Outputs, B>, error: &Error) -> Outcome {
    match &job.task {
        Task::Index(_) => Outcome::Index(Err(error.clone())),
        Task::Deliver { parts, .. } => {
            Outcome::Delivered(parts.iter().map(|part| vec![(0..part.items.len(), error.clone())]).collect())
        }
    }
}

fn deliver(part: &Part<Outputs>, body: &[u8], body_start: u64, worker: &mut Worker) -> Vec<(Range<usize>, Error)> {
    let plan = &part.shared.plan;
    let visit = plan.visit(part.number);
    let array = &part.shared.arrays[visit.array];
    let without;
    let outputs = if part.dropped.is_empty() {
        &part.shared.payload
    } else {
        let mut outputs = part.shared.payload.clone();
        part.dropped.iter().for_each(|&read| outputs[read as usize] = None);
        without = outputs;
        &without
    };
    let assembly = Assembly { plan, outputs, verify: array.verify, cache: part.cache.as_ref() };
    let mut errors = Vec::new();
    let mut note = |items: Range<usize>, result: Result<()>| {
        if let Err(error) = result {
            errors.push((items, error));
        }
    };
    match &part.delivery {
        Delivery::Chunks(chunks) => {
            for chunk in chunks {
                let from = chunk.range.start.checked_sub(body_start);
                let bytes = from.and_then(|from| body.get(from as usize..(from + chunk.range.len()) as usize));
                let items = &part.items[chunk.items.clone()];
                let result = match bytes {
                    Some(bytes) => {
                        let encoded = Encoded { bytes, extent: &chunk.extent };
                        assembly.deliver(worker, &visit, items, Some(encoded))
                    }
                    None => Err(Error::internal("a chunk outside its body")),
                };
                note(chunk.items.clone(), result.map_err(|error| error.in_range(chunk.range)));
            }
        }
        Delivery::Object => {
            let result = if array.meta.levels.is_empty() {
                assembly.deliver(worker, &visit, &part.items, Some(body.into()))
            } else {
                assembly.deliver_object(worker, &visit, &part.items, body)
            };
            note(0..part.items.len(), result);
        }
        Delivery::Kept(chunks) => {
            for chunk in chunks {
                let items = &part.items[chunk.items.clone()];
                note(chunk.items.clone(), assembly.deliver_kept(&visit, items, &chunk.elements));
            }
        }
        Delivery::Missing(groups) => {
            for group in groups {
                note(group.clone(), assembly.deliver(worker, &visit, &part.items[group.clone()], None));
            }
        }
    }
    errors
}
