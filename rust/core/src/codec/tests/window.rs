//! Chunks of which a part is decoded: that part is as in the whole, less is decoded, and nothing is left unchecked that
//! covers it.

use super::*;

const MIB: usize = 1 << 20;

fn u8_chain(specs: &[CodecSpec], nbytes: usize) -> CodecChain {
    CodecChain::new(specs, Endian::NATIVE, &DataType::UInt(1), nbytes).unwrap()
}

/// Decodes a window into memory of other bytes; also gives which bytes were written, from the first to the last.
fn decode(chain: &CodecChain, encoded: &[u8], verify: Verify, window: Range<usize>) -> Result<(Vec<u8>, Range<usize>)> {
    let mut out = vec![0xa5; chain.decoded_nbytes()];
    chain.decode_window(&mut CodecContext::default(), encoded, verify, window.clone(), &mut out)?;
    let first = out.iter().position(|&byte| byte != 0xa5).unwrap_or(0);
    let last = out.iter().rposition(|&byte| byte != 0xa5).map_or(0, |last| last + 1);
    Ok((out[window].to_vec(), first..last))
}

fn skippable(nbytes: usize) -> Vec<u8> {
    [&[0x50, 0x2a, 0x4d, 0x18][..], &(nbytes as u32).to_le_bytes(), &vec![7; nbytes]].concat()
}

/// A frame of stored blocks, the last one empty. `declared` goes into the header when there is one, with a window of 2 MiB.
fn stored_frame(content: &[u8], block_nbytes: usize, declared: Option<usize>) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, if declared.is_some() { 0x80 } else { 0 }, 0x58];
    frame.extend(declared.iter().flat_map(|&nbytes| (nbytes as u32).to_le_bytes()));
    for block in content.chunks(block_nbytes) {
        frame.extend_from_slice(&((block.len() as u32) << 3).to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    frame.extend_from_slice(&[1, 0, 0]);
    frame
}

fn zstd_frame(content: &[u8], level: i32, checksum: bool) -> Vec<u8> {
    encode(&u8_chain(&[CodecSpec::Zstd { level, checksum }], content.len()), content)
}

/// The blocks of a frame without checksum: where the body of each lies, and the bytes decoded before it.
fn blocks(frame: &[u8]) -> Vec<(Range<usize>, usize)> {
    // Frame header: a descriptor, a window unless there is one segment, the content size.
    let (single, size_flag) = (frame[4] & 0x20 != 0, frame[4] >> 6);
    let mut at = 5 + usize::from(!single) + [usize::from(single), 2, 4, 8][usize::from(size_flag)];
    let mut decoder = zstd_safe::DCtx::create();
    let mut out = vec![0; MIB];
    let mut output = zstd_safe::OutBuffer::around(&mut out[..]);
    let mut header = 0..at;
    let mut blocks = Vec::new();
    while at < frame.len() {
        let head = u32::from_le_bytes([frame[at], frame[at + 1], frame[at + 2], 0]);
        let nbytes = if head >> 1 & 3 == 1 { 1 } else { (head >> 3) as usize };
        let body = at + 3..at + 3 + nbytes;
        blocks.push((body.clone(), output.pos()));
        let mut input = zstd_safe::InBuffer::around(&frame[header.start..body.end]);
        decoder.decompress_stream(&mut output, &mut input).unwrap();
        at = body.end;
        header = at..at;
    }
    blocks
}

/// An image that zstd compresses a little.
fn image(nbytes: usize) -> Vec<u8> {
    let mut state = 1u32;
    (0..nbytes)
        .map(|at| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Never 0xa5, the byte that marks what was not written.
            (at / 97 % 60) as u8 + (state >> 30) as u8
        })
        .collect()
}

