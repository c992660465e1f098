//! Runs of slot-wise operations, fused: a line of lanes goes through the whole run while it stays in the cache.

use std::ops::Range;

use cryptodl_core::backend::{Horner, SlotwiseOp, slotwise_shape};
use cryptodl_core::ring::{Modulus, RnsBasis};
use rayon::prelude::*;

use super::elementwise::evaluate;
use super::linear::{LINE, PreparedMap};
use super::reduce::Prime;
use crate::simd::{Dot, Kernel};
use crate::tensor::CpuTensor;

/// Tasks for each thread, so that all end at about the same time.
const TASKS_PER_THREAD: usize = 16;

/// Lines of a task at most.
const MAX_LINES: usize = 32;

#[allow(clippy::large_enum_variant, reason = "a handful per call")]
enum Step<'a, D: Dot> {
    Linear(PreparedMap<'a, D>),
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
struct Scratch<D: Dot> {
    x: Vec<u32>,
    y: Vec<u32>,
    panel: Vec<D::Array>,
}

/// The run `ops` on lanes `lanes` of `x`, written to the same lanes of `out`, canonical.
pub(crate) fn run<D: Dot>(
    s: D,
    basis: &RnsBasis,
    ops: &[SlotwiseOp<'_>],
    x: &CpuTensor,
    lanes: Range<usize>,
    out: &mut CpuTensor,
) {
    assert_eq!(out.shape(), &slotwise_shape(ops, x.shape()), "result of a slot-wise run");
    let limbs = &x.shape().limbs;
    let sizes = || limbs.iter().map(|&limb| basis.modulus(limb).bits());
    let steps: Vec<Step<'_, D>> = ops
        .iter()
        .map(|op| match op {
            SlotwiseOp::Linear(map) => Step::Linear(PreparedMap::new(map, sizes())),
            SlotwiseOp::Polynomial(polynomial) => Step::Polynomial(polynomial),
        })
        .collect();
    let lines = (lanes.len() * limbs.len()).div_ceil(LINE);
    let width = LINE * (lines / (TASKS_PER_THREAD * rayon::current_num_threads())).clamp(1, MAX_LINES);
    let scratch = || Scratch::<D> { x: Vec::new(), y: Vec::new(), panel: Vec::new() };
    tiles(out, lanes, width).into_par_iter().for_each_init(scratch, |scratch, tile| {
        let limb = limbs[tile.limb];
        s.run(RunTile { steps: &steps, prime: (limb, basis.modulus(limb)), x, tile, scratch });
    });
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

/// Takes a tile through all steps, line by line. A short line is padded with zeros.
struct RunTile<'a, D: Dot> {
    steps: &'a [Step<'a, D>],
    prime: (usize, Modulus),
    x: &'a CpuTensor,
    tile: Tile<'a>,
    scratch: &'a mut Scratch<D>,
}

impl<D: Dot> Kernel<D> for RunTile<'_, D> {
    type Output = ();

    #[inline(always)]
    fn compute(self, s: D) {
        let RunTile { steps, prime, x, mut tile, scratch } = self;
        let shape = x.shape();
        let rows = &x.residues()[tile.limb * shape.limb_len()..][..shape.limb_len()];
        for (line, first) in tile.lanes.clone().step_by(LINE).enumerate() {
            let lanes = first..(first + LINE).min(tile.lanes.end);
            let (mut values, mut components) = (shape.values, shape.components);
            scratch.x.resize(values * components * LINE, 0);
            for (to, row) in scratch.x.as_chunks_mut::<LINE>().0.iter_mut().zip(rows.chunks_exact(shape.lanes)) {
                // The next line of a row is on the way while this one is computed.
                s.prefetch(&row[(lanes.start + LINE).min(shape.lanes - 1)]);
                match row[lanes.clone()].first_chunk() {
                    Some(whole) => *to = *whole,
                    None => {
                        *to = [0; LINE];
                        to[..lanes.len()].copy_from_slice(&row[lanes.clone()]);
                    }
                }
            }
            for step in steps {
                match step {
                    Step::Linear(map) => {
                        values = map.outputs();
                        scratch.y.resize(values * components * LINE, 0);
                        map.apply(s, prime, components, &scratch.x, &mut scratch.y, &mut scratch.panel);
                    }
                    Step::Polynomial(polynomial) => {
                        let result = polynomial.degree() * (components - 1) + 1;
                        scratch.y.resize(values * result * LINE, 0);
                        let modulus = Prime::new(s, prime.1);
                        let operands = scratch.x.chunks_exact(components * LINE);
                        for (z, out) in operands.zip(scratch.y.chunks_exact_mut(result * LINE)) {
                            for first in (0..LINE).step_by(D::LANES) {
                                evaluate(s, modulus, (polynomial, prime.0), LINE, &z[first..], &mut out[first..]);
                            }
                        }
                        components = result;
                    }
                }
                std::mem::swap(&mut scratch.x, &mut scratch.y);
            }
            for (to, row) in tile.out.iter_mut().zip(scratch.x.as_chunks::<LINE>().0) {
                let to = &mut to[line * LINE..];
                let len = to.len().min(LINE);
                to[..len].copy_from_slice(&row[..len]);
            }
        }
    }
}
