//! Planes of one large chunk through the assembly, which decodes no more of it than they need.

#![expect(unsafe_code, reason = "outputs are raw memory")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use voxfetch_core::assemble::{Assembly, Output, Worker};
use voxfetch_core::codec::{CodecChain, CodecContext, PreparedArray, Verify};
use voxfetch_core::error::{ErrorKind, Result};
use voxfetch_core::metadata::CodecSpec;
use voxfetch_core::metadata::zarr::parse_v3;
use voxfetch_core::plan::{AxisSelection, Plan, ReadSpec, Selection};

/// Voxels of the chunk along each axis.
const EXTENT: usize = 128;

/// Images compress a little.
fn voxel(z: usize, y: usize, x: usize) -> u8 {
    let noise = (z * EXTENT * EXTENT + y * EXTENT + x).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 62;
    (z + y / 2 + x / 4 + noise) as u8
}

/// The chunk in stored order: stored axis `k` is axis `order[k]` of (z, y, x).
fn stored(order: [usize; 3]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(EXTENT * EXTENT * EXTENT);
    for number in 0..EXTENT * EXTENT * EXTENT {
        let mut at = [0; 3];
        for (axis, place) in order.into_iter().zip([number >> 14, number >> 7 & 127, number & 127]) {
            at[axis] = place;
        }
        bytes.push(voxel(at[0], at[1], at[2]));
    }
    bytes
}

fn encode(specs: &[CodecSpec], bytes: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    CodecChain::outer(specs).unwrap().encode(&mut CodecContext::default(), bytes, &mut encoded).unwrap();
    encoded
}

const ZSTD: CodecSpec = CodecSpec::Zstd { level: 1, checksum: false };

/// Blocks of 96 KiB, each one zstd stream, not shuffled.
fn blosc(bytes: &[u8]) -> Vec<u8> {
    let blocksize = 96 << 10;
    let table_nbytes = 4 * bytes.len().div_ceil(blocksize);
    let (mut table, mut blocks) = (Vec::new(), Vec::new());
    for block in bytes.chunks(blocksize) {
        let stream = encode(&[ZSTD], block);
        table.extend(((16 + table_nbytes + blocks.len()) as i32).to_le_bytes());
        blocks.extend((stream.len() as i32).to_le_bytes());
        blocks.extend(stream);
    }
    let sizes = [bytes.len(), blocksize, 16 + table.len() + blocks.len()];
    let header = [2, 1, 0x90, 1].into_iter().chain(sizes.into_iter().flat_map(|size| (size as i32).to_le_bytes()));
    header.chain(table).chain(blocks).collect()
}

