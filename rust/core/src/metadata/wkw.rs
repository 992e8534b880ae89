//! WEBKNOSSOS WKW -> [`ArrayMeta`]: axes (c, x, y, z), one chunk a block, one shard a file.
//!
//! Source: webknossos-wrap, "File format" and `rust/src/header.rs`. A header says how blocks are stored and nothing of
//! the extent, which a dataset's `datasource-properties.json` gives; both come in one small JSON document:
//! `{"header": "574b5701...", "start": [x, y, z], "shape": [x, y, z]}`, the 16 bytes in hexadecimal, voxels of this mag.

use super::json::{Node, parse as parse_json};
use super::resolve::{check_shapes, chunk_nbytes, grid};
use super::{ArrayMeta, ChunkForm, CodecList, CodecSpec, IndexSpec, KeyEncoding, ShardLevel, WkwFile};
use crate::dtype::{DataType, Endian};
use crate::error::{Error, Result};
use crate::metadata::limits::MAX_INDEX_NBYTES;
use crate::subset::MAX_EXTENT;

/// A slice of the jump table is that of 8^3 blocks: 4 KiB, for 256^3 voxels in the usual layout.
const SLICE_LOG2: u32 = 3;

/// A decoded header (16 bytes).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Header {
    block_log2: u32,
    blocks_log2: u32,
    is_compressed: bool,
    dtype: DataType,
    /// Bytes of one voxel, all channels together.
    voxel_nbytes: u64,
}

/// Reads the document of one mag.
///
/// # Errors
/// `Metadata` when it breaks a rule, `Unsupported` for a version or type that is not read, `Limit` when it asks for more
/// than is allowed.
pub fn parse(document: &[u8]) -> Result<ArrayMeta> {
    let value = parse_json(document, &["attributes"])?;
    let document = Node::root(&value);
    let header = header(&document.require("header")?)?;
    let (start, extent) = (triple(&document.require("start")?)?, triple(&document.require("shape")?)?);
    let channels = header.voxel_nbytes / header.dtype.item_size() as u64;
    let block = 1 << header.block_log2;
    let file = block << header.blocks_log2;
    let mut shape = vec![channels];
    shape.extend(extent);
    let mut grid_origin = vec![0];
    grid_origin.extend(start);
    let ends: Vec<u64> = shape.iter().zip(&grid_origin).map(|(n, first)| n.saturating_add(*first)).collect();
    let (chunk_shape, file_shape) = (vec![channels, block, block, block], [channels, file, file, file]);
    check_shapes(&shape, &chunk_shape)?;
    check_shapes(&ends, &file_shape)?;
    let nbytes = chunk_nbytes(&chunk_shape, &header.dtype)?;
    let (levels, codec) = levels(&header, nbytes as u64, channels)?;
    Ok(ArrayMeta {
        shard_grid: grid(&ends, &file_shape)?,
        origin: grid_origin.iter().map(|&first| first as i64).collect(),
        grid_origin,
        fill_value: vec![0; header.dtype.item_size()],
        dtype: header.dtype,
        dimension_names: ["c", "x", "y", "z"].map(|name| Some(name.into())).into(),
        keys: KeyEncoding::Wkw,
        levels,
        // The channels of a voxel lie together, then x.
        chunk_order: vec![3, 2, 1, 0],
        chunk_nbytes: nbytes,
        chunk_shape,
        endian: Endian::Little,
        chunk_form: ChunkForm::Elements,
        chunk_elements: Vec::new(),
        chunk_codecs: codec.clone().into_iter().collect(),
        codecs: CodecList::from(
            std::iter::once(CodecSpec::Bytes { endian: Endian::Little }).chain(codec).collect::<Vec<_>>(),
        ),
        shape,
    })
}

/// The levels of a file: its blocks, or with compression the slices of its jump table and then their blocks.
fn levels(header: &Header, block_nbytes: u64, channels: u64) -> Result<(Vec<ShardLevel>, Option<CodecSpec>)> {
    let (blocks, block) = (header.blocks_log2, 1 << header.block_log2);
    let mut file = WkwFile {
        blocks_log2: blocks,
        slice_log2: SLICE_LOG2.min(blocks),
        block_nbytes,
        data_offset: WkwFile::HEADER_NBYTES,
    };
    let level = |cells_log2: u32, entry: u64, index: IndexSpec| {
        let cells = 1 << cells_log2;
        ShardLevel {
            outer: Vec::new(),
            grid: vec![1, cells, cells, cells],
            entry_shape: vec![channels, entry, entry, entry],
            index,
        }
    };
    if !header.is_compressed {
        return Ok((vec![level(blocks, block, IndexSpec::WkwRaw(file))], None));
    }
    let table_nbytes = 8 * file.blocks();
    if table_nbytes > MAX_INDEX_NBYTES {
        return Err(Error::limit("bytes of a jump table", table_nbytes, MAX_INDEX_NBYTES));
    }
    file.data_offset += table_nbytes;
    let slice = file.slice_log2;
    let table = level(blocks - slice, block << slice, IndexSpec::WkwTable(file.clone()));
    Ok((vec![table, level(slice, block, IndexSpec::WkwSlice(file))], Some(CodecSpec::Lz4Block)))
}

