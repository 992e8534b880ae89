//! Encoded bytes that claim or contain far more than a chunk may hold are refused without the memory they ask for.
//! One test in a process of its own: it watches the peak of the process's memory.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use voxfetch_core::codec::{CodecChain, CodecContext, Verify};
use voxfetch_core::dtype::{DataType, Endian};
use voxfetch_core::error::ErrorKind;
use voxfetch_core::metadata::{BitshuffleInner, BitshuffleSpec, BloscShuffle, BloscSpec, CodecSpec};

const CHUNK_NBYTES: usize = 32 * 32 * 32;
const ZSTD: CodecSpec = CodecSpec::Zstd { level: 1, checksum: false };

/// 16 MiB of zeros by Google's encoder, with a window of as much.
const BROTLI_OF_ZEROS: [u8; 14] = [0xcf, 0xff, 0xff, 0x7f, 0x00, 0x24, 0x00, 0xe2, 0xb1, 0x40, 0x72, 0xef, 0xff, 0x07];

/// Largest resident memory of this process so far, in bytes; None where there is no /proc.
fn peak_nbytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

/// A zstd frame, without content size unless one is `declared`: blocks of 128 KiB zeros, 4 bytes each.
fn zstd_of_zeros(window_log: u8, declared: Option<u32>, blocks: usize) -> Vec<u8> {
    let flags = if declared.is_some() { 0x80 } else { 0 };
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, flags, (window_log - 10) << 3];
    frame.extend(declared.iter().flat_map(|nbytes| nbytes.to_le_bytes()));
    for block in 0..blocks {
        let last = u32::from(block + 1 == blocks);
        let header = last | 1 << 1 | (128 << 10) << 3;
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

fn encode(codec: CodecSpec, decoded: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    CodecChain::outer(&[codec]).unwrap().encode(&mut CodecContext::default(), decoded, &mut out).unwrap();
    out
}

fn blosc_header(flags: u8, nbytes: u32, blocksize: u32, payload: &[u8]) -> Vec<u8> {
    let mut chunk = vec![2, 1, flags, 1];
    for size in [nbytes, blocksize, 16 + payload.len() as u32] {
        chunk.extend_from_slice(&size.to_le_bytes());
    }
    chunk.extend_from_slice(payload);
    chunk
}

#[test]
fn bombs_are_refused_without_the_memory_they_ask_for() {
    let blosc = CodecSpec::Blosc(BloscSpec {
        cname: "zstd".into(),
        clevel: 5,
        shuffle: BloscShuffle::None,
        typesize: 1,
        blocksize: 0,
    });
    let (gzip, zlib) = (CodecSpec::Gzip { level: 9 }, CodecSpec::Zlib { level: 9 });
    // 16 MiB of zeros each, made before memory is watched.
    let zeros = vec![0; 16 << 20];
    let gzip_member = encode(gzip.clone(), &zeros);
    let zlib_stream = encode(zlib.clone(), &zeros);
    let bz2_stream = encode(CodecSpec::Bz2 { level: 9 }, &zeros);
    let zstd_frame = encode(ZSTD, &zeros);
    drop(zeros);
    let gibibyte = zstd_of_zeros(20, None, 8192);
    assert!(gibibyte.len() < 33_000);
    let mut blosc_block = vec![20, 0, 0, 0];
    blosc_block.extend_from_slice(&(gibibyte.len() as u32).to_le_bytes());
    blosc_block.extend_from_slice(&gibibyte);
    let bitshuffle =
        CodecSpec::Hdf5Bitshuffle(BitshuffleSpec { elementsize: 4, blocksize: 0, inner: BitshuffleInner::Lz4 });
    let framed = |nbytes: u64, block_nbytes: u32| {
        [&nbytes.to_be_bytes()[..], &block_nbytes.to_be_bytes(), &[0, 0, 0, 4, 0x1f, 0, 1, 0]].concat()
    };
    let bombs: Vec<(&str, Vec<CodecSpec>, Vec<u8>)> = vec![
        ("zstd of a gibibyte", vec![ZSTD], gibibyte.clone()),
        ("zstd with its size", vec![ZSTD], zstd_frame.clone()),
        ("zstd, many frames", vec![ZSTD], zstd_frame.repeat(64)),
        ("zstd with a window of 2 GiB", vec![ZSTD], zstd_of_zeros(31, None, 8192)),
        ("gzip", vec![gzip.clone()], gzip_member.clone()),
        ("gzip, many members", vec![gzip.clone()], gzip_member.repeat(64)),
        ("zlib", vec![zlib], zlib_stream),
        ("bz2", vec![CodecSpec::Bz2 { level: 9 }], bz2_stream.repeat(8)),
        ("brotli of 16 MiB", vec![CodecSpec::Brotli], BROTLI_OF_ZEROS.to_vec()),
        ("brotli with a window of 1 GiB", vec![CodecSpec::Brotli], [&[0x11, 0x1e], &BROTLI_OF_ZEROS[1..]].concat()),
        ("lz4 that lies", vec![CodecSpec::Lz4], [&u32::MAX.to_le_bytes()[..], &[0x1f; 1000]].concat()),
        ("blosc that lies", vec![blosc.clone()], blosc_header(0x90, i32::MAX as u32, i32::MAX as u32, &blosc_block)),
        ("blosc around zstd", vec![blosc], blosc_header(0x90, CHUNK_NBYTES as u32, CHUNK_NBYTES as u32, &blosc_block)),
        ("lzf", vec![CodecSpec::Hdf5Lzf], [&[0, 0][..], &[0xe0, 0xff, 0].repeat(1 << 20)].concat()),
        ("lz4 of HDF5 that lies", vec![CodecSpec::Hdf5Lz4], framed(u64::MAX / 2, 1 << 30)),
        ("bitshuffle that lies", vec![bitshuffle.clone()], framed(u64::MAX / 2, 1 << 30)),
        ("bitshuffle of large blocks", vec![bitshuffle], framed(CHUNK_NBYTES as u64, 1 << 31)),
        (
            "lzma with a dictionary of 4 GiB",
            vec![CodecSpec::LzmaAlone],
            [&[0x5d][..], &[0xff; 12], &[0; 1000]].concat(),
        ),
        ("gzip around a bomb", vec![gzip.clone(), ZSTD], gibibyte.clone()),
        ("zstd around a bomb", vec![ZSTD, gzip], encode(CodecSpec::Gzip { level: 9 }, &gibibyte)),
    ];

    let before = peak_nbytes();
    let mut context = CodecContext::default();
    let mut out = vec![0; CHUNK_NBYTES];
    for (what, codecs, encoded) in &bombs {
        let chain = CodecChain::new(codecs, Endian::NATIVE, &DataType::UInt(1), CHUNK_NBYTES).unwrap();
        let refused = chain.decode_into(&mut context, encoded, Verify::Full, &mut out).unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::Codec { .. }), "{what}: {refused}");
        let outer = CodecChain::outer(codecs).unwrap();
        let refused = outer.decode_to_vec(&mut context, encoded, Verify::Full, CHUNK_NBYTES as u64).unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::Codec { .. }), "{what}: {refused}");
    }
    // Chunks of 1 MiB of which a part is needed: a gibibyte behind that part is not noticed, and costs nothing.
    let mut out = vec![0xa5; 1 << 20];
    let chain = CodecChain::new(&[ZSTD], Endian::NATIVE, &DataType::UInt(1), out.len()).unwrap();
    for (window_log, delivered) in [(20, true), (27, true), (28, false), (31, false)] {
        let encoded = zstd_of_zeros(window_log, Some(1 << 20), 8192);
        let decoded = chain.decode_window(&mut context, &encoded, Verify::Full, 0..1000, &mut out);
        assert_eq!(decoded.is_ok(), delivered, "{window_log}");
        assert!(!delivered || out[..1000] == [0; 1000]);
    }
    if let (Some(before), Some(after)) = (before, peak_nbytes()) {
        // Room for the contexts: bzip2 takes 4 MB, a zstd stream with a 1 MiB window a little more than that.
        assert!(after - before < 12 << 20, "{} bytes more", after - before);
    }
}