/// One frame of a chunk: how it is written, its part of the content.
fn frame() -> impl Strategy<Value = (u8, usize)> {
    (0..8u8, prop_oneof![3 => 1..400_000usize, 1 => 0..10usize, 1 => Just(128 << 10), 1 => Just(256 << 10)])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_window_of_any_chain_is_that_of_the_whole(
        units in proptest::collection::vec(any::<[u8; 8]>(), 1..100),
        repeat in 1..20usize,
        big: bool,
        (low, high) in (0..=1000usize, 0..=1000usize),
    ) {
        let elements = units.concat().repeat(repeat);
        let endian = if big { Endian::Big } else { Endian::Little };
        let at = |part: usize| elements.len() / 2 * part / 1000 * 2;
        let window = at(low.min(high))..at(low.max(high));
        for (specs, _) in chains() {
            let chain = CodecChain::new(&specs, endian, &DataType::UInt(2), elements.len()).unwrap();
            let (part, _) = decode(&chain, &encode(&chain, &elements), Verify::Full, window.clone()).unwrap();
            prop_assert!(part == elements[window.clone()], "{specs:?} {window:?}");
        }
    }

    #[test]
    fn any_window_of_any_zstd_frames_is_that_of_the_whole(
        frames in proptest::collection::vec(frame(), 1..5),
        big: bool,
        (low, high) in (0..=1000usize, 0..=1000usize),
        flips in proptest::collection::vec((any::<usize>(), 0..8), 0..4),
    ) {
        let elements = image((frames.iter().map(|frame| frame.1).sum::<usize>() / 2 * 2).max(2));
        let (mut encoded, mut rest) = (Vec::new(), &elements[..]);
        for (number, &(kind, nbytes)) in frames.iter().enumerate() {
            let is_last = number + 1 == frames.len();
            let (content, after) = rest.split_at(if is_last { rest.len() } else { nbytes.min(rest.len()) });
            rest = after;
            encoded.extend(match kind {
                0 => stored_frame(content, 100_000, Some(content.len())),
                1 => stored_frame(content, 128 << 10, None),
                2 => [skippable(nbytes % 300), zstd_frame(content, 1, false), skippable(0)].concat(),
                3 => zstd_frame(content, 1, true),
                level => zstd_frame(content, i32::from(level), false),
            });
        }
        let endian = if big { Endian::Big } else { Endian::Little };
        let chain = CodecChain::new(&[ZSTD], endian, &DataType::UInt(2), elements.len()).unwrap();
        let at = |part: usize| elements.len() / 2 * part / 1000 * 2;
        let window = at(low.min(high))..at(low.max(high));
        let mut whole = vec![0; elements.len()];
        chain.decode_into(&mut CodecContext::default(), &encoded, Verify::Full, &mut whole).unwrap();
        prop_assert!(endian != Endian::NATIVE || whole == elements);
        let (part, _) = decode(&chain, &encoded, Verify::Full, window.clone()).unwrap();
        prop_assert!(part == whole[window.clone()]);

        // Broken anywhere: what the whole decode delivers, the partial one does as well.
        for (at, bit) in flips {
            let at = at % encoded.len();
            encoded[at] ^= 1u8 << bit;
        }
        let decoded = chain.decode_into(&mut CodecContext::default(), &encoded, Verify::Full, &mut whole);
        let part = decode(&chain, &encoded, Verify::Full, window.clone());
        match (decoded, part) {
            (Ok(()), part) => prop_assert!(part.unwrap().0 == whole[window]),
            (Err(_), Ok(_)) => {}
            (Err(_), Err(error)) => prop_assert!(matches!(error.kind(), ErrorKind::Codec { .. }), "{error}"),
        }
    }

    #[test]
    fn windows_of_random_zstd_bytes_never_panic(
        header in prop_oneof![Just(0x80u8), Just(0xa0), Just(0x84), any::<u8>()],
        window in any::<u8>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        end in 0..MIB,
    ) {
        let mut encoded = vec![0x28, 0xb5, 0x2f, 0xfd, header];
        if header & 0x20 == 0 {
            encoded.push(window);
        }
        encoded.extend((MIB as u32).to_le_bytes());
        encoded.extend(bytes);
        let _ = decode(&u8_chain(&[ZSTD], MIB), &encoded, Verify::Full, 0..end);
    }
}

#[test]
fn zstd_blocks_behind_the_window_are_not_decoded() {
    let elements = image(MIB);
    let chain = u8_chain(&[ZSTD], MIB);
    let encoded = encode(&chain, &elements);
    let blocks = blocks(&encoded);
    assert!(blocks.len() >= 8, "{blocks:?}");
    for (body, start) in &blocks[1..] {
        let mut broken = encoded.clone();
        broken[body.clone()].fill(0xff);
        chain.decode_into(&mut CodecContext::default(), &broken, Verify::Full, &mut vec![0; MIB]).unwrap_err();
        for end in (0..=MIB).step_by(MIB / 32).chain([*start, start + 1]) {
            // Windows that end in the last quarter take the whole chunk.
            let in_part = end <= MIB / 4 * 3;
            let decoded = decode(&chain, &broken, Verify::Full, end / 2..end);
            assert_eq!(decoded.is_ok(), end <= *start && in_part, "{start} {end}");
            if let Ok((part, written)) = decoded {
                assert!(part == elements[end / 2..end] && written == (0..end), "{start} {end} {written:?}");
            }
        }
    }
}

