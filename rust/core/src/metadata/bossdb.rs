//! One resolution of a BossDB channel -> [`ArrayMeta`].
//!
//! A BossDB server has no files; its cuboids are the stored objects, as the store that asks for cutouts presents them. The
//! document is that of a Zarr v3 array with such shards, and says in `attributes.origin` where the coordinate frame
//! begins: cuboids are counted from voxel 0, wherever that is.

use super::json::{Node, parse};
use super::resolve::{check_shapes, grid};
use super::{ArrayMeta, CodecList, CodecSpec, zarr};
use crate::error::Result;
use crate::subset::{MAX_EXTENT, MAX_RANK};

/// Reads the document of one resolution.
///
/// # Errors
/// As [`zarr::parse_v3`].
pub fn array(document: &[u8]) -> Result<ArrayMeta> {
    let value = parse(document, &[])?;
    let place = Node::root(&value).require("attributes")?.require("origin")?;
    let origin =
        place.items(MAX_RANK)?.map(|item| item.integer(0, MAX_EXTENT).map(|n| n as u64)).collect::<Result<Vec<_>>>()?;
    let array = zarr::parse_v3(document)?;
    if origin.len() != array.rank() {
        return Err(place.expected("one voxel an axis"));
    }
    let cuboid = array.shard_shape().ok_or_else(|| Node::root(&value).error("cuboids are shards"))?;
    let ends: Vec<u64> =
        array.shape.iter().zip(&origin).map(|(&extent, &first)| extent.saturating_add(first)).collect();
    check_shapes(&ends, &cuboid)?;
    Ok(ArrayMeta {
        shard_grid: grid(&ends, &cuboid)?,
        // What people see: voxels as they are. That a cuboid is a shard is between us and the store.
        codecs: CodecList::from(vec![CodecSpec::Bytes { endian: array.endian }]),
        origin: origin.iter().map(|&first| first.cast_signed()).collect(),
        grid_origin: origin,
        ..array
    })
}

#[cfg(test)]
mod tests {
    use super::array;
    use crate::metadata::CodecSpec;

    fn document(origin: &str, codec: &str) -> Vec<u8> {
        let bytes = r#"{"name": "bytes", "configuration": {"endian": "little"}}"#;
        let shards = format!(
            r#"{{"name": "sharding_indexed", "configuration": {{"chunk_shape": [4, 64], "codecs": [{bytes}], "index_codecs": [{bytes}]}}}}"#
        );
        let codec = if codec.is_empty() { &shards } else { bytes };
        format!(
            r#"{{"zarr_format": 3, "node_type": "array", "shape": [40, 1000], "data_type": "uint16", "fill_value": 0,
                "chunk_grid": {{"name": "regular", "configuration": {{"chunk_shape": [16, 512]}}}},
                "chunk_key_encoding": "default", "codecs": [{codec}], "attributes": {{{origin}}}}}"#
        )
        .into_bytes()
    }

    #[test]
    fn cuboids_are_counted_from_voxel_zero() {
        let array = array(&document(r#""origin": [8, 513]"#, "")).unwrap();
        assert_eq!((array.origin.clone(), array.grid_origin.clone()), (vec![8, 513], vec![8, 513]));
        assert_eq!(array.shard_grid.iter().map(|axis| axis.cells()).collect::<Vec<_>>(), [3, 3]);
        assert_eq!((array.shape.clone(), array.chunk_shape.clone()), (vec![40, 1000], vec![4, 64]));
        assert_eq!(CodecSpec::describe(&array.codecs), "bytes");
    }

    #[test]
    fn other_documents_are_refused() {
        for (origin, codec, part) in [
            ("", "", "origin"),
            (r#""origin": [8]"#, "", "one voxel an axis"),
            (r#""origin": [8, -1]"#, "", "origin[1]"),
            (r#""origin": [8, 18446744073709551615]"#, "", "origin[1]"),
            (r#""origin": [8, 0]"#, "bytes", "cuboids are shards"),
        ] {
            let error = array(&document(origin, codec)).unwrap_err().to_string();
            assert!(error.contains(part), "{origin}: {error}");
        }
    }
}
