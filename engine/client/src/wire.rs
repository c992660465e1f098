//! The secret key file, in the container of [`cryptodl_core::wire`]: one byte per coefficient, two's complement. Buffers that
//! held the key are wiped.

use std::io::{self, Read, Write};

use cryptodl_core::ckks::Params;
use cryptodl_core::wire::{Header, Kind, Reader, WireError, Writer, file_len};
use zeroize::Zeroizing;

use crate::SecretKey;

/// Bytes of a secret key file.
pub fn secret_key_len(params: &Params) -> u64 {
    file_len(params.n() as u64)
}

/// Writes a secret key.
///
/// # Errors
/// The sink fails.
pub fn write_secret_key(sink: impl Write, key: &SecretKey) -> io::Result<()> {
    let bytes: Zeroizing<Vec<u8>> = Zeroizing::new(key.coefficients().iter().map(|&c| c as u8).collect());
    let mut writer = Writer::new(sink, &Header::of_key(Kind::SecretKey, key.params(), bytes.len() as u64))?;
    writer.put(&bytes)?;
    writer.finish()
}

/// Reads a secret key over `params`.
///
/// # Errors
/// See [`WireError`]. No error tells a coefficient.
pub fn read_secret_key(source: impl Read, params: &Params) -> Result<SecretKey, WireError> {
    let mut reader = Reader::open_key(source, Kind::SecretKey, params)?;
    reader.expect_payload(params.n() as u64)?;
    let mut bytes = Zeroizing::new(vec![0; params.n()]);
    reader.fill(&mut bytes)?;
    reader.finish()?;
    let coefficients = Zeroizing::new(bytes.iter().map(|&byte| byte as i8).collect());
    SecretKey::from_coefficients(params, coefficients)
        .map_err(|_| WireError::field("a coefficient of the secret key", "something else", "-1, 0 or 1"))
}
