//! Times the kernels of every family on the shapes of CNN Model 1:
//! `cargo run --release -p cryptodl-cpu --example speed [-- parts of names]`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use cryptodl_core::backend::{Backend, Horner, KeySwitch, LinearMap, ProductPlan, Shape, SlotwiseOp, slotwise_shape};
use cryptodl_core::ckks::RelinLayout;
use cryptodl_core::ring::{RnsBasis, ntt_primes};
use cryptodl_cpu::{Cpu, Kernels};

/// Seconds of processor time of all threads so far, which other processes disturb less than the clock; Linux only.
fn processor_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let nanoseconds = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() * 1e-9
}

fn best(what: &str, unit: f64, name: &str, mut f: impl FnMut()) {
    if !std::env::args().skip(1).all(|part| what.contains(&part)) {
        return;
    }
    let time = || {
        let start = (Instant::now(), processor_seconds());
        f();
        (start.0.elapsed().as_secs_f64(), processor_seconds() - start.1)
    };
    let best = |(a, b): (f64, f64), (c, d): (f64, f64)| (a.min(c), b.min(d));
    let (clock, processor) =
        std::iter::repeat_with(time).take(if unit == 1e3 { 7 } else { 200 }).reduce(best).expect("seven runs");
    println!("{what:48} {:9.2} {name}, {:9.2} {name} of all processors", clock * unit, processor * unit);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for kernels in Kernels::available().into_iter().rev() {
        for (n, bits, limbs) in [(4096, 24, 3), (8192, 25, 4), (8192, 30, 4)] {
            run(kernels, n, bits, limbs)?;
        }
    }
    Ok(())
}

fn run(kernels: Kernels, n: usize, bits: u32, limbs: usize) -> Result<(), Box<dyn std::error::Error>> {
    let basis = Arc::new(RnsBasis::new(n, &ntt_primes(n, bits, 6)?)?);
    let cpu = Cpu::with_kernels(basis.clone(), kernels);
    let name = |what: &str| format!("{} {n} {limbs}x{bits} {what}", kernels.name());

    let one: Vec<u32> = (0..n as u32).map(|j| j * 65_537 % (1 << (bits - 1))).collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let mut row = cpu.upload(Shape { limbs: vec![0], values: 1, components: 1, lanes: n }, &one)?;
    pool.install(|| {
        best(&name("forward NTT"), 1e6 / 50.0, "us", || {
            (0..50).for_each(|_| cpu.forward_ntt(black_box(&mut row)).expect("in place"))
        });
        best(&name("inverse NTT"), 1e6 / 50.0, "us", || {
            (0..50).for_each(|_| cpu.inverse_ntt(black_box(&mut row)).expect("in place"))
        });
    });

    // 50 channels of 16 positions with 256 taps; a cubic; ten outputs.
    let weights = |len: usize| (0..len).map(|i| (i * 89 % 255) as i16 - 127).collect::<Vec<_>>();
    let tap = |p: usize, t: usize| (p / 4 * 4 + t / 16) * 28 + p % 4 * 4 + t % 16;
    let gather = (0..16 * 256).map(|i| tap(i / 256, i % 256) as u32).collect();
    let first = LinearMap::new(&basis, 784, 50, 256, 1, 0, weights(50 * 256), gather, &[3e9; 50])?;
    let last = LinearMap::new(&basis, 800, 10, 800, 1, 0, weights(8000), (0..800).collect(), &[5e9; 10])?;
    let cubic = Horner::new(&basis, true, &[1e9, 2e9, 3e9]);
    let shape = Shape { limbs: (0..limbs.min(3)).collect(), values: 784, components: 2, lanes: n };
    let mask = (1 << (bits - 1)) - 1;
    let residues: Vec<u32> = (0..shape.len() as u32).map(|j| j.wrapping_mul(0x9e37_79b9) & mask).collect();
    let x = cpu.upload(shape, &residues)?;
    let ops = [SlotwiseOp::Linear(&first), SlotwiseOp::Polynomial(&cubic), SlotwiseOp::Linear(&last)];
    for (what, ops) in [("first linear layer", &ops[..1]), ("and cubic", &ops[..2]), ("and last layer", &ops)] {
        let mut out = cpu.zeros(slotwise_shape(ops, cpu.shape(&x)))?;
        best(&name(what), 1e3, "ms", || cpu.slotwise(ops, &x, 0..n, black_box(&mut out)).expect("memory is enough"));
    }

    let packed = cpu.pack(&x, 0)?;
    let mut unpacked = cpu.zeros(cpu.shape(&x).clone())?;
    best(&name("pack 784 x 3"), 1e3, "ms", || drop(black_box(cpu.pack(&x, 0))));
    best(&name("unpack 784 x 3"), 1e3, "ms", || drop(black_box(cpu.unpack(&packed, &mut unpacked, 0))));

    if limbs >= 4 {
        let shape = Shape { limbs: vec![0, 1, 2, 3], values: 100, components: 2, lanes: n };
        let part = cpu.upload(shape, &residues[..800 * n])?;
        best(&name("rescale 100 x 2, 4 limbs"), 1e3, "ms", || drop(black_box(cpu.mod_down(&part, &[3]))));
        best(&name("divide 100 x 2 by two limbs"), 1e3, "ms", || drop(black_box(cpu.mod_down(&part, &[2, 3]))));
        best(&name("multiply 100 x 4 limbs"), 1e3, "ms", || drop(black_box(cpu.multiply(&part, &part))));
        // As CNN Model 1 layer by layer: four limbs, two products, digits of two primes, two special primes.
        let special = [4, 5];
        let shape = Shape { limbs: (0..6).collect(), values: 2, components: 2, lanes: n };
        let rows = cpu.upload(shape, &residues[..24 * n])?;
        let layout = RelinLayout { level: 4, digit_primes: 2 };
        let key = KeySwitch { rows: &rows, layout, special: &special };
        let plan = ProductPlan { relinearize: true, drop: 1 };
        best(&name("activation 100"), 1e3, "ms", || {
            drop(black_box(cpu.activation(&cubic, &[plan, plan], Some(&key), &part)))
        });
    }
    Ok(())
}
