//! Which of the equivalent kernels to run. All return the same bits. Which is fastest depends on the adapter and its driver, and
//! wgpu does not say, so each kind of work is measured in each variant, whatever the adapter's name.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use cryptodl_core::backend::{Backend, LinearMap, Result, Shape};
use cryptodl_core::ring::{RnsBasis, ntt_primes};
use cryptodl_shaders::{self as shaders, Variant};
use serde::Serialize;

use super::device::Device;
use super::pipelines::Unit;
use super::{Gpu, GpuError, GpuOptions};

/// How kernels multiply 32-bit numbers to 64 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Multiply {
    /// Whichever is faster on the adapter.
    #[default]
    Auto,
    /// With 64-bit integers, where the adapter has them.
    U64,
    /// With 16-bit halves.
    Portable,
}

/// How linear maps sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dot {
    /// Whichever is faster on the adapter.
    #[default]
    Auto,
    /// Dot products of four packed bytes.
    Packed,
    /// Multiply-adds of integers.
    Integer,
}

/// The variant of every kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Variants {
    /// How all kernels multiply but the transforms.
    pub products: shaders::Multiply,
    /// How transforms multiply.
    pub transforms: shaders::Multiply,
    /// How linear maps sum.
    pub sums: shaders::Dot,
}

/// One measurement behind the choice.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// What was done: `products`, `transforms` or `sums`.
    pub work: &'static str,
    /// With which kernels.
    pub kernels: &'static str,
    /// Seconds, the less of two measurements.
    pub seconds: f64,
    /// Whether these kernels were chosen.
    pub chosen: bool,
}

/// Adapter, and what was asked for.
type Request = (String, Multiply, Dot);

/// The variants, and what was measured to choose them.
type Choice = (Variants, Vec<Trial>);

/// What was chosen.
static CHOSEN: LazyLock<Mutex<HashMap<Request, Choice>>> = LazyLock::new(Mutex::default);

/// A timed run takes at least this long, so that the start of a dispatch does not count.
const LEAST: Duration = Duration::from_millis(2);

/// A kind of work that tells variants apart: its name, the ring's dimension, the kernels that it takes, and so many turns of it.
struct Work {
    name: &'static str,
    n: usize,
    kernels: &'static [&'static shaders::Kernel],
    turns: fn(&Gpu, usize) -> Result<()>,
}

const PRODUCTS: Work = Work { name: "products", n: 1024, kernels: &[&shaders::MULTIPLY], turns: products };
const TRANSFORMS: Work = Work {
    name: "transforms",
    n: 4096,
    kernels: &[&shaders::NTT_FORWARD_COLUMNS, &shaders::NTT_FORWARD_ROWS],
    turns: transforms,
};
const SUMS: Work = Work { name: "sums", n: 1024, kernels: &[&shaders::LINEAR], turns: sums };

impl Variants {
    /// One variant for all kernels.
    pub fn uniform(variant: Variant) -> Self {
        Variants { products: variant.multiply, transforms: variant.multiply, sums: variant.dot }
    }

    /// That of one kernel.
    pub fn of(&self, kernel: &shaders::Kernel) -> Variant {
        let transform = kernel.overrides.contains(&"LOG_N");
        Variant { multiply: if transform { self.transforms } else { self.products }, dot: self.sums }
    }

    /// What `kernels` are for dimension `n`.
    pub fn units(&self, kernels: &[&'static shaders::Kernel], n: usize) -> Vec<Unit> {
        kernels.iter().flat_map(|&kernel| Unit::all(kernel, self.of(kernel), n)).collect()
    }

    /// In words.
    pub fn name(&self) -> &'static str {
        use shaders::Dot::{Integer, Packed};
        use shaders::Multiply::{Portable, U64};
        match (self.products, self.transforms, self.sums) {
            (U64, U64, Packed) => "wgsl, 64-bit products, packed dot products",
            (U64, U64, Integer) => "wgsl, 64-bit products, integer sums",
            (U64, Portable, Packed) => "wgsl, 64-bit products, 16-bit transforms, packed dot products",
            (U64, Portable, Integer) => "wgsl, 64-bit products, 16-bit transforms, integer sums",
            (Portable, U64, Packed) => "wgsl, 16-bit products, 64-bit transforms, packed dot products",
            (Portable, U64, Integer) => "wgsl, 16-bit products, 64-bit transforms, integer sums",
            (Portable, Portable, Packed) => "wgsl, 16-bit products, packed dot products",
            (Portable, Portable, Integer) => "wgsl, 16-bit products, integer sums",
        }
    }
}

