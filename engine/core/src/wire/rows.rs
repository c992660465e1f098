//! Bit-packed rows of residues, one row of N per limb.

use std::io::{self, Read, Write};

use super::{Reader, WireError, Writer};
use crate::backend::packed_row;
use crate::ckks::Params;
use crate::ring::{Modulus, pack_row, unpack_row};

/// Bytes of one packed row in each of `limbs`.
pub(super) fn rows_len(params: &Params, limbs: impl IntoIterator<Item = usize>) -> u64 {
    limbs.into_iter().map(|limb| packed_row(params.basis(), limb) as u64).sum()
}

/// Packs `residues`, `[limb][N]`.
pub(super) fn write_rows<W: Write>(
    writer: &mut Writer<W>,
    params: &Params,
    limbs: &[usize],
    residues: &[u32],
) -> io::Result<()> {
    for (&limb, row) in limbs.iter().zip(residues.chunks_exact(params.n())) {
        let mut packed = vec![0; packed_row(params.basis(), limb)];
        pack_row(row, params.basis().modulus(limb).bits(), &mut packed);
        writer.put(&packed)?;
    }
    Ok(())
}

/// Unpacks `[limb][N]` residues and checks that they are reduced.
pub(super) fn read_rows<R: Read>(
    reader: &mut Reader<R>,
    params: &Params,
    limbs: &[usize],
) -> Result<Vec<u32>, WireError> {
    let mut residues = vec![0; limbs.len() * params.n()];
    for (&limb, row) in limbs.iter().zip(residues.chunks_exact_mut(params.n())) {
        let mut packed = vec![0; packed_row(params.basis(), limb)];
        reader.fill(&mut packed)?;
        let modulus = params.basis().modulus(limb);
        unpack_row(&packed, modulus.bits(), row);
        check_row(row, modulus, limb, 0)?;
    }
    Ok(residues)
}

/// Every residue of a row of `limb` must be below the prime; `first` is the index of the row's first residue.
pub(super) fn check_row(row: &[u32], modulus: Modulus, limb: usize, first: usize) -> Result<(), WireError> {
    let prime = modulus.value();
    match row.iter().position(|&residue| residue >= prime) {
        Some(i) => Err(WireError::Residue { limb, index: first + i, residue: row[i], prime }),
        None => Ok(()),
    }
}
