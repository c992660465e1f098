//! Times the portable kernels on the shapes of CNN Model 1, N = 8192:
//! `cargo run --release -p cryptodl-cpu --example speed [-- part of a name]`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use cryptodl_core::backend::{Backend, Horner, LinearMap, Shape, SlotwiseOp, slotwise_shape};
use cryptodl_core::ring::{RnsBasis, ntt_primes};
use cryptodl_cpu::Portable;

const N: usize = 8192;

fn best(what: &str, unit: f64, name: &str, mut f: impl FnMut()) {
    if !std::env::args().skip(1).all(|part| what.contains(&part)) {
        return;
    }
    let time = || {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    let seconds = std::iter::repeat_with(time).take(5).fold(f64::INFINITY, f64::min);
    println!("{what:32} {:9.1} {name}", seconds * unit);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let basis = Arc::new(RnsBasis::new(N, &ntt_primes(N, 30, 4)?)?);
    let cpu = Portable::new(basis.clone());
    println!("{}, {} threads", cpu.device(), rayon::current_num_threads());

    let mut row: Vec<u32> = (0..N as u32).map(|j| j * 65_537 % (1 << 29)).collect();
    best("forward NTT", 1e6 / 1000.0, "us", || (0..1000).for_each(|_| basis.table(0).forward(black_box(&mut row))));
    best("inverse NTT", 1e6 / 1000.0, "us", || (0..1000).for_each(|_| basis.table(0).inverse(black_box(&mut row))));

    // 50 channels of 16 positions with 256 taps; a cubic; ten outputs.
    let weights = |len: usize| (0..len).map(|i| (i * 89 % 255) as i16 - 127).collect::<Vec<_>>();
    let gather = (0..16 * 256).map(|i| (i * 31 % 784) as u32).collect();
    let first = LinearMap::new(&basis, 784, 50, 256, 1, 0, weights(50 * 256), gather, &[3e9; 50])?;
    let last = LinearMap::new(&basis, 800, 10, 800, 1, 0, weights(8000), (0..800).collect(), &[5e9; 10])?;
    let cubic = Horner::new(&basis, true, &[1e9, 2e9, 3e9]);
    let shape = Shape { limbs: vec![0, 1, 2], values: 784, components: 2, lanes: N };
    let residues: Vec<u32> = (0..shape.len() as u32).map(|j| j.wrapping_mul(0x9e37_79b9) >> 3).collect();
    let x = cpu.upload(shape, &residues)?;
    let ops = [SlotwiseOp::Linear(&first), SlotwiseOp::Polynomial(&cubic), SlotwiseOp::Linear(&last)];
    for (name, ops) in [("first linear layer", &ops[..1]), ("and cubic", &ops[..2]), ("and last layer", &ops)] {
        let mut out = cpu.zeros(slotwise_shape(ops, cpu.shape(&x)))?;
        best(name, 1e3, "ms", || cpu.slotwise(ops, &x, 0..N, black_box(&mut out)).expect("memory is enough"));
    }

    let packed = cpu.pack(&x, 0)?;
    let mut unpacked = cpu.zeros(cpu.shape(&x).clone())?;
    best("pack 784 x 3", 1e3, "ms", || drop(black_box(cpu.pack(&x, 0))));
    best("unpack 784 x 3", 1e3, "ms", || drop(black_box(cpu.unpack(&packed, &mut unpacked, 0))));

    let mut part =
        cpu.upload(Shape { limbs: vec![0, 1, 2, 3], values: 100, components: 2, lanes: N }, &residues[..800 * N])?;
    best("rescale 100 x 2, 4 limbs", 1e3, "ms", || drop(black_box(cpu.mod_down(&part, &[3]))));
    best("divide 100 x 2 by two limbs", 1e3, "ms", || drop(black_box(cpu.mod_down(&part, &[2, 3]))));
    best("800 forward NTTs", 1e3, "ms", || cpu.forward_ntt(black_box(&mut part)).expect("memory is enough"));
    best("multiply 100 x 4 limbs", 1e3, "ms", || drop(black_box(cpu.multiply(&part, &part))));
    Ok(())
}