/// The variants to run where `options` ask for them, and what was measured to choose them: once per process and adapter.
///
/// # Errors
/// 64-bit products on an adapter without 64-bit integers, or what the driver refused.
pub(super) fn choose(device: &Arc<Device>, options: &GpuOptions) -> std::result::Result<Choice, GpuError> {
    let info = &device.info;
    if options.multiply == Multiply::U64 && !info.features.int64 {
        let adapter = info.title();
        return Err(GpuError::MissingFeature {
            adapter,
            feature: "64-bit integers in shaders",
            option: "multiply u64",
        });
    }
    // Features are part of it: an adapter may be asked for with fewer.
    let key = (format!("{} {} {}", info.title(), info.driver, info.features.int64), options.multiply, options.dot);
    let mut chosen = CHOSEN.lock().expect("no code panics while it chooses");
    if let Some(known) = chosen.get(&key) {
        return Ok(known.clone());
    }
    let mut trials = Vec::new();
    let portable = Variants::uniform(Variant { multiply: shaders::Multiply::Portable, dot: shaders::Dot::Integer });
    let multiplications = match options.multiply {
        Multiply::U64 => &[shaders::Multiply::U64][..],
        Multiply::Portable => &[shaders::Multiply::Portable],
        Multiply::Auto if !info.features.int64 => &[shaders::Multiply::Portable],
        Multiply::Auto => &[shaders::Multiply::U64, shaders::Multiply::Portable],
    };
    let sums = match options.dot {
        Dot::Packed => &[shaders::Dot::Packed][..],
        Dot::Integer => &[shaders::Dot::Integer],
        Dot::Auto => &[shaders::Dot::Packed, shaders::Dot::Integer],
    };
    let mut fastest =
        |work: &Work, variants: Vec<(&'static str, Variants)>| fastest(device, options, work, variants, &mut trials);
    let products = multiplications.iter().map(|&products| (products.name(), Variants { products, ..portable }));
    let products = fastest(&PRODUCTS, products.collect())?.products;
    let transforms = multiplications.iter().map(|&transforms| (transforms.name(), Variants { transforms, ..portable }));
    let transforms = fastest(&TRANSFORMS, transforms.collect())?.transforms;
    // What sums multiply, they multiply as products.
    let sums = sums.iter().map(|&sums| (sums.name(), Variants { products, sums, ..portable }));
    let sums = fastest(&SUMS, sums.collect())?.sums;
    let variants = Variants { products, transforms, sums };
    chosen.insert(key, (variants, trials.clone()));
    Ok((variants, trials))
}

/// The variants that do `work` in the least time; nothing is measured where there is no choice.
fn fastest(
    device: &Arc<Device>,
    options: &GpuOptions,
    work: &Work,
    variants: Vec<(&'static str, Variants)>,
    trials: &mut Vec<Trial>,
) -> Result<Variants> {
    if let [(_, only)] = variants[..] {
        return Ok(only);
    }
    let primes = ntt_primes(work.n, 30, 1).expect("primes for a small ring");
    let basis = Arc::new(RnsBasis::new(work.n, &primes).expect("a small ring"));
    let options = GpuOptions { timings: false, page_bytes: None, memory_budget: TRIAL_BUDGET, ..options.clone() };
    let gpus = variants
        .iter()
        .map(|&(_, variants)| Gpu::prepare(Arc::clone(device), Arc::clone(&basis), &options, variants, work.kernels));
    let gpus = gpus.collect::<Result<Vec<_>>>()?;
    let time = |gpu: &Gpu, turns: usize| -> Result<f64> {
        (work.turns)(gpu, 1)?;
        let start = Instant::now();
        (work.turns)(gpu, turns)?;
        Ok(start.elapsed().as_secs_f64())
    };
    let mut turns = 1;
    while turns < 256 && time(&gpus[0], turns)? < LEAST.as_secs_f64() {
        turns *= 4;
    }
    let seconds = |gpu: &Gpu| -> Result<f64> { Ok(time(gpu, turns)?.min(time(gpu, turns)?) / turns as f64) };
    let seconds = gpus.iter().map(seconds).collect::<Result<Vec<f64>>>()?;
    let best = (0..seconds.len()).min_by(|&a, &b| seconds[a].total_cmp(&seconds[b])).expect("there are variants");
    let rows = variants.iter().zip(&seconds).enumerate();
    trials.extend(rows.map(|(i, (&(kernels, _), &seconds))| Trial {
        work: work.name,
        kernels,
        seconds,
        chosen: i == best,
    }));
    Ok(variants[best].1)
}

/// Device memory for the operands of a trial.
const TRIAL_BUDGET: u64 = 64 << 20;

/// Products of ciphertexts.
fn products(gpu: &Gpu, turns: usize) -> Result<()> {
    let x = gpu.zeros(Shape { limbs: vec![0], values: 64, components: 2, lanes: 1024 })?;
    for _ in 0..turns {
        gpu.multiply(&x, &x)?;
    }
    gpu.synchronise()
}

/// Transforms of polynomials, one after the other in place.
fn transforms(gpu: &Gpu, turns: usize) -> Result<()> {
    let mut x = gpu.zeros(Shape { limbs: vec![0], values: 64, components: 1, lanes: 4096 })?;
    for _ in 0..turns {
        gpu.forward_ntt(&mut x)?;
    }
    gpu.synchronise()
}

/// A dense layer.
fn sums(gpu: &Gpu, turns: usize) -> Result<()> {
    let (rows, taps) = (32, 128);
    let weights = (0..rows * taps).map(|i| (i % 255) as i16 - 127).collect();
    let map = LinearMap::new(gpu.basis(), taps, rows, taps, 1, 0, weights, (0..taps as u32).collect(), &[]);
    let map = map.expect("a map within bounds");
    let x = gpu.zeros(Shape { limbs: vec![0], values: taps, components: 2, lanes: 1024 })?;
    for _ in 0..turns {
        gpu.linear(&map, &x)?;
    }
    gpu.synchronise()
}
