//! Runs of slot-wise operations, fused: a line of lanes goes through the whole run while it stays in the cache.

use std::ops::Range;

use cryptodl_core::backend::{Channels, Horner, SlotwiseOp, slotwise_shape};
use cryptodl_core::ring::{Modulus, RnsBasis};
use rayon::prelude::*;

use super::elementwise::evaluate;
use super::linear::{LINE, PreparedMap};
use super::reduce::Prime;
use crate::machine::Caches;
use crate::memory::{Kept, Memory};
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

/// Memory of one thread.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Lines of the operand.
    input: Memory,
    x: Memory,
    y: Memory,
    /// One value, in a product of ciphertexts.
    factor: Memory,
    /// Packed inputs of a linear map.
    panel: Memory,
}

/// The run `ops` on lanes `lanes` of `x`, written to the same lanes of `out`, canonical.
pub(crate) fn run<D: Dot>(
    s: D,
    (basis, kept): (&RnsBasis, &Kept<Scratch>),
    ops: &[SlotwiseOp<'_>],
    x: &CpuTensor,
    lanes: Range<usize>,
    out: &mut CpuTensor,
) {
    assert_eq!(out.shape(), &slotwise_shape(ops, x.shape()), "result of slot-wise operations");
    let limbs = &x.shape().limbs;
    let sizes = || limbs.iter().map(|&limb| basis.modulus(limb).bits());
    let steps: Vec<Step<'_, D>> = ops
        .iter()
        .map(|op| match op {
            SlotwiseOp::Linear(map) => Step::Linear(PreparedMap::new(map, sizes())),
            SlotwiseOp::Polynomial(polynomial) => Step::Polynomial(polynomial),
        })
        .collect();
    let first_map = steps.iter().find_map(|step| if let Step::Linear(map) = step { Some(map) } else { None });
    let reads = first_map.map_or_else(|| vec![true; x.shape().values], PreparedMap::reads);
    let lines = (lanes.len() * limbs.len()).div_ceil(LINE);
    let width = LINE * (lines / (TASKS_PER_THREAD * rayon::current_num_threads())).clamp(1, MAX_LINES);
    tiles(out, lanes, width).into_par_iter().for_each_init(
        || kept.take(),
        |scratch, tile| {
            let limb = limbs[tile.limb];
            s.run(RunTile { steps: &steps, prime: (limb, basis.modulus(limb)), x, reads: &reads, tile, scratch });
        },
    );
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
    /// Which values the first map reads: of `x`, and of the results of activations before it.
    reads: &'a [bool],
    tile: Tile<'a>,
    scratch: &'a mut Scratch,
}

impl<D: Dot> Kernel<D> for RunTile<'_, D> {
    type Output = ();

    #[inline(always)]
    fn compute(self, s: D) {
        let RunTile { steps, prime, x, reads, mut tile, scratch } = self;
        let shape = x.shape();
        let len = shape.values * shape.components * LINE;
        // In half of a core's cache.
        let most = Caches::of_this_machine().core / 2;
        let together = (most / (size_of::<u32>() * len.max(1))).clamp(1, MAX_INPUT_LINES) * LINE;
        let (start, end) = (tile.lanes.start, tile.lanes.end);
        for first in tile.lanes.clone().step_by(together) {
            let lanes = first..(first + together).min(end);
            load_lines(x, reads, tile.limb, lanes.clone(), &mut scratch.input);
            for (line, lane) in lanes.step_by(LINE).enumerate() {
                let Scratch { input, x, y, factor, panel } = scratch;
                let input = &input[line * len..][..len];
                let (mut values, mut components) = (shape.values, shape.components);
                // After the first map every value counts.
                let mut read = Some(reads);
                for (index, step) in steps.iter().enumerate() {
                    let from = if index == 0 { input } else { &x[..] };
                    match step {
                        Step::Linear(map) => {
                            values = map.outputs();
                            y.set_len(values * components * LINE);
                            map.apply(s, prime, components, from, y, panel);
                            read = None;
                        }
                        Step::Polynomial(polynomial) => {
                            let result = polynomial.degree() * (components - 1) + 1;
                            y.set_len(values * result * LINE);
                            factor.set_len(result * LINE);
                            let modulus = Prime::new(s, prime.1);
                            let channels = Channels::new(polynomial.channels(), values);
                            let negate = polynomial.negates();
                            let operands = from.chunks_exact(components * LINE);
                            let results = y.chunks_exact_mut(result * LINE);
                            let mut all = operands.zip(results).enumerate();
                            for channel in 0..channels.count() {
                                // Found once for all values of the channel.
                                let constants = polynomial.of_channel(prime.0, channel);
                                for (value, (z, out)) in all.by_ref().take(channels.positions()) {
                                    if read.is_some_and(|read| !read[value]) {
                                        continue;
                                    }
                                    for vector in (0..LINE).step_by(D::LANES) {
                                        let (z, out) = (&z[vector..], &mut out[vector..]);
                                        evaluate(s, modulus, (negate, constants), LINE, z, factor, out);
                                    }
                                }
                            }
                            components = result;
                        }
                    }
                    std::mem::swap(x, y);
                }
                let result = if steps.is_empty() { input } else { &x[..] };
                for (to, row) in tile.out.iter_mut().zip(result.as_chunks::<LINE>().0) {
                    let to = &mut to[lane - start..];
                    let len = to.len().min(LINE);
                    to[..len].copy_from_slice(&row[..len]);
                }
            }
        }
    }
}

/// Lines that are read together at most. Lanes of different rows are far apart in memory, so several lines of each row at a
/// time come much faster; where they stood, powers of two apart, they would not stay in the cache either.
const MAX_INPUT_LINES: usize = 4;

/// Copies lanes of the values that are read to `[line][row][lane]`, padded with zeros; other rows are any.
fn load_lines(x: &CpuTensor, reads: &[bool], limb: usize, lanes: Range<usize>, to: &mut Memory) {
    let shape = x.shape();
    let rows = shape.values * shape.components;
    to.set_len(lanes.len().div_ceil(LINE) * rows * LINE);
    let (to, _) = to.as_chunks_mut::<LINE>();
    let residues = &x.residues()[limb * shape.limb_len()..][..shape.limb_len()];
    let all = residues.chunks_exact(shape.lanes).enumerate();
    for (index, row) in all.filter(|(index, _)| reads[index / shape.components]) {
        let (whole, rest) = row[lanes.clone()].as_chunks::<LINE>();
        for (line, from) in whole.iter().enumerate() {
            to[line * rows + index] = *from;
        }
        if !rest.is_empty() {
            let to = &mut to[whole.len() * rows + index];
            *to = [0; LINE];
            to[..rest.len()].copy_from_slice(rest);
        }
    }
}
