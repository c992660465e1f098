//! Which of the equivalent kernels to run. All return the same bits; which is fastest depends on the adapter's driver, and wgpu
//! does not say, so it is measured.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use cryptodl_core::backend::{Backend, LinearMap, Result, Shape};
use cryptodl_core::ring::{RnsBasis, ntt_primes};
use cryptodl_shaders::{self as shaders, Variant};

use super::device::Device;
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

/// Adapter, and what was asked for.
type Request = (String, Multiply, Dot);

/// What was measured.
static CHOSEN: LazyLock<Mutex<HashMap<Request, Variant>>> = LazyLock::new(Mutex::default);

/// A timed run takes at least this long, so that the start of a dispatch does not count.
const LEAST: Duration = Duration::from_millis(2);

/// The variant to run where `multiply` and `dot` are asked for: measured once per process and adapter.
pub(super) fn choose(device: &Arc<Device>, options: &GpuOptions) -> std::result::Result<Variant, GpuError> {
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
    if let Some(&variant) = chosen.get(&key) {
        return Ok(variant);
    }
    let multiply = match options.multiply {
        Multiply::U64 => shaders::Multiply::U64,
        Multiply::Portable => shaders::Multiply::Portable,
        Multiply::Auto if !info.features.int64 => shaders::Multiply::Portable,
        Multiply::Auto => {
            let variants = [shaders::Multiply::U64, shaders::Multiply::Portable];
            faster(device, variants.map(|multiply| Variant { multiply, dot: shaders::Dot::Integer }), products)?
                .multiply
        }
    };
    let dot = match options.dot {
        Dot::Packed => shaders::Dot::Packed,
        Dot::Integer => shaders::Dot::Integer,
        Dot::Auto => {
            let variants = [shaders::Dot::Packed, shaders::Dot::Integer];
            faster(device, variants.map(|dot| Variant { multiply, dot }), sums)?.dot
        }
    };
    let variant = Variant { multiply, dot };
    chosen.insert(key, variant);
    Ok(variant)
}

/// The variant that does `work` in less time.
fn faster(
    device: &Arc<Device>,
    variants: [Variant; 2],
    work: fn(&Gpu, usize) -> Result<()>,
) -> std::result::Result<Variant, GpuError> {
    let n = 1024;
    let primes = ntt_primes(n, 30, 1).expect("primes for a small ring");
    let basis = Arc::new(RnsBasis::new(n, &primes).expect("a small ring"));
    let kernels = [&shaders::MULTIPLY, &shaders::LINEAR];
    let gpu =
        |variant| Gpu::prepare(Arc::clone(device), Arc::clone(&basis), &GpuOptions::new(64 << 20), variant, &kernels);
    let gpus = [gpu(variants[0])?, gpu(variants[1])?];
    let time = |gpu: &Gpu, repetitions: usize| -> Result<Duration> {
        work(gpu, 1)?;
        let start = Instant::now();
        work(gpu, repetitions)?;
        Ok(start.elapsed())
    };
    let mut repetitions = 1;
    while repetitions < 256 && time(&gpus[0], repetitions)? < LEAST {
        repetitions *= 4;
    }
    let best = |gpu| -> Result<Duration> { Ok(time(gpu, repetitions)?.min(time(gpu, repetitions)?)) };
    Ok(variants[usize::from(best(&gpus[1])? < best(&gpus[0])?)])
}

/// Products of ciphertexts.
fn products(gpu: &Gpu, repetitions: usize) -> Result<()> {
    let x = gpu.zeros(Shape { limbs: vec![0], values: 64, components: 2, lanes: 1024 })?;
    for _ in 0..repetitions {
        gpu.multiply(&x, &x)?;
    }
    gpu.synchronise()
}

/// A dense layer.
fn sums(gpu: &Gpu, repetitions: usize) -> Result<()> {
    let (rows, taps) = (32, 128);
    let weights = (0..rows * taps).map(|i| (i % 255) as i16 - 127).collect();
    let map = LinearMap::new(gpu.basis(), taps, rows, taps, 1, 0, weights, (0..taps as u32).collect(), &[]);
    let map = map.expect("a map within bounds");
    let x = gpu.zeros(Shape { limbs: vec![0], values: taps, components: 2, lanes: 1024 })?;
    for _ in 0..repetitions {
        gpu.linear(&map, &x)?;
    }
    gpu.synchronise()
}
