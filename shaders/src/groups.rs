//! Workgroups per dispatch, `[x, y, z]`, at most 65535 each.

use crate::params::{
    AccumulateKey, Automorphism, Convert, Elementwise, Expand, Horner, Linear, Multiply, Ntt, Packing, PrimeDigit,
};
use crate::{Kernel, constants};

/// Most workgroups in a dimension, whatever the adapter.
pub const MAX_GROUPS: u32 = 65535;

fn lanewise(kernel: &Kernel, lanes: u32, rows: u32, limbs: u32) -> [u32; 3] {
    [lanes.div_ceil(kernel.workgroup[0]), rows.min(MAX_GROUPS), limbs]
}

/// Of `add_constant`, `scale`, `add`, `accumulate`, `subtract_scale`, `copy`.
pub fn elementwise(p: &Elementwise, limbs: u32) -> [u32; 3] {
    lanewise(&crate::ADD, p.lanes, p.values * p.components, limbs)
}

/// Of `multiply`.
pub fn multiply(p: &Multiply, limbs: u32) -> [u32; 3] {
    lanewise(&crate::MULTIPLY, p.lanes, p.values, limbs)
}

/// Of `horner`.
pub fn horner(p: &Horner, limbs: u32) -> [u32; 3] {
    lanewise(&crate::HORNER, p.lanes, p.values, limbs)
}

/// Of `accumulate_key`.
pub fn accumulate_key(p: &AccumulateKey, limbs: u32) -> [u32; 3] {
    lanewise(&crate::ACCUMULATE_KEY, p.lanes, p.values, limbs)
}

/// Of `unpack` and `pack`.
pub fn packing(p: &Packing, limbs: u32) -> [u32; 3] {
    lanewise(&crate::PACK, p.lanes, p.values, limbs)
}

/// Of `expand`.
pub fn expand(p: &Expand, limbs: u32) -> [u32; 3] {
    [p.lanes / constants::expand::LANES, p.values.min(MAX_GROUPS), limbs]
}

/// Of `convert_basis`; the targets are no dimension of it.
pub fn convert_basis(p: &Convert) -> [u32; 3] {
    [p.lanes.div_ceil(constants::convert_basis::THREADS), (p.values * p.components).min(MAX_GROUPS), 1]
}

/// Of `prime_digit`, with so many targets.
pub fn prime_digit(p: &PrimeDigit, targets: u32) -> [u32; 3] {
    lanewise(&crate::PRIME_DIGIT, p.lanes, p.values * p.components, targets)
}

/// Of `automorphism`.
pub fn automorphism(p: &Automorphism, limbs: u32) -> [u32; 3] {
    lanewise(&crate::AUTOMORPHISM, 1 << p.log_n, p.values * p.components, limbs)
}

/// Of `linear` with `row_groups` as its `ROW_GROUPS`.
pub fn linear(p: &Linear, row_groups: u32, limbs: u32) -> [u32; 3] {
    let blocks = p.blocks.div_ceil(row_groups);
    let outputs = p.positions * p.groups * blocks;
    [p.lanes.div_ceil(constants::linear::LANES), outputs.min(MAX_GROUPS), limbs * p.components]
}

/// Of `ntt_forward_columns` and `ntt_inverse_columns`: 16 rows of N/16 columns, two mirrored columns per thread.
pub fn ntt_columns(p: &Ntt, n: u32, limbs: u32) -> [u32; 3] {
    [(n / 32).div_ceil(crate::NTT_FORWARD_COLUMNS.workgroup[0]), p.polynomials.min(MAX_GROUPS), limbs]
}

/// Of `ntt_forward_rows` and `ntt_inverse_rows`: tiles of several polynomials, one, or a part of one.
pub fn ntt_rows(p: &Ntt, n: u32, limbs: u32) -> [u32; 3] {
    let tile = constants::ntt_forward_rows::TILE;
    let per_tile = (tile / n).max(1);
    [(n / tile).max(1), p.polynomials.div_ceil(per_tile).min(MAX_GROUPS), limbs]
}
