//! Rules of the `info` of a precomputed volume, one row each.

use proptest::prelude::*;
use voxfetch_core::dtype::DataType;
use voxfetch_core::error::Result;
use voxfetch_core::metadata::precomputed::{Encoding, PrecomputedScale, parse};
use voxfetch_core::metadata::uint64_sharding::{Hash, Sharding};

use super::{Members, assert_error, document};

const SCALE: Members = &[
    ("key", r#""8_8_40""#),
    ("size", "[9, 5, 7]"),
    ("chunk_sizes", "[[4, 5, 2]]"),
    ("resolution", "[8, 8, 40.5]"),
    ("encoding", r#""raw""#),
];

const INFO: Members = &[("type", r#""image""#), ("data_type", r#""uint16""#), ("num_channels", "1")];

const SHARDING: Members = &[
    ("@type", r#""neuroglancer_uint64_sharded_v1""#),
    ("preshift_bits", "9"),
    ("hash", r#""identity""#),
    ("minishard_bits", "6"),
    ("shard_bits", "15"),
];

fn text(info: Members, scale: Members) -> String {
    let scales = format!("[{}]", document(SCALE, scale));
    let changed: Vec<_> = INFO.iter().copied().chain([("scales", scales.as_str())]).collect();
    document(&changed, info)
}

fn read(info: Members, scale: Members) -> Result<PrecomputedScale> {
    parse(text(info, scale).as_bytes())
}

fn sharded(changes: Members) -> Result<PrecomputedScale> {
    read(&[], &[("sharding", &document(SHARDING, changes))])
}

#[test]
fn an_ordinary_volume() {
    let scale = read(&[("mesh", "\"mesh\"")], &[("hidden", "true")]).unwrap();
    let expected = PrecomputedScale {
        dtype: DataType::UInt(2),
        num_channels: 1,
        size: [9, 5, 7],
        voxel_offset: [0; 3],
        chunk_size: [4, 5, 2],
        encoding: Encoding::Raw,
        sharding: None,
        key: "8_8_40".into(),
    };
    assert_eq!(scale, expected);
    assert_eq!(scale.grid(), [3, 1, 4]);
    assert_eq!(scale.object_name(&[0, 0, 0]), "0-4_0-5_0-2");
    assert_eq!(scale.object_name(&[2, 0, 3]), "8-9_0-5_6-7");
    assert_eq!(read(&[], &[("voxel_offset", "null"), ("sharding", "null")]).unwrap(), expected);
}

#[test]
fn keys_have_the_coordinates_of_the_whole_world() {
    let scale = read(&[], &[("voxel_offset", "[-6, 27648, -1]"), ("key", "\"\"")]).unwrap();
    assert_eq!(scale.voxel_offset, [-6, 27648, -1]);
    assert_eq!(scale.object_name(&[0, 0, 0]), "-6--2_27648-27653_-1-1");
    assert_eq!(scale.object_name(&[1, 0, 1]), "-2-2_27648-27653_1-3");
    assert_eq!(scale.object_name(&[2, 0, 3]), "2-3_27648-27653_5-6");
    let far = (1i64 << 62) - 2;
    let (size, offset) = (format!("[{far}, 1, 0]"), format!("[{far}, {}, 0]", -far));
    let scale = read(&[], &[("size", &size), ("voxel_offset", &offset), ("key", "\"a/b\"")]).unwrap();
    assert_eq!(scale.grid(), [1 << 60, 1, 0]);
    let last = scale.object_name(&[(1 << 60) - 1, 0, 0]);
    assert_eq!(last, format!("{}-{}_{}-{}_0-0", 2 * far - 2, 2 * far, -far, 1 - far));
    // Cells that are none end where the volume does.
    assert!(scale.object_name(&[u64::MAX, u64::MAX, u64::MAX]).contains("_"));
}

#[test]
fn data_types() {
    for (name, dtype) in [
        ("uint8", DataType::UInt(1)),
        ("uint16", DataType::UInt(2)),
        ("uint32", DataType::UInt(4)),
        ("uint64", DataType::UInt(8)),
        ("UINT64", DataType::UInt(8)),
        ("int8", DataType::Int(1)),
        ("int16", DataType::Int(2)),
        ("int32", DataType::Int(4)),
        ("float32", DataType::Float(4)),
    ] {
        assert_eq!(read(&[("data_type", &format!("\"{name}\""))], &[]).unwrap().dtype, dtype);
    }
    for name in ["float64", "int64", "bool", "complex64"] {
        assert_error(read(&[("data_type", &format!("\"{name}\""))], &[]), "UnsupportedError", name);
    }
}

#[test]
fn encodings() {
    let block = ("compressed_segmentation_block_size", "[8, 8, 4]");
    for (name, encoding, types, channels) in [
        ("raw", Encoding::Raw, "uint8 int8 uint16 int16 uint32 int32 uint64 float32", "1 2 3 4 5"),
        ("jpeg", Encoding::Jpeg, "uint8", "1 3"),
        ("png", Encoding::Png, "uint8 uint16", "1 2 3 4"),
        (
            "compressed_segmentation",
            Encoding::CompressedSegmentation { block_size: [8, 8, 4] },
            "uint32 uint64",
            "1 2 3 4 5",
        ),
        ("compresso", Encoding::Compresso, "uint8 uint16 uint32 uint64", "1"),
    ] {
        for dtype in "uint8 int8 uint16 int16 uint32 int32 uint64 float32".split(' ') {
            for number in "1 2 3 4 5".split(' ') {
                let info = [("data_type", &*format!("\"{dtype}\"")), ("num_channels", number)];
                let found = read(&info, &[("encoding", &format!("\"{name}\"")), block]);
                if types.split(' ').any(|one| one == dtype) && channels.split(' ').any(|one| one == number) {
                    assert_eq!(found.unwrap().encoding, encoding, "{dtype} {number}");
                } else {
                    assert_error(found, "MetadataError", &format!("scales[0].encoding: `{name}` cannot hold {number}"));
                }
            }
        }
    }
    for name in ["jxl", "npz", "fpzip", "kempressed", "zfpc", "crackle", "RAW"] {
        let found = read(&[], &[("encoding", &format!("\"{name}\""))]);
        assert_error(found, "UnsupportedError", &format!("encoding `{name}`"));
    }
    let labels = [("data_type", "\"uint64\"")];
    let encoding = ("encoding", "\"compressed_segmentation\"");
    for (block, part) in [("", "missing"), ("[8, 8]", "three numbers"), ("[8, 0, 8]", "[1]: expected"), ("8", "a list")]
    {
        let found = read(&labels, &[encoding, ("compressed_segmentation_block_size", block)]);
        assert_error(found, "MetadataError", part);
    }
}

#[test]
fn sharding() {
    let scale = sharded(&[]).unwrap();
    let expected = Sharding {
        preshift_bits: 9,
        hash: Hash::Identity,
        minishard_bits: 6,
        shard_bits: 15,
        minishard_index_gzip: false,
        data_gzip: false,
    };
    assert_eq!(scale.sharding, Some(expected));
    assert_eq!(expected.index_nbytes(), 1024);
    assert_eq!(expected.key(0x7112), "7112.shard");
    let scale = sharded(&[
        ("hash", "\"murmurhash3_x86_128\""),
        ("minishard_index_encoding", "\"gzip\""),
        ("data_encoding", "\"raw\""),
    ]);
    let found = scale.unwrap().sharding.unwrap();
    assert_eq!(found, Sharding { hash: Hash::Murmur3X86_128, minishard_index_gzip: true, ..expected });
    assert!(sharded(&[("data_encoding", "\"gzip\"")]).unwrap().sharding.unwrap().data_gzip);
    let limits = [("preshift_bits", "64"), ("minishard_bits", "22"), ("shard_bits", "42")];
    assert_eq!(sharded(&limits).unwrap().sharding.unwrap().index_nbytes(), 64 << 20);
}

#[test]
fn what_is_wrong_with_sharding() {
    type Row<'a> = (&'a str, &'a str, &'a str, &'a str);
    let table: &[Row] = &[
        ("@type", "\"other\"", "UnsupportedError", "scales[0].sharding.@type: sharding `other`"),
        ("@type", "", "MetadataError", "scales[0].sharding.@type: missing"),
        ("hash", "\"sha1\"", "UnsupportedError", "scales[0].sharding.hash: hash function `sha1`"),
        ("hash", "", "MetadataError", "scales[0].sharding.hash: missing"),
        ("preshift_bits", "65", "MetadataError", "from 0 to 64"),
        ("preshift_bits", "-1", "MetadataError", "from 0 to 64"),
        ("preshift_bits", "", "MetadataError", "missing"),
        ("minishard_bits", "33", "MetadataError", "from 0 to 32"),
        ("minishard_bits", "32", "LimitExceededError", "bytes of a shard index"),
        ("minishard_bits", "23", "LimitExceededError", "needs 134217728, the limit is 67108864"),
        ("shard_bits", "65", "MetadataError", "from 0 to 64"),
        ("shard_bits", "59", "MetadataError", "more than the 64"),
        ("minishard_index_encoding", "\"zstd\"", "UnsupportedError", "minishard_index_encoding: `zstd`"),
        ("data_encoding", "\"br\"", "UnsupportedError", "data_encoding: `br`"),
        ("data_encoding", "null", "MetadataError", "a short string"),
    ];
    for &(member, value, class, part) in table {
        assert_error(sharded(&[(member, value)]), class, part);
    }
    assert_error(read(&[], &[("sharding", "true")]), "MetadataError", "scales[0].sharding");
    let copies = [("sharding", document(SHARDING, &[])), ("chunk_sizes", "[[4, 5, 2], [9, 9, 9]]".into())];
    let copies: Vec<_> = copies.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_error(read(&[], &copies), "MetadataError", "scales[0].chunk_sizes");
    assert_eq!(read(&[], &copies[1..]).unwrap().chunk_size, [4, 5, 2]);
    // 2^22 chunks along each axis: 66 bits. Not sharded, they are refused for their number.
    let many = [("size", "[4194304, 4194304, 4194304]"), ("chunk_sizes", "[[1, 1, 1]]")];
    assert_error(read(&[], &many), "LimitExceededError", "number of chunks");
    // 62 bits of chunks, but every axis is one chunk longer than a power of two.
    let odd = [("size", "[2097153, 2097153, 1048577]"), ("chunk_sizes", "[[1, 1, 1]]")];
    read(&[], &odd).unwrap();
    let odd = [odd[0], odd[1], ("sharding", copies[0].1)];
    assert_error(read(&[], &odd), "LimitExceededError", "bits of a chunk id: needs 65, the limit is 64");
}

#[test]
fn what_is_wrong_with_a_volume() {
    type Row<'a> = (&'a str, &'a str, &'a str, &'a str);
    let table: &[Row] = &[
        ("key", "", "MetadataError", "scales[0].key: missing"),
        ("key", "8", "MetadataError", "scales[0].key: expected a string"),
        ("key", "\"../8\"", "MetadataError", "scales[0].key: expected a folder below"),
        ("key", "\"a/../../b\"", "MetadataError", "scales[0].key"),
        ("key", "\"/a\"", "MetadataError", "scales[0].key"),
        ("key", "\"a//b\"", "MetadataError", "scales[0].key"),
        ("key", "\"a/\"", "MetadataError", "scales[0].key"),
        ("key", "\"a\\\\b\"", "MetadataError", "scales[0].key"),
        ("key", "\"a\\u0000\"", "MetadataError", "scales[0].key"),
        ("size", "", "MetadataError", "scales[0].size: missing"),
        ("size", "[9, 5]", "MetadataError", "scales[0].size: expected three numbers, found a list of 2"),
        ("size", "[9, 5, 7, 1]", "MetadataError", "found a list of 4"),
        ("size", "[9, -5, 7]", "MetadataError", "scales[0].size[1]"),
        ("size", "[9, 5.5, 7]", "MetadataError", "scales[0].size[1]"),
        ("size", "[9, 5, 4611686018427387903]", "MetadataError", "scales[0].size[2]"),
        ("voxel_offset", "[0, 0]", "MetadataError", "scales[0].voxel_offset"),
        ("voxel_offset", "[0, 0, -4611686018427387903]", "MetadataError", "scales[0].voxel_offset[2]"),
        ("chunk_sizes", "", "MetadataError", "scales[0].chunk_sizes: missing"),
        ("chunk_sizes", "[]", "MetadataError", "scales[0].chunk_sizes: expected a list of chunk sizes"),
        ("chunk_sizes", "[4, 5, 2]", "MetadataError", "scales[0].chunk_sizes[0]: expected a list"),
        ("chunk_sizes", "[[4, 0, 2]]", "MetadataError", "scales[0].chunk_sizes[0][1]"),
        ("encoding", "", "MetadataError", "scales[0].encoding: missing"),
    ];
    for &(member, value, class, part) in table {
        assert_error(read(&[], &[(member, value)]), class, part);
    }
    for (member, value, class, part) in [
        ("data_type", "", "MetadataError", "data_type: missing"),
        ("data_type", "8", "MetadataError", "data_type: expected a short string"),
        ("num_channels", "0", "MetadataError", "num_channels"),
        ("num_channels", "", "MetadataError", "num_channels: missing"),
        ("scales", "", "MetadataError", "scales: missing"),
        ("scales", "[]", "MetadataError", "scales: expected a list of one scale, found a list of 0"),
        ("scales", "[{}, {}]", "MetadataError", "found a list of 2"),
        ("scales", "[1]", "MetadataError", "scales[0]: expected an object"),
        ("scales", "{}", "MetadataError", "scales: expected a list"),
    ] {
        assert_error(read(&[(member, value)], &[]), class, part);
    }
}

#[test]
fn chunks_larger_than_the_volume_count_as_what_there_is_of_them() {
    let scale = read(&[], &[("chunk_sizes", "[[1000000, 1000000, 1000000]]")]).unwrap();
    assert_eq!((scale.grid(), scale.chunk_size), ([1, 1, 1], [1_000_000; 3]));
    assert_eq!(scale.object_name(&[0, 0, 0]), "0-9_0-5_0-7");
    let large = [("chunk_sizes", "[[1024, 1024, 1024]]"), ("size", "[5000, 5000, 1024]")];
    assert_error(read(&[], &large), "LimitExceededError", "bytes of a decoded chunk: needs 2147483648");
    read(&[("data_type", "\"uint8\"")], &large).unwrap();
    assert_error(read(&[("num_channels", "4611686018427387902")], &[]), "LimitExceededError", "decoded chunk");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chunks_lie_end_to_end(
        size in prop::array::uniform3(1u64..40),
        chunk in prop::array::uniform3(1u64..20),
        offset in prop::array::uniform3(-50i64..50),
    ) {
        let scale = PrecomputedScale { size, chunk_size: chunk, voxel_offset: offset, ..read(&[], &[]).unwrap() };
        let grid = scale.grid();
        for axis in 0..3 {
            let mut expected = offset[axis];
            for at in 0..grid[axis] {
                let mut cell = [0; 3];
                cell[axis] = at;
                let key = scale.object_name(&cell);
                let part = key.trim_start_matches("8_8_40/").split('_').nth(axis).unwrap();
                let end = (expected + chunk[axis] as i64).min(offset[axis] + size[axis] as i64);
                prop_assert_eq!(part, format!("{expected}-{end}"));
                expected = end;
            }
            prop_assert_eq!(expected, offset[axis] + size[axis] as i64);
        }
    }

    #[test]
    fn bytes_wrong(edits in prop::collection::vec((any::<prop::sample::Index>(), 0u8..4, any::<u8>()), 1..6)) {
        let sharding = document(SHARDING, &[("data_encoding", "\"gzip\"")]);
        let mut text = text(&[], &[("sharding", &sharding), ("voxel_offset", "[-1, 0, 1]")]).into_bytes();
        for (index, kind, byte) in edits {
            let at = index.index(text.len());
            match kind {
                0 => text[at] ^= 1 << (byte % 8),
                1 => text.insert(at, byte),
                2 => { text.remove(at); }
                _ => text.insert(at, br#"{}[]",:0-9eE.\u "#[byte as usize % 16]),
            }
        }
        if let Err(error) = parse(&text) {
            let class = error.kind().class_name();
            prop_assert!(["MetadataError", "UnsupportedError", "LimitExceededError"].contains(&class), "{}", error);
            prop_assert!(error.to_string().len() < 500);
        }
    }
}
