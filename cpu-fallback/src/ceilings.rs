//! What the processor allows, by simple loops on all threads.

use std::hint::black_box;
use std::time::Instant;

use cryptodl_core::backend::{Ceiling, Ceilings, Effort, Measured, Result};
use rayon::prelude::*;

use crate::Cpu;

/// Words of each of the two buffers of the copy: more than caches hold.
const COPIED: usize = 32 << 20;

impl Measured for Cpu {
    fn ceilings(&self, effort: Effort) -> Result<Ceilings> {
        let (from, mut to) = (vec![1u32; COPIED], vec![0u32; COPIED]);
        let part = COPIED.div_ceil(rayon::current_num_threads());
        let copy = rate(effort, 8.0 * COPIED as f64, || {
            to.par_chunks_mut(part).zip(from.par_chunks(part)).for_each(|(to, from)| to.copy_from_slice(from));
            black_box(&to);
        });
        let threads = rayon::current_num_threads() as f64;
        let everywhere = |f: fn()| {
            rayon::broadcast(|_| f());
        };
        let integers = (ROUNDS * 64) as f64 * threads;
        let floats = (ROUNDS * TAPS * ROWS * LANES) as f64 * threads;
        Ok(Ceilings {
            copy: Ceiling { per_second: copy, how: "a copy between two buffers in main memory" },
            multiply_add: Ceiling {
                per_second: rate(effort, integers, || everywhere(integer_loop)),
                how: "a loop of 32-bit integer multiply-adds in portable Rust",
            },
            linear: Ceiling {
                per_second: rate(effort, floats, || everywhere(float_loop)),
                how: "a loop of f64 multiply-adds in portable Rust, operands in the first-level cache",
            },
        })
    }

    fn linear_operations(&self, _bits: u32) -> u32 {
        1
    }

    fn transform_passes(&self) -> u32 {
        1
    }
}

const ROUNDS: usize = 256;
const TAPS: usize = 64;

/// Sums that fill half of the registers, as in the portable linear kernel.
const ROWS: usize = 4;
const LANES: usize = if cfg!(target_feature = "avx512f") {
    16
} else if cfg!(target_feature = "avx") {
    8
} else {
    4
};

/// `64 ROUNDS` multiply-adds.
fn integer_loop() {
    let (factor, addend) = black_box((0x9e37_79b9u32, 7u32));
    let mut x: [u32; 64] = black_box([1; 64]);
    for _ in 0..ROUNDS {
        x.iter_mut().for_each(|x| *x = x.wrapping_mul(factor).wrapping_add(addend));
    }
    black_box(x);
}

/// `ROUNDS TAPS ROWS LANES` multiply-adds.
fn float_loop() {
    let weights: [[f64; ROWS]; TAPS] = black_box([[3.0; ROWS]; TAPS]);
    let inputs: [[f64; LANES]; TAPS] = black_box([[5.0; LANES]; TAPS]);
    let mut sums = [[0.0; LANES]; ROWS];
    for _ in 0..ROUNDS {
        for (weights, inputs) in black_box(&weights).iter().zip(&inputs) {
            for r in 0..ROWS {
                for l in 0..LANES {
                    sums[r][l] += weights[r] * inputs[l];
                }
            }
        }
    }
    black_box(sums);
}

/// `amount` per second of `f`, the best of several runs.
fn rate(effort: Effort, amount: f64, mut f: impl FnMut()) -> f64 {
    let mut run = |launches: usize| {
        let start = Instant::now();
        (0..launches).for_each(|_| f());
        start.elapsed().as_secs_f64() / launches as f64
    };
    let first = run(1).min(run(1));
    let launches = (effort.seconds / first).clamp(1.0, 1e6) as usize;
    let best = (0..effort.repetitions.max(1)).map(|_| run(launches)).fold(f64::INFINITY, f64::min);
    amount / best
}
