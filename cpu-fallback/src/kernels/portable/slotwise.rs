//! Runs of slot-wise operations, fused: a tile of lanes goes through the whole run while it stays in the cache.

use std::ops::Range;

use cryptodl_core::backend::{Horner, SlotwiseOp, slotwise_shape};
use cryptodl_core::ring::{Modulus, RnsBasis};
use rayon::prelude::*;

use super::linear::{LANES, PackedMap, Panel};
use super::reduce::ProductReducer;
use crate::tensor::{CpuTensor, Place};

/// Bytes of a tile that should stay in a core's second-level cache, beside weights and panel.
const TILE_BYTES: usize = 512 << 10;

/// Widest tile: rows of a tile are then whole pages.
const MAX_WIDTH: usize = 512;

enum Step<'a> {
    Linear(PackedMap<'a>),
    Polynomial(&'a Horner),
}

/// The part of a result that one task computes.
struct Tile<'a> {
    /// Position in the tensor's limbs.
    limb: usize,
    /// Lanes of the operand.
    lanes: Range<usize>,
    /// The same lanes of every row of the result in that limb.
    out: Vec<&'a mut [u32]>,
}

/// Buffers that live as long as a worker's run of tiles.
#[derive(Default)]
struct Scratch {
    x: Vec<u32>,
    y: Vec<u32>,
    /// The smaller factor of a product of ciphertexts.
    factor: Vec<u32>,
    panel: Panel,
}

/// The run `ops` on lanes `lanes` of `x`, written to the same lanes of `out`, canonical.
pub(super) fn run(basis: &RnsBasis, ops: &[SlotwiseOp<'_>], x: &CpuTensor, lanes: Range<usize>, out: &mut CpuTensor) {
    assert_eq!(out.shape(), &slotwise_shape(ops, x.shape()), "result of a slot-wise run");
    let steps: Vec<Step<'_>> = ops
        .iter()
        .map(|op| match op {
            SlotwiseOp::Linear(map) => Step::Linear(PackedMap::new(map)),
            SlotwiseOp::Polynomial(polynomial) => Step::Polynomial(polynomial),
        })
        .collect();
    let width = tile_width(ops, x, lanes.len());
    tiles(out, lanes, width).into_par_iter().for_each_init(Scratch::default, |scratch, tile| {
        let limb = x.shape().limbs[tile.limb];
        scratch.run(&steps, (limb, basis.modulus(limb)), width, x, tile);
    });
}

/// Lanes per tile: as many as keep operand and result of the largest step in the cache, in whole vectors.
fn tile_width(ops: &[SlotwiseOp<'_>], x: &CpuTensor, lanes: usize) -> usize {
    let (mut values, mut components) = (x.shape().values, x.shape().components);
    let mut largest = values * components;
    for op in ops {
        let before = values * components;
        (values, components) = op.result(values, components);
        largest = largest.max(before + values * components);
    }
    let fitting = TILE_BYTES / (size_of::<u32>() * largest.max(1));
    fitting.clamp(4 * LANES, MAX_WIDTH).min(lanes.max(1)).next_multiple_of(LANES)
}

/// Cuts lanes `lanes` of `out` into tiles of `width` lanes (the last of a limb may be narrower).
fn tiles(out: &mut CpuTensor, lanes: Range<usize>, width: usize) -> Vec<Tile<'_>> {
    let row_len = out.shape().lanes;
    let limb_len = out.shape().limb_len();
    let mut tiles = Vec::new();
    for (limb, block) in out.residues_mut().chunks_exact_mut(limb_len.max(1)).enumerate() {
        let first = tiles.len();
        tiles.extend(lanes.clone().step_by(width).map(|start| Tile {
            limb,
            lanes: start..(start + width).min(lanes.end),
            out: Vec::with_capacity(limb_len / row_len),
        }));
        for row in block.chunks_exact_mut(row_len) {
            let parts = row[lanes.clone()].chunks_mut(width);
            tiles[first..].iter_mut().zip(parts).for_each(|(tile, part)| tile.out.push(part));
        }
    }
    tiles
}

impl Scratch {
    /// Loads a tile, takes it through all steps and stores it. A narrow tile is padded with lanes of zeros.
    fn run(&mut self, steps: &[Step<'_>], prime: (usize, Modulus), width: usize, x: &CpuTensor, tile: Tile<'_>) {
        let (mut values, mut components) = (x.shape().values, x.shape().components);
        self.x.resize(values * components * width, 0);
        for (row, to) in self.x.chunks_exact_mut(width).enumerate() {
            let place = Place { limb: tile.limb, value: row / components, component: row % components };
            let (used, padding) = to.split_at_mut(tile.lanes.len());
            used.copy_from_slice(&x.row(place)[tile.lanes.clone()]);
            padding.fill(0);
        }
        for step in steps {
            match step {
                Step::Linear(map) => {
                    values = map.outputs();
                    self.y.resize(values * components * width, 0);
                    map.apply(prime, (components, width), &self.x, &mut self.y, &mut self.panel);
                }
                Step::Polynomial(polynomial) => {
                    let result = polynomial.degree() * (components - 1) + 1;
                    self.y.resize(values * result * width, 0);
                    let operands = self.x.chunks_exact(components * width);
                    for (z, out) in operands.zip(self.y.chunks_exact_mut(result * width)) {
                        evaluate(polynomial, prime, width, z, &mut self.factor, out);
                    }
                    components = result;
                }
            }
            std::mem::swap(&mut self.x, &mut self.y);
        }
        for (to, row) in tile.out.into_iter().zip(self.x.chunks_exact(width)) {
            to.copy_from_slice(&row[..tile.lanes.len()]);
        }
    }
}

/// One value's activation: `z` and `out` are components of `width` lanes.
fn evaluate(
    polynomial: &Horner,
    (limb, modulus): (usize, Modulus),
    width: usize,
    z: &[u32],
    factor: &mut Vec<u32>,
    out: &mut [u32],
) {
    let reducer = ProductReducer::new(modulus);
    let mut len = z.len();
    out[..len].copy_from_slice(z);
    for product in 0..polynomial.degree() {
        if product > 0 {
            factor.clear();
            factor.extend_from_slice(&out[..len]);
            len += z.len() - width;
            reducer.multiply(factor, z, width, &mut out[..len]);
        }
        if polynomial.negates() && product + 1 == polynomial.degree() {
            out.iter_mut().for_each(|x| *x = modulus.neg(*x));
        }
        let constant = polynomial.constant(product, limb);
        out[..width].iter_mut().for_each(|x| *x = modulus.add(*x, constant));
    }
}
