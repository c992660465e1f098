//! What the machine can do at most, measured: kernels are reported as fractions of it.

use std::hint::black_box;
use std::time::Instant;

use crate::simd::{Dot, Kernel, Kernels, unrolled, with_simd};

/// Rates of all threads of the current rayon pool together, in simple loops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// Which kernels' instructions.
    pub kernels: &'static str,
    /// Threads.
    pub threads: usize,
    /// Bytes read and bytes written per second, copying between buffers far larger than the caches.
    pub copied_bytes: f64,
    /// Products of a weight and a digit per second, added up in registers: four weights and three vectors, read again and
    /// again from the first-level cache, and twelve sums.
    pub digit_products: f64,
    digit_bits: u32,
}

impl Ceilings {
    /// Products of a weight and a residue of `bits` bits per second: a residue is so many digits.
    pub fn multiply_adds(&self, bits: u32) -> f64 {
        self.digit_products / f64::from(bits.div_ceil(self.digit_bits))
    }
}

/// Measures for about half a second.
pub fn ceilings(kernels: Kernels) -> Ceilings {
    let sum = |rate: fn(Kernels) -> f64| rayon::broadcast(|_| rate(kernels)).into_iter().sum();
    Ceilings {
        kernels: kernels.name(),
        threads: rayon::current_num_threads(),
        copied_bytes: sum(|_| copied_bytes()),
        digit_products: sum(|kernels| with_simd!(kernels, s => digit_products(s))),
        digit_bits: with_simd!(kernels, s => digit_bits(s)),
    }
}

fn digit_bits<D: Dot>(_: D) -> u32 {
    D::DIGIT_BITS
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

fn copied_bytes() -> f64 {
    const WORDS: usize = 16 << 20;
    let (from, mut to) = (vec![1u32; WORDS], vec![0u32; WORDS]);
    let seconds = seconds(5, || black_box(&mut to).copy_from_slice(black_box(&from)));
    (2 * 4 * WORDS) as f64 / seconds
}

fn digit_products<D: Dot>(s: D) -> f64 {
    const ROUNDS: usize = 20_000;
    let seconds = seconds(50, || {
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
    type Output = [[D::Sum; VECTORS]; ROWS];

    #[inline(always)]
    fn compute(self, s: D) -> Self::Output {
        let (vectors, weights) = ([D::Array::default(); VECTORS], [D::weight(&[1; 4][..D::TAPS]); ROWS]);
        let mut sums = [[s.zero(); VECTORS]; ROWS];
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
