//! Body of the fuzz target of `cryptodl_client::wire`, as in `wire.rs`; `engine/client/tests/wire.rs` runs it on stable Rust.

use std::sync::LazyLock;

use cryptodl_client::wire::{read_secret_key, write_secret_key};
use cryptodl_core::ckks::{Params, ParamsSpec, SecurityLevel};
use cryptodl_core::ring::ntt_primes;
use cryptodl_core::wire::{Header, Kind, Writer};

static PARAMS: LazyLock<Params> = LazyLock::new(|| {
    let primes = ntt_primes(16, 12, 1).expect("such a prime exists");
    let spec = ParamsSpec { n: 16, primes, special_primes: Vec::new(), security: SecurityLevel::Bits128 };
    spec.build_insecure_for_tests().expect("a small ring")
});

/// What the keys belong to: a tiny ring.
pub fn params() -> &'static Params {
    &PARAMS
}

/// A whole secret key file around `payload`.
pub fn sealed(payload: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let header = Header::of_key(Kind::SecretKey, params(), payload.len() as u64);
    let mut writer = Writer::new(&mut file, &header).expect("a Vec takes every byte");
    writer.put(payload).and_then(|()| writer.finish()).expect("a Vec takes every byte");
    file
}

/// A secret key.
pub fn secret_key(data: &[u8]) {
    for file in [data.to_vec(), sealed(data)] {
        if let Ok(key) = read_secret_key(&file[..], params()) {
            let mut again = Vec::new();
            write_secret_key(&mut again, &key).expect("a Vec takes every byte");
            assert_eq!(again, file);
        }
    }
}
