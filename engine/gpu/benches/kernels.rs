//! Every kernel of every backend, for comparing one version with another: `cargo bench -p cryptodl-gpu [-- part of a name]`. The
//! measurements are written once for all backends: the CPU's kernels of every family, on one thread, and those of a GPU, the first
//! hardware adapter or the one that `CRYPTODL_ADAPTER` names by a part of its name. `cryptodl bench` compares kernels with what the
//! machine allows, and checks their results.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Bencher, Criterion, Throughput};
use cryptodl_core::backend::{
    self, Backend, Effort, Horner, KeySwitch, LinearMap, Maintenance, Measured, Shape, SlotwiseOp, slotwise_shape,
};
use cryptodl_core::ckks::{ParamsSpec, RelinLayout, SecurityLevel, UniformPurpose};
use cryptodl_core::ring::{RnsBasis, ntt_primes};
use cryptodl_cpu::{Cpu, Kernels};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// In the pool: a call from outside it would be measured with two changes of thread.
fn main() -> Result<(), Error> {
    rayon::ThreadPoolBuilder::new().num_threads(1).build()?.install(measure)
}

fn measure() -> Result<(), Error> {
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    for kernels in Kernels::available() {
        all(&mut criterion, kernels.name(), &|basis| Ok(Cpu::with_kernels(basis, kernels)))?;
    }
    for (n, bits) in TRANSFORMS {
        tfhe_ntt(&mut criterion, n, bits)?;
    }
    gpu(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}

/// Dimensions, and bits of the prime.
const TRANSFORMS: [(usize, u32); 6] = [(4096, 30), (8192, 25), (8192, 30), (16384, 30), (32768, 30), (65536, 30)];

/// All measurements on a GPU, or one line that says why there are none.
fn gpu(criterion: &mut Criterion) -> Result<(), Error> {
    use cryptodl_gpu::{AdapterRequest, Gpu, GpuOptions, choose};

    const MEMORY: u64 = 1 << 30;
    let request = std::env::var("CRYPTODL_ADAPTER").map_or(AdapterRequest::HardwareOnly, AdapterRequest::Name);
    match choose(&request) {
        Ok(adapter) => all(criterion, "gpu", &|basis| Ok(Gpu::new(&adapter, basis, GpuOptions::new(MEMORY))?)),
        Err(error) => {
            println!("gpu: {error}; CRYPTODL_ADAPTER names an adapter");
            Ok(())
        }
    }
}

/// Makes a backend for a basis.
type Open<'a, B> = dyn Fn(Arc<RnsBasis>) -> Result<B, Error> + 'a;

/// All measurements on backends that `open` makes.
fn all<B: Measured>(criterion: &mut Criterion, name: &str, open: &Open<'_, B>) -> Result<(), Error> {
    let backend = |n: usize, bits: u32, limbs: usize| -> Result<B, Error> {
        open(Arc::new(RnsBasis::new(n, &ntt_primes(n, bits, limbs)?)?))
    };
    let ceilings = backend(4096, 30, 1)?.ceilings(Effort { repetitions: 3, seconds: 0.02, bytes: 128 << 20 })?;
    println!(
        "{name}: at most {:.1} G operations per second in linear maps, {:.1} GB/s copied",
        ceilings.linear.per_second / 1e9,
        ceilings.copy.per_second / 1e9
    );
    for (n, bits) in TRANSFORMS {
        transforms(criterion, name, &backend(n, bits, 1)?, bits)?;
    }
    for bits in [24, 30] {
        linear_maps(criterion, name, &backend(LANES, bits, 1)?, bits)?;
    }
    ciphertexts(criterion, name, &backend(8192, 30, 6)?)?;
    wire(criterion, name, &backend(4096, 24, 3)?)
}

/// Times `launch` with everything that it lets the backend do.
fn waited<B: Backend, T>(bencher: &mut Bencher<'_>, backend: &B, mut launch: impl FnMut() -> backend::Result<T>) {
    bencher.iter(|| {
        let result = launch().expect("the kernel runs");
        backend.synchronise().expect("the kernel runs");
        result
    });
}

/// Residues that look random, canonical for every prime of at least `bits` bits.
fn residues<B: Backend>(backend: &B, shape: Shape, bits: u32) -> Result<B::Tensor, Error> {
    let mask = (1 << (bits - 1)) - 1;
    let residues: Vec<u32> = (0..shape.len() as u32).map(|j| (j.wrapping_mul(0x9e37_79b9) >> 2) & mask).collect();
    Ok(backend.upload(shape, &residues)?)
}

fn transforms<B: Backend>(criterion: &mut Criterion, name: &str, backend: &B, bits: u32) -> Result<(), Error> {
    let n = backend.basis().n();
    let mut x = residues(backend, Shape { limbs: vec![0], values: 1, components: 1, lanes: n }, bits)?;
    let mut group = criterion.benchmark_group(format!("{name} transform {n} x {bits} bits"));
    group.throughput(Throughput::Elements(n as u64));
    group.bench_function("forward", |b| waited(b, backend, || backend.forward_ntt(black_box(&mut x))));
    group.bench_function("inverse", |b| waited(b, backend, || backend.inverse_ntt(black_box(&mut x))));
    Ok(())
}

/// The crate `tfhe-ntt` beside ours, on the same primes and with the best instructions of its own that the machine has (AVX-512,
/// else AVX2, whatever the family of our kernels).
///
/// The same: dimension, prime, in place, one polynomial, coefficients in natural and values in bit-reversed order, canonical in
/// and out, Shoup factors. Not the same: theirs is the negacyclic transform, modulo `X^N + 1`; ours, of the conjugate-invariant
/// ring, also folds before the first layer and unfolds after the last (one more product for each residue), and its inverse
/// divides by `N` on the way, which theirs leaves to `normalize`.
fn tfhe_ntt(criterion: &mut Criterion, n: usize, bits: u32) -> Result<(), Error> {
    let q = ntt_primes(n, bits, 1)?[0];
    let plan = tfhe_ntt::prime32::Plan::try_new(n, q).ok_or("tfhe-ntt takes no such prime")?;
    let mut x: Vec<u32> = (0..n as u32).map(|j| (j.wrapping_mul(0x9e37_79b9) >> 2) % q).collect();
    let mut group = criterion.benchmark_group(format!("tfhe-ntt transform {n} x {bits} bits"));
    group.throughput(Throughput::Elements(n as u64));
    group.bench_function("forward", |b| b.iter(|| plan.fwd(black_box(&mut x))));
    group.bench_function("inverse, not normalised", |b| b.iter(|| plan.inv(black_box(&mut x))));
    group.bench_function("inverse", |b| {
        b.iter(|| {
            plan.inv(black_box(&mut x));
            plan.normalize(&mut x);
        });
    });
    Ok(())
}

/// Lanes that linear maps are measured on.
const LANES: usize = 256;

/// Linear layers of the shipped models; elements are products of a weight and a residue.
fn linear_maps<B: Backend>(criterion: &mut Criterion, name: &str, backend: &B, bits: u32) -> Result<(), Error> {
    let weights = |len: usize| (0..len).map(|i| (i * 89 % 255) as i16 - 127).collect::<Vec<_>>();
    // Convolution with a square kernel over channels of square images, no padding.
    let convolution = |channels: usize, image: usize, rows: usize, kernel: usize, stride: usize| {
        let out = (image - kernel) / stride + 1;
        let gather = (0..out * out).flat_map(|p| {
            let tap = move |t: usize| {
                let (channel, dy, dx) = (t / (kernel * kernel), t / kernel % kernel, t % kernel);
                (channel * image + p / out * stride + dy) * image + p % out * stride + dx
            };
            (0..channels * kernel * kernel).map(tap)
        });
        let (inputs, taps) = (channels * image * image, channels * kernel * kernel);
        let gather = gather.map(|index| index as u32).collect();
        LinearMap::new(backend.basis(), inputs, rows, taps, 1, 0, weights(rows * taps), gather, &vec![3e9; rows])
    };
    let maps = [
        ("mnist-1 both convolutions", convolution(1, 28, 50, 16, 4)?),
        ("mnist-1 first convolution", convolution(1, 28, 20, 6, 2)?),
        ("mnist-1 second convolution", convolution(20, 12, 50, 6, 2)?),
        ("mnist-1 dense 800 to 10", convolution(800, 1, 10, 1, 1)?),
        ("mnist-1 dense 800 to 256", convolution(800, 1, 256, 1, 1)?),
    ];
    let mut group = criterion.benchmark_group(format!("{name} linear {bits} bits"));
    for (what, map) in &maps {
        let shape = Shape { limbs: vec![0], values: map.inputs(), components: 1, lanes: LANES };
        let x = residues(backend, shape, bits)?;
        group.throughput(Throughput::Elements(map.multiply_adds() * LANES as u64));
        let ops = [SlotwiseOp::Linear(map)];
        let mut out = backend.zeros(slotwise_shape(&ops, backend.shape(&x)))?;
        group.bench_function(*what, |b| {
            waited(b, backend, || backend.slotwise(&ops, &x, 0..LANES, black_box(&mut out)))
        });
    }
    Ok(())
}

/// Ten ciphertexts of CNN Model 1 layer by layer: four limbs, digits of two primes, two special primes.
fn ciphertexts<B: Backend>(criterion: &mut Criterion, name: &str, backend: &B) -> Result<(), Error> {
    let special = [4, 5];
    let tensor = |limbs: usize, values, components| {
        let shape = Shape { limbs: (0..limbs).collect(), values, components, lanes: backend.basis().n() };
        residues(backend, shape, 30)
    };
    let (x, product, rows) = (tensor(4, 10, 2)?, tensor(4, 10, 3)?, tensor(6, 2, 2)?);
    let key = KeySwitch { rows: &rows, layout: RelinLayout::of_primes(4, 2), special: &special };
    let cubic = Horner::new(backend.basis(), true, &[1e9, 2e9, 3e9]);
    let constants: Vec<f64> = (0..30).map(|i| 1e8 * f64::from(i)).collect();
    let cubic_per_channel = Horner::per_channel(backend.basis(), true, 10, &constants);
    let maintenance = [Maintenance { relinearise: true, drop: 1 }; 2];
    // A branch with all limbs and two components joins one with four limbs and three components.
    let (mut sum, branch, factors) = (tensor(4, 10, 3)?, tensor(6, 10, 2)?, vec![123_456_789; 4 * 10]);
    let mut group = criterion.benchmark_group(format!("{name} ten ciphertexts"));
    group.bench_function("multiply", |b| waited(b, backend, || backend.multiply(black_box(&x), &x)));
    group.bench_function("rescale", |b| waited(b, backend, || backend.mod_down(black_box(&x), &[3])));
    group.bench_function("relinearise and rescale", |b| {
        waited(b, backend, || backend.relinearise(black_box(&product), &key, 1))
    });
    group.bench_function("accumulate", |b| {
        waited(b, backend, || backend.accumulate(black_box(&mut sum), &branch, &factors));
    });
    group.bench_function("cubic activation, constants per channel", |b| {
        waited(b, backend, || backend.activation(&cubic_per_channel, &maintenance, Some(&key), black_box(&x)));
    });
    group.bench_function("cubic activation", |b| {
        waited(b, backend, || backend.activation(&cubic, &maintenance, Some(&key), black_box(&x)));
    });
    Ok(())
}

fn wire<B: Backend>(criterion: &mut Criterion, name: &str, backend: &B) -> Result<(), Error> {
    let n = backend.basis().n();
    let primes = backend.basis().primes();
    let spec = ParamsSpec { n, primes, special_primes: Vec::new(), security: SecurityLevel::Bits128 };
    let source = UniformPurpose::Ciphertext.source(&spec.build()?, &[7; 32]);
    let mut x = residues(backend, Shape { limbs: (0..3).collect(), values: 10, components: 2, lanes: n }, 24)?;
    let packed = backend.pack(&x, 0)?;
    let mut group = criterion.benchmark_group(format!("{name} wire"));
    group.throughput(Throughput::Elements(30 * n as u64));
    group.bench_function("pack", |b| waited(b, backend, || backend.pack(black_box(&x), 0)));
    group.bench_function("unpack", |b| waited(b, backend, || backend.unpack(black_box(&packed), &mut x, 0)));
    group.bench_function("expand", |b| waited(b, backend, || backend.expand(black_box(&source), 0, &mut x, 1)));
    Ok(())
}