fn header(node: &Node<'_>) -> Result<Header> {
    let text = node.str()?;
    let digit = |at: usize| text.as_bytes().get(at).and_then(|&byte| char::from(byte).to_digit(16));
    let mut bytes = [0u8; 16];
    for (at, byte) in bytes.iter_mut().enumerate() {
        let (Some(high), Some(low)) = (digit(2 * at), digit(2 * at + 1)) else {
            return Err(node.error("a header.wkw has 16 bytes"));
        };
        *byte = (high << 4 | low) as u8;
    }
    let [b'W', b'K', b'W', version, per_dim_log2, block_type, voxel_type, voxel_nbytes, ..] = bytes else {
        return Err(node.error("not a header.wkw: it does not begin with WKW"));
    };
    if text.len() != 32 {
        return Err(node.error("a header.wkw has 16 bytes"));
    }
    if version != 1 {
        return Err(Error::unsupported(format!("version {version} of WKW"), "version 1 is read"));
    }
    let is_compressed = match block_type {
        1 => false,
        // LZ4 and LZ4HC decode alike.
        2 | 3 => true,
        other => return Err(Error::unsupported(format!("block type {other} of WKW"), "1 to 3 are read")),
    };
    let dtype = match voxel_type {
        1..=4 => DataType::UInt(1 << (voxel_type - 1)),
        5 => DataType::Float(4),
        6 => DataType::Float(8),
        7..=10 => DataType::Int(1 << (voxel_type - 7)),
        other => return Err(Error::unsupported(format!("voxel type {other} of WKW"), "1 to 10 are read")),
    };
    let item = dtype.item_size();
    if voxel_nbytes == 0 || !usize::from(voxel_nbytes).is_multiple_of(item) {
        let what = format!("{voxel_nbytes} bytes a voxel are no whole number of {}", dtype.numpy_name());
        return Err(node.error(what));
    }
    Ok(Header {
        block_log2: u32::from(per_dim_log2 & 15),
        blocks_log2: u32::from(per_dim_log2 >> 4),
        is_compressed,
        dtype,
        voxel_nbytes: u64::from(voxel_nbytes),
    })
}

fn triple(node: &Node<'_>) -> Result<[u64; 3]> {
    let values = node.items(3)?.map(|item| item.u64()).collect::<Result<Vec<_>>>()?;
    match <[u64; 3]>::try_from(values) {
        Ok(values) if values.iter().all(|&value| value <= MAX_EXTENT / 2) => Ok(values),
        _ => Err(node.expected("three extents: x, y, z")),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::dtype::DataType;
    use crate::metadata::IndexSpec;

    fn document(header: &str) -> Vec<u8> {
        format!(r#"{{"header": "{header}", "start": [40, 0, 3], "shape": [70, 64, 9], "attributes": {{"a": 1}}}}"#)
            .into()
    }

    #[test]
    fn the_usual_layouts() {
        let raw = parse(&document("574b5701110102020000000000000000")).unwrap();
        assert_eq!(raw.shape, [1, 70, 64, 9]);
        assert_eq!(raw.grid_origin, [0, 40, 0, 3]);
        assert_eq!((raw.dtype.clone(), raw.chunk_shape.clone()), (DataType::UInt(2), vec![1, 2, 2, 2]));
        assert_eq!(raw.shard_shape().unwrap(), [1, 4, 4, 4]);
        assert_eq!(raw.shard_grid.iter().map(|axis| axis.cells()).collect::<Vec<_>>(), [1, 28, 16, 3]);
        assert_eq!(raw.keys.key(&[0, 27, 2, 1]), "z1/y2/x27.wkw");
        // RGB, 8^3 blocks, 4 a side.
        let rgb = parse(&document("574b5701230101030000000000000000")).unwrap();
        assert_eq!((rgb.shape[0], rgb.chunk_nbytes), (3, 512 * 3));
        let lz4 = parse(&document("574b5701550201010000000000000000")).unwrap();
        let [table, slice] = lz4.levels.as_slice() else { panic!("{:?}", lz4.levels) };
        assert_eq!((table.grid.clone(), table.entry_shape.clone()), (vec![1, 4, 4, 4], vec![1, 256, 256, 256]));
        assert_eq!((slice.grid.clone(), slice.entry_shape.clone()), (vec![1, 8, 8, 8], vec![1, 32, 32, 32]));
        let IndexSpec::WkwSlice(file) = &slice.index else { panic!("{:?}", slice.index) };
        assert_eq!(file.data_offset, 262_160);
    }

    #[test]
    fn bad_headers_are_refused() {
        for (header, part) in [
            ("574b57", "16 bytes"),
            ("574b570111010202000000000000000000", "16 bytes"),
            ("584b5701110102020000000000000000", "does not begin with WKW"),
            ("574b5702110102020000000000000000", "version 2"),
            ("574b5701110402020000000000000000", "block type 4"),
            ("574b570111010b020000000000000000", "voxel type 11"),
            ("574b5701110102030000000000000000", "no whole number of uint16"),
            ("574b5701110102000000000000000000", "no whole number of uint16"),
            ("574b5701ff0102020000000000000000", "limit"),
            ("574b5701a10201010000000000000000", "jump table"),
        ] {
            let error = parse(&document(header)).unwrap_err().to_string();
            assert!(error.contains(part), "{header}: {error}");
        }
        let endless = br#"{"header": "574b5701110102020000000000000000", "start": [18446744073709551615, 0, 0], "shape": [1, 1, 1]}"#;
        assert!(parse(endless).is_err());
    }
}
