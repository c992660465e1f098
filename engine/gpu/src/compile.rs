//! What it costs to compile the kernels: one at a time, in every variant, with a first launch, because some drivers compile only
//! then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cryptodl_core::backend::Result;
use cryptodl_shaders::params::Limb;
use cryptodl_shaders::{self as shaders, Multiply, Variant};

use super::device::Device;
use super::pipelines::{CompileWatch, Unit, watched};
use super::recorder::{Argument, Recorder, Slice};
use super::{Adapter, GpuError};

/// Compiles the kernels of an open adapter for one ring dimension.
pub struct CompileTrial {
    device: Arc<Device>,
    n: usize,
    watch: CompileWatch,
}

/// A kernel in one variant.
#[derive(Clone, Copy, Debug)]
pub struct Compilation(Unit);

impl Compilation {
    /// The kernel.
    pub fn kernel(&self) -> &'static str {
        self.0.kernel.name
    }

    /// Kernel, variant and override in words.
    pub fn title(&self) -> String {
        self.0.to_string()
    }
}

impl CompileTrial {
    /// Opens `adapter`; `n` is a power of two from 1024 to 65536.
    ///
    /// # Errors
    /// As [`super::Gpu::new`].
    pub fn open(adapter: &Adapter, n: usize, watch: CompileWatch) -> std::result::Result<Self, GpuError> {
        Ok(CompileTrial { device: Arc::new(Device::open(adapter)?), n, watch })
    }

    /// Everything that a computation on this adapter could compile: each kernel once per variant that differs.
    pub fn compilations(&self) -> Vec<Compilation> {
        let runs = |variant: &Variant| self.device.info.features.int64 || variant.multiply != Multiply::U64;
        // Without 64-bit integers the second half of the variants is left, in which every kernel has one.
        let variants = |kernel: &'static shaders::Kernel| -> Vec<Variant> {
            let mut sources: Vec<Variant> = Vec::new();
            for variant in Variant::ALL.into_iter().filter(runs) {
                if sources.iter().all(|known| !std::ptr::eq(kernel.wgsl(*known), kernel.wgsl(variant))) {
                    sources.push(variant);
                }
            }
            sources
        };
        let units = |&kernel: &&'static shaders::Kernel| -> Vec<Unit> {
            variants(kernel).into_iter().flat_map(|variant| Unit::all(kernel, variant, self.n)).collect()
        };
        shaders::KERNELS.iter().flat_map(units).map(Compilation).collect()
    }

    /// Time until the kernel is compiled and has run once on next to nothing.
    ///
    /// # Errors
    /// What the driver refused, or that it took longer than the watch allows.
    pub fn run(&self, compilation: Compilation) -> Result<Duration> {
        let start = Instant::now();
        watched(&self.device, &self.device.info.name, vec![compilation.0], 1, &self.watch, launched)?;
        Ok(start.elapsed())
    }
}

/// Compiles a kernel and runs one workgroup of it.
///
/// All parameters and all fields of all limbs are 1, other operands are 0. So there is one limb, value, component, lane, position
/// and quad, strides are 1, and no divisor is 0; a residue modulo 1 is drawn after two words on average. Kernels then read and write
/// no further than the twiddles of the second limb: 4 N words and a few, where a workgroup of `expand` ends at 1024.
fn launched(unit: &Unit, device: &Arc<Device>) -> Result<()> {
    let kernel = unit.compile(device)?;
    let params = vec![1u32; unit.kernel.params_size as usize / 4];
    let limbs = [1u32; 16 * size_of::<Limb>() / 4];
    let bytes: [&[u8]; 2] = [bytemuck::must_cast_slice(&params), bytemuck::must_cast_slice(&limbs)];
    let mut arguments = Vec::from(bytes.map(Argument::Bytes));
    let words = 8 * (1u64 << unit.value.max(10)) + (1 << 14);
    for _ in &unit.kernel.bindings[arguments.len()..] {
        let buffer = device.buffer("cryptodl trial", 4 * words, wgpu::BufferUsages::STORAGE)?;
        arguments.push(Argument::Buffer(Slice::whole(&buffer)));
    }
    let recorder = Recorder::new(Arc::clone(device), false)?;
    recorder.dispatch(&kernel, arguments, [1; 3])?;
    recorder.wait()
}