#[test]
fn a_checksum_is_never_left_out() {
    let elements = image(MIB);
    let (front, back) = elements.split_at(MIB / 2);
    let window = 0..1000;
    let frames = [zstd_frame(front, 1, false), zstd_frame(back, 1, true)].concat();
    for (specs, mut encoded) in [
        (vec![ZSTD_CHECKED], encode(&u8_chain(&[ZSTD_CHECKED], MIB), &elements)),
        (vec![ZSTD], frames),
        (vec![ZSTD, CRC32C], encode(&u8_chain(&[ZSTD, CRC32C], MIB), &elements)),
        (vec![ZSTD, GZIP], encode(&u8_chain(&[ZSTD, GZIP], MIB), &elements)),
        (vec![CRC32C, ZSTD], encode(&u8_chain(&[CRC32C, ZSTD], MIB), &elements)),
    ] {
        let chain = u8_chain(&specs, MIB);
        assert!(decode(&chain, &encoded, Verify::Full, window.clone()).unwrap().0 == elements[window.clone()]);
        // The last bytes are the checksum, or those of gzip's, or of a block.
        let last = encoded.len() - 6;
        for at in [last + 4, last / 2] {
            encoded[at] ^= 1;
            let error = decode(&chain, &encoded, Verify::Full, window.clone()).expect_err(&format!("{specs:?} {at}"));
            assert!(matches!(error.kind(), ErrorKind::Codec { .. } | ErrorKind::Checksum { .. }), "{error}");
            encoded[at] ^= 1;
        }
    }
    // A checksum that is cut off unread.
    let chain = u8_chain(&[ZSTD, CRC32C], MIB);
    let mut encoded = encode(&chain, &elements);
    *encoded.last_mut().unwrap() ^= 1;
    assert!(decode(&chain, &encoded, Verify::Cheap, window.clone()).unwrap().0 == elements[window]);
}

#[test]
fn sizes_are_checked_whatever_the_window() {
    let elements = image(MIB);
    let chain = u8_chain(&[ZSTD], MIB);
    let encoded = zstd_frame(&elements, 1, false);
    for len in (0..20).chain((20..encoded.len()).step_by(9973)).chain([encoded.len() - 1]) {
        assert!(decode(&chain, &encoded[..len], Verify::Full, 0..1000).is_err(), "{len}");
    }
    for extra in [&[0][..], &[1; 40], &encoded, &zstd_frame(&[1], 1, false)] {
        assert!(decode(&chain, &[&encoded, extra].concat(), Verify::Full, 0..1000).is_err());
    }
    for nbytes in [MIB - 1, MIB + 1] {
        assert!(decode(&u8_chain(&[ZSTD], nbytes), &encoded, Verify::Full, 0..1000).is_err());
    }
    // The first frame declares more than it holds, which would move the second.
    let (front, back) = elements.split_at(300_000);
    let encoded = [stored_frame(&front[..200_000], 50_000, Some(300_000)), zstd_frame(back, 1, false)].concat();
    for (window, ok) in [(0..150_000, true), (0..200_001, false), (400_000..400_001, false), (0..MIB, false)] {
        let decoded = decode(&chain, &encoded, Verify::Full, window.clone());
        assert_eq!(decoded.is_ok(), ok, "{window:?}");
        assert!(decoded.is_err() || decoded.unwrap().0 == elements[window]);
    }
}

#[test]
fn a_frame_that_only_a_whole_decode_takes_is_decoded_whole() {
    let elements = image(MIB);
    let chain = u8_chain(&[ZSTD], MIB);
    // A window of 2 GiB; no content size.
    let mut large_window = stored_frame(&elements, 128 << 10, Some(MIB));
    large_window[5] = 21 << 3;
    for encoded in [large_window, stored_frame(&elements, 128 << 10, None)] {
        let (part, written) = decode(&chain, &encoded, Verify::Full, 10..20).unwrap();
        assert!(part == elements[10..20]);
        assert_eq!(written, 0..MIB);
    }
}

#[test]
fn windows_outside_of_the_chunk_or_across_elements_are_refused() {
    let foreign = if Endian::NATIVE == Endian::Little { Endian::Big } else { Endian::Little };
    let chain = CodecChain::new(&[ZSTD], foreign, &DataType::UInt(2), 8).unwrap();
    let encoded = encode(&chain, &[1; 8]);
    #[expect(clippy::reversed_empty_ranges, reason = "one of the wrong windows")]
    for window in [0..10, 10..10, 4..2, 1..4, 2..5] {
        let error = decode(&chain, &encoded, Verify::Full, window).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Internal { .. }), "{error}");
    }
    assert!(decode(&chain, &encoded, Verify::Full, 4..4).is_ok());
}

