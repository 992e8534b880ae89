//! Any bytes as a block of N5 without compression: its elements in a box of the nominal extent, or a typed error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use voxfetch_core::codec::n5_block::{parse, unfold};
use voxfetch_core::error::ErrorKind;

fuzz_target!(|input: ([u8; 3], u8, &[u8])| {
    let (nominal, kind, block) = input;
    let item_size = 1 << (kind & 3);
    let nominal = nominal.map(|extent| usize::from(extent % 8) + 1);
    let nominal = &nominal[..usize::from(kind >> 2 & 3)];
    let header = match parse(block, nominal.len()) {
        Ok(header) => header,
        Err(error) => return assert!(!matches!(error.kind(), ErrorKind::Internal { .. }), "{error}"),
    };
    let elements = &block[header.nbytes..];
    let voxels: usize = header.extent().iter().product();
    assert!(voxels > 0 && header.extent().len() == nominal.len());
    match header.decoded_nbytes(item_size, elements.len() as u64) {
        Ok(nbytes) if nbytes == elements.len() => assert_eq!(nbytes, voxels * item_size),
        // What a codec would refuse.
        Ok(_) => return,
        Err(error) => return assert!(matches!(error.kind(), ErrorKind::Limit { .. }), "{error}"),
    }
    let mut out = vec![0xA5; nominal.iter().product::<usize>() * item_size];
    unfold(elements, header.extent(), nominal, item_size, &mut out);
    for (voxel, got) in out.chunks_exact(item_size).enumerate() {
        let (mut left, mut at, mut stride, mut inside) = (voxel, 0, 1, true);
        for (&have, &want) in header.extent().iter().zip(nominal) {
            inside &= left % want < have;
            at += left % want * stride;
            (left, stride) = (left / want, stride * have);
        }
        let expected = if inside { &elements[at * item_size..][..item_size] } else { &[0; 8][..item_size] };
        assert_eq!(got, expected, "voxel {voxel}");
    }
});
