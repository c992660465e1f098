//! What the machine can do at most, measured: kernels are reported as fractions of it.

use std::hint::black_box;
use std::time::Instant;

use cryptodl_core::backend::{Ceiling, Ceilings, Effort, Measured, Result};

use crate::Cpu;
use crate::simd::{Dot, Kernel, unrolled, with_simd};

// Rates of all threads of the current rayon pool together, in simple loops.
impl Measured for Cpu {
    fn ceilings(&self, effort: Effort) -> Result<Ceilings> {
        let runs = effort.repetitions.max(1);
        let sum = |rate: &(dyn Fn() -> f64 + Sync)| rayon::broadcast(|_| rate()).into_iter().sum();
        Ok(Ceilings {
            copy: Ceiling {
                per_second: sum(&|| copied_bytes(runs)),
                how: "copies between buffers far larger than the caches, one per thread",
            },
            multiply_add: Ceiling {
                per_second: sum(&|| integer_multiply_adds(runs)),
                how: "a loop of 32-bit integer multiply-adds in portable Rust",
            },
            linear: Ceiling {
                per_second: sum(&|| with_simd!(self.simd(), s => digit_products(s, runs))),
                how: "products of a weight and a digit of a residue with these kernels' instructions, summed in registers, operands in \
                      the first-level cache",
            },
        })
    }

    fn linear_operations(&self, bits: u32) -> u32 {
        fn digit_bits<D: Dot>(_: D) -> u32 {
            D::DIGIT_BITS
        }
        bits.div_ceil(with_simd!(self.simd(), s => digit_bits(s)))
    }

    fn transform_passes(&self) -> u32 {
        1
    }
}

/// The shortest of several runs.
fn seconds(runs: usize, mut f: impl FnMut()) -> f64 {
    let time = || {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    std::iter::repeat_with(time).take(runs).fold(f64::INFINITY, f64::min)
}

fn copied_bytes(runs: usize) -> f64 {
    const WORDS: usize = 16 << 20;
    let (from, mut to) = (vec![1u32; WORDS], vec![0u32; WORDS]);
    let seconds = seconds(runs + 1, || black_box(&mut to).copy_from_slice(black_box(&from)));
    (2 * 4 * WORDS) as f64 / seconds
}

fn integer_multiply_adds(runs: usize) -> f64 {
    const ROUNDS: usize = 20_000;
    let seconds = seconds(10 * runs, || {
        let (factor, addend) = black_box((0x9e37_79b9u32, 7u32));
        let mut x: [u32; 64] = black_box([1; 64]);
        for _ in 0..ROUNDS {
            x.iter_mut().for_each(|x| *x = x.wrapping_mul(factor).wrapping_add(addend));
        }
        black_box(x);
    });
    (ROUNDS * 64) as f64 / seconds
}

/// Four weights and three vectors, read again and again, and twelve sums.
fn digit_products<D: Dot>(s: D, runs: usize) -> f64 {
    const ROUNDS: usize = 20_000;
    let seconds = seconds(10 * runs, || {
        black_box(s.run(Peak { rounds: ROUNDS }));
    });
    (ROUNDS * SUMS * D::LANES * D::TAPS) as f64 / seconds
}

const ROWS: usize = 4;
const VECTORS: usize = 3;
const SUMS: usize = ROWS * VECTORS;

struct Peak {
    rounds: usize,
}

impl<D: Dot> Kernel<D> for Peak {
    type Output = [[D::V; VECTORS]; ROWS];

    #[inline(always)]
    fn compute(self, s: D) -> Self::Output {
        let (vectors, weights) = ([D::Array::default(); VECTORS], [D::weight(&[1; 4][..D::TAPS]); ROWS]);
        let mut sums = [[s.splat(0); VECTORS]; ROWS];
        for _ in 0..self.rounds {
            // Opaque, or the compiler would multiply once only.
            let (vectors, weights) = (black_box(&vectors), black_box(&weights));
            let mut x = [s.splat(0); VECTORS];
            unrolled!(vector < VECTORS => { x[vector] = s.load(&vectors[vector]); });
            unrolled!(row < ROWS => {
                unrolled!(vector < VECTORS => { sums[row][vector] = s.dot(sums[row][vector], x[vector], weights[row]); });
            });
        }
        sums
    }
}