#[test]
fn blosc_blocks_outside_of_the_window_are_not_decoded() {
    for split in [false, true] {
        let (chunk, elements) = blosc_chunk(split);
        let chain = u8_chain(&[blosc()], elements.len());
        for start in 0..elements.len() {
            for end in (start + 1..=elements.len()).step_by(61) {
                let (part, written) = decode(&chain, &chunk, Verify::Full, start..end).unwrap();
                assert!(part == elements[start..end]);
                let blocks = start / 512 * 512..end.div_ceil(512) * 512;
                assert!(blocks.start <= written.start && written.end <= blocks.end, "{start} {end} {written:?}");
            }
        }
        // Each block of 512 bytes begins outside of the chunk in turn.
        for block in 0..3 {
            let mut broken = chunk.clone();
            broken[16 + 4 * block..][..4].fill(0xff);
            for (number, window) in [0..512, 512..1024, 1024..1200].into_iter().enumerate() {
                assert_eq!(decode(&chain, &broken, Verify::Full, window).is_ok(), number != block);
            }
            assert!(decode(&chain, &broken, Verify::Full, 0..1200).is_err());
            assert!(decode(&chain, &broken, Verify::Full, 511..1025).is_err());
        }
    }
}

/// A chunk of the same blocks, the last one first, and the ranges that they take.
fn reversed(chunk: &[u8]) -> (Vec<u8>, Vec<Range<usize>>) {
    let start = |block: usize| {
        let bytes: [u8; 4] = chunk[16 + 4 * block..][..4].try_into().unwrap();
        i32::from_le_bytes(bytes) as usize
    };
    let ends = [start(1), start(2), chunk.len()];
    let mut reversed = chunk[..28].to_vec();
    let mut ranges = vec![0..0; 3];
    for block in [2, 1, 0] {
        ranges[block] = reversed.len()..reversed.len() + ends[block] - start(block);
        reversed[16 + 4 * block..][..4].copy_from_slice(&(ranges[block].start as i32).to_le_bytes());
        reversed.extend_from_slice(&chunk[start(block)..ends[block]]);
    }
    (reversed, ranges)
}

#[test]
fn a_block_table_names_the_bytes_of_blocks_in_any_order() {
    let mut context = CodecContext::default();
    for split in [false, true] {
        let (forward, elements) = blosc_chunk(split);
        let (chunk, ranges) = reversed(&forward);
        let chain = u8_chain(&[blosc()], elements.len());
        assert!(chain.has_blocks() && !u8_chain(&[blosc(), CRC32C], elements.len()).has_blocks());
        let table = BlockTable::parse(&chunk[..40]).unwrap().unwrap();
        assert!(BlockTable::parse(&chunk[..27]).unwrap().is_none(), "its table ends at 28");
        for (window, expected) in [
            (0..512, ranges[0].clone()),
            (512..513, ranges[1].clone()),
            (1199..1200, ranges[2].clone()),
            (511..513, ranges[1].start..ranges[0].end),
            (0..1200, ranges[2].start..ranges[0].end),
        ] {
            let range = table.range_of(&window).unwrap();
            assert_eq!(range.start as usize..range.end as usize, expected, "{window:?}");
            let mut out = vec![0; elements.len()];
            let part = (&table, expected.start, &chunk[expected.clone()]);
            chain.decode_blocks(&mut context, part, window.clone(), &mut out).unwrap();
            assert!(out[window.clone()] == elements[window.clone()]);
            // Of other bytes than those it names, none is taken for another.
            for (from, bytes) in [(0, &chunk[..28]), (expected.start + 1, &chunk[expected.start + 1..])] {
                assert!(chain.decode_blocks(&mut context, (&table, from, bytes), window.clone(), &mut out).is_err());
            }
        }
        assert!(chain.decode_blocks(&mut context, (&table, 0, &chunk), 0..1201, &mut vec![0; 1200]).is_err());
        let mut broken = chunk.clone();
        broken[16..20].copy_from_slice(&(chunk.len() as i32).to_le_bytes());
        let table = BlockTable::parse(&broken).unwrap().unwrap();
        assert!(table.range_of(&(0..1)).is_err() && table.range_of(&(600..601)).is_ok());
    }
}

proptest! {
    #[test]
    fn random_block_tables_never_panic(
        flags in any::<u8>(),
        nbytes in 0..600i32,
        blocksize in prop_oneof![1..600i32, any::<i32>()],
        cbytes in prop_oneof![0..600i32, any::<i32>()],
        starts in proptest::collection::vec(prop_oneof![0..600i32, any::<i32>()], 0..20),
        window in (0..700usize, 0..700usize),
    ) {
        let mut head = vec![2, 1, flags, 1];
        for number in [nbytes, blocksize, cbytes].into_iter().chain(starts) {
            head.extend_from_slice(&number.to_le_bytes());
        }
        if let Ok(Some(table)) = BlockTable::parse(&head)
            && let Ok(range) = table.range_of(&(window.0..window.1))
        {
            prop_assert!(range.start < range.end && range.end <= table.cbytes());
            let chain = u8_chain(&[blosc()], table.nbytes());
            let mut out = vec![0; table.nbytes()];
            let part = (&table, range.start as usize, &head[..]);
            let _ = chain.decode_blocks(&mut CodecContext::default(), part, window.0..window.1, &mut out);
        }
    }
}
