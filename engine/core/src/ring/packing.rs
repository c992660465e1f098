//! Rows of residues as bits: residue `i` takes bits `i b .. (i+1) b` of the row, least significant bit first, where
//! `b = ceil(log2 q)`. A row ends at a byte; the bits that are left over are zero.

/// Bytes of a packed row of `residues` residues of `bits` bits.
pub fn packed_row_len(residues: usize, bits: u32) -> usize {
    (residues * bits as usize).div_ceil(8)
}

/// Packs residues below `2^bits` into `packed`. Time and memory access do not depend on the residues.
///
/// # Panics
/// If `bits` is not 1 to 32 or `packed` does not have [`packed_row_len`] bytes.
pub fn pack_row(residues: &[u32], bits: u32, packed: &mut [u8]) {
    check(residues.len(), bits, packed.len());
    let len = bits as usize;
    // Eight residues take `bits` bytes.
    let (groups, rest) = residues.as_chunks();
    for (index, group) in groups.iter().enumerate() {
        let bytes = pack_eight(group, bits);
        match packed[index * len..].first_chunk_mut() {
            // Bytes beyond the group's are zero, and of the next one.
            Some(to) => *to = bytes,
            None => packed[index * len..][..len].copy_from_slice(&bytes[..len]),
        }
    }
    if !rest.is_empty() {
        let mut group = [0; 8];
        group[..rest.len()].copy_from_slice(rest);
        let to = &mut packed[groups.len() * len..];
        to.copy_from_slice(&pack_eight(&group, bits)[..to.len()]);
    }
}

/// Eight residues of `bits` bits, 1 to 32, from the least significant bit of the result on.
fn pack_eight(residues: &[u32; 8], bits: u32) -> [u8; 32] {
    let pair = |i: usize| u64::from(residues[i]) | u64::from(residues[i + 1]) << bits;
    let four = |i: usize| u128::from(pair(i)) | u128::from(pair(i + 2)) << (2 * bits);
    let (low, high) = (four(0), four(4));
    let (first, second) = match bits {
        32 => (low, high),
        bits => (low | high << (4 * bits), high >> (128 - 4 * bits)),
    };
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&first.to_le_bytes());
    bytes[16..].copy_from_slice(&second.to_le_bytes());
    bytes
}

/// Unpacks `residues.len()` residues of `bits` bits. Each is below `2^bits`; whether it is below its prime is for the caller to
/// check. Bits left over in the last byte are ignored.
///
/// # Panics
/// If `bits` is not 1 to 32 or `packed` does not have [`packed_row_len`] bytes.
pub fn unpack_row(packed: &[u8], bits: u32, residues: &mut [u32]) {
    check(residues.len(), bits, packed.len());
    let (mask, len) = (u64::from(u32::MAX >> (32 - bits)), bits as usize);
    // Eight residues take `bits` bytes, at places that are the same for every eight. Reading eight bytes for each goes beyond
    // them, so the last ones are copied to where there are bytes beyond.
    let places: [(usize, usize); 8] = std::array::from_fn(|i| (i * len / 8, i * len % 8));
    let eight = |bytes: &[u8], i: usize| {
        let (first, shift) = places[i];
        let word = bytes[first..].first_chunk().expect("eight bytes beyond");
        (u64::from_le_bytes(*word) >> shift & mask) as u32
    };
    for (index, group) in residues.chunks_mut(8).enumerate() {
        match packed[index * len..].get(..len + 8) {
            Some(bytes) => group.iter_mut().enumerate().for_each(|(i, residue)| *residue = eight(bytes, i)),
            None => {
                let (mut bytes, rest) = ([0; 48], &packed[index * len..]);
                bytes[..rest.len()].copy_from_slice(rest);
                group.iter_mut().enumerate().for_each(|(i, residue)| *residue = eight(&bytes, i));
            }
        }
    }
}

fn check(residues: usize, bits: u32, bytes: usize) {
    assert!((1..=32).contains(&bits), "residues of {bits} bits");
    assert_eq!(bytes, packed_row_len(residues, bits), "bytes of a row of {residues} residues of {bits} bits");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, bit by bit.
    fn bit(packed: &[u8], position: usize) -> u32 {
        u32::from(packed[position / 8] >> (position % 8) & 1)
    }

    #[test]
    fn known_answer() {
        let mut packed = [0xff; 5];
        pack_row(&[0x005, 0x201, 0x007], 11, &mut packed);
        assert_eq!(packed, [0x05, 0x08, 0xd0, 0x01, 0x00]);
    }

    #[test]
    fn rows_follow_the_definition_and_come_back() {
        for bits in 1..=32 {
            for len in [0, 1, 2, 3, 7, 8, 16, 33, 100] {
                let mask = u32::MAX >> (32 - bits);
                let residues: Vec<u32> =
                    (1..=len).map(|i: u32| i.wrapping_mul(0x9e37_79b9).rotate_left(i) & mask).collect();
                let mut packed = vec![0xff; packed_row_len(residues.len(), bits)];
                pack_row(&residues, bits, &mut packed);
                for (i, residue) in residues.iter().enumerate() {
                    for b in 0..bits {
                        assert_eq!(bit(&packed, i * bits as usize + b as usize), residue >> b & 1);
                    }
                }
                let used = residues.len() * bits as usize;
                assert!((used..8 * packed.len()).all(|position| bit(&packed, position) == 0), "zero padding");
                let mut back = vec![u32::MAX; residues.len()];
                unpack_row(&packed, bits, &mut back);
                assert_eq!(back, residues, "{bits} bits, {len} residues");
            }
        }
    }
}
