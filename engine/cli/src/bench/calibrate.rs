//! The planner's cost table as this machine would have it.

use std::fmt::Write;
use std::sync::Arc;

use anyhow::{Result, bail};
use cryptodl_client::SecretKey;
use cryptodl_core::backend::{Effort, LinearMap, Measured, Shape, SlotwiseOp, time};
use cryptodl_core::ckks::{ParamsSpec, Randomness, SecurityLevel, UniformPurpose, rerandomise};
use cryptodl_core::ring::{RnsBasis, ntt_primes};
use cryptodl_plan::CostTable;
use serde::Serialize;

use super::operands::residues;
use cryptodl::Machine;

/// What `bench --calibrate` writes.
#[derive(Serialize)]
pub struct Calibration {
    pub version: &'static str,
    #[serde(flatten)]
    pub machine: Machine,
    /// Nanoseconds on this machine.
    pub measured: CostTable,
    /// Nanoseconds in the planner's table.
    pub shipped: CostTable,
}

/// Ring of the measurements: a ciphertext of six limbs stays in a core's second-level cache, as in the executor.
const N: usize = 8192;
const BITS: u32 = 30;
const LIMBS: usize = 6;

/// Values of a tensor far larger than the caches.
const STREAMED: usize = 2048;

/// Values, components and limbs of a result that is masked.
const MASKED: [usize; 3] = [10, 3, 2];

impl Calibration {
    /// Measures a backend on one core.
    pub fn measure<B: Measured>(open: impl Fn(&Arc<RnsBasis>) -> B + Send, effort: Effort) -> Result<Self> {
        rayon::ThreadPoolBuilder::new().num_threads(1).build()?.install(|| Self::measure_here(open, effort))
    }

    fn measure_here<B: Measured>(open: impl Fn(&Arc<RnsBasis>) -> B, effort: Effort) -> Result<Self> {
        let primes = ntt_primes(N, BITS, LIMBS)?;
        let spec = ParamsSpec { n: N, primes, special_primes: Vec::new(), security: SecurityLevel::Bits128 };
        let params = spec.build()?;
        let basis = params.basis();
        let backend = open(basis);
        let shape = Shape { limbs: (0..LIMBS).collect(), values: 1, components: 2, lanes: N };
        let operand = || backend.upload(shape.clone(), &residues(basis, &shape));
        let (mut x, residues) = (operand()?, shape.len() as f64);
        let nanoseconds = |launch: &mut Launch<'_>| least(&backend, effort, launch);
        let transforms =
            nanoseconds(&mut || backend.forward_ntt(&mut x))? + nanoseconds(&mut || backend.inverse_ntt(&mut x))?;
        let products = nanoseconds(&mut || backend.multiply(&x, &x).map(drop))?;
        let (kept, last) = ((0..LIMBS - 1).collect::<Vec<_>>(), Shape { limbs: vec![LIMBS - 1], ..shape.clone() });
        let dropped = backend.upload(last.clone(), &super::operands::residues(basis, &last))?;
        let conversions = nanoseconds(&mut || backend.convert_basis(&dropped, &kept).map(drop))?;
        let packed = backend.pack(&x, 0)?;
        let unpacking = nanoseconds(&mut || backend.unpack(&packed, &mut x, 0).map(drop))?;
        let packing = nanoseconds(&mut || backend.pack(&x, 0).map(drop))?;
        let source = UniformPurpose::Ciphertext.source(&params, &[7; 32]);
        let expansion = nanoseconds(&mut || backend.expand(&source, 0, &mut x, 1))?;
        let mut rng = Randomness::from_os()?;
        let key = SecretKey::generate(&params, &mut rng).public_key(&mut rng)?;
        let [values, components, level] = MASKED;
        let mut result = vec![0; values * components * level * N];
        let masking = nanoseconds(&mut || {
            rerandomise(&params, &key, &mut result, values, components, level, &mut rng);
            Ok(())
        })?;
        let large = Shape { limbs: vec![0], values: STREAMED, components: 1, lanes: N };
        let wide = backend.upload(large.clone(), &super::operands::residues(basis, &large))?;
        let mut copied = backend.zeros(large.clone())?;
        let streaming = nanoseconds(&mut || backend.slotwise(&[], &wide, 0..N, &mut copied))?;
        let [multiply_add_plane, map_read, map_write] = linear_maps(&backend, effort)?;
        let measured = CostTable {
            multiply_add_plane,
            map_read,
            map_write,
            // One component is packed or expanded at a time.
            pack: 0.5 * (packing + unpacking) / (0.5 * residues),
            expand: expansion / (0.5 * residues),
            zero_encryption: masking / (values * (components - 1) * level * N) as f64,
            // Two ciphertexts of two components have four products.
            multiply: products / (2.0 * residues),
            ntt_layer: 0.5 * transforms / (residues * (N as f64).log2()),
            convert: conversions / (2 * kept.len() * N) as f64,
            stream: streaming / large.len() as f64,
            byte: CostTable::SHIPPED.byte,
            small_byte: CostTable::SHIPPED.small_byte,
        };
        let machine = Machine::of(&backend);
        Ok(Calibration { version: env!("CARGO_PKG_VERSION"), machine, measured, shipped: CostTable::SHIPPED })
    }

