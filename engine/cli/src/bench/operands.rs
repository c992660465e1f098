//! Operands that repeat a small one.

use cryptodl_core::backend::Shape;
use cryptodl_core::ring::RnsBasis;

/// Residues of a tensor of shape `shape`: arbitrary ones, the extremes among them.
pub fn residues(basis: &RnsBasis, shape: &Shape) -> Vec<u32> {
    let residue = |i: usize| {
        let q = basis.modulus(shape.limbs[i / shape.limb_len()]).value();
        match i % 61 {
            0 => 0,
            1 => q - 1,
            _ => (i as u32).wrapping_mul(0x9e37_79b9).rotate_left(7) % q,
        }
    };
    (0..shape.len()).map(residue).collect()
}

/// A tensor of shape `to` whose values and lanes repeat those of one of shape `small`.
pub fn repeated(small: &Shape, residues: &[u32], to: &Shape) -> Vec<u32> {
    assert_eq!((&small.limbs, small.components), (&to.limbs, to.components), "limbs and components");
    let mut out = Vec::with_capacity(to.len());
    for limb in 0..to.limbs.len() {
        for value in 0..to.values {
            for component in 0..to.components {
                let row = (limb * small.values + value % small.values) * small.components + component;
                let row = &residues[row * small.lanes..][..small.lanes];
                (0..to.lanes / small.lanes).for_each(|_| out.extend_from_slice(row));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_lanes_repeat() {
        let small = Shape { limbs: vec![0, 3], values: 2, components: 1, lanes: 2 };
        let to = Shape { values: 3, lanes: 4, ..small.clone() };
        let expected = [[0, 1, 0, 1, 2, 3, 2, 3, 0, 1, 0, 1], [4, 5, 4, 5, 6, 7, 6, 7, 4, 5, 4, 5]];
        assert_eq!(repeated(&small, &[0, 1, 2, 3, 4, 5, 6, 7], &to), expected.concat());
    }
}
