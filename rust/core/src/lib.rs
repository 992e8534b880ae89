//! voxfetch-core: chunked n-D image formats as pure functions of values.
//!
//! # Data flow
//! documents -> [`metadata::ArrayMeta`] -> [`codec::PreparedArray`] -> [`index::ShardIndex`] -> requests
//! ([`plan::coalesce`]) -> bodies -> [`codec::CodecChain`] -> [`assemble`] -> the caller's array. Where requests take time,
//! [`plan::machine`] says which to send and what follows from each reply.
//!
//! # Words
//! chunk: smallest unit decoded. shard: stored object that holds chunks. request: one merged byte range. body: its
//! bytes. projection: the part of a chunk that a read needs, and its place in the output.
//!
//! # Layers (each knows only those before it; a test holds the rule)
//! | layer | modules |
//! |---|---|
//! | L0 | `subset`, `error`, `dtype` |
//! | L1 | `metadata` (documents -> `ArrayMeta`) |
//! | L2 | `codec` (`CodecSpec` -> `CodecChain`, `ArrayMeta` -> `PreparedArray`) |
//! | L3 | `index`, `chunk_cache` (chunk -> byte range or MISSING; what is kept of indexes, of decoded chunks) |
//! | L4 | `plan` (reads -> shards -> chunks -> merged requests; the machine of remote reads) |
//! | L5 | `assemble`, `shard_writer` (decoded box <-> strided memory; chunks -> bytes of one shard) |

pub mod assemble;
pub mod chunk_cache;
pub mod codec;
pub mod dtype;
pub mod error;
pub mod index;
pub mod metadata;
pub mod plan;
pub mod shard_writer;
pub mod subset;
