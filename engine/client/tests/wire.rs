//! The secret key file: round trip, corrupted files, and the fuzz target's body on stable Rust.

#[path = "../../../fuzz/src/secret_key.rs"]
mod fuzz_body;

use cryptodl_client::wire::{read_secret_key, secret_key_len};
use cryptodl_core::wire::{HEADER_LEN, WireError, identify};
use fuzz_body::{params, sealed, secret_key};
use proptest::collection::vec;
use proptest::prelude::*;

fn read(file: &[u8]) -> Result<Vec<i8>, WireError> {
    read_secret_key(file, params()).map(|key| key.coefficients().to_vec())
}

const COEFFICIENTS: [u8; 16] = [0, 1, 255, 0, 0, 1, 1, 255, 255, 0, 0, 0, 1, 255, 0, 1];

#[test]
fn every_damage_is_found() {
    let mut file = sealed(&COEFFICIENTS);
    assert_eq!(file.len() as u64, secret_key_len(params()));
    for len in 0..file.len() {
        assert!(matches!(
            read(&file[..len]),
            Err(WireError::NoHeader { has } | WireError::Truncated { has, .. }) if has == len as u64
        ));
    }
    for bit in 0..8 * file.len() {
        file[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&file).is_err(), "bit {bit}");
        file[bit / 8] ^= 1 << (bit % 8);
    }
    assert_eq!(read(&file).expect("undamaged again"), COEFFICIENTS.map(|byte| byte as i8));
    // No client accepts so small a ring.
    assert!(matches!(identify(&file[..]), Err(WireError::Field { field: "payload length", .. })));
    file[HEADER_LEN - 8..HEADER_LEN].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(read(&file), Err(WireError::Field { field: "payload length", .. })));
}

/// A secret key serves every Program of its parameters, and names none; the parameters must be its
/// own.
#[test]
fn a_key_belongs_to_parameters() {
    let mut file = sealed(&COEFFICIENTS);
    assert_eq!(file[16..48], [0; 32]);
    file[16] = 7;
    assert!(matches!(read(&file), Err(WireError::Field { field: "program digest of a key", .. })));
    file[16] = 0;
    file[48] ^= 1;
    assert!(matches!(read(&file), Err(WireError::Params { .. })));
}

#[test]
fn only_ternary_keys() {
    for other in [2, 3, 127, 128, 254] {
        let error = read(&sealed(&[[other; 1].as_slice(), &COEFFICIENTS[1..]].concat())).unwrap_err();
        assert!(!error.to_string().contains(&other.to_string()), "no coefficient in a message: {error}");
    }
}

proptest! {
    #[test]
    fn round_trip(ternary in vec(prop::sample::select(vec![0u8, 1, 255]), 16)) {
        secret_key(&ternary);
        prop_assert_eq!(read(&sealed(&ternary)).unwrap(), ternary.iter().map(|&c| c as i8).collect::<Vec<_>>());
    }

    #[test]
    fn no_panic(data in vec(any::<u8>(), 0..200)) {
        secret_key(&data);
    }
}
