//! The public key: seed, then `b` over all limbs of `Q P`.

use std::io::{self, Read, Write};

use super::rows::{read_rows, rows_len, write_rows};
use super::{Header, Kind, Reader, WireError, Writer, file_len};
use crate::ckks::{Params, PublicKey};

pub(super) const SEED_LEN: u64 = 32;

/// Bytes of a public key file.
pub fn public_key_len(params: &Params) -> u64 {
    file_len(payload_len(params))
}

fn payload_len(params: &Params) -> u64 {
    SEED_LEN + rows_len(params, 0..params.basis().len())
}

fn limbs(params: &Params) -> Vec<usize> {
    (0..params.basis().len()).collect()
}

/// Writes a public key over `params`.
///
/// # Errors
/// The sink fails.
pub fn write_public_key(sink: impl Write, params: &Params, key: &PublicKey) -> io::Result<()> {
    let mut writer = Writer::new(sink, &Header::of_key(Kind::PublicKey, params, payload_len(params)))?;
    writer.put(&key.seed)?;
    write_rows(&mut writer, params, &limbs(params), &key.b)?;
    writer.finish()
}

/// Reads a public key over `params`.
///
/// # Errors
/// See [`WireError`].
pub fn read_public_key(source: impl Read, params: &Params) -> Result<PublicKey, WireError> {
    let mut reader = Reader::open_key(source, Kind::PublicKey, params)?;
    reader.expect_payload(payload_len(params))?;
    let mut seed = [0; 32];
    reader.fill(&mut seed)?;
    let b = read_rows(&mut reader, params, &limbs(params))?;
    reader.finish()?;
    Ok(PublicKey { seed, b })
}