/// Codecs after `bytes` in a document, and a chunk encoded by them.
fn encodings(bytes: &[u8]) -> [(&'static str, Vec<u8>); 4] {
    let zstd = r#", {"name": "zstd", "configuration": {"level": 1, "checksum": false}}"#;
    [
        (zstd, encode(&[ZSTD], bytes)),
        (
            r#", {"name": "zstd", "configuration": {"level": 1, "checksum": false}}, "crc32c""#,
            encode(&[ZSTD, CodecSpec::CRC32C], bytes),
        ),
        (
            r#", {"name": "zstd", "configuration": {"level": 1, "checksum": true}}"#,
            encode(&[CodecSpec::Zstd { level: 1, checksum: true }], bytes),
        ),
        (r#", {"name": "blosc", "configuration": {}}"#, blosc(bytes)),
    ]
}

/// Reads planes, each (axis, place along it), as one plan; with `checked`, decodes for them without an output.
fn read(codecs: &str, object: &[u8], planes: &[(usize, usize)], checked: bool) -> Result<Vec<Vec<u8>>> {
    let document = format!(
        r#"{{"zarr_format": 3, "node_type": "array", "shape": [128, 128, 128], "data_type": "uint8", "fill_value": 0,
            "chunk_grid": {{"name": "regular", "configuration": {{"chunk_shape": [128, 128, 128]}}}},
            "chunk_key_encoding": "default", "codecs": [{codecs}]}}"#
    );
    let array = Arc::new(PreparedArray::new(parse_v3(document.as_bytes()).unwrap()).unwrap());
    let mut all: Vec<Vec<u8>> = planes.iter().map(|_| vec![0xA5; EXTENT * EXTENT]).collect();
    let (mut reads, mut outputs) = (Vec::new(), Vec::new());
    for (&(axis, place), bytes) in planes.iter().zip(&mut all) {
        let mut axes = vec![AxisSelection::Range { start: 0, step: 1, count: EXTENT as u64 }; 3];
        axes[axis] = AxisSelection::Range { start: place as u64, step: 1, count: 1 };
        reads.push(ReadSpec { array: 0, selection: Selection::Axes(axes) });
        let (mut counts, mut strides) = (vec![EXTENT as u64; 2], vec![EXTENT as isize, 1]);
        counts.insert(axis, 1);
        strides.insert(axis, 0);
        // SAFETY: the places are those of a packed plane, which outlives the output.
        outputs.push(
            (!checked).then(|| unsafe { Output::new(bytes.as_mut_ptr(), 1, 0, counts, strides) }).map(Into::into),
        );
    }
    let plan = Plan::new(vec![array], reads)?;
    let (visit, mut items) = (plan.visit(0), Vec::new());
    plan.chunk_items(&visit, &mut items)?;
    let assembly = Assembly { plan: &plan, outputs: &outputs, verify: Verify::Full, cache: None };
    assembly.deliver(&mut Worker::default(), &visit, &items, Some(object.into()))?;
    Ok(all)
}

fn plane((axis, place): (usize, usize)) -> Vec<u8> {
    let lines = (0..EXTENT).flat_map(|a| (0..EXTENT).map(move |b| (a, b)));
    lines
        .map(|(a, b)| match axis {
            0 => voxel(place, a, b),
            1 => voxel(a, place, b),
            _ => voxel(a, b, place),
        })
        .collect()
}

#[test]
fn planes_of_a_large_chunk_are_right_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let transpose = format!(r#"{{"name": "transpose", "configuration": {{"order": {order:?}}}}}, "#);
        for (codecs, object) in encodings(&stored(order)) {
            let codecs = format!(r#"{transpose}"bytes"{codecs}"#);
            for axis in 0..3 {
                for places in [&[0][..], &[40], &[127], &[3, 70], &[90, 91, 92], &[0, 127]] {
                    let planes: Vec<_> = places.iter().map(|&place| (axis, place)).collect();
                    let got = read(&codecs, &object, &planes, false).unwrap();
                    assert!(got.into_iter().eq(planes.iter().map(|&at| plane(at))), "{codecs} {planes:?}");
                }
            }
        }
    }
}

#[test]
fn what_lies_behind_the_planes_is_not_decoded_but_its_checksums_are_verified() {
    for (number, (codecs, mut object)) in encodings(&stored([0, 1, 2])).into_iter().enumerate() {
        let codecs = format!(r#""bytes"{codecs}"#);
        // In the last block.
        let end = object.len();
        object[end - 1000..end - 500].fill(0xFF);
        let has_checksum = number == 1 || number == 2;
        for (planes, needs_end) in [
            (&[(0, 0)][..], false),
            (&[(0, 95)], false),
            (&[(0, 127)], true),
            (&[(2, 0)], true),
            (&[(0, 3), (0, 60)], false),
            (&[(0, 3), (0, 127)], true),
        ] {
            match read(&codecs, &object, planes, false) {
                Ok(got) => {
                    assert!(!needs_end && !has_checksum, "{codecs} {planes:?}");
                    assert!(got.into_iter().eq(planes.iter().map(|&at| plane(at))), "{codecs} {planes:?}");
                }
                Err(error) => {
                    assert!(needs_end || has_checksum, "{codecs} {planes:?}: {error}");
                    assert!(matches!(error.kind(), ErrorKind::Codec { .. } | ErrorKind::Checksum { .. }), "{error}");
                }
            }
            // A check is of the whole chunk.
            assert!(read(&codecs, &object, planes, true).is_err(), "{codecs} {planes:?}");
        }
    }
}
