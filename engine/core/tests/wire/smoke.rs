//! The fuzz targets' bodies on arbitrary bytes and on damaged valid files.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use cryptodl_core::wire::HEADER_LEN;

use crate::examples;
use crate::fuzz_bodies::{ciphertexts, client_spec, eval_key, identify, public_key};

/// Random bytes, a valid file, or its payload, with some bytes replaced and the end cut off or grown.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let files: Vec<Vec<u8>> = examples::all().into_iter().map(|example| example.file).collect();
    let payloads: Vec<Vec<u8>> = files.iter().map(|file| file[HEADER_LEN..file.len() - 32].to_vec()).collect();
    let start = prop_oneof![vec(any::<u8>(), 0..400), select(files), select(payloads)];
    let damage = vec((any::<Index>(), any::<u8>()), 0..4);
    (start, damage, select(vec![0, 0, 0, 1, 40]), vec(any::<u8>(), 0..2)).prop_map(|(mut bytes, damage, cut, tail)| {
        bytes.truncate(bytes.len().saturating_sub(cut));
        bytes.extend(tail);
        let len = bytes.len();
        for (at, byte) in damage.iter().take(len) {
            bytes[at.index(len)] = *byte;
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_parser_panics(data in input()) {
        [identify, client_spec, public_key, eval_key, ciphertexts].iter().for_each(|body| body(&data));
    }
}
