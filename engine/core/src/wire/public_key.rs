//! The public key: seed, then `b` over all limbs of `Q P`.

use std::io::{self, Read, Write};

use super::rows::{read_rows, rows_len, write_rows};
use super::{Binding, Header, Kind, Reader, WireError, Writer, file_len};
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

/// Writes a public key.
///
/// # Errors
/// The sink fails.
pub fn write_public_key(sink: impl Write, binding: &Binding<'_>, key: &PublicKey) -> io::Result<()> {
    let params = binding.params;
    let mut writer = Writer::new(sink, &Header::new(Kind::PublicKey, binding, payload_len(params)))?;
    writer.put(&key.seed)?;
    write_rows(&mut writer, params, &limbs(params), &key.b)?;
    writer.finish()
}

/// Reads a public key.
///
/// # Errors
/// See [`WireError`].
pub fn read_public_key(source: impl Read, binding: &Binding<'_>) -> Result<PublicKey, WireError> {
    let params = binding.params;
    let mut reader = Reader::open(source, Kind::PublicKey, binding)?;
    reader.expect_payload(payload_len(params))?;
    let mut seed = [0; 32];
    reader.fill(&mut seed)?;
    let b = read_rows(&mut reader, params, &limbs(params))?;
    reader.finish()?;
    Ok(PublicKey { seed, b })
}