    /// As a Markdown document.
    pub fn text(&self) -> String {
        let Machine { device, threads, kernels, .. } = &self.machine;
        let mut text = format!("cryptodl {}: {device}, {threads} thread(s), kernels: {kernels}\n\n", self.version);
        text += "| operation | ns measured | ns in the planner's table | ratio |\n|---|---|---|---|\n";
        let (measured, shipped) = (&self.measured, &self.shipped);
        let mut row = |name: &str, of: fn(&CostTable) -> f64| {
            let (ours, theirs) = (of(measured), of(shipped));
            writeln!(text, "| {name} | {ours:.4} | {theirs:.4} | {:.2} |", ours / theirs).expect("strings grow");
        };
        row("multiply-add of a weight with one byte plane of a residue", |t| t.multiply_add_plane);
        row("residue that a position of a linear map takes", |t| t.map_read);
        row("residue written by a linear map", |t| t.map_write);
        row("residue packed or unpacked", |t| t.pack);
        row("residue expanded from a seed", |t| t.expand);
        row("residue of an encryption of zero, which masks a result", |t| t.zero_encryption);
        row("product of two residues", |t| t.multiply);
        row("coefficient in one layer of a transform", |t| t.ntt_layer);
        row("residue converted to another prime", |t| t.convert);
        row("residue that one step leaves in memory for the next", |t| t.stream);
        text += "\nPrograms never depend on the machine: the planner uses its own table wherever it runs. Only ratios within a column\nmatter. A byte sent or received counts ";
        writeln!(text, "{} ns by decision, not by measurement.", shipped.byte).expect("strings grow");
        text
    }
}

type Launch<'a> = dyn FnMut() -> cryptodl_core::backend::Result<()> + 'a;

/// Nanoseconds of a launch, the least of `effort`'s repetitions: what else runs on the machine only ever adds.
fn least<B: Measured>(backend: &B, effort: Effort, launch: &mut Launch<'_>) -> Result<f64> {
    let once = Effort { repetitions: 1, ..effort };
    let times = (0..effort.repetitions).map(|_| Ok(1e9 * time(backend, once, &mut *launch)?.seconds));
    times.collect::<Result<Vec<f64>>>().map(|times| times.into_iter().fold(f64::INFINITY, f64::min))
}

/// Costs of a multiply-add and plane, of a residue taken and of one written, from three dense maps in which each of them
/// dominates: `time = multiply-adds x planes x m + taken x r + written x w`.
fn linear_maps<B: Measured>(backend: &B, effort: Effort) -> Result<[f64; 3]> {
    let basis = backend.basis();
    let planes = f64::from(BITS.div_ceil(8));
    // Inputs, rows, and lanes with which all take about as long.
    let sizes = [(800, 256, 512), (800, 8, 4096), (16, 512, 4096)];
    let mut counts = [[0.0; 3]; 3];
    let mut times = [f64::INFINITY; 3];
    // A disturbance of one of the three can make the costs of others negative: then it is their turn again.
    for _ in 0..ROUNDS {
        for (i, (inputs, rows, lanes)) in sizes.into_iter().enumerate() {
            let weights = (0..inputs * rows).map(|i| (i * 89 % 255) as i16 - 127).collect();
            let gather = (0..inputs as u32).collect();
            let map = LinearMap::new(basis, inputs, rows, inputs, 1, 0, weights, gather, &vec![3e9; rows])?;
            let shape = Shape { limbs: vec![0], values: inputs, components: 1, lanes };
            let x = backend.upload(shape.clone(), &residues(basis, &shape))?;
            let mut out = backend.zeros(Shape { values: rows, ..shape })?;
            let ops = [SlotwiseOp::Linear(&map)];
            let launch = least(backend, effort, &mut || backend.slotwise(&ops, &x, 0..lanes, &mut out))?;
            times[i] = times[i].min(launch / lanes as f64);
            counts[i] = [map.multiply_adds() as f64 * planes, inputs as f64, rows as f64];
        }
        let costs = solve(counts, times);
        if costs.iter().all(|&cost| cost > 0.0) {
            return Ok(costs);
        }
    }
    bail!(
        "the times of linear maps contradict each other ({times:.0?} ns per lane): the machine is too busy to measure; try again"
    )
}

/// Turns of the linear maps at most.
const ROUNDS: usize = 20;

/// The solution of three linear equations, by Cramer's rule.
fn solve(rows: [[f64; 3]; 3], right: [f64; 3]) -> [f64; 3] {
    let [a, b, c] = [0, 1, 2].map(|column| rows.map(|row| row[column]));
    let whole = determinant(a, b, c);
    [determinant(right, b, c), determinant(a, right, c), determinant(a, b, right)].map(|part| part / whole)
}

fn determinant(a: [f64; 3], b: [f64; 3], c: [f64; 3]) -> f64 {
    let minor = |i: usize, j: usize| b[i] * c[j] - b[j] * c[i];
    a[0] * minor(1, 2) - a[1] * minor(0, 2) + a[2] * minor(0, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptodl_cpu::Cpu;

    #[test]
    fn every_operation_costs_something() {
        let effort = Effort { repetitions: 7, seconds: 0.0, bytes: 1 << 20 };
        let calibration = Calibration::measure(|basis| Cpu::new(basis.clone()), effort).unwrap();
        let CostTable { pack, expand, multiply, ntt_layer, convert, .. } = calibration.measured;
        assert!([pack, expand, multiply, ntt_layer, convert].iter().all(|&cost| cost > 0.0));
        assert!(calibration.text().contains("| residue expanded from a seed |"));
    }

    #[test]
    fn equations_are_solved() {
        let rows = [[2.0, 1.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 4.0]];
        let solution = [3.0, -2.0, 0.5];
        let right = rows.map(|row| (0..3).map(|i| row[i] * solution[i]).sum());
        assert_eq!(solve(rows, right), solution);
    }
}
